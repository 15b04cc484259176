//! A tenant's schema and roles in `loggerhub_processor_db`, from a versioned template.
//!
//! The template is a list of steps, one a version, each of which only adds, or takes rights that nobody used,
//! and may run again. So to build, to repair and to bring a schema to a newer version is one thing: run them all.
//!
//! Looking is one query on the catalog. The template itself is run only where something is
//! missing, because its `CREATE INDEX IF NOT EXISTS` and `ALTER TABLE` wait for writers even where
//! nothing is to be done.

use std::time::SystemTime;

use sqlx::{Connection, Executor, PgConnection, Row};
use time::OffsetDateTime;

use crds::names::{DATA_ROLE, MAINTAIN_ROLE, SEARCH_ROLE};

use super::{Postgres, usage};
use crate::fail_points::{Point, reach};
use crate::provision::error::PostgresContext;
use crate::provision::marker::Ownership;
use crate::provision::{DesiredTenant, Error, Outcome, Owner};

/// The template: what each version adds to the one before.
const STEPS: [&str; 8] = [
    include_str!("../tenant_schema_v1.sql"),
    include_str!("../tenant_schema_v2.sql"),
    include_str!("../tenant_schema_v3.sql"),
    include_str!("../tenant_schema_v4.sql"),
    include_str!("../tenant_schema_v5.sql"),
    include_str!("../tenant_schema_v6.sql"),
    include_str!("../tenant_schema_v7.sql"),
    include_str!("../tenant_schema_v8.sql"),
];
/// The version that all steps together are.
const VERSION: i32 = STEPS.len() as i32;
/// Tables that the tenant's reader reads: what search shows.
const READ: [&str; 6] = ["logs", "batches", "objects", "spool", "dead_letters", "usage_ledger"];

/// What the catalog says of a tenant's schema and role.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    schema: bool,
    schema_marker: Option<String>,
    role: bool,
    role_marker: Option<String>,
    reader: bool,
    reader_marker: Option<String>,
    /// Version and total_days in `tenant_schemas`.
    registered: Option<(i32, i32)>,
    /// How many of the template's tables and indices are there.
    relations: usize,
    /// Whether role and reader may do what the template grants them, and no more.
    granted: bool,
    /// Whether the platform's roles are members of the role and of the reader.
    members: bool,
    /// Whether `logs` has a leaf for this moment.
    covered: bool,
    /// Whether it has the one after that.
    covered_ahead: bool,
}

/// What is to be done about a schema.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing.
    Keep,
    /// Make the partitions that are missing.
    Partition(Outcome),
    /// Run the template and everything around it.
    Build(Outcome),
}

impl Postgres {
    /// Ensures schema, role, grants, tables, marker and the partitions around `now`.
    pub async fn ensure_schema(&self, desired: &DesiredTenant, now: SystemTime) -> Result<Outcome, Error> {
        let now = now.into();
        let mut connection = self.processor.acquire().await.doing("connect to the processor database")?;
        // Nearly always nothing is to be done, and one statement tells.
        if plan(desired, &look(&mut connection, &desired.owner, now).await?)? == Plan::Keep {
            return Ok(Outcome::Unchanged);
        }
        let mut transaction = connection.begin().await.doing("begin in the processor database")?;
        // One writer per tenant, also when two operators believe that they lead.
        lock(&mut transaction, &desired.owner).await?;
        let found = look(&mut transaction, &desired.owner, now).await?;
        let plan = plan(desired, &found)?;
        if let Plan::Build(_) = plan {
            build(&mut transaction, desired, &found).await?;
        }
        ensure_partitions(&mut transaction, &desired.owner, now).await?;
        reach(Point::SchemaUncommitted);
        transaction.commit().await.doing("commit the tenant's schema")?;
        reach(Point::SchemaBuilt);
        Ok(match plan {
            Plan::Keep => Outcome::Unchanged,
            Plan::Partition(outcome) | Plan::Build(outcome) => outcome,
        })
    }

    /// The number of the index that a series is written to now; a new series begins with 1.
    pub async fn ensure_series(&self, series: &str, hot_days: i32) -> Result<i64, Error> {
        let registered =
            sqlx::query_scalar("SELECT write_number FROM public.index_series WHERE series = $1 AND hot_days = $2")
                .bind(series)
                .bind(hot_days)
                .fetch_optional(&self.processor)
                .await
                .doing("look up the series of indices")?;
        if let Some(number) = registered {
            return Ok(number);
        }
        sqlx::query_scalar(
            "INSERT INTO public.index_series AS s (series, hot_days, write_number) VALUES ($1, $2, 1) \
             ON CONFLICT (series) DO UPDATE SET hot_days = $2 RETURNING write_number",
        )
        .bind(series)
        .bind(hot_days)
        .fetch_one(&self.processor)
        .await
        .doing("register the series of indices")
    }

    /// Removes schema, role and registry row of a tenant, with all its rows; what it has used is billed before. Only
    /// what is ours; whatever is gone already is fine.
    pub async fn delete(&self, owner: &Owner) -> Result<(), Error> {
        let mut transaction = self.processor.begin().await.doing("begin in the processor database")?;
        lock(&mut transaction, owner).await?;
        let found = look(&mut transaction, owner, OffsetDateTime::now_utc()).await?;
        let (schema, role) = (owner.tenant.database_schema(), owner.tenant.database_role());
        let reader = owner.tenant.database_reader();
        if found.schema {
            ours(owner, &format!("schema `{schema}`"), found.schema_marker.as_deref())?;
            usage::settle(&self.core, &mut transaction, &owner.tenant).await?;
            execute(&mut transaction, format!("DROP SCHEMA \"{schema}\" CASCADE"), "drop the tenant's schema").await?;
        }
        if found.role {
            ours(owner, &format!("role `{role}`"), found.role_marker.as_deref())?;
            execute(&mut transaction, format!("DROP ROLE \"{role}\""), "drop the tenant's role").await?;
        }
        if found.reader {
            ours(owner, &format!("role `{reader}`"), found.reader_marker.as_deref())?;
            execute(&mut transaction, format!("DROP ROLE \"{reader}\""), "drop the tenant's reader").await?;
        }
        sqlx::query("DELETE FROM public.tenant_schemas WHERE tenant = $1")
            .bind(owner.tenant.as_str())
            .execute(&mut *transaction)
            .await
            .doing("forget the tenant's schema")?;
        sqlx::query("DELETE FROM public.index_series WHERE series = $1")
            .bind(owner.tenant.dedicated_series())
            .execute(&mut *transaction)
            .await
            .doing("forget the tenant's series of indices")?;
        reach(Point::SchemaUndropped);
        transaction.commit().await.doing("commit the removal of the tenant's schema")?;
        reach(Point::SchemaDropped);
        self.forget(owner).await
    }

    /// Removes the registry row; what was used stays for billing. The watermark goes, because a
    /// tenant of that name that comes later counts its ledger from 1 again.
    async fn forget(&self, owner: &Owner) -> Result<(), Error> {
        let mut transaction = self.core.begin().await.doing("begin in the core database")?;
        let removed = sqlx::query("DELETE FROM public.tenants WHERE name = $1 AND installation = $2")
            .bind(owner.tenant.as_str())
            .bind(&owner.installation)
            .execute(&mut *transaction)
            .await
            .doing("remove the tenant's registry row")?;
        if removed.rows_affected() > 0 {
            sqlx::query("DELETE FROM public.usage_watermarks WHERE tenant = $1")
                .bind(owner.tenant.as_str())
                .execute(&mut *transaction)
                .await
                .doing("remove the tenant's usage watermark")?;
        }
        transaction.commit().await.doing("commit the removal of the tenant")
    }
}

async fn lock(processor: &mut PgConnection, owner: &Owner) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('loggerhub:tenant:' || $1, 0))")
        .bind(owner.tenant.as_str())
        .execute(processor)
        .await
        .doing("wait for the tenant's lock")?;
    Ok(())
}

async fn look(processor: &mut PgConnection, owner: &Owner, now: OffsetDateTime) -> Result<Found, Error> {
    // What a schema holds is found by its dependencies: pg_class has no index by schema alone, and a thousand
    // tenants have tens of thousands of relations.
    let row = sqlx::query(
        "SELECT n.oid IS NOT NULL AS schema, obj_description(n.oid, 'pg_namespace') AS schema_marker, \
                r.oid IS NOT NULL AS role, shobj_description(r.oid, 'pg_authid') AS role_marker, \
                rd.oid IS NOT NULL AS reader, shobj_description(rd.oid, 'pg_authid') AS reader_marker, \
                s.version, s.total_days, \
                (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = ANY($3)) AS relations, \
                coalesce(has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_schema_privilege(rd.oid, n.oid, 'USAGE'), false) \
                AND (SELECT count(*) = cardinality($6) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = ANY($6) \
                     AND has_table_privilege(rd.oid, c.oid, 'SELECT') \
                     AND has_any_column_privilege(rd.oid, c.oid, 'UPDATE') = (c.relname = 'dead_letters')) \
                AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid \
                                WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid \
                                AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'S') \
                                AND NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE') \
                                ELSE has_table_privilege(r.oid, c.oid, 'SELECT') \
                                AND has_table_privilege(r.oid, c.oid, 'INSERT') = (c.relname <> 'partitions') \
                                AND has_table_privilege(r.oid, c.oid, 'UPDATE') = (c.relname NOT IN ('partitions', 'usage_ledger')) \
                                AND has_table_privilege(r.oid, c.oid, 'DELETE') = (c.relname NOT IN ('partitions', 'usage_ledger')) \
                                AND NOT has_table_privilege(rd.oid, c.oid, 'INSERT, UPDATE, DELETE') END) \
                AS granted, \
                (SELECT count(*) FROM pg_auth_members m JOIN pg_roles p ON p.oid = m.member \
                 WHERE m.roleid = r.oid AND p.rolname = ANY($4)) >= 2 \
                AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles p ON p.oid = m.member \
                            WHERE m.roleid = rd.oid AND p.rolname = $7) AS members, \
                leaves.covered, leaves.covered_ahead \
         FROM (SELECT) AS one \
         LEFT JOIN pg_namespace n ON n.nspname = $1 \
         LEFT JOIN pg_roles r ON r.rolname = $2 \
         LEFT JOIN pg_roles rd ON rd.rolname = $8 \
         LEFT JOIN public.tenant_schemas s ON s.schema_name = $1 \
         CROSS JOIN LATERAL ( \
             SELECT coalesce(bool_or(bounds[1] <= at[1] AND bounds[2] > at[1]), false) AS covered, \
                    coalesce(bool_or(bounds[1] <= at[2] AND bounds[2] > at[2]), false) AS covered_ahead \
             FROM (SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(.*)''\\) TO \\(''(.*)''\\)')::uuid[] AS bounds \
                   FROM pg_class p JOIN pg_inherits i ON i.inhparent = p.oid JOIN pg_class c ON c.oid = i.inhrelid \
                   WHERE p.relnamespace = n.oid AND p.relname = 'logs') AS leaf \
             CROSS JOIN (SELECT ARRAY[public.uuid_floor($5), \
                                      public.uuid_floor($5 + make_interval(days => public.partition_days(s.total_days)))] AS at) AS moments \
         ) AS leaves",
    )
    .bind(owner.tenant.database_schema())
    .bind(owner.tenant.database_role())
    .bind(relations(&STEPS))
    .bind([DATA_ROLE, MAINTAIN_ROLE].as_slice())
    .bind(now)
    .bind(READ.as_slice())
    .bind(SEARCH_ROLE)
    .bind(owner.tenant.database_reader())
    .fetch_one(processor)
    .await
    .doing("look at the tenant's schema")?;
    let version: Option<i32> = row.get("version");
    let total_days: Option<i32> = row.get("total_days");
    Ok(Found {
        schema: row.get("schema"),
        schema_marker: row.get("schema_marker"),
        role: row.get("role"),
        role_marker: row.get("role_marker"),
        reader: row.get("reader"),
        reader_marker: row.get("reader_marker"),
        registered: version.zip(total_days),
        relations: usize::try_from(row.get::<i64, _>("relations")).unwrap_or(0),
        granted: row.get("granted"),
        members: row.get("members"),
        covered: row.get("covered"),
        covered_ahead: row.get("covered_ahead"),
    })
}

/// Tables and indices that the steps make: read from their text, so that no second list can lag.
fn relations<'a>(steps: &[&'a str]) -> Vec<&'a str> {
    let name = |line: &'_ str| -> Option<usize> {
        ["CREATE TABLE IF NOT EXISTS {schema}.", "CREATE INDEX IF NOT EXISTS "]
            .iter()
            .find(|prefix| line.starts_with(**prefix))
            .map(|prefix| prefix.len())
    };
    steps
        .iter()
        .flat_map(|step| step.lines())
        .filter_map(|line| name(line).map(|at| &line[at..]))
        .filter_map(|rest| rest.split([' ', '(']).next())
        .collect()
}

/// Decides what is to be done, or that the schema or role is not ours.
fn plan(desired: &DesiredTenant, found: &Found) -> Result<Plan, Error> {
    let owner = &desired.owner;
    let mut marked = true;
    if found.schema {
        let thing = format!("schema `{}`", owner.tenant.database_schema());
        marked &= marked_ours(desired, &thing, found.schema_marker.as_deref())?;
    }
    if found.role {
        let thing = format!("role `{}`", owner.tenant.database_role());
        marked &= marked_ours(desired, &thing, found.role_marker.as_deref())?;
    }
    if found.reader {
        let thing = format!("role `{}`", owner.tenant.database_reader());
        marked &= marked_ours(desired, &thing, found.reader_marker.as_deref())?;
    }
    let complete = found.schema
        && found.role
        && found.reader
        && marked
        // A newer operator's schema is left as it is: it has everything that we need.
        && found.registered.is_some_and(|(version, days)| version >= VERSION && days == desired.retention.total_days)
        && found.relations >= relations(&STEPS).len()
        && found.granted
        && found.members;
    Ok(match (complete, found.schema) {
        (true, _) if found.covered && found.covered_ahead => Plan::Keep,
        // To make the next one ahead is no repair.
        (true, _) if found.covered => Plan::Partition(Outcome::Unchanged),
        (true, _) => Plan::Partition(Outcome::Updated),
        (false, true) => Plan::Build(Outcome::Updated),
        (false, false) => Plan::Build(Outcome::Created),
    })
}

/// Whether the marker is as it should be; an error if it is foreign and not to be adopted.
fn marked_ours(desired: &DesiredTenant, thing: &str, marker: Option<&str>) -> Result<bool, Error> {
    match desired.owner.judge(marker) {
        Ownership::Ours => Ok(true),
        Ownership::OursBefore => Ok(false),
        Ownership::Foreign { .. } if desired.adopt => Ok(false),
        Ownership::Foreign { says } => Err(Error::OwnershipConflict { thing: thing.to_owned(), says }),
    }
}

/// An error if the marker is foreign: for removal, where nothing is adopted.
fn ours(owner: &Owner, thing: &str, marker: Option<&str>) -> Result<(), Error> {
    match owner.judge(marker) {
        Ownership::Ours | Ownership::OursBefore => Ok(()),
        Ownership::Foreign { says } => Err(Error::OwnershipConflict { thing: thing.to_owned(), says }),
    }
}

async fn build(processor: &mut PgConnection, desired: &DesiredTenant, found: &Found) -> Result<(), Error> {
    let owner = &desired.owner;
    let (schema, role) = (owner.tenant.database_schema(), owner.tenant.database_role());
    let reader = owner.tenant.database_reader();
    if !found.role {
        execute(processor, format!("CREATE ROLE \"{role}\" NOLOGIN"), "create the tenant's role").await?;
    }
    if !found.reader {
        execute(processor, format!("CREATE ROLE \"{reader}\" NOLOGIN"), "create the tenant's reader").await?;
    }
    if found.schema {
        // What is created below has it by the schema's default privileges. This reads the whole of pg_class. It comes
        // first, because the steps take back what is too much.
        let grant = format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"{schema}\" TO \"{role}\"; \
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA \"{schema}\" TO \"{role}\""
        );
        execute(processor, grant, "grant the tenant's role what its tables need").await?;
    }
    // The steps lock tables even where they change nothing. Whoever comes meanwhile waits behind us, while we wait for
    // whoever is there, which may be pg_dump: not for longer than a writer bears. The next reconciliation tries again.
    execute(processor, "SET LOCAL lock_timeout = '2s'".to_owned(), "wait for the tenant's tables").await?;
    for step in STEPS {
        let names = [("{schema}", &schema), ("{role}", &role), ("{reader}", &reader)];
        let step =
            names.iter().fold(step.to_owned(), |step, (name, value)| step.replace(name, &format!("\"{value}\"")));
        execute(processor, step, "run the template of the tenant's schema").await?;
    }
    let grant = format!("GRANT \"{role}\" TO {DATA_ROLE}, {MAINTAIN_ROLE}; GRANT \"{reader}\" TO {SEARCH_ROLE}");
    execute(processor, grant, "let the platform's roles act as the tenant's").await?;
    // COMMENT takes no parameters: the server quotes the marker.
    let comment: String = sqlx::query_scalar(
        "SELECT format('COMMENT ON SCHEMA %1$I IS %4$L; COMMENT ON ROLE %2$I IS %4$L; COMMENT ON ROLE %3$I IS %4$L', \
                       $1::text, $2::text, $3::text, $4::text)",
    )
    .bind(&schema)
    .bind(&role)
    .bind(&reader)
    .bind(owner.marker())
    .fetch_one(&mut *processor)
    .await
    .doing("quote the owner marker")?;
    execute(processor, comment, "mark the tenant's schema and roles").await?;
    sqlx::query(
        "INSERT INTO public.tenant_schemas (schema_name, tenant, version, total_days) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (schema_name) DO UPDATE SET version = greatest(tenant_schemas.version, $3), total_days = $4",
    )
    .bind(&schema)
    .bind(owner.tenant.as_str())
    .bind(VERSION)
    .bind(desired.retention.total_days)
    .execute(processor)
    .await
    .doing("register the tenant's schema")?;
    Ok(())
}

/// Ensures the partitions around `now`.
async fn ensure_partitions(processor: &mut PgConnection, owner: &Owner, now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query("SELECT public.ensure_partitions($1, $2)")
        .bind(owner.tenant.database_schema())
        .bind(now)
        .execute(processor)
        .await
        .doing("ensure the tenant's partitions")?;
    Ok(())
}

/// Runs statements made of checked names and of what the server quoted.
async fn execute(processor: &mut PgConnection, statements: String, doing: &'static str) -> Result<(), Error> {
    processor.execute(&*statements).await.doing(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::testing::acme;

    fn complete() -> Found {
        Found {
            schema: true,
            schema_marker: Some(acme().owner.marker()),
            role: true,
            role_marker: Some(acme().owner.marker()),
            reader: true,
            reader_marker: Some(acme().owner.marker()),
            registered: Some((VERSION, acme().retention.total_days)),
            relations: relations(&STEPS).len(),
            granted: true,
            members: true,
            covered: true,
            covered_ahead: true,
        }
    }

    #[test]
    fn the_templates_relations_are_found_in_its_text() {
        let relations = relations(&STEPS);
        for name in ["partitions", "spool", "objects", "batches", "idempotency", "logs", "usage_ledger", "dead_letters"]
        {
            assert!(relations.contains(&name), "{name}");
        }
        assert!(relations.contains(&"logs_newest_first") && relations.contains(&"dead_letters_to_redrive"));
    }

    #[test]
    fn a_complete_schema_is_kept_and_anything_missing_is_built() {
        assert_eq!(plan(&acme(), &complete()).unwrap(), Plan::Keep);
        let newer = Found { registered: Some((VERSION + 1, acme().retention.total_days)), ..complete() };
        assert_eq!(plan(&acme(), &newer).unwrap(), Plan::Keep);
        let updated = Plan::Build(Outcome::Updated);
        let before = Owner { uid: "an earlier one's".into(), ..acme().owner };
        for found in [
            Found { relations: 1, ..complete() },
            Found { granted: false, ..complete() },
            Found { members: false, ..complete() },
            Found { role: false, role_marker: None, ..complete() },
            Found { reader: false, reader_marker: None, ..complete() },
            Found { registered: None, ..complete() },
            Found { registered: Some((VERSION - 1, acme().retention.total_days)), ..complete() },
            Found { registered: Some((VERSION, 1)), ..complete() },
            Found { schema_marker: Some(before.marker()), ..complete() },
        ] {
            assert_eq!(plan(&acme(), &found).unwrap(), updated, "{found:?}");
        }
        for (covered, covered_ahead, outcome) in
            [(true, false, Outcome::Unchanged), (false, true, Outcome::Updated), (false, false, Outcome::Updated)]
        {
            let found = Found { covered, covered_ahead, ..complete() };
            assert_eq!(plan(&acme(), &found).unwrap(), Plan::Partition(outcome), "{found:?}");
        }
        let nothing = Found { schema: false, role: false, reader: false, ..complete() };
        assert_eq!(plan(&acme(), &nothing).unwrap(), Plan::Build(Outcome::Created));
    }

    #[test]
    fn what_is_not_ours_is_refused_unless_it_is_to_be_adopted() {
        let foreign = Found { schema_marker: None, ..complete() };
        assert!(matches!(plan(&acme(), &foreign), Err(Error::OwnershipConflict { .. })));
        let adopting = DesiredTenant { adopt: true, ..acme() };
        assert_eq!(plan(&adopting, &foreign).unwrap(), Plan::Build(Outcome::Updated));
    }
}
