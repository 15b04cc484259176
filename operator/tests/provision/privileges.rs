//! Least privilege in PostgreSQL, and of the operator elsewhere.
//!
//! PostgreSQL's roles are logged in as the programs do: what each must not is refused by PostgreSQL itself (42501),
//! and what it may works, so that these tables can fail. The operator provisions with the policy and the role that
//! are shipped. The data plane's are tried by its own tests.

use crds::names::{
    BucketLayout, CORE_DATABASE, DATA_ROLE, MAINTAIN_ROLE, PROCESSOR_DATABASE, SEARCH_DATABASE, SEARCH_ROLE,
};
use crds::tenant::Isolation;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use operator::provision::{ObjectStore, Outcome, Retired, Search, Shape, delete_tenant};
use runtime::settings::PostgresSettings;
use sqlx::{ConnectOptions, PgConnection};
use testkit::RoleProxy;
use testkit::s3_policy::{denied, sees_only, shipped};

use crate::stores::{Fixture, INSTALLATION, key, stores, tenant};

/// SQLSTATE of a lacking privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What belongs to the administrator of a database or a server. `{me}` is the role that tries it, `{other}`
/// the data plane's other role, `{operator}` the operator's login, `{a}` and `{b}` two tenants' schemas.
const ADMINISTRATION: [&str; 61] = [
    "CREATE DATABASE lh_stolen",
    "ALTER DATABASE {database} SET work_mem = '1GB'",
    "CREATE SCHEMA stolen",
    "DROP SCHEMA {a} CASCADE",
    "CREATE TABLE public.stolen (one int)",
    "CREATE TABLE {a}.stolen (one int)",
    "CREATE TEMPORARY TABLE stolen (one int)",
    "CREATE FUNCTION public.stolen() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE INDEX ON {a}.batches (key_id)",
    "CREATE TRIGGER stolen BEFORE INSERT ON {a}.batches FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "ALTER TABLE {a}.batches ADD COLUMN stolen text",
    "ALTER TABLE {a}.logs OWNER TO {me}",
    "ALTER TABLE {a}.logs DETACH PARTITION {a}.{leaf}",
    "DROP TABLE {a}.{leaf}",
    "DROP TABLE {a}.logs",
    "TRUNCATE {a}.logs",
    "TRUNCATE {a}.usage_ledger",
    "CREATE ROLE lh_stolen",
    "ALTER ROLE {me} SUPERUSER",
    "ALTER ROLE {me} CREATEROLE",
    "ALTER ROLE {me} CREATEDB",
    "ALTER ROLE {me} BYPASSRLS",
    "ALTER ROLE {other} PASSWORD 'stolen'",
    "ALTER ROLE {operator} PASSWORD 'stolen'",
    "DROP ROLE {role_b}",
    "GRANT {role_b} TO {role_a}",
    "GRANT pg_read_all_data TO {me}",
    "SET ROLE {operator}",
    "SET ROLE {other}",
    "SET SESSION AUTHORIZATION {operator}",
    "SET session_replication_role = replica",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "SELECT pg_reload_conf()",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "COPY (SELECT 1) TO '/tmp/lh-stolen'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY {a}.idempotency FROM '/etc/passwd'",
    "COPY {a}.idempotency FROM PROGRAM 'true'",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{operator}'",
    "SELECT * FROM public._sqlx_migrations",
    "ALTER ROLE {me} CONNECTION LIMIT 0",
    "ALTER ROLE {me} VALID UNTIL '1970-01-01'",
    "ALTER ROLE {other} SET work_mem = '1GB'",
    "ALTER ROLE {role_b} SET work_mem = '1GB'",
    "ALTER ROLE ALL SET work_mem = '1GB'",
    "REASSIGN OWNED BY {operator} TO {me}",
    "DROP OWNED BY {operator}",
    "COMMENT ON SCHEMA {a} IS 'stolen'",
    "COMMENT ON ROLE {role_a} IS 'stolen'",
    "ALTER FUNCTION public.ensure_partitions(text, timestamptz) OWNER TO {me}",
    "ALTER TABLE {a}.logs DISABLE TRIGGER ALL",
    "CREATE EXTENSION pg_trgm",
    "CREATE FOREIGN DATA WRAPPER stolen",
    "CREATE PUBLICATION stolen FOR TABLE {a}.logs",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/lh-stolen')",
    "SELECT pg_switch_wal()",
    "SELECT pg_promote()",
    "SELECT pg_create_physical_replication_slot('stolen')",
];

/// Only the operator says which tenants and which series there are.
const REGISTRIES: [&str; 7] = [
    "INSERT INTO public.tenant_schemas VALUES ('stolen', 'stolen', 1, 1)",
    "UPDATE public.tenant_schemas SET total_days = 1",
    "DELETE FROM public.tenant_schemas",
    "INSERT INTO public.index_series VALUES ('stolen', 1, 1)",
    "UPDATE public.index_series SET hot_days = 1",
    "UPDATE public.index_series SET series = 'stolen'",
    "DELETE FROM public.index_series",
];

/// A tenant's tables, to one who has not become that tenant's role.
const ROWS_OF_A: [&str; 5] = [
    "SELECT * FROM {a}.logs",
    "SELECT * FROM {a}.{leaf}",
    "SELECT * FROM {a}.spool",
    "INSERT INTO {a}.idempotency (batch_id, body_hash) VALUES (gen_random_uuid(), 'x')",
    "DELETE FROM {a}.usage_ledger",
];

/// The same of another tenant, to one who has become the role of the first.
const ROWS_OF_B: [&str; 5] = [
    "SELECT * FROM {b}.logs",
    "SELECT * FROM {b}.partitions",
    "SELECT * FROM {b}.spool",
    "INSERT INTO {b}.idempotency (batch_id, body_hash) VALUES (gen_random_uuid(), 'x')",
    "DELETE FROM {b}.usage_ledger",
];

/// What even the tenant's own role does not write.
const KEPT_FROM_A: [&str; 5] = [
    "INSERT INTO {a}.partitions VALUES ('batches', '1970-01-01', '1970-01-02')",
    "UPDATE {a}.partitions SET ends = begins + interval '1 hour'",
    "DELETE FROM {a}.partitions",
    "UPDATE {a}.usage_ledger SET bytes = 0",
    "DELETE FROM {a}.usage_ledger WHERE accepted_at < now() - interval '1 day'",
];

/// What the data plane does as a tenant.
const WORK: [&str; 7] = [
    "SELECT * FROM {a}.logs",
    "SELECT * FROM {a}.partitions",
    "INSERT INTO {a}.idempotency (batch_id, body_hash) VALUES (gen_random_uuid(), 'x')",
    "INSERT INTO {a}.usage_ledger (batch_id, accepted_at, key_id, events, bytes) VALUES (gen_random_uuid(), now(), 'k', 1, 1)",
    "UPDATE {a}.batches SET indexed_at = now()",
    "DELETE FROM {a}.{leaf}",
    "DELETE FROM {a}.dead_letters",
];

/// Somebody who is logged in, and the names that statements speak of.
struct Somebody {
    connection: PgConnection,
    names: Vec<(&'static str, String)>,
    /// What was not as expected.
    wrong: Vec<String>,
}

impl Somebody {
    /// Logs in to `database` as `role` does.
    async fn new(role: &'static str, database: &str, names: &[(&'static str, String)]) -> Self {
        let connection = log_in(role, database).await.unwrap_or_else(|error| panic!("{role} on {database}: {error}"));
        let other = if role == DATA_ROLE { MAINTAIN_ROLE } else { DATA_ROLE };
        let mut names = names.to_vec();
        names.extend([("{me}", role.into()), ("{other}", other.into()), ("{database}", database.into())]);
        Self { connection, names, wrong: Vec::new() }
    }

    async fn may(&mut self, role: Option<&str>, statements: &[&str]) {
        self.attempt(role, statements, None).await;
    }

    async fn must_not(&mut self, role: Option<&str>, statements: &[&str]) {
        self.attempt(role, statements, Some(INSUFFICIENT_PRIVILEGE)).await;
    }

    /// Each statement on its own, after `SET ROLE`: a transaction around it would be refused by itself here and there.
    async fn attempt(&mut self, role: Option<&str>, statements: &[&str], expected: Option<&str>) {
        for statement in statements {
            let mut statement = (*statement).to_owned();
            for (name, value) in &self.names {
                statement = statement.replace(name, value);
            }
            if let Some(role) = role {
                execute(&mut self.connection, &format!("SET ROLE {role}")).await.unwrap();
            }
            let code = match execute(&mut self.connection, &statement).await {
                Ok(()) => None,
                Err(sqlx::Error::Database(error)) => Some(error.code().unwrap_or_default().into_owned()),
                Err(error) => panic!("{statement}: {error}"),
            };
            execute(&mut self.connection, "RESET SESSION AUTHORIZATION; RESET ROLE").await.unwrap();
            if code.as_deref() != expected {
                let verdict = code.map_or("it worked".to_owned(), |code| format!("SQLSTATE {code}"));
                self.wrong.push(format!("as {}: {statement}: {verdict}", role.unwrap_or("itself")));
            }
        }
    }

    fn all_as_expected(self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

async fn execute(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(statement).execute(connection).await.map(|_| ())
}

/// With the role's password, over the settings that the programs have.
async fn log_in(role: &str, database: &str) -> sqlx::Result<PgConnection> {
    let servers = testkit::Stores::from_environment().unwrap();
    let settings: PostgresSettings = match role {
        DATA_ROLE => servers.as_data_role().await,
        SEARCH_ROLE => servers.as_search_role().await,
        _ => servers.as_maintain_role().await,
    }
    .unwrap();
    runtime::stores::postgres_options(&settings, &servers.tls, database, "privileges").unwrap().connect().await
}

/// Two tenants, `{a}` and `{b}`, and the operator's login.
async fn names(on: &Fixture) -> Vec<(&'static str, String)> {
    let (a, b) = (tenant(), tenant());
    on.provision(&a, &[]).await;
    on.provision(&b, &[]).await;
    let leaf = format!("SELECT name FROM {}.partitions ORDER BY begins LIMIT 1", a.name().database_schema());
    let processor = on.stores.postgres.processor();
    let leaf: String = sqlx::query_scalar(&leaf).fetch_one(processor).await.unwrap();
    let operator: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(processor).await.unwrap();
    vec![
        ("{a}", a.name().database_schema()),
        ("{b}", b.name().database_schema()),
        ("{role_a}", a.name().database_role()),
        ("{role_b}", b.name().database_role()),
        ("{reader_a}", a.name().database_reader()),
        ("{reader_b}", b.name().database_reader()),
        ("{leaf}", leaf),
        ("{operator}", operator),
    ]
}

fn name<'a>(names: &'a [(&'static str, String)], of: &str) -> &'a str {
    names.iter().find(|(name, _)| *name == of).map(|(_, value)| value.as_str()).unwrap()
}

#[tokio::test]
async fn the_data_role_has_no_ddl_and_sees_one_tenant_at_a_time() {
    let on = stores().await;
    let names = names(&on).await;
    let a = Some(name(&names, "{role_a}"));
    let mut data = Somebody::new(DATA_ROLE, PROCESSOR_DATABASE, &names).await;
    for role in [None, a] {
        data.must_not(role, &ADMINISTRATION).await;
        data.must_not(role, &REGISTRIES).await;
        let of_maintain = [
            "SELECT public.ensure_partitions('{a}', now())",
            "SELECT public.drop_expired_partitions('{a}', now())",
            "SELECT public.look_at_tenants(ARRAY['{a}'], 10, interval '0')",
            "SELECT public.delete_counted_usage('{a}', now(), 10, 10)",
            "UPDATE public.index_series SET write_number = 1 WHERE false",
        ];
        data.must_not(role, &of_maintain).await;
    }
    data.must_not(None, &ROWS_OF_A).await;
    data.must_not(a, &ROWS_OF_B).await;
    data.must_not(a, &KEPT_FROM_A).await;

    data.may(a, &WORK).await;
    data.may(None, &["SELECT * FROM public.index_series", "SELECT * FROM public.tenant_schemas"]).await;
    data.all_as_expected();
}

#[tokio::test]
async fn the_maintain_role_may_call_for_partitions_and_has_no_ddl_either() {
    let on = stores().await;
    let names = names(&on).await;
    let a = Some(name(&names, "{role_a}"));
    let mut maintain = Somebody::new(MAINTAIN_ROLE, PROCESSOR_DATABASE, &names).await;
    for role in [None, a] {
        maintain.must_not(role, &ADMINISTRATION).await;
        maintain.must_not(role, &REGISTRIES).await;
    }
    maintain.must_not(None, &ROWS_OF_A).await;
    maintain.must_not(a, &ROWS_OF_B).await;
    maintain.must_not(a, &KEPT_FROM_A).await;
    // Only as itself, so that no statement inside of a tenant's transaction reaches them.
    let across = [
        "SELECT public.drop_expired_partitions('{a}', now())",
        "SELECT public.look_at_tenants(ARRAY['{b}'], 10, interval '0')",
        "SELECT public.delete_counted_usage('{b}', now(), 10, 10)",
    ];
    maintain.must_not(a, &across).await;

    maintain.may(a, &WORK).await;
    let own = [
        "SELECT * FROM public.index_series",
        "SELECT * FROM public.tenant_schemas",
        "UPDATE public.index_series SET write_number = 1, updated_at = now() WHERE series = 'none'",
        "SELECT public.ensure_partitions('{a}', now())",
        "SELECT public.drop_expired_partitions('{a}', now())",
        "SELECT public.look_at_tenants(ARRAY['{a}', '{b}'], 10, interval '0')",
        "SELECT public.delete_counted_usage('{a}', now(), 10, 10)",
    ];
    maintain.may(None, &own).await;
    maintain.all_as_expected();
}

#[tokio::test]
async fn the_search_role_reads_one_tenant_at_a_time_and_writes_marks_on_dead_letters_alone() {
    let on = stores().await;
    let names = names(&on).await;
    let reader = Some(name(&names, "{reader_a}"));
    let mut search = Somebody::new(SEARCH_ROLE, PROCESSOR_DATABASE, &names).await;
    for role in [None, reader] {
        search.must_not(role, &ADMINISTRATION).await;
        search.must_not(role, &REGISTRIES).await;
        search.must_not(role, &KEPT_FROM_A).await;
    }
    search.must_not(None, &ROWS_OF_A).await;
    search.must_not(reader, &ROWS_OF_B).await;
    search
        .must_not(None, &["SET ROLE {role_a}", "GRANT {role_a} TO {me}", "SELECT * FROM public.tenant_schemas"])
        .await;
    // Whatever others write, and what it has no use for.
    for table in ["logs", "batches", "spool", "objects", "dead_letters", "idempotency", "usage_ledger", "partitions"] {
        let delete = format!("DELETE FROM {{a}}.{table}");
        let copy = format!("COPY {{a}}.{table} FROM STDIN");
        search.must_not(reader, &[delete.as_str(), copy.as_str()]).await;
    }
    let writes = [
        "UPDATE {a}.logs SET message = 'tampered'",
        "INSERT INTO {a}.idempotency (batch_id, body_hash) VALUES (gen_random_uuid(), 'x')",
        "UPDATE {a}.batches SET indexed_at = now()",
        "UPDATE {a}.spool SET frame = 'x'",
        "UPDATE {a}.objects SET key = 'others'",
        "UPDATE {a}.dead_letters SET code = 'tampered'",
        "INSERT INTO {a}.usage_ledger (batch_id, accepted_at, key_id, events, bytes) VALUES (gen_random_uuid(), now(), 'k', 1, 1)",
        "SELECT * FROM {b}.usage_ledger",
        "SELECT * FROM {a}.idempotency",
        "SELECT * FROM {a}.archiving FOR UPDATE",
        "SELECT nextval('{a}.spool_spool_id_seq')",
        "SELECT * FROM {b}.logs",
        "SET ROLE {reader_b}; SELECT * FROM {a}.logs",
    ];
    search.must_not(reader, &writes).await;

    let work = [
        "SELECT * FROM {a}.logs",
        "SELECT * FROM {a}.batches",
        "SELECT * FROM {a}.spool",
        "SELECT * FROM {a}.objects",
        "SELECT * FROM {a}.usage_ledger",
        "UPDATE {a}.dead_letters SET redrive_at = now() WHERE event_id IN (SELECT event_id FROM {a}.dead_letters FOR UPDATE)",
        "UPDATE {a}.dead_letters SET purged_at = now(), redrive_at = NULL, raw = NULL",
    ];
    search.may(reader, &work).await;
    search.all_as_expected();
}

#[tokio::test]
async fn the_registry_and_its_keys_are_the_operators() {
    let on = stores().await;
    let names = names(&on).await;
    let mut maintain = Somebody::new(MAINTAIN_ROLE, CORE_DATABASE, &names).await;
    let usage = [
        "INSERT INTO public.usage_hourly VALUES ('{a}', now(), 1, 1)",
        "UPDATE public.usage_hourly SET events = 2 WHERE tenant = '{a}'",
        "SELECT * FROM public.usage_hourly WHERE tenant = '{a}'",
        "INSERT INTO public.usage_watermarks VALUES ('{a}', 1)",
        "UPDATE public.usage_watermarks SET ledger_id = 2 WHERE tenant = '{a}'",
    ];
    maintain.may(None, &usage).await;
    let others = [
        "SELECT digest FROM public.api_keys",
        "UPDATE public.api_keys SET revoked_at = NULL",
        "INSERT INTO public.plans VALUES ('stolen')",
        "SELECT * FROM public.tenants",
        "UPDATE public.tenants SET state = 'Active'",
        "DELETE FROM public.usage_hourly",
        "TRUNCATE public.usage_hourly",
        "CREATE TABLE public.stolen (one int)",
        "CREATE TEMPORARY TABLE stolen (one int)",
        "SELECT * FROM public._sqlx_migrations",
    ];
    maintain.must_not(None, &others).await;
    maintain.all_as_expected();

    let mut search = Somebody::new(SEARCH_ROLE, SEARCH_DATABASE, &names).await;
    let own = "INSERT INTO public.search_cache (tenant, query_hash) VALUES ('{a}', 'x')";
    search.may(None, &[own, "DELETE FROM public.search_cache WHERE tenant = '{a}'"]).await;
    let others =
        ["CREATE TABLE public.stolen (one int)", "DROP TABLE public.search_cache", "TRUNCATE public.search_cache"];
    search.must_not(None, &others).await;
    search.all_as_expected();

    for (role, database) in [
        (DATA_ROLE, CORE_DATABASE),
        (DATA_ROLE, SEARCH_DATABASE),
        (MAINTAIN_ROLE, SEARCH_DATABASE),
        (SEARCH_ROLE, CORE_DATABASE),
    ] {
        let Err(sqlx::Error::Database(refused)) = log_in(role, database).await else {
            panic!("{role} can connect to {database}");
        };
        assert_eq!(refused.code().as_deref(), Some(INSUFFICIENT_PRIVILEGE), "{role} on {database}: {refused}");
    }
}

/// The login of these tests has made the databases and roles, and provisions every tenant of every test.
#[tokio::test]
async fn the_operator_needs_createdb_and_createrole_and_is_no_superuser() {
    let on = stores().await;
    let names = names(&on).await;
    let attributes: (bool, bool, bool, bool, bool) = sqlx::query_as(
        "SELECT rolcreatedb, rolcreaterole, rolsuper, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(on.stores.postgres.processor())
    .await
    .unwrap();
    assert_eq!(attributes, (true, true, false, false, false), "CREATEDB, CREATEROLE and nothing else");
    // From PostgreSQL 16 on, whoever makes a role administers it, which is a membership that gives no right of the role's.
    let member = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
                  WHERE r.rolname = current_user AND NOT m.admin_option";
    assert_eq!(on.count(member).await, 0, "it is a member of no role");

    let operator = name(&names, "{operator}");
    let mut server = on.stores.postgres.processor().acquire().await.unwrap();
    for (statement, works) in [
        ("SELECT rolpassword FROM pg_authid".to_owned(), false),
        (format!("ALTER ROLE {operator} SUPERUSER"), false),
        ("CREATE ROLE lh_stolen SUPERUSER".to_owned(), false),
        ("ALTER SYSTEM SET work_mem = '1GB'".to_owned(), false),
        ("COPY (SELECT 1) TO PROGRAM 'true'".to_owned(), false),
        (format!("DROP SCHEMA {} CASCADE", name(&names, "{b}")), true),
    ] {
        let code = match execute(&mut server, &statement).await {
            Ok(()) => None,
            Err(sqlx::Error::Database(error)) => error.code().map(|code| code.into_owned()),
            Err(error) => panic!("{statement}: {error}"),
        };
        assert_eq!(code.as_deref(), (!works).then_some(INSUFFICIENT_PRIVILEGE), "{statement}");
    }
}

/// The instance's superuser has the password of LoggerHub's login.
async fn superuser(servers: &testkit::Stores, database: &str) -> PgConnection {
    let options = runtime::stores::postgres_options(&servers.postgres, &servers.tls, database, "privileges");
    options.unwrap().username("postgres").connect().await.unwrap()
}

/// What the shipped script is for, and the local instance's PostgreSQL begins with. Doing it again changes nothing.
#[tokio::test]
async fn after_the_shipped_script_only_the_operator_connects_to_the_databases_of_every_server() {
    const SCRIPT: &str = include_str!("../../../charts/loggerhub/files/access/postgres-own-server.sql");
    let on = stores().await;
    let names = names(&on).await;
    let servers = testkit::Stores::from_environment().unwrap();
    let script = SCRIPT.replace("lh_operator", name(&names, "{operator}"));
    execute(&mut superuser(&servers, "postgres").await, &script).await.unwrap();
    for (role, database) in
        [DATA_ROLE, MAINTAIN_ROLE, SEARCH_ROLE].map(|role| [(role, "postgres"), (role, "template1")]).concat()
    {
        let Err(sqlx::Error::Database(refused)) = log_in(role, database).await else {
            panic!("{role} can connect to {database}");
        };
        assert_eq!(refused.code().as_deref(), Some(INSUFFICIENT_PRIVILEGE), "{role} on {database}: {refused}");
    }
    on.stores.postgres.ping().await.unwrap();
    on.stores.postgres.bootstrap(&testkit::tenant::role_passwords().await.unwrap()).await.unwrap();
}

/// What the shipped script is for. A database of the test's own, since others need theirs as they are.
#[tokio::test]
async fn after_the_shipped_script_nobody_makes_large_objects() {
    const SCRIPT: &str = include_str!("../../../charts/loggerhub/files/access/postgres-large-objects.sql");
    const MAKE: [&str; 4] = [
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'stolen')",
        "SELECT lo_put(lo_from_bytea(0, 'stolen'), 0, 'more')",
    ];
    let on = stores().await;
    let names = names(&on).await;
    let database = testkit::unique("large").replace('-', "_");
    let servers = testkit::Stores::from_environment().unwrap();
    let superuser = async |database: &str| superuser(&servers, database).await;
    execute(&mut superuser("postgres").await, &format!("CREATE DATABASE {database}")).await.unwrap();
    let mut inside = superuser(&database).await;
    for role in [DATA_ROLE, MAINTAIN_ROLE, SEARCH_ROLE] {
        let mut somebody = Somebody::new(role, &database, &names).await;
        somebody.may(None, &MAKE).await;
        execute(&mut inside, SCRIPT).await.unwrap();
        somebody.must_not(None, &MAKE).await;
        somebody.must_not(None, &["SELECT lo_open(1, 131072)", "SELECT lowrite(0, 'stolen')"]).await;
        somebody.must_not(None, &["SELECT lo_truncate(0, 1)", "SELECT lo_truncate64(0, 1)"]).await;
        somebody.all_as_expected();
        execute(&mut inside, &SCRIPT.replace("REVOKE", "GRANT").replace("FROM PUBLIC", "TO PUBLIC")).await.unwrap();
    }
    drop(inside);
    execute(&mut superuser("postgres").await, &format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
}

/// The same of the locks of maintain and the operator.
#[tokio::test]
async fn after_the_shipped_script_only_maintain_and_the_operator_take_locks() {
    const SCRIPT: &str = include_str!("../../../charts/loggerhub/files/access/postgres-locks.sql");
    const TAKE: [&str; 8] = [
        "SELECT pg_advisory_lock(1), pg_advisory_unlock_all()",
        "SELECT pg_advisory_lock_shared(1, 1), pg_advisory_unlock_all()",
        "SELECT pg_try_advisory_lock(1, 1), pg_advisory_unlock_all()",
        "SELECT pg_try_advisory_lock_shared(1), pg_advisory_unlock_all()",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_advisory_xact_lock_shared(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_xact_lock_shared(1, 1)",
    ];
    let on = stores().await;
    let names = names(&on).await;
    let database = testkit::unique("locks").replace('-', "_");
    let servers = testkit::Stores::from_environment().unwrap();
    execute(&mut superuser(&servers, "postgres").await, &format!("CREATE DATABASE {database}")).await.unwrap();
    let script = SCRIPT.replace("lh_operator", name(&names, "{operator}"));
    let mut search = Somebody::new(SEARCH_ROLE, &database, &names).await;
    search.may(None, &TAKE).await;
    execute(&mut superuser(&servers, &database).await, &script).await.unwrap();
    search.must_not(None, &TAKE).await;
    let mut data = Somebody::new(DATA_ROLE, &database, &names).await;
    data.must_not(None, &TAKE).await;
    let mut maintain = Somebody::new(MAINTAIN_ROLE, &database, &names).await;
    maintain.may(None, &TAKE).await;
    for somebody in [search, data, maintain] {
        somebody.all_as_expected();
    }
    execute(&mut superuser(&servers, "postgres").await, &format!("DROP DATABASE {database} WITH (FORCE)"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_forged_list_of_partitions_drops_no_other_table() {
    let on = stores().await;
    let names = names(&on).await;
    let a = name(&names, "{a}");
    let forged = format!(
        "INSERT INTO {a}.partitions VALUES ('batches', '1970-01-01', '1970-01-02'), ('gone', '1970-01-03', '1970-01-04');
         UPDATE {a}.partitions SET begins = '1971-01-01', ends = '1971-01-02' WHERE name = '{leaf}'",
        leaf = name(&names, "{leaf}")
    );
    on.processor(&forged).await;
    let listed = format!("SELECT count(*) FROM {a}.partitions");
    let before = on.count(&listed).await;
    let mut maintain = Somebody::new(MAINTAIN_ROLE, PROCESSOR_DATABASE, &names).await;
    maintain.may(None, &["SELECT public.drop_expired_partitions('{a}', now())"]).await;
    maintain.all_as_expected();
    let left = |name: &str| format!("SELECT count(*) FROM pg_class WHERE oid = to_regclass('{a}.{name}')");
    assert_eq!(on.count(&left("batches")).await, 1);
    assert_eq!(on.count(&left(name(&names, "{leaf}"))).await, 0, "it is dropped as any old one");
    assert_eq!(on.count(&listed).await, before - 3, "and what is not there is not listed");
}

#[tokio::test]
async fn the_operator_provisions_and_removes_with_its_policy_and_its_role_of_opensearch() {
    let mut on = stores().await;
    let servers = testkit::Stores::from_environment().unwrap();
    let proxy = RoleProxy::start(&servers.opensearch, "loggerhub_operator").await.unwrap();
    let opensearch = runtime::stores::opensearch(&proxy.settings(), &servers.tls).unwrap();
    on.stores.search = Search::new(opensearch, INSTALLATION, Shape::default());
    for (layout, prefix, policy) in [
        (BucketLayout::PerTenant, "lh-", shipped::OPERATOR),
        (BucketLayout::Shared, "provision-privileges", shipped::OPERATOR_SHARED),
    ] {
        on.stores.object_store = ObjectStore::new(servers.s3_by(policy, prefix).await.unwrap());
        for isolation in [Isolation::Shared, Isolation::Dedicated] {
            let mut desired = tenant();
            desired.archive = desired.name().archive(layout, prefix);
            desired.isolation = isolation;
            on.provision(&desired, &[key()]).await;
            assert_eq!(on.provision(&desired, &[]).await.object_store, Outcome::Unchanged);
            let object = format!("{}logs/1", desired.archive.prefix);
            let put = on.s3.put_object().bucket(&desired.archive.bucket).key(object).body(b"x".to_vec().into());
            put.send().await.unwrap();
            on.stores.object_store.keep(&desired.owner, &desired.archive).await.unwrap();
            let removed = delete_tenant(&on.stores, &desired.owner, &desired.archive, |_| {}).await;
            assert_eq!(removed.unwrap_or_else(|error| panic!("{}", crate::stores::chain(&error))), Retired::Done);
        }
        on.stores.object_store.ping().await.unwrap();
    }
    on.stores.search.ping().await.unwrap();
    assert!(proxy.refused().is_empty(), "{:#?}", proxy.refused());
    let passed = proxy.passed();
    for call in [
        "GET /",
        "GET /_cluster/settings",
        "GET /_index_template/{name}",
        "PUT /{index}",
        "POST /_aliases",
        "POST /{index}/_delete_by_query",
        "DELETE /{index}/_alias/{alias}",
        "DELETE /{index}",
    ] {
        assert!(passed.contains(call), "{call} is not among {passed:#?}");
    }
    // It reads no log and has no cluster.
    let client = runtime::stores::opensearch(&proxy.settings(), &servers.tls).unwrap();
    let beyond = [
        (Method::Get, "/_search"),
        (Method::Get, "/lh-hot7-p1-000001/_doc/1"),
        (Method::Post, "/lh-hot7-p1-000001/_doc"),
        (Method::Delete, "/others"),
        (Method::Delete, "/_all"),
        (Method::Post, "/others/_delete_by_query"),
        (Method::Get, "/_snapshot"),
        (Method::Put, "/_snapshot/stolen"),
        (Method::Post, "/_reindex"),
        (Method::Get, "/_nodes"),
    ];
    for (method, path) in beyond {
        let answer = client.send(method, path, HeaderMap::new(), None::<&()>, Some("{}"), None).await.unwrap();
        assert_eq!(answer.status_code().as_u16(), 403, "{path}");
    }
    assert_eq!(proxy.refused().len(), beyond.len(), "{:#?}", proxy.refused());
}

#[tokio::test]
async fn the_operators_policy_reads_no_log_and_reaches_no_other_bucket() -> anyhow::Result<()> {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    let servers = testkit::Stores::from_environment()?;
    let other = testkit::unique("others");
    on.s3.create_bucket().bucket(&other).send().await?;
    let own = desired.archive.bucket.clone();
    for (policy, prefix) in [(shipped::OPERATOR, "lh-"), (shipped::OPERATOR_SHARED, own.as_str())] {
        let s3 = servers.s3_by(policy, prefix).await?;
        let object = |bucket: &str| s3.put_object().bucket(bucket).key("logs/x").body(b"x".to_vec().into()).send();
        denied("write a log", object(&own).await)?;
        denied("read a log", s3.get_object().bucket(&own).key("logs/x").send().await)?;
        denied("write elsewhere", object(&other).await)?;
        denied("list another bucket", s3.list_objects_v2().bucket(&other).send().await)?;
        denied("delete another bucket", s3.delete_bucket().bucket(&other).send().await)?;
        denied("make another bucket", s3.create_bucket().bucket(testkit::unique("others")).send().await)?;
        denied("open a bucket", s3.put_bucket_policy().bucket(&own).policy("{}").send().await)?;
        sees_only(&s3, prefix).await?;
    }
    // One bucket for all is never deleted.
    let s3 = servers.s3_by(shipped::OPERATOR_SHARED, &own).await?;
    denied("delete the shared bucket", s3.delete_bucket().bucket(&own).send().await)?;
    on.s3.delete_bucket().bucket(&other).send().await?;
    let removed = delete_tenant(&on.stores, &desired.owner, &desired.archive, |_| {}).await?;
    assert_eq!(removed, Retired::Done);
    Ok(())
}
