//! The registry that ingest and the other roles read, in the queue's Redis.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::{AsyncCommands, Script};

use crds::TenantName;
use crds::names::{
    HELD_PIPELINES, ORPHANED_PIPELINES, PipelineName, REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_TENANTS, taken_back,
};
use crds::registry::RegistryTenant;
use runtime::stores::Connection;

use crate::provision::error::RedisContext;
use crate::provision::{Error, Outcome};

/// An epoch that is not there, or was lost, begins with the clock, so that it never comes back to a
/// value that a reader has seen.
const BEGIN: &str = r"
if redis.call('EXISTS', KEYS[2]) == 0 then
    local now = redis.call('TIME')
    redis.call('SET', KEYS[2], string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000)))
end
";

/// Changes one tenant's entry, the epoch and the stream of changes together, or nothing at all
/// where the entry is already so. `ARGV[2]` is the entry, or empty to remove it; `ARGV[3]`, if given, is
/// what the entry must be before. Answers what it did, and the entry as it was. Runs after [`BEGIN`].
const CHANGE: &str = r"
local before = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[3] and before ~= ARGV[3] then return {3, ''} end
local kind = 'upserted'
if ARGV[2] == '' then
    if not before then return {0, ''} end
    redis.call('HDEL', KEYS[1], ARGV[1])
    kind = 'removed'
else
    if before == ARGV[2] then return {0, before} end
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
local epoch = redis.call('INCR', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*',
    'tenant', ARGV[1], 'kind', kind, 'epoch', string.format('%d', epoch))
if before then return {1, before} end
return {2, ''}
";

/// How long processors of `default` may go on reading streams that are theirs no more: they look every ten seconds.
const STILL_READ: Duration = Duration::from_secs(15);

/// Takes a pipeline's streams from the processors of `default`, and notes it as held where `ARGV[3]` says so. Answers
/// for how many milliseconds these may still read them; -2 if they do not.
const TAKE_BACK: &str = r"
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then
    redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
end
redis.call(ARGV[3] == '1' and 'SADD' or 'SREM', KEYS[2], ARGV[1])
return redis.call('PTTL', KEYS[3])
";

/// Gives a pipeline's streams to the processors of `default`.
const HAND_OVER: &str = r"
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return redis.call('SADD', KEYS[1], ARGV[1])
";

/// A tenant's entry as it was read, to change it only if nobody else does meanwhile.
#[derive(Debug, Clone)]
pub struct SeenEntry {
    /// The entry.
    pub entry: RegistryTenant,
    /// The same as it stands in Redis.
    json: String,
}

/// The registry in Redis.
#[derive(Clone)]
pub struct Registry {
    connection: Connection,
}

impl Registry {
    /// Over a shared connection, which reconnects by itself.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Gives an empty registry its epoch: a reader takes "no tenants" from one that has begun, and
    /// waits for one that has not.
    pub async fn begin(&self) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        let begun: Result<i64, _> = Script::new(&format!("{BEGIN} return 0"))
            .key(REGISTRY_TENANTS)
            .key(REGISTRY_EPOCH)
            .invoke_async(&mut connection)
            .await;
        begun.map(|_| ()).doing("begin the registry")
    }

    /// Writes a tenant's entry, announces it; nothing if it is so already.
    pub async fn upsert(&self, entry: &RegistryTenant) -> Result<Outcome, Error> {
        Ok(self.put(entry).await?.0)
    }

    /// The same; gives back the entry as it was, too, if there was one that can be read.
    pub async fn put(&self, entry: &RegistryTenant) -> Result<(Outcome, Option<RegistryTenant>), Error> {
        let (changed, before) = self.change(&entry.tenant, &encoded(entry)?, None, "write a registry entry").await?;
        Ok((outcome(changed), serde_json::from_str(&before).ok()))
    }

    /// Writes `entry` in place of the one that was seen. `None`: it is another by now, or gone, and stays so.
    pub async fn replace(&self, seen: &SeenEntry, entry: &RegistryTenant) -> Result<Option<Outcome>, Error> {
        let doing = "replace a registry entry";
        let (changed, _) = self.change(&seen.entry.tenant, &encoded(entry)?, Some(&seen.json), doing).await?;
        Ok((changed != OTHER).then(|| outcome(changed)))
    }

    /// Removes a tenant's entry and announces it; nothing if there is none.
    pub async fn remove(&self, tenant: &TenantName) -> Result<Outcome, Error> {
        Ok(outcome(self.change(tenant, "", None, "remove a registry entry").await?.0))
    }

    /// One tenant's entry, if it is there and can be read.
    pub async fn get(&self, tenant: &TenantName) -> Result<Option<RegistryTenant>, Error> {
        Ok(self.see(tenant).await?.map(|seen| seen.entry))
    }

    /// The same, to be replaced.
    pub async fn see(&self, tenant: &TenantName) -> Result<Option<SeenEntry>, Error> {
        let json: Option<String> =
            self.connection.clone().hget(REGISTRY_TENANTS, tenant.as_str()).await.doing("read a registry entry")?;
        Ok(json.and_then(|json| Some(SeenEntry { entry: serde_json::from_str(&json).ok()?, json })))
    }

    /// The pipelines that entries name; `None` if one can't be read, which may name any.
    pub async fn named_pipelines(&self) -> Result<Option<HashSet<PipelineName>>, Error> {
        let entries: Vec<String> = self.connection.clone().hvals(REGISTRY_TENANTS).await.doing("read the registry")?;
        let named = entries.iter().map(|json| Some(serde_json::from_str::<RegistryTenant>(json).ok()?.pipeline));
        Ok(named.collect())
    }

    /// Names of all tenants in the registry, readable or not.
    pub async fn tenants(&self) -> Result<Vec<String>, Error> {
        self.connection.clone().hkeys(REGISTRY_TENANTS).await.doing("list the registry")
    }

    /// The hour in which each of the tenant's keys was last used, as far as it is remembered.
    pub async fn key_uses(&self, tenant: &TenantName) -> Result<HashMap<String, u64>, Error> {
        self.connection.clone().hgetall(tenant.key_uses()).await.doing("read when keys were last used")
    }

    /// Forgets when keys that are no more were last used.
    pub async fn forget_key_uses(&self, tenant: &TenantName, ids: &[String]) -> Result<(), Error> {
        let _: i64 =
            self.connection.clone().hdel(tenant.key_uses(), ids).await.doing("forget when keys were last used")?;
        Ok(())
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), Error> {
        redis::cmd("PING").query_async(&mut self.connection.clone()).await.doing("ping")
    }

    /// Pipelines whose streams the processors of `default` drain.
    pub async fn orphaned(&self) -> Result<Vec<String>, Error> {
        self.connection.clone().smembers(ORPHANED_PIPELINES).await.doing("list the orphaned pipelines")
    }

    /// Pipelines that are not there, and whose streams wait for them.
    pub async fn held(&self) -> Result<Vec<String>, Error> {
        self.connection.clone().smembers(HELD_PIPELINES).await.doing("list the pipelines that events wait for")
    }

    /// Hands a pipeline's streams to the processors of `default`.
    pub async fn orphan(&self, pipeline: &PipelineName) -> Result<(), Error> {
        let script = Script::new(HAND_OVER);
        let mut call = script.key(ORPHANED_PIPELINES);
        call.key(HELD_PIPELINES).key(taken_back(pipeline)).arg(pipeline.as_str());
        let handed: Result<i64, _> = call.invoke_async(&mut self.connection.clone()).await;
        handed.map(|_| ()).doing("hand a pipeline's streams to the default pipeline")
    }

    /// Takes a pipeline's streams back: it has processors of its own (again). Answers how long those of
    /// `default` may still read them.
    pub async fn adopt(&self, pipeline: &PipelineName) -> Result<Duration, Error> {
        self.take_back(pipeline, false).await
    }

    /// Has a pipeline's streams wait for it: it is not there, and nobody else is to read them. Answers how
    /// long the processors of `default` may still do so.
    pub async fn hold(&self, pipeline: &PipelineName) -> Result<Duration, Error> {
        self.take_back(pipeline, true).await
    }

    /// Forgets a pipeline that nothing waits for.
    pub async fn let_go(&self, pipeline: &PipelineName) -> Result<(), Error> {
        let _: i64 = self
            .connection
            .clone()
            .srem(HELD_PIPELINES, pipeline.as_str())
            .await
            .doing("forget a pipeline that nothing waits for")?;
        Ok(())
    }

    async fn take_back(&self, pipeline: &PipelineName, hold: bool) -> Result<Duration, Error> {
        let script = Script::new(TAKE_BACK);
        let mut call = script.key(ORPHANED_PIPELINES);
        call.key(HELD_PIPELINES).key(taken_back(pipeline));
        call.arg(pipeline.as_str()).arg(STILL_READ.as_millis() as u64).arg(u8::from(hold));
        let left: Result<i64, _> = call.invoke_async(&mut self.connection.clone()).await;
        let left = left.doing("take a pipeline's streams back")?;
        Ok(u64::try_from(left).map_or(Duration::ZERO, Duration::from_millis))
    }

    /// The shared connection, for what else the operator reads of the queue.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    async fn change(
        &self,
        tenant: &TenantName,
        json: &str,
        before: Option<&str>,
        doing: &'static str,
    ) -> Result<(i64, String), Error> {
        let script = Script::new(&format!("{BEGIN}{CHANGE}"));
        let mut invocation = script.key(REGISTRY_TENANTS);
        invocation.key(REGISTRY_EPOCH).key(REGISTRY_CHANGES).arg(tenant.as_str()).arg(json);
        if let Some(before) = before {
            invocation.arg(before);
        }
        invocation.invoke_async(&mut self.connection.clone()).await.doing(doing)
    }
}

/// What [`CHANGE`] answers where the entry is not the one that was expected.
const OTHER: i64 = 3;

fn outcome(changed: i64) -> Outcome {
    match changed {
        0 => Outcome::Unchanged,
        1 => Outcome::Updated,
        _ => Outcome::Created,
    }
}

fn encoded(entry: &RegistryTenant) -> Result<String, Error> {
    serde_json::to_string(entry).map_err(|error| Error::Redis {
        doing: "encode a registry entry",
        source: (redis::ErrorKind::Client, "JSON", error.to_string()).into(),
    })
}
