//! The operator dies between any two steps of a Tenant's way in and out; the next one ends what was
//! begun. `Retain` never deletes.

use aws_sdk_s3::primitives::ByteStream;
use crds::names::BucketLayout;
use crds::{Tenant, TenantName};
use futures::StreamExt;
use kube::api::DeleteParams;
use operator::fail_points::Point;
use operator::provision::{Owner, delete_tenant};
use serde_json::json;
use testkit::{OperatorProcess, eventually, unique};

use crate::operator_under_test::{Ground, SOON};
use crate::program::{document, has_one_key, is_complete, start};

/// Cases at once: each has two operators, one after the other, with some connections each.
const AT_ONCE: usize = 6;
/// The object that a tenant has in its archive.
const OBJECT: &str = "kept";
/// Events that it has sent, and that nobody has billed yet.
const USED: i64 = 7;

/// Waits until the operator has died at its point, and makes room for the next one.
async fn died(ground: &Ground, point: Point, mut operator: OperatorProcess) {
    let status = operator.ended(SOON).await;
    let status = status.unwrap_or_else(|error| panic!("{} was not reached: {error:#}", point.name()));
    assert!(status.code().is_none(), "{}: it ended by itself: {status}", point.name());
    // What a lease that runs out does is tested elsewhere.
    let (leases, lease) = ground.lease();
    leases.delete(lease, &DeleteParams::default()).await.unwrap();
}

fn killed_at(point: Point) -> String {
    format!("{}=kill@1", point.name())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_between_any_two_steps_of_provisioning_is_followed_by_one_that_ends_it() {
    let points = Point::ALL.into_iter().filter(|point| !point.is_of_deletion());
    futures::stream::iter(points).for_each_concurrent(AT_ONCE, killed_while_provisioning).await;
}

async fn killed_while_provisioning(point: Point) {
    let ground = Ground::new().await;
    let name = unique("crash");
    let first = start(&ground, Some(&killed_at(point)));
    // Dedicated: an index of a pool is made for its first tenant only.
    ground.tenant(&name, json!({"deletionPolicy": "Delete", "isolation": "Dedicated"})).await;
    died(&ground, point, first).await;
    let second = start(&ground, None);
    has_one_key(&ground, &name).await;
    is_complete(&ground, &second, &name).await;
    ground.clear().await;
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_between_any_two_steps_of_a_deletion_is_followed_by_one_that_ends_it() {
    let points = Point::ALL.into_iter().filter(|point| point.is_of_deletion());
    let cases = points.flat_map(|point| {
        // Retain has one step between forgetting and the end.
        let both = matches!(
            point,
            Point::Refused
                | Point::Deleting
                | Point::KeysRevoked
                | Point::Forgotten
                | Point::UsageSettled
                | Point::Concluded
        );
        [(point, "Delete")].into_iter().chain(both.then_some((point, "Retain")))
    });
    futures::stream::iter(cases)
        .for_each_concurrent(AT_ONCE, |(point, policy)| killed_while_deleting(point, policy))
        .await;
}

async fn killed_while_deleting(point: Point, policy: &str) {
    let ground = Ground::new().await;
    let name = unique("crash");
    // Both ways out of OpenSearch are taken: a pool's documents, and an index of its own.
    let isolation = if point == Point::DocumentsRemoved { "Shared" } else { "Dedicated" };
    let first = start(&ground, Some(&killed_at(point)));
    ground.tenant(&name, json!({"deletionPolicy": policy, "isolation": isolation})).await;
    let tenant = ground.cluster.tenant_ready(&name, SOON).await.unwrap();
    fill(&ground, &tenant).await;
    if policy == "Delete" {
        ground.cluster.confirm_delete(&name).await.unwrap();
    }
    ground.cluster.tenants().delete(&name, &DeleteParams::default()).await.unwrap();
    died(&ground, point, first).await;
    let second = start(&ground, None);
    eventually("the Tenant is gone", SOON, || async {
        anyhow::ensure!(ground.cluster.tenants().get_opt(&name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{} {policy}: {error:#}", point.name()));
    let kept = policy == "Retain";
    let (row, schema, object, document) = (kept, kept, kept, kept);
    let left = Left { row, live_keys: 0, known_to_ingest: false, schema, object, document, billed: USED };
    assert_eq!(look(&ground, &name).await, left, "{} {policy}", point.name());
    if kept {
        remove(&ground, &tenant).await;
    }
    ground.clear().await;
    second.stop().await.unwrap();
}

/// Gives a tenant an object and a document, of the same name, to keep or to lose, and something to be billed.
async fn fill(ground: &Ground, tenant: &Tenant) {
    let servers = testkit::Stores::from_environment().unwrap();
    let backends = tenant.status.as_ref().and_then(|status| status.backends.as_ref()).unwrap();
    let body = ByteStream::from_static(b"kept");
    servers.s3().unwrap().put_object().bucket(&backends.bucket).key(OBJECT).body(body).send().await.unwrap();
    let name = tenant.metadata.name.as_deref().unwrap();
    let used = format!(
        "INSERT INTO {}.usage_ledger (batch_id, accepted_at, key_id, events, bytes) \
         VALUES (gen_random_uuid(), now(), 'k', {USED}, 1000)",
        backends.database_schema
    );
    sqlx::raw_sql(&used).execute(ground.stores.postgres.processor()).await.unwrap();
    let (client, alias) = (servers.opensearch().unwrap(), &backends.index_alias);
    eventually("the document is indexed", SOON, || async {
        let path = opensearch::IndexParts::IndexId(alias, OBJECT);
        let index = client.index(path).body(document(name)).refresh(opensearch::params::Refresh::True);
        let status = index.send().await?.status_code();
        anyhow::ensure!(status.is_success(), "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// What a tenant that is gone has left.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    row: bool,
    live_keys: usize,
    known_to_ingest: bool,
    schema: bool,
    object: bool,
    document: bool,
    billed: i64,
}

async fn look(ground: &Ground, name: &str) -> Left {
    let tenant: TenantName = name.parse().unwrap();
    let stores = &ground.stores;
    let servers = testkit::Stores::from_environment().unwrap();
    let row = sqlx::query_scalar("SELECT EXISTS (SELECT FROM public.tenants WHERE name = $1)");
    let schema = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)");
    let billed = "SELECT coalesce(sum(events), 0)::bigint FROM public.usage_hourly WHERE tenant = $1";
    let bucket = tenant.archive(BucketLayout::PerTenant, "lh-test-").bucket;
    let alias = tenant.index_alias();
    Left {
        row: row.bind(name).fetch_one(stores.postgres.core()).await.unwrap(),
        live_keys: stores.postgres.keys(&tenant, &[]).await.unwrap().len(),
        known_to_ingest: stores.registry.get(&tenant).await.unwrap().is_some(),
        schema: schema.bind(tenant.database_schema()).fetch_one(stores.postgres.processor()).await.unwrap(),
        object: servers.s3().unwrap().head_object().bucket(bucket).key(OBJECT).send().await.is_ok(),
        document: servers.documents(&alias).await.unwrap() == 1,
        billed: sqlx::query_scalar(billed).bind(name).fetch_one(stores.postgres.core()).await.unwrap(),
    }
}

/// Removes what a retained tenant left.
async fn remove(ground: &Ground, tenant: &Tenant) {
    let name: TenantName = tenant.metadata.name.as_deref().unwrap().parse().unwrap();
    let archive = name.archive(BucketLayout::PerTenant, "lh-test-");
    let uid = tenant.metadata.uid.clone().unwrap();
    let owner = Owner { installation: ground.class.clone(), tenant: name, uid };
    delete_tenant(&ground.stores, &owner, &archive, |_| {}).await.unwrap();
}
