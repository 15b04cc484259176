//! The places of work: so many steps of flushes run at once, and tenants take turns at them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::TenantName;
use tokio::sync::oneshot;

use super::rotation::Rotation;

/// The places of one process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Workers {
    state: Arc<Mutex<State>>,
}

struct State {
    free: usize,
    waiting: Rotation<oneshot::Sender<Place>>,
}

/// A place; given on when dropped.
pub(super) struct Place {
    /// `None` once it was given on.
    workers: Option<Workers>,
}

impl Workers {
    /// So many places, at least one.
    pub(super) fn new(places: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { free: places.max(1), waiting: Rotation::default() })) }
    }

    /// Waits for a place: behind what the tenant waits for already, and in turn with other tenants.
    pub(super) async fn place(&self, tenant: &TenantName) -> Place {
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Place { workers: Some(self.clone()) };
            }
            let (give, given) = oneshot::channel();
            state.waiting.push(tenant, give);
            given
        };
        match given.await {
            Ok(place) => place,
            // Whoever waits is kept in the state that we hold, so this is never reached.
            Err(_) => std::future::pending().await,
        }
    }

    fn give_on(&self) {
        let mut state = self.lock();
        while let Some((_, waiting)) = state.waiting.next() {
            match waiting.send(Place { workers: Some(self.clone()) }) {
                Ok(()) => return,
                // It does not wait any more: the place is still ours to give.
                Err(mut place) => place.workers = None,
            }
        }
        state.free += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.give_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn tenants_take_turns_and_no_place_is_lost() {
        let workers = Workers::new(1);
        let first = workers.place(&name("a")).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for tenant in ["a", "a", "a", "b"] {
            let (workers, order) = (workers.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _place = workers.place(&name(tenant)).await;
                order.lock().unwrap().push(tenant);
            }));
            tokio::task::yield_now().await;
        }
        // One that gives up waiting takes no place with it.
        tasks.remove(1).abort();
        tokio::task::yield_now().await;
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["a", "b", "a"]);
        assert_eq!(workers.lock().free, 1);
    }
}
