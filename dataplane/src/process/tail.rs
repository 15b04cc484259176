//! The live tail: what was just stored, for the gateways that watch its tenant.
//!
//! A copy for convenience: if the cache's Redis is slow or away, it is left out, and nobody waits. Who
//! watches is told how much that was as soon as something passes again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};

use crate::event::shown;
use crate::stores::batch::Batch;
use crate::tenancy::Tenant;

/// Longest that a flush waits for the tail.
const TIMEOUT: Duration = Duration::from_millis(250);
/// How long the tail is left out after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// Entries kept for a gateway that is behind: it shows what came while it was away for a moment.
const ENTRIES: usize = 256;
/// How long they are kept after the last of them: longer than any gateway is away for a moment. Lines don't stay here
/// beyond their tenant's retention, or the tenant itself.
const KEPT: Duration = Duration::from_secs(60);
/// Events of one flush that are shown: more than a person can read in a second.
const EVENTS: usize = 2000;
/// Bytes of one entry before compression; with [`ENTRIES`] it bounds a tenant's stream at some 50 MiB.
const BYTES: usize = 1024 * 1024;
/// zstd's fastest ordinary level.
const COMPRESSION_LEVEL: i32 = 1;

/// Publishes to the cache's Redis.
pub(super) struct Tail {
    connection: Connection,
    missed: Mutex<Missed>,
}

/// What the tail has left out.
#[derive(Debug, Default)]
struct Missed {
    /// After a failure: when it is tried again.
    paused_until: Option<Instant>,
    /// Tenants that somebody watched when Redis was last asked, with the events that are left out since.
    watched: HashMap<TenantName, usize>,
}

/// What is shown of a flush.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shot {
    /// Events as JSON, one a line.
    lines: Vec<u8>,
    /// How many more the flush had.
    dropped: usize,
}

impl Tail {
    pub(super) fn new(cache: &Redis) -> Result<Self, runtime::stores::Error> {
        Ok(Self { connection: cache.connection()?, missed: Mutex::default() })
    }

    /// Publishes these batches if somebody watches the tenant.
    pub(super) async fn publish(&self, tenant: &Tenant, batches: &[&Batch]) {
        let events = batches.iter().map(|batch| batch.events.len()).sum();
        if events == 0 {
            return;
        }
        let left_out = {
            let mut missed = self.missed();
            if missed.is_paused() {
                return missed.leave_out(tenant.name(), events);
            }
            missed.take(tenant.name())
        };
        let publish = async {
            match self.try_publish(tenant, batches, left_out).await {
                // An idle connection that broke shows at its first use, and is a new one at the next.
                Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                    self.try_publish(tenant, batches, left_out).await
                }
                outcome => outcome,
            }
        };
        let failure = match tokio::time::timeout(TIMEOUT, publish).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::debug!(error = failure, "the live tail is left out for a moment");
        let mut missed = self.missed();
        missed.paused_until = Some(Instant::now() + PAUSE);
        missed.leave_out(tenant.name(), left_out + events);
    }

    fn missed(&self) -> MutexGuard<'_, Missed> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `left_out` is how many events before these were not published.
    async fn try_publish(&self, tenant: &Tenant, batches: &[&Batch], left_out: usize) -> redis::RedisResult<()> {
        let mut connection = self.connection.clone();
        let watched: bool = redis::cmd("EXISTS").arg(tenant.name().tail_lease()).query_async(&mut connection).await?;
        if !watched {
            self.missed().watched.remove(tenant.name());
            return Ok(());
        }
        self.missed().watched.entry(tenant.name().clone()).or_default();
        let shot = shot(tenant, batches);
        let frame = zstd::bulk::compress(&shot.lines, COMPRESSION_LEVEL)?;
        let stream = tenant.name().tail_stream();
        let mut publish = redis::pipe();
        publish.cmd("XADD").arg(&stream).arg("MAXLEN").arg("~").arg(ENTRIES).arg("*").arg("e").arg(frame);
        if shot.dropped + left_out > 0 {
            publish.arg("d").arg(shot.dropped + left_out);
        }
        publish.ignore().expire(&stream, KEPT.as_secs() as i64).ignore();
        publish.query_async(&mut connection).await
    }
}

impl Missed {
    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    /// Somebody who watched has not seen these.
    fn leave_out(&mut self, tenant: &TenantName, events: usize) {
        if let Some(left_out) = self.watched.get_mut(tenant) {
            *left_out += events;
        }
    }

    /// What is left out, for somebody who tells of it; none afterwards.
    fn take(&mut self, tenant: &TenantName) -> usize {
        self.watched.get_mut(tenant).map_or(0, std::mem::take)
    }
}

/// The first events of a flush, as many as fit, in the order in which they are read again by a tail that goes on.
fn shot(tenant: &Tenant, batches: &[&Batch]) -> Shot {
    let mut shot = Shot::default();
    let mut batches = batches.to_vec();
    batches.sort_by_key(|batch| (batch.accepted_at, batch.batch_id));
    let events = batches.iter().flat_map(|batch| batch.events.iter().map(move |event| (*batch, event)));
    for (at, (batch, event)) in events.enumerate() {
        if at >= EVENTS || shot.lines.len() >= BYTES {
            shot.dropped += 1;
            continue;
        }
        let shown = shown(tenant.name().as_str(), batch.batch_id, batch.accepted_at, event.id, &event.event);
        let before = shot.lines.len();
        if serde_json::to_writer(&mut shot.lines, &shown).is_ok() {
            shot.lines.push(b'\n');
        } else {
            shot.lines.truncate(before);
        }
    }
    shot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::entry::{BatchHeader, EventHeader, Header};
    use crate::stores::batch::{Treatment, map};
    use crate::stores::fixtures::tenant;

    #[test]
    fn a_flush_is_shown_up_to_a_bound_and_says_what_is_left_out() {
        let line = r#"{"message":"m"}"#;
        let event = EventHeader { length: line.len() as u32, time: None, rejected: None };
        let header = Header {
            batches: vec![BatchHeader {
                batch_id: uuid::Uuid::from_u128(1),
                accepted_at: 1_767_323_045_000_000,
                key_id: "k".into(),
                body_hash: None,
                events: vec![event; EVENTS + 5],
            }],
        };
        let batches = map(&header, line.repeat(EVENTS + 5).as_bytes(), Treatment::Process);
        let shot = shot(&tenant("acme"), &batches.iter().collect::<Vec<_>>());
        let lines: Vec<api::tail::TailEvent<'_>> = shot
            .lines
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!((lines.len(), shot.dropped), (EVENTS, 5));
        assert_eq!((&*lines[0].message, &*lines[0].flags), ("m", &["time_of_acceptance".into()][..]));
    }
}
