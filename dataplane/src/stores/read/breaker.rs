//! When the index is not asked: one that takes no connection is left alone by everybody for a moment, one that does
//! not answer a tenant by that tenant, and by everybody once it leaves several without an answer.
//!
//! A query that fails, or that takes too long while the index answers an easy question, is nobody's business but that
//! query's: no tenant decides from where others are answered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;

use crate::stores::index::{Ask, IndexHealth};

/// How long a tenant that got no answer is answered without the index.
const PAUSE: Duration = Duration::from_secs(3);
/// Tenants without an answer within this time are counted together: three times what one of them waits.
const WINDOW: Duration = Duration::from_secs(12);
/// So many tenants without an answer are no accident of one's own: the index is away.
const SEVERAL: usize = 2;
/// Most tenants remembered; several are enough to know.
const MAX_SILENT: usize = 1024;

/// Shared by all that read.
#[derive(Debug)]
pub(super) struct Breaker {
    everybody: IndexHealth,
    /// Tenants that got no answer, and when they were given up.
    silent: Mutex<HashMap<TenantName, Instant>>,
}

impl Breaker {
    /// An index that is well. A reader has no patience: whoever asks after a failure is answered from the catalog at
    /// once.
    pub(super) fn new() -> Self {
        Self { everybody: IndexHealth::new(Duration::ZERO), silent: Mutex::default() }
    }

    /// What this tenant is to do now.
    pub(super) fn ask(&self, tenant: &TenantName, now: Instant) -> Ask {
        if self.silent().get(tenant).is_some_and(|since| now < *since + PAUSE) {
            return Ask::Leave;
        }
        self.everybody.ask(now)
    }

    /// No connection, or one that broke: it would be the same for everybody.
    pub(super) fn broken(&self, sent: Instant, now: Instant) {
        self.everybody.failed(sent, now);
    }

    /// No answer to this tenant, not even to an easy question; `asked` is what [`Self::ask`] had said.
    pub(super) fn unanswered(&self, tenant: &TenantName, asked: Ask, sent: Instant, now: Instant) {
        let mut silent = self.silent();
        silent.retain(|_, since| now < *since + WINDOW);
        if silent.len() < MAX_SILENT {
            silent.insert(tenant.clone(), now);
        }
        let several = silent.len() >= SEVERAL;
        drop(silent);
        if several || asked == Ask::Probe {
            self.everybody.failed(sent, now);
        }
    }

    /// Any answer at all, a refusal as well.
    pub(super) fn answered(&self, tenant: &TenantName) {
        self.silent().remove(tenant);
        if self.everybody.answered() {
            tracing::info!("the index answers again");
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<TenantName, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[test]
    fn one_tenant_without_an_answer_leaves_the_others_theirs() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        for again in 0..5 {
            let now = at(again * 4);
            assert_eq!(breaker.ask(&a, now), Ask::Now);
            breaker.unanswered(&a, Ask::Now, now, now);
            assert_eq!(breaker.ask(&a, now + PAUSE / 2), Ask::Leave, "it need not wait again");
            assert_eq!(breaker.ask(&b, now + PAUSE / 2), Ask::Now, "however often");
        }
        breaker.unanswered(&b, Ask::Now, at(17), at(17));
        assert_eq!(breaker.ask(&c, at(18)), Ask::Leave, "two tenants are several");
        assert_eq!(breaker.ask(&c, at(20)), Ask::Probe);
        breaker.answered(&c);
        assert_eq!([&a, &b, &c].map(|tenant| breaker.ask(tenant, at(20))), [Ask::Now; 3]);
    }

    #[test]
    fn tenants_that_got_no_answer_long_apart_are_not_several() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        breaker.unanswered(&tenant("a"), Ask::Now, start, start);
        breaker.unanswered(&tenant("b"), Ask::Now, start, start + WINDOW);
        assert_eq!(breaker.ask(&tenant("c"), start + WINDOW), Ask::Now);
    }

    #[test]
    fn no_connection_is_no_connection_for_everybody_and_one_looks_again() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        let (a, b) = (tenant("a"), tenant("b"));
        breaker.broken(start, start);
        assert_eq!([&a, &b].map(|tenant| breaker.ask(tenant, start)), [Ask::Leave; 2]);
        let later = start + PAUSE;
        assert_eq!([&a, &b].map(|tenant| breaker.ask(tenant, later)), [Ask::Probe, Ask::Leave]);
        breaker.unanswered(&a, Ask::Probe, later, later);
        assert_eq!(breaker.ask(&b, later + PAUSE / 2), Ask::Leave, "who looked found it as it was");
        assert_eq!(breaker.ask(&b, later + PAUSE), Ask::Probe);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (breaker, now) = (Breaker::new(), Instant::now());
        for n in 0..MAX_SILENT + 10 {
            breaker.unanswered(&tenant(&format!("t{n}")), Ask::Now, now, now);
        }
        assert_eq!(breaker.silent().len(), MAX_SILENT);
        breaker.unanswered(&tenant("later"), Ask::Now, now, now + WINDOW);
        assert_eq!(breaker.silent().len(), 1);
    }
}
