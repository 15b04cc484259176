//! The audit: what the ledger promises against what the stores hold, one verdict an invariant.
//!
//! An event is known by its raw bytes, which no two events of a run share. So a store that holds
//! the right id with the wrong bytes, or the right bytes under another tenant, is found out.

use std::collections::{BTreeMap, HashMap};

use dataplane::event::event_id;
use serde::Serialize;
use uuid::Uuid;

use super::contents::{Contents, Held};
use super::journal::Fate;

/// What must be true of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// I1: what was accepted is stored or dead-lettered, each event once: one row, one document,
    /// one raw location.
    AcceptedOnce,
    /// I2: nothing is stored that was never sent, or that was refused.
    NothingForeign,
    /// I3: a request of unknown outcome is stored as a whole, once, or not at all.
    UnknownAtMostOnce,
    /// I4: the raw bytes are those that were sent.
    BytesEqual,
    /// I5: every copy belongs to the tenant that sent it.
    TenantRight,
    /// I8: the queue holds nothing any more, handed out or not.
    QueueEmpty,
    /// The usage ledger counts each stored batch once.
    BilledOnce,
    /// What this fault in particular must show: that it struck, and what was answered meanwhile.
    AsExpected,
}

impl Invariant {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 8] = [
        Self::AcceptedOnce,
        Self::NothingForeign,
        Self::UnknownAtMostOnce,
        Self::BytesEqual,
        Self::TenantRight,
        Self::QueueEmpty,
        Self::BilledOnce,
        Self::AsExpected,
    ];

    /// The head of its column.
    pub fn short(self) -> &'static str {
        match self {
            Self::AcceptedOnce => "I1",
            Self::NothingForeign => "I2",
            Self::UnknownAtMostOnce => "I3",
            Self::BytesEqual => "I4",
            Self::TenantRight => "I5",
            Self::QueueEmpty => "I8",
            Self::BilledOnce => "bill",
            Self::AsExpected => "exp",
        }
    }
}

/// A request as it was sent, and what was answered.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Its number.
    pub request: u64,
    /// Which tenant sent it.
    pub tenant: usize,
    /// What it came to.
    pub fate: Fate,
    /// Its lines, and whether each can't be an event.
    pub lines: Vec<(Vec<u8>, bool)>,
}

/// What a run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Events that were answered with 202.
    pub accepted: u64,
    /// Events of unknown outcome.
    pub unknown: u64,
    /// Rows of the catalog.
    pub stored: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Accepted events that are nowhere.
    pub lost: u64,
    /// Events that are somewhere twice.
    pub doubled: u64,
    /// What is wrong, by invariant; a few sentences each.
    pub problems: BTreeMap<Invariant, Problems>,
}

/// What is wrong with one invariant.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems {
    /// How much.
    pub count: u64,
    /// The first few.
    pub examples: Vec<String>,
}

/// Problems that are told in full; of more, only the number.
const EXAMPLES: usize = 3;

impl Audit {
    /// Notes a problem.
    pub fn problem(&mut self, invariant: Invariant, what: impl FnOnce() -> String) {
        let problems = self.problems.entry(invariant).or_default();
        problems.count += 1;
        if problems.examples.len() < EXAMPLES {
            problems.examples.push(what());
        }
    }
}

/// Which line of which request.
type Place = (usize, u32);

/// Copies of one line.
#[derive(Debug, Default, Clone)]
struct Copies {
    rows: u32,
    dead_letters: u32,
    documents: u32,
}

/// Compares. `contents` holds one element a tenant, with its name.
pub fn audit(promises: &[Promise], contents: &[(String, Contents)]) -> Audit {
    let mut audit = Audit::default();
    let mut known: HashMap<&[u8], Place> = HashMap::new();
    let mut copies: Vec<Vec<Copies>> = Vec::with_capacity(promises.len());
    for (at, promise) in promises.iter().enumerate() {
        known.extend((0..).zip(&promise.lines).map(|(position, (line, _))| (line.as_slice(), (at, position))));
        copies.push(vec![Copies::default(); promise.lines.len()]);
    }
    for (tenant, (name, contents)) in contents.iter().enumerate() {
        count(&mut audit, &mut copies, promises, &known, tenant, name, contents);
        check_bill(&mut audit, contents);
        check_archive(&mut audit, contents);
    }
    for (promise, copies) in promises.iter().zip(&copies) {
        judge(&mut audit, promise, copies);
    }
    audit
}

/// Finds the line that each row, dead letter and document of a tenant is a copy of.
fn count(
    audit: &mut Audit,
    copies: &mut [Vec<Copies>],
    promises: &[Promise],
    known: &HashMap<&[u8], Place>,
    tenant: usize,
    name: &str,
    contents: &Contents,
) {
    let mut rows: HashMap<Uuid, Option<Place>> = HashMap::new();
    for (held, is_row) in
        contents.rows.iter().map(|row| (row, true)).chain(contents.dead_letters.iter().map(|dead| (dead, false)))
    {
        let place = recognise(audit, promises, known, tenant, name, contents, held);
        if is_row {
            audit.stored += 1;
            rows.insert(held.event_id, place);
        } else {
            audit.dead_letters += 1;
        }
        let Some((at, position)) = place else { continue };
        let copies = &mut copies[at][position as usize];
        if is_row {
            copies.rows += 1;
        } else {
            copies.dead_letters += 1;
        }
    }
    for document in &contents.documents {
        if document.tenant != name {
            audit.problem(Invariant::TenantRight, || {
                format!("document {} of {name} says it is {}'s", document.event_id, document.tenant)
            });
        }
        match rows.get(&document.event_id) {
            Some(Some((at, position))) => copies[*at][*position as usize].documents += 1,
            Some(None) => {}
            None => audit
                .problem(Invariant::NothingForeign, || format!("document {} of {name} has no row", document.event_id)),
        }
    }
}

/// The line that a row or dead letter holds.
fn recognise(
    audit: &mut Audit,
    promises: &[Promise],
    known: &HashMap<&[u8], Place>,
    tenant: usize,
    name: &str,
    contents: &Contents,
    held: &Held,
) -> Option<Place> {
    let raw = match &held.raw {
        Ok(raw) => raw,
        Err(error) => {
            audit.problem(Invariant::AcceptedOnce, || {
                format!("event {} of {name} has no raw line: {error}", held.event_id)
            });
            return None;
        }
    };
    let Some(&(at, position)) = known.get(raw.as_slice()) else {
        let altered = promises
            .iter()
            .any(|promise| matches!(promise.fate, Fate::Accepted { batch_id } if Some(batch_id) == held.batch_id));
        let invariant = if altered { Invariant::BytesEqual } else { Invariant::NothingForeign };
        audit.problem(invariant, || {
            let shown = String::from_utf8_lossy(&raw[..raw.len().min(80)]).into_owned();
            format!("event {} of {name} holds bytes that were never sent: {shown}", held.event_id)
        });
        return None;
    };
    let promise = &promises[at];
    if promise.tenant != tenant {
        audit.problem(Invariant::TenantRight, || {
            format!("{name} holds event {position} of request {}", promise.request)
        });
    }
    if let Some(batch) = held.batch_id {
        if matches!(promise.fate, Fate::Accepted { batch_id } if batch_id != batch) {
            audit.problem(Invariant::AcceptedOnce, || format!("request {} stands in batch {batch}", promise.request));
        }
        let accepted_at = contents.batches.get(&batch).copied().unwrap_or_default();
        if event_id(batch, accepted_at, position) != held.event_id {
            audit.problem(Invariant::AcceptedOnce, || {
                format!("event {position} of request {} has the id {}", promise.request, held.event_id)
            });
        }
    }
    Some((at, position))
}

fn check_bill(audit: &mut Audit, contents: &Contents) {
    let mut events: BTreeMap<Uuid, u64> = contents.batches.keys().map(|batch| (*batch, 0)).collect();
    for row in &contents.rows {
        *events.entry(row.batch_id.unwrap_or_default()).or_default() += 1;
    }
    for (batch, billed) in &contents.billed {
        match events.remove(batch) {
            Some(stored) if stored == *billed => {}
            stored => audit
                .problem(Invariant::BilledOnce, || format!("batch {batch} is billed {billed} of {stored:?} events")),
        }
    }
    for (batch, stored) in events {
        audit.problem(Invariant::BilledOnce, || format!("batch {batch} with {stored} events is not billed"));
    }
}

fn check_archive(audit: &mut Audit, contents: &Contents) {
    for (batch, objects) in contents.archived.iter().filter(|(_, objects)| **objects > 1) {
        audit.doubled += 1;
        audit.problem(Invariant::AcceptedOnce, || format!("batch {batch} stands in {objects} objects"));
    }
    for key in &contents.orphans {
        audit.problem(Invariant::AcceptedOnce, || format!("no row knows the object {key}"));
    }
}

fn judge(audit: &mut Audit, promise: &Promise, copies: &[Copies]) {
    let request = promise.request;
    let kept = |copies: &Copies| copies.rows + copies.dead_letters;
    for (position, copies) in copies.iter().enumerate() {
        if kept(copies) > 1 || copies.documents > 1 {
            audit.doubled += 1;
            audit.problem(Invariant::AcceptedOnce, || format!("event {position} of request {request}: {copies:?}"));
        } else if copies.documents != copies.rows {
            audit.lost += 1;
            audit.problem(Invariant::AcceptedOnce, || format!("event {position} of request {request}: {copies:?}"));
        }
    }
    match promise.fate {
        Fate::Accepted { .. } => {
            audit.accepted += promise.lines.len() as u64;
            for (position, (copies, (_, broken))) in copies.iter().zip(&promise.lines).enumerate() {
                if kept(copies) == 0 {
                    audit.lost += 1;
                    audit.problem(Invariant::AcceptedOnce, || format!("event {position} of request {request} is lost"));
                } else if *broken && copies.rows > 0 {
                    audit.problem(Invariant::NothingForeign, || {
                        format!("broken line {position} of request {request} became an event")
                    });
                }
            }
        }
        Fate::Unknown => {
            audit.unknown += promise.lines.len() as u64;
            let there = copies.iter().filter(|copies| kept(copies) > 0).count();
            if there != 0 && there != copies.len() {
                audit.problem(Invariant::UnknownAtMostOnce, || {
                    format!("{there} of {} events of request {request} are kept", copies.len())
                });
            }
            if copies.iter().any(|copies| kept(copies) > 1) {
                audit.problem(Invariant::UnknownAtMostOnce, || format!("request {request} is kept twice"));
            }
        }
        Fate::Refused => {
            if copies.iter().any(|copies| kept(copies) > 0) {
                audit.problem(Invariant::NothingForeign, || format!("request {request} was refused and is kept"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
