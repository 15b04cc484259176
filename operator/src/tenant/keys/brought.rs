//! Keys that somebody else makes and keeps in a Secret (`source: Existing`): read, checked, and
//! known by their digest. The Secret is never written or deleted.

use crds::apikey::{ApiKey, Pepper};
use crds::condition::Reason;
use crds::tenant::ApiKeySpec;

use crate::provision::{IssuedKey, IssuedKeyRow};
use crate::tenant::problem::Problem;

/// What to do about a key that can't be used.
const MAKE: &str = "the entry `apiKey` must be lh_<12 letters or digits>_<43 random letters or digits>; docs/keys.md has a command that makes one";

/// Reads the key out of what the Secret holds under `apiKey`.
pub fn read(wanted: &ApiKeySpec, text: Option<&[u8]>) -> Result<ApiKey, Problem> {
    let Some(text) = text else { return Err(rejected(wanted, "holds no key", MAKE)) };
    let text = std::str::from_utf8(text).unwrap_or_default();
    // Whoever writes a file or a here-document leaves a line end.
    let Ok(key) = ApiKey::parse(text.trim_end_matches(['\r', '\n'])) else {
        return Err(rejected(wanted, "holds something that is not an API key", MAKE));
    };
    if key.is_weak() {
        return Err(rejected(wanted, "holds a key that is not random", MAKE));
    }
    Ok(key)
}

/// The key as the registry is to have it, or why it may not be used. `rows` holds the tenant's live
/// keys and every row with this key's id.
pub fn accept(
    tenant: &str,
    wanted: &ApiKeySpec,
    key: &ApiKey,
    rows: &[IssuedKeyRow],
    pepper: &Pepper,
    peppers: &[Pepper],
) -> Result<IssuedKey, Problem> {
    let fresh = IssuedKey::of(key, pepper, &wanted.name, &wanted.scopes);
    let Some(row) = rows.iter().find(|row| row.key.id == key.id()) else { return Ok(fresh) };
    let another = "put another key there, with another id and another secret";
    if row.tenant != tenant {
        return Err(rejected(wanted, "holds a key whose id is in use already", another));
    }
    if row.revoked {
        return Err(rejected(wanted, "holds a key that was revoked", another));
    }
    match peppers.iter().find(|pepper| pepper.id == row.key.pepper_id) {
        Some(known) if !key.matches(known, &row.key.digest) => {
            Err(rejected(wanted, "holds the id of an earlier key with another secret", another))
        }
        Some(_) => {
            let (name, scopes) = (wanted.name.clone(), wanted.scopes.clone());
            Ok(IssuedKey { name, scopes, expires_at: None, request: None, secret: None, ..row.key.clone() })
        }
        // Its pepper is gone: digested again, it works again.
        None => Ok(fresh),
    }
}

fn rejected(wanted: &ApiKeySpec, what: &str, help: &str) -> Problem {
    let at = &wanted.secret_ref;
    let message = format!("key `{}`: Secret `{}/{}` {what}: {help}", wanted.name, at.namespace, at.name);
    Problem { reason: Reason::KeyRejected, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{acme, at, key_row, pepper};

    fn wanted() -> ApiKeySpec {
        acme().spec.api_keys[0].clone()
    }

    #[test]
    fn what_is_no_good_key_is_refused_with_what_to_do_and_never_shown() {
        let key = ApiKey::generate();
        let text = key.to_string();
        let with_line_end = format!("{text}\n");
        let weak = format!("lh_{}_{}", "a".repeat(12), "a".repeat(43));
        for (text, expected) in [
            (Some(text.as_str()), None),
            (Some(with_line_end.as_str()), None),
            (None, Some("holds no key")),
            (Some(""), Some("is not an API key")),
            (Some("hunter2"), Some("is not an API key")),
            (Some(weak.as_str()), Some("is not random")),
        ] {
            let read = read(&wanted(), text.map(str::as_bytes));
            match (read, expected) {
                (Ok(read), None) => assert_eq!(read.id(), key.id()),
                (Err(Problem { reason, message }), Some(expected)) => {
                    assert_eq!(reason, Reason::KeyRejected);
                    assert!(message.contains(expected) && message.contains("Secret `acme/key`"), "{message}");
                    assert!(!message.contains("hunter2") && !message.contains("aaaa"), "{message}");
                }
                (read, expected) => panic!("{:?} instead of {expected:?}", read.map(|key| key.id().to_owned())),
            }
        }
        assert!(read(&wanted(), Some(&[0xff; 59])).is_err());
    }

    #[test]
    fn a_key_is_taken_unless_its_id_is_another_keys() {
        let key = ApiKey::generate();
        let row = || IssuedKeyRow { key: IssuedKey::of(&key, &pepper(), "main", &[]), ..key_row("any", at(0), None) };
        let decide = |rows: &[IssuedKeyRow]| {
            let accepted = accept("acme", &wanted(), &key, rows, &pepper(), &[pepper()]);
            accepted.map_err(|problem| problem.message)
        };
        assert_eq!(decide(&[]).unwrap(), IssuedKey::of(&key, &pepper(), "main", &wanted().scopes));
        assert_eq!(decide(&[row()]).unwrap().scopes, wanted().scopes, "the spec's scopes");
        let mut back = row();
        back.key.expires_at = Some(at(9));
        assert_eq!(decide(&[back]).unwrap().expires_at, None, "put back while it still worked");
        let mut renamed = row();
        renamed.key.name = "before".into();
        assert_eq!(decide(&[renamed]).unwrap().name, "main");
        let mut unpeppered = row();
        unpeppered.key.pepper_id = "p0".into();
        assert_eq!(decide(&[unpeppered]).unwrap().pepper_id, "p1");
        let changed = |change: fn(&mut IssuedKeyRow)| {
            let mut row = row();
            change(&mut row);
            decide(&[row]).unwrap_err()
        };
        assert!(changed(|row| row.tenant = "globex".into()).contains("in use already"));
        assert!(!changed(|row| row.tenant = "globex".into()).contains("globex"));
        assert!(changed(|row| row.revoked = true).contains("was revoked"));
        assert!(changed(|row| row.key.digest = [0; 32]).contains("another secret"));
    }
}
