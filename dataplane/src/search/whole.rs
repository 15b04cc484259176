//! Events with everything that their raw lines say, many at once.

use std::collections::HashMap;

use uuid::Uuid;

use super::Error;
use super::reader::Reader;
use crate::stores::raw::{self, Line, Place, RawAt, RawError};
use crate::stores::read::Row;
use crate::tenancy::Tenant;

/// An event as its row has it, and as its raw line does.
#[derive(Debug)]
pub struct WholeEvent {
    /// Its row.
    pub row: Row,
    /// What its line says; `None` where the raw bytes are gone.
    pub event: Option<stages::Event>,
}

impl Reader {
    /// These events whole, in their order. They are all in memory at once, with their lines: for more than a page, ask
    /// for some at a time, by [`portions`](raw::portions) of [`RawAt::length`].
    pub async fn whole(&self, tenant: &Tenant, mut rows: Vec<Row>) -> Result<Vec<WholeEvent>, Error> {
        let at: Vec<RawAt> = rows.iter().map(|row| row.raw).collect();
        let mut lines = raw::many(&self.catalog, &self.archive, tenant, &at).await?;
        self.read_moved(tenant, &mut rows, &mut lines).await?;
        let read = move || rows.into_iter().zip(lines).map(|(row, line)| of_line(row, line)).collect();
        Ok(tokio::task::spawn_blocking(read).await.map_err(|_| RawError::Broken)?)
    }

    /// Reads what was archived between our reading its row and its frame: its row says now where it went.
    async fn read_moved(&self, tenant: &Tenant, rows: &mut [Row], lines: &mut [Option<Line>]) -> Result<(), Error> {
        let was_spooled = |row: &Row| matches!(row.raw.place, Some(Place::Spool(_)));
        let moved = rows.iter().zip(&*lines).filter(|(row, line)| line.is_none() && was_spooled(row));
        let ids: Vec<Uuid> = moved.map(|(row, _)| row.item.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let found = self.catalog.rows(tenant, &ids, query::Order::Newest).await?;
        let at: Vec<RawAt> = found.iter().map(|row| row.raw).collect();
        let read = raw::many(&self.catalog, &self.archive, tenant, &at).await?;
        let mut found: HashMap<Uuid, _> =
            found.into_iter().map(|row| row.item.id).zip(at.into_iter().zip(read)).collect();
        for (row, line) in rows.iter_mut().zip(lines) {
            if let Some((at, read)) = found.remove(&row.item.id) {
                (row.raw, *line) = (at, read);
            }
        }
        Ok(())
    }
}

/// A stored line is read as it was when it was stored. It went through its pipeline's stages before that.
fn of_line(row: Row, line: Option<Line>) -> WholeEvent {
    let event = line.and_then(|line| match stages::event(&line.bytes, row.accepted_at) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!("the raw line of event {} is no event: {error}", row.item.id);
            None
        }
    });
    WholeEvent { row, event }
}
