//! The fixtures that other tests stand on, tried on the real stores.

use crds::names::PROCESSOR_DATABASE;
use crds::registry::TenantState;
use testkit::{Stores, Tenant};

#[tokio::test]
async fn a_provisioned_tenant_is_in_the_stores_and_a_retired_one_is_not() -> anyhow::Result<()> {
    let stores = Stores::from_environment()?;
    let tenant = Tenant::named("fixture").suspended().kept(3, 10).provision(&stores).await?;
    assert_eq!((tenant.registered.state, tenant.registered.hot_days), (TenantState::Suspended, 3));
    let schema = tenant.desired.name().database_schema();
    assert!(schema_exists(&stores, &schema).await?);
    tenant.retire().await?;
    assert!(!schema_exists(&stores, &schema).await?);
    Ok(())
}

/// Asked as the data plane's role: its password is right, too.
async fn schema_exists(stores: &Stores, schema: &str) -> anyhow::Result<bool> {
    let settings = stores.as_data_role().await?;
    let pool = runtime::stores::postgres(&settings, &stores.tls, PROCESSOR_DATABASE, "loggerhub-test")?;
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)");
    Ok(query.bind(schema).fetch_one(&pool).await?)
}
