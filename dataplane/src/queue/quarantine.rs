//! What lies in quarantine, and back into its lane with it. Each entry moves by one script, so that it is in one of the
//! two places, and counted where it is.

use std::collections::BTreeSet;

use crds::names::{Lane, QUARANTINES};
use runtime::stores::Connection;

use super::entry::{Header, tenant_weight};
use super::health::is_full;
use super::lanes::Lanes;
use super::{Error, redis_error};

/// Entries looked at by one script: their headers, of up to a megabyte each, come back.
const PAGE: usize = 16;
/// Keys that Redis looks at for one step of a search for quarantines.
const SCANNED: usize = 1_000;

/// KEYS quarantine; ARGV first id, most entries. Returns id, reason, tenant, number of events,
/// header and bytes of the payload of each.
pub(super) const QUARANTINED: &str = r"
local found = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
    local fields, of = entry[2], { reason = '', t = '', n = '', h = '', p = '' }
    for i = 1, #fields, 2 do
        if of[fields[i]] == '' then of[fields[i]] = fields[i + 1] end
    end
    found[#found + 1] = { entry[1], of.reason, of.t, of.n, of.h, #of.p }
end
return found
";

/// KEYS stream, events, bytes, tenants' bytes, quarantine; ARGV id, events, bytes, tenant, share. The first two fields say
/// why it was there, and what it was called before; the number of its events may have been left out.
pub(super) const PUT_BACK: &str = r"
local entry = redis.call('XRANGE', KEYS[5], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local fields, counted = {}, false
for i = 5, #entry[2], 2 do
    fields[#fields + 1], fields[#fields + 2] = entry[2][i], entry[2][i + 1]
    counted = counted or entry[2][i] == 'n'
end
if not counted then fields[#fields + 1], fields[#fields + 2] = 'n', ARGV[2] end
redis.call('XADD', KEYS[1], '*', unpack(fields))
redis.call('XDEL', KEYS[5], ARGV[1])
redis.call('INCRBY', KEYS[2], ARGV[2])
redis.call('INCRBY', KEYS[3], ARGV[3])
redis.call('HINCRBY', KEYS[4], ARGV[4], ARGV[5])
return 1
";

/// An entry in quarantine, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The lane that it came from.
    pub lane: Lane,
    /// Its id in the quarantine.
    pub id: String,
    /// Why it is there.
    pub reason: String,
    /// Whose it says that it is: not always a name.
    pub tenant: String,
    /// Its events, as it says or as far as its header can be read.
    pub events: u64,
    /// Its payload's bytes.
    pub bytes: u64,
    /// What it counts in its tenant's share of the queue.
    share: u64,
}

/// One answer of [`QUARANTINED`].
type Row = (String, String, Vec<u8>, Vec<u8>, Vec<u8>, usize);

impl Quarantined {
    fn new(lane: &Lane, (id, reason, tenant, events, header, bytes): Row) -> Self {
        let said = std::str::from_utf8(&events).ok().and_then(|events| events.parse().ok());
        let read = || postcard::from_bytes::<Header>(&header).map_or(0, |header| header.events() as u64);
        let events = said.unwrap_or_else(read);
        let tenant = String::from_utf8_lossy(&tenant).into_owned();
        let (tenant, share) = tenant_weight(&tenant, header.len(), bytes);
        Self { lane: lane.clone(), id, reason, tenant, events, bytes: bytes as u64, share }
    }
}

impl Lanes {
    /// The lanes that have something in quarantine, whatever became of their pipelines.
    pub async fn quarantines(&self) -> Result<Vec<Lane>, Error> {
        let (mut lanes, mut cursor) = (BTreeSet::new(), 0_u64);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(QUARANTINES).arg("COUNT").arg(SCANNED);
            let (next, keys): (u64, Vec<String>) =
                scan.query_async(&mut self.connection()).await.map_err(redis_error("look for quarantines"))?;
            lanes.extend(keys.iter().filter_map(|key| Lane::of_quarantine(key)));
            cursor = next;
            if cursor == 0 {
                return Ok(lanes.into_iter().collect());
            }
        }
    }

    /// The next entries in a lane's quarantine, oldest first; none if there are no more.
    pub async fn quarantined(&self, lane: &Lane, after: Option<&Quarantined>) -> Result<Vec<Quarantined>, Error> {
        let mut call = self.scripts.quarantined.prepare_invoke();
        call.key(lane.quarantine()).arg(after.map_or("-".to_owned(), |last| format!("({}", last.id))).arg(PAGE);
        let rows: Vec<Row> =
            call.invoke_async(&mut self.connection()).await.map_err(redis_error("look into a quarantine"))?;
        Ok(rows.into_iter().map(|row| Quarantined::new(lane, row)).collect())
    }

    /// Puts an entry back at the end of its lane. `false` if it was gone already.
    pub async fn put_back(&self, entry: &Quarantined) -> Result<bool, Error> {
        let lane = &entry.lane;
        let mut call = self.scripts.put_back.prepare_invoke();
        call.key(lane.stream()).key(lane.events_counter()).key(lane.bytes_counter()).key(lane.tenant_bytes());
        call.key(lane.quarantine()).arg(&entry.id).arg(entry.events).arg(entry.bytes).arg(&entry.tenant);
        call.arg(entry.share);
        call.invoke_async(&mut self.connection()).await.map_err(redis_error("put an entry back"))
    }

    /// Whether Redis is so full that nothing new is accepted.
    pub async fn is_full(&self) -> Result<bool, Error> {
        let memory: String = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut self.connection())
            .await
            .map_err(redis_error("ask how full the queue is"))?;
        Ok(is_full(&memory))
    }

    fn connection(&self) -> Connection {
        self.connection.clone()
    }
}
