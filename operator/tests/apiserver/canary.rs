//! A pipeline's canary: its objects come and go with the spec, and what it says is a condition.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use testkit::{eventually, unique};
use tokio::net::TcpListener;

use crate::operator_under_test::{Operator, SOON};

async fn condition(on: &Operator, pipeline: &str) -> anyhow::Result<Option<Condition>> {
    let status = on.cluster.pipelines().get(pipeline).await?.status.unwrap_or_default();
    Ok(status.conditions.into_iter().find(|condition| condition.type_ == "CanaryHealthy"))
}

async fn says(on: &Operator, pipeline: &str, status: &str, reason: &str) -> String {
    eventually(&format!("CanaryHealthy is {status}/{reason}"), SOON, || async {
        let found = condition(on, pipeline).await?.ok_or_else(|| anyhow::anyhow!("there is none"))?;
        anyhow::ensure!(found.status == status && found.reason == reason, "{found:?}");
        Ok(found.message)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_canary_says_is_a_condition_for_as_long_as_there_is_one() {
    let said = Arc::new(Mutex::new(json!({})));
    let (told, listener) = (Arc::clone(&said), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}/{{service}}", listener.local_addr().unwrap());
    // Null: a canary that is not there.
    let answer = move || {
        let report = told.lock().unwrap().clone();
        let status = if report.is_null() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        std::future::ready((status, Json(report)))
    };
    let name = unique("lane");
    let path = format!("/r-{name}-canary/canary");
    tokio::spawn(axum::serve(listener, Router::new().route(&path, get(answer))).into_future());
    let say = |stages: Value| *said.lock().unwrap() = json!({"last": {"age_seconds": 1, "stages": stages}});

    let on = Operator::start_with(&format!("canaryUrl: {url}\n")).await;
    on.pipeline(&name, json!({"canary": {"keySecret": "canary-key"}})).await;
    assert_eq!(says(&on, &name, "Unknown", "WaitingForPods").await, "the first round trip has not ended");
    let canary = format!("r-{name}-canary");
    let deployment = serde_json::to_value(on.cluster.ours::<Deployment>().get(&canary).await.unwrap()).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "canary-key");
    assert_eq!(deployment["spec"]["replicas"], 1);
    on.cluster.ours::<Service>().get(&canary).await.unwrap();

    say(json!([{"stage": "accept", "milliseconds": 4}, {"stage": "live", "milliseconds": 31}]));
    assert_eq!(says(&on, &name, "True", "RoundTripSucceeded").await, "accept 4 ms, live 31 ms");
    say(json!([{"stage": "accept", "milliseconds": 4}, {"stage": "live", "error": "not shown in time"}]));
    assert_eq!(says(&on, &name, "False", "RoundTripFailed").await, "live: not shown in time; accept 4 ms");
    *said.lock().unwrap() = Value::Null;
    says(&on, &name, "Unknown", "CanaryUnavailable").await;

    on.pipeline(&name, json!({"suspend": true, "canary": {"keySecret": "canary-key"}})).await;
    says(&on, &name, "Unknown", "Suspended").await;
    on.pipeline(&name, json!({})).await;
    eventually("the canary is gone, and all that was said of it", SOON, || async {
        anyhow::ensure!(on.cluster.ours::<Service>().get_opt(&canary).await?.is_none(), "the Service is there");
        anyhow::ensure!(on.cluster.ours::<Deployment>().get_opt(&canary).await?.is_none(), "the Deployment is there");
        anyhow::ensure!(condition(&on, &name).await?.is_none(), "the condition is there");
        Ok(())
    })
    .await
    .unwrap();
    let conditions = on.cluster.pipelines().get(&name).await.unwrap().status.unwrap().conditions;
    let accepted = conditions.iter().any(|one| one.type_ == "Accepted");
    assert!(accepted && conditions.iter().any(|one| one.type_ == "ScalingActive"), "others' stay: {conditions:?}");
    on.stop().await;
}
