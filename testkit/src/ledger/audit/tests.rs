use super::*;
use crate::ledger::contents::IndexedEvent;

const ACCEPTED_AT: i64 = 1_767_323_045_000_000;

/// One request of three lines, the last broken, accepted and kept as it should be.
fn kept() -> (Vec<Promise>, Vec<(String, Contents)>) {
    let batch_id = Uuid::from_u128(1);
    let lines = vec![(b"one".to_vec(), false), (b"two".to_vec(), false), (b"broken".to_vec(), true)];
    let held = |position: u32| Held {
        event_id: event_id(batch_id, ACCEPTED_AT, position),
        batch_id: Some(batch_id),
        raw: Ok(lines[position as usize].0.clone()),
    };
    let contents = Contents {
        rows: vec![held(0), held(1)],
        dead_letters: vec![held(2)],
        documents: [0, 1].map(|at| IndexedEvent { event_id: held(at).event_id, tenant: "a".into() }).into(),
        billed: vec![(batch_id, 2)],
        batches: BTreeMap::from([(batch_id, ACCEPTED_AT)]),
        archived: BTreeMap::from([(batch_id, 1)]),
        orphans: Vec::new(),
    };
    let promise = Promise { request: 1, tenant: 0, fate: Fate::Accepted { batch_id }, lines };
    (vec![promise], vec![("a".into(), contents), ("b".into(), Contents::default())])
}

/// The invariants that a change breaks, and how many events are lost and doubled.
fn broken_by(change: impl FnOnce(&mut Vec<Promise>, &mut Vec<(String, Contents)>)) -> (Vec<&'static str>, u64, u64) {
    let (mut promises, mut contents) = kept();
    change(&mut promises, &mut contents);
    let audit = audit(&promises, &contents);
    (audit.problems.keys().map(|invariant| invariant.short()).collect(), audit.lost, audit.doubled)
}

#[test]
fn what_is_kept_once_has_no_problem() {
    let (promises, contents) = kept();
    let audit = audit(&promises, &contents);
    let expected = Audit { accepted: 3, stored: 2, dead_letters: 1, ..Audit::default() };
    assert_eq!(audit, expected);
}

#[test]
fn every_kind_of_damage_breaks_its_invariant() {
    assert_eq!(broken_by(|_, c| drop(c[0].1.dead_letters.pop())), (vec!["I1"], 1, 0), "a lost dead letter");
    assert_eq!(broken_by(|_, c| drop(c[0].1.documents.pop())), (vec!["I1"], 1, 0), "a lost document");
    assert_eq!(broken_by(|_, c| drop(c[0].1.rows.pop())), (vec!["I1", "I2", "bill"], 1, 0), "a lost row");
    let doubled = |_: &mut Vec<_>, c: &mut Vec<(String, Contents)>| {
        let row = c[0].1.rows[0].clone();
        c[0].1.rows.push(row);
    };
    assert_eq!(broken_by(doubled), (vec!["I1", "bill"], 0, 1), "a doubled row");
    let indexed_twice = |_: &mut Vec<_>, c: &mut Vec<(String, Contents)>| {
        let document = c[0].1.documents[0].clone();
        c[0].1.documents.push(document);
    };
    assert_eq!(broken_by(indexed_twice), (vec!["I1"], 0, 1), "a doubled document");
    assert_eq!(broken_by(|_, c| c[0].1.rows[0].raw = Ok(b"0ne".to_vec())).0, ["I1", "I4"], "other bytes");
    assert_eq!(broken_by(|_, c| c[0].1.rows[0].raw = Err("gone".into())).0, ["I1"], "no raw line");
    assert_eq!(broken_by(|_, c| c[0].1.rows[0].event_id = Uuid::nil()).0, ["I1", "I2"], "another id");
    assert_eq!(broken_by(|p, _| p[0].tenant = 1).0, ["I5"], "another tenant's");
    assert_eq!(broken_by(|_, c| c[0].1.documents[0].tenant = "b".into()).0, ["I5"], "a document of another's");
    assert_eq!(broken_by(|p, _| p[0].fate = Fate::Refused).0, ["I2"], "refused, and kept");
    assert_eq!(broken_by(|p, _| p[0].fate = Fate::Unknown).0, Vec::<&str>::new(), "unknown, and kept");
    let half = |p: &mut Vec<Promise>, c: &mut Vec<(String, Contents)>| {
        p[0].fate = Fate::Unknown;
        c[0].1.dead_letters.clear();
    };
    assert_eq!(broken_by(half).0, ["I3"], "unknown, and half kept");
    assert_eq!(broken_by(|_, c| c[0].1.billed.clear()).0, ["bill"], "not billed");
    assert_eq!(broken_by(|_, c| c[0].1.billed.push((Uuid::from_u128(1), 2))).0, ["bill"], "billed twice");
    assert_eq!(
        broken_by(|_, c| {
            c[0].1.archived.insert(Uuid::from_u128(1), 2);
        }),
        (vec!["I1"], 0, 1),
        "two objects"
    );
    assert_eq!(broken_by(|_, c| c[0].1.orphans.push("k".into())).0, ["I1"], "an orphaned object");
    let also_indexed = |_: &mut Vec<_>, c: &mut Vec<(String, Contents)>| {
        let event_id = c[0].1.dead_letters[0].event_id;
        c[0].1.documents.push(IndexedEvent { event_id, tenant: "a".into() });
    };
    assert_eq!(broken_by(also_indexed).0, ["I2"], "a dead letter that is also indexed");
}
