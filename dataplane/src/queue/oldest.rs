//! Since when a tenant's oldest event waits: told without its payload, which only processors may read.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::PipelineName;
use crds::names::{CONSUMER_GROUP, HELD_PIPELINES, Lane};
use redis::streams::StreamPendingCountReply;
use runtime::stores::{Connection, Redis};

use super::lanes::{added_at, pipelines_in};
use super::{Error, redis_error};
use crate::event::Micros;
use crate::tenancy::Tenant;

/// Time in which a processor that runs takes what has come.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(100);

/// Since when something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oldest {
    /// Nothing waits.
    Nothing,
    /// Nothing that was added before.
    Since(Micros),
    /// Something, and nobody has read it yet: nobody knows since when.
    Unread,
}

/// Looks into the queue. Cheap to clone.
#[derive(Clone)]
pub struct Waiting {
    connection: Connection,
}

impl Waiting {
    /// In this Redis.
    pub fn new(redis: &Redis) -> Result<Self, runtime::stores::Error> {
        Ok(Self { connection: redis.connection()? })
    }

    /// Since when the oldest waits that may be the tenant's: the oldest of its lane stands for its own.
    pub async fn oldest(&self, tenant: &Tenant) -> Result<Oldest, Error> {
        match self.try_oldest(tenant).await {
            // The server's users are those of before this was asked: then nothing waits that is known of.
            Err(error) if error.code() == Some("NOPERM") => Ok(Oldest::Nothing),
            looked => looked.map_err(redis_error("look since when a tenant's events wait")),
        }
    }

    async fn try_oldest(&self, tenant: &Tenant) -> redis::RedisResult<Oldest> {
        let mut connection = self.connection.clone();
        if waits_for(&held_pipelines(&connection).await?, tenant, &mut connection).await? {
            return Ok(Oldest::Unread);
        }
        let lane = tenant.lane();
        if !has_bytes(&lane, tenant, &mut connection).await? {
            return Ok(Oldest::Nothing);
        }
        if let Some(added) = handed_out(&lane, &mut connection).await? {
            return Ok(Oldest::Since(added));
        }
        // A processor takes what comes within milliseconds.
        tokio::time::sleep(A_MOMENT).await;
        let still = has_bytes(&lane, tenant, &mut connection).await?;
        Ok(match handed_out(&lane, &mut connection).await? {
            Some(added) => Oldest::Since(added),
            None if still => Oldest::Unread,
            None => Oldest::Nothing,
        })
    }
}

/// The pipelines that are not there, and that events wait for.
pub(crate) async fn held_pipelines(connection: &Connection) -> redis::RedisResult<BTreeSet<PipelineName>> {
    match pipelines_in(HELD_PIPELINES, connection).await {
        // The server's users are those of before this was asked.
        Err(error) if error.code() == Some("NOPERM") => Ok(BTreeSet::new()),
        held => held,
    }
}

/// Whether events of the tenant wait for a pipeline that is not there and that it no longer names. They wait until
/// somebody does something about it.
pub(crate) async fn waits_for(
    held: &BTreeSet<PipelineName>,
    tenant: &Tenant,
    connection: &mut Connection,
) -> redis::RedisResult<bool> {
    let lanes = held.iter().map(|pipeline| pipeline.lane(tenant.name())).filter(|lane| *lane != tenant.lane());
    let mut all = redis::pipe();
    lanes.for_each(|lane| {
        all.add_command(bytes_of(&lane, tenant));
    });
    if all.is_empty() {
        return Ok(false);
    }
    let bytes: Vec<Option<i64>> = all.query_async(connection).await?;
    Ok(bytes.into_iter().flatten().any(|bytes| bytes > 0))
}

/// Whether a lane holds anything of a tenant.
pub(crate) async fn has_bytes(lane: &Lane, tenant: &Tenant, connection: &mut Connection) -> redis::RedisResult<bool> {
    Ok(bytes_of(lane, tenant).query_async::<Option<i64>>(connection).await?.unwrap_or(0) > 0)
}

/// Asks for the bytes that a lane holds of a tenant.
fn bytes_of(lane: &Lane, tenant: &Tenant) -> redis::Cmd {
    let mut bytes = redis::cmd("HGET");
    bytes.arg(lane.tenant_bytes()).arg(tenant.name().as_str());
    bytes
}

/// When the oldest entry of a lane that is handed out was added.
pub(crate) async fn handed_out(lane: &Lane, connection: &mut Connection) -> redis::RedisResult<Option<Micros>> {
    let mut pending = redis::cmd("XPENDING");
    pending.arg(lane.stream()).arg(CONSUMER_GROUP).arg("-").arg("+").arg(1);
    match pending.query_async::<StreamPendingCountReply>(connection).await {
        Ok(reply) => Ok(reply.ids.into_iter().next().and_then(|entry| micros(added_at(&entry.id)?))),
        // No group has been made yet: nobody has ever read the lane.
        Err(error) if error.code() == Some("NOGROUP") => Ok(None),
        Err(error) => Err(error),
    }
}

fn micros(milliseconds: u64) -> Option<Micros> {
    Micros::try_from(milliseconds).ok()?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrys_id_says_when_it_was_added() {
        for (id, expected) in
            [("1767323045000-3", Some(1_767_323_045_000_000)), ("0-1", Some(0)), ("x-1", None), ("1", None)]
        {
            assert_eq!(added_at(id).and_then(micros), expected, "{id}");
        }
    }
}
