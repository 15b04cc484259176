//! Watching `WS /ws/logs`.

use std::time::Duration;

use anyhow::{Context, bail};
use api::routes::TAIL;
use api::tail::{Frame, TailEvent};
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Door;

type Event = TailEvent<'static>;

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
        request.push_str(TAIL);
        request.push('?');
        request.push_str(filter);
        let mut request = request.into_client_request()?;
        if let Some(key) = &self.key {
            request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {key}"))?);
        }
        let (socket, _) = connect_async(request).await.context("open the live tail")?;
        let mut tail = LiveTail { socket };
        tail.frame("the live tail is ready", Duration::from_secs(5), |frame| (frame == Frame::Ready).then_some(()))
            .await?;
        Ok(tail)
    }
}

impl LiveTail {
    /// Waits for the next event that `wanted` takes; others are passed over.
    pub async fn event(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> anyhow::Result<Event> {
        let wanted = |frame| match frame {
            Frame::Event { event } if wanted(&event) => Some(event),
            _ => None,
        };
        self.frame(what, within, wanted).await
    }

    /// All events that arrive during `window`.
    pub async fn events_during(&mut self, window: Duration) -> Vec<Event> {
        let deadline = Instant::now() + window;
        let mut events = Vec::new();
        while let Ok(Some(Ok(message))) = timeout_at(deadline, self.socket.next()).await {
            if let Some(Frame::Event { event }) = read(&message) {
                events.push(event);
            }
        }
        events
    }

    async fn frame<T>(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(Frame<Event>) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + within;
        let mut passed = 0;
        loop {
            let Ok(next) = timeout_at(deadline, self.socket.next()).await else {
                bail!("waited {within:?} in vain for: {what} ({passed} other frames came)");
            };
            let message = next.context("the live tail was closed")?.context("read the live tail")?;
            match read(&message).and_then(&wanted) {
                Some(wanted) => return Ok(wanted),
                None => passed += 1,
            }
        }
    }
}

fn read(message: &Message) -> Option<Frame<Event>> {
    Frame::read(message.to_text().ok()?).ok()?
}
