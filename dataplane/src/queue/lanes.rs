//! What is done to entries and lanes besides reading them: acknowledge, hold, quarantine, leave,
//! count. Each is one script a lane, so that stream and counters never disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::queue::LaneStatus;
use crds::PipelineName;
use crds::names::{CONSUMER_GROUP, HELD_PIPELINES, Lane, ORPHANED_PIPELINES};
use redis::Script;
use runtime::stores::{Connection, Redis};

use super::again::{ENTRIES_A_CALL, FORGIVE};
use super::consumer::EntryRef;
use super::entry::Undecodable;
use super::quarantine::{PUT_BACK, QUARANTINED};
use super::{Error, redis_error};

/// Entries kept in a lane's quarantine, which nothing else bounds. They are nobody's: no tenant could be made out.
const QUARANTINED_ENTRIES: usize = 1_000;
/// Fields kept of a quarantined entry; ours have six, and a script takes a few thousand arguments.
const QUARANTINED_FIELDS: usize = 32;

/// Takes a deleted entry off the counters. An empty stream has no backlog, so a counter that
/// something else spoiled heals there.
///
/// The scripts delete before they count: Redis at its memory limit refuses to count as the first
/// write of a script, but not as a later one.
const SETTLE: &str = r"
local function settle(events, bytes, shares)
    if redis.call('XLEN', KEYS[1]) == 0 then
        redis.call('SET', KEYS[2], 0)
        redis.call('SET', KEYS[3], 0)
        redis.call('DEL', KEYS[4])
        return
    end
    if redis.call('DECRBY', KEYS[2], events) < 0 then redis.call('SET', KEYS[2], 0) end
    if redis.call('DECRBY', KEYS[3], bytes) < 0 then redis.call('SET', KEYS[3], 0) end
    for tenant, share in pairs(shares) do
        if redis.call('HINCRBY', KEYS[4], tenant, -share) <= 0 then redis.call('HDEL', KEYS[4], tenant) end
    end
end
";

/// KEYS stream, events, bytes, tenants' bytes; ARGV group, then id, events, bytes, tenant, share of
/// each entry.
const ACKNOWLEDGE: &str = r"
local deleted, events, bytes, shares = 0, 0, 0, {}
for i = 2, #ARGV, 5 do
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
        deleted = deleted + 1
        events = events + tonumber(ARGV[i + 1])
        bytes = bytes + tonumber(ARGV[i + 2])
        shares[ARGV[i + 3]] = (shares[ARGV[i + 3]] or 0) + tonumber(ARGV[i + 4])
    end
end
if deleted > 0 then settle(events, bytes, shares) end
return deleted
";

/// KEYS stream, events, bytes, tenants' bytes, quarantine; ARGV group, id, events, bytes, tenant, share,
/// most entries, then the fields to keep. Answers 0: it was gone; 1: it is moved; 2: there is no room.
const QUARANTINE: &str = r"
if #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2]) == 0 then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
    return 0
end
if redis.call('XLEN', KEYS[5]) >= tonumber(ARGV[7]) then return 2 end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
settle(ARGV[3], ARGV[4], { [ARGV[5]] = tonumber(ARGV[6]) })
redis.call('XADD', KEYS[5], '*', unpack(ARGV, 8))
return 1
";

/// KEYS stream; ARGV group, consumer, then ids. Begins the idle time of what is still ours anew,
/// and gives back how many are.
const HOLD: &str = r"
local held = 0
for i = 3, #ARGV do
    if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) == 1 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
        held = held + 1
    end
end
return held
";

/// KEYS stream; ARGV group, consumer, milliseconds. Removes a consumer unless something is pending with it:
/// Redis would forget that with it. What is pending counts as left alone for so long: who looks next for what the
/// dead left behind takes it.
const LEAVE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
local from, left = '-', true
repeat
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', 1000, ARGV[2])
    for _, entry in ipairs(pending) do
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'IDLE', ARGV[3], 'JUSTID')
        from, left = '(' .. entry[1], false
    end
until #pending < 1000
if not left then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
";
/// Longer than anybody waits before he claims.
const LEFT_ALONE: Duration = Duration::from_secs(7 * 24 * 3600);

/// KEYS stream, events, bytes; ARGV group. In a script so that the first entry's payload stays
/// in Redis.
const STATUS: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local last, groups = '0-0', 0
local stream = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then last = stream[i + 1] end
    if stream[i] == 'groups' then groups = stream[i + 1] end
end
local pending, consumers = 0, 0
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local of = {}
    for i = 1, #group, 2 do of[group[i]] = group[i + 1] end
    if of['name'] == ARGV[1] then pending, consumers = of['pending'], of['consumers'] end
end
return {
    tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(redis.call('GET', KEYS[3]) or '0'),
    redis.call('XLEN', KEYS[1]), pending, groups, consumers, last, first[1] and first[1][1] or '',
}
";

/// The lanes' scripts on one connection. Cheap to clone: every worker has one.
#[derive(Clone)]
pub struct Lanes {
    pub(super) connection: Connection,
    pub(super) scripts: Arc<Scripts>,
}

pub(super) struct Scripts {
    acknowledge: Script,
    quarantine: Script,
    hold: Script,
    pub(super) forgive: Script,
    leave: Script,
    status: Script,
    pub(super) quarantined: Script,
    pub(super) put_back: Script,
}

impl Lanes {
    /// The lanes of the queue's Redis.
    pub fn new(redis: &Redis) -> Result<Self, Error> {
        let scripts = Scripts {
            acknowledge: Script::new(&[SETTLE, ACKNOWLEDGE].concat()),
            quarantine: Script::new(&[SETTLE, QUARANTINE].concat()),
            hold: Script::new(HOLD),
            forgive: Script::new(FORGIVE),
            leave: Script::new(LEAVE),
            status: Script::new(STATUS),
            quarantined: Script::new(QUARANTINED),
            put_back: Script::new(PUT_BACK),
        };
        Ok(Self { connection: redis.connection()?, scripts: Arc::new(scripts) })
    }

    /// Deletes entries whose effect is stored. Doing it twice is doing it once: gives back how
    /// many were still there.
    pub async fn acknowledge(&self, entries: &[EntryRef]) -> Result<u64, Error> {
        let mut deleted = 0;
        for (lane, entries) in by_lane(entries) {
            let mut call = self.scripts.acknowledge.prepare_invoke();
            call.key(lane.stream()).key(lane.events_counter()).key(lane.bytes_counter()).key(lane.tenant_bytes());
            call.arg(CONSUMER_GROUP);
            for entry in entries {
                call.arg(&entry.id).arg(entry.events).arg(entry.bytes).arg(&entry.tenant).arg(entry.share);
            }
            let done: u64 =
                call.invoke_async(&mut self.connection.clone()).await.map_err(redis_error("acknowledge entries"))?;
            deleted += done;
        }
        Ok(deleted)
    }

    /// Says that `consumer` still works on these entries, so that nobody claims them. Gives back
    /// how many are still its own.
    pub async fn hold(&self, consumer: &str, entries: &[EntryRef]) -> Result<u64, Error> {
        let mut held = 0;
        for (lane, entries) in portions(entries) {
            let mut call = self.scripts.hold.prepare_invoke();
            call.key(lane.stream()).arg(CONSUMER_GROUP).arg(consumer);
            for entry in entries {
                call.arg(&entry.id);
            }
            let still: u64 =
                call.invoke_async(&mut self.connection.clone()).await.map_err(redis_error("hold entries"))?;
            held += still;
        }
        Ok(held)
    }

    /// Moves an entry that belongs to nobody out of the way, with the reason. `false` if it was
    /// gone already. Where there is no room it stays in the lane: what was accepted is not thrown away.
    pub async fn quarantine(&self, entry: &EntryRef, content: &Undecodable) -> Result<bool, Error> {
        let lane = &entry.lane;
        let mut call = self.scripts.quarantine.prepare_invoke();
        call.key(lane.stream()).key(lane.events_counter()).key(lane.bytes_counter()).key(lane.tenant_bytes());
        call.key(lane.quarantine()).arg(CONSUMER_GROUP).arg(&entry.id).arg(entry.events).arg(entry.bytes);
        call.arg(&entry.tenant).arg(entry.share).arg(QUARANTINED_ENTRIES);
        call.arg("reason").arg(content.reason).arg("id").arg(&entry.id);
        for (name, value) in content.fields.iter().take(QUARANTINED_FIELDS) {
            call.arg(name.as_slice()).arg(value.as_slice());
        }
        match call.invoke_async(&mut self.connection.clone()).await.map_err(redis_error("quarantine an entry"))? {
            2 => Err(Error::QuarantineFull { stream: lane.quarantine() }),
            moved => Ok(moved == 1),
        }
    }

    /// Removes a consumer from a lane unless something is pending with it. `false`: it stays, and others may
    /// claim at once what it has.
    pub(super) async fn leave(&self, lane: &Lane, consumer: &str) -> Result<bool, Error> {
        let mut call = self.scripts.leave.prepare_invoke();
        call.key(lane.stream()).arg(CONSUMER_GROUP).arg(consumer).arg(LEFT_ALONE.as_millis() as u64);
        call.invoke_async(&mut self.connection.clone()).await.map_err(redis_error("leave a lane"))
    }

    /// Pipelines that are gone and whose lanes the processors of `default` drain.
    pub async fn orphaned_pipelines(&self) -> Result<Vec<PipelineName>, Error> {
        let names = pipelines_in(ORPHANED_PIPELINES, &self.connection).await;
        Ok(names.map_err(redis_error("list orphaned pipelines"))?.into_iter().collect())
    }

    /// The lanes of these pipelines, and of all that events wait for.
    pub async fn status_with_held(
        &self,
        mut pipelines: BTreeSet<PipelineName>,
        now: u64,
    ) -> Result<Vec<LaneStatus>, Error> {
        let held = pipelines_in(HELD_PIPELINES, &self.connection).await;
        let held = held.map_err(redis_error("list the pipelines that events wait for"))?;
        pipelines.extend(held.iter().cloned());
        let pipelines: Vec<_> = pipelines.into_iter().collect();
        let mut lanes = self.status(&pipelines, now).await?;
        for lane in &mut lanes {
            lane.held = held.contains(&lane.name);
        }
        Ok(lanes)
    }

    /// The lanes of these pipelines that exist; `now` in milliseconds since 1970.
    pub async fn status(&self, pipelines: &[PipelineName], now: u64) -> Result<Vec<LaneStatus>, Error> {
        type Row = (u64, u64, u64, u64, u64, u64, String, String);
        let mut lanes = Vec::new();
        for lane in pipelines.iter().flat_map(PipelineName::lanes) {
            let mut call = self.scripts.status.prepare_invoke();
            call.key(lane.stream()).key(lane.events_counter()).key(lane.bytes_counter()).arg(CONSUMER_GROUP);
            let row: Option<Row> =
                call.invoke_async(&mut self.connection.clone()).await.map_err(redis_error("read a lane's status"))?;
            let Some((events, bytes, entries, pending, groups, consumers, last_id, first_id)) = row else { continue };
            lanes.push(LaneStatus {
                stream: lane.stream(),
                name: lane.pipeline,
                events,
                bytes,
                entries,
                pending,
                groups,
                consumers,
                last_id,
                oldest_age_seconds: added_at(&first_id).map_or(0, |added| now.saturating_sub(added) / 1000),
                held: false,
            });
        }
        Ok(lanes)
    }
}

/// The names in a set of pipelines.
pub(super) async fn pipelines_in(set: &str, connection: &Connection) -> redis::RedisResult<BTreeSet<PipelineName>> {
    let names: Vec<String> = redis::cmd("SMEMBERS").arg(set).query_async(&mut connection.clone()).await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// When an entry was added, in milliseconds since 1970, from its id.
pub(super) fn added_at(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

/// The entries of each lane, in portions that one call of a script takes.
pub(super) fn portions(entries: &[EntryRef]) -> Vec<(&Lane, Vec<&EntryRef>)> {
    let mut portions = Vec::new();
    for (lane, entries) in by_lane(entries) {
        portions.extend(entries.chunks(ENTRIES_A_CALL).map(|some| (lane, some.to_vec())));
    }
    portions
}

fn by_lane(entries: &[EntryRef]) -> BTreeMap<&Lane, Vec<&EntryRef>> {
    let mut lanes: BTreeMap<&Lane, Vec<&EntryRef>> = BTreeMap::new();
    for entry in entries {
        lanes.entry(&entry.lane).or_default().push(entry);
    }
    lanes
}
