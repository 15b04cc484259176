//! What a tenant has used, from its own ledger, which bills are made from.

use api::usage::{Amount, By, MAX_ROWS, UsageRow};
use sqlx::Row as _;
use time::OffsetDateTime;

use super::catalog::{Catalog, CatalogError, first_id, shown_time};
use crate::event::{Micros, date_time};
use crate::tenancy::Tenant;

const INSUFFICIENT_PRIVILEGE: &str = "42501";

impl Catalog {
    /// What was accepted within a time, and one row more if there are more than an answer holds.
    pub async fn usage(
        &self,
        tenant: &Tenant,
        by: By,
        from: Micros,
        to: Micros,
    ) -> Result<Vec<UsageRow>, CatalogError> {
        let schema = tenant.name().database_schema();
        let limit = i64::from(MAX_ROWS) + 1;
        let of_ledger = |value: &str, order: &str| {
            format!(
                "SELECT {value} AS value, sum(events)::bigint AS events, sum(bytes)::bigint AS bytes \
                 FROM {schema}.usage_ledger WHERE accepted_at >= $1 AND accepted_at < $2 \
                 GROUP BY 1 ORDER BY {order} LIMIT $3"
            )
        };
        let sql = match by {
            By::Hour => of_ledger("date_trunc('hour', accepted_at, 'UTC')", "1"),
            By::Day => of_ledger("date_trunc('day', accepted_at, 'UTC')", "1"),
            By::Key => of_ledger("key_id", "3 DESC, 1"),
            // The ledger has a row for a batch, whose events may be of several services. An event's id has the time of
            // its acceptance.
            By::Service => format!(
                "SELECT service AS value, count(*) AS events, sum(raw_length)::bigint AS bytes \
                 FROM {schema}.logs WHERE event_id >= $1 AND event_id < $2 GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT $3"
            ),
        };
        let query = sqlx::query(&sql);
        let query = match by {
            By::Service => query.bind(first_id(from)).bind(first_id(to)),
            By::Hour | By::Day | By::Key => query.bind(date_time(from)).bind(date_time(to)),
        };
        let mut read = self.begin(tenant).await?;
        let rows = query.bind(limit).fetch_all(&mut *read).await.map_err(|error| match error.as_database_error() {
            // The reader gets this right with the schema's version.
            Some(refused) if refused.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE) => CatalogError::OlderSchema,
            _ => error.into(),
        })?;
        let row = |row: &sqlx::postgres::PgRow| {
            let value = match by {
                By::Hour | By::Day => shown_time(row.try_get::<OffsetDateTime, _>("value")?),
                By::Key | By::Service => row.try_get("value")?,
            };
            let amount = Amount { events: row.try_get("events")?, bytes: row.try_get("bytes")? };
            Ok(UsageRow { value, name: None, amount })
        };
        Ok(rows.iter().map(row).collect::<Result<_, sqlx::Error>>()?)
    }
}
