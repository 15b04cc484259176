//! How long a failing object waits: 2 s, doubled each time up to 256 s, each ±20 % so that a
//! thousand tenants do not come back at once. Success forgets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;

/// First wait; doubled [`DOUBLINGS`] times at most.
const FIRST: Duration = Duration::from_secs(2);
const DOUBLINGS: u32 = 7;

/// Consecutive failures of each object.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Counts a failure and says how long to wait.
    pub fn failed(&self, object: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        let wait = wait(*count);
        *count = count.saturating_add(1);
        jittered(wait)
    }

    /// Forgets an object that succeeded or is gone.
    pub fn succeeded(&self, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    /// Forgets all: what they waited for is back.
    pub fn clear(&self) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn wait(failures: u32) -> Duration {
    FIRST * 2_u32.pow(failures.min(DOUBLINGS))
}

/// A duration ±20 %.
pub fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::rng().random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_256_seconds() {
        let waits: Vec<u64> = (0..10).map(|failures| wait(failures).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }

    #[test]
    fn success_begins_anew() {
        let backoff = Backoff::default();
        for _ in 0..5 {
            backoff.failed("acme");
        }
        backoff.succeeded("acme");
        assert!(backoff.failed("acme") < Duration::from_secs(3));
    }
}
