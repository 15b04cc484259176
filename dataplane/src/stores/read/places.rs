//! Where raw bytes are, of many places at once.

use std::collections::HashMap;

use super::catalog::{Catalog, CatalogError};
use crate::stores::archive::Frames;
use crate::tenancy::Tenant;

impl Catalog {
    /// Compressed bytes of each of these frames of the spool that is there.
    pub(in crate::stores) async fn spool_sizes(
        &self,
        tenant: &Tenant,
        spool_ids: &[i64],
    ) -> Result<HashMap<i64, u64>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!("SELECT spool_id, octet_length(frame)::bigint FROM {schema}.spool WHERE spool_id = ANY($1)");
        let mut read = self.begin(tenant).await?;
        let sizes: Vec<(i64, i64)> = sqlx::query_as(&sql).bind(spool_ids).fetch_all(&mut *read).await?;
        Ok(sizes.into_iter().map(|(id, bytes)| (id, bytes.unsigned_abs())).collect())
    }

    /// Those of these frames of the spool that are there.
    pub(in crate::stores) async fn spool_frames(
        &self,
        tenant: &Tenant,
        spool_ids: &[i64],
    ) -> Result<HashMap<i64, Vec<u8>>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!("SELECT spool_id, frame FROM {schema}.spool WHERE spool_id = ANY($1)");
        let mut read = self.begin(tenant).await?;
        let frames: Vec<(i64, Vec<u8>)> = sqlx::query_as(&sql).bind(spool_ids).fetch_all(&mut *read).await?;
        Ok(frames.into_iter().collect())
    }

    /// Key and frames of each of these objects that is there.
    pub(in crate::stores) async fn objects(
        &self,
        tenant: &Tenant,
        object_ids: &[i64],
    ) -> Result<HashMap<i64, (String, Frames)>, CatalogError> {
        let schema = tenant.name().database_schema();
        let sql = format!("SELECT object_id, key, raw_starts, starts FROM {schema}.objects WHERE object_id = ANY($1)");
        let mut read = self.begin(tenant).await?;
        let objects: Vec<(i64, String, Vec<i64>, Vec<i64>)> =
            sqlx::query_as(&sql).bind(object_ids).fetch_all(&mut *read).await?;
        let object = |(id, key, raw_starts, starts)| (id, (key, Frames { raw_starts, starts }));
        Ok(objects.into_iter().map(object).collect())
    }
}
