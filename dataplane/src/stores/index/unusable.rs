//! Indices that take nothing now, so that requests for others don't wait for them again and again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an index that refused is not asked. What comes for it meanwhile is indexed late, which begins after as long.
const LEAVE: Duration = Duration::from_secs(15);
/// Most that are remembered: many more than are written to at a time.
const MOST: usize = 10_000;

/// Shared by all that write.
#[derive(Debug, Default)]
pub struct UnusableIndices {
    until: Mutex<HashMap<String, Instant>>,
}

impl UnusableIndices {
    /// Notes that this index takes nothing.
    pub fn insert(&self, index: &str, now: Instant) {
        let mut until = self.lock();
        until.retain(|_, until| now < *until);
        if until.len() < MOST {
            until.insert(index.to_owned(), now + LEAVE);
        }
    }

    /// Whether it took nothing a moment ago.
    pub fn contains(&self, index: &str, now: Instant) -> bool {
        self.lock().get(index).is_some_and(|until| now < *until)
    }

    /// How many there are.
    pub fn count(&self, now: Instant) -> i64 {
        self.lock().values().filter(|until| now < **until).count() as i64
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_asked_again_after_a_while() {
        let (unusable, start) = (UnusableIndices::default(), Instant::now());
        unusable.insert("a", start);
        assert!(unusable.contains("a", start) && !unusable.contains("b", start));
        assert!(!unusable.contains("a", start + LEAVE));
        unusable.insert("b", start + LEAVE);
        assert_eq!(unusable.lock().len(), 1, "what is over is forgotten");
    }
}
