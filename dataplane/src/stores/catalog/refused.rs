//! Finds the rows of a COPY that PostgreSQL refuses, by halves, in a transaction that leaves
//! nothing behind.

use sqlx::{Acquire, PgConnection};
use uuid::Uuid;

use super::copy::Row;
use super::store::copy_rows;
use super::{Catalog, Error, Kind, failed};
use crate::tenancy::Tenant;

impl Catalog {
    /// The events among `rows` that PostgreSQL refuses, with its reason. One bad row of a thousand
    /// costs some twenty small copies.
    pub(super) async fn find_refused(&self, tenant: &Tenant, rows: &[Row<'_>]) -> Result<Vec<(Uuid, String)>, Error> {
        let mut transaction = self.begin(tenant).await?;
        let mut refused = Vec::new();
        let mut unknown = vec![rows];
        while let Some(part) = unknown.pop() {
            // Each copy by itself: a flush of bad rows takes as many as it has rows.
            let copied = self.bounded("find the rows that are refused", try_copy(&mut transaction, part)).await?;
            let Some(error) = copied else { continue };
            if let [(_, row)] = part {
                refused.push((row.id, error));
            } else {
                let (first, second) = part.split_at(part.len() / 2);
                unknown.extend([second, first]);
            }
        }
        let doing = "leave nothing of the search behind";
        self.bounded(doing, async { transaction.rollback().await.map_err(failed(doing)) }).await?;
        Ok(refused)
    }
}

/// Copies the rows and takes them back; says why PostgreSQL refuses them, if it does.
async fn try_copy(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<Option<String>, Error> {
    let mut attempt = connection.begin().await.map_err(failed("set a savepoint"))?;
    let copied = copy_rows(&mut attempt, rows).await;
    attempt.rollback().await.map_err(failed("return to the savepoint"))?;
    match copied {
        Ok(()) => Ok(None),
        // Stored meanwhile by somebody else: not the row's fault.
        Err(error) if is_duplicate(&error) => Ok(None),
        Err(error) if error.kind() == Kind::Refused => Ok(Some(error.source.to_string())),
        Err(error) => Err(error),
    }
}

fn is_duplicate(error: &Error) -> bool {
    error.source.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
