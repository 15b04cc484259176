//! Two operators: one leads, the other takes over, and never do both work.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::json;
use testkit::{OperatorProcess, eventually, unique};

use crate::operator_under_test::{Ground, SOON};
use crate::program::{announcements, has_one_key, start};

/// Longest wait until a lease that nobody renews has run out, after 15 s, and somebody else leads.
const TAKEOVER: Duration = Duration::from_secs(60);

/// A leader that stands still in the middle of provisioning a Tenant, and one that stands by.
async fn one_stuck_and_one_standing_by(ground: &Ground, tenant: &str) -> (OperatorProcess, OperatorProcess) {
    let leader = start(ground, Some("create.secret-written=stop@1"));
    leader.leads().await.unwrap();
    let second = start(ground, None);
    second.standing("stands by", SOON).await.unwrap();
    let status = second.get("/metrics").await.unwrap();
    assert!(status.contains("leader_election_master_status{name=\"r-operator\"} 0"), "{status}");
    ground.tenant(tenant, json!({"deletionPolicy": "Delete"})).await;
    eventually("the leader stands still", SOON, || async {
        anyhow::ensure!(leader.is_stopped(), "it goes on");
        Ok(())
    })
    .await
    .unwrap();
    (leader, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_while_it_provisions_is_followed_and_nothing_is_done_twice() {
    let ground = Ground::new().await;
    let name = unique("lead");
    let (mut first, second) = one_stuck_and_one_standing_by(&ground, &name).await;
    first.signal("KILL").await.unwrap();
    first.ended(SOON).await.unwrap();
    second.standing("leads", TAKEOVER).await.unwrap();
    has_one_key(&ground, &name).await;
    assert_eq!(announcements(&ground, &name).await, 1);
    second.stop().await.unwrap();
    let (leases, lease) = ground.lease();
    let spec = leases.get(lease).await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity, spec.lease_transitions), (None, Some(2)));
    // Given back, it is taken at once: far sooner than it would run out.
    let third = start(&ground, None);
    third.standing("leads", Duration::from_secs(10)).await.unwrap();
    ground.clear().await;
    third.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_ends_without_a_write_when_it_goes_on() {
    let ground = Ground::new().await;
    let name = unique("lead");
    let (mut first, second) = one_stuck_and_one_standing_by(&ground, &name).await;
    second.standing("leads", TAKEOVER).await.unwrap();
    has_one_key(&ground, &name).await;
    let seen = async || {
        let tenant = ground.cluster.tenants().get(&name).await.unwrap().resource_version();
        let secret = ground.cluster.ours::<k8s_openapi::api::core::v1::Secret>().get(&name).await.unwrap();
        (tenant, secret.resource_version(), announcements(&ground, &name).await)
    };
    let before = seen().await;
    first.signal("CONT").await.unwrap();
    let status = first.ended(SOON).await.unwrap();
    assert!(!status.success(), "it must begin anew: {status}");
    assert_eq!(seen().await, before);
    has_one_key(&ground, &name).await;
    second.standing("leads", SOON).await.unwrap();
    ground.clear().await;
    second.stop().await.unwrap();
}
