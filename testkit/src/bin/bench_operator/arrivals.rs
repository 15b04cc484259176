//! When each Tenant was first seen Ready, by a watch of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::tenants::Tenants;

pub(crate) struct Arrivals {
    seen: Arc<Seen>,
    watch: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    ready: Mutex<HashMap<String, Instant>>,
    more: Notify,
}

impl Arrivals {
    pub(crate) fn watch(tenants: &Tenants) -> Self {
        let seen = Arc::new(Seen::default());
        let config = watcher::Config::default().labels(&tenants.selector());
        let mut changes = watcher(tenants.cluster.tenants(), config).default_backoff().applied_objects().boxed();
        let noted = Arc::clone(&seen);
        let watch = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                match change {
                    Ok(tenant) if is_ready(&tenant) => noted.note(tenant.name_any()),
                    Ok(_) => {}
                    Err(error) => eprintln!("watch: {error}"),
                }
            }
        });
        Self { seen, watch }
    }

    /// Waits until all of them were Ready, and says when each was.
    pub(crate) async fn ready(&self, names: &[String], within: Duration) -> anyhow::Result<Vec<Instant>> {
        let all = async {
            loop {
                let more = self.seen.more.notified();
                if let Some(ready) = self.seen.all(names) {
                    return ready;
                }
                more.await;
            }
        };
        let waited = tokio::time::timeout(within, all).await;
        waited.with_context(|| format!("of {} Tenants some are not Ready within {within:?}", names.len()))
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Seen {
    fn note(&self, name: String) {
        let now = Instant::now();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert(now);
        self.more.notify_waiters();
    }

    fn all(&self, names: &[String]) -> Option<Vec<Instant>> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(|name| ready.get(name).copied()).collect()
    }
}

fn is_ready(tenant: &crds::Tenant) -> bool {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == tenant.metadata.generation)
}
