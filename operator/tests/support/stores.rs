//! The real stores of a test, from the environment that `dev/env` prints.

use crds::apikey::{ApiKey, Pepper};
use crds::names::{BucketLayout, PipelineName};
use crds::registry::TenantState;
use crds::tenant::{Isolation, Retention, Scope};
use operator::provision::{
    DesiredTenant, IssuedKey, ObjectStore, Owner, Postgres, Provisioned, Registry, Search, Shape, Stores,
    provision_tenant,
};
use tokio::sync::OnceCell;

/// Installation of all provisioning tests: they share the stores with an operator of another one.
pub(crate) const INSTALLATION: &str = "provision-tests";

/// The stores, and clients that look at them from the side.
pub(crate) struct Fixture {
    /// What is under test.
    pub(crate) stores: Stores,
    /// The object store, to break and look.
    pub(crate) s3: aws_sdk_s3::Client,
    /// Base URL of OpenSearch.
    pub(crate) opensearch: opensearch::OpenSearch,
}

/// The stores, their databases made. Each test runs in a runtime of its own, so clients are not shared.
pub(crate) async fn stores() -> Fixture {
    let servers = testkit::Stores::from_environment().unwrap();
    let options =
        runtime::stores::postgres_options(&servers.postgres, &servers.tls, "postgres", "operator-test").unwrap();
    let postgres = Postgres::new(options);
    static BOOTSTRAP: OnceCell<()> = OnceCell::const_new();
    BOOTSTRAP
        .get_or_init(|| async {
            let passwords = testkit::tenant::role_passwords().await.unwrap();
            postgres.bootstrap(&passwords).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        })
        .await;
    let (s3, opensearch) = (servers.s3().unwrap(), servers.opensearch().unwrap());
    let stores = Stores {
        postgres,
        object_store: ObjectStore::new(s3.clone()),
        search: Search::new(opensearch.clone(), INSTALLATION, Shape::default()),
        registry: Registry::new(servers.queue().unwrap().connection().unwrap()),
    };
    Fixture { stores, s3, opensearch }
}

/// A shared tenant of a new name, with a bucket of its own.
pub(crate) fn tenant() -> DesiredTenant {
    let owner =
        Owner { installation: INSTALLATION.into(), tenant: testkit::unique("prov").parse().unwrap(), uid: "1".into() };
    DesiredTenant {
        archive: owner.tenant.archive(BucketLayout::PerTenant, "lh-"),
        owner,
        adopt: false,
        display_name: Some("A test".into()),
        plan: "standard".into(),
        quotas: Default::default(),
        state: TenantState::Active,
        pipeline: PipelineName::default_pipeline(),
        isolation: Isolation::Shared,
        retention: Retention::default(),
        confirmed_days: None,
    }
}

/// A new key named `main`.
pub(crate) fn key() -> IssuedKey {
    let pepper = Pepper { id: "p1".into(), bytes: vec![7; 32] };
    IssuedKey::of(&ApiKey::generate(), &pepper, "main", &[Scope::Ingest, Scope::Query])
}

impl Fixture {
    /// Provisions and expects that it works.
    pub(crate) async fn provision(&self, desired: &DesiredTenant, keys: &[IssuedKey]) -> Provisioned {
        provision_tenant(&self.stores, desired, keys).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Calls OpenSearch from the side.
    pub(crate) async fn search(
        &self,
        method: opensearch::http::Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, serde_json::Value) {
        let body = body.map(opensearch::http::request::JsonBody::new);
        let headers = opensearch::http::headers::HeaderMap::new();
        let response = self.opensearch.send(method, path, headers, None::<&()>, body, None).await.unwrap();
        let status = response.status_code().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Runs a statement in the processor database from the side.
    pub(crate) async fn processor(&self, statement: &str) {
        sqlx::raw_sql(statement).execute(self.stores.postgres.processor()).await.unwrap();
    }

    /// A number out of the processor database.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.stores.postgres.processor()).await.unwrap()
    }
}

/// The whole chain of an error, for a test that fails.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    runtime::logging::chain(error)
}
