//! What a redelivery must not do again differently.

use std::collections::HashSet;

use uuid::Uuid;

use crate::stores::batch::Frame;
use crate::stores::catalog::{Catalog, Error, Stored};
use crate::tenancy::Tenant;

/// Takes out the events that an earlier delivery made dead letters. PostgreSQL refused their rows
/// then; this delivery wrote no rows and so met no refusal, and would index them.
pub(super) async fn leave_out_dead_letters(
    catalog: &Catalog,
    tenant: &Tenant,
    frames: &mut [Frame],
    stored: &Stored,
) -> Result<(), Error> {
    let again = |id: &Uuid| stored.batches.get(id).is_some_and(|batch| !batch.new && !batch.indexed);
    let ids: Vec<Uuid> =
        frames.iter().flat_map(|frame| &frame.batches).map(|batch| batch.batch_id).filter(again).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let dead: HashSet<Uuid> = catalog.dead_letters_of(tenant, &ids).await?.into_iter().collect();
    for batch in frames.iter_mut().flat_map(|frame| &mut frame.batches) {
        batch.events.retain(|event| !dead.contains(&event.id));
    }
    Ok(())
}
