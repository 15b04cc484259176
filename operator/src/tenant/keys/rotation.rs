//! When a key is replaced, by schedule or because somebody asks for it, and how long the key before
//! it still works. Values in, values out.

use std::time::{Duration, SystemTime};

use crds::tenant::{ApiKeySpec, KeySource};

use crate::provision::{IssuedKey, IssuedKeyRow};

/// Longest nonce that is understood: a time, a commit, a ticket.
const MAX_NONCE: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);
/// How long a key works on whose Secret went with another Tenant object, as of a cluster that is no more: until
/// people have handed the new one to whoever sends from outside.
pub const INHERITED: Duration = Duration::from_secs(30 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the annotation `loggerhub.io/rotate-keys` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Names separated by commas, or `*`.
    names: &'a str,
    /// Which request it is: one nonce is carried out once.
    nonce: &'a str,
}

impl<'a> Request<'a> {
    /// Reads the annotation's value; nothing if it has another form.
    pub fn parse(value: &'a str) -> Option<Self> {
        let (names, nonce) = value.split_once('@')?;
        let visible = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        ((1..=MAX_NONCE).contains(&nonce.len()) && visible && !names.is_empty()).then_some(Self { names, nonce })
    }

    /// The nonce, if this key is to be replaced.
    pub fn of(&self, key: &ApiKeySpec) -> Option<&'a str> {
        let named = self.names == "*" || self.names.split(',').any(|name| name.trim() == key.name);
        (named && key.source == KeySource::Generate).then_some(self.nonce)
    }

    /// A name that no generated key has: nothing can be done about it.
    pub fn unknown(&self, keys: &[ApiKeySpec]) -> Option<&'a str> {
        let generated = |name: &str| keys.iter().any(|key| key.name == name && key.source == KeySource::Generate);
        self.names.split(',').map(str::trim).find(|name| *name != "*" && !generated(name))
    }

    /// Whether every key that it names was replaced for it.
    pub fn is_handled(&self, keys: &[ApiKeySpec], live: &[IssuedKeyRow]) -> bool {
        let handled = |key: &ApiKeySpec, nonce: &str| {
            current(&key.name, live).is_some_and(|row| row.key.request.as_deref() == Some(nonce))
        };
        self.unknown(keys).is_none() && keys.iter().all(|key| self.of(key).is_none_or(|nonce| handled(key, nonce)))
    }
}

/// The current key of a name.
pub fn current<'a>(name: &str, live: &'a [IssuedKeyRow]) -> Option<&'a IssuedKeyRow> {
    live.iter().find(|row| !row.revoked && row.key.name == name && row.key.expires_at.is_none())
}

/// Whether a key's time has come. `request` is the nonce that asks for it.
pub fn is_due(wanted: &ApiKeySpec, row: &IssuedKeyRow, request: Option<&str>, now: SystemTime) -> bool {
    let asked = request.is_some() && request != row.key.request.as_deref();
    asked || scheduled(wanted, row).is_some_and(|at| at <= now)
}

/// When the schedule replaces a key.
fn scheduled(wanted: &ApiKeySpec, row: &IssuedKeyRow) -> Option<SystemTime> {
    let days = wanted.rotation?.interval_days?;
    Some(row.issued_at + DAY * u32::try_from(days).ok()?)
}

/// When a key stops working if it is replaced by schedule.
pub fn expected_end(wanted: &ApiKeySpec, row: &IssuedKeyRow) -> Option<SystemTime> {
    scheduled(wanted, row).map(|at| at + overlap(wanted))
}

fn overlap(wanted: &ApiKeySpec) -> Duration {
    HOUR * u32::try_from(wanted.rotation.unwrap_or_default().overlap_hours).unwrap_or(0)
}

/// Which key of the same name may work on beside the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// None: the Secret was lost, or nothing is known of a key before.
    None,
    /// The one with this id, which the current key took the place of.
    Id(String),
    /// Whichever was current last.
    Last,
}

/// The key that works on beside `current_id` until the overlap ends. Never more than one: if
/// several may, the one that ends last. An overlap that goes on is only ever cut short.
pub fn previous(
    wanted: &ApiKeySpec,
    current_id: &str,
    before: &Before,
    rows: &[IssuedKeyRow],
    now: SystemTime,
) -> Option<IssuedKey> {
    let may_stay = |row: &&IssuedKeyRow| match before {
        Before::None => false,
        Before::Id(id) => row.key.id == *id,
        Before::Last => true,
    };
    let others = rows.iter().filter(|row| !row.revoked && row.key.name == wanted.name && row.key.id != current_id);
    let latest = whole_second(now) + overlap(wanted);
    let inherited = whole_second(now) + INHERITED.max(overlap(wanted));
    let ending = |row: &IssuedKeyRow| {
        let expires_at = match row.key.expires_at {
            None if row.inherited && *before != Before::Last => inherited,
            // It keeps its longer time.
            Some(at) if row.inherited => at,
            at => at.map_or(latest, |at| at.min(latest)),
        };
        IssuedKey { expires_at: Some(expires_at), scopes: wanted.scopes.clone(), secret: None, ..row.key.clone() }
    };
    others.filter(may_stay).map(ending).filter(|key| key.expires_at > Some(now)).max_by_key(|key| key.expires_at)
}

fn whole_second(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// How long until something is due by the clock alone: a key to be replaced, or one that ends. What
/// is overdue was tried, and is tried again as any failure is.
pub fn next_due(keys: &[ApiKeySpec], live: &[IssuedKeyRow], now: SystemTime) -> Option<Duration> {
    let replaced = keys.iter().filter_map(|key| scheduled(key, current(&key.name, live)?));
    let ended = live.iter().filter_map(|row| row.key.expires_at);
    replaced.chain(ended).filter_map(|at| at.duration_since(now).ok()).filter(|wait| !wait.is_zero()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{acme, at, key_row};
    use crds::tenant::Rotation;

    fn wanted(interval_days: Option<i32>, overlap_hours: i32) -> ApiKeySpec {
        let rotation = Some(Rotation { interval_days, overlap_hours });
        ApiKeySpec { rotation, ..acme().spec.api_keys[0].clone() }
    }

    const HOURS: u64 = 3600;
    const DAYS: u64 = 24 * HOURS;

    #[test]
    fn the_annotation_is_names_and_a_nonce() {
        let main = &acme().spec.api_keys[0];
        let second = &ApiKeySpec { name: "second".into(), ..main.clone() };
        let existing = &ApiKeySpec { source: KeySource::Existing, ..main.clone() };
        let long = format!("main@{}", "x".repeat(65));
        for (value, key, expected) in [
            ("main@1", main, Some("1")),
            ("*@2026-11-21T10:00:00Z", main, Some("2026-11-21T10:00:00Z")),
            ("main,second@a", second, Some("a")),
            ("main, second@a", second, Some("a")),
            ("main@a@b", main, Some("a@b")),
            ("second@1", main, None),
            ("*@1", existing, None),
            ("main", main, None),
            ("main@", main, None),
            ("@1", main, None),
            ("main@a b", main, None),
            (long.as_str(), main, None),
        ] {
            assert_eq!(Request::parse(value).and_then(|request| request.of(key)), expected, "{value} for {}", key.name);
        }
        let keys = [main.clone()];
        let unknown = |value| Request::parse(value).unwrap().unknown(&keys);
        assert_eq!((unknown("*@1"), unknown("main@1"), unknown("main,other@1")), (None, None, Some("other")));
        assert_eq!(Request::parse("main@1").unwrap().unknown(std::slice::from_ref(existing)), Some("main"));
    }

    #[test]
    fn a_key_is_due_by_its_age_or_by_a_nonce_that_it_has_not_seen() {
        let seen = |nonce: Option<&str>| {
            let mut row = key_row("a", at(0), None);
            row.key.request = nonce.map(str::to_owned);
            row
        };
        for (interval, row, request, now, due) in [
            (None, seen(None), None, 9999 * DAYS, false),
            (Some(30), seen(None), None, 30 * DAYS - 1, false),
            (Some(30), seen(None), None, 30 * DAYS, true),
            (Some(30), seen(Some("1")), Some("1"), 300 * DAYS, true),
            (None, seen(None), Some("1"), 0, true),
            (None, seen(Some("1")), Some("1"), 0, false),
            (None, seen(Some("1")), Some("2"), 0, true),
            (None, seen(Some("1")), None, 0, false),
        ] {
            assert_eq!(is_due(&wanted(interval, 24), &row, request, at(now)), due, "{interval:?} {request:?} {now}");
        }
    }

    #[test]
    fn one_key_before_works_until_the_overlap_ends() {
        let now = 100 * DAYS;
        let replaced = |id: &str, ends: u64| key_row(id, at(0), Some(at(ends)));
        let used = || key_row("used", at(0), None);
        let id = |id: &str| Before::Id(id.to_owned());
        let revoked = IssuedKeyRow { revoked: true, ..used() };
        for (name, overlap, before, rows, expected) in [
            ("nobody was before", 24, Before::Last, vec![], None),
            ("it was current until now", 24, id("used"), vec![used()], Some(("used", now + 24 * HOURS))),
            ("whichever it was", 24, Before::Last, vec![used()], Some(("used", now + 24 * HOURS))),
            ("its Secret was lost", 24, Before::None, vec![used()], None),
            ("another one's place was taken", 24, id("other"), vec![used()], None),
            ("it was revoked", 24, Before::Last, vec![revoked], None),
            ("no overlap", 0, id("used"), vec![used()], None),
            ("under way", 24, Before::Last, vec![replaced("b", now + HOURS)], Some(("b", now + HOURS))),
            ("cut short", 1, Before::Last, vec![replaced("b", now + 5 * HOURS)], Some(("b", now + HOURS))),
            ("ended by hand", 0, Before::Last, vec![replaced("b", now + 5 * HOURS)], None),
            ("its time is over", 24, Before::Last, vec![replaced("b", now)], None),
            (
                "the last of two",
                24,
                Before::Last,
                vec![replaced("b", now + HOURS), used()],
                Some(("used", now + 24 * HOURS)),
            ),
            (
                "of two, that one",
                24,
                id("used"),
                vec![replaced("b", now + HOURS), used()],
                Some(("used", now + 24 * HOURS)),
            ),
        ] {
            let found = previous(&wanted(None, overlap), "new", &before, &rows, at(now));
            let found = found.map(|key| (key.id, key.expires_at));
            assert_eq!(found, expected.map(|(id, ends)| (id.to_owned(), Some(at(ends)))), "{name}");
        }
        assert_eq!(previous(&wanted(None, 24), "used", &Before::Last, &[used()], at(now)), None, "the current one");
    }

    #[test]
    fn the_next_look_is_when_something_is_due() {
        let second = |seconds| Some(Duration::from_secs(seconds));
        let ends = |at_second| key_row("b", at(0), Some(at(at_second)));
        for (interval, rows, now, expected) in [
            (None, vec![key_row("a", at(0), None)], 5, None),
            (Some(1), vec![key_row("a", at(0), None)], 5, second(DAYS - 5)),
            (Some(1), vec![key_row("a", at(0), None), ends(100)], 5, second(95)),
            (Some(1), vec![key_row("a", at(0), None), ends(100)], 100, second(DAYS - 100)),
            (Some(1), vec![key_row("a", at(0), None)], 2 * DAYS, None),
            (Some(1), vec![], 5, None),
        ] {
            assert_eq!(next_due(&[wanted(interval, 1)], &rows, at(now)), expected, "{interval:?} at {now}");
        }
    }

    #[test]
    fn a_request_is_handled_once_every_key_that_it_names_has_its_nonce() {
        let keys = [wanted(None, 24)];
        let mut row = key_row("a", at(0), None);
        let handled = |value: &str, row: &IssuedKeyRow| {
            Request::parse(value).unwrap().is_handled(&keys, std::slice::from_ref(row))
        };
        assert!(!handled("*@1", &row));
        row.key.request = Some("1".into());
        assert!(handled("*@1", &row) && handled("main@1", &row));
        assert!(!handled("main@2", &row) && !handled("other@1", &row));
        row.key.expires_at = Some(at(9));
        assert!(!handled("main@1", &row), "it is not the current one");
    }

    #[test]
    fn a_key_of_a_tenant_before_works_on_for_a_month_and_one_of_this_tenant_for_its_overlap() {
        let end = |inherited: bool, expires_at, before: &Before| {
            let row = IssuedKeyRow { inherited, ..key_row("old", at(0), expires_at) };
            previous(&wanted(None, 1), "new", before, &[row], at(100)).and_then(|key| key.expires_at)
        };
        let id = Before::Id("old".into());
        let (overlap, month) = (at(100 + HOURS), at(100 + 30 * DAYS));
        assert_eq!(end(false, None, &id), Some(overlap));
        assert_eq!(end(true, None, &id), Some(month));
        assert_eq!(end(true, Some(month), &Before::Last), Some(month), "at every look");
        assert_eq!(end(false, Some(month), &Before::Last), Some(overlap));
        assert_eq!(end(true, Some(month), &Before::Id("other".into())), None, "a further rotation ends it");
    }
}
