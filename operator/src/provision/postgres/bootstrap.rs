//! The databases, the platform's roles, and the migrations. Run at start and at every resync, so
//! that a server that was replaced is filled again.

use std::time::Duration;

use runtime::stores::postgres_pool;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};

use crds::names::{CORE_DATABASE, DATA_ROLE, MAINTAIN_ROLE, PROCESSOR_DATABASE, SEARCH_DATABASE, SEARCH_ROLE};

use super::installations::{Claim, Remembered};
use super::{Postgres, scram};
use crate::provision::Error;
use crate::provision::error::PostgresContext;

/// Databases, and which of the platform's roles may connect to each.
const DATABASES: [(&str, &[&str]); 3] = [
    (CORE_DATABASE, &[MAINTAIN_ROLE]),
    (PROCESSOR_DATABASE, &[DATA_ROLE, MAINTAIN_ROLE, SEARCH_ROLE]),
    (SEARCH_DATABASE, &[SEARCH_ROLE]),
];

/// Longest wait for a role to log in: one that takes longer tells nothing of its password.
const LOGIN: Duration = Duration::from_secs(5);
/// SQLSTATE of a password that is not the role's.
const INVALID_PASSWORD: &str = "28P01";

/// Passwords of the roles that the data plane logs in with.
#[derive(Clone)]
pub struct RolePasswords {
    /// Of `lh_data`.
    pub data: SecretString,
    /// Of `lh_maintain`.
    pub maintain: SecretString,
    /// Of `lh_search`.
    pub search: SecretString,
}

impl Postgres {
    /// Makes the roles and databases that are missing, sets the roles' passwords where they differ, and
    /// migrates; on behalf of nobody.
    pub async fn bootstrap(&self, passwords: &RolePasswords) -> Result<(), Error> {
        self.bootstrap_as(None, passwords).await
    }

    /// The same for an installation, unless these stores are another's.
    pub async fn bootstrap_for(&self, claim: &Claim, passwords: &RolePasswords) -> Result<(), Error> {
        self.bootstrap_as(Some(claim), passwords).await
    }

    async fn bootstrap_as(&self, claim: Option<&Claim>, passwords: &RolePasswords) -> Result<(), Error> {
        let mut server =
            self.options.clone().database("postgres").connect().await.doing("connect to database `postgres`")?;
        // Two operators at once would race for the same CREATE: one waits for the other. The lock
        // ends with the connection.
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('loggerhub:bootstrap', 0))")
            .execute(&mut server)
            .await
            .doing("wait for the bootstrap lock")?;
        let roles =
            [(DATA_ROLE, &passwords.data), (MAINTAIN_ROLE, &passwords.maintain), (SEARCH_ROLE, &passwords.search)];
        let given = roles.map(|(role, password)| (role, Some(password.clone())));
        let remembered = match claim {
            Some(claim) => self.remembered(claim, &given).await?,
            None => Remembered::new(),
        };
        let mut set = Vec::new();
        for (role, password) in roles {
            set.extend(self.ensure_role(&mut server, role, password, &remembered).await?.map(|made| (role, made)));
        }
        for (database, admitted) in DATABASES {
            let others: Vec<&str> =
                roles.iter().map(|(role, _)| *role).filter(|role| !admitted.contains(role)).collect();
            ensure_database(&mut server, database, admitted, &others).await?;
        }
        migrate(sqlx::migrate!("migrations/core"), CORE_DATABASE, &self.core).await?;
        if let Some(claim) = claim {
            // The tables may have been made just now.
            self.claim(claim, &given).await?;
            for (role, verifier) in set {
                self.remember(claim, role, &verifier).await?;
            }
        }
        migrate(sqlx::migrate!("migrations/processor"), PROCESSOR_DATABASE, &self.processor).await?;
        let search = postgres_pool(1);
        let search = search.connect_lazy_with(self.options.clone().database(SEARCH_DATABASE));
        let migrated = migrate(sqlx::migrate!("migrations/search"), SEARCH_DATABASE, &search).await;
        search.close().await;
        migrated?;
        server.close().await.doing("close the bootstrap connection")
    }
}

async fn migrate(mut migrator: Migrator, database: &'static str, pool: &PgPool) -> Result<(), Error> {
    // An operator that was rolled back finds steps that it does not know: they only ever add.
    migrator.set_ignore_missing(true);
    migrator.run(pool).await.map_err(|source| Error::Migrate { database, source })
}

impl Postgres {
    /// Makes a platform role what it is to be. Gives back the verifier of its password where that is not the
    /// one that is remembered.
    async fn ensure_role(
        &self,
        server: &mut PgConnection,
        role: &str,
        password: &SecretString,
        remembered: &Remembered,
    ) -> Result<Option<String>, Error> {
        let found: Option<(bool, bool)> = sqlx::query_as(
            "SELECT rolcanlogin AND NOT rolinherit, rolconfig IS NOT NULL FROM pg_roles WHERE rolname = $1",
        )
        .bind(role)
        .fetch_optional(&mut *server)
        .await
        .doing("look for a platform role")?;
        let known = remembered.get(role).is_some_and(|verifier| scram::matches(password, verifier));
        let Some((as_made, configured)) = found else {
            let verifier = scram::verifier(password);
            set_login(server, "CREATE", role, &verifier).await?;
            return Ok(Some(verifier));
        };
        reset(server, role, configured).await?;
        let works = self.logs_in(role, password).await;
        if known && works && as_made {
            return Ok(None);
        }
        let verifier = scram::verifier(password);
        // What is remembered is another password, or the role does not take this one.
        if !works || !as_made || remembered.contains_key(role) {
            set_login(server, "ALTER", role, &verifier).await?;
            tracing::info!(role, "set the password of role {role}");
        }
        Ok(Some(verifier))
    }

    /// Whether the server lets the role in with this password. What else goes wrong says nothing about it.
    async fn logs_in(&self, role: &str, password: &SecretString) -> bool {
        let options = self.options.clone().username(role).password(password.expose_secret());
        let connected = tokio::time::timeout(LOGIN, options.database(PROCESSOR_DATABASE).connect()).await;
        match connected {
            Ok(Ok(connection)) => {
                connection.close().await.ok();
                true
            }
            Ok(Err(sqlx::Error::Database(error))) => error.code().as_deref() != Some(INVALID_PASSWORD),
            _ => true,
        }
    }
}

/// Gives a role its login. DDL takes no parameters: the role is a constant, and a verifier holds no quote; the
/// server quotes both all the same.
async fn set_login(server: &mut PgConnection, verb: &str, role: &str, verifier: &str) -> Result<(), Error> {
    let statement: String = sqlx::query_scalar("SELECT format($1 || ' ROLE %I LOGIN NOINHERIT PASSWORD %L', $2, $3)")
        .bind(verb)
        .bind(role)
        .bind(verifier)
        .fetch_one(&mut *server)
        .await
        .doing("quote a platform role's login")?;
    server.execute(&*statement).await.doing("create a platform role")?;
    Ok(())
}

/// Takes back what a role has set for itself, in general and for single databases: every role may, and a
/// processor whose transactions are read-only by default stores nothing.
async fn reset(server: &mut PgConnection, role: &str, configured: bool) -> Result<(), Error> {
    let databases: Vec<String> = sqlx::query_scalar(
        "SELECT d.datname::text FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase \
         JOIN pg_roles AS r ON r.oid = s.setrole WHERE r.rolname = $1",
    )
    .bind(role)
    .fetch_all(&mut *server)
    .await
    .doing("look for settings of a platform role")?;
    let everywhere = configured.then_some(String::new());
    for database in everywhere.into_iter().chain(databases) {
        let place = if database.is_empty() { String::new() } else { format!(" IN DATABASE \"{database}\"") };
        server.execute(&*format!("ALTER ROLE {role}{place} RESET ALL")).await.doing("reset a platform role")?;
        tracing::warn!(role, "reset settings that somebody gave role {role}{place}");
    }
    Ok(())
}

/// Ensures the database, and who may connect to it: `others` could in a version of before.
async fn ensure_database(
    server: &mut PgConnection,
    database: &str,
    roles: &[&str],
    others: &[&str],
) -> Result<(), Error> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(&mut *server)
        .await
        .doing("look for a database")?;
    if !exists {
        let create = format!("CREATE DATABASE {database} ENCODING 'UTF8' TEMPLATE template0");
        server.execute(&*create).await.doing("create a database")?;
    }
    let others: String = others.iter().map(|other| format!(", {other}")).collect();
    let grant = format!(
        "REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC{others}; GRANT CONNECT ON DATABASE {database} TO {}",
        roles.join(", ")
    );
    server.execute(&*grant).await.doing("grant access to a database")?;
    Ok(())
}
