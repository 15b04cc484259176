//! Dead letters in the catalog: read, marked to be tried again, purged.

use api::letter::DeadLetter;
use query::cursor::Cursor;
use query::params::letters::{Chosen, LetterFilters, LetterPage};
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::catalog::{Catalog, CatalogError, shown_time};
use crate::event::{date_time, micros};
use crate::stores::raw::{Place, RawAt};
use crate::tenancy::Tenant;

/// Letters that one request marks or purges: a fraction of a second.
const AT_ONCE: i64 = 10_000;

/// Newest first, the one order of every list.
const ORDER: &str = " ORDER BY created_at DESC, event_id DESC";

/// A dead letter's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// What a list shows.
    pub shown: DeadLetter,
    /// Its place in the list.
    pub place: Cursor,
    /// Where its original bytes are, if it came in a batch.
    pub raw: RawAt,
    /// The original bytes of one that did not.
    pub inline: Option<Vec<u8>>,
}

impl Catalog {
    /// A page, and one letter more if there is one.
    pub async fn letters(&self, tenant: &Tenant, page: &LetterPage) -> Result<Vec<Letter>, CatalogError> {
        self.select_letters(tenant, false, |sql| {
            if let Some(after) = page.after {
                sql.push(" AND (created_at, event_id) < (").push_bind(date_time(after.time));
                sql.push(", ").push_bind(after.event_id).push(")");
            }
            push_filters(sql, &page.filters);
            sql.push(ORDER).push(" LIMIT ").push_bind(i64::from(page.limit) + 1);
        })
        .await
    }

    /// One letter.
    pub async fn letter(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Letter>, CatalogError> {
        let found = self.select_letters(tenant, true, |sql| {
            sql.push(" AND event_id = ").push_bind(id);
        });
        Ok(found.await?.pop())
    }

    /// Marks letters to be tried again: how many, and whether there may be more. What could not be
    /// read at all has no line to try.
    pub async fn mark_letters(&self, tenant: &Tenant, chosen: &Chosen) -> Result<(u64, bool), CatalogError> {
        self.change_letters(tenant, "SET redrive_at = now()", "redrive_at IS NULL AND batch_id IS NOT NULL", chosen)
            .await
    }

    /// Purges letters: how many, and whether there may be more.
    pub async fn purge_letters(&self, tenant: &Tenant, chosen: &Chosen) -> Result<(u64, bool), CatalogError> {
        self.change_letters(tenant, "SET purged_at = now(), redrive_at = NULL, raw = NULL", "true", chosen).await
    }

    async fn change_letters(
        &self,
        tenant: &Tenant,
        change: &'static str,
        only: &'static str,
        chosen: &Chosen,
    ) -> Result<(u64, bool), CatalogError> {
        let table = format!("{}.dead_letters", tenant.name().database_schema());
        let mut sql = QueryBuilder::new(format!(
            "UPDATE {table} {change} WHERE event_id IN (SELECT event_id FROM {table} WHERE purged_at IS NULL AND {only}"
        ));
        match chosen {
            Chosen::Ids(ids) => {
                sql.push(" AND event_id = ANY(").push_bind(ids.clone()).push(")");
            }
            Chosen::Matching(filters) => push_filters(&mut sql, filters),
        }
        // Rows that maintain is working on are its own: it waits for us, or we for it, in one order.
        sql.push(" ORDER BY event_id LIMIT ").push_bind(AT_ONCE).push(" FOR UPDATE)");
        let mut write = self.begin_write(tenant).await?;
        let changed = sql.build().execute(&mut *write).await?.rows_affected();
        write.commit().await?;
        Ok((changed, changed >= AT_ONCE.unsigned_abs()))
    }

    async fn select_letters(
        &self,
        tenant: &Tenant,
        with_inline: bool,
        conditions: impl FnOnce(&mut QueryBuilder<Postgres>),
    ) -> Result<Vec<Letter>, CatalogError> {
        let schema = tenant.name().database_schema();
        let inline = if with_inline { "d.raw" } else { "NULL::bytea AS raw" };
        let mut sql = QueryBuilder::new(format!(
            "SELECT d.event_id, d.batch_id, d.raw_offset, d.raw_length, octet_length(d.raw) AS inline_bytes, {inline}, \
             d.code, d.error, d.pipeline, d.pipeline_generation, d.created_at, d.attempts, d.retried_at, d.redrive_at, \
             b.accepted_at, b.spool_id, b.object_id, b.raw_start, o.key \
             FROM (SELECT * FROM {schema}.dead_letters WHERE purged_at IS NULL"
        ));
        conditions(&mut sql);
        sql.push(format_args!(
            ") d LEFT JOIN {schema}.batches b USING (batch_id) LEFT JOIN {schema}.objects o USING (object_id){ORDER}"
        ));
        let mut read = self.begin(tenant).await?;
        let rows = sql.build().fetch_all(&mut *read).await?;
        Ok(rows.iter().map(|row| letter_of(tenant, row)).collect::<Result<_, _>>()?)
    }
}

fn push_filters(sql: &mut QueryBuilder<Postgres>, filters: &LetterFilters) {
    if !filters.codes.is_empty() {
        sql.push(" AND code = ANY(").push_bind(filters.codes.clone()).push(")");
    }
    if !filters.pipelines.is_empty() {
        sql.push(" AND pipeline = ANY(").push_bind(filters.pipelines.clone()).push(")");
    }
    if let Some(batch) = filters.batch {
        sql.push(" AND batch_id = ").push_bind(batch);
    }
    if let Some(from) = filters.from {
        sql.push(" AND created_at >= ").push_bind(date_time(from));
    }
    if let Some(to) = filters.to {
        sql.push(" AND created_at < ").push_bind(date_time(to));
    }
}

fn letter_of(tenant: &Tenant, row: &PgRow) -> Result<Letter, sqlx::Error> {
    let time = |name| Ok::<_, sqlx::Error>(row.try_get::<Option<OffsetDateTime>, _>(name)?.map(shown_time));
    let id: Uuid = row.try_get("event_id")?;
    let created_at: OffsetDateTime = row.try_get("created_at")?;
    let batch_id: Option<Uuid> = row.try_get("batch_id")?;
    let spool_id: Option<i64> = row.try_get("spool_id")?;
    let object_id: Option<i64> = row.try_get("object_id")?;
    let raw_start: Option<i64> = row.try_get("raw_start")?;
    let raw_offset: Option<i32> = row.try_get("raw_offset")?;
    let raw_length: Option<i32> = row.try_get("raw_length")?;
    let inline_bytes: Option<i32> = row.try_get("inline_bytes")?;
    let raw = RawAt {
        place: spool_id.map(Place::Spool).or(object_id.map(Place::Object)),
        start: raw_start.unwrap_or_default() + i64::from(raw_offset.unwrap_or_default()),
        length: i64::from(raw_length.unwrap_or_default()),
    };
    let key: Option<String> = row.try_get("key")?;
    let shown = DeadLetter {
        id,
        batch_id,
        code: row.try_get("code")?,
        reason: row.try_get("error")?,
        pipeline: row.try_get("pipeline")?,
        pipeline_generation: row.try_get("pipeline_generation")?,
        accepted_at: time("accepted_at")?,
        created_at: shown_time(created_at),
        attempts: i64::from(row.try_get::<i32, _>("attempts")?),
        retried_at: time("retried_at")?,
        redrive_requested_at: time("redrive_at")?,
        redrivable: batch_id.is_some(),
        raw_bytes: raw_length.or(inline_bytes).map_or(0, i64::from),
        raw_path: raw.path(&tenant.registered().archive.bucket, key.as_deref()),
    };
    let place = Cursor { time: micros(created_at), event_id: id };
    Ok(Letter { shown, place, raw, inline: row.try_get("raw")? })
}
