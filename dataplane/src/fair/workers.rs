//! The places of work: so many steps run at once, and tenants take turns at them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use tokio::sync::{Notify, oneshot};

use super::turns::Turns;

/// The places of one process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers {
    places: usize,
    state: Arc<Mutex<State>>,
    given_on: Arc<Notify>,
}

struct State {
    free: usize,
    waiting: Turns<oneshot::Sender<Place>>,
    /// Since when each place is held, by its number.
    held: BTreeMap<u64, Instant>,
    next: u64,
}

/// A place; given on when dropped.
pub(crate) struct Place {
    /// `None` once it was given on.
    workers: Option<Workers>,
    number: u64,
}

impl Workers {
    /// So many places, at least one.
    pub(crate) fn new(places: usize) -> Self {
        let places = places.max(1);
        let state = State { free: places, waiting: Turns::default(), held: BTreeMap::new(), next: 0 };
        Self { places, state: Arc::new(Mutex::new(state)), given_on: Arc::default() }
    }

    /// Waits for a place: behind what the tenant waits for already, and in turn with other tenants.
    pub(crate) async fn place(&self, tenant: &TenantName) -> Place {
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return self.hand_out(&mut state);
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

    /// Waits until no more steps wait than there are places. What is read only then comes in larger
    /// flushes, and an event costs the stores the less the larger its flush is.
    pub(crate) async fn caught_up(&self) {
        loop {
            let given_on = self.given_on.notified();
            if self.lock().waiting.len() <= self.places {
                return;
            }
            given_on.await;
        }
    }

    /// How long the place has been held that has been held longest.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        let since = self.lock().held.values().min().copied();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn hand_out(&self, state: &mut State) -> Place {
        let number = state.next;
        state.next += 1;
        state.held.insert(number, Instant::now());
        Place { workers: Some(self.clone()), number }
    }

    fn give_on(&self, number: u64) {
        self.give_to_next(number);
        self.given_on.notify_waiters();
    }

    fn give_to_next(&self, number: u64) {
        let mut state = self.lock();
        state.held.remove(&number);
        while let Some((_, waiting)) = state.waiting.next() {
            let place = self.hand_out(&mut state);
            match waiting.send(place) {
                Ok(()) => return,
                // It does not wait any more: the place is still ours to give.
                Err(mut place) => {
                    place.workers = None;
                    state.held.remove(&place.number);
                }
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
            workers.give_on(self.number);
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
        assert!(workers.lock().held.is_empty());
    }

    #[tokio::test]
    async fn the_oldest_place_says_how_long_somebody_works() {
        let workers = Workers::new(2);
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(workers.longest(later), Duration::ZERO);
        let first = workers.place(&name("a")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let second = workers.place(&name("b")).await;
        let with_first = workers.longest(later);
        assert!(with_first > Duration::from_secs(59));
        drop(first);
        assert!(workers.longest(later) < with_first && workers.longest(later) > Duration::from_secs(59));
        drop(second);
        assert_eq!(workers.longest(later), Duration::ZERO);
    }

    #[tokio::test]
    async fn it_has_caught_up_when_no_more_wait_than_there_are_places() {
        let workers = Workers::new(1);
        let first = workers.place(&name("a")).await;
        workers.caught_up().await;
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let workers = workers.clone();
                tokio::spawn(async move { workers.place(&name("a")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let reader = workers.clone();
        let caught_up = tokio::spawn(async move { reader.caught_up().await });
        tokio::task::yield_now().await;
        assert!(!caught_up.is_finished(), "two wait for one place");
        drop(first);
        caught_up.await.unwrap();
        for place in waiting {
            drop(place.await.unwrap());
        }
    }
}
