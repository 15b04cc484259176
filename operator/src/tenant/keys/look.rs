//! What there is of a Tenant's keys: in their Secrets, and in the registry of record.

use crds::Tenant;
use crds::apikey::{ApiKey, Pepper};
use crds::condition::Reason;
use crds::tenant::{ApiKeySpec, KeySource, SecretRef};
use futures::future::join_all;

use super::decide::SecretSeen;
use super::{brought, secrets};
use crate::context::Context;
use crate::provision::IssuedKeyRow;
use crate::tenant::problem::Problem;
use crate::tenant::validate::ValidTenant;

/// What the cluster and the registry have of a Tenant's keys.
pub struct FoundKeys {
    /// What the Secret of each key holds, in the spec's order, or why that can't be told.
    pub secrets: Vec<Result<InSecret, Problem>>,
    /// The live keys, and every row with the id of a key in a Secret.
    pub rows: Vec<IssuedKeyRow>,
    /// Secrets that we wrote keys to.
    pub written: Vec<SecretRef>,
    /// All peppers that keys were digested with.
    pub peppers: Vec<Pepper>,
    /// The one for new keys.
    pub pepper: Pepper,
}

/// What was looked for in a key's Secret.
pub enum InSecret {
    /// A key that we generate.
    Generated(SecretSeen),
    /// One that somebody else makes.
    Existing(ApiKey),
}

impl InSecret {
    fn key_id(&self) -> Option<&str> {
        match self {
            Self::Generated(SecretSeen::Ours { key, .. }) => key.as_ref().map(ApiKey::id),
            Self::Generated(_) => None,
            Self::Existing(key) => Some(key.id()),
        }
    }
}

/// Looks at the Secrets and at the registry of record.
pub async fn look(ctx: &Context, tenant: &Tenant, valid: &ValidTenant) -> Result<FoundKeys, Problem> {
    let peppers = ctx.peppers.borrow().clone();
    let Some(pepper) = peppers.first().cloned() else {
        let message = "the platform's peppers are not there yet".to_owned();
        return Err(Problem { reason: Reason::Provisioning, message });
    };
    let (postgres, name) = (&ctx.stores.postgres, valid.desired.name());
    let secrets = join_all(valid.keys.iter().map(|key| look_into(ctx, tenant, key))).await;
    let ids: Vec<String> = secrets.iter().flatten().filter_map(|seen| seen.key_id().map(str::to_owned)).collect();
    let rows = postgres.keys(name, &ids).await?;
    let written = postgres.written_secrets(name).await?;
    Ok(FoundKeys { secrets, rows, written, peppers, pepper })
}

async fn look_into(ctx: &Context, tenant: &Tenant, key: &ApiKeySpec) -> Result<InSecret, Problem> {
    match key.source {
        KeySource::Generate => secrets::look(ctx, tenant, &key.secret_ref).await.map(InSecret::Generated),
        KeySource::Existing => {
            let text = secrets::read(ctx, &key.secret_ref).await?;
            brought::read(key, text.as_deref()).map(InSecret::Existing)
        }
    }
}
