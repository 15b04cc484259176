//! What waits to be done for tenants, asked of many at once.

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;

use super::{Catalog, Error, UNDEFINED_FUNCTION, failed, has_code};

/// Schemas of one statement: it locks each one's tables until it ends, and PostgreSQL has room for some
/// thousands of locks.
const AT_ONCE: usize = 50;

/// What waits in one tenant's schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Look {
    /// Its schema.
    pub tenant_schema: String,
    /// The next object of the archive is chosen, and not there yet.
    pub archiving: bool,
    /// When the oldest row came into the spool.
    pub spooled_since: Option<OffsetDateTime>,
    /// Rows in the spool, as far as was looked.
    pub spooled_rows: i64,
    /// Their compressed bytes.
    pub spooled_bytes: i64,
    /// The index does not have all that settled.
    pub unindexed: bool,
    /// Dead letters are to be tried again.
    pub to_redrive: bool,
    /// Newest number in the ledger.
    pub last_usage: Option<i64>,
}

impl Catalog {
    /// What waits in these schemas, by schema: in the first `max_rows` of each spool, and in batches stored
    /// longer ago than `settled`. One that can't be looked into is missing.
    pub async fn look(
        &self,
        schemas: &[String],
        max_rows: i64,
        settled: Duration,
    ) -> Result<HashMap<String, Look>, Error> {
        let mut looks = HashMap::with_capacity(schemas.len());
        for schemas in schemas.chunks(AT_ONCE) {
            let (doing, pool) = ("look at the tenants", self.pool());
            let looking = sqlx::query_as("SELECT * FROM public.look_at_tenants($1, $2, make_interval(secs => $3))")
                .bind(schemas)
                .bind(max_rows)
                .bind(settled.as_secs_f64())
                .fetch_all(&pool);
            let found: Result<Vec<Look>, Error> =
                self.bounded(doing, async { looking.await.map_err(failed(doing)) }).await;
            match found {
                Ok(found) => looks.extend(found.into_iter().map(|look| (look.tenant_schema.clone(), look))),
                // The operator is of the version before: each is asked by itself.
                Err(error) if has_code(&error.source, UNDEFINED_FUNCTION) => return Ok(HashMap::new()),
                Err(error) => return Err(error),
            }
        }
        Ok(looks)
    }
}
