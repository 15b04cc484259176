//! Many small index requests as few large `_bulk` requests.
//!
//! OpenSearch pays for each request, and for each refresh of each shard, so a few documents in a
//! request of their own cost it twice what they cost among a thousand others. Whoever asks waits for
//! its own documents only: they go with whatever else waits, of any tenant, and each gets the verdicts
//! on its own. Tenants take turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use opensearch::OpenSearch;
use tokio::sync::{Notify, oneshot};

use super::bulk::Verdict;
use super::{BULK_BYTES, BULK_TIMEOUT, Error, post_bulk};
use crate::fair::turns::Turns;

/// Time from one request to the next as long as what waits does not fill one. Far below the time from
/// one refresh to the next, which is what a search waits for anyway.
const GATHER: Duration = Duration::from_millis(100);
/// Bytes that are worth a request at once: beyond some hundred documents the cost of each falls no more.
const ENOUGH: usize = 512 * 1024;
/// Requests under way at once.
const AT_ONCE: usize = 2;

/// What waits to be sent, and what is on its way. Cheap to clone.
#[derive(Clone)]
pub(super) struct Together {
    client: OpenSearch,
    state: Arc<Mutex<State>>,
    taken: Arc<Notify>,
}

#[derive(Default)]
struct State {
    waiting: Turns<Part>,
    bytes: usize,
    under_way: usize,
    last_sent: Option<Instant>,
    /// Somebody waits for the time to send what is not yet enough.
    timed: bool,
}

/// What one asks for.
struct Part {
    body: Vec<u8>,
    items: usize,
    answer: oneshot::Sender<Result<Vec<Verdict>, Error>>,
}

/// What to do about what waits.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Send,
    /// After so long, unless enough comes before.
    In(Duration),
    /// Once a request that is under way has ended, or something comes.
    Wait,
}

impl Together {
    pub(super) fn new(client: OpenSearch) -> Self {
        Self { client, state: Arc::default(), taken: Arc::default() }
    }

    /// Sends these lines with others', and gives back the verdicts on them.
    pub(super) async fn send(&self, tenant: &TenantName, body: Vec<u8>, items: usize) -> Result<Vec<Verdict>, Error> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            state.bytes += body.len();
            state.waiting.push(tenant, Part { body, items, answer });
        }
        self.go_on();
        // It is answered unless the task that sends it died.
        answered.await.unwrap_or_else(|_| {
            Err(Error::Refused { doing: "index events", status: 503, reason: "the request was given up".to_owned() })
        })
    }

    /// Waits until no more than one request's worth waits.
    pub(super) async fn caught_up(&self) {
        loop {
            let taken = self.taken.notified();
            if self.lock().bytes <= BULK_BYTES {
                return;
            }
            taken.await;
        }
    }

    /// Sends what is to be sent now.
    fn go_on(&self) {
        loop {
            let mut state = self.lock();
            let since = state.last_sent.map(|at| at.elapsed());
            match turn(state.bytes, state.waiting.tenants() > 0, state.under_way, since) {
                Turn::Send => {
                    let parts = state.take();
                    state.under_way += 1;
                    state.last_sent = Some(Instant::now());
                    drop(state);
                    self.taken.notify_waiters();
                    tokio::spawn(self.clone().request(parts));
                }
                Turn::In(wait) => {
                    if !std::mem::replace(&mut state.timed, true) {
                        let later = self.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(wait).await;
                            later.lock().timed = false;
                            later.go_on();
                        });
                    }
                    return;
                }
                Turn::Wait => return,
            }
        }
    }

    async fn request(self, parts: Vec<Part>) {
        let mut body = Vec::new();
        let mut askers = Vec::with_capacity(parts.len());
        let bytes: usize = parts.iter().map(|part| part.body.len()).sum();
        for Part { body: lines, items, answer } in parts {
            if lines.len() == bytes {
                // It is alone.
                body = lines;
            } else {
                body.reserve_exact(bytes - body.len());
                body.extend_from_slice(&lines);
            }
            askers.push((items, answer));
        }
        let items = askers.iter().map(|(items, _)| items).sum();
        let answer = post_bulk(&self.client, body, items, BULK_TIMEOUT).await;
        {
            let mut state = self.lock();
            state.under_way -= 1;
            if matches!(answer, Err(Error::Unreachable { .. })) {
                // One after the other would each meet with the same silence, and hold its events in memory as long.
                askers.extend(state.give_up().map(|part| (part.items, part.answer)));
                self.taken.notify_waiters();
            }
        }
        self.go_on();
        match answer {
            Ok(verdicts) => {
                let mut verdicts = verdicts.into_iter();
                for (items, asker) in askers {
                    // One that went away is not waiting for it.
                    asker.send(Ok(verdicts.by_ref().take(items).collect())).ok();
                }
            }
            Err(error) => {
                for (_, asker) in askers {
                    asker.send(Err(error.clone())).ok();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes all that waits, for whom there is no hope.
    fn give_up(&mut self) -> impl Iterator<Item = Part> {
        self.bytes = 0;
        std::iter::from_fn(|| self.waiting.next()).map(|(_, part)| part)
    }

    /// Takes what fits into one request, in turns; at least one part.
    fn take(&mut self) -> Vec<Part> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        // What does not fit keeps its turn.
        while self.waiting.peek().is_some_and(|part| parts.is_empty() || bytes + part.body.len() <= BULK_BYTES)
            && let Some((_, part)) = self.waiting.next()
        {
            bytes += part.body.len();
            parts.push(part);
        }
        self.bytes -= bytes;
        parts
    }
}

/// Whether to send now. `since` is how long ago the last request was sent.
fn turn(bytes: usize, any: bool, under_way: usize, since: Option<Duration>) -> Turn {
    if !any || under_way >= AT_ONCE {
        return Turn::Wait;
    }
    match since {
        Some(since) if bytes < ENOUGH && since < GATHER => Turn::In(GATHER - since),
        _ => Turn::Send,
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use runtime::settings::{OpenSearchSettings, TlsSettings};
    use testkit::Mute;

    use super::*;

    #[test]
    fn little_waits_for_more_unless_nothing_was_sent_for_a_while() {
        const MS: Duration = Duration::from_millis(1);
        for (name, bytes, any, under_way, since, expected) in [
            ("nothing", 0, false, 0, None, Turn::Wait),
            ("the first", 1, true, 0, None, Turn::Send),
            ("after a pause", 1, true, 0, Some(GATHER), Turn::Send),
            ("soon after another", 1, true, 1, Some(30 * MS), Turn::In(70 * MS)),
            ("enough", ENOUGH, true, 1, Some(MS), Turn::Send),
            ("enough are under way", BULK_BYTES, true, AT_ONCE, Some(GATHER), Turn::Wait),
        ] {
            assert_eq!(turn(bytes, any, under_way, since), expected, "{name}");
        }
    }

    #[test]
    fn a_request_is_bounded_and_tenants_take_turns() {
        let mut state = State::default();
        let part = |bytes| Part { body: vec![b' '; bytes], items: bytes, answer: oneshot::channel().0 };
        for (tenant, bytes) in [("a", BULK_BYTES + 1), ("a", 10), ("b", 20), ("a", BULK_BYTES - 15), ("c", 30)] {
            state.bytes += bytes;
            state.waiting.push(&tenant.parse().unwrap(), part(bytes));
        }
        let mut sizes = || state.take().iter().map(|part| part.items).collect::<Vec<_>>();
        assert_eq!(sizes(), [BULK_BYTES + 1], "one that is too large goes alone");
        assert_eq!(sizes(), [20, 30, 10], "then others, and the rest does not fit");
        assert_eq!(sizes(), [BULK_BYTES - 15]);
        assert_eq!((sizes(), state.bytes), (vec![], 0));
    }

    #[tokio::test]
    async fn silence_is_met_with_once_by_all_that_wait() {
        let mute = Mute::start().await.unwrap();
        let settings = OpenSearchSettings { url: mute.url.clone(), opensearch_credentials: None };
        let client = runtime::stores::opensearch(&settings, &TlsSettings::default()).unwrap();
        let together = Together::new(client);
        let tenant: TenantName = "a".parse().unwrap();
        let each_a_request = BULK_BYTES - 1;
        let answers = join_all((0..8).map(|_| together.send(&tenant, vec![b' '; each_a_request], 1))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Unreachable { .. }))), "{answers:?}");
        assert_eq!(mute.connections(), AT_ONCE);
        let state = together.lock();
        assert_eq!((state.bytes, state.waiting.tenants()), (0, 0));
    }
}
