//! Decides about each generated key: whether the one in its Secret stays, or a new one is issued.

use std::time::SystemTime;

use crds::apikey::{ApiKey, Pepper};
use crds::tenant::ApiKeySpec;

use super::rotation::{Before, is_due};
use crate::provision::{IssuedKey, IssuedKeyRow};

/// What a key's Secret holds.
#[derive(Clone)]
pub enum SecretSeen {
    /// It is not there.
    Absent,
    /// It is ours; this is its `apiKey`, if it can be read as one, and the rest.
    Ours {
        /// The key.
        key: Option<ApiKey>,
        /// Id of the key that this one was written in place of, if that is to work on for a while.
        replaces: Option<String>,
        /// Whether the rest of its content is as it should be.
        complete: bool,
        /// Whether somebody else made it, and has let us put a key into it: it stays theirs.
        adopted: bool,
    },
    /// It is somebody else's.
    Foreign {
        /// Whether it holds nothing and belongs to no other object, so that a key may be put into it.
        empty: bool,
    },
}

/// What is to be done about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlan {
    /// The key in the Secret is the one that the registry has, or is to have (again).
    Keep {
        /// The key as the registry is to have it.
        key: Box<IssuedKey>,
        /// Who may work on beside it.
        before: Before,
        /// Whether the Secret's other content is to be written again.
        rewrite: bool,
    },
    /// A new key is issued and the Secret written. No other of its name works on.
    Issue,
    /// A new key is issued and the Secret written; the one with this id works on for the overlap, or for longer if it
    /// came with another Tenant object.
    Rotate(String),
    /// The Secret is somebody else's: it is not touched, and the key is not issued.
    Refuse,
}

/// What the decision about a key depends on besides the key.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// Its live keys, and every row with the id of a key that was seen in a Secret.
    pub rows: &'a [IssuedKeyRow],
    /// The peppers; the first is for new keys.
    pub peppers: &'a [Pepper],
    /// Whether a Secret of somebody else may be taken over.
    pub adopt: bool,
    /// Nonce of a rotation that is asked for, if it names the key.
    pub request: Option<&'a str>,
    /// The time.
    pub now: SystemTime,
}

/// Decides about one key.
pub fn plan_key(wanted: &ApiKeySpec, seen: &SecretSeen, known: Known<'_>) -> KeyPlan {
    let (key, replaces, complete) = match seen {
        // It went with another Tenant object, as of a cluster that no longer exists: the key works for a while.
        SecretSeen::Absent => {
            let current = super::rotation::current(&wanted.name, known.rows);
            let inherited = current.filter(|row| row.inherited && row.tenant == known.tenant);
            return inherited.map_or(KeyPlan::Issue, |row| KeyPlan::Rotate(row.key.id.clone()));
        }
        SecretSeen::Foreign { empty: true } if known.adopt => return KeyPlan::Issue,
        SecretSeen::Foreign { .. } => return KeyPlan::Refuse,
        SecretSeen::Ours { key: None, .. } => return KeyPlan::Issue,
        SecretSeen::Ours { key: Some(key), replaces, complete, .. } => (key, replaces, *complete),
    };
    let row = known.rows.iter().find(|row| row.key.id == key.id());
    let (kept, before) = match row {
        Some(row) if !is_usable(wanted, key, row, known) => return KeyPlan::Issue,
        Some(row) if is_due(wanted, row, known.request, known.now) => return KeyPlan::Rotate(row.key.id.clone()),
        Some(row) => (row.key.clone(), Before::Last),
        // It was written and not registered yet: what it was asked for by is carried out. Or the registry
        // lost the row: the key works again, so that nobody's clients break.
        None => {
            let Some(pepper) = known.peppers.first() else { return KeyPlan::Issue };
            let key = IssuedKey::of(key, pepper, &wanted.name, &wanted.scopes);
            let request = request(wanted, known);
            (IssuedKey { request, ..key }, replaces.clone().map_or(Before::None, Before::Id))
        }
    };
    let (scopes, secret) = (wanted.scopes.clone(), Some(wanted.secret_ref.clone()));
    let key = Box::new(IssuedKey { scopes, secret, expires_at: None, ..kept });
    KeyPlan::Keep { key, before, rewrite: !complete }
}

/// The nonce that a key that is issued now has seen.
pub fn request(wanted: &ApiKeySpec, known: Known<'_>) -> Option<String> {
    let current = super::rotation::current(&wanted.name, known.rows);
    known.request.map(str::to_owned).or_else(|| current.and_then(|row| row.key.request.clone()))
}

/// Whether a key that the registry knows may be used (again).
fn is_usable(wanted: &ApiKeySpec, key: &ApiKey, row: &IssuedKeyRow, known: Known<'_>) -> bool {
    let ours = !row.revoked && row.tenant == known.tenant && row.key.name == wanted.name;
    let pepper = known.peppers.iter().find(|pepper| pepper.id == row.key.pepper_id);
    ours && pepper.is_some_and(|pepper| key.matches(pepper, &row.key.digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{acme, at, pepper};
    use crds::tenant::{Rotation, Scope};

    fn wanted() -> ApiKeySpec {
        acme().spec.api_keys[0].clone()
    }

    fn row(key: &ApiKey) -> IssuedKeyRow {
        let secret = Some(wanted().secret_ref);
        let key = IssuedKey { secret, ..IssuedKey::of(key, &pepper(), "main", &[Scope::Ingest]) };
        IssuedKeyRow { tenant: "acme".into(), key, issued_at: at(0), revoked: false, inherited: false }
    }

    fn ours(key: Option<&ApiKey>) -> SecretSeen {
        SecretSeen::Ours { key: key.cloned(), replaces: None, complete: true, adopted: false }
    }

    fn keep(key: IssuedKey, before: Before) -> KeyPlan {
        KeyPlan::Keep { key: Box::new(key), before, rewrite: false }
    }

    fn with<T>(rows: &[IssuedKeyRow], request: Option<&str>, decide: impl FnOnce(Known<'_>) -> T) -> T {
        let peppers = [pepper()];
        decide(Known { tenant: "acme", rows, peppers: &peppers, adopt: false, request, now: at(100) })
    }

    fn decide(seen: &SecretSeen, rows: &[IssuedKeyRow]) -> KeyPlan {
        with(rows, None, |known| plan_key(&wanted(), seen, known))
    }

    #[test]
    fn a_key_that_is_known_stays_and_takes_the_specs_scopes() {
        let key = ApiKey::generate();
        assert_eq!(decide(&ours(Some(&key)), &[row(&key)]), keep(row(&key).key, Before::Last));
        let reader = ApiKeySpec { scopes: vec![Scope::Query], ..wanted() };
        let plan = with(&[row(&key)], None, |known| plan_key(&reader, &ours(Some(&key)), known));
        assert!(matches!(plan, KeyPlan::Keep { key, .. } if key.scopes == [Scope::Query]));
        let incomplete = SecretSeen::Ours { key: Some(key.clone()), replaces: None, complete: false, adopted: false };
        assert!(matches!(decide(&incomplete, &[row(&key)]), KeyPlan::Keep { rewrite: true, .. }));
    }

    #[test]
    fn a_key_that_is_put_back_while_it_still_works_is_current_again() {
        let key = ApiKey::generate();
        let mut replaced = row(&key);
        replaced.key.expires_at = Some(at(500));
        assert_eq!(decide(&ours(Some(&key)), &[replaced]), keep(row(&key).key, Before::Last));
    }

    #[test]
    fn a_key_whose_row_was_lost_works_again() {
        let key = ApiKey::generate();
        assert_eq!(decide(&ours(Some(&key)), &[]), keep(row(&key).key, Before::None));
    }

    #[test]
    fn a_key_that_is_due_is_rotated_and_one_that_carried_the_request_out_is_not() {
        let key = ApiKey::generate();
        let scheduled =
            ApiKeySpec { rotation: Some(Rotation { interval_days: Some(1), overlap_hours: 1 }), ..wanted() };
        let old = IssuedKeyRow { issued_at: at(0), ..row(&key) };
        let decide = |spec: &ApiKeySpec, row: IssuedKeyRow, request, now| {
            with(&[row], request, |known| plan_key(spec, &ours(Some(&key)), Known { now, ..known }))
        };
        let rotate = KeyPlan::Rotate(key.id().to_owned());
        assert_eq!(decide(&scheduled, old.clone(), None, at(24 * 3600)), rotate);
        assert_eq!(decide(&wanted(), old.clone(), Some("1"), at(100)), rotate);
        let mut done = old;
        done.key.request = Some("1".into());
        assert_eq!(decide(&wanted(), done.clone(), Some("1"), at(100)), keep(done.key.clone(), Before::Last));
        assert_eq!(with(&[done.clone()], None, |known| request(&wanted(), known)).as_deref(), Some("1"), "handed on");
        assert_eq!(with(&[done], Some("2"), |known| request(&wanted(), known)).as_deref(), Some("2"));
    }

    /// The Secret is written, and the operator ends before the key is registered.
    #[test]
    fn a_rotation_that_was_cut_off_is_finished_and_not_begun_anew() {
        let (old, new) = (ApiKey::generate(), ApiKey::generate());
        let replaces = Some(old.id().to_owned());
        let seen = SecretSeen::Ours { key: Some(new.clone()), replaces, complete: true, adopted: false };
        let plan = with(&[row(&old)], Some("1"), |known| plan_key(&wanted(), &seen, known));
        let registered = IssuedKey { request: Some("1".into()), ..row(&new).key };
        assert_eq!(plan, keep(registered, Before::Id(old.id().to_owned())));
        // The same of a key whose Secret was lost: the old one does not come back to life.
        let plan = with(&[row(&old)], None, |known| plan_key(&wanted(), &ours(Some(&new)), known));
        assert_eq!(plan, keep(row(&new).key, Before::None));
    }

    #[test]
    fn a_lost_secret_or_a_key_that_may_not_be_used_gets_a_new_one() {
        let key = ApiKey::generate();
        assert_eq!(decide(&SecretSeen::Absent, &[row(&key)]), KeyPlan::Issue);
        assert_eq!(decide(&ours(None), &[row(&key)]), KeyPlan::Issue);
        let inherited = IssuedKeyRow { inherited: true, ..row(&key) };
        let plan = KeyPlan::Rotate(key.id().to_owned());
        assert_eq!(decide(&SecretSeen::Absent, std::slice::from_ref(&inherited)), plan, "of a Tenant before");
        assert_eq!(decide(&SecretSeen::Absent, &[IssuedKeyRow { revoked: true, ..inherited }]), KeyPlan::Issue);
        let other_secret = IssuedKey { digest: [0; 32], ..row(&key).key };
        let other_name = IssuedKey { name: "second".into(), ..row(&key).key };
        let unknown_pepper = IssuedKey { pepper_id: "p9".into(), ..row(&key).key };
        for changed in [
            IssuedKeyRow { revoked: true, ..row(&key) },
            IssuedKeyRow { tenant: "globex".into(), ..row(&key) },
            IssuedKeyRow { key: other_secret, ..row(&key) },
            IssuedKeyRow { key: other_name, ..row(&key) },
            IssuedKeyRow { key: unknown_pepper, ..row(&key) },
        ] {
            assert_eq!(decide(&ours(Some(&key)), &[changed]), KeyPlan::Issue);
        }
    }

    #[test]
    fn somebody_elses_secret_is_not_touched() {
        for (empty, adopt, expected) in [
            (false, false, KeyPlan::Refuse),
            (true, false, KeyPlan::Refuse),
            (false, true, KeyPlan::Refuse),
            (true, true, KeyPlan::Issue),
        ] {
            let seen = SecretSeen::Foreign { empty };
            let plan = with(&[], None, |known| plan_key(&wanted(), &seen, Known { adopt, ..known }));
            assert_eq!(plan, expected, "empty: {empty}, adopt: {adopt}");
        }
    }
}
