//! Batches of events on their way: filled, sent, and sent again until they are answered.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use api::sent::Accepted;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::event::Event;

/// Bytes that end a batch: ingest takes 20 MiB.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Pauses between two tries of a batch.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What has become of the events so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    /// Accepted by the server.
    pub(crate) accepted: u64,
    /// Kept by the server as dead letters only.
    pub(crate) rejected: u64,
    /// In batches that the server refused for good.
    pub(crate) refused: u64,
    /// Not sent when the sender had to stop.
    pub(crate) unsent: u64,
    /// Answers that led to another try, and the last of them.
    retries: u64,
    last_failure: Option<String>,
    begun: Option<Instant>,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let rate = self.accepted as f64 / seconds.max(0.001);
        write!(f, "accepted {} events in {seconds:.1} s ({rate:.0}/s)", self.accepted)?;
        for (count, what) in
            [(self.rejected, "rejected"), (self.refused, "refused"), (self.unsent, "unsent"), (self.retries, "retries")]
        {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        match &self.last_failure {
            Some(failure) => write!(f, "; last failure: {failure}"),
            None => Ok(()),
        }
    }
}

/// Sends one batch after the other.
pub(crate) struct Delivery {
    client: Client,
    url: Url,
    key: String,
    give_up: CancellationToken,
    sent: watch::Sender<Sent>,
}

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The same batch would be refused again.
    Refused,
    Again {
        after: Option<Duration>,
    },
}

/// Events as NDJSON.
struct Batch {
    body: Vec<u8>,
    events: u64,
}

impl Delivery {
    /// Towards `url`, whose path is `/logs` unless it has one. At `give_up` a batch is tried no more.
    pub(crate) fn new(url: &str, key: &str, give_up: CancellationToken) -> anyhow::Result<Self> {
        let mut url: Url = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
        if url.path() == "/" {
            url.set_path("/logs");
        }
        let client = Client::builder().no_proxy().timeout(ANSWER).build()?;
        let sent = watch::Sender::new(Sent { begun: Some(Instant::now()), ..Sent::default() });
        Ok(Self { client, url, key: key.to_owned(), give_up, sent })
    }

    /// What has become of the events, as it goes on.
    pub(crate) fn sent(&self) -> watch::Receiver<Sent> {
        self.sent.subscribe()
    }

    /// Sends until the sources have ended.
    pub(crate) async fn run(self, events: &mut mpsc::Receiver<Event>, most: usize, linger: Duration) -> Sent {
        while let Some(batch) = fill(events, most, linger).await {
            self.send(&batch).await;
        }
        self.sent.borrow().clone()
    }

    async fn send(&self, batch: &Batch) {
        let idempotency_key = uuid::Uuid::now_v7().to_string();
        let mut pause = FIRST_PAUSE;
        loop {
            let tried = self.give_up.run_until_cancelled(self.post(batch, &idempotency_key)).await;
            let Some((verdict, failure)) = tried else {
                return self.sent.send_modify(|sent| sent.unsent += batch.events);
            };
            match verdict {
                Verdict::Accepted => return,
                Verdict::Refused => {
                    return self.sent.send_modify(|sent| {
                        sent.refused += batch.events;
                        sent.last_failure = failure;
                    });
                }
                Verdict::Again { after } => {
                    self.sent.send_modify(|sent| {
                        sent.retries += 1;
                        sent.last_failure = failure;
                    });
                    let jitter = rand::random_range(0.5..1.0);
                    let wait = after.unwrap_or_else(|| pause.mul_f64(jitter)).min(LONGEST_RETRY_AFTER);
                    pause = LONGEST_PAUSE.min(pause * 2);
                    // A stop ends the pause; the next try then ends the batch.
                    self.give_up.run_until_cancelled(sleep(wait)).await;
                }
            }
        }
    }

    async fn post(&self, batch: &Batch, idempotency_key: &str) -> (Verdict, Option<String>) {
        let request = self
            .client
            .post(self.url.clone())
            .bearer_auth(&self.key)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("idempotency-key", idempotency_key)
            .body(batch.body.clone());
        match request.send().await {
            Ok(response) => self.answered(response).await,
            Err(error) => (Verdict::Again { after: None }, Some(format!("{error:#}"))),
        }
    }

    async fn answered(&self, response: Response) -> (Verdict, Option<String>) {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let verdict = verdict(status, retry_after);
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return (Verdict::Again { after: None }, Some(error.to_string())),
        };
        if verdict != Verdict::Accepted {
            return (verdict, Some(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        match serde_json::from_slice(&body) {
            Ok(Accepted { accepted, rejected, .. }) => {
                self.sent.send_modify(|sent| {
                    sent.accepted += accepted;
                    sent.rejected += rejected;
                });
                (Verdict::Accepted, None)
            }
            Err(error) => (Verdict::Refused, Some(format!("read the answer: {error}"))),
        }
    }
}

/// A key may be known only moments after it was made, so that 401 is tried again too.
fn verdict(status: StatusCode, retry_after_seconds: Option<u64>) -> Verdict {
    match status {
        status if status.is_success() => Verdict::Accepted,
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => Verdict::Again { after: retry_after_seconds.map(Duration::from_secs) },
        status if status.is_server_error() => Verdict::Again { after: retry_after_seconds.map(Duration::from_secs) },
        _ => Verdict::Refused,
    }
}

/// The next batch: complete when it is full, or `linger` after its first event. `None` at the end.
async fn fill(events: &mut mpsc::Receiver<Event>, most: usize, linger: Duration) -> Option<Batch> {
    let first = events.recv().await?;
    let mut batch = Batch { body: Vec::new(), events: 0 };
    batch.push(&first);
    let deadline = Instant::now() + linger;
    while batch.events < most as u64 && batch.body.len() < MAX_BATCH_BYTES {
        match timeout_at(deadline, events.recv()).await {
            Ok(Some(event)) => batch.push(&event),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

impl Batch {
    fn push(&mut self, event: &Event) {
        // Text and numbers into memory: nothing that could fail.
        if serde_json::to_writer(&mut self.body, event).is_ok() {
            self.body.push(b'\n');
            self.events += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    #[test]
    fn an_answer_says_whether_to_try_again() {
        let after = |seconds| Verdict::Again { after: Some(Duration::from_secs(seconds)) };
        for (status, retry_after, expected) in [
            (202, None, Verdict::Accepted),
            (400, None, Verdict::Refused),
            (413, None, Verdict::Refused),
            (401, None, Verdict::Again { after: None }),
            (429, Some(7), after(7)),
            (500, None, Verdict::Again { after: None }),
            (503, Some(1), after(1)),
        ] {
            assert_eq!(verdict(StatusCode::from_u16(status).unwrap(), retry_after), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn a_batch_is_full_or_has_waited_long_enough() {
        let (send, mut events) = mpsc::channel(8);
        let linger = Duration::from_millis(50);
        let event = || Event::of_line("api", "x", OffsetDateTime::UNIX_EPOCH);
        for _ in 0..3 {
            send.send(event()).await.unwrap();
        }
        assert_eq!(fill(&mut events, 2, linger).await.unwrap().events, 2, "full");
        let rest = fill(&mut events, 2, linger).await.unwrap();
        assert_eq!((rest.events, rest.body.last()), (1, Some(&b'\n')), "waited");
        drop(send);
        assert!(fill(&mut events, 2, linger).await.is_none(), "ended");
    }
}
