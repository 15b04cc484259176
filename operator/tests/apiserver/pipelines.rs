//! A LogPipeline's objects on a real API server, and who owns their fields.

use std::fmt::Debug;
use std::time::Duration;

use crds::LogPipeline;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{eventually, unique};

use crate::operator_under_test::{Operator, SOON};

/// The managers that own `spec.replicas`.
fn replica_owners(deployment: &Deployment) -> Vec<String> {
    let entries = deployment.metadata.managed_fields.iter().flatten();
    let owns = |fields: &Value| fields.pointer("/f:spec/f:replicas").is_some();
    entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)))
        .filter_map(|entry| entry.manager.clone())
        .collect()
}

async fn replicas(on: &Operator, deployment: &str, wanted: i32) -> Deployment {
    eventually(&format!("{deployment} has {wanted} replicas"), SOON, || async {
        let found = on.cluster.ours::<Deployment>().get(deployment).await?;
        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
        anyhow::ensure!(replicas == Some(wanted), "{replicas:?}");
        Ok(found)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scaler_owns_replicas_and_the_controller_never_resets_them() {
    let on = Operator::start().await;
    let name = unique("lane");
    on.pipeline(&name, json!({"processor": {"scaling": {"minReplicas": 3}}})).await;
    let processor = format!("r-{name}-processor");
    let scaled = replicas(&on, &processor, 3).await;
    assert_eq!(replica_owners(&scaled), ["loggerhub-scaler"]);
    on.pipeline(&name, json!({"processor": {"workers": 4, "scaling": {"minReplicas": 3}}})).await;
    eventually("the controller has applied the change", SOON, || async {
        let found = serde_json::to_string(&on.cluster.ours::<Deployment>().get(&processor).await?)?;
        anyhow::ensure!(found.contains(r#""name":"LOGGERHUB_WORKERS","value":"4""#), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(replica_owners(&replicas(&on, &processor, 3).await), ["loggerhub-scaler"]);
    on.pipeline(&name, json!({"suspend": true})).await;
    replicas(&on, &processor, 0).await;
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_others_scale_has_processors_again_after_a_suspension() {
    let on = Operator::start().await;
    let name = unique("lane");
    let spec = |suspend: bool| json!({"processor": {"scaling": {"mode": "External"}}, "suspend": suspend});
    on.pipeline(&name, spec(false)).await;
    let processor = format!("r-{name}-processor");
    replicas(&on, &processor, 1).await;
    on.pipeline(&name, spec(true)).await;
    replicas(&on, &processor, 0).await;
    on.pipeline(&name, spec(false)).await;
    replicas(&on, &processor, 1).await;
    let said = async |type_: &str, expected: &str| {
        eventually(&format!("{type_} is {expected}"), SOON, || async {
            let status = on.cluster.pipelines().get(&name).await?.status.unwrap_or_default();
            let found = testkit::cluster::find(&status.conditions, type_)?.clone();
            anyhow::ensure!(found.reason == expected, "{found:?}");
            Ok(found)
        })
        .await
        .unwrap()
    };
    said("ScalingActive", "External").await;
    // Whoever scales it may want none; it is not Ready then.
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    on.cluster.ours::<Deployment>().patch_scale(&processor, &PatchParams::default(), &none).await.unwrap();
    eventually("that none is wanted is said", SOON, || async {
        let ready = said("Ready", "WaitingForPods").await;
        anyhow::ensure!(ready.status == "False" && ready.message.contains("none is wanted"), "{}", ready.message);
        Ok(())
    })
    .await
    .unwrap();
    testkit::holds("it is left alone", Duration::from_secs(8), || async {
        let found = on.cluster.ours::<Deployment>().get(&processor).await?;
        anyhow::ensure!(found.spec.and_then(|spec| spec.replicas) == Some(0), "it was scaled");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_of_none_wakes_for_its_first_event_and_sleeps_only_when_none_is_left() {
    let on = Operator::start().await;
    let lane: crds::PipelineName = unique("lane").parse().unwrap();
    let scaling = json!({"minReplicas": 0, "scaleDownStabilizationSeconds": 0});
    let spec = json!({"processor": {"scaling": scaling}});
    on.pipeline(lane.as_str(), spec).await;
    let processor = format!("r-{lane}-processor");
    replicas(&on, &processor, 0).await;
    let counter = lane.lanes().next().unwrap().events_counter();
    let mut redis = on.stores.registry.connection();
    let () = redis::cmd("SET").arg(&counter).arg(1).query_async(&mut redis).await.unwrap();
    replicas(&on, &processor, 1).await;
    // The event is being worked on: it counts until it is acknowledged.
    testkit::holds("the processor stays", Duration::from_secs(12), || async {
        let found = on.cluster.ours::<Deployment>().get(&processor).await?;
        anyhow::ensure!(found.spec.and_then(|spec| spec.replicas) == Some(1), "it was taken away");
        Ok(())
    })
    .await
    .unwrap();
    // As if it had died, and by hand none was to follow: what it left is not left.
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    on.cluster.ours::<Deployment>().patch_scale(&processor, &PatchParams::default(), &none).await.unwrap();
    replicas(&on, &processor, 1).await;
    let () = redis::cmd("DEL").arg(&counter).query_async(&mut redis).await.unwrap();
    replicas(&on, &processor, 0).await;
    eventually("its status says that nothing waits", SOON, || async {
        let status = on.cluster.pipelines().get(lane.as_str()).await?.status.unwrap_or_default();
        let said = (status.backlog_events, status.drained_in_seconds);
        anyhow::ensure!(said == (Some(0), Some(0)), "{said:?}");
        Ok(())
    })
    .await
    .unwrap();
    // An entry that nobody counted waits all the same.
    let stream = lane.lanes().next().unwrap().stream();
    let _: String = redis::cmd("XADD").arg(&stream).arg("*").arg("v").arg("1").query_async(&mut redis).await.unwrap();
    replicas(&on, &processor, 1).await;
    let () = redis::cmd("DEL").arg(&stream).query_async(&mut redis).await.unwrap();
    replicas(&on, &processor, 0).await;
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_comes_and_goes_with_the_spec_and_a_deleted_lane_is_left_to_default() {
    let on = Operator::start().await;
    let name = unique("lane");
    on.pipeline(&name, json!({"ingest": {"replicas": 2}})).await;
    let ingest = format!("r-{name}-ingest");
    replicas(&on, &ingest, 2).await;
    on.cluster.ours::<Service>().get(&ingest).await.unwrap();
    let pods = on.cluster.ours::<Deployment>().get(&ingest).await.unwrap().spec.unwrap().template.spec.unwrap();
    let before_stop = pods.containers[0].lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    assert!(before_stop.is_some_and(|handler| handler.sleep.is_some()), "it stops before Services have noticed");
    on.pipeline(&name, json!({})).await;
    eventually("ingest is gone", SOON, || async {
        anyhow::ensure!(on.cluster.ours::<Service>().get_opt(&ingest).await?.is_none(), "the Service is there");
        anyhow::ensure!(on.cluster.ours::<Deployment>().get_opt(&ingest).await?.is_none(), "the Deployment is there");
        Ok(())
    })
    .await
    .unwrap();
    on.cluster.pipelines().delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("its streams are left to default", SOON, || async {
        anyhow::ensure!(on.stores.registry.orphaned().await?.contains(&name), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    on.stores.registry.adopt(&name.parse().unwrap()).await.unwrap();
    on.stop().await;
}

/// Waits until an object is there, or is not.
async fn is_there<K>(on: &Operator, name: &str, wanted: bool)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let what = format!("{} {name}: {wanted}", K::kind(&()));
    let seen = eventually(&what, SOON, || async {
        let found = on.cluster.ours::<K>().get_metadata_opt(name).await?;
        anyhow::ensure!(found.is_some() == wanted, "{}", found.is_some());
        Ok(())
    });
    seen.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_and_the_autoscaler_come_and_go_with_the_spec() {
    let on = Operator::start().await;
    let name = unique("lane");
    let (processor, ingest) = (format!("r-{name}-processor"), format!("r-{name}-ingest"));
    let resources = json!({"requests": {"cpu": "100m"}});
    let fixed = json!({"ingest": {"replicas": 3, "resources": resources}});
    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 5});
    let scaled = |workers: i32| {
        json!({
            "ingest": {"replicas": 3, "resources": resources, "autoscaling": autoscaling},
            "processor": {"workers": workers},
        })
    };
    on.pipeline(&name, fixed.clone()).await;
    replicas(&on, &ingest, 3).await;
    for budget in [&processor, &ingest] {
        is_there::<PodDisruptionBudget>(&on, budget, true).await;
    }
    is_there::<HorizontalPodAutoscaler>(&on, &ingest, false).await;

    // Whoever scales begins with the replicas that there are.
    on.pipeline(&name, scaled(2)).await;
    is_there::<HorizontalPodAutoscaler>(&on, &ingest, true).await;
    let deployments = on.cluster.ours::<Deployment>();
    eventually("the operator has let go of the replicas", SOON, || async {
        let owners = replica_owners(&deployments.get(&ingest).await?);
        anyhow::ensure!(owners == ["loggerhub-scaler"], "{owners:?}");
        Ok(())
    })
    .await
    .unwrap();
    replicas(&on, &ingest, 3).await;
    let five = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let autoscaler = PatchParams { field_manager: Some("autoscaler".to_owned()), ..PatchParams::default() };
    deployments.patch_scale(&ingest, &autoscaler, &five).await.unwrap();
    on.pipeline(&name, scaled(4)).await;
    accepted(&on, &name, "Accepted").await;
    let kept = replicas(&on, &ingest, 5).await;
    assert_eq!(replica_owners(&kept), ["autoscaler"]);

    on.pipeline(&name, fixed).await;
    is_there::<HorizontalPodAutoscaler>(&on, &ingest, false).await;
    replicas(&on, &ingest, 3).await;
    on.pipeline(&name, json!({})).await;
    is_there::<PodDisruptionBudget>(&on, &ingest, false).await;
    is_there::<PodDisruptionBudget>(&on, &processor, true).await;

    let settings = on.settings().replace("podDisruptionBudget: true", "podDisruptionBudget: false");
    let ground = on.leave().await;
    let client = ground.cluster.client.clone();
    let on = Operator::start_on(ground, &settings, client).await;
    is_there::<PodDisruptionBudget>(&on, &processor, false).await;
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_elsewhere_is_not_accepted() {
    let on = Operator::start().await;
    let elsewhere = unique("elsewhere");
    on.cluster.ensure_namespace(&elsewhere).await.unwrap();
    on.pipeline_in(&elsewhere, "fast", json!({})).await;
    let api = Api::<LogPipeline>::namespaced(on.cluster.client.clone(), &elsewhere);
    eventually("the pipeline is refused", SOON, || async {
        let conditions = api.get("fast").await?.status.unwrap_or_default().conditions;
        let accepted = conditions.iter().find(|condition| condition.type_ == "Accepted");
        let accepted = accepted.map(|condition| (condition.status.as_str(), condition.reason.as_str()));
        anyhow::ensure!(accepted == Some(("False", "NamespaceNotAllowed")), "{accepted:?}");
        Ok(())
    })
    .await
    .unwrap();
    on.cluster.delete_namespace(&elsewhere).await.unwrap();
    on.stop().await;
}

/// What the operator says of the pipeline's acceptance.
async fn accepted(on: &Operator, name: &str, reason: &str) -> String {
    eventually(&format!("{name} is {reason}"), SOON, || async {
        let pipeline = on.cluster.pipelines().get(name).await?;
        let generation = pipeline.metadata.generation;
        let conditions = pipeline.status.unwrap_or_default().conditions;
        let accepted = conditions.into_iter().find(|condition| condition.type_ == "Accepted");
        let accepted = accepted.filter(|found| found.reason == reason && found.observed_generation == generation);
        accepted.map(|found| found.message).ok_or_else(|| anyhow::anyhow!("not yet"))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_whose_tests_fail_are_not_given_to_the_processors() {
    let on = Operator::start().await;
    let name = unique("lane");
    let spec = |detector: &str, pattern: &str| {
        json!({
            "stages": [
                {"name": "personal", "redact": {"detectors": [detector]}},
                {"name": "probes", "match": {"fields": [{"name": "message", "matches": pattern}]}, "drop": {}},
            ],
            "tests": [{"name": "no address is kept", "input": "to ada@example.com", "expect": {"fields": {"message": "to [email]"}}}],
        })
    };
    let processor = format!("r-{name}-processor");
    let given = async |on: &Operator| {
        let found = on.cluster.ours::<Deployment>().get_opt(&processor).await.unwrap()?;
        let container = found.spec?.template.spec?.containers.into_iter().next()?;
        let variable = |name: &str| {
            container.env.iter().flatten().find(|variable| variable.name == name).and_then(|found| found.value.clone())
        };
        Some((variable("LOGGERHUB_STAGES"), variable("LOGGERHUB_PIPELINE_GENERATION")))
    };

    on.pipeline(&name, spec("IpAddress", "^GET")).await;
    let message = accepted(&on, &name, "TestsFailed").await;
    let expected = "test `no address is kept`: field `message`: expected `to [email]`, got `to ada@example.com`";
    assert_eq!(message, expected);
    assert_eq!(given(&on).await, None, "nothing was ever accepted, so nothing runs");

    on.pipeline(&name, spec("Email", "^GET /(healthz|ready)$")).await;
    accepted(&on, &name, "Accepted").await;
    let (stages, generation) = given(&on).await.unwrap();
    let stages = stages.unwrap();
    let read: Vec<crds::stage::Stage> = serde_json::from_str(&stages).unwrap();
    assert_eq!(read, on.cluster.pipelines().get(&name).await.unwrap().spec.stages);

    for (broken, reason) in [(spec("Token", "^GET"), "TestsFailed"), (spec("Email", "^GET ("), "InvalidStages")] {
        on.pipeline(&name, broken).await;
        accepted(&on, &name, reason).await;
        let kept = (Some(stages.clone()), generation.clone());
        assert_eq!(given(&on).await.unwrap(), kept, "the processors keep what was accepted last");
    }

    // An upgrade reaches them all the same.
    let settings = on.settings().replace("image: loggerhub,", "image: loggerhub:2,");
    let ground = on.leave().await;
    let client = ground.cluster.client.clone();
    let on = Operator::start_on(ground, &settings, client).await;
    eventually("the processors have the new image", SOON, || async {
        let found = on.cluster.ours::<Deployment>().get(&processor).await?;
        let pod = found.spec.and_then(|spec| spec.template.spec);
        let image = pod.and_then(|pod| pod.containers.into_iter().next()?.image);
        anyhow::ensure!(image.as_deref() == Some("loggerhub:2"), "{image:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(given(&on).await.unwrap(), (Some(stages), generation), "with what was accepted last");
    accepted(&on, &name, "InvalidStages").await;
    on.stop().await;
}
