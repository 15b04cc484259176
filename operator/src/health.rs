//! Which stores answer: asked every few seconds, so that the scaler can hold, and so that Tenants
//! that wait for a store are looked at as soon as it is back.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::{OperatorMetrics, Store};
use crate::provision::Stores;
use crate::provision::redis::{Mark, Registry};

/// Time between two questions, and the longest wait for an answer.
const INTERVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(4);

/// Which stores answered last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoresUp {
    /// PostgreSQL.
    pub postgres: bool,
    /// The object store.
    pub object_store: bool,
    /// OpenSearch.
    pub search: bool,
    /// The queue's Redis.
    pub redis: bool,
    /// How often the registry in it was found lost, though it answered.
    pub registry_losses: u32,
}

impl StoresUp {
    /// Whether a store answers now that did not before, or lost what Tenants had there.
    pub fn recovered_since(self, before: Self) -> bool {
        (self.postgres && !before.postgres)
            || (self.object_store && !before.object_store)
            || (self.search && !before.search)
            || (self.redis && !before.redis)
            || self.registry_losses > before.registry_losses
    }

    /// The stores that processors can't work without, as far as they are down.
    pub fn missing_for_processors(self) -> Option<&'static str> {
        match (self.postgres, self.search) {
            (false, _) => Some("PostgreSQL"),
            (true, false) => Some("OpenSearch"),
            (true, true) => None,
        }
    }
}

/// Asks until `shutdown`.
pub async fn run(
    stores: Stores,
    metrics: OperatorMetrics,
    answers: watch::Sender<StoresUp>,
    shutdown: CancellationToken,
) {
    let mut registry = Watched::default();
    loop {
        let now = ask(&stores, &mut registry).await;
        for (store, up) in [
            (Store::postgres, now.postgres),
            (Store::s3, now.object_store),
            (Store::opensearch, now.search),
            (Store::redis, now.redis),
        ] {
            metrics.store_up(store, up);
        }
        answers.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(?before, ?now, "the stores that answer have changed");
            }
            *before = now;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// What is known of the registry.
#[derive(Default)]
struct Watched {
    mark: Option<Mark>,
    losses: u32,
}

impl Watched {
    /// Looks at it; says whether Redis answers.
    async fn look(&mut self, registry: &Registry) -> bool {
        let looked = tokio::time::timeout(PATIENCE, registry.look(self.mark.as_ref())).await;
        let Ok(Ok((mark, lost))) = looked else { return false };
        if lost {
            self.losses += 1;
            tracing::warn!(was = ?self.mark, is = ?mark, "Redis lost the registry: every Tenant is projected anew");
        }
        self.mark = Some(mark);
        true
    }
}

async fn ask(stores: &Stores, registry: &mut Watched) -> StoresUp {
    let (postgres, object_store, search, redis) = tokio::join!(
        answered(stores.postgres.ping()),
        answered(stores.object_store.ping()),
        answered(stores.search.ping()),
        registry.look(&stores.registry),
    );
    StoresUp { postgres, object_store, search, redis, registry_losses: registry.losses }
}

async fn answered<T, E>(question: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(PATIENCE, question).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_a_store_that_answers_again() {
        let up = StoresUp { postgres: true, object_store: true, search: true, redis: true, registry_losses: 0 };
        let down = StoresUp { search: false, ..up };
        assert!(up.recovered_since(down));
        assert!(!down.recovered_since(up));
        assert!(!up.recovered_since(up));
        assert!(StoresUp { registry_losses: 1, ..up }.recovered_since(up));
        assert_eq!(down.missing_for_processors(), Some("OpenSearch"));
        assert_eq!(StoresUp { object_store: false, ..up }.missing_for_processors(), None);
    }
}
