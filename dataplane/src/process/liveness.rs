//! Whether a processor still gets on: for its liveness probe, and for those who would take over what it holds.

use std::time::{Duration, Instant};

use crate::fair::workers::Workers;

/// Longest time that one step of a flush may take. Mapping 20 MiB takes seconds, and every wait for a store ends within
/// a minute: whoever takes five times as long waits for something that never comes.
const LONGEST: Duration = Duration::from_secs(300);

/// How a processor is. Cheap to clone.
#[derive(Clone)]
pub struct Liveness {
    workers: Workers,
}

/// What is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Each step ends in time.
    Healthy,
    /// A step has not ended for so long: only a restart helps.
    Stuck(Duration),
}

impl Liveness {
    pub(super) fn of(workers: &Workers) -> Self {
        Self { workers: workers.clone() }
    }

    /// How it is at `now`.
    pub fn at(&self, now: Instant) -> Life {
        life(self.workers.longest(now))
    }

    /// How long the oldest step has taken so far, at `now`.
    pub fn oldest_step(&self, now: Instant) -> Duration {
        self.workers.longest(now)
    }
}

fn life(longest: Duration) -> Life {
    if longest > LONGEST { Life::Stuck(longest) } else { Life::Healthy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_does_not_end_is_the_end_of_health() {
        assert_eq!(life(Duration::ZERO), Life::Healthy);
        assert_eq!(life(LONGEST), Life::Healthy);
        let longer = LONGEST + Duration::from_secs(1);
        assert_eq!(life(longer), Life::Stuck(longer));
    }
}
