//! A schema of the version before is brought to this one, with what it holds.

use operator::provision::Outcome;

use crate::stores::{stores, tenant};

/// The step that version 1 was.
const VERSION_1: &str = include_str!("../../src/provision/tenant_schema_v1.sql");

#[tokio::test]
async fn a_schema_of_version_1_is_upgraded_and_keeps_what_it_holds() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    let (schema, role) = (desired.name().database_schema(), desired.name().database_role());
    // As an operator of version 1 left it, in use ever since.
    let marker = desired.owner.marker();
    on.processor(&format!(
        "DROP SCHEMA {schema} CASCADE;
         {template};
         COMMENT ON SCHEMA {schema} IS '{marker}';
         UPDATE public.tenant_schemas SET version = 1 WHERE schema_name = '{schema}';
         SELECT public.ensure_partitions('{schema}', now());
         INSERT INTO {schema}.batches (batch_id, accepted_at, key_id, pipeline, pipeline_generation, index_name, events,
                                       dead_letters, raw_bytes, raw_start, spool_id)
         VALUES ('00000000-0000-8000-8000-000000000001', now(), 'k', 'default', 1, 'i', 1, 1, 9, 0, 1);
         INSERT INTO {schema}.logs (event_id, event_time, batch_id, raw_offset, raw_length, level, service, message)
         VALUES (public.uuid_floor(now()), now(), '00000000-0000-8000-8000-000000000001', 0, 4, 'INFO', 's', 'm');
         INSERT INTO {schema}.dead_letters (event_id, batch_id, raw_offset, raw_length, code, error, pipeline, pipeline_generation)
         VALUES (gen_random_uuid(), '00000000-0000-8000-8000-000000000001', 4, 5, 'invalid_json', 'no', 'default', 1)",
        template = VERSION_1.replace("{schema}", &schema).replace("{role}", &role),
    ))
    .await;

    assert_eq!(on.provision(&desired, &[]).await.database, Outcome::Updated);
    assert_eq!(on.provision(&desired, &[]).await.database, Outcome::Unchanged);
    let version = format!("SELECT version::bigint FROM public.tenant_schemas WHERE schema_name = '{schema}'");
    assert_eq!(on.count(&version).await, 8);
    for kept in [
        "SELECT count(*) FROM {}.logs WHERE message = 'm'",
        "SELECT count(*) FROM {}.batches WHERE first_batch_id IS NULL AND dropped = 0",
        "SELECT count(*) FROM {}.dead_letters WHERE attempts = 1 AND redrive_at IS NULL AND purged_at IS NULL",
    ] {
        assert_eq!(on.count(&kept.replace("{}", &schema)).await, 1, "{kept}");
    }
}

#[tokio::test]
async fn the_schema_of_a_newer_operator_is_left_as_it_is() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    let schema = desired.name().database_schema();
    on.processor(&format!("UPDATE public.tenant_schemas SET version = 99 WHERE schema_name = '{schema}'")).await;
    assert_eq!(on.provision(&desired, &[]).await.database, Outcome::Unchanged);
    on.processor(&format!("DROP TABLE {schema}.idempotency")).await;
    assert_eq!(on.provision(&desired, &[]).await.database, Outcome::Updated);
    let version = format!("SELECT version::bigint FROM public.tenant_schemas WHERE schema_name = '{schema}'");
    assert_eq!(on.count(&version).await, 99, "repaired, and still what it was");
}

#[tokio::test]
async fn the_databases_of_a_newer_operator_are_left_as_they_are() {
    let on = stores().await;
    // A step that this operator does not know, as after a rollback.
    on.processor(
        "INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of a newer operator', true, '', 0) ON CONFLICT DO NOTHING",
    )
    .await;
    let passwords = testkit::tenant::role_passwords().await.unwrap();
    let again = on.stores.postgres.bootstrap(&passwords).await;
    on.processor("DELETE FROM public._sqlx_migrations WHERE version = 9999").await;
    again.unwrap();
}
