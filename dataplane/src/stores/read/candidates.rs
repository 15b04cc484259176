//! Events that a query may find, and where their raw lines are: what a scan reads, in the order of a list.

use std::collections::HashMap;
use std::sync::Arc;

use query::cursor::Cursor;
use query::to_catalog::{conditions, known, order_by};
use query::{Order, Page};
use sqlx::{Postgres, QueryBuilder, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::catalog::{Catalog, CatalogError, first_id, push};
use crate::event::{Micros, date_time, micros};
use crate::stores::raw::{Place, RawAt};
use crate::tenancy::Tenant;

/// Most candidates that one statement returns: some 4 MB, a quarter of a second.
const MOST: i64 = 65_536;
/// Spans in which batches that are not indexed are told apart; beyond so many, the last has no end.
const MOST_SPANS: usize = 256;

/// Some of a tenant's events, by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Among {
    /// From the first of each pair on, before the second.
    pub ranges: Vec<(Uuid, Uuid)>,
    /// These.
    pub ids: Vec<Uuid>,
}

impl Among {
    /// Those of these ranges, each from its first id on and before its second.
    pub fn of(mut ranges: Vec<(Uuid, Uuid)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(Uuid, Uuid)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        Self { ranges: joined, ids: Vec::new() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.ids.is_empty()
    }

    /// Whether this event is one of them.
    pub fn has(&self, id: Uuid) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..*to).contains(&id)) || self.ids.contains(&id)
    }
}

/// Which rows one step of a scan looks at, in the page's order.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The filters, and the query.
    pub page: &'a Page,
    /// Only these.
    pub among: Option<&'a Among>,
    /// Behind this place.
    pub after: Option<Cursor>,
    /// As far as this place, which is included.
    pub floor: Option<Cursor>,
    /// So many rows at most, whatever they are.
    pub rows: i64,
}

/// What a step found.
#[derive(Debug)]
pub struct Candidates {
    /// The events, in the page's order.
    pub events: Vec<Candidate>,
    /// The batches that they are of.
    pub batches: Arc<Vec<BatchAt>>,
    /// Up to where all candidates are here; `None`: to the end.
    pub reached: Option<Cursor>,
}

/// An event that the query finds, or may find.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its place in the list.
    pub place: Cursor,
    /// Its batch, among those of the step.
    pub batch: usize,
    /// Its first raw byte, from its batch's first.
    pub offset: i32,
    /// Its raw bytes.
    pub length: i32,
    /// Whether its row is enough to know that the query finds it.
    pub found: bool,
}

/// Where a batch's raw lines are.
#[derive(Debug, Clone, Copy)]
pub struct BatchAt {
    /// The batch.
    pub batch_id: Uuid,
    /// When it was accepted.
    pub accepted_at: Micros,
    /// The spool frame or the object.
    pub place: Option<Place>,
    /// Its first raw byte there.
    pub start: i64,
}

impl Candidate {
    /// Where its raw line is.
    pub fn at(&self, batch: &BatchAt) -> RawAt {
        RawAt { place: batch.place, start: batch.start + i64::from(self.offset), length: i64::from(self.length) }
    }
}

/// Rows as arrays, one for each column: a fraction of what rows cost.
#[derive(sqlx::FromRow, Default)]
struct Columns {
    ids: Option<Vec<Uuid>>,
    times: Option<Vec<OffsetDateTime>>,
    batches: Option<Vec<Uuid>>,
    offsets: Option<Vec<i32>>,
    lengths: Option<Vec<i32>>,
    found: Option<Vec<bool>>,
}

#[derive(sqlx::FromRow)]
struct BatchRow {
    batch_id: Uuid,
    accepted_at: OffsetDateTime,
    spool_id: Option<i64>,
    object_id: Option<i64>,
    raw_start: i64,
}

impl Catalog {
    /// Events that the query finds or may find, as far as their rows tell. Work and answer are bounded, however rare they
    /// are: the first rows of the step are walked over, and then only these are looked at.
    pub async fn candidates(&self, tenant: &Tenant, step: &Step<'_>) -> Result<Candidates, CatalogError> {
        let mut read = self.begin(tenant).await?;
        let end = if step.may_skip_rows() { walk(&mut read, tenant, step).await? } else { None };
        let step = Step { floor: end.or(step.floor), ..*step };
        let most = if step.may_skip_rows() { MOST } else { step.rows.min(MOST) };
        let columns = select(&mut read, tenant, &step, most).await?;
        let ids = columns.ids.unwrap_or_default();
        let full = ids.len() as i64 == most;
        let (times, of) = (columns.times.unwrap_or_default(), columns.batches.unwrap_or_default());
        let (offsets, lengths) = (columns.offsets.unwrap_or_default(), columns.lengths.unwrap_or_default());
        let found = columns.found.unwrap_or_default();

        let mut distinct = of.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let batches = batches_at(&mut read, tenant, &distinct).await?;
        let numbers: HashMap<Uuid, usize> = batches.iter().enumerate().map(|(n, batch)| (batch.batch_id, n)).collect();
        let mut events = Vec::with_capacity(ids.len());
        let mut last = None;
        let rows = ids.into_iter().zip(times).zip(of).zip(offsets).zip(lengths).zip(found);
        for (((((event_id, time), batch), offset), length), found) in rows {
            let place = Cursor { time: micros(time), event_id };
            last = Some(place);
            // One without a batch has expired.
            if let Some(batch) = numbers.get(&batch) {
                events.push(Candidate { place, batch: *batch, offset, length, found });
            }
        }
        let reached = if full { last } else { end };
        Ok(Candidates { events, batches: Arc::new(batches), reached })
    }

    /// Where these batches are now.
    pub async fn batches_at(&self, tenant: &Tenant, ids: &[Uuid]) -> Result<HashMap<Uuid, BatchAt>, CatalogError> {
        let mut read = self.begin(tenant).await?;
        let batches = batches_at(&mut read, tenant, ids).await?;
        Ok(batches.into_iter().map(|batch| (batch.batch_id, batch)).collect())
    }

    /// Events of batches that the index does not have yet, by their ids, with others that were accepted at the same time.
    pub async fn unindexed(&self, tenant: &Tenant) -> Result<Vec<(Uuid, Uuid)>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!(
            "SELECT min(accepted_at), max(accepted_at) FROM {schema}.batches WHERE indexed_at IS NULL \
             GROUP BY date_bin('10 seconds', accepted_at, 'epoch'::timestamptz) ORDER BY 1 LIMIT {}",
            MOST_SPANS + 1
        );
        let mut read = self.begin(tenant).await?;
        let spans: Vec<(OffsetDateTime, OffsetDateTime)> = sqlx::query_as(&sql).fetch_all(&mut *read).await?;
        let mut ranges: Vec<_> = spans.into_iter().map(|(from, to)| accepted_in(micros(from), micros(to))).collect();
        if ranges.len() > MOST_SPANS {
            ranges.truncate(MOST_SPANS);
            ranges.last_mut().into_iter().for_each(|last| last.1 = Uuid::max());
        }
        Ok(ranges)
    }
}

/// The ids of events that were accepted between these two moments, and at them.
fn accepted_in(from: Micros, to: Micros) -> (Uuid, Uuid) {
    (first_id(from), first_id(to.saturating_add(1000)))
}

impl Step<'_> {
    /// Whether rows may be walked over that are no candidates: there may be many of them between two that are.
    fn may_skip_rows(&self) -> bool {
        let filters = &self.page.filters;
        let chooses = !filters.services.is_empty() || !filters.levels.is_empty();
        chooses || self.page.query.as_ref().is_some_and(query::Query::asks_for_the_row)
    }

    /// The rows of the step, whatever the filters and the query say.
    fn push_rows(&self, sql: &mut QueryBuilder<Postgres>) {
        let (beyond, within) = match self.page.order {
            Order::Newest => ("<", ">="),
            Order::Oldest => (">", "<="),
        };
        if let Some(after) = self.after {
            sql.push(format_args!(" AND (event_time, event_id) {beyond} (")).push_bind(date_time(after.time));
            sql.push(", ").push_bind(after.event_id).push(")");
        }
        if let Some(floor) = self.floor {
            sql.push(format_args!(" AND (event_time, event_id) {within} (")).push_bind(date_time(floor.time));
            sql.push(", ").push_bind(floor.event_id).push(")");
        }
        if let Some(among) = self.among {
            sql.push(" AND (false");
            for (from, to) in &among.ranges {
                sql.push(" OR (event_id >= ").push_bind(*from).push(" AND event_id < ").push_bind(*to).push(")");
            }
            if !among.ids.is_empty() {
                sql.push(" OR event_id = ANY(").push_bind(among.ids.clone()).push(")");
            }
            sql.push(")");
        }
    }
}

/// The last of the rows that a step walks over; `None` if they are fewer.
async fn walk(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    step: &Step<'_>,
) -> Result<Option<Cursor>, CatalogError> {
    let schema = tenant.name().database_schema();
    let mut sql = QueryBuilder::new(format!("SELECT event_time, event_id FROM {schema}.logs WHERE true"));
    step.push_rows(&mut sql);
    let times = Page {
        filters: query::Filters { services: Vec::new(), levels: Vec::new(), ..step.page.filters.clone() },
        ..Page::default()
    };
    conditions(&times).into_iter().for_each(|part| push(&mut sql, part));
    sql.push(order_by(step.page.order)).push(" OFFSET ").push_bind(step.rows - 1).push(" LIMIT 1");
    let last: Option<(OffsetDateTime, Uuid)> = sql.build_query_as().fetch_optional(&mut **read).await?;
    Ok(last.map(|(time, event_id)| Cursor { time: micros(time), event_id }))
}

async fn select(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    step: &Step<'_>,
    most: i64,
) -> Result<Columns, CatalogError> {
    let schema = tenant.name().database_schema();
    let mut sql = QueryBuilder::new(
        "SELECT array_agg(event_id) AS ids, array_agg(event_time) AS times, array_agg(batch_id) AS batches, \
                array_agg(raw_offset) AS offsets, array_agg(raw_length) AS lengths, \
                array_agg(coalesce(known, false)) AS found \
         FROM (SELECT * FROM (SELECT event_id, event_time, batch_id, raw_offset, raw_length, ",
    );
    match &step.page.query {
        Some(query) => known(query).into_iter().for_each(|part| push(&mut sql, part)),
        None => drop(sql.push("true")),
    }
    sql.push(format_args!(" AS known FROM {schema}.logs WHERE true"));
    step.push_rows(&mut sql);
    let filters = Page { filters: step.page.filters.clone(), ..Page::default() };
    conditions(&filters).into_iter().for_each(|part| push(&mut sql, part));
    sql.push(") AS looked_at WHERE known IS NOT FALSE")
        .push(order_by(step.page.order))
        .push(" LIMIT ")
        .push_bind(most)
        .push(") AS candidate");
    Ok(sql.build_query_as().fetch_one(&mut **read).await?)
}

async fn batches_at(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    ids: &[Uuid],
) -> Result<Vec<BatchAt>, CatalogError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let schema = tenant.name().database_schema();
    let sql = format!(
        "SELECT batch_id, accepted_at, spool_id, object_id, raw_start FROM {schema}.batches WHERE batch_id = ANY($1)"
    );
    let rows: Vec<BatchRow> = sqlx::query_as(&sql).bind(ids).fetch_all(&mut **read).await?;
    let batch = |row: BatchRow| BatchAt {
        batch_id: row.batch_id,
        accepted_at: micros(row.accepted_at),
        place: row.spool_id.map(Place::Spool).or(row.object_id.map(Place::Object)),
        start: row.raw_start,
    };
    Ok(rows.into_iter().map(batch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ids_do_not_overlap() {
        let id = |millis: u128| Uuid::from_u128(millis << 80);
        for (ranges, expected) in [
            (vec![], vec![]),
            (vec![(9, 10), (5, 7)], vec![(5, 7), (9, 10)]),
            (vec![(5, 9), (6, 10)], vec![(5, 10)]),
            (vec![(5, 10), (6, 7)], vec![(5, 10)]),
            (vec![(5, 6), (6, 8)], vec![(5, 8)]),
        ] {
            let of = |ranges: &[(u128, u128)]| ranges.iter().map(|(from, to)| (id(*from), id(*to))).collect::<Vec<_>>();
            assert_eq!(Among::of(of(&ranges)).ranges, of(&expected), "{ranges:?}");
        }
        assert_eq!(accepted_in(5_000, 5_000), (id(5), id(6)));
        assert_eq!(accepted_in(5_999, 7_999), (id(5), id(8)));
        let among = Among { ids: vec![id(1)], ..Among::of(vec![accepted_in(5_000, 5_000)]) };
        let within = Uuid::from_u128((5 << 80) + 9);
        for (event, is_among) in [(id(1), true), (id(2), false), (id(5), true), (within, true), (id(6), false)] {
            assert_eq!(among.has(event), is_among, "{event}");
        }
        assert!(Among::default().is_empty() && !among.is_empty());
    }
}
