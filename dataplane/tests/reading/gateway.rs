//! The role gateway: what it forwards, what it refuses, and the live tail.

mod forwarding;
mod tail;
mod resume;
mod hostile_frames;
mod paths;

use dataplane::gateway::forward::Upstream;
use dataplane::gateway::{Gateway, Tails, router};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::house::{House, Served, closed_port};

/// A gateway in front of `upstream`, or of nothing.
pub(crate) async fn gateway(
    house: &House,
    upstream: Option<&Served>,
    stop: &CancellationToken,
) -> anyhow::Result<Served> {
    let url = match upstream {
        Some(served) => served.url.clone(),
        None => format!("http://{}", closed_port().await?),
    };
    Served::start(router(Gateway {
        registry: house.registry.clone(),
        ingest: Upstream::new(&url)?,
        search: Upstream::new(&url)?,
        tails: Tails::new(house.stores.cache()?),
        sockets: TaskTracker::new(),
        stop: stop.clone(),
    }))
    .await
}
