//! Whose these stores are. An installation is bound to one cluster: another cluster that is installed with the
//! same values is told so, and touches nothing until somebody says that it takes over.

use std::collections::HashMap;
use std::time::Duration;

use secrecy::SecretString;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crds::TenantName;
use crds::names::CORE_DATABASE;

use super::{Postgres, scram};
use crate::provision::Error;
use crate::provision::error::PostgresContext;

/// Who an operator is to the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The installation.
    pub installation: String,
    /// UID of the namespace kube-system of its cluster.
    pub cluster: String,
    /// What it takes over, as somebody has confirmed: a cluster's UID, or another installation's name.
    pub take_over: Option<String>,
}

/// A tenant that the registry holds and its cluster does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub tenant: String,
    /// For how long.
    pub missing_for: Duration,
    /// Whether it was found out just now.
    pub is_new: bool,
}

/// What is remembered of the platform roles' passwords: verifiers, by role.
pub(super) type Remembered = HashMap<String, String>;

/// A role's password as another installation has set it.
struct Login {
    role: String,
    installation: String,
    verifier: String,
    /// Whether that installation has Tenants that would suffer.
    lives: bool,
}

impl Postgres {
    /// Binds the installation to the cluster, or says who stands in the way. `passwords` are those that the
    /// cluster holds of the platform's roles, as far as it has any. Writes nothing where it is refused.
    pub async fn claim(&self, claim: &Claim, passwords: &[(&str, Option<SecretString>)]) -> Result<(), Error> {
        self.remembered(claim, passwords).await?;
        self.believe(claim);
        Ok(())
    }

    /// Takes a claim for granted that stood when the server answered last.
    pub fn believe(&self, claim: &Claim) {
        self.bound.get_or_init(|| (claim.installation.clone(), claim.cluster.clone()));
    }

    /// The same, and what is remembered of the passwords.
    pub(super) async fn remembered(
        &self,
        claim: &Claim,
        passwords: &[(&str, Option<SecretString>)],
    ) -> Result<Remembered, Error> {
        let Some(mut core) = self.core_if_made().await? else { return Ok(Remembered::new()) };
        let mut core = core.begin().await.doing("begin in the core database")?;
        let logins: Vec<Login> = sqlx::query_as::<_, (String, String, String, bool)>(
            "SELECT role, installation, verifier, EXISTS (SELECT FROM public.tenants AS t \
             WHERE t.installation = l.installation AND t.state <> 'Retained') FROM public.role_logins AS l",
        )
        .fetch_all(&mut *core)
        .await
        .doing("look who set the roles' passwords")?
        .into_iter()
        .map(|(role, installation, verifier, lives)| Login { role, installation, verifier, lives })
        .collect();
        if let Some(theirs) = logins.iter().find(|login| stands_in_the_way(claim, login, passwords)) {
            let (role, installation) = (theirs.role.clone(), theirs.installation.clone());
            return Err(Error::OtherInstallation { role, installation, ours: claim.installation.clone() });
        }
        bind(&mut core, claim).await?;
        core.commit().await.doing("commit which cluster the installation runs in")?;
        Ok(logins.into_iter().map(|login| (login.role, login.verifier)).collect())
    }

    /// A connection to the core database if it has the tables that say whose it is.
    async fn core_if_made(&self) -> Result<Option<PgConnection>, Error> {
        let mut server =
            self.options.clone().database("postgres").connect().await.doing("connect to database `postgres`")?;
        let made: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(CORE_DATABASE)
            .fetch_one(&mut server)
            .await
            .doing("look for a database")?;
        server.close().await.doing("close a connection")?;
        if !made {
            return Ok(None);
        }
        let mut core =
            self.options.clone().database(CORE_DATABASE).connect().await.doing("connect to the core database")?;
        let made: bool = sqlx::query_scalar("SELECT to_regclass('public.installations') IS NOT NULL")
            .fetch_one(&mut core)
            .await
            .doing("look for the table of installations")?;
        Ok(made.then_some(core))
    }

    /// Notes that this installation has set a role's password.
    pub(super) async fn remember(&self, claim: &Claim, role: &str, verifier: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO public.role_logins (role, installation, verifier) VALUES ($1, $2, $3) \
             ON CONFLICT (role) DO UPDATE SET installation = $2, verifier = $3, set_at = now()",
        )
        .bind(role)
        .bind(&claim.installation)
        .bind(verifier)
        .execute(&self.core)
        .await
        .doing("note who set a role's password")?;
        Ok(())
    }

    /// Notes which tenants an installation does not find, and forgets those that it finds again. Time is the
    /// server's own.
    pub async fn note_missing(&self, installation: &str, absent: &[String]) -> Result<Vec<Missing>, Error> {
        let mut transaction = self.core.begin().await.doing("begin in the core database")?;
        sqlx::query("DELETE FROM public.missing_tenants WHERE installation = $1 AND tenant <> ALL($2)")
            .bind(installation)
            .bind(absent)
            .execute(&mut *transaction)
            .await
            .doing("forget tenants that were missing")?;
        let fresh: Vec<String> = sqlx::query_scalar(
            "INSERT INTO public.missing_tenants (installation, tenant) SELECT $1, unnest($2::text[]) \
             ON CONFLICT DO NOTHING RETURNING tenant",
        )
        .bind(installation)
        .bind(absent)
        .fetch_all(&mut *transaction)
        .await
        .doing("note tenants that are missing")?;
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT tenant, greatest(0, extract(epoch FROM now() - missing_since))::bigint \
             FROM public.missing_tenants WHERE installation = $1 ORDER BY tenant",
        )
        .bind(installation)
        .fetch_all(&mut *transaction)
        .await
        .doing("read since when tenants are missing")?;
        transaction.commit().await.doing("commit which tenants are missing")?;
        let missing = |(tenant, seconds): (String, i64)| Missing {
            is_new: fresh.contains(&tenant),
            missing_for: Duration::from_secs(seconds.unsigned_abs()),
            tenant,
        };
        Ok(rows.into_iter().map(missing).collect())
    }

    /// Forgets since when a tenant is missing: from its next look on, the installation counts anew.
    pub async fn forget_missing(&self, installation: &str, tenant: &TenantName) -> Result<(), Error> {
        sqlx::query("DELETE FROM public.missing_tenants WHERE installation = $1 AND tenant = $2")
            .bind(installation)
            .bind(tenant.as_str())
            .execute(&self.core)
            .await
            .doing("forget since when a tenant is missing")?;
        Ok(())
    }

    /// Live keys of an installation's tenants: as many as stop working under other peppers.
    pub async fn live_keys(&self, installation: &str) -> Result<i64, Error> {
        if self.core_if_made().await?.is_none() {
            return Ok(0);
        }
        sqlx::query_scalar(
            "SELECT count(*) FROM public.api_keys AS k JOIN public.tenants AS t ON t.name = k.tenant \
             WHERE t.installation = $1 AND t.state <> 'Retained' AND k.revoked_at IS NULL",
        )
        .bind(installation)
        .fetch_one(&self.core)
        .await
        .doing("count the live keys")
    }
}

/// Whether setting our passwords would lock somebody out who lives.
fn stands_in_the_way(claim: &Claim, login: &Login, passwords: &[(&str, Option<SecretString>)]) -> bool {
    let ours = passwords.iter().find(|(role, _)| *role == login.role).and_then(|(_, password)| password.as_ref());
    let same = ours.is_some_and(|password| scram::matches(password, &login.verifier));
    let confirmed = claim.take_over.as_ref() == Some(&login.installation);
    login.installation != claim.installation && login.lives && !same && !confirmed
}

async fn bind(core: &mut PgConnection, claim: &Claim) -> Result<(), Error> {
    sqlx::query("INSERT INTO public.installations (installation, cluster) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&claim.installation)
        .bind(&claim.cluster)
        .execute(&mut *core)
        .await
        .doing("bind the installation to its cluster")?;
    let bound: String =
        sqlx::query_scalar("SELECT cluster FROM public.installations WHERE installation = $1 FOR UPDATE")
            .bind(&claim.installation)
            .fetch_one(&mut *core)
            .await
            .doing("read which cluster the installation runs in")?;
    if bound == claim.cluster {
        return Ok(());
    }
    if claim.take_over.as_ref() != Some(&bound) {
        let (installation, ours) = (claim.installation.clone(), claim.cluster.clone());
        return Err(Error::OtherCluster { installation, bound, ours });
    }
    sqlx::query("UPDATE public.installations SET cluster = $2, bound_at = now() WHERE installation = $1")
        .bind(&claim.installation)
        .bind(&claim.cluster)
        .execute(&mut *core)
        .await
        .doing("bind the installation to another cluster")?;
    let (installation, cluster) = (&claim.installation, &claim.cluster);
    tracing::warn!("installation {installation} runs in cluster {cluster} from now on: it ran in {bound}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_installation_with_another_password_stands_in_the_way() {
        let claim = |take_over: Option<&str>| Claim {
            installation: "b".into(),
            cluster: "1".into(),
            take_over: take_over.map(str::to_owned),
        };
        let login = |installation: &str, lives| Login {
            role: "lh_data".into(),
            installation: installation.into(),
            verifier: scram::verifier(&"theirs".into()),
            lives,
        };
        let password = |text: Option<&str>| [("lh_data", text.map(SecretString::from))];
        for (claim, login, password, expected) in [
            (claim(None), login("a", true), password(Some("ours")), true),
            (claim(None), login("a", true), password(None), true),
            (claim(None), login("a", true), password(Some("theirs")), false),
            (claim(None), login("a", false), password(Some("ours")), false),
            (claim(None), login("b", true), password(Some("ours")), false),
            (claim(Some("a")), login("a", true), password(Some("ours")), false),
            (claim(Some("c")), login("a", true), password(Some("ours")), true),
        ] {
            assert_eq!(stands_in_the_way(&claim, &login, &password), expected, "{claim:?} {}", login.installation);
        }
    }
}
