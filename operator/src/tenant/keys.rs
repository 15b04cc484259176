//! Puts a Tenant's keys in place: looks at their Secrets, decides about each, acts, and registers
//! what is to work.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use crds::apikey::{ApiKey, Pepper};
use crds::condition::Reason;
use crds::tenant::{ApiKeySpec, KeySource};
use crds::{ROTATE_KEYS_ANNOTATION, Tenant};
use futures::future::join_all;
use kube::ResourceExt;
use runtime::audit::{self, Act, Action};

use super::apply::{StoreResult, problem};
use super::changes::{KeyChange, changes};
use super::plan::{KeyPlan, Known, SecretSeen, plan_key, request};
use super::rotation::{Before, Request, next_due, previous};
use super::validate::{Problem, ValidTenant};
use super::{existing, secrets};
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::ACTOR;
use crate::provision::{IssuedKey, IssuedKeyRow, Outcome};

/// What is known of a Tenant's keys once they are registered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AppliedKeys {
    /// The live ones.
    pub live: Vec<IssuedKeyRow>,
    /// The hour in which each was last used, as far as Redis could say.
    pub uses: HashMap<String, u64>,
    /// What became other by schedule, by request, or because somebody changed an existing key.
    pub changes: Vec<KeyChange>,
    /// How long until something is due by the clock alone.
    pub next_due: Option<Duration>,
}

/// A key that was looked for in its Secret.
enum Seen {
    Generated(SecretSeen),
    Existing(ApiKey),
}

impl Seen {
    fn key_id(&self) -> Option<&str> {
        match self {
            Self::Generated(SecretSeen::Ours { key, .. }) => key.as_ref().map(ApiKey::id),
            Self::Generated(_) => None,
            Self::Existing(key) => Some(key.id()),
        }
    }
}

/// A key that is to work, and who may work on beside it.
struct Settled {
    key: IssuedKey,
    before: Before,
    /// Its Secret was lost: what follows is a repair, not a rotation.
    lost: bool,
}

/// Issues, keeps, rotates and revokes keys. Gives back what is known of them if PostgreSQL could
/// say, and what went wrong first.
pub async fn ensure_keys(ctx: &Context, tenant: &Tenant, valid: &ValidTenant) -> (Option<AppliedKeys>, StoreResult) {
    let peppers = ctx.peppers.borrow().clone();
    let Some(pepper) = peppers.first() else {
        let message = "the platform's peppers are not there yet".to_owned();
        return (None, Err(Problem { reason: Reason::Provisioning, message }));
    };
    let name = valid.desired.name();
    let seen = join_all(valid.keys.iter().map(|key| look(ctx, tenant, key))).await;
    let ids: Vec<String> = seen.iter().flatten().filter_map(|seen| seen.key_id().map(str::to_owned)).collect();
    let rows = match ctx.stores.postgres.keys(name, &ids).await {
        Ok(rows) => rows,
        Err(error) => return (None, Err(problem(&error))),
    };
    let asked = tenant.annotations().get(ROTATE_KEYS_ANNOTATION).and_then(|value| Request::parse(value));
    let now = SystemTime::now();
    let known =
        Known { tenant: name.as_str(), rows: &rows, peppers: &peppers, adopt: valid.desired.adopt, request: None, now };
    let own: Vec<IssuedKeyRow> =
        rows.iter().filter(|row| !row.revoked && row.tenant == name.as_str()).cloned().collect();
    let (mut wanted, mut ending, mut lost) = (Vec::new(), Vec::new(), HashSet::new());
    let mut first_problem = None;
    for (key, seen) in valid.keys.iter().zip(seen) {
        let known = Known { request: asked.and_then(|asked| asked.of(key)), ..known };
        let settled = match seen {
            Ok(seen) => settle(ctx, tenant, key, &seen, pepper, known).await,
            Err(problem) => Err(problem),
        };
        match settled {
            Ok(settled) if wanted.iter().any(|other: &IssuedKey| other.id == settled.key.id) => {
                first_problem.get_or_insert(twice(key));
            }
            Ok(settled) => {
                ending.extend(previous(key, &settled.key.id, &settled.before, &own, now));
                if settled.lost {
                    lost.insert(key.name.as_str());
                }
                wanted.push(settled.key);
            }
            Err(problem) => {
                // What clients use already goes on working, each until its end.
                let of_name = own.iter().filter(|row| row.key.name == key.name);
                ending.extend(
                    of_name.filter(|row| row.key.expires_at.is_none_or(|at| at > now)).map(|row| row.key.clone()),
                );
                first_problem.get_or_insert(problem);
            }
        }
    }
    // A key that can't be had as the spec says goes on as it is.
    let unusable = |row: &&IssuedKeyRow| {
        let works = row.key.expires_at.is_none_or(|at| at > now);
        works && valid.unusable_keys.iter().any(|key| key.name == row.key.name)
    };
    ending.extend(own.iter().filter(unusable).map(|row| row.key.clone()));
    ending.retain(|key| !wanted.iter().any(|current| current.id == key.id));
    wanted.append(&mut ending);
    let (live, outcome) = match ctx.stores.postgres.ensure_keys(name, &wanted).await {
        Ok(ensured) => ensured,
        Err(error) => return (None, Err(problem(&error))),
    };
    for (action, row) in acts(&own, &live) {
        let (object, outcome) = (row.key.id.as_str(), row.key.name.as_str());
        audit::tell(&Act { actor: ACTOR, action, tenant: name.as_str(), object, outcome });
    }
    let removed = remove_left_over(ctx, tenant, valid).await;
    let applied = AppliedKeys {
        changes: changes(&own, &live, |name| {
            !lost.contains(name) && tenant.spec.api_keys.iter().any(|key| key.name == name)
        }),
        next_due: next_due(&valid.keys, &live, now),
        uses: uses(ctx, valid, &live).await,
        live,
    };
    (Some(applied), first_problem.map_or(removed.map(|removed| outcome.and(removed)), Err))
}

/// What was done to keys, from the rows that lived before and those that live now.
fn acts<'a>(before: &'a [IssuedKeyRow], live: &'a [IssuedKeyRow]) -> Vec<(Action, &'a IssuedKeyRow)> {
    let is_in = |rows: &[IssuedKeyRow], row: &IssuedKeyRow| rows.iter().any(|other| other.key.id == row.key.id);
    let came = live.iter().filter(|row| !is_in(before, row)).map(|row| {
        let replaces = before.iter().any(|other| other.key.name == row.key.name);
        (if replaces { Action::KeyRotated } else { Action::KeyIssued }, row)
    });
    let went = before.iter().filter(|row| !is_in(live, row)).map(|row| (Action::KeyRevoked, row));
    came.chain(went).collect()
}

async fn look(ctx: &Context, tenant: &Tenant, key: &ApiKeySpec) -> Result<Seen, Problem> {
    match key.source {
        KeySource::Generate => secrets::look(ctx, tenant, &key.secret_ref).await.map(Seen::Generated),
        KeySource::Existing => {
            let text = secrets::read(ctx, &key.secret_ref).await?;
            existing::read(key, text.as_deref()).map(Seen::Existing)
        }
    }
}

/// Decides about one key and carries it out. The Secret is written first: a key that is nowhere to
/// be read must not be valid, and one that is not registered yet is registered the next time.
async fn settle(
    ctx: &Context,
    tenant: &Tenant,
    wanted: &ApiKeySpec,
    seen: &Seen,
    pepper: &Pepper,
    known: Known<'_>,
) -> Result<Settled, Problem> {
    let seen = match seen {
        Seen::Generated(seen) => seen,
        Seen::Existing(key) => {
            let key = existing::accept(known.tenant, wanted, key, known.rows, pepper, known.peppers)?;
            return Ok(Settled { key, before: Before::Last, lost: false });
        }
    };
    let adopted = matches!(seen, SecretSeen::Foreign { .. } | SecretSeen::Ours { adopted: true, .. });
    let write = async |key: &ApiKey, replaces: Option<&str>| {
        secrets::write(ctx, tenant, &wanted.secret_ref, key, replaces, adopted).await
    };
    let issue = async |replaces: Option<&str>| {
        let key = ApiKey::generate();
        write(&key, replaces).await?;
        reach(Point::SecretWritten);
        let issued = IssuedKey::of(&key, pepper, &wanted.name, &wanted.scopes);
        let (request, secret) = (request(wanted, known), Some(wanted.secret_ref.clone()));
        Ok::<_, Problem>(IssuedKey { request, secret, ..issued })
    };
    match (plan_key(wanted, seen, known), seen) {
        (KeyPlan::Keep { key, before, rewrite }, SecretSeen::Ours { key: Some(text), replaces, .. }) => {
            if rewrite {
                write(text, replaces.as_deref()).await?;
            }
            Ok(Settled { key: *key, before, lost: false })
        }
        (KeyPlan::Rotate(old), _) => {
            let key = issue(Some(&old)).await?;
            Ok(Settled { key, before: Before::Id(old), lost: false })
        }
        (KeyPlan::Refuse, _) => Err(foreign(wanted)),
        (KeyPlan::Issue | KeyPlan::Keep { .. }, _) => {
            Ok(Settled { key: issue(None).await?, before: Before::None, lost: true })
        }
    }
}

fn foreign(wanted: &ApiKeySpec) -> Problem {
    let at = &wanted.secret_ref;
    let message = format!(
        "Secret `{}/{}` exists and is not the operator's: remove it, name another one in spec.apiKeys, set source: \
         Existing if it holds a key of yours, or, if it holds nothing and belongs to nothing, set the annotation \
         loggerhub.io/adopt: \"true\"",
        at.namespace, at.name
    );
    Problem { reason: Reason::OwnershipConflict, message }
}

fn twice(wanted: &ApiKeySpec) -> Problem {
    let at = &wanted.secret_ref;
    let message = format!(
        "key `{}`: Secret `{}/{}` holds another key of this Tenant: each needs one of its own",
        wanted.name, at.namespace, at.name
    );
    Problem { reason: Reason::KeyRejected, message }
}

/// Deletes Secrets that we wrote for keys that are generated there no more.
async fn remove_left_over(ctx: &Context, tenant: &Tenant, valid: &ValidTenant) -> StoreResult {
    let name = valid.desired.name();
    let postgres = &ctx.stores.postgres;
    let mut outcome = Ok(Outcome::Unchanged);
    for secret in postgres.written_secrets(name).await.map_err(|error| problem(&error))? {
        let key = valid.keys.iter().chain(&valid.unusable_keys).find(|key| key.secret_ref == secret);
        if key.is_some_and(|key| key.source == KeySource::Generate) {
            continue;
        }
        // One that holds an existing key now is somebody else's, whoever made it.
        let removed = if key.is_none() { secrets::remove(ctx, tenant, &secret).await } else { Ok(()) };
        match removed {
            Ok(()) => postgres.forget_secret(name, &secret).await.map_err(|error| problem(&error))?,
            Err(problem) => outcome = Err(problem),
        }
    }
    outcome
}

/// When the live keys were last used. Redis being away hides it for now, and fails nothing.
async fn uses(ctx: &Context, valid: &ValidTenant, live: &[IssuedKeyRow]) -> HashMap<String, u64> {
    let (registry, name) = (&ctx.stores.registry, valid.desired.name());
    let mut uses = registry.key_uses(name).await.unwrap_or_default();
    let gone: Vec<String> = uses.keys().filter(|id| !live.iter().any(|row| row.key.id == **id)).cloned().collect();
    if !gone.is_empty() {
        if let Err(error) = registry.forget_key_uses(name, &gone).await {
            tracing::debug!("{}", runtime::logging::chain(&error));
        }
        uses.retain(|id, _| !gone.contains(id));
    }
    uses
}
