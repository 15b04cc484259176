//! Which stores answer: asked every few seconds, so that the scaler can hold, and so that Tenants
//! that wait for a store are looked at as soon as it is back.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::{OperatorMetrics, Store};
use crate::provision::Stores;

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
}

impl StoresUp {
    /// Whether a store answers now that did not before.
    pub fn recovered_since(self, before: Self) -> bool {
        (self.postgres && !before.postgres)
            || (self.object_store && !before.object_store)
            || (self.search && !before.search)
            || (self.redis && !before.redis)
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
    loop {
        let now = ask(&stores).await;
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

async fn ask(stores: &Stores) -> StoresUp {
    let (postgres, object_store, search, redis) = tokio::join!(
        answered(stores.postgres.ping()),
        answered(stores.object_store.ping()),
        answered(stores.search.ping()),
        answered(stores.registry.ping()),
    );
    StoresUp { postgres, object_store, search, redis }
}

async fn answered<T, E>(question: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(PATIENCE, question).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_a_store_that_answers_again() {
        let up = StoresUp { postgres: true, object_store: true, search: true, redis: true };
        let down = StoresUp { search: false, ..up };
        assert!(up.recovered_since(down));
        assert!(!down.recovered_since(up));
        assert!(!up.recovered_since(up));
        assert_eq!(down.missing_for_processors(), Some("OpenSearch"));
        assert_eq!(StoresUp { object_store: false, ..up }.missing_for_processors(), None);
    }
}
