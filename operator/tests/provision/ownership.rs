//! What carries another's marker, or none, is neither changed nor removed.

use crds::names::{BucketLayout, index_name};
use opensearch::http::Method;
use operator::provision::{Claim, DesiredTenant, Error, Outcome, Postgres, provision_tenant};
use serde_json::json;
use testkit::chaos::proxy::{Mode, Proxy};

use crate::stores::{Fixture, stores, tenant};

/// The thing that provisioning says is not ours.
async fn conflict(on: &Fixture, desired: &DesiredTenant) -> String {
    match provision_tenant(&on.stores, desired, &[]).await {
        Err(Error::OwnershipConflict { thing, .. }) => thing,
        other => panic!("expected a conflict: {other:?}"),
    }
}

#[tokio::test]
async fn a_tenant_of_another_installation_is_refused_unless_adopted() {
    let on = stores().await;
    let theirs = tenant();
    on.provision(&theirs, &[]).await;
    let mut ours = theirs.clone();
    ours.owner.installation = "provision-tests-other".into();
    assert!(conflict(&on, &ours).await.contains("registry row"));
    ours.adopt = true;
    on.provision(&ours, &[]).await;
    ours.adopt = false;
    assert_eq!(on.provision(&ours, &[]).await.database, Outcome::Unchanged);
}

#[tokio::test]
async fn a_schema_without_our_marker_is_refused() {
    let on = stores().await;
    let desired = tenant();
    on.processor(&format!("CREATE SCHEMA {}", desired.name().database_schema())).await;
    assert!(conflict(&on, &desired).await.contains("schema"));
    on.processor(&format!("DROP SCHEMA {}", desired.name().database_schema())).await;
    on.provision(&desired, &[]).await;
}

#[tokio::test]
async fn a_bucket_that_holds_something_and_has_no_marker_is_refused_and_an_empty_one_is_taken() {
    let on = stores().await;
    let desired = tenant();
    let bucket = &desired.archive.bucket;
    on.s3.create_bucket().bucket(bucket).send().await.unwrap();
    on.s3.put_object().bucket(bucket).key("theirs").body(b"x".to_vec().into()).send().await.unwrap();
    assert!(conflict(&on, &desired).await.contains("bucket"));
    on.s3.delete_object().bucket(bucket).key("theirs").send().await.unwrap();
    on.provision(&desired, &[]).await;
}

#[tokio::test]
async fn a_prefix_that_holds_something_and_has_no_marker_is_refused() {
    let on = stores().await;
    let mut desired = tenant();
    desired.archive = desired.name().archive(BucketLayout::Shared, "provision-tests-shared-");
    on.provision(&tenant_of_the_same_bucket(&desired), &[]).await;
    let key = format!("{}theirs", desired.archive.prefix);
    let put = on.s3.put_object().bucket(&desired.archive.bucket).key(key);
    put.body(b"x".to_vec().into()).send().await.unwrap();
    assert!(conflict(&on, &desired).await.contains("prefix"));
    desired.adopt = true;
    on.provision(&desired, &[]).await;
}

fn tenant_of_the_same_bucket(of: &DesiredTenant) -> DesiredTenant {
    let mut other = tenant();
    other.archive = other.name().archive(BucketLayout::Shared, &of.archive.bucket);
    other
}

#[tokio::test]
async fn an_alias_with_another_filter_is_refused() {
    let on = stores().await;
    let mut desired = tenant();
    desired.isolation = crds::tenant::Isolation::Dedicated;
    let index = index_name(&desired.name().dedicated_series(), 1);
    assert_eq!(on.search(Method::Put, &format!("/{index}"), None).await.0, 200);
    let alias = json!({"actions": [{"add": {"index": index, "alias": desired.name().index_alias()}}]});
    assert_eq!(on.search(Method::Post, "/_aliases", Some(alias)).await.0, 200);
    assert!(conflict(&on, &desired).await.contains("alias"));
}

#[tokio::test]
async fn who_was_displaced_stays_so_while_nobody_can_say() {
    let on = stores().await;
    let servers = testkit::Stores::from_environment().unwrap();
    let proxy = Proxy::start(format!("{}:{}", servers.postgres.host, servers.postgres.port)).await.unwrap();
    let behind = runtime::settings::PostgresSettings {
        host: proxy.address.ip().to_string(),
        port: proxy.address.port(),
        ..servers.postgres.clone()
    };
    let options = runtime::stores::postgres_options(&behind, &servers.tls, "postgres", "operator-test").unwrap();
    let postgres = Postgres::new(options);
    let (name, installation) = (tenant().owner.tenant, testkit::unique("displaced"));
    let bind = async |cluster: &str| {
        let bind = "INSERT INTO public.installations (installation, cluster) VALUES ($1, $2) \
                    ON CONFLICT (installation) DO UPDATE SET cluster = $2";
        sqlx::query(bind).bind(&installation).bind(cluster).execute(on.stores.postgres.core()).await.unwrap();
    };
    postgres.believe(&Claim { installation: installation.clone(), cluster: "ours".into(), take_over: None });
    // Whether it works on a tenant, and whether it is told that it is displaced.
    let stands = async || {
        let held = postgres.hold_tenant(&name).await.map(|held| held.is_some());
        let displaced = matches!(held, Err(Error::OtherCluster { .. }));
        for asked in [postgres.still_ours().await, postgres.not_displaced().await] {
            assert_eq!(matches!(asked, Err(Error::OtherCluster { .. })), displaced, "{asked:?} {held:?}");
        }
        (held.unwrap_or(false), displaced)
    };
    let away = Mode::Refuse;
    bind("ours").await;
    assert_eq!(stands().await, (true, false));
    proxy.set(away);
    assert_eq!(stands().await, (false, false), "it goes on with what two may do at once");
    proxy.set(Mode::Pass);
    bind("another").await;
    assert_eq!(stands().await, (false, true));
    proxy.set(away);
    assert_eq!(stands().await, (false, true), "it acts as if the stores were its own");
    proxy.set(Mode::Pass);
    assert_eq!(stands().await, (false, true));
    bind("ours").await;
    assert_eq!(stands().await, (true, false), "taken back");
    proxy.set(away);
    assert_eq!(stands().await, (false, false));
}
