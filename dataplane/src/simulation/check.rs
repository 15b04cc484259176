//! What must be true after each step, and at the end.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::stores::{Catalog, Derived, Queue, Raw, ids};

/// Each answered batch is in the queue or in the catalog, and its raw lines are somewhere.
pub(super) fn promise(accepted: &[Uuid], queue: &Queue, catalog: &Catalog, derived: &Derived) -> Result<(), String> {
    for batch in accepted {
        match catalog.batches.get(batch) {
            Some(row) => raw_is_there(*batch, &row.raw, catalog, derived)?,
            None if queue.holds(*batch) => {}
            None => return Err(format!("batch {batch} was answered and is nowhere")),
        }
    }
    Ok(())
}

fn raw_is_there(batch: Uuid, raw: &Raw, catalog: &Catalog, derived: &Derived) -> Result<(), String> {
    let holder = match raw {
        Raw::Spool(id) => catalog.spool.get(id).map(|spooled| &spooled.batches),
        Raw::Object(key) => derived.objects.get(key),
    };
    if holder.is_some_and(|batches| batches.contains(&batch)) {
        return Ok(());
    }
    Err(format!("the raw lines of batch {batch} are not at {raw:?}"))
}

/// When all is quiet: every stored batch is in each store once, and nothing else is.
pub(super) fn end(accepted: &[Uuid], queue: &Queue, catalog: &Catalog, derived: &Derived) -> Result<(), String> {
    promise(accepted, queue, catalog, derived)?;
    if !queue.is_empty() {
        return Err("the queue is not empty".to_owned());
    }
    let mut billed: BTreeMap<Uuid, u32> = BTreeMap::new();
    for batch in &catalog.ledger {
        *billed.entry(*batch).or_default() += 1;
    }
    let mut events = 0;
    for (batch, row) in &catalog.batches {
        raw_is_there(*batch, &row.raw, catalog, derived)?;
        if !row.indexed || matches!(row.raw, Raw::Spool(_)) {
            return Err(format!("batch {batch} was left behind: {row:?}"));
        }
        if billed.remove(batch) != Some(1) {
            return Err(format!("batch {batch} is not billed once"));
        }
        for id in ids(*batch, row.accepted_at, row.events) {
            if catalog.rows.get(&id) != Some(&1) {
                return Err(format!("event {id} of batch {batch} has not one row"));
            }
            if !derived.documents.contains(&(row.index, id)) {
                return Err(format!("event {id} of batch {batch} is not in its index"));
            }
            events += 1;
        }
    }
    let archived: usize = derived.objects.values().map(Vec::len).sum();
    for (what, found, wanted) in [
        ("rows", catalog.rows.len(), events),
        ("documents", derived.documents.len(), events),
        ("archived batches", archived, catalog.batches.len()),
        ("billed batches without a row", billed.len(), 0),
        ("spool rows", catalog.spool.len(), 0),
    ] {
        if found != wanted {
            return Err(format!("{found} {what}, not {wanted}"));
        }
    }
    Ok(())
}
