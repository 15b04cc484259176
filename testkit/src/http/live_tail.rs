//! Watching `WS /ws/logs`.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Door;

/// An open live tail.
pub struct LiveTail {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Door {
    /// Opens the live tail and waits until it says that it is ready.
    pub async fn watch(&self) -> anyhow::Result<LiveTail> {
        self.watch_for("").await
    }

    /// The same for some events only; `filter` such as `service=web`.
    pub async fn watch_for(&self, filter: &str) -> anyhow::Result<LiveTail> {
        let mut request = self.gateway.replacen("http", "ws", 1);
        request.push_str("/ws/logs?");
        request.push_str(filter);
        let mut request = request.into_client_request()?;
        if let Some(key) = &self.key {
            request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {key}"))?);
        }
        let (socket, _) = connect_async(request).await.context("open the live tail")?;
        let mut tail = LiveTail { socket };
        tail.frame("the live tail is ready", Duration::from_secs(5), |frame| frame["type"] == "ready").await?;
        Ok(tail)
    }
}

impl LiveTail {
    /// Waits for the next event that `wanted` takes; others are passed over.
    pub async fn event(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let frame = self.frame(what, within, |frame| frame["type"] == "event" && wanted(&frame["event"])).await?;
        Ok(frame["event"].clone())
    }

    /// All events that arrive during `window`.
    pub async fn events_during(&mut self, window: Duration) -> Vec<Value> {
        let deadline = Instant::now() + window;
        let mut events = Vec::new();
        while let Ok(Some(Ok(message))) = timeout_at(deadline, self.socket.next()).await {
            if let Some(frame) = json(&message)
                && frame["type"] == "event"
            {
                events.push(frame["event"].clone());
            }
        }
        events
    }

    async fn frame(&mut self, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + within;
        let mut passed = 0;
        loop {
            let Ok(next) = timeout_at(deadline, self.socket.next()).await else {
                bail!("waited {within:?} in vain for: {what} ({passed} other frames came)");
            };
            let message = next.context("the live tail was closed")?.context("read the live tail")?;
            match json(&message) {
                Some(frame) if wanted(&frame) => return Ok(frame),
                _ => passed += 1,
            }
        }
    }
}

fn json(message: &Message) -> Option<Value> {
    serde_json::from_str(message.to_text().ok()?).ok()
}
