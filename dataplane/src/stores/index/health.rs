//! Whether to ask OpenSearch, to do without it, or to look whether it is back: a circuit breaker that
//! writers and readers share the idea of, each with its own patience.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two looks at an index that is given up.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Longest time that a request may take to look and, if the index answers, to do what it wants: until
/// then no other one looks, so that a server that accepts and never answers holds up one only.
const PROBE_TIME: Duration = Duration::from_secs(15);

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

/// What to do about the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Ask it.
    Now,
    /// See whether it is back; only then is a larger request worth its cost.
    Probe,
    /// Do without it.
    Leave,
}

impl IndexHealth {
    /// An index that is well. An outage is given up after `patience`.
    pub fn new(patience: Duration) -> Self {
        Self { patience, outage: Mutex::default() }
    }

    /// What to do now. During an outage that was given up one request now and then looks.
    pub fn ask(&self, now: Instant) -> Ask {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *outage {
            Some(outage) if now < outage.since + self.patience => Ask::Now,
            Some(outage) if now >= outage.next_probe => {
                outage.next_probe = now + PROBE_TIME;
                Ask::Probe
            }
            Some(_) => Ask::Leave,
            None => Ask::Now,
        }
    }

    /// The index failed a request that was `sent` some time ago. Whether to try again rather than give
    /// it up.
    pub fn failed(&self, sent: Instant, now: Instant) -> bool {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outage.get_or_insert(Outage { since: sent, next_probe: now });
        outage.next_probe = now + PROBE_EVERY;
        now < outage.since + self.patience
    }

    /// The index answered. Whether that ends an outage.
    pub fn answered(&self) -> bool {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn an_outage_is_waited_for_then_only_probed_then_over() {
        let health = IndexHealth::new(PATIENCE);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(health.ask(at(0)) == Ask::Now && !health.answered());
        assert!(health.failed(at(0), at(1)) && health.failed(at(3), at(4)), "patient at first");
        assert_eq!(health.ask(at(4)), Ask::Now);
        assert!(!health.failed(at(4), at(5)), "then it is left to maintain");
        assert_eq!(health.ask(at(7)), Ask::Leave);
        assert_eq!(health.ask(at(8)), Ask::Probe, "one flush looks whether it is back");
        assert_eq!([9, 12, 20].map(|now| health.ask(at(now))), [Ask::Leave; 3], "the others go on without");
        assert!(!health.failed(at(8), at(21)));
        assert_eq!([at(22), at(24)].map(|now| health.ask(now)), [Ask::Leave, Ask::Probe]);
        assert!(health.answered());
        assert_eq!([at(24), at(24)].map(|now| health.ask(now)), [Ask::Now; 2]);
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let health = IndexHealth::new(PATIENCE);
        let start = Instant::now();
        assert!(!health.failed(start, start + PATIENCE));
        assert_eq!(health.ask(start + PATIENCE + PROBE_EVERY), Ask::Probe);
        assert_eq!(health.ask(start + PATIENCE + PROBE_EVERY + PROBE_TIME), Ask::Probe);
    }

    #[test]
    fn without_patience_one_failure_is_enough_and_one_request_at_a_time_looks_again() {
        let health = IndexHealth::new(Duration::ZERO);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.ask(at(0)), Ask::Now);
        assert!(!health.failed(at(0), at(3)));
        assert_eq!([4, 5].map(|now| health.ask(at(now))), [Ask::Leave; 2], "nobody waits for it again");
        assert_eq!([6, 6, 8].map(|now| health.ask(at(now))), [Ask::Probe, Ask::Leave, Ask::Leave], "one looks");
        assert!(!health.failed(at(6), at(9)));
        assert_eq!(health.ask(at(12)), Ask::Probe);
        assert!(health.answered() && health.ask(at(12)) == Ask::Now);
    }
}
