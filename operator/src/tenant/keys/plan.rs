//! Decides about all keys of a Tenant. What is left to decide is about those that can't be written.

use std::time::SystemTime;

use crds::apikey::Pepper;
use crds::condition::Reason;
use crds::tenant::{ApiKeySpec, KeySource, SecretRef};
use crds::{ROTATE_KEYS_ANNOTATION, Tenant, TenantName};
use kube::ResourceExt;

use super::brought;
use super::decide::{KeyPlan, Known, SecretSeen, plan_key, request};
use super::look::{FoundKeys, InSecret};
use super::rotation::{Before, Request};
use super::secrets::Written;
use crate::provision::{IssuedKey, IssuedKeyRow};
use crate::tenant::problem::Problem;
use crate::tenant::validate::ValidTenant;

/// What is to be done about all keys of a Tenant.
pub struct KeysPlan {
    /// Each key of the spec, and what becomes of it, or why it can't be had.
    pub keys: Vec<(ApiKeySpec, Result<Step, Problem>)>,
    /// The live keys of before.
    pub before: Vec<IssuedKeyRow>,
    /// Secrets that we wrote and that hold no key of ours any more.
    pub left_over: Vec<LeftOver>,
    /// What new keys are digested with.
    pub pepper: Pepper,
    /// The time by which all of this was decided.
    pub now: SystemTime,
}

/// What becomes of one key.
pub enum Step {
    /// It works, and is written to its Secret (again) where that says something else.
    Keep {
        /// As the registry is to have it.
        key: Box<IssuedKey>,
        /// Who may work on beside it.
        before: Before,
        /// What is written to the Secret.
        write: Option<Written>,
    },
    /// A new one is made.
    Issue {
        /// Who may work on beside it. None: its Secret was lost, so this is a repair and not a rotation.
        before: Before,
        /// Nonce of the last request that it carries out.
        request: Option<String>,
        /// Whether somebody else made its Secret.
        adopted: bool,
    },
}

/// A Secret that we wrote a key to that is generated there no more.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// The Secret.
    pub secret: SecretRef,
    /// Whether it is removed. One that holds an existing key now belongs to somebody else, even if we made it.
    pub remove: bool,
}

/// Decides about all keys.
pub fn plan(tenant: &Tenant, valid: &ValidTenant, found: FoundKeys, now: SystemTime) -> KeysPlan {
    let FoundKeys { secrets, rows, written, peppers, pepper } = found;
    let name = valid.desired.name();
    let asked = tenant.annotations().get(ROTATE_KEYS_ANNOTATION).and_then(|value| Request::parse(value));
    let steps = valid.keys.iter().zip(secrets).map(|(key, seen)| {
        let request = asked.and_then(|asked| asked.of(key));
        let adopt = valid.desired.adopt;
        let known = Known { tenant: name.as_str(), rows: &rows, peppers: &peppers, adopt, request, now };
        (key.clone(), seen.and_then(|seen| step(key, seen, &pepper, known)))
    });
    let keys = steps.collect();
    let left_over = written.into_iter().filter_map(|secret| left_over(valid, secret)).collect();
    KeysPlan { keys, before: live_of(name, rows), left_over, pepper, now }
}

fn step(wanted: &ApiKeySpec, seen: InSecret, pepper: &Pepper, known: Known<'_>) -> Result<Step, Problem> {
    let seen = match seen {
        InSecret::Generated(seen) => seen,
        InSecret::Existing(key) => {
            let key = brought::accept(known.tenant, wanted, &key, known.rows, pepper, known.peppers)?;
            return Ok(Step::Keep { key: Box::new(key), before: Before::Last, write: None });
        }
    };
    let issue = |before| {
        let adopted = matches!(seen, SecretSeen::Foreign { .. } | SecretSeen::Ours { adopted: true, .. });
        Step::Issue { before, request: request(wanted, known), adopted }
    };
    Ok(match (plan_key(wanted, &seen, known), &seen) {
        (KeyPlan::Keep { key, before, rewrite }, SecretSeen::Ours { key: Some(text), replaces, adopted, .. }) => {
            let written = || Written { key: text.clone(), replaces: replaces.clone(), adopted: *adopted };
            Step::Keep { key, before, write: rewrite.then(written) }
        }
        (KeyPlan::Rotate(old), _) => issue(Before::Id(old)),
        (KeyPlan::Issue | KeyPlan::Keep { .. }, _) => issue(Before::None),
        (KeyPlan::Refuse, _) => return Err(foreign(wanted)),
    })
}

fn live_of(tenant: &TenantName, rows: Vec<IssuedKeyRow>) -> Vec<IssuedKeyRow> {
    rows.into_iter().filter(|row| !row.revoked && row.tenant == tenant.as_str()).collect()
}

fn left_over(valid: &ValidTenant, secret: SecretRef) -> Option<LeftOver> {
    let key = valid.keys.iter().chain(&valid.unusable_keys).find(|key| key.secret_ref == secret);
    match key.map(|key| key.source) {
        Some(KeySource::Generate) => None,
        Some(KeySource::Existing) => Some(LeftOver { secret, remove: false }),
        None => Some(LeftOver { secret, remove: true }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use crate::tenant::testing::{acme, at, key_row, pepper};
    use crate::tenant::validate::validate;
    use crds::apikey::ApiKey;

    fn valid(tenant: &Tenant) -> ValidTenant {
        validate(tenant, &settings(), &settings().plans, true).unwrap()
    }

    fn planned(secret: Result<InSecret, Problem>, rows: Vec<IssuedKeyRow>) -> KeysPlan {
        let (secrets, written, peppers) = (vec![secret], Vec::new(), vec![pepper()]);
        let found = FoundKeys { secrets, rows, written, peppers, pepper: pepper() };
        plan(&acme(), &valid(&acme()), found, at(100))
    }

    #[test]
    fn a_plan_says_all_that_is_written_and_what_can_not_be_had() {
        let absent = || Ok(InSecret::Generated(SecretSeen::Absent));
        let first = planned(absent(), Vec::new());
        let step = first.keys.into_iter().next().unwrap().1;
        assert!(matches!(step, Ok(Step::Issue { before: Before::None, request: None, adopted: false })));
        // What is another tenant's, or revoked, is not this one's of before.
        let theirs = IssuedKeyRow { tenant: "globex".into(), ..key_row("b", at(0), None) };
        let revoked = IssuedKeyRow { revoked: true, ..key_row("c", at(0), None) };
        let inherited = IssuedKeyRow { inherited: true, ..key_row("a", at(0), None) };
        let again = planned(absent(), vec![inherited, theirs, revoked]);
        assert_eq!(again.before.iter().map(|row| row.key.id.as_str()).collect::<Vec<_>>(), ["a"]);
        let step = again.keys.into_iter().next().unwrap().1;
        assert!(matches!(step, Ok(Step::Issue { before: Before::Id(id), .. }) if id == "a"), "its clients go on");

        let key = ApiKey::generate();
        let replaces = Some("a".to_owned());
        let incomplete = SecretSeen::Ours { key: Some(key.clone()), replaces, complete: false, adopted: true };
        let kept = planned(Ok(InSecret::Generated(incomplete)), Vec::new());
        match kept.keys.into_iter().next().unwrap().1 {
            Ok(Step::Keep { key: registered, write: Some(written), .. }) => {
                assert_eq!((registered.id.as_str(), written.key.id()), (key.id(), key.id()));
                assert_eq!((written.replaces.as_deref(), written.adopted), (Some("a"), true));
            }
            _ => panic!("it is not kept"),
        }

        let refused = planned(Ok(InSecret::Generated(SecretSeen::Foreign { empty: true })), Vec::new());
        let problem = refused.keys.into_iter().next().unwrap().1.err().unwrap();
        assert_eq!(problem.reason, Reason::OwnershipConflict);
        let missing = Problem { reason: Reason::SecretMissing, message: "m".into() };
        let unread = planned(Err(missing.clone()), Vec::new());
        assert_eq!(unread.keys.into_iter().next().unwrap().1.err(), Some(missing));
    }

    #[test]
    fn a_secret_goes_only_if_no_key_names_it() {
        let secret = |name: &str| SecretRef { name: name.into(), namespace: "acme".into() };
        let mut tenant = acme();
        assert_eq!(left_over(&valid(&tenant), secret("key")), None);
        let gone = LeftOver { secret: secret("old"), remove: true };
        assert_eq!(left_over(&valid(&tenant), secret("old")), Some(gone));
        tenant.spec.api_keys[0].source = KeySource::Existing;
        let theirs = LeftOver { secret: secret("key"), remove: false };
        assert_eq!(left_over(&valid(&tenant), secret("key")), Some(theirs));
    }
}
