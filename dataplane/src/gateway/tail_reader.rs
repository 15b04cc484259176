//! Reads one tenant's tail from Redis while somebody watches: lease, stream, duplicates.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crds::TenantName;
use redis::streams::{StreamId, StreamReadReply};
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use super::frames::{self, TailEvent};
use super::tail::{SourceState, TailEntry};

/// How long a lease holds, in seconds: a gateway that died is published for no longer.
const LEASE_SECONDS: u64 = 15;
/// How often it is renewed: two renewals may fail before it ends.
const RENEW_AFTER: Duration = Duration::from_secs(5);
/// Longest wait for an entry; below the renewal, which comes between two waits.
const BLOCK: Duration = Duration::from_secs(4);
/// Entries read at once.
const ENTRIES_AT_ONCE: usize = 16;
/// Ids remembered to find what a redelivery publishes again: several flushes, 400 KB.
const REMEMBERED: usize = 8_192;
/// Pauses while Redis doesn't answer.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What goes wrong while Redis is read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// The client can't be made.
    #[error("connect to the cache")]
    Store(#[from] runtime::stores::Error),
    /// Redis doesn't answer.
    #[error("read the live tail")]
    Redis(#[from] redis::RedisError),
}

/// The reader of one tenant's tail.
pub(super) struct TailReader {
    tenant: TenantName,
    entries: broadcast::Sender<TailEntry>,
    state: watch::Sender<SourceState>,
    /// The last entry read; `None` until Redis told where the stream ends.
    last: Option<String>,
    seen: Seen,
    /// Events published so far.
    count: u64,
}

impl TailReader {
    pub(super) fn new(
        tenant: TenantName,
        entries: broadcast::Sender<TailEntry>,
        state: watch::Sender<SourceState>,
    ) -> Self {
        Self { tenant, entries, state, last: None, seen: Seen::default(), count: 0 }
    }

    /// Reads until it is dropped, over every failure of Redis.
    pub(super) async fn run(mut self, redis: &Redis) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.follow(redis).await;
            if self.state.send_replace(SourceState::Interrupted) == SourceState::Live {
                pause = FIRST_PAUSE;
                tracing::warn!(tenant.name = %self.tenant, error = %chain(&error), "the live tail is interrupted");
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn follow(&mut self, redis: &Redis) -> Result<std::convert::Infallible, TailError> {
        let mut connection = redis.blocking_connection(BLOCK)?;
        let mut renewed = self.renew(&mut connection).await?;
        // The lease comes first: nothing is published between the end we see and our first read.
        let mut last = match self.last.take() {
            Some(last) => last,
            None => end_of_stream(&mut connection, &self.tenant).await?,
        };
        self.state.send_replace(SourceState::Live);
        loop {
            self.last = Some(last.clone());
            if renewed.elapsed() >= RENEW_AFTER {
                renewed = self.renew(&mut connection).await?;
            }
            for entry in read(&mut connection, &self.tenant, &last).await? {
                self.publish(&entry);
                last = entry.id;
            }
        }
    }

    async fn renew(&self, connection: &mut Connection) -> Result<Instant, TailError> {
        let mut set = redis::cmd("SET");
        set.arg(self.tenant.tail_lease()).arg(1).arg("EX").arg(LEASE_SECONDS);
        let at = Instant::now();
        set.query_async::<()>(connection).await?;
        Ok(at)
    }

    fn publish(&mut self, entry: &StreamId) {
        let events = entry.get::<Vec<u8>>("e").map(|compressed| frames::events(&compressed));
        let mut events = match events {
            Some(Ok(events)) => events,
            Some(Err(error)) => {
                tracing::warn!(tenant.name = %self.tenant, %error, "leave out an entry of the live tail");
                return;
            }
            None => return,
        };
        events.retain(|event: &TailEvent| self.seen.is_new(event.id));
        let left_out = entry.get("d").unwrap_or(0);
        let entry = TailEntry { first: self.count, events: events.into(), left_out };
        self.count += entry.events.len() as u64 + left_out;
        // Without a receiver the last socket is just leaving.
        if self.entries.send(entry).is_err() {
            tracing::debug!(tenant.name = %self.tenant, "nobody watches any more");
        }
    }
}

async fn end_of_stream(connection: &mut Connection, tenant: &TenantName) -> Result<String, TailError> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(tenant.tail_stream()).arg("+").arg("-").arg("COUNT").arg(1);
    let last: redis::streams::StreamRangeReply = last.query_async(connection).await?;
    Ok(last.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
}

async fn read(connection: &mut Connection, tenant: &TenantName, last: &str) -> Result<Vec<StreamId>, TailError> {
    let mut read = redis::cmd("XREAD");
    read.arg("COUNT").arg(ENTRIES_AT_ONCE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
    read.arg("STREAMS").arg(tenant.tail_stream()).arg(last);
    let reply: Option<StreamReadReply> = read.query_async(connection).await?;
    Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
}

/// The ids given out last.
#[derive(Default)]
struct Seen {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Seen {
    fn is_new(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new(Uuid::from_u128(0)));
        assert!(!seen.is_new(Uuid::from_u128(0)));
        for id in 1..=REMEMBERED as u128 {
            assert!(seen.is_new(Uuid::from_u128(id)));
        }
        assert_eq!(seen.ids.len(), REMEMBERED);
        assert!(seen.is_new(Uuid::from_u128(0)), "forgotten");
        assert!(!seen.is_new(Uuid::from_u128(2)));
    }
}
