//! Whether to wait for OpenSearch, to leave indexing to `maintain`, or to look whether it is back.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an outage of the index holds up acknowledging. Longer, and a Redis full of events
/// would be the price; what is stored without being indexed costs disk only.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a flush tries an index that has been away for longer.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// Shared by all flushes.
#[derive(Debug, Default)]
pub(super) struct IndexHealth {
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    next_probe: Instant,
}

impl IndexHealth {
    /// Whether a flush should ask the index now. During a long outage one flush now and then does.
    pub(super) fn should_try(&self, now: Instant) -> bool {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *outage {
            Some(outage) if now >= outage.since + PATIENCE => {
                let due = now >= outage.next_probe;
                if due {
                    outage.next_probe = now + PROBE_EVERY;
                }
                due
            }
            _ => true,
        }
    }

    /// The index failed a request that was `sent` some time ago. Whether to try again rather than
    /// leave it to `maintain`.
    pub(super) fn failed(&self, sent: Instant, now: Instant) -> bool {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outage.get_or_insert(Outage { since: sent, next_probe: now });
        now < outage.since + PATIENCE
    }

    /// The index answered. Whether that ends an outage.
    pub(super) fn answered(&self) -> bool {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_waited_for_then_only_probed_then_over() {
        let health = IndexHealth::default();
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
}
