//! The load: senders that go on whatever happens, and write down every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::Refusal;
use api::sent::Accepted;
use reqwest::StatusCode;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::house::House;
use super::requests::{Dice, Request, Shape};
use crate::ledger::Journal;
use crate::ledger::journal::Record;

/// Requests on their way at once.
const SENDERS: u64 = 3;
/// Pause of a sender between two requests: some 15 requests and 800 events a second together, so
/// that several faults run beside each other on two cores that others use too.
const PACE: Duration = Duration::from_millis(200);
/// Longest wait for one answer: longer than ingest waits for Redis.
const ANSWER: Duration = Duration::from_secs(12);
/// Attempts at a request that has an Idempotency-Key.
const ATTEMPTS: usize = 4;
/// Pause between them.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// Of a hundred keyed requests that were accepted, how many are sent once more.
const RESENT_PERCENT: u64 = 20;
/// Of a hundred keyed requests, how many are sent twice at once, as by a client that gave up waiting.
const IMPATIENT_PERCENT: u64 = 15;

/// What was answered so far.
#[derive(Debug, Default)]
pub struct Answers {
    accepted: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    full: AtomicU64,
    resent: AtomicU64,
}

impl Answers {
    /// Requests answered with 202.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
    /// Requests refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
    /// Requests without an answer that promises anything.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::SeqCst)
    }
    /// Requests refused with 503 `queue_full` and a Retry-After.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::SeqCst)
    }
    /// Requests sent again under their key after their 202.
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::SeqCst)
    }
}

/// Everything a sender needs. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: reqwest::Client,
    ingest: Vec<String>,
    keys: Vec<String>,
    names: Vec<String>,
    seed: u64,
    next: Arc<AtomicU64>,
    journal: Journal,
    /// What was answered.
    pub answers: Arc<Answers>,
    shape: Shape,
    /// Held for reading while a request is on its way.
    gate: Arc<RwLock<()>>,
}

/// Senders at work.
pub struct Load {
    /// One of them, to send by hand.
    pub sender: Sender,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Begins to send requests of this shape to the house.
    pub fn start(house: &House, shape: Shape) -> anyhow::Result<Self> {
        let sender = Sender {
            client: reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?,
            ingest: house.ingest.clone(),
            keys: house.tenants.iter().map(|tenant| tenant.key.clone()).collect(),
            names: house.names(),
            seed: house.seed,
            next: Arc::default(),
            journal: house.journal.clone(),
            answers: Arc::default(),
            shape,
            gate: Arc::default(),
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..SENDERS {
            tasks.spawn(sender.clone().go_on(stop.clone()));
        }
        Ok(Self { sender, stop, tasks })
    }

    /// Waits until no request is on its way, and lets none begin until the guard is dropped.
    pub async fn silence(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.sender.gate).write_owned().await
    }

    /// Stops, and waits for the last answers. Gives back the requests that were sent.
    pub async fn end(mut self) -> anyhow::Result<Vec<Request>> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let sent = self.sender.next.load(Ordering::SeqCst);
        Ok((0..sent).map(|number| self.sender.request(number)).collect())
    }
}

impl Sender {
    async fn go_on(self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            {
                let _on_its_way = self.gate.read().await;
                self.send_next().await?;
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    /// Sends the next request to its last answer; whether that was a 202.
    pub async fn send_next(&self) -> anyhow::Result<bool> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let request = self.request(number);
        let body = request.body();
        let crc32c = crc32c::crc32c(&body);
        self.journal.append(Record::Sent { request: number, events: request.lines.len(), crc32c }).await?;
        let attempts = if request.key.is_some() { ATTEMPTS } else { 1 };
        let mut accepted = false;
        let impatient = request.key.is_some() && Dice::new(self.seed ^ number << 1).percent(IMPATIENT_PERCENT);
        for attempt in 0..attempts {
            accepted = if impatient {
                // Both may be written in one round.
                let (first, second) = (self.attempt(&request, &body, attempt), self.attempt(&request, &body, attempt));
                let (first, second) = tokio::try_join!(first, second)?;
                first || second
            } else {
                self.attempt(&request, &body, attempt).await?
            };
            if accepted {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        if accepted && request.key.is_some() && Dice::new(self.seed ^ number).percent(RESENT_PERCENT) {
            self.attempt(&request, &body, 1).await?;
            self.answers.resent.fetch_add(1, Ordering::SeqCst);
        }
        Ok(accepted)
    }

    fn request(&self, number: u64) -> Request {
        Request::new(self.seed, number, &self.names, self.shape)
    }

    async fn attempt(&self, request: &Request, body: &[u8], attempt: usize) -> anyhow::Result<bool> {
        let ingest = &self.ingest[(request.number as usize + attempt) % self.ingest.len()];
        let mut post = self.client.post(format!("{ingest}/logs")).bearer_auth(&self.keys[request.tenant]);
        if let Some(key) = &request.key {
            post = post.header("idempotency-key", key);
        }
        let sent = post.header("content-type", "application/x-ndjson").body(body.to_vec()).send().await;
        let record = record(request.number, sent).await;
        let answers = &self.answers;
        let (counter, accepted) = match &record {
            Record::Accepted { .. } => (&answers.accepted, true),
            Record::Refused { code, .. } => {
                if code == "queue_full" {
                    answers.full.fetch_add(1, Ordering::SeqCst);
                }
                (&answers.refused, false)
            }
            Record::Sent { .. } | Record::Unknown { .. } => (&answers.unknown, false),
        };
        // First on disk, then counted: nobody relies on a 202 that the ledger does not have.
        self.journal.append(record).await?;
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(accepted)
    }
}

async fn record(request: u64, sent: reqwest::Result<reqwest::Response>) -> Record {
    let response = match sent {
        Ok(response) => response,
        Err(error) => return Record::Unknown { request, why: error.to_string() },
    };
    let status = response.status();
    let retry_after = response.headers().contains_key("retry-after");
    let text = match response.text().await {
        Ok(text) => text,
        // A 202 whose body did not arrive is no 202 that anybody received.
        Err(error) => return Record::Unknown { request, why: error.to_string() },
    };
    if status == StatusCode::ACCEPTED {
        return match serde_json::from_str(&text) {
            Ok(Accepted { batch_id, accepted, rejected, .. }) => {
                Record::Accepted { request, batch_id, accepted, rejected }
            }
            Err(error) => Record::Unknown { request, why: format!("a 202 that can't be read: {error}") },
        };
    }
    let code = Refusal::read(text.as_bytes()).map(|refusal| refusal.error.code);
    match (status.as_u16(), code) {
        // It says so itself: the events may or may not be kept.
        (503, Some(code)) if code == "queue_unavailable" => Record::Unknown { request, why: code },
        (503, Some(code)) if !retry_after => Record::Unknown { request, why: format!("{code} without Retry-After") },
        (status @ (400..=499 | 503), Some(code)) => Record::Refused { request, status, code },
        (status, _) => Record::Unknown { request, why: format!("{status} {text}") },
    }
}
