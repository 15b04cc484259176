//! Reads a pipeline's lanes for one processor: first what it left unfinished itself, then what
//! the dead left behind, then what is new.

mod membership;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::PipelineName;
use crds::names::{CONSUMER_GROUP, Lane};
use redis::{FromRedisValue, Pipeline, RedisResult, Value};
use runtime::stores::{Connection, Redis};

use super::entry::{Entry, Fields, Undecodable, tenant_weight_of, weight};
use super::{Error, Lanes, redis_error};

/// Longest wait of one read for something new; a stop is noticed after at most this.
const BLOCK: Duration = Duration::from_secs(1);
/// Compressed bytes that one read of all lanes aims at: about 40 MiB of raw lines.
const READ_BYTES: usize = 8 * 1024 * 1024;
/// Most entries read at once from one lane.
const MAX_COUNT: usize = 256;
/// Entries claimed at once from one lane. Redis looks at ten times as many.
const CLAIM_COUNT: usize = 16;
/// Calls in a row that look for entries left behind: 160,000 pending entries of each lane, some tenths of a second.
const MAX_CLAIMS: usize = 1_000;
/// Where a look begins, and what Redis answers when it has come to the end.
const FIRST: &str = "0-0";
/// Pause after a group was found missing, so that one that can't be made is not a busy loop.
const NO_GROUP_PAUSE: Duration = Duration::from_millis(200);
/// Longest time between two looks for entries left behind.
const CLAIM_EVERY: Duration = Duration::from_secs(5);
/// How often the lanes to read are looked at anew.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// One entry's raw form: its id, and its fields unless it is deleted.
type RawEntry = (String, Option<Fields>);

/// Whose part a consumer takes.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// Pipeline whose lanes it reads.
    pub pipeline: PipelineName,
    /// Its name, unique among the pipeline's processors and the same after a restart: the pod's.
    pub consumer: String,
    /// After how long without [`Lanes::hold`] another consumer's entry counts as left behind.
    pub claim_idle: Duration,
}

/// Where an entry is, and what it counts in its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRef {
    /// Its lane.
    pub lane: Arc<Lane>,
    /// Its id in the stream.
    pub id: String,
    /// Its events, as the lane counts them.
    pub events: u64,
    /// Its payload bytes, as the lane counts them.
    pub bytes: u64,
    /// The tenant whose share of the queue it counts in, as the entry says.
    pub tenant: String,
    /// What it counts there.
    pub share: u64,
}

impl EntryRef {
    /// The entry of these fields.
    pub(super) fn of(lane: Arc<Lane>, id: String, fields: &Fields) -> Self {
        let (events, bytes) = weight(fields);
        let (tenant, share) = tenant_weight_of(fields);
        Self { lane, id, events, bytes, tenant, share }
    }
}

/// An entry handed out.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Which entry.
    pub entry: EntryRef,
    /// How often it was handed out, this time included. Above 1, somebody died or was too slow.
    pub deliveries: u64,
    /// What it holds.
    pub content: Result<Entry, Undecodable>,
}

/// A reader of a pipeline's lanes.
pub struct Consumer {
    settings: ConsumerSettings,
    connection: Connection,
    lanes: Lanes,
    reading: Vec<LaneReader>,
    count: usize,
    /// Whether a read waits for something new.
    patient: bool,
    next_claim: Instant,
    next_housekeeping: Instant,
}

/// Where we are in one lane.
struct LaneReader {
    lane: Arc<Lane>,
    /// The last of our own pending entries that was read again; `None` once there are no more.
    own: Option<String>,
    /// Where the next look for entries left behind begins.
    claim_from: String,
}

impl Consumer {
    /// A consumer; connects at its first read.
    pub fn new(redis: &Redis, settings: ConsumerSettings) -> Result<Self, Error> {
        let now = Instant::now();
        Ok(Self {
            settings,
            connection: redis.blocking_connection(BLOCK)?,
            lanes: Lanes::new(redis)?,
            reading: Vec::new(),
            count: 8,
            patient: true,
            next_claim: now,
            next_housekeeping: now,
        })
    }

    /// What is next; empty after about a second without anything.
    ///
    /// Not cancel-safe: what a dropped read took out comes back only by a claim. Look at the stop
    /// signal between two reads.
    pub async fn read(&mut self) -> Result<Vec<Delivery>, Error> {
        let read = self.read_once().await;
        if let Err(Error::Redis { source, .. }) = &read
            && source.code() == Some("NOGROUP")
        {
            // Redis lost its data, or the stream is new: the groups are made before the next read.
            self.reading.clear();
            self.next_housekeeping = Instant::now();
            tokio::time::sleep(NO_GROUP_PAUSE).await;
            return Ok(Vec::new());
        }
        read
    }

    /// Like [`Self::read`], but empty at once if there is nothing.
    pub async fn read_at_hand(&mut self) -> Result<Vec<Delivery>, Error> {
        self.patient = false;
        let read = self.read().await;
        self.patient = true;
        read
    }

    /// Leaves the group at a graceful stop. Where something is still pending, the name stays, so
    /// that it can be claimed, at once and by anybody; `false` then.
    pub async fn leave(self) -> Result<bool, Error> {
        let mut left = true;
        for reader in &self.reading {
            left &= self.lanes.leave(&reader.lane, &self.settings.consumer).await?;
        }
        Ok(left)
    }

    async fn read_once(&mut self) -> Result<Vec<Delivery>, Error> {
        if Instant::now() >= self.next_housekeeping {
            self.housekeeping().await?;
            self.next_housekeeping = Instant::now() + HOUSEKEEPING;
        }
        if self.reading.is_empty() {
            // Redis is full, and no group was made before: the next housekeeping tries again.
            tokio::time::sleep(BLOCK).await;
            return Ok(Vec::new());
        }
        let catching_up = self.reading.iter().any(|reader| reader.own.is_some());
        if !catching_up && Instant::now() >= self.next_claim {
            // One call looks at few entries. Most that are pending may be held by others, or set aside here.
            for _ in 0..MAX_CLAIMS {
                let claimed = self.claim().await?;
                if !claimed.is_empty() {
                    return self.deliver(claimed, true).await;
                }
                if self.reading.iter().all(|reader| reader.claim_from == FIRST) {
                    break;
                }
            }
            self.next_claim = Instant::now() + self.settings.claim_idle.min(CLAIM_EVERY);
        }
        let read = self.read_group(catching_up).await?;
        self.deliver(read, catching_up).await
    }

    /// One round-trip for several commands, each with its own outcome.
    async fn pipelined<T: FromRedisValue>(&mut self, mut pipe: Pipeline) -> RedisResult<Vec<RedisResult<T>>> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        pipe.ignore_errors().query_async(&mut self.connection).await
    }

    /// Takes over what other consumers, or this one, have not held for `claim_idle`.
    async fn claim(&mut self) -> Result<Vec<(Arc<Lane>, RawEntry)>, Error> {
        let mut pipe = redis::pipe();
        for reader in &self.reading {
            pipe.cmd("XAUTOCLAIM").arg(reader.lane.stream()).arg(CONSUMER_GROUP).arg(&self.settings.consumer);
            pipe.arg(self.settings.claim_idle.as_millis() as u64).arg(&reader.claim_from).arg("COUNT").arg(CLAIM_COUNT);
        }
        type Claimed = (String, Vec<RawEntry>, Value);
        let doing = "claim entries left behind";
        let replies: Vec<RedisResult<Claimed>> = self.pipelined(pipe).await.map_err(redis_error(doing))?;
        let mut claimed = Vec::new();
        for (reader, reply) in self.reading.iter_mut().zip(replies) {
            // Deleted entries that were still pending come apart from the others: Redis forgot them.
            let (next, entries, _deleted) = reply.map_err(redis_error(doing))?;
            reader.claim_from = next;
            claimed.extend(entries.into_iter().map(|entry| (Arc::clone(&reader.lane), entry)));
        }
        Ok(claimed)
    }

    /// One XREADGROUP over all lanes: our own pending entries where there may be some, else new ones.
    async fn read_group(&mut self, catching_up: bool) -> Result<Vec<(Arc<Lane>, RawEntry)>, Error> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(CONSUMER_GROUP).arg(&self.settings.consumer).arg("COUNT").arg(self.count);
        if !catching_up && self.patient {
            command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        command.arg("STREAMS");
        for reader in &self.reading {
            command.arg(reader.lane.stream());
        }
        for reader in &self.reading {
            command.arg(reader.own.as_deref().unwrap_or(">"));
        }
        let reply: Option<Vec<(String, Vec<RawEntry>)>> =
            command.query_async(&mut self.connection).await.map_err(redis_error("read the lanes"))?;
        let mut streams: HashMap<_, _> = reply.unwrap_or_default().into_iter().collect();
        let mut read = Vec::new();
        for reader in &mut self.reading {
            let entries = streams.remove(&reader.lane.stream()).unwrap_or_default();
            if reader.own.is_some() {
                reader.own = entries.last().map(|(id, _)| id.clone());
            }
            read.extend(entries.into_iter().map(|entry| (Arc::clone(&reader.lane), entry)));
        }
        Ok(read)
    }

    /// Decodes entries; looks up how often they were handed out if that may be more than once.
    async fn deliver(&mut self, read: Vec<(Arc<Lane>, RawEntry)>, again: bool) -> Result<Vec<Delivery>, Error> {
        if read.is_empty() {
            return Ok(Vec::new());
        }
        let deliveries = if again { self.deliveries(&read).await? } else { vec![1; read.len()] };
        let mut gone = Vec::new();
        let mut raw = Vec::new();
        for ((lane, (id, fields)), deliveries) in read.into_iter().zip(deliveries) {
            let Some(fields) = fields else {
                // Deleted while it was pending: only the group still remembers it.
                gone.push(EntryRef { lane, id, events: 0, bytes: 0, tenant: String::new(), share: 0 });
                continue;
            };
            raw.push((EntryRef::of(lane, id, &fields), deliveries, fields));
        }
        self.lanes.acknowledge(&gone).await?;
        let bytes: u64 = raw.iter().map(|(entry, ..)| entry.bytes).sum();
        self.count = next_count(self.count, self.reading.len(), raw.len(), bytes as usize);
        let decode = move || {
            raw.into_iter()
                .map(|(entry, deliveries, fields)| Delivery { entry, deliveries, content: Entry::decode(fields) })
                .collect()
        };
        // Decompression of megabytes stays off the threads that serve everything else.
        Ok(match tokio::task::spawn_blocking(decode).await {
            Ok(delivered) => delivered,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        })
    }

    async fn deliveries(&mut self, read: &[(Arc<Lane>, RawEntry)]) -> Result<Vec<u64>, Error> {
        let mut pipe = redis::pipe();
        for (lane, (id, _)) in read {
            pipe.cmd("XPENDING").arg(lane.stream()).arg(CONSUMER_GROUP).arg(id).arg(id).arg(1);
        }
        type Pending = Vec<(String, String, u64, u64)>;
        let pending: Vec<RedisResult<Pending>> =
            self.pipelined(pipe).await.map_err(redis_error("read delivery counts"))?;
        let count = |pending: RedisResult<Pending>| pending.ok()?.first().map(|(.., deliveries)| *deliveries);
        Ok(pending.into_iter().map(|pending| count(pending).unwrap_or(1)).collect())
    }
}

/// Entries to ask each of `lanes` for next time, so that a read stays near [`READ_BYTES`] even if
/// all of them are full. Grows at most fourfold at a time: the next entries may be larger.
fn next_count(count: usize, lanes: usize, entries: usize, bytes: usize) -> usize {
    if entries == 0 {
        return count;
    }
    let fitting = READ_BYTES / (bytes / entries).max(1) / lanes.max(1);
    fitting.clamp(1, MAX_COUNT).min(count * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_follows_the_entries_sizes() {
        let kib = 1024;
        for (count, entries, bytes, expected) in [
            (8, 0, 0, 8),
            (8, 8, 8 * 100, 32),
            (32, 100, 100 * 100, 128),
            (128, 100, 100 * 100, MAX_COUNT),
            (128, 10, 10 * 112 * kib, 9),
            (128, 1, 20 * 1024 * kib, 1),
            (1, 1, 100, 4),
        ] {
            assert_eq!(next_count(count, 8, entries, bytes), expected, "{count} {entries} {bytes}");
        }
    }
}
