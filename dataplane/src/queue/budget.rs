//! Bytes that a process may hold for requests not yet answered.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The process's budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: usize,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes are in flight")]
pub struct Overloaded;

/// One request's part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        let total = total.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(total)), total }
    }

    /// Bytes claimed right now.
    pub fn in_flight(&self) -> usize {
        self.total - self.free.available_permits()
    }

    /// A claim of nothing yet.
    pub fn claim(&self) -> Claim {
        Claim { budget: self.clone(), held: None }
    }
}

impl Claim {
    /// Takes `bytes` more, or nothing if there are not that many. Never waits: whoever can't be
    /// served now is told so while it still holds its data.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let bytes = u32::try_from(bytes).map_err(|_| Overloaded)?;
        let more = Arc::clone(&self.budget.free).try_acquire_many_owned(bytes).map_err(|_| Overloaded)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_bounded_and_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.claim();
        first.grow(60).unwrap();
        first.grow(20).unwrap();
        let mut second = budget.claim();
        assert_eq!(second.grow(21), Err(Overloaded));
        second.grow(20).unwrap();
        assert_eq!(budget.in_flight(), 100);
        drop(first);
        assert_eq!(budget.in_flight(), 20);
    }
}
