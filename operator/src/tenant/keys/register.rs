//! Carries out what was decided about a Tenant's keys. Secrets are written first: a key that is nowhere to be read must
//! not be valid, and one that is not registered yet is registered the next time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use crds::Tenant;
use crds::apikey::{ApiKey, Pepper};
use crds::condition::Reason;
use crds::tenant::ApiKeySpec;
use runtime::audit::{self, Act, Action};

use super::events::{KeyChange, changes};
use super::plan::{KeysPlan, LeftOver, Step};
use super::rotation::{Before, next_due, previous};
use super::secrets::{self, Written};
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::ACTOR;
use crate::provision::{IssuedKey, IssuedKeyRow, Outcome};
use crate::tenant::problem::{Problem, StoreResult};
use crate::tenant::validate::ValidTenant;

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

/// A key that is to work, and who may work on beside it.
struct Ready {
    key: IssuedKey,
    before: Before,
    /// Its Secret was lost: what follows is a repair, not a rotation.
    lost: bool,
}

/// What the registry is to have.
struct Registration<'a> {
    /// All keys that are to work.
    keys: Vec<IssuedKey>,
    /// Names of those whose Secret was lost.
    lost: HashSet<&'a str>,
    /// What went wrong first.
    problem: Option<Problem>,
}

/// Issues, keeps, rotates and revokes keys. Returns what is known of them if PostgreSQL could say, and what went
/// wrong first.
pub async fn register(
    ctx: &Context,
    tenant: &Tenant,
    valid: &ValidTenant,
    plan: KeysPlan,
) -> (Option<AppliedKeys>, StoreResult) {
    let KeysPlan { keys, before, left_over, pepper, now } = plan;
    let name = valid.desired.name();
    let mut ready = Vec::new();
    for (wanted, step) in keys {
        let key = match step {
            Ok(step) => carry_out(ctx, tenant, &wanted, step, &pepper).await,
            Err(problem) => Err(problem),
        };
        ready.push((wanted, key));
    }
    let Registration { keys, lost, problem } = registration(&ready, &before, &valid.unusable_keys, now);
    let (live, outcome) = match ctx.stores.postgres.ensure_keys(name, &keys).await {
        Ok(ensured) => ensured,
        Err(error) => return (None, Err(error.into())),
    };
    for (action, row) in acts(&before, &live) {
        let (object, outcome) = (row.key.id.as_str(), row.key.name.as_str());
        audit::tell(&Act { actor: ACTOR, action, tenant: name.as_str(), object, outcome });
    }
    let removed = remove(ctx, tenant, valid, left_over).await;
    let applied = AppliedKeys {
        changes: changes(&before, &live, |name| {
            !lost.contains(name) && tenant.spec.api_keys.iter().any(|key| key.name == name)
        }),
        next_due: next_due(&valid.keys, &live, now),
        uses: uses(ctx, valid, &live).await,
        live,
    };
    (Some(applied), problem.map_or(removed.map(|removed| outcome.and(removed)), Err))
}

/// Writes one key to its Secret, where it has to be.
async fn carry_out(
    ctx: &Context,
    tenant: &Tenant,
    wanted: &ApiKeySpec,
    step: Step,
    pepper: &Pepper,
) -> Result<Ready, Problem> {
    match step {
        Step::Keep { key, before, write } => {
            if let Some(written) = write {
                secrets::write(ctx, tenant, &wanted.secret_ref, &written).await?;
            }
            Ok(Ready { key: *key, before, lost: false })
        }
        Step::Issue { before, request, adopted } => {
            let replaces = match &before {
                Before::Id(id) => Some(id.clone()),
                Before::None | Before::Last => None,
            };
            let written = Written { key: ApiKey::generate(), replaces, adopted };
            secrets::write(ctx, tenant, &wanted.secret_ref, &written).await?;
            reach(Point::SecretWritten);
            let issued = IssuedKey::of(&written.key, pepper, &wanted.name, &wanted.scopes);
            let key = IssuedKey { request, secret: Some(wanted.secret_ref.clone()), ..issued };
            Ok(Ready { key, lost: before == Before::None, before })
        }
    }
}

/// What the registry is to have: the keys that are ready, those that work on beside them, and, of what can't be had as
/// the spec says, what was issued `before`.
fn registration<'a>(
    ready: &'a [(ApiKeySpec, Result<Ready, Problem>)],
    before: &[IssuedKeyRow],
    unusable: &[ApiKeySpec],
    now: SystemTime,
) -> Registration<'a> {
    let mut registration = Registration { keys: Vec::new(), lost: HashSet::new(), problem: None };
    let Registration { keys, lost, problem } = &mut registration;
    let mut beside = Vec::new();
    // What clients use already goes on working, each until its end.
    let working = |name: &str| {
        let of_name = before.iter().filter(|row| row.key.name == name);
        let working = of_name.filter(|row| row.key.expires_at.is_none_or(|at| at > now));
        working.map(|row| row.key.clone()).collect::<Vec<_>>()
    };
    for (wanted, ready) in ready {
        match ready {
            Ok(ready) if keys.iter().any(|other| other.id == ready.key.id) => {
                problem.get_or_insert(twice(wanted));
            }
            Ok(ready) => {
                beside.extend(previous(wanted, &ready.key.id, &ready.before, before, now));
                if ready.lost {
                    lost.insert(wanted.name.as_str());
                }
                keys.push(ready.key.clone());
            }
            Err(why) => {
                beside.extend(working(&wanted.name));
                problem.get_or_insert(why.clone());
            }
        }
    }
    beside.extend(unusable.iter().flat_map(|key| working(&key.name)));
    beside.retain(|key| !keys.iter().any(|current| current.id == key.id));
    keys.append(&mut beside);
    registration
}

fn twice(wanted: &ApiKeySpec) -> Problem {
    let at = &wanted.secret_ref;
    let message = format!(
        "key `{}`: Secret `{}/{}` holds another key of this Tenant: each needs one of its own",
        wanted.name, at.namespace, at.name
    );
    Problem { reason: Reason::KeyRejected, message }
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

/// Removes Secrets that we wrote for keys that are generated there no more.
async fn remove(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, left_over: Vec<LeftOver>) -> StoreResult {
    let mut outcome = Ok(Outcome::Unchanged);
    for LeftOver { secret, remove } in left_over {
        let removed = if remove { secrets::remove(ctx, tenant, &secret).await } else { Ok(()) };
        match removed {
            Ok(()) => ctx.stores.postgres.forget_secret(valid.desired.name(), &secret).await?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{acme, at, key_row};

    #[test]
    fn what_can_not_be_had_leaves_what_clients_use_and_no_key_is_registered_twice() {
        let wanted = |name: &str| ApiKeySpec { name: name.into(), ..acme().spec.api_keys[0].clone() };
        let row = |name: &str, id: &str, ends: Option<u64>| {
            let mut row = key_row(id, at(0), ends.map(at));
            row.key.name = name.into();
            row
        };
        let ready = |id: &str, before| Ok(Ready { key: row("main", id, None).key, before, lost: false });
        let problem = Problem { reason: Reason::SecretMissing, message: "m".into() };
        let before = [row("main", "a", None), row("main", "b", Some(50)), row("main", "c", Some(200))];
        let registered = |ready: &[(ApiKeySpec, Result<Ready, Problem>)], unusable: &[ApiKeySpec]| {
            let Registration { keys, problem, .. } = registration(ready, &before, unusable, at(100));
            let ids: Vec<String> = keys.into_iter().map(|key| key.id).collect();
            (ids, problem.map(|problem| problem.reason))
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let missing = [(wanted("main"), Err(problem))];
        assert_eq!(registered(&missing, &[]), (ids(&["a", "c"]), Some(Reason::SecretMissing)));
        assert_eq!(registered(&[], &[wanted("main")]), (ids(&["a", "c"]), None));
        assert_eq!(registered(&[], &[]), (ids(&[]), None), "what the spec takes away");
        assert_eq!(registered(&[(wanted("main"), ready("d", Before::None))], &[]), (ids(&["d"]), None));
        assert_eq!(registered(&[(wanted("main"), ready("d", Before::Id("a".into())))], &[]), (ids(&["d", "a"]), None));
        let twice = [(wanted("main"), ready("a", Before::None)), (wanted("second"), ready("a", Before::None))];
        assert_eq!(registered(&twice, &[]), (ids(&["a"]), Some(Reason::KeyRejected)));
    }
}
