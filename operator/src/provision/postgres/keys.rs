//! API keys in `loggerhub_core_db`: digests only.

use std::time::SystemTime;

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use crds::TenantName;
use crds::tenant::Scope;

use super::Postgres;
use crate::provision::error::PostgresContext;
use crate::provision::{Error, IssuedKey, Outcome};

/// A key as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedKeyRow {
    /// Tenant that it belongs to.
    pub tenant: String,
    /// The key.
    pub key: IssuedKey,
    /// When it was issued.
    pub issued_at: SystemTime,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl Postgres {
    /// The tenant's live keys, and whichever keys have these ids, whoever they belong to.
    pub async fn keys(&self, tenant: &TenantName, ids: &[String]) -> Result<Vec<IssuedKeyRow>, Error> {
        let mut connection = self.core.acquire().await.doing("connect to the core database")?;
        read(&mut connection, tenant, ids).await
    }

    /// Makes these the tenant's live keys: inserts what is new, changes names and scopes that
    /// differ, revokes the rest. Gives back the live rows.
    pub async fn ensure_keys(
        &self,
        tenant: &TenantName,
        wanted: &[IssuedKey],
    ) -> Result<(Vec<IssuedKeyRow>, Outcome), Error> {
        let mut transaction = self.core.begin().await.doing("begin in the core database")?;
        // The tenant's row is the lock: two reconciliations never change its keys at once.
        sqlx::query("SELECT FROM public.tenants WHERE name = $1 FOR UPDATE")
            .bind(tenant.as_str())
            .execute(&mut *transaction)
            .await
            .doing("lock the tenant's registry row")?;
        let found = read(&mut transaction, tenant, &[]).await?;
        let revoked = revoke_others(&mut transaction, tenant, wanted).await?;
        let mut outcome = if revoked > 0 { Outcome::Updated } else { Outcome::Unchanged };
        for key in wanted {
            let known = found.iter().find(|row| row.key.id == key.id);
            if known.is_some_and(|row| row.key == *key) {
                continue;
            }
            outcome = outcome.and(if known.is_some() { Outcome::Updated } else { Outcome::Created });
            write(&mut transaction, tenant, key).await?;
        }
        let live = if outcome == Outcome::Unchanged { found } else { read(&mut transaction, tenant, &[]).await? };
        transaction.commit().await.doing("commit the tenant's keys")?;
        Ok((live, outcome))
    }

    /// Revokes all keys of a tenant of this installation. Gives back how many were live.
    pub async fn revoke_keys(&self, installation: &str, tenant: &TenantName) -> Result<u64, Error> {
        let done = sqlx::query(
            "UPDATE public.api_keys SET revoked_at = now() WHERE tenant = $1 AND revoked_at IS NULL \
             AND EXISTS (SELECT FROM public.tenants WHERE name = $1 AND installation = $2)",
        )
        .bind(tenant.as_str())
        .bind(installation)
        .execute(&self.core)
        .await
        .doing("revoke the tenant's keys")?;
        Ok(done.rows_affected())
    }
}

async fn read(core: &mut PgConnection, tenant: &TenantName, ids: &[String]) -> Result<Vec<IssuedKeyRow>, Error> {
    let rows = sqlx::query(
        "SELECT key_id, tenant, name, scopes, digest, pepper_id, issued_at, revoked_at IS NOT NULL AS revoked \
         FROM public.api_keys WHERE (tenant = $1 AND revoked_at IS NULL) OR key_id = ANY($2) ORDER BY name",
    )
    .bind(tenant.as_str())
    .bind(ids)
    .fetch_all(core)
    .await
    .doing("read the tenant's keys")?;
    let key = |row: sqlx::postgres::PgRow| {
        let digest: Vec<u8> = row.get("digest");
        let scopes: Vec<String> = row.get("scopes");
        IssuedKeyRow {
            tenant: row.get("tenant"),
            key: IssuedKey {
                name: row.get("name"),
                scopes: scopes.iter().filter_map(|scope| scope_of(scope)).collect(),
                id: row.get("key_id"),
                // The column's CHECK holds it to 32 bytes; anything else matches no key.
                digest: digest.try_into().unwrap_or_default(),
                pepper_id: row.get("pepper_id"),
            },
            issued_at: row.get::<OffsetDateTime, _>("issued_at").into(),
            revoked: row.get("revoked"),
        }
    };
    Ok(rows.into_iter().map(key).collect())
}

async fn revoke_others(core: &mut PgConnection, tenant: &TenantName, wanted: &[IssuedKey]) -> Result<u64, Error> {
    let ids: Vec<String> = wanted.iter().map(|key| key.id.clone()).collect();
    let done = sqlx::query(
        "UPDATE public.api_keys SET revoked_at = now() \
         WHERE tenant = $1 AND revoked_at IS NULL AND NOT (key_id = ANY($2))",
    )
    .bind(tenant.as_str())
    .bind(ids)
    .execute(core)
    .await
    .doing("revoke keys that are no longer wanted")?;
    Ok(done.rows_affected())
}

async fn write(core: &mut PgConnection, tenant: &TenantName, key: &IssuedKey) -> Result<(), Error> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope_text(*scope)).collect();
    // An id that another tenant has, or that was revoked, is not touched; the caller chose a new
    // one for such a case, so a row that is not written is a race that the next run settles.
    sqlx::query(
        "INSERT INTO public.api_keys (key_id, tenant, name, scopes, digest, pepper_id) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (key_id) DO UPDATE SET name = $3, scopes = $4, digest = $5, pepper_id = $6 \
         WHERE api_keys.tenant = $2 AND api_keys.revoked_at IS NULL",
    )
    .bind(&key.id)
    .bind(tenant.as_str())
    .bind(&key.name)
    .bind(scopes)
    .bind(key.digest.as_slice())
    .bind(&key.pepper_id)
    .execute(core)
    .await
    .doing("write a key of the tenant")?;
    Ok(())
}

fn scope_text(scope: Scope) -> &'static str {
    match scope {
        Scope::Ingest => "Ingest",
        Scope::Query => "Query",
        Scope::Admin => "Admin",
    }
}

fn scope_of(text: &str) -> Option<Scope> {
    [Scope::Ingest, Scope::Query, Scope::Admin].into_iter().find(|scope| scope_text(*scope) == text)
}
