//! Whether to ask OpenSearch, to do without it, or to look whether it is back: a circuit breaker that
//! writers and readers share the idea of, each with its own patience.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often an index that is given up is asked again.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// Shared by all that ask.
#[derive(Debug)]
pub struct IndexHealth {
    patience: Duration,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    next_probe: Instant,
}

impl IndexHealth {
    /// An index that is well. An outage is given up after `patience`.
    pub fn new(patience: Duration) -> Self {
        Self { patience, outage: Mutex::default() }
    }

    /// Whether to ask the index now. During an outage that was given up one request now and then does.
    pub fn should_try(&self, now: Instant) -> bool {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *outage {
            Some(outage) if now >= outage.since + self.patience => {
                let due = now >= outage.next_probe;
                if due {
                    outage.next_probe = now + PROBE_EVERY;
                }
                due
            }
            _ => true,
        }
    }

    /// The index failed a request that was `sent` some time ago. Whether to try again rather than give
    /// it up.
    pub fn failed(&self, sent: Instant, now: Instant) -> bool {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outage.get_or_insert(Outage { since: sent, next_probe: now + self.first_probe() });
        now < outage.since + self.patience
    }

    /// Where there is patience, retries are the first probes; where there is none, the next is due later.
    fn first_probe(&self) -> Duration {
        if self.patience.is_zero() { PROBE_EVERY } else { Duration::ZERO }
    }

    /// The index answered. Whether that ends an outage.
    pub fn answered(&self) -> bool {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_waited_for_then_only_probed_then_over() {
        let health = IndexHealth::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(health.should_try(at(0)) && !health.answered());
        assert!(health.failed(at(0), at(1)) && health.failed(at(8), at(9)), "patient at first");
        assert!(health.should_try(at(9)));
        assert!(!health.failed(at(9), at(10)), "then it is left to maintain");
        assert!(health.should_try(at(11)), "one flush looks whether it is back");
        assert!(!health.should_try(at(11)) && !health.should_try(at(13)), "the others go on without");
        assert!(health.should_try(at(14)));
        assert!(health.answered() && health.should_try(at(14)) && health.should_try(at(14)));
    }
    #[test]
    fn without_patience_one_failure_is_enough_and_one_request_at_a_time_looks_again() {
        let health = IndexHealth::new(Duration::ZERO);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(health.should_try(at(0)));
        assert!(!health.failed(at(0), at(3)));
        assert!(!health.should_try(at(4)) && !health.should_try(at(5)), "nobody waits for it again");
        assert!(health.should_try(at(6)), "one looks");
        assert!(!health.should_try(at(6)) && !health.should_try(at(8)));
        assert!(!health.failed(at(6), at(9)));
        assert!(health.should_try(at(9)));
        assert!(health.answered() && health.should_try(at(9)));
    }
}
