//! The databases, the platform's roles, and the migrations. Run at start and at every resync, so
//! that a server that was replaced is filled again.

use runtime::stores::postgres_pool;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};

use crds::names::{CORE_DATABASE, DATA_ROLE, MAINTAIN_ROLE, PROCESSOR_DATABASE, SEARCH_DATABASE};

use super::Postgres;
use crate::provision::Error;
use crate::provision::error::PostgresContext;

/// Databases, and which of the platform's roles may connect to each.
const DATABASES: [(&str, &[&str]); 3] = [
    (CORE_DATABASE, &[MAINTAIN_ROLE]),
    (PROCESSOR_DATABASE, &[DATA_ROLE, MAINTAIN_ROLE]),
    (SEARCH_DATABASE, &[DATA_ROLE]),
];

/// Passwords of the roles that the data plane logs in with.
#[derive(Clone)]
pub struct RolePasswords {
    /// Of `lh_data`.
    pub data: SecretString,
    /// Of `lh_maintain`.
    pub maintain: SecretString,
}

impl Postgres {
    /// Makes the roles and databases that are missing, sets the roles' passwords, and migrates.
    pub async fn bootstrap(&self, passwords: &RolePasswords) -> Result<(), Error> {
        let mut server =
            self.options.clone().database("postgres").connect().await.doing("connect to database `postgres`")?;
        // Two operators at once would race for the same CREATE: one waits for the other. The lock
        // ends with the connection.
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('loggerhub:bootstrap', 0))")
            .execute(&mut server)
            .await
            .doing("wait for the bootstrap lock")?;
        ensure_role(&mut server, DATA_ROLE, &passwords.data).await?;
        ensure_role(&mut server, MAINTAIN_ROLE, &passwords.maintain).await?;
        for (database, roles) in DATABASES {
            ensure_database(&mut server, database, roles).await?;
        }
        migrate(sqlx::migrate!("migrations/core"), CORE_DATABASE, &self.core).await?;
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

async fn ensure_role(server: &mut PgConnection, role: &str, password: &SecretString) -> Result<(), Error> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *server)
        .await
        .doing("look for a platform role")?;
    let verb = if exists { "ALTER" } else { "CREATE" };
    // DDL takes no parameters; the role is a constant and the password is quoted by the server.
    let statement: String = sqlx::query_scalar("SELECT format($1 || ' ROLE %I LOGIN NOINHERIT PASSWORD %L', $2, $3)")
        .bind(verb)
        .bind(role)
        .bind(password.expose_secret())
        .fetch_one(&mut *server)
        .await
        .doing("quote a platform role's password")?;
    server.execute(&*statement).await.doing("create a platform role")?;
    Ok(())
}

async fn ensure_database(server: &mut PgConnection, database: &str, roles: &[&str]) -> Result<(), Error> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(&mut *server)
        .await
        .doing("look for a database")?;
    if !exists {
        let create = format!("CREATE DATABASE {database} ENCODING 'UTF8' TEMPLATE template0");
        server.execute(&*create).await.doing("create a database")?;
    }
    let grant = format!(
        "REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {}",
        roles.join(", ")
    );
    server.execute(&*grant).await.doing("grant access to a database")?;
    Ok(())
}
