//! The gateway in front of an ingest, in this process.

use dataplane::gateway::forward::Upstream;
use dataplane::gateway::{Gateway, Tails, router};
use dataplane::tenancy::{Peppers, Registry};
use runtime::http::{Limits, serve};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::door::{Door, Sender, pepper};
use crate::redis_server::RedisServer;

/// A gateway in front of an ingest, until it is dropped.
pub(crate) struct Front {
    pub(crate) url: String,
    _stop: DropGuard,
}

impl Front {
    /// It knows these tenants.
    pub(crate) async fn of(door: &Door, cache: &RedisServer, senders: &[&Sender]) -> Self {
        let registry = senders.iter().map(|sender| sender.registered.clone());
        let stop = CancellationToken::new();
        let gateway = Gateway {
            registry: Registry::fixed(registry, Peppers::new([pepper()]).unwrap()),
            ingest: Upstream::new(&door.url).unwrap(),
            search: Upstream::new(&door.url).unwrap(),
            tails: Tails::new(cache.redis()),
            sockets: TaskTracker::new(),
            stop: stop.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, router(gateway), Limits::default(), stop.clone()));
        Self { url, _stop: stop.drop_guard() }
    }
}
