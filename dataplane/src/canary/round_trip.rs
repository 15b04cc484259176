//! One round trip of an event: sent once, then looked for everywhere at once.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use api::Refusal;
use api::event::Source;
use api::routes::{LIST, SEARCH};
use api::sent::Sent;
use api::tail::{Frame, TailEvent};
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use crds::canary::{Stage, StageReport};
use futures::StreamExt;
use runtime::settings::credential;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::asking::{Step, after_looking, after_sending, ask, bearer, getting, marker, sending, until};
use crate::gateway::forward::Upstream;

/// The service that the events name: for stages to leave alone, and for people to filter out.
const SERVICE: &str = "loggerhub-canary";
/// Longest wait for the live tail to be in place, before an event is sent: milliseconds, else.
const TAIL_READY: Duration = Duration::from_secs(5);
/// Longest wait for the gateway to take the socket's end.
const CLOSE: Duration = Duration::from_secs(1);
/// Longest frame of the live tail that is read: ours have some hundred bytes, and only events that name
/// our service are shown.
const MAX_FRAME: usize = 1024 * 1024;

type Tail = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The way that an event goes.
pub(super) struct Way {
    pub(super) ingest: Upstream,
    pub(super) gateway: Upstream,
    /// URL of the live tail.
    pub(super) live: String,
    /// Folder with the key.
    pub(super) credentials: PathBuf,
    /// Longest time from sending the event until it is everywhere.
    pub(super) timeout: Duration,
}

impl Way {
    /// Sends an event and looks for it. Ends when it is everywhere or the time is over; where it was not
    /// accepted, there is nothing to look for.
    pub(super) async fn go(&self) -> Vec<StageReport> {
        let key = match self.key() {
            Ok(key) => key,
            Err(error) => return vec![report(Stage::Accept, Err(error))],
        };
        let marker = marker("canary");
        // What is stored before the tail is in place is not shown.
        let tail = self.watch(&key).await;
        let sent = Instant::now();
        let deadline = sent + self.timeout;
        let accepted = report(Stage::Accept, self.send(&key, &marker, sent, deadline).await);
        if accepted.error.is_some() {
            return vec![accepted];
        }
        let list = format!("{LIST}?limit=10&service={SERVICE}");
        let search = format!("{SEARCH}?limit=1&q={marker}");
        let (listed, found, shown) = tokio::join!(
            self.look(&key, &list, None, &marker, sent, deadline),
            self.look(&key, &search, Some(Source::Index), &marker, sent, deadline),
            shown(tail, &marker, sent, deadline),
        );
        vec![accepted, report(Stage::Catalog, listed), report(Stage::Search, found), report(Stage::Live, shown)]
    }

    fn key(&self) -> anyhow::Result<HeaderValue> {
        let key = credential(&self.credentials, "apiKey")?;
        bearer(key.expose_secret()).context("apiKey")
    }

    async fn send(
        &self,
        key: &HeaderValue,
        marker: &str,
        sent: Instant,
        deadline: Instant,
    ) -> anyhow::Result<Duration> {
        let event = Sent {
            service: Some(SERVICE.into()),
            level: Some("INFO".into()),
            message: Some(format!("{marker} of the canary")),
            ..Sent::default()
        };
        let attempt = async || after_sending(ask(&self.ingest, sending(&event, marker)?, key).await?);
        match until(deadline, attempt).await? {
            Step::Done(()) => Ok(sent.elapsed()),
            Step::Again(last) => bail!("not accepted in time: {last}"),
        }
    }

    /// Asks until the event is on the page; by the store `by`, if it is to be that one.
    async fn look(
        &self,
        key: &HeaderValue,
        page: &str,
        by: Option<Source>,
        marker: &str,
        sent: Instant,
        deadline: Instant,
    ) -> anyhow::Result<Duration> {
        let attempt = async || {
            Ok(match after_looking(ask(&self.gateway, getting(page)?, key).await?, marker)? {
                Step::Done(source) if let Some(by) = by.filter(|by| *by != source) => {
                    Step::Again(format!("the {source} answers in place of the {by}"))
                }
                step => step,
            })
        };
        match until(deadline, attempt).await? {
            Step::Done(_) => Ok(sent.elapsed()),
            Step::Again(last) => bail!("not there in time: {last}"),
        }
    }

    /// Opens the live tail and waits until it is in place.
    async fn watch(&self, key: &HeaderValue) -> anyhow::Result<Tail> {
        let mut request = format!("{}?service={SERVICE}", self.live).into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, key.clone());
        let bounds = WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
        let ready = async {
            let connecting = connect_async_with_config(request, Some(bounds), false);
            let (mut tail, _) = connecting.await.map_err(refusal)?;
            while next(&mut tail).await? != Frame::Ready {}
            anyhow::Ok(tail)
        };
        timeout(TAIL_READY.min(self.timeout), ready).await.context("the live tail is not in place in time")?
    }
}

/// Waits until the tail shows the event.
async fn shown(tail: anyhow::Result<Tail>, marker: &str, sent: Instant, deadline: Instant) -> anyhow::Result<Duration> {
    let mut tail = tail?;
    let shown = async {
        loop {
            if let Frame::Event { event } = next(&mut tail).await?
                && event.message.contains(marker)
            {
                return anyhow::Ok(sent.elapsed());
            }
        }
    };
    let took = timeout_at(deadline, shown).await.context("not shown in time")??;
    // The gateway notices a socket that is merely dropped, too.
    drop(timeout(CLOSE, tail.close(None)).await);
    Ok(took)
}

/// The next frame that says something.
async fn next(tail: &mut Tail) -> anyhow::Result<Frame<TailEvent<'static>>> {
    loop {
        match tail.next().await.context("the live tail ended")? {
            Ok(Message::Text(text)) => {
                if let Some(frame) = Frame::read(&text).context("the live tail sent no frame")? {
                    return Ok(frame);
                }
            }
            Ok(Message::Close(close)) => {
                bail!("the live tail ended: {}", close.map_or_else(String::new, |close| close.reason.to_string()))
            }
            Ok(_) => {}
            Err(error) => bail!("the live tail broke off: {error}"),
        }
    }
}

fn refusal(error: tungstenite::Error) -> anyhow::Error {
    match error {
        tungstenite::Error::Http(response) => {
            let refusal = Refusal::read(response.body().as_deref().unwrap_or_default());
            let code = refusal.map_or_else(|| "no code".to_owned(), |refusal| refusal.error.code);
            anyhow::anyhow!("the live tail answers {} ({code})", response.status())
        }
        other => anyhow::anyhow!("open the live tail: {other}"),
    }
}

fn report(stage: Stage, outcome: anyhow::Result<Duration>) -> StageReport {
    match outcome {
        Ok(took) => {
            StageReport { stage, milliseconds: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)), error: None }
        }
        Err(error) => StageReport { stage, milliseconds: None, error: Some(format!("{error:#}")) },
    }
}
