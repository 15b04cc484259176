//! Decides about each key: whether the one in its Secret stays, or a new one is issued.

use crds::apikey::{ApiKey, Pepper};
use crds::tenant::ApiKeySpec;

use crate::provision::{IssuedKey, IssuedKeyRow};

/// What a key's Secret holds.
#[derive(Clone)]
pub enum SecretSeen {
    /// It is not there.
    Absent,
    /// It is ours; this is its `apiKey`, if it can be read as one, and its `ingestUrl`.
    Ours {
        /// The key.
        key: Option<ApiKey>,
        /// Whether the rest of its content is as it should be.
        complete: bool,
    },
    /// It is somebody else's.
    Foreign,
}

/// What is to be done about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlan {
    /// The key in the Secret is the one that the registry has, or is to have (again).
    Keep(IssuedKey),
    /// As [`Self::Keep`], and the Secret's other content is written again.
    Rewrite(IssuedKey),
    /// A new key is issued and the Secret written.
    Issue,
    /// The Secret is somebody else's: it is not touched, and the key is not issued.
    Refuse,
}

/// Decides about one key. `rows` holds the tenant's live keys and every row with this key's id.
pub fn plan_key(
    tenant: &str,
    wanted: &ApiKeySpec,
    seen: &SecretSeen,
    rows: &[IssuedKeyRow],
    peppers: &[Pepper],
    adopt: bool,
) -> KeyPlan {
    let (key, complete) = match seen {
        SecretSeen::Absent => return KeyPlan::Issue,
        SecretSeen::Foreign if adopt => return KeyPlan::Issue,
        SecretSeen::Foreign => return KeyPlan::Refuse,
        SecretSeen::Ours { key: None, .. } => return KeyPlan::Issue,
        SecretSeen::Ours { key: Some(key), complete } => (key, *complete),
    };
    let Some(kept) = kept(tenant, wanted, key, rows, peppers) else { return KeyPlan::Issue };
    if complete { KeyPlan::Keep(kept) } else { KeyPlan::Rewrite(kept) }
}

/// The key as the registry is to have it, or nothing if it may not be used (again).
fn kept(
    tenant: &str,
    wanted: &ApiKeySpec,
    key: &ApiKey,
    rows: &[IssuedKeyRow],
    peppers: &[Pepper],
) -> Option<IssuedKey> {
    let Some(row) = rows.iter().find(|row| row.key.id == key.id()) else {
        // The registry lost the row: the key works again, so that nobody's clients break.
        return peppers.first().map(|pepper| IssuedKey::of(key, pepper, &wanted.name, &wanted.scopes));
    };
    let usable = !row.revoked && row.tenant == tenant && row.key.name == wanted.name;
    let pepper = peppers.iter().find(|pepper| pepper.id == row.key.pepper_id)?;
    (usable && key.matches(pepper, &row.key.digest))
        .then(|| IssuedKey { scopes: wanted.scopes.clone(), ..row.key.clone() })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::tenant::testing::acme;
    use crds::tenant::Scope;

    fn pepper() -> Pepper {
        Pepper { id: "p1".into(), bytes: vec![1; 32] }
    }

    fn row(key: &ApiKey) -> IssuedKeyRow {
        IssuedKeyRow {
            tenant: "acme".into(),
            key: IssuedKey::of(key, &pepper(), "main", &[Scope::Ingest]),
            issued_at: SystemTime::UNIX_EPOCH,
            revoked: false,
        }
    }

    fn decide(seen: &SecretSeen, rows: &[IssuedKeyRow]) -> KeyPlan {
        plan_key("acme", &acme().spec.api_keys[0], seen, rows, &[pepper()], false)
    }

    #[test]
    fn a_key_that_is_known_stays_and_takes_the_specs_scopes() {
        let key = ApiKey::generate();
        let seen = SecretSeen::Ours { key: Some(key.clone()), complete: true };
        assert_eq!(decide(&seen, &[row(&key)]), KeyPlan::Keep(row(&key).key));
        let mut wanted = acme().spec.api_keys[0].clone();
        wanted.scopes = vec![Scope::Query];
        let plan = plan_key("acme", &wanted, &seen, &[row(&key)], &[pepper()], false);
        assert!(matches!(plan, KeyPlan::Keep(key) if key.scopes == [Scope::Query]));
        let incomplete = SecretSeen::Ours { key: Some(key.clone()), complete: false };
        assert_eq!(decide(&incomplete, &[row(&key)]), KeyPlan::Rewrite(row(&key).key));
    }

    #[test]
    fn a_key_whose_row_was_lost_works_again() {
        let key = ApiKey::generate();
        let seen = SecretSeen::Ours { key: Some(key.clone()), complete: true };
        assert_eq!(decide(&seen, &[]), KeyPlan::Keep(row(&key).key));
    }

    #[test]
    fn a_lost_secret_or_a_key_that_may_not_be_used_gets_a_new_one() {
        let key = ApiKey::generate();
        let ours = |key: Option<&ApiKey>| SecretSeen::Ours { key: key.cloned(), complete: true };
        assert_eq!(decide(&SecretSeen::Absent, &[row(&key)]), KeyPlan::Issue);
        assert_eq!(decide(&ours(None), &[row(&key)]), KeyPlan::Issue);
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
        assert_eq!(decide(&SecretSeen::Foreign, &[]), KeyPlan::Refuse);
        let adopted = plan_key("acme", &acme().spec.api_keys[0], &SecretSeen::Foreign, &[], &[pepper()], true);
        assert_eq!(adopted, KeyPlan::Issue);
    }
}
