//! Reads from the catalog, always as the tenant's reader and in the tenant's schema.

use api::batch::{Batch, BatchState};
use api::event::{Item, Source};
use query::cursor::Cursor;
use query::to_catalog::{Part, conditions, order_by};
use query::{Order, Page};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, QueryBuilder, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::event::{Micros, date_time, flag_names, micros, rfc3339};
use crate::stores::archive::Frames;
use crate::stores::catalog::UNDEFINED_COLUMN;
use crate::stores::raw::{Place, RawAt};
use crate::tenancy::Tenant;

/// Longest statement, in milliseconds: the time that a client waits for a page, and a bound on what
/// one client's rare word costs the others.
const STATEMENT_TIMEOUT_MS: u32 = 3000;

/// Seconds that a batch may take from the catalog to the index before a search says that it is
/// missing; normally it takes one.
const INDEXING_GRACE_SECONDS: i32 = 5;

/// Resends that are told of with a batch: a client that has more has a defect to mend first.
const MAX_RESENDS: u32 = 20;

/// The catalog, to read from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    pool: PgPool,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The query took too long.
    #[error("the query took longer than {STATEMENT_TIMEOUT_MS} ms")]
    TooSlow,
    /// The tenant's schema is of the version before.
    #[error("the tenant's schema is being brought to this version")]
    OlderSchema,
    /// PostgreSQL doesn't answer, or not as it should.
    #[error("read the catalog")]
    Postgres(#[source] sqlx::Error),
}

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        const QUERY_CANCELED: &str = "57014";
        // Of `SET ROLE`: there is no such role yet.
        const INVALID_PARAMETER_VALUE: &str = "22023";
        match error.as_database_error().and_then(|error| error.code()).as_deref() {
            Some(QUERY_CANCELED) => Self::TooSlow,
            Some(UNDEFINED_COLUMN | INVALID_PARAMETER_VALUE) => Self::OlderSchema,
            _ => Self::Postgres(error),
        }
    }
}

/// One event's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What a list shows.
    pub item: Item,
    /// Its place in the list.
    pub place: Cursor,
    /// When it was accepted.
    pub accepted_at: Micros,
    /// Where its raw bytes are.
    pub raw: RawAt,
}

/// An event that the index was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its id.
    pub id: Uuid,
    /// When it was accepted.
    pub accepted_at: Micros,
}

/// Rows of events that a search found, and whether the search could find them all.
pub struct Found {
    /// The rows that are still there.
    pub rows: Vec<Row>,
    /// Whether a batch has waited for the index longer than usual.
    pub index_is_behind: bool,
}

/// One batch's row.
#[derive(Debug)]
pub struct StoredBatch {
    /// When it was accepted: what tells it from others under the same `Idempotency-Key`.
    pub accepted_at: Micros,
    /// What a client sees of it.
    pub shown: Batch,
}

impl Catalog {
    /// Over a pool on the processor database, logged in as search's role.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// A page, and one event more if there is one.
    pub async fn page(&self, tenant: &Tenant, page: &Page) -> Result<Vec<Row>, CatalogError> {
        let mut read = self.begin(tenant).await?;
        rows(&mut read, tenant, page.order, |logs| {
            conditions(page).into_iter().for_each(|part| push(logs, part));
            logs.push(order_by(page.order)).push(" LIMIT ").push_bind(i64::from(page.limit) + 1);
        })
        .await
    }

    /// How many events a page's filters choose, however many the page shows; `most` at most.
    pub async fn count(&self, tenant: &Tenant, page: &Page, most: u64) -> Result<u64, CatalogError> {
        let schema = tenant.name().database_schema();
        let mut sql = QueryBuilder::new(format!("SELECT count(*) FROM (SELECT FROM {schema}.logs WHERE true"));
        conditions(page).into_iter().for_each(|part| push(&mut sql, part));
        sql.push(" LIMIT ").push_bind(i64::try_from(most).unwrap_or(i64::MAX)).push(") AS counted");
        let mut read = self.begin(tenant).await?;
        let count: i64 = sql.build_query_scalar().fetch_one(&mut *read).await?;
        Ok(count.unsigned_abs())
    }

    /// The rows of these events in an order, and whether the index has everything.
    pub async fn found(&self, tenant: &Tenant, ids: &[Uuid], order: Order) -> Result<Found, CatalogError> {
        let schema = tenant.name().database_schema();
        let behind = format!(
            "SELECT EXISTS (SELECT FROM {schema}.batches \
             WHERE indexed_at IS NULL AND stored_at < now() - make_interval(secs => {INDEXING_GRACE_SECONDS}))"
        );
        let mut read = self.begin(tenant).await?;
        let index_is_behind = sqlx::query_scalar(&behind).fetch_one(&mut *read).await?;
        Ok(Found { rows: by_ids(&mut read, tenant, ids, order).await?, index_is_behind })
    }

    /// Of each of these moments the first event accepted since, oldest first, if the index was given it long enough ago
    /// to show it.
    pub async fn probes(&self, tenant: &Tenant, moments: &[Micros]) -> Result<Vec<Probe>, CatalogError> {
        let schema = tenant.name().database_schema();
        // Partitions are cut by the event id, whose time is acceptance: each look goes to the end of one index.
        let sql = format!(
            "SELECT DISTINCT l.event_id, b.accepted_at FROM unnest($1::uuid[]) AS since (id) \
             CROSS JOIN LATERAL (SELECT event_id, batch_id FROM {schema}.logs WHERE event_id >= since.id \
                                 ORDER BY event_id LIMIT 1) l \
             JOIN {schema}.batches b USING (batch_id) \
             WHERE b.indexed_at < now() - make_interval(secs => {INDEXING_GRACE_SECONDS}) ORDER BY l.event_id"
        );
        let since: Vec<Uuid> = moments.iter().map(|moment| first_id(*moment)).collect();
        let mut read = self.begin(tenant).await?;
        let rows: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(&sql).bind(since).fetch_all(&mut *read).await?;
        Ok(rows.into_iter().map(|(id, accepted_at)| Probe { id, accepted_at: micros(accepted_at) }).collect())
    }

    /// The rows of these events that are there, in an order.
    pub async fn rows(&self, tenant: &Tenant, ids: &[Uuid], order: Order) -> Result<Vec<Row>, CatalogError> {
        let mut read = self.begin(tenant).await?;
        by_ids(&mut read, tenant, ids, order).await
    }

    /// One event's row.
    pub async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Row>, CatalogError> {
        let mut read = self.begin(tenant).await?;
        Ok(by_ids(&mut read, tenant, &[id], Order::Newest).await?.pop())
    }

    /// The batch of this id, and those that came later under its `Idempotency-Key` and are batches
    /// of their own, oldest first.
    pub async fn batches(&self, tenant: &Tenant, id: Uuid) -> Result<Vec<StoredBatch>, CatalogError> {
        match self.select_batches(tenant, id, "first_batch_id", "OR first_batch_id = $1").await {
            // Where a schema can't say that yet, the batch itself is all that is told.
            Err(CatalogError::OlderSchema) => self.select_batches(tenant, id, "NULL::uuid AS first_batch_id", "").await,
            outcome => outcome,
        }
    }

    async fn select_batches(
        &self,
        tenant: &Tenant,
        id: Uuid,
        first: &str,
        or: &str,
    ) -> Result<Vec<StoredBatch>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!(
            "SELECT batch_id, {first}, events, dead_letters, (to_jsonb(b) ->> 'dropped')::integer AS dropped, \
                    accepted_at, stored_at, indexed_at, archived_at \
             FROM {schema}.batches b WHERE batch_id = $1 {or} ORDER BY stored_at LIMIT {MAX_RESENDS} + 1"
        );
        let mut read = self.begin(tenant).await?;
        let rows = sqlx::query(&sql).bind(id).fetch_all(&mut *read).await?;
        Ok(rows.iter().map(batch_of).collect::<Result<_, _>>()?)
    }

    /// A spooled frame; `None` if it has been archived since its row was read.
    pub async fn spooled(&self, tenant: &Tenant, spool_id: i64) -> Result<Option<Vec<u8>>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!("SELECT frame FROM {schema}.spool WHERE spool_id = $1");
        let mut read = self.begin(tenant).await?;
        Ok(sqlx::query_scalar(&sql).bind(spool_id).fetch_optional(&mut *read).await?)
    }

    /// An object's key and frames; `None` if it has expired since its row was read.
    pub async fn object(&self, tenant: &Tenant, object_id: i64) -> Result<Option<(String, Frames)>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!("SELECT key, raw_starts, starts FROM {schema}.objects WHERE object_id = $1");
        let mut read = self.begin(tenant).await?;
        let object: Option<(String, Vec<i64>, Vec<i64>)> =
            sqlx::query_as(&sql).bind(object_id).fetch_optional(&mut *read).await?;
        Ok(object.map(|(key, raw_starts, starts)| (key, Frames { raw_starts, starts })))
    }

    /// A transaction that can read this tenant's schema and nothing else. It writes nothing, so it
    /// is dropped rather than committed.
    pub(super) async fn begin(&self, tenant: &Tenant) -> Result<Transaction<'static, Postgres>, CatalogError> {
        let role = tenant.name().database_reader();
        let begin =
            format!("BEGIN READ ONLY; SET LOCAL ROLE {role}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}");
        Ok(self.pool.begin_with(begin).await?)
    }

    /// A transaction that can mark this tenant's dead letters and change nothing else.
    pub(super) async fn begin_write(&self, tenant: &Tenant) -> Result<Transaction<'static, Postgres>, CatalogError> {
        let role = tenant.name().database_reader();
        let begin = format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}");
        Ok(self.pool.begin_with(begin).await?)
    }
}

/// The smallest id of an event that was accepted at this time.
pub(super) fn first_id(moment: Micros) -> Uuid {
    let millis = u64::try_from(moment.max(0) / 1000).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// Adds a piece of a statement; every value is bound.
pub(super) fn push(sql: &mut QueryBuilder<Postgres>, part: Part) {
    match part {
        Part::Sql(text) => sql.push(text),
        Part::Text(text) => sql.push_bind(text),
        Part::Texts(texts) => sql.push_bind(texts),
        Part::Time(time) => sql.push_bind(date_time(time)),
        Part::Id(id) => sql.push_bind(id),
    };
}

async fn by_ids(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    ids: &[Uuid],
    order: Order,
) -> Result<Vec<Row>, CatalogError> {
    rows(read, tenant, order, |logs| {
        logs.push(" AND event_id = ANY(").push_bind(ids.to_vec()).push(")");
    })
    .await
}

/// The rows that `conditions` choose, in an order. The inner selection is cut to the page before
/// batches and objects are looked up.
async fn rows(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    order: Order,
    conditions: impl FnOnce(&mut QueryBuilder<Postgres>),
) -> Result<Vec<Row>, CatalogError> {
    let schema = tenant.name().database_schema();
    let mut sql = QueryBuilder::new(format!(
        "SELECT l.*, b.accepted_at, b.indexed_at IS NOT NULL AS indexed, b.spool_id, b.object_id, b.raw_start, o.key \
         FROM (SELECT * FROM {schema}.logs WHERE true"
    ));
    conditions(&mut sql);
    sql.push(format_args!(
        ") l JOIN {schema}.batches b USING (batch_id) LEFT JOIN {schema}.objects o USING (object_id){}",
        order_by(order)
    ));
    let rows = sql.build().fetch_all(&mut **read).await?;
    Ok(rows.iter().map(|row| row_of(tenant, row)).collect::<Result<_, _>>()?)
}

fn row_of(tenant: &Tenant, row: &PgRow) -> Result<Row, sqlx::Error> {
    let id: Uuid = row.try_get("event_id")?;
    let time: OffsetDateTime = row.try_get("event_time")?;
    let flags: i16 = row.try_get("flags")?;
    let spool_id: Option<i64> = row.try_get("spool_id")?;
    let object_id: Option<i64> = row.try_get("object_id")?;
    let raw = RawAt {
        place: spool_id.map(Place::Spool).or(object_id.map(Place::Object)),
        start: row.try_get::<i64, _>("raw_start")? + i64::from(row.try_get::<i32, _>("raw_offset")?),
        length: i64::from(row.try_get::<i32, _>("raw_length")?),
    };
    let key: Option<String> = row.try_get("key")?;
    let accepted_at: OffsetDateTime = row.try_get("accepted_at")?;
    let item = Item {
        id,
        timestamp: shown_time(time),
        accepted_at: shown_time(accepted_at),
        tenant: tenant.name().to_string(),
        service: row.try_get("service")?,
        application: row.try_get("application")?,
        level: row.try_get("level")?,
        message: row.try_get("message")?,
        language: row.try_get("language")?,
        batch_id: row.try_get("batch_id")?,
        raw_path: raw.path(&tenant.registered().archive.bucket, key.as_deref()),
        indexed: row.try_get("indexed")?,
        flags: flag_names(flags).into_iter().map(str::to_owned).collect(),
    };
    Ok(Row { item, place: Cursor { time: micros(time), event_id: id }, accepted_at: micros(accepted_at), raw })
}

pub(super) fn shown_time(time: OffsetDateTime) -> String {
    rfc3339(micros(time))
}

fn batch_of(row: &PgRow) -> Result<StoredBatch, sqlx::Error> {
    let accepted_at: OffsetDateTime = row.try_get("accepted_at")?;
    let indexed_at: Option<OffsetDateTime> = row.try_get("indexed_at")?;
    let archived_at: Option<OffsetDateTime> = row.try_get("archived_at")?;
    let shown = Batch {
        batch_id: row.try_get("batch_id")?,
        first_batch_id: row.try_get("first_batch_id")?,
        state: BatchState::of(indexed_at.is_some(), archived_at.is_some()),
        events: i64::from(row.try_get::<i32, _>("events")?),
        dead_letters: Some(i64::from(row.try_get::<i32, _>("dead_letters")?)),
        dropped: row.try_get::<Option<i32>, _>("dropped")?.map(i64::from),
        accepted_at: shown_time(accepted_at),
        stored_at: Some(shown_time(row.try_get("stored_at")?)),
        indexed_at: indexed_at.map(shown_time),
        archived_at: archived_at.map(shown_time),
        resends: Vec::new(),
        source: Source::Catalog,
        complete: true,
        notice: None,
    };
    Ok(StoredBatch { accepted_at: micros(accepted_at), shown })
}
