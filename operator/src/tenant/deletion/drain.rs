//! Whether a tenant that goes still has entries in the queue.

use std::collections::BTreeSet;

use redis::Script;

use crds::names::Lane;
use crds::{PipelineName, TenantName};

use crate::context::Context;
use crate::provision::{self, Registry};
use crate::tenant::lane;

/// Why that can't be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API failed.
    #[error("list the LogPipelines: {}", crate::kubernetes::explain(.0))]
    Pipelines(Box<kube::Error>),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] provision::Error),
}

/// Pipelines in whose lanes anybody's entries may be.
pub struct Pipelines {
    /// Those that there are.
    there: Vec<String>,
    /// Those that left their lanes to `default`.
    orphaned: Vec<String>,
    /// Those that are not there, and are waited for.
    held: Vec<String>,
}

impl Pipelines {
    /// Looks for them.
    pub async fn look(ctx: &Context) -> Result<Self, Error> {
        let registry = &ctx.stores.registry;
        let (orphaned, held) = (registry.orphaned().await?, registry.held().await?);
        let there = lane::pipelines(ctx).await.map_err(|error| Error::Pipelines(Box::new(error)))?;
        Ok(Self { there, orphaned, held })
    }

    /// A pipeline in whose lane entries of the tenant wait, if there is one. `used` are those that it is known to have
    /// used.
    pub async fn waited_for(
        &self,
        registry: &Registry,
        tenant: &TenantName,
        used: &[String],
    ) -> Result<Option<PipelineName>, Error> {
        let all = [used, &self.there, &self.orphaned, &self.held].into_iter().flatten();
        let lanes = lanes(tenant, all.filter_map(|pipeline| pipeline.parse().ok()));
        Ok(waiting(registry, tenant, &lanes).await?.cloned())
    }

    /// Whether processors read a pipeline's lanes: its own, or those of `default`.
    pub fn is_read(&self, pipeline: &PipelineName) -> bool {
        *pipeline == PipelineName::default_pipeline()
            || [&self.there, &self.orphaned].iter().any(|some| some.contains(&pipeline.to_string()))
    }
}

/// Looks at up to ARGV[4] pages of ARGV[3] entries from ARGV[2] on, inside Redis: the payloads, up
/// to some megabytes each, stay there. Answers whether one is of tenant ARGV[1], and where to go on
/// (empty at the end).
const LOOK: &str = r"
local start = ARGV[2]
for _ = 1, tonumber(ARGV[4]) do
    local entries = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', ARGV[3])
    for _, entry in ipairs(entries) do
        for at = 1, #entry[2], 2 do
            if entry[2][at] == 't' and entry[2][at + 1] == ARGV[1] then return {1, ''} end
        end
        start = '(' .. entry[1]
    end
    if #entries < tonumber(ARGV[3]) then return {0, ''} end
end
return {0, start}
";
/// Entries of one page, and pages of one call: 40 entries of at most some megabytes hold Redis for
/// milliseconds.
const PAGE: usize = 10;
const PAGES: usize = 4;
/// Calls of one look at a lane: 20,000 entries. A lane that is longer is not drained anyway.
const CALLS: usize = 500;

/// The lanes that may hold a tenant's entries: its pipeline's, and those of every pipeline that it
/// may have used before.
fn lanes(tenant: &TenantName, pipelines: impl IntoIterator<Item = PipelineName>) -> Vec<Lane> {
    let pipelines: BTreeSet<PipelineName> = pipelines.into_iter().chain([PipelineName::default_pipeline()]).collect();
    pipelines.iter().map(|pipeline| pipeline.lane(tenant)).collect()
}

/// A pipeline in whose lane entries of the tenant wait, if there is one.
async fn waiting<'a>(
    registry: &Registry,
    tenant: &TenantName,
    lanes: &'a [Lane],
) -> Result<Option<&'a PipelineName>, provision::Error> {
    for lane in lanes {
        if !is_lane_drained(registry, tenant, lane).await? {
            return Ok(Some(&lane.pipeline));
        }
    }
    Ok(None)
}

async fn is_lane_drained(registry: &Registry, tenant: &TenantName, lane: &Lane) -> Result<bool, provision::Error> {
    let script = Script::new(LOOK);
    let mut start = "-".to_owned();
    for _ in 0..CALLS {
        let looked: Result<(i64, String), redis::RedisError> = script
            .key(lane.stream())
            .arg(tenant.as_str())
            .arg(&start)
            .arg(PAGE)
            .arg(PAGES)
            .invoke_async(&mut registry.connection())
            .await;
        let (found, next) =
            looked.map_err(|source| provision::Error::Redis { doing: "look for the tenant's entries", source })?;
        if found == 1 {
            return Ok(false);
        }
        if next.is_empty() {
            return Ok(true);
        }
        start = next;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pipelines_lane_is_always_looked_at_once() {
        let acme: TenantName = "acme".parse().unwrap();
        let fast: PipelineName = "fast".parse().unwrap();
        let found: Vec<String> =
            lanes(&acme, [fast.clone(), fast, PipelineName::default_pipeline()]).iter().map(Lane::stream).collect();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|stream| stream.contains(&format!(":{}}}", acme.shard()))));
    }
}
