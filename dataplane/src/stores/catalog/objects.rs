//! The archive's objects, as the catalog knows them.

use time::OffsetDateTime;

use super::{Catalog, Error, failed};
use crate::stores::archive::Frames;
use crate::tenancy::Tenant;

/// An object's row.
#[derive(Debug, Clone)]
pub struct ObjectRow {
    /// Its key in the tenant's archive.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Where its frames are.
    pub frames: Frames,
}

impl Catalog {
    /// An object's row; `None` if it has expired.
    pub async fn object(&self, tenant: &Tenant, object_id: i64) -> Result<Option<ObjectRow>, Error> {
        let doing = "look up an object";
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            let row: Option<(String, i64, Vec<i64>, Vec<i64>)> =
                sqlx::query_as("SELECT key, bytes, raw_starts, starts FROM objects WHERE object_id = $1")
                    .bind(object_id)
                    .fetch_optional(&mut *transaction)
                    .await
                    .map_err(failed(doing))?;
            transaction.rollback().await.map_err(failed(doing))?;
            let object = |(key, bytes, raw_starts, starts): (String, i64, _, _)| ObjectRow {
                key,
                bytes: bytes.unsigned_abs(),
                frames: Frames { raw_starts, starts },
            };
            Ok(row.map(object))
        })
        .await
    }

    /// Keys of objects all of whose batches are gone and were accepted before `cutoff`, oldest first: no batch is
    /// left that is as old as the newest of them.
    pub async fn unreferenced_objects(
        &self,
        tenant: &Tenant,
        cutoff: OffsetDateTime,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let doing = "find expired objects";
        let mut transaction = self.begin(tenant).await?;
        let keys = sqlx::query_scalar(
            "SELECT key FROM objects WHERE max_accepted < least($1, (SELECT min(accepted_at) FROM batches))
             ORDER BY object_id LIMIT $2",
        )
        .bind(cutoff)
        .bind(limit as i64)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(keys)
    }

    /// Removes the rows of objects that are gone.
    pub async fn forget_objects(&self, tenant: &Tenant, keys: &[String]) -> Result<(), Error> {
        let doing = "delete rows of expired objects";
        let mut transaction = self.begin(tenant).await?;
        sqlx::query("DELETE FROM objects WHERE key = ANY($1)")
            .bind(keys)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))
    }
}
