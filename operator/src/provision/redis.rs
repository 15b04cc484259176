//! The registry that ingest and the other roles read, in the queue's Redis.

mod mark;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use redis::{AsyncCommands, Script};
use tokio::sync::watch;

use crds::TenantName;
use crds::names::{
    HELD_PIPELINES, ORPHANED_PIPELINES, PipelineName, REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_SIGNATURES,
    REGISTRY_TENANTS, taken_back,
};
use crds::registry::{RegistryKey, RegistryTenant};
use crds::signature::Signature;
use runtime::stores::Connection;

pub use mark::Mark;

use crate::provision::error::RedisContext;
use crate::provision::signing::{Entry, Signing, Standing};
use crate::provision::{Error, Outcome};

/// An epoch that is not there, or was lost, begins with the clock, so that it never comes back to a
/// value that a reader has seen. A stream of changes that is not there begins with a change of nobody's: a reader that
/// has seen another one waits until somebody has begun anew.
const BEGIN: &str = r"
if redis.call('EXISTS', KEYS[2]) == 0 then
    local now = redis.call('TIME')
    redis.call('SET', KEYS[2], string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000)))
end
if redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('XADD', KEYS[3], '*', 'kind', 'begun', 'epoch', redis.call('GET', KEYS[2]))
end
";

/// Changes one tenant's entry, its signature, the epoch and the stream of changes together, or nothing at
/// all where both are already so. `ARGV[2]` is the entry, or empty to remove it; `ARGV[3]` its signature, or
/// empty. Where `ARGV[4]` is 1, `ARGV[5]` and `ARGV[6]` are what the two must be before. Answers what it
/// did. Runs after [`BEGIN`].
const CHANGE: &str = r"
local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local signed = redis.call('HGET', KEYS[4], ARGV[1]) or ''
if ARGV[4] == '1' and (before ~= ARGV[5] or signed ~= ARGV[6]) then return 3 end
if before == ARGV[2] and signed == ARGV[3] then return 0 end
local kind = 'upserted'
if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
    kind = 'removed'
else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[4], ARGV[1])
else
    redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
end
local epoch = redis.call('INCR', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*',
    'tenant', ARGV[1], 'kind', kind, 'epoch', string.format('%d', epoch))
if before == '' and ARGV[2] ~= '' then return 2 end
return 1
";

/// Tries to write an entry that somebody else writes at the same time.
const TRIES: usize = 8;
/// Longest wait for the key that entries are signed with: it comes with the first look at the cluster's Secrets.
const KEY_WAIT: Duration = Duration::from_secs(10);
/// Entries that are looked at in one go.
const AT_ONCE: usize = 200;

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
    raw: Entry,
}

/// The registry in Redis.
#[derive(Clone)]
pub struct Registry {
    connection: Connection,
    /// What entries are signed with, once it is known; absent: they are not.
    signing: Option<watch::Receiver<Option<Arc<Signing>>>>,
    /// [`Entry::least`] of each tenant whose entry was seen since the operator began.
    least: Arc<Mutex<HashMap<TenantName, u64>>>,
}

impl Registry {
    /// Over a shared connection, which reconnects by itself. Entries are not signed.
    pub fn new(connection: Connection) -> Self {
        Self { connection, signing: None, least: Arc::default() }
    }

    /// The same registry, whose entries are signed by what is sent here. Nothing is written before the first is.
    pub fn signed_by(self, signing: watch::Receiver<Option<Arc<Signing>>>) -> Self {
        Self { signing: Some(signing), ..self }
    }

    /// Gives an empty registry its epoch: a reader takes "no tenants" from one that has begun, and
    /// waits for one that has not.
    pub async fn begin(&self) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        let begun: Result<i64, _> = Script::new(&format!("{BEGIN} return 0"))
            .key(REGISTRY_TENANTS)
            .key(REGISTRY_EPOCH)
            .key(REGISTRY_CHANGES)
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
        let (doing, json) = ("write a registry entry", encoded(entry)?);
        let signing = self.signing().await?;
        for _ in 0..TRIES {
            let seen = self.read(&entry.tenant, signing.as_deref(), doing).await?;
            let before = serde_json::from_str(&seen.document).ok();
            if signing.as_ref().is_some_and(|signing| !signing.believes(&entry.tenant, &seen)) {
                let name = &entry.tenant;
                tracing::warn!(tenant.name = %name, "somebody else wrote the registry entry of {name}: it is unsigned or old");
            }
            let changed = self.write(&entry.tenant, &seen, &json, signing.as_deref(), doing).await?;
            if changed != OTHER {
                return Ok((outcome(changed), before));
            }
        }
        Err(failed(doing, "others write it again and again"))
    }

    /// Writes `entry` in place of the one that was seen. `None`: it is another by now, or gone, and stays so.
    pub async fn replace(&self, seen: &SeenEntry, entry: &RegistryTenant) -> Result<Option<Outcome>, Error> {
        let signing = self.signing().await?;
        let (json, doing) = (encoded(entry)?, "replace a registry entry");
        let changed = self.write(&seen.entry.tenant, &seen.raw, &json, signing.as_deref(), doing).await?;
        Ok((changed != OTHER).then(|| outcome(changed)))
    }

    /// Removes a tenant's entry and announces it; nothing if there is none.
    pub async fn remove(&self, tenant: &TenantName) -> Result<Outcome, Error> {
        let removed = outcome(self.change(tenant, "", "", None, "remove a registry entry").await?);
        // What is removed is not to come back.
        self.note(tenant, self.least(tenant).saturating_add(1));
        Ok(removed)
    }

    /// One tenant's entry, if it is there, can be read, and is to be believed.
    pub async fn get(&self, tenant: &TenantName) -> Result<Option<RegistryTenant>, Error> {
        Ok(self.see(tenant).await?.map(|seen| seen.entry))
    }

    /// The same, to be replaced. What somebody else wrote, where entries have to be signed, is not there: signed by
    /// us with a change of ours, it would be believed.
    pub async fn see(&self, tenant: &TenantName) -> Result<Option<SeenEntry>, Error> {
        let signing = self.signing().await?;
        let raw = self.read(tenant, signing.as_deref(), "read a registry entry").await?;
        if signing.is_some_and(|signing| !signing.believes(tenant, &raw)) {
            tracing::warn!(tenant.name = %tenant, "passed over the registry entry of {tenant}: it is unsigned or old");
            return Ok(None);
        }
        Ok(serde_json::from_str(&raw.document).ok().map(|entry| SeenEntry { entry, raw }))
    }

    /// Those of these tenants that have an entry that can be read and is to be believed.
    pub async fn entries(&self, tenants: &[TenantName]) -> Result<Vec<RegistryTenant>, Error> {
        let signing = self.signing().await?;
        let mut entries = Vec::new();
        for names in tenants.chunks(AT_ONCE) {
            let found = self.read_all(names, signing.as_deref(), "read registry entries").await?;
            let believed = names
                .iter()
                .zip(found)
                .filter(|(tenant, raw)| signing.as_ref().is_none_or(|signing| signing.believes(tenant, raw)));
            entries.extend(believed.filter_map(|(_, raw)| serde_json::from_str(&raw.document).ok()));
        }
        Ok(entries)
    }

    /// The entries that are to be signed: with the newest key what another key of ours signed, or the same a day ago,
    /// and what nobody signed, before entries have to be.
    pub async fn to_sign(&self, tenants: &[TenantName]) -> Result<Vec<SeenEntry>, Error> {
        let mut found = Vec::new();
        let Some(signing) = self.signing().await? else { return Ok(found) };
        for names in tenants.chunks(AT_ONCE) {
            let entries = self.read_all(names, Some(&signing), "look which registry entries are signed").await?;
            for (tenant, raw) in names.iter().zip(entries) {
                match signing.standing(tenant, &raw, SystemTime::now()) {
                    Standing::Absent | Standing::Signed | Standing::Foreign => {}
                    // What can't be read is read by nobody.
                    Standing::Stale | Standing::New => {
                        let entry: Option<RegistryTenant> = serde_json::from_str(&raw.document).ok();
                        let entry = entry.filter(|entry| entry.tenant == *tenant);
                        found.extend(entry.map(|entry| SeenEntry { entry, raw }));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Signs such an entry, less the keys that do not live: also what we signed ourselves may have been put back since.
    /// False: somebody else has changed it.
    pub async fn sign(&self, seen: &SeenEntry, lives: impl Fn(&RegistryKey) -> bool) -> Result<bool, Error> {
        let keys = seen.entry.keys.iter().filter(|key| lives(key)).cloned().collect();
        Ok(self.replace(seen, &RegistryTenant { keys, ..seen.entry.clone() }).await?.is_some())
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

    /// What entries are signed with, once that is known; `None` where they are not signed.
    async fn signing(&self) -> Result<Option<Arc<Signing>>, Error> {
        let Some(mut signing) = self.signing.clone() else { return Ok(None) };
        match tokio::time::timeout(KEY_WAIT, signing.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => Ok(known.clone()),
            _ => Err(failed("sign the registry", "the key is not known yet: see what the operator says of its Secret")),
        }
    }

    async fn read(&self, tenant: &TenantName, signing: Option<&Signing>, doing: &'static str) -> Result<Entry, Error> {
        Ok(self.read_all(std::slice::from_ref(tenant), signing, doing).await?.pop().unwrap_or_default())
    }

    async fn read_all(
        &self,
        tenants: &[TenantName],
        signing: Option<&Signing>,
        doing: &'static str,
    ) -> Result<Vec<Entry>, Error> {
        let names: Vec<&str> = tenants.iter().map(TenantName::as_str).collect();
        // As of before the look: what others of us write meanwhile makes nothing old that is read here.
        let least: Vec<u64> = tenants.iter().map(|tenant| self.least(tenant)).collect();
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HMGET").arg(REGISTRY_TENANTS).arg(&names).cmd("HMGET").arg(REGISTRY_SIGNATURES).arg(&names);
        type Found = Vec<Option<String>>;
        let (documents, signatures): (Found, Found) =
            pipe.query_async(&mut self.connection.clone()).await.doing(doing)?;
        let raw = least.into_iter().zip(documents.into_iter().zip(signatures));
        let raw = raw.map(|(least, (document, signature))| Entry {
            document: document.unwrap_or_default(),
            signature: signature.unwrap_or_default(),
            least,
        });
        let raw: Vec<Entry> = raw.collect();
        for (tenant, entry) in tenants.iter().zip(&raw) {
            if let Some(revision) = signing.and_then(|signing| signing.revision(tenant, entry)) {
                self.note(tenant, revision);
            }
        }
        Ok(raw)
    }

    fn least(&self, tenant: &TenantName) -> u64 {
        let least = self.least.lock().unwrap_or_else(PoisonError::into_inner);
        least.get(tenant).copied().unwrap_or_default()
    }

    fn note(&self, tenant: &TenantName, revision: u64) {
        let mut least = self.least.lock().unwrap_or_else(PoisonError::into_inner);
        let known = least.entry(tenant.clone()).or_default();
        *known = revision.max(*known);
    }

    /// Writes an entry, signed, in place of the one that was seen, or answers [`OTHER`].
    async fn write(
        &self,
        tenant: &TenantName,
        seen: &Entry,
        json: &str,
        signing: Option<&Signing>,
        doing: &'static str,
    ) -> Result<i64, Error> {
        let signature = signing.map(|signing| signing.signature(tenant, seen, json, SystemTime::now()));
        let signature = signature.unwrap_or_default();
        let changed = self.change(tenant, json, &signature, Some(seen), doing).await?;
        if let (true, Ok(Signature { revision, .. })) = (changed != OTHER, signature.parse()) {
            self.note(tenant, revision);
        }
        Ok(changed)
    }

    async fn change(
        &self,
        tenant: &TenantName,
        json: &str,
        signature: &str,
        seen: Option<&Entry>,
        doing: &'static str,
    ) -> Result<i64, Error> {
        let script = Script::new(&format!("{BEGIN}{CHANGE}"));
        let mut invocation = script.key(REGISTRY_TENANTS);
        invocation.key(REGISTRY_EPOCH).key(REGISTRY_CHANGES).key(REGISTRY_SIGNATURES);
        invocation.arg(tenant.as_str()).arg(json).arg(signature).arg(u8::from(seen.is_some()));
        if let Some(seen) = seen {
            invocation.arg(&seen.document).arg(&seen.signature);
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
    serde_json::to_string(entry).map_err(|error| failed("encode a registry entry", &error.to_string()))
}

fn failed(doing: &'static str, why: &str) -> Error {
    Error::Redis { doing, source: (redis::ErrorKind::Client, "not done", why.to_owned()).into() }
}
