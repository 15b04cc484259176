//! What there is of a Tenant: its pipeline; and, under its lock, its place in the stores and what holds of its keys.
//!
//! What a store has in that place is looked at by the store's own `ensure`, under the store's own lock and directly
//! before it is changed (`docs/adr/0023`).

use std::time::Duration;

use crds::{LogPipeline, Tenant};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store as Reader};
use kube::{Api, ResourceExt};
use runtime::audit::{self, Act, Action};

use super::deletion::departed;
use super::keys;
use super::keys::look::FoundKeys;
use super::lane::Presence;
use super::problem::Problem;
use super::validate::ValidTenant;
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::ACTOR;
use crate::provision::{self, Failure, Outcome, SeenEntry, TenantRow};

/// Longest wait for the reason of a failure.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Where a Tenant is in the stores: the registry of record assigns it, once and for as long as its row lives.
pub enum Place {
    /// There.
    Assigned(TenantRow, Outcome),
    /// It is another installation's tenant.
    Foreign(Problem),
    /// PostgreSQL can't say.
    Unknown(Problem),
}

/// What there is of a Tenant.
pub enum Found {
    /// It has its place.
    Placed {
        /// Where it is.
        row: TenantRow,
        /// What came of its row.
        registered: Outcome,
        /// Its keys, or why they can't be looked at.
        keys: Result<FoundKeys, Problem>,
    },
    /// Another installation's tenant: none of its things is looked at.
    Foreign(Problem),
    /// PostgreSQL can't say where it is.
    Unplaced {
        /// Why.
        why: Problem,
        /// What ingest was told before, if Redis says.
        entry: Option<SeenEntry>,
    },
}

/// What there is of the pipeline that the Tenant names.
pub async fn pipeline(
    ctx: &Context,
    watched: &Reader<DeserializeGuard<LogPipeline>>,
    tenant: &Tenant,
) -> kube::Result<Presence> {
    let (name, namespace) = (&tenant.spec.pipeline_ref.name, &ctx.settings.namespace);
    let seen = Presence::of(watched.get(&ObjectRef::new(name).within(namespace)).as_deref());
    if seen != Presence::Absent {
        return Ok(seen);
    }
    // One that was applied just before its Tenant may not have been seen yet.
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), namespace);
    Ok(Presence::of(api.get_metadata_opt(name).await?.as_ref()))
}

/// What ingest was told of the Tenant last, if it was told anything.
pub async fn last_entry(ctx: &Context, tenant: &Tenant) -> Option<crds::registry::RegistryTenant> {
    match ctx.stores.registry.get(&tenant.name_any().parse().ok()?).await {
        // What a tenant of that name had that is gone is not this one's.
        Ok(last) => last.filter(|last| !departed::has_departed(last)),
        Err(error) => {
            tracing::warn!(tenant.name = tenant.name_any(), "{}", runtime::logging::chain(&error));
            None
        }
    }
}

/// Assigns the Tenant its place, if it has none yet. `away` says why PostgreSQL could not even give us its lock.
pub async fn place(ctx: &Context, valid: &ValidTenant, away: Option<provision::Error>) -> Place {
    let registered = match away {
        Some(away) => Err(away),
        None => ctx.stores.postgres.ensure_tenant(&valid.desired).await,
    };
    match registered {
        Ok((row, registered)) => {
            if registered == Outcome::Created {
                let name = valid.desired.name().as_str();
                let action = Action::TenantCreated;
                audit::tell(&Act { actor: ACTOR, action, tenant: name, object: name, outcome: "registered" });
            }
            reach(Point::Registered);
            Place::Assigned(row, registered)
        }
        Err(error) if error.failure() == Failure::Conflict => Place::Foreign(error.into()),
        Err(error) => Place::Unknown(why_down(ctx).await.unwrap_or(error).into()),
    }
}

/// Why PostgreSQL does not answer: a pool only says that it waited for too long.
async fn why_down(ctx: &Context) -> Option<provision::Error> {
    tokio::time::timeout(ASK_AGAIN, ctx.stores.postgres.ping()).await.ok()?.err()
}

/// Looks at a Tenant in its place.
pub async fn look(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, place: Place) -> Found {
    match place {
        Place::Assigned(row, registered) => {
            Found::Placed { row, registered, keys: keys::look::look(ctx, tenant, valid).await }
        }
        Place::Foreign(problem) => Found::Foreign(problem),
        Place::Unknown(why) => {
            let name = valid.desired.name();
            let entry = ctx.stores.registry.see(name).await.unwrap_or_else(|error| {
                tracing::warn!(tenant.name = %name, "{}", runtime::logging::chain(&error));
                None
            });
            Found::Unplaced { why, entry }
        }
    }
}
