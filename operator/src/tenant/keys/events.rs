//! What became other of a Tenant's keys, for Events: who holds an old key is to hear of it.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;

use super::rotation::current;
use crate::kubernetes::Note;
use crate::provision::IssuedKeyRow;

/// One change that somebody or the clock asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// Another key took its place.
    Replaced {
        /// Name in the spec.
        name: String,
        /// Id of the new one.
        id: String,
        /// Id of the one before.
        before: String,
        /// Until when that one works; `None`: it does no more.
        until: Option<SystemTime>,
    },
    /// The key before ended.
    Ended {
        /// Name in the spec.
        name: String,
        /// Its id.
        id: String,
    },
}

/// What differs between the rows before and those that live now, of the names that `counts`.
pub fn changes(before: &[IssuedKeyRow], live: &[IssuedKeyRow], counts: impl Fn(&str) -> bool) -> Vec<KeyChange> {
    let now = |id: &str| live.iter().find(|row| row.key.id == id);
    let change = |row: &IssuedKeyRow| {
        let (name, id) = (row.key.name.clone(), row.key.id.clone());
        if row.key.expires_at.is_some() {
            return now(&id).is_none().then_some(KeyChange::Ended { name, id });
        }
        let successor = current(&name, live).filter(|current| current.key.id != id)?;
        let until = now(&id).and_then(|row| row.key.expires_at);
        Some(KeyChange::Replaced { name, id: successor.key.id.clone(), before: id, until })
    };
    before.iter().filter(|row| !row.revoked && counts(&row.key.name)).filter_map(change).collect()
}

/// The changes as Events.
pub fn notes(changes: &[KeyChange]) -> Vec<Note> {
    let note = |change: &KeyChange| match change {
        KeyChange::Replaced { name, id, before, until: Some(until) } => Note {
            warning: false,
            reason: "KeyRotated",
            message: format!("key `{name}` is {id} from now on; {before} works until {}", time(*until)),
        },
        KeyChange::Replaced { name, id, before, until: None } => Note {
            warning: false,
            reason: "KeyRotated",
            message: format!("key `{name}` is {id} from now on; {before} works no more"),
        },
        KeyChange::Ended { name, id } => Note {
            warning: false,
            reason: "KeyEnded",
            message: format!("{id}, the key `{name}` before, works no more"),
        },
    };
    changes.iter().map(note).collect()
}

fn time(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::{at, key_row};

    #[test]
    fn replacements_and_ends_are_told_and_nothing_else() {
        let row = |id: &str, ends: Option<u64>| key_row(id, at(0), ends.map(at));
        let told = |before: &[IssuedKeyRow], live: &[IssuedKeyRow]| -> Vec<String> {
            notes(&changes(before, live, |_| true)).into_iter().map(|note| note.message).collect()
        };
        let nothing: [&str; 0] = [];
        assert_eq!(told(&[], &[row("a", None)]), nothing);
        assert_eq!(told(&[row("a", None)], &[row("a", None)]), nothing);
        assert_eq!(told(&[row("a", Some(9)), row("b", None)], &[row("a", Some(5)), row("b", None)]), nothing);
        assert_eq!(
            told(&[row("a", None)], &[row("a", Some(9)), row("b", None)]),
            ["key `main` is b from now on; a works until 1970-01-01T00:00:09Z"]
        );
        assert_eq!(told(&[row("a", None)], &[row("b", None)]), ["key `main` is b from now on; a works no more"]);
        assert_eq!(
            told(&[row("a", Some(9)), row("b", None)], &[row("b", None)]),
            ["a, the key `main` before, works no more"]
        );
        assert!(changes(&[row("a", None)], &[row("b", None)], |_| false).is_empty(), "a repair");
        let revoked = IssuedKeyRow { revoked: true, ..row("a", None) };
        assert!(changes(&[revoked], &[row("b", None)], |_| true).is_empty());
    }
}
