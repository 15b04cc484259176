//! API keys in `loggerhub_core_db`: digests only.

use std::time::SystemTime;

use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;

use crds::TenantName;
use crds::tenant::{Scope, SecretRef};

use super::Postgres;
use super::tenants::lock_row;
use crate::fail_points::{Point, reach};
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
    /// Whether it was last seen with another Tenant object of this name: one of a cluster, or a Tenant, that is gone.
    pub inherited: bool,
}

impl Postgres {
    /// The tenant's live keys, and whichever keys have these ids, whoever they belong to.
    pub async fn keys(&self, tenant: &TenantName, ids: &[String]) -> Result<Vec<IssuedKeyRow>, Error> {
        let mut connection = self.core.acquire().await.doing("connect to the core database")?;
        read(&mut connection, tenant, ids).await
    }

    /// Makes these the tenant's live keys: inserts what is new, changes what differs, revokes the
    /// rest. Gives back the live rows.
    pub async fn ensure_keys(
        &self,
        tenant: &TenantName,
        wanted: &[IssuedKey],
    ) -> Result<(Vec<IssuedKeyRow>, Outcome), Error> {
        let mut connection = self.core.acquire().await.doing("connect to the core database")?;
        let found = read(&mut connection, tenant, &[]).await?;
        let settled = |row: &IssuedKeyRow| !row.inherited || row.key.expires_at.is_some();
        if found.len() == wanted.len()
            && found.iter().all(settled)
            && wanted.iter().all(|key| found.iter().any(|row| row.key == *key))
        {
            reach(Point::KeysRegistered);
            return Ok((found, Outcome::Unchanged));
        }
        let mut transaction = connection.begin().await.doing("begin in the core database")?;
        // Two reconciliations never change its keys at once.
        lock_row(&mut transaction, tenant).await?;
        let found = read(&mut transaction, tenant, &[]).await?;
        let revoked = revoke_others(&mut transaction, tenant, wanted).await?;
        let mut outcome = if revoked > 0 { Outcome::Updated } else { Outcome::Unchanged };
        // One key of a name is current: the one that ends makes room first.
        let (ending, current): (Vec<_>, Vec<_>) = wanted.iter().partition(|key| key.expires_at.is_some());
        let mut written = revoked > 0;
        for key in ending.into_iter().chain(current) {
            let known = found.iter().find(|row| row.key.id == key.id);
            if known.is_some_and(|row| row.key == *key) {
                continue;
            }
            outcome = outcome.and(match known {
                // Where its Secret is was not noted by an operator of before.
                Some(row) if (IssuedKey { secret: key.secret.clone(), ..row.key.clone() }) == *key => {
                    Outcome::Unchanged
                }
                Some(_) => Outcome::Updated,
                None => Outcome::Created,
            });
            write(&mut transaction, tenant, key).await?;
            written = true;
        }
        written |= inherit(&mut transaction, tenant).await?;
        let live = if written { read(&mut transaction, tenant, &[]).await? } else { found };
        transaction.commit().await.doing("commit the tenant's keys")?;
        reach(Point::KeysRegistered);
        Ok((live, outcome))
    }

    /// Which of these ids no key of the tenant ever had.
    pub async fn never_issued(&self, tenant: &TenantName, ids: &[String]) -> Result<Vec<String>, Error> {
        sqlx::query_scalar(
            "SELECT id FROM unnest($2::text[]) AS id \
             WHERE NOT EXISTS (SELECT FROM public.api_keys WHERE tenant = $1 AND key_id = id)",
        )
        .bind(tenant.as_str())
        .bind(ids)
        .fetch_all(&self.core)
        .await
        .doing("look for keys that nobody issued")
    }

    /// The Secrets that we wrote the tenant's keys to, also those of keys that were revoked.
    pub async fn written_secrets(&self, tenant: &TenantName) -> Result<Vec<SecretRef>, Error> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT secret_namespace, secret_name FROM public.api_keys \
             WHERE tenant = $1 AND secret_namespace IS NOT NULL AND secret_name IS NOT NULL",
        )
        .bind(tenant.as_str())
        .fetch_all(&self.core)
        .await
        .doing("list the Secrets of the tenant's keys")?;
        Ok(rows.into_iter().map(|(namespace, name)| SecretRef { name, namespace }).collect())
    }

    /// Forgets that we wrote keys of the tenant to a Secret.
    pub async fn forget_secret(&self, tenant: &TenantName, secret: &SecretRef) -> Result<(), Error> {
        sqlx::query(
            "UPDATE public.api_keys SET secret_namespace = NULL, secret_name = NULL \
             WHERE tenant = $1 AND secret_namespace = $2 AND secret_name = $3",
        )
        .bind(tenant.as_str())
        .bind(&secret.namespace)
        .bind(&secret.name)
        .execute(&self.core)
        .await
        .doing("forget a Secret of the tenant's keys")?;
        Ok(())
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
        "SELECT key_id, tenant, name, scopes, digest, pepper_id, expires_at, rotation_request, secret_namespace, \
         secret_name, issued_at, revoked_at IS NOT NULL AS revoked, \
         tenant_uid IS DISTINCT FROM (SELECT uid FROM public.tenants AS t WHERE t.name = api_keys.tenant) AS inherited \
         FROM public.api_keys WHERE (tenant = $1 AND revoked_at IS NULL) OR key_id = ANY($2) ORDER BY name, key_id",
    )
    .bind(tenant.as_str())
    .bind(ids)
    .fetch_all(core)
    .await
    .doing("read the tenant's keys")?;
    let key = |row: sqlx::postgres::PgRow| {
        let digest: Vec<u8> = row.get("digest");
        let scopes: Vec<String> = row.get("scopes");
        let (namespace, secret): (Option<String>, Option<String>) =
            (row.get("secret_namespace"), row.get("secret_name"));
        IssuedKeyRow {
            tenant: row.get("tenant"),
            key: IssuedKey {
                name: row.get("name"),
                scopes: scopes.iter().filter_map(|scope| scope_of(scope)).collect(),
                id: row.get("key_id"),
                // The column's CHECK holds it to 32 bytes; anything else matches no key.
                digest: digest.try_into().unwrap_or_default(),
                pepper_id: row.get("pepper_id"),
                expires_at: row.get::<Option<OffsetDateTime>, _>("expires_at").map(SystemTime::from),
                request: row.get("rotation_request"),
                secret: namespace.zip(secret).map(|(namespace, name)| SecretRef { name, namespace }),
            },
            issued_at: row.get::<OffsetDateTime, _>("issued_at").into(),
            revoked: row.get("revoked"),
            inherited: row.get("inherited"),
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

/// The current keys are this Tenant object's from now on.
async fn inherit(core: &mut PgConnection, tenant: &TenantName) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE public.api_keys AS k SET tenant_uid = t.uid FROM public.tenants AS t \
         WHERE t.name = $1 AND k.tenant = $1 AND k.revoked_at IS NULL AND k.expires_at IS NULL \
         AND k.tenant_uid IS DISTINCT FROM t.uid",
    )
    .bind(tenant.as_str())
    .execute(core)
    .await
    .doing("note which Tenant the keys are of")?;
    Ok(done.rows_affected() > 0)
}

async fn write(core: &mut PgConnection, tenant: &TenantName, key: &IssuedKey) -> Result<(), Error> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope_text(*scope)).collect();
    // An id that another tenant has, or that was revoked, is not touched; the caller chose a new
    // one for such a case, so a row that is not written is a race that the next run settles.
    sqlx::query(
        "INSERT INTO public.api_keys (key_id, tenant, name, scopes, digest, pepper_id, expires_at, rotation_request, \
         secret_namespace, secret_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (key_id) DO UPDATE SET name = $3, scopes = $4, digest = $5, pepper_id = $6, expires_at = $7, \
         rotation_request = $8, secret_namespace = $9, secret_name = $10 \
         WHERE api_keys.tenant = $2 AND api_keys.revoked_at IS NULL",
    )
    .bind(&key.id)
    .bind(tenant.as_str())
    .bind(&key.name)
    .bind(scopes)
    .bind(key.digest.as_slice())
    .bind(&key.pepper_id)
    .bind(key.expires_at.map(OffsetDateTime::from))
    .bind(&key.request)
    .bind(key.secret.as_ref().map(|secret| &secret.namespace))
    .bind(key.secret.as_ref().map(|secret| &secret.name))
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
