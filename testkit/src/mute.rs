//! A server that takes connections and never answers, as one that hangs does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use url::Url;

/// The server; it goes on until the runtime ends.
pub struct Mute {
    /// Where it is, as of HTTP.
    pub url: Url,
    connections: Arc<AtomicUsize>,
}

impl Mute {
    /// Starts one on loopback.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?).parse()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                open.push(connection);
            }
        });
        Ok(Self { url, connections })
    }

    /// Connections that it took.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
