//! Keys as a Tenant's status shows them: ids and times, never a key or its digest.

use std::time::{Duration, SystemTime};

use crds::tenant::{ApiKeySpec, ApiKeyStatus, PreviousKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::provision::IssuedKeyRow;
use crate::tenant::keys::register::AppliedKeys;
use crate::tenant::keys::rotation::{current, expected_end};

/// The live keys, with what was known of their use before where nothing newer is.
pub(super) fn statuses(wanted: &[ApiKeySpec], keys: &AppliedKeys, before: &[ApiKeyStatus]) -> Vec<ApiKeyStatus> {
    let last_used = |id: &str| {
        let seen = keys.uses.get(id).map(|hour| time(SystemTime::UNIX_EPOCH + Duration::from_secs(*hour)));
        known_use(id, before).max(seen)
    };
    let status = |wanted: &ApiKeySpec| {
        let row = current(&wanted.name, &keys.live)?;
        let previous = |row: &IssuedKeyRow| {
            let expires_at = row.key.expires_at.filter(|_| row.key.name == wanted.name)?;
            let key_id = row.key.id.clone();
            Some(PreviousKey { last_used_at: last_used(&key_id), key_id, expires_at: time(expires_at) })
        };
        Some(ApiKeyStatus {
            name: wanted.name.clone(),
            key_id: row.key.id.clone(),
            issued_at: time(row.issued_at),
            expires_at: expected_end(wanted, row).map(time),
            last_used_at: last_used(&row.key.id),
            previous: keys.live.iter().find_map(previous),
        })
    };
    wanted.iter().filter_map(status).collect()
}

/// When a key was last used as far as the status of before knows: Redis forgets sooner.
fn known_use(id: &str, before: &[ApiKeyStatus]) -> Option<Time> {
    let of = |status: &ApiKeyStatus| {
        let previous = status.previous.as_ref().filter(|previous| previous.key_id == id);
        let current = status.last_used_at.clone().filter(|_| status.key_id == id);
        current.or_else(|| previous?.last_used_at.clone())
    };
    before.iter().find_map(of)
}

fn time(at: SystemTime) -> Time {
    let second = Timestamp::try_from(at).and_then(|at| Timestamp::from_second(at.as_second()));
    Time(second.unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{acme, at, key_row};
    use crds::tenant::Rotation;

    #[test]
    fn a_key_is_shown_with_its_end_its_last_use_and_the_one_before() {
        let rotation = Some(Rotation { interval_days: Some(1), overlap_hours: 2 });
        let wanted = [ApiKeySpec { rotation, ..acme().spec.api_keys[0].clone() }];
        let mut keys = AppliedKeys {
            live: vec![key_row("old", at(0), Some(at(7200))), key_row("new", at(60), None)],
            uses: [("new".to_owned(), 3600)].into(),
            ..AppliedKeys::default()
        };
        let first = statuses(&wanted, &keys, &[]);
        assert_eq!(first.len(), 1);
        let ApiKeyStatus { key_id, issued_at, expires_at, last_used_at, previous, .. } = first[0].clone();
        assert_eq!((key_id.as_str(), issued_at), ("new", time(at(60))));
        assert_eq!(expires_at, Some(time(at(60 + 24 * 3600 + 7200))));
        assert_eq!(last_used_at, Some(time(at(3600))));
        assert_eq!(
            previous,
            Some(PreviousKey { key_id: "old".into(), expires_at: time(at(7200)), last_used_at: None })
        );
        // Redis forgot one use and knows of another.
        keys.uses = [("old".to_owned(), 7200)].into();
        let second = statuses(&wanted, &keys, &first);
        assert_eq!(second[0].last_used_at, Some(time(at(3600))));
        assert_eq!(second[0].previous.as_ref().unwrap().last_used_at, Some(time(at(7200))));
        // What is written late does not lead back.
        keys.uses = [("old".to_owned(), 3600)].into();
        assert_eq!(statuses(&wanted, &keys, &second), second);
        // What is not in the spec is not shown.
        assert!(statuses(&[], &keys, &second).is_empty());
    }
}
