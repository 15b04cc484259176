//! Events in the order in which they were stored: what came after one of them, for a live tail that goes on.
//!
//! The catalog has no order of storing but that of its batches' times, and within a batch that of its lines. Two
//! processors may store at once; then the one that began first stands first.

use std::str::FromStr;

use sqlx::Row as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::catalog::{Catalog, CatalogError};
use crate::event::{EventIds, Micros, date_time, micros};
use crate::tenancy::Tenant;

/// Batches that one look takes at most.
const BATCHES: usize = 500;
/// How much earlier than the event that is gone on after a batch may have been accepted that was stored later: what
/// waited longer in the queue is listed, and not shown by a tail that goes on.
const WAITED: Micros = 600 * 1_000_000;

/// Where a line stands in the order of storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredAt {
    /// When its batch was.
    pub stored: Micros,
    /// When its batch was accepted.
    pub accepted: Micros,
    /// Its batch.
    pub batch_id: Uuid,
    /// Which of its batch's lines it is.
    pub position: u32,
}

/// As a gateway sends it back.
impl std::fmt::Display for StoredAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}.{}", self.stored, self.accepted, self.batch_id, self.position)
    }
}

impl FromStr for StoredAt {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(());
        let (stored, accepted, batch_id, position) = (next()?, next()?, next()?, next()?);
        let micros =
            |text: &str| text.parse::<Micros>().map(|time| time.clamp(0, 253_402_300_799_999_999)).map_err(|_| ());
        Ok(Self {
            stored: micros(stored)?,
            accepted: micros(accepted)?,
            batch_id: batch_id.parse().map_err(|_| ())?,
            position: position.parse().map_err(|_| ())?,
        })
    }
}

impl StoredAt {
    /// Before everything that was stored at this time or later, of what was accepted long before, too.
    pub fn before(stored: Micros, accepted: Micros) -> Self {
        Self { stored, accepted, batch_id: Uuid::nil(), position: 0 }
    }
}

impl Catalog {
    /// Where an event stands; `None` if the tenant has no such event.
    pub async fn stored_at(&self, tenant: &Tenant, event_id: Uuid) -> Result<Option<StoredAt>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!(
            "SELECT b.batch_id, b.accepted_at, b.stored_at, {LINES} AS lines FROM {schema}.logs l \
             JOIN {schema}.batches b USING (batch_id) WHERE l.event_id = $1"
        );
        let mut read = self.begin(tenant).await?;
        let Some(row) = sqlx::query(&sql).bind(event_id).fetch_optional(&mut *read).await? else { return Ok(None) };
        let batch = Lines::of(&row)?;
        let position = (0..batch.lines).find(|position| batch.ids().at(*position) == event_id);
        Ok(Some(batch.at(position.unwrap_or(batch.lines))))
    }

    /// The places and ids of lines after this place, in their order, of some batches as a whole, `most` lines or a few
    /// more; and whether these are all. Not every line became an event.
    pub async fn stored_after(
        &self,
        tenant: &Tenant,
        after: StoredAt,
        most: usize,
    ) -> Result<(Vec<(StoredAt, Uuid)>, bool), CatalogError> {
        let schema = tenant.name().database_schema();
        // The times of acceptance have an index, those of storing have none.
        let sql = format!(
            "SELECT batch_id, accepted_at, stored_at, {LINES} AS lines FROM {schema}.batches b \
             WHERE accepted_at >= $1 AND (stored_at, accepted_at, batch_id) >= ($2, $3, $4) \
             ORDER BY stored_at, accepted_at, batch_id LIMIT {BATCHES}"
        );
        let mut read = self.begin(tenant).await?;
        let rows = sqlx::query(&sql)
            .bind(date_time(after.accepted - WAITED))
            .bind(date_time(after.stored))
            .bind(date_time(after.accepted))
            .bind(after.batch_id)
            .fetch_all(&mut *read)
            .await?;
        let (mut found, mut is_all) = (Vec::new(), rows.len() < BATCHES);
        for (nth, row) in rows.iter().enumerate() {
            let batch = Lines::of(row)?;
            let ids = batch.ids();
            let lines = (0..batch.lines).map(|position| (batch.at(position), ids.at(position)));
            found.extend(lines.filter(|(at, _)| *at > after));
            if found.len() >= most {
                is_all &= nth + 1 == rows.len();
                break;
            }
        }
        Ok((found, is_all))
    }
}

/// How many lines a batch of the table `b` had. The oldest schemas say of no line that it was dropped.
const LINES: &str = "b.events + b.dead_letters + coalesce((to_jsonb(b) ->> 'dropped')::integer, 0)";

/// A batch and how many lines it had.
struct Lines {
    stored: Micros,
    accepted: Micros,
    batch_id: Uuid,
    lines: u32,
}

impl Lines {
    fn of(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        let time = |name: &str| row.try_get::<OffsetDateTime, _>(name).map(micros);
        let lines: i32 = row.try_get("lines")?;
        Ok(Self {
            stored: time("stored_at")?,
            accepted: time("accepted_at")?,
            batch_id: row.try_get("batch_id")?,
            lines: u32::try_from(lines).unwrap_or(0),
        })
    }

    fn ids(&self) -> EventIds {
        EventIds::new(self.batch_id, self.accepted)
    }

    fn at(&self, position: u32) -> StoredAt {
        StoredAt { stored: self.stored, accepted: self.accepted, batch_id: self.batch_id, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back() {
        let at = StoredAt { stored: 5, accepted: 3, batch_id: Uuid::from_u128(7), position: 9 };
        assert_eq!(at.to_string().parse(), Ok(at));
        for wrong in [
            "",
            "5",
            "5.3.x.9",
            "5.3.00000000-0000-0000-0000-000000000007",
            "x.3.00000000-0000-0000-0000-000000000007.1",
        ] {
            assert_eq!(wrong.parse::<StoredAt>(), Err(()), "{wrong}");
        }
        assert!(StoredAt::before(5, 3) < at && at < StoredAt { position: 10, ..at } && at < StoredAt::before(6, 0));
    }
}
