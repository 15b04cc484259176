//! When keys were last used, to the hour. Whoever admits a request notes it in memory; now and then
//! the notes are written to Redis, where the operator reads them for the Tenant's status.
//!
//! A note says "used in this hour", so each process writes at most once an hour for each key. Notes
//! are for people who wonder whether a key may go: nothing waits for them, and a lost one is noted
//! again an hour later.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crds::TenantName;
use crds::registry::{KEY_USES_SECONDS, hour_of};
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::snapshot::KnownKey;

/// Time between two writes. What is noted in it goes in one round-trip.
const INTERVAL: Duration = Duration::from_secs(15);
/// Notes that the writer has not taken yet; it takes them at once. Beyond it, the key is noted later.
const UNTAKEN: usize = 1024;
/// Notes that wait to be written while Redis is away: a few megabytes.
const UNWRITTEN: usize = 20_000;
/// Notes written at once.
const AT_ONCE: usize = 500;

/// A key, and the hour it was used in.
type Note = ((TenantName, String), u64);

/// Takes notes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uses {
    notes: Option<mpsc::Sender<Note>>,
}

impl Uses {
    /// Notes nothing: for whoever checks no keys.
    pub(super) fn none() -> Self {
        Self { notes: None }
    }

    /// Writes notes until `stop`, and once more then.
    pub(super) fn write(redis: &Redis, stop: CancellationToken) -> Result<Self, Error> {
        let connection = redis.connection()?;
        let (notes, taken) = mpsc::channel(UNTAKEN);
        tokio::spawn(run(connection, taken, stop));
        Ok(Self { notes: Some(notes) })
    }

    /// Notes that the key was used: one look at an atomic number, but for the first time in an hour.
    pub(super) fn note(&self, known: &KnownKey, now: SystemTime) {
        let hour = hour_of(now);
        let Some(notes) = self.notes.as_ref().filter(|_| known.noted.load(Ordering::Relaxed) != hour) else { return };
        known.noted.store(hour, Ordering::Relaxed);
        if notes.try_send(((known.tenant.name().clone(), known.key.id.clone()), hour)).is_err() {
            known.noted.store(0, Ordering::Relaxed);
        }
    }
}

async fn run(mut connection: Connection, mut notes: mpsc::Receiver<Note>, stop: CancellationToken) {
    let mut unwritten = HashMap::new();
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            note = notes.recv(), if unwritten.len() < UNWRITTEN => match note {
                Some((key, hour)) => { unwritten.insert(key, hour); }
                None => break,
            },
            _ = tick.tick() => write(&mut connection, &mut unwritten).await,
            () = stop.cancelled() => break,
        }
    }
    write(&mut connection, &mut unwritten).await;
}

/// Writes what is noted; what can't be written waits for the next time.
async fn write(connection: &mut Connection, unwritten: &mut HashMap<(TenantName, String), u64>) {
    while !unwritten.is_empty() {
        let some: Vec<_> = unwritten.keys().take(AT_ONCE).cloned().collect();
        let mut pipe = redis::pipe();
        for key in &some {
            let (tenant, id) = key;
            // Of two processes, one may write an hour that is over: the operator never goes back.
            pipe.cmd("HSET").arg(tenant.key_uses()).arg(id).arg(unwritten[key]).ignore();
            pipe.cmd("EXPIRE").arg(tenant.key_uses()).arg(KEY_USES_SECONDS).ignore();
        }
        let written: Result<(), redis::RedisError> = pipe.query_async(connection).await;
        if let Err(error) = written {
            tracing::debug!(error = chain(&error), "the last uses of keys wait to be written");
            return;
        }
        for key in &some {
            unwritten.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::snapshot::Snapshot;
    use super::super::snapshot::tests::tenant;
    use super::*;

    #[test]
    fn a_key_is_noted_once_an_hour_and_again_if_there_was_no_room() {
        let key = crds::apikey::ApiKey::generate();
        let snapshot = Snapshot::new(1, [tenant("acme", &[(&key, &[])])]);
        let known = &snapshot.keys[key.id()];
        let (notes, mut taken) = mpsc::channel(1);
        let uses = Uses { notes: Some(notes) };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        uses.note(known, at(3600));
        uses.note(known, at(7199));
        assert_eq!(taken.try_recv().unwrap(), (("acme".parse().unwrap(), key.id().to_owned()), 3600));
        assert!(taken.try_recv().is_err(), "noted once");
        uses.note(known, at(7200));
        uses.note(known, at(10_800));
        assert_eq!(taken.try_recv().unwrap().1, 7200);
        assert!(taken.try_recv().is_err(), "there was no room");
        uses.note(known, at(10_801));
        assert_eq!(taken.try_recv().unwrap().1, 10_800);
        Uses::none().note(known, at(0));
    }
}
