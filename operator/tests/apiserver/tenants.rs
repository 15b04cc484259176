//! A Tenant's life on a real API server.

use std::time::Duration;

use crds::apikey::ApiKey;
use crds::names::Lane;
use crds::registry::TenantState;
use crds::{CONFIRM_DELETE_ANNOTATION, PAUSED_ANNOTATION, PipelineName};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::{eventually, unique};

use crate::operator_under_test::{Operator, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_becomes_ready_with_a_key_and_ends_without_a_trace() {
    let on = Operator::start().await;
    let name = unique("api");
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    let tenant = on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let status = tenant.status.unwrap();
    assert_eq!(status.backends.unwrap().index_alias, format!("lh-t-{name}"));
    let key = on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap();
    assert_eq!(ApiKey::parse(&key).unwrap().id(), status.api_keys[0].key_id);
    let entry = on.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.keys.len()), (TenantState::Active, 1));
    on.delete_tenant(&name).await;
    assert!(on.stores.registry.get(&name.parse().unwrap()).await.unwrap().is_none());
    let left = on.stores.postgres.keys(&name.parse().unwrap(), &[status.api_keys[0].key_id.clone()]).await.unwrap();
    assert!(left.is_empty());
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_is_a_new_key_and_a_removed_key_is_revoked() {
    let on = Operator::start().await;
    let name = unique("api");
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let before = on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    assert_eq!(on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap(), before);
    on.cluster.ours::<Secret>().delete(&name, &DeleteParams::default()).await.unwrap();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    let after = on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap();
    assert_ne!(after, before);
    let entry = on.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.keys[0].id, ApiKey::parse(&after).unwrap().id());
    on.tenant(&name, json!({"deletionPolicy": "Delete", "apiKeys": []})).await;
    eventually("no key is left", SOON, || async {
        let entry = on.stores.registry.get(&name.parse().unwrap()).await?;
        anyhow::ensure!(entry.is_some_and(|entry| entry.keys.is_empty()), "there is one");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_lacks_stands_in_its_conditions() {
    let on = Operator::start().await;
    let (suspended, unplanned, laneless) = (unique("api"), unique("api"), unique("api"));
    on.tenant(&suspended, json!({"suspend": true, "deletionPolicy": "Delete"})).await;
    on.tenant(&unplanned, json!({"plan": "gold"})).await;
    let missing = unique("fast");
    on.tenant(&laneless, json!({"pipelineRef": {"name": missing}, "deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&suspended, SOON).await.unwrap();
    let entry = on.stores.registry.get(&suspended.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.state, TenantState::Suspended);
    let stalled = on.cluster.tenant_condition(&unplanned, "Stalled", "True", SOON).await.unwrap();
    assert_eq!(stalled.reason, "UnknownPlan");
    eventually("the missing pipeline is named", SOON, || async {
        let ready = on.cluster.tenant_condition(&laneless, "Ready", "False", SOON).await?;
        anyhow::ensure!(ready.reason == "PipelineNotFound", "{}: {}", ready.reason, ready.message);
        Ok(())
    })
    .await
    .unwrap();
    let entry = on.stores.registry.get(&laneless.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.pipeline.as_str(), missing, "its events wait for the pipeline");
    on.pipeline(&missing, json!({})).await;
    on.cluster.tenant_ready(&laneless, SOON).await.unwrap();
    let entry = on.stores.registry.get(&laneless.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.pipeline.as_str(), missing);
    on.stop().await;
}

/// Puts an entry of a tenant into a lane, as ingest does, or takes all of them out.
async fn wait_in(on: &Operator, lane: &Lane, tenant: &str, waits: bool) {
    let mut redis = on.stores.registry.connection();
    let mut pipe = redis::pipe();
    pipe.atomic();
    if waits {
        pipe.cmd("XADD").arg(lane.stream()).arg("*").arg("t").arg(tenant).ignore();
        pipe.cmd("INCRBY").arg(lane.events_counter()).arg(1).ignore();
        pipe.cmd("HINCRBY").arg(lane.tenant_bytes()).arg(tenant).arg(100).ignore();
    } else {
        pipe.cmd("DEL").arg(lane.stream()).arg(lane.events_counter()).arg(lane.tenant_bytes()).ignore();
    }
    let () = pipe.query_async(&mut redis).await.unwrap();
}

/// Who has the pipeline's lanes: `default`, nobody until it is there, or the pipeline.
async fn lanes_of(on: &Operator, pipeline: &PipelineName) -> &'static str {
    let name = pipeline.to_string();
    let registry = &on.stores.registry;
    for _ in 0..10 {
        let (orphaned, held) = (registry.orphaned().await.unwrap(), registry.held().await.unwrap());
        match (orphaned.contains(&name), held.contains(&name)) {
            (true, false) => return "default",
            (false, true) => return "nobody",
            (false, false) => return "its own",
            // They moved between the two looks.
            (true, true) => {}
        }
    }
    panic!("it is both")
}

async fn lanes_become(on: &Operator, pipeline: &PipelineName, expected: &str) {
    eventually(&format!("the lanes of {pipeline} are for: {expected}"), SOON, || async {
        let now = lanes_of(on, pipeline).await;
        anyhow::ensure!(now == expected, "{now}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_pipeline_that_is_not_there_goes_through_default_only_where_that_is_asked_for() {
    let on = Operator::start().await;
    let name = unique("api");
    let pipeline: PipelineName = unique("gone").parse().unwrap();
    let lane = pipeline.lane(&name.parse().unwrap());
    // A pipeline of that name was deleted before, so `default` reads its lanes.
    on.stores.registry.orphan(&pipeline).await.unwrap();
    let held = json!({"pipelineRef": {"name": pipeline}, "deletionPolicy": "Delete"});
    on.tenant(&name, held).await;
    let said = on.cluster.tenant_condition(&name, "PipelineReady", "False", SOON).await.unwrap();
    assert_eq!(said.reason, "PipelineNotFound");
    assert!(said.message.contains("onMissing"), "{}", said.message);
    lanes_become(&on, &pipeline, "nobody").await;
    eventually("ingest is told", SOON, || async {
        let entry = on.stores.registry.get(&name.parse()?).await?;
        anyhow::ensure!(entry.is_some_and(|entry| entry.pipeline == pipeline), "not yet");
        Ok(())
    })
    .await
    .unwrap();

    // What waits when another pipeline is named is not forgotten.
    wait_in(&on, &lane, &name, true).await;
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    eventually("what is left behind is said", SOON, || async {
        let said = on.cluster.tenant_condition(&name, "PipelineReady", "False", SOON).await?;
        anyhow::ensure!(said.reason == "EventsHeld" && said.message.contains(pipeline.as_str()), "{said:?}");
        Ok(())
    })
    .await
    .unwrap();

    // A Tenant that goes does not wait for ever for processors that never come.
    on.cluster.confirm_delete(&name).await.unwrap();
    on.cluster.tenants().delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("what to do is said", SOON, || async {
        let ready = on.cluster.tenant_condition(&name, "Ready", "False", SOON).await?;
        anyhow::ensure!(ready.reason == "DeletionBlocked", "{}", ready.reason);
        anyhow::ensure!(ready.message.contains(r#""onMissing":"Default""#), "{}", ready.message);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(lanes_of(&on, &pipeline).await, "nobody");
    let fall_back = json!({"spec": {"pipelineRef": {"name": pipeline, "onMissing": "Default"}}});
    on.cluster.tenants().patch(&name, &PatchParams::default(), &Patch::Merge(fall_back)).await.unwrap();
    lanes_become(&on, &pipeline, "default").await;
    wait_in(&on, &lane, &name, false).await;
    on.stop().await;
}

async fn two_pipelines(on: &Operator) -> (PipelineName, PipelineName) {
    let pipelines = [unique("pii"), unique("pii")];
    for pipeline in &pipelines {
        on.pipeline(pipeline, json!({})).await;
    }
    let [first, second] = pipelines.map(|pipeline| pipeline.parse().unwrap());
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_needed_is_kept_until_nobody_needs_it_or_its_end_is_confirmed() {
    let on = Operator::start().await;
    let name = unique("api");
    let (first, second) = two_pipelines(&on).await;
    on.tenant(&name, json!({"pipelineRef": {"name": first}, "deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let foreground = DeleteParams::foreground();
    let blocked = async |pipeline: &PipelineName, reason: &str, said: &str| {
        eventually("the pipeline says why it stays", SOON, || async {
            let status = on.cluster.pipelines().get(pipeline.as_str()).await?.status.unwrap_or_default();
            let ready = testkit::cluster::find(&status.conditions, "Ready")?.clone();
            anyhow::ensure!(ready.reason == reason && ready.message.contains(said), "{ready:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    on.cluster.pipelines().delete(first.as_str(), &DeleteParams::default()).await.unwrap();
    blocked(&first, "DeletionBlocked", &name).await;
    // It is looked after as before.
    let processor = format!("r-{first}-processor");
    on.cluster.ours::<Deployment>().delete(&processor, &DeleteParams::default()).await.unwrap();
    eventually("its processors are made again", SOON, || async {
        let found = on.cluster.ours::<Deployment>().get_opt(&processor).await?;
        let (gone, replicas) = found.map_or((true, None), |found| {
            (found.metadata.deletion_timestamp.is_some(), found.spec.and_then(|spec| spec.replicas))
        });
        anyhow::ensure!(!gone && replicas == Some(1), "gone or going: {gone}, replicas: {replicas:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(lanes_of(&on, &first).await, "its own");

    // What it was sent before its Tenant moved goes through its stages.
    let lane = first.lane(&name.parse().unwrap());
    wait_in(&on, &lane, &name, true).await;
    on.tenant(&name, json!({"pipelineRef": {"name": second}, "deletionPolicy": "Delete"})).await;
    blocked(&first, "Draining", "1 entries of its lanes wait").await;
    assert_eq!(lanes_of(&on, &first).await, "its own");
    wait_in(&on, &lane, &name, false).await;
    gone(&on, &first).await;
    lanes_become(&on, &first, "default").await;

    // A Tenant that has another pipeline instead does not hold it; one that has none waits for it.
    on.cluster.pipelines().delete(second.as_str(), &foreground).await.unwrap();
    blocked(&second, "DeletionBlocked", "confirm-delete").await;
    let confirm = json!({"metadata": {"annotations": {CONFIRM_DELETE_ANNOTATION: second}}});
    let confirm = Patch::Merge(confirm);
    on.cluster.pipelines().patch(second.as_str(), &PatchParams::default(), &confirm).await.unwrap();
    gone(&on, &second).await;
    lanes_become(&on, &second, "nobody").await;
    let said = on.cluster.tenant_condition(&name, "PipelineReady", "False", SOON).await.unwrap();
    assert_eq!(said.reason, "PipelineNotFound");
    let entry = on.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.pipeline, second, "its events wait");
    let fall_back = json!({"name": second, "onMissing": "Default"});
    on.tenant(&name, json!({"pipelineRef": fall_back, "deletionPolicy": "Delete"})).await;
    lanes_become(&on, &second, "default").await;
    let entry = on.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.pipeline.as_str(), "default");
    for pipeline in [&first, &second] {
        on.stores.registry.adopt(pipeline).await.unwrap();
    }
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_stays_for_as_long_as_the_registry_sends_events_there() {
    let on = Operator::start().await;
    let name = unique("api");
    let (first, second) = two_pipelines(&on).await;
    on.tenant(&name, json!({"pipelineRef": {"name": first}})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    // What is paused keeps its place in the registry, whatever its spec says by now.
    on.pause(&name).await;
    on.cluster.pipelines().delete(first.as_str(), &DeleteParams::default()).await.unwrap();
    on.tenant(&name, json!({"pipelineRef": {"name": second}})).await;
    testkit::holds("the pipeline stays", Duration::from_secs(12), || async {
        anyhow::ensure!(on.cluster.pipelines().get_opt(first.as_str()).await?.is_some(), "it is gone");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(lanes_of(&on, &first).await, "its own");
    on.cluster.annotate_tenant(&name, &[(PAUSED_ANNOTATION, "false")]).await.unwrap();
    gone(&on, &first).await;
    on.stop().await;
}

async fn gone(on: &Operator, pipeline: &PipelineName) {
    eventually("the pipeline is gone", SOON, || async {
        anyhow::ensure!(on.cluster.pipelines().get_opt(pipeline.as_str()).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_plan_reaches_its_tenants_without_touching_their_spec() {
    let on = Operator::start().await;
    let (follows, own) = (unique("api"), unique("api"));
    on.tenant(&follows, json!({"deletionPolicy": "Delete"})).await;
    on.tenant(&own, json!({"deletionPolicy": "Delete", "quotas": {"ingestEventsPerSecond": "2k"}})).await;
    let shown = async |name: &str, expected: (Option<i64>, Option<i64>)| {
        eventually("status and registry agree on the quotas", SOON, || async {
            let tenant = on.cluster.tenants().get(name).await?;
            let quotas = tenant.status.and_then(|status| status.effective_quotas).unwrap_or_default();
            let seen = (quotas.ingest_bytes_per_second, quotas.ingest_events_per_second);
            anyhow::ensure!(seen == expected, "status says {seen:?}");
            let entry = on.stores.registry.get(&name.parse().unwrap()).await?;
            let quotas = entry.map(|entry| entry.quotas).unwrap_or_default();
            let rate = |rate: Option<crds::registry::Rate>| rate.map(|rate| rate.per_second as i64);
            let told = (rate(quotas.bytes), rate(quotas.events));
            anyhow::ensure!(told == expected, "the registry says {told:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    on.cluster.tenant_ready(&follows, SOON).await.unwrap();
    on.cluster.tenant_ready(&own, SOON).await.unwrap();
    shown(&follows, (None, None)).await;
    shown(&own, (None, Some(2_000))).await;
    let plans = "standard: {quotas: {ingestBytesPerSecond: 1M, ingestEventsPerSecond: 100}}";
    on.plans.send(serde_saphyr::from_str(plans).unwrap()).unwrap();
    shown(&follows, (Some(1_000_000), Some(100))).await;
    shown(&own, (Some(1_000_000), Some(2_000))).await;
    on.plans.send(serde_saphyr::from_str("other: {}").unwrap()).unwrap();
    eventually("the plan that is gone is named", SOON, || async {
        let stalled = on.cluster.tenant_condition(&follows, "Stalled", "True", SOON).await?;
        anyhow::ensure!(stalled.reason == "UnknownPlan" && stalled.message.contains("use one of other"), "{stalled:?}");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spec_takes_away_is_taken_away_whatever_else_is_wrong_with_it() {
    let on = Operator::start().await;
    let name = unique("api");
    let key = |key: &str| {
        let secret = json!({"name": format!("{name}-{key}"), "namespace": on.class});
        json!({"name": key, "scopes": ["Ingest"], "secretRef": secret})
    };
    let spec = |keys: &[&str], suspend: bool| {
        let keys: Vec<_> = keys.iter().map(|name| key(name)).collect();
        json!({"apiKeys": keys, "suspend": suspend, "deletionPolicy": "Delete"})
    };
    let told = async |what: &str, keys: &[&str], state: TenantState| {
        eventually(what, SOON, || async {
            let entry = on.stores.registry.get(&name.parse()?).await?;
            let entry = entry.ok_or_else(|| anyhow::anyhow!("it is not there"))?;
            let mut names: Vec<&str> = entry.keys.iter().map(|key| key.name.as_str()).collect();
            names.sort_unstable();
            anyhow::ensure!(names == keys && entry.state == state, "{names:?} {:?}", entry.state);
            Ok(entry)
        })
        .await
        .unwrap()
    };
    on.tenant(&name, spec(&["first", "second"], false)).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let quotas = told("it is as applied", &["first", "second"], TenantState::Active).await.quotas;
    on.plans.send(serde_saphyr::from_str("other: {quotas: {ingestEventsPerSecond: 1}}").unwrap()).unwrap();
    on.cluster.tenant_condition(&name, "Stalled", "True", SOON).await.unwrap();
    on.tenant(&name, spec(&["first"], false)).await;
    told("the key is refused", &["first"], TenantState::Active).await;
    on.tenant(&name, spec(&["first"], true)).await;
    let entry = told("it is suspended", &["first"], TenantState::Suspended).await;
    assert_eq!((entry.plan.as_str(), entry.quotas), ("standard", quotas), "its plan of before");
    let stalled = on.cluster.tenant_condition(&name, "Stalled", "True", SOON).await.unwrap();
    assert_eq!(stalled.reason, "UnknownPlan");
    let before = entry.keys[0].id.clone();
    on.cluster.annotate_tenant(&name, &[(crds::ROTATE_KEYS_ANNOTATION, "first@now")]).await.unwrap();
    eventually("the key is rotated", SOON, || async {
        let entry = on.stores.registry.get(&name.parse()?).await?;
        let current = entry.and_then(|entry| entry.keys.into_iter().find(|key| key.expires_at.is_none()));
        anyhow::ensure!(current.is_some_and(|key| key.id != before), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_days_are_kept_only_once_that_is_confirmed() {
    let on = Operator::start().await;
    let name = unique("api");
    let tenant: crds::TenantName = name.parse().unwrap();
    let kept = async |days: i32, hot_days: i32| {
        eventually(&format!("{days} days hold in every store"), SOON, || async {
            let entry = on.stores.registry.get(&tenant).await?.ok_or_else(|| anyhow::anyhow!("it is not there"))?;
            anyhow::ensure!((entry.total_days, entry.hot_days) == (days, hot_days), "{} in Redis", entry.total_days);
            let postgres = sqlx::query_scalar("SELECT total_days FROM public.tenant_schemas WHERE tenant = $1");
            let postgres: i32 = postgres.bind(&name).fetch_one(on.stores.postgres.processor()).await?;
            anyhow::ensure!(postgres == days, "{postgres} in PostgreSQL");
            let s3 = testkit::Stores::from_environment()?.s3()?;
            let bucket = on.cluster.tenants().get(&name).await?.status.and_then(|status| status.backends);
            let bucket = bucket.map(|backends| backends.bucket).unwrap_or_default();
            let rules = s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await?;
            let days_of_rule = rules.rules().iter().find_map(|rule| rule.expiration()?.days());
            anyhow::ensure!(days_of_rule == Some(days + 2), "{days_of_rule:?} in S3");
            Ok(())
        })
        .await
        .unwrap();
    };
    let spec = |days: i32, hot_days: i32| json!({"retention": {"totalDays": days, "hotDays": hot_days}, "deletionPolicy": "Delete"});
    on.tenant(&name, spec(30, 7)).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    kept(30, 7).await;
    on.tenant(&name, spec(3, 2)).await;
    let said = on.cluster.tenant_condition(&name, "RetentionApplied", "False", SOON).await.unwrap();
    assert_eq!(said.reason, "RetentionUnconfirmed");
    kept(30, 2).await;
    let stalled = on.cluster.tenant_condition(&name, "Stalled", "True", SOON).await.unwrap();
    assert_eq!(stalled.reason, "RetentionUnconfirmed");
    on.cluster.annotate_tenant(&name, &[(crds::CONFIRM_RETENTION_ANNOTATION, "4")]).await.unwrap();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    kept(30, 2).await;
    on.cluster.annotate_tenant(&name, &[(crds::CONFIRM_RETENTION_ANNOTATION, "3")]).await.unwrap();
    kept(3, 2).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    on.tenant(&name, spec(60, 2)).await;
    kept(60, 2).await;
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_tenant_comes_back_and_what_is_queued_is_drained_first() {
    let on = Operator::start().await;
    let name = unique("api");
    // A lane that nobody reads: processors of `default` may run on these stores.
    let pipeline: crds::PipelineName = unique("lane").parse().unwrap();
    on.pipeline(pipeline.as_str(), json!({})).await;
    on.tenant(&name, json!({"pipelineRef": {"name": pipeline}})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let lane = pipeline.lane(&name.parse().unwrap());
    let mut redis = on.stores.registry.connection();
    let entry: String =
        redis::cmd("XADD").arg(lane.stream()).arg("*").arg("t").arg(&name).query_async(&mut redis).await.unwrap();
    on.cluster.tenants().delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("ingest refuses", SOON, || async {
        let found = on.stores.registry.get(&name.parse().unwrap()).await?;
        anyhow::ensure!(found.is_some_and(|entry| entry.state == TenantState::Deleting), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    testkit::holds("the Tenant waits for its queue", Duration::from_secs(8), || async {
        anyhow::ensure!(on.cluster.tenants().get_opt(&name).await?.is_some(), "it is gone");
        Ok(())
    })
    .await
    .unwrap();
    on.pipeline(pipeline.as_str(), json!({"suspend": true})).await;
    eventually("it says that nobody processes what waits", SOON, || async {
        let ready = on.cluster.tenant_condition(&name, "Ready", "False", SOON).await?;
        anyhow::ensure!(ready.reason == "DeletionBlocked" && ready.message.contains("spec.suspend"), "{ready:?}");
        Ok(())
    })
    .await
    .unwrap();
    on.pipeline(pipeline.as_str(), json!({})).await;
    let () = redis::cmd("XDEL").arg(lane.stream()).arg(entry).query_async(&mut redis).await.unwrap();
    eventually("the Tenant is gone", Duration::from_secs(30), || async {
        anyhow::ensure!(on.cluster.tenants().get_opt(&name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
    .unwrap();
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    on.stop().await;
}
