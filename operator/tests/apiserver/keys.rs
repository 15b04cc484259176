//! A Tenant's keys on a real API server: rotated, brought along, taken away.

use std::time::Duration;

use crds::apikey::ApiKey;
use crds::registry::{RegistryKey, hour_of};
use crds::tenant::ApiKeyStatus;
use crds::{PAUSED_ANNOTATION, ROTATE_KEYS_ANNOTATION, TenantName};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::{eventually, unique};

use crate::operator_under_test::{Operator, SOON};

/// A key of the spec whose Secret is in the operator's namespace.
fn key(on: &Operator, name: &str, secret: &str, more: Value) -> Value {
    let secret = json!({"name": secret, "namespace": on.class});
    let mut key = json!({"name": name, "scopes": ["Ingest"], "secretRef": secret});
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    key
}

fn spec(keys: &[Value]) -> Value {
    json!({"deletionPolicy": "Delete", "apiKeys": keys})
}

/// A tenant of these keys that is Ready.
async fn ready(on: &Operator, keys: &[Value]) -> String {
    let name = unique("keys");
    on.tenant(&name, spec(keys)).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    name
}

async fn text(on: &Operator, secret: &str) -> ApiKey {
    ApiKey::parse(&on.cluster.secret_value(&on.class, secret, "apiKey").await.unwrap()).unwrap()
}

/// What ingest knows.
async fn registered(on: &Operator, tenant: &str) -> Vec<RegistryKey> {
    on.stores.registry.get(&tenant.parse().unwrap()).await.unwrap().unwrap().keys
}

async fn shown(on: &Operator, tenant: &str) -> ApiKeyStatus {
    on.cluster.tenants().get(tenant).await.unwrap().status.unwrap().api_keys[0].clone()
}

/// Waits until ingest knows of so many keys.
async fn count(on: &Operator, tenant: &str, keys: usize) {
    eventually(&format!("ingest knows of {keys} keys"), SOON, || async {
        let known = registered(on, tenant).await.len();
        anyhow::ensure!(known == keys, "{known}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn rotate(on: &Operator, tenant: &str, value: &str) {
    on.cluster.annotate_tenant(tenant, &[(ROTATE_KEYS_ANNOTATION, value)]).await.unwrap();
    rotated(on, tenant, value).await;
}

async fn rotated(on: &Operator, tenant: &str, value: &str) {
    eventually("the rotation is echoed", SOON, || async {
        let status = on.cluster.tenants().get(tenant).await?.status.unwrap_or_default();
        anyhow::ensure!(status.last_handled_key_rotation.as_deref() == Some(value), "{status:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn put(on: &Operator, secret: &str, key: &str) -> Secret {
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": {"apiKey": key},
    }))
    .unwrap();
    on.cluster.apply(&on.cluster.ours::<Secret>(), &secret).await.unwrap()
}

/// Runs a statement about a tenant's keys, as time would.
async fn age(on: &Operator, statement: &str, tenant: &str) {
    let done = sqlx::query(statement).bind(tenant).execute(on.stores.postgres.core()).await;
    assert_eq!(done.unwrap().rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_secret_is_given_a_key_only_if_it_is_empty_and_stays_its_owners() {
    let on = Operator::start().await;
    let secrets = on.cluster.ours::<Secret>();
    let made = async |name: &str, data: serde_json::Value| {
        let secret = json!({"metadata": {"name": name, "labels": {"app": "theirs"}}, "stringData": data});
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    };
    let (full, empty) = (unique("full"), unique("empty"));
    made(&full, json!({"password": "theirs"})).await;
    made(&empty, json!({})).await;
    for name in [&full, &empty] {
        on.tenant(name, json!({"deletionPolicy": "Delete"})).await;
        eventually("the Secret is somebody else's", SOON, || async {
            let said = on.cluster.tenant_condition(name, "CredentialsReady", "False", SOON).await?;
            anyhow::ensure!(said.reason == "OwnershipConflict", "{}: {}", said.reason, said.message);
            Ok(())
        })
        .await
        .unwrap();
        on.cluster.annotate_tenant(name, &[(crds::ADOPT_ANNOTATION, "true")]).await.unwrap();
    }
    on.cluster.tenant_ready(&empty, SOON).await.unwrap();
    on.cluster.reconcile_tenant(&full, SOON).await.unwrap();
    let said = on.cluster.tenant_condition(&full, "CredentialsReady", "False", SOON).await.unwrap();
    assert_eq!(said.reason, "OwnershipConflict", "{}", said.message);
    let untouched = secrets.get(&full).await.unwrap();
    assert_eq!(untouched.data.unwrap().keys().collect::<Vec<_>>(), ["password"]);
    let adopted = secrets.get(&empty).await.unwrap();
    assert!(adopted.metadata.owner_references.is_none() && adopted.data.unwrap().contains_key("apiKey"));
    on.cluster.reconcile_tenant(&empty, SOON).await.unwrap();
    let again = secrets.get(&empty).await.unwrap();
    assert_eq!(again.metadata.resource_version, adopted.metadata.resource_version, "it is complete");
    for name in [&full, &empty] {
        on.delete_tenant(name).await;
    }
    testkit::holds("both stay", Duration::from_secs(5), || async {
        for name in [&full, &empty] {
            let found = secrets.get_opt(name).await?.filter(|found| found.metadata.deletion_timestamp.is_none());
            anyhow::ensure!(found.is_some(), "{name} went with its Tenant");
        }
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_issued_is_taken_out_of_the_registry_and_told_of() {
    let on = Operator::start().await;
    let name = ready(&on, &[key(&on, "main", "forged", json!({}))]).await;
    let tenant = name.parse().unwrap();
    let mut entry = on.stores.registry.get(&tenant).await.unwrap().unwrap();
    let forged = RegistryKey { id: "nobodyissued".into(), ..entry.keys[0].clone() };
    entry.keys.push(forged);
    on.stores.registry.upsert(&entry).await.unwrap();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    assert_eq!(registered(&on, &name).await.len(), 1);
    let events = Api::<Event>::namespaced(on.cluster.client.clone(), "default");
    eventually("an Event tells of it", SOON, || async {
        let list = events.list(&ListParams::default().fields(&format!("regarding.name={name}"))).await?;
        let told = list.iter().find(|event| event.reason.as_deref() == Some("KeyForged"));
        let note = told.and_then(|event| event.note.as_deref()).unwrap_or_default();
        anyhow::ensure!(note.contains("nobodyissued"), "{note}");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_on_request_once_and_the_one_before_works_until_it_is_ended() {
    let on = Operator::start().await;
    let name = ready(&on, &[key(&on, "main", "rotated", json!({}))]).await;
    let before = text(&on, "rotated").await;
    rotate(&on, &name, "main@1").await;
    let after = text(&on, "rotated").await;
    assert_ne!(after.id(), before.id());
    let status = shown(&on, &name).await;
    let previous = status.previous.unwrap();
    assert_eq!((status.key_id.as_str(), previous.key_id.as_str()), (after.id(), before.id()));
    let left = previous.expires_at.0.as_second() - status.issued_at.0.as_second();
    assert!((24 * 3600 - 60..=24 * 3600).contains(&left), "{left} s");
    for known in registered(&on, &name).await {
        let ends = (known.id == before.id()).then(|| previous.expires_at.0.as_second() as u64);
        assert_eq!((known.name.as_str(), known.expires_at), ("main", ends), "{}", known.id);
    }
    // The annotation stays, as it does in a repository: nothing more happens, also under another form of it.
    let version = on.cluster.ours::<Secret>().get("rotated").await.unwrap().resource_version();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    rotate(&on, &name, "*@1").await;
    assert_eq!(on.cluster.ours::<Secret>().get("rotated").await.unwrap().resource_version(), version);
    on.tenant(&name, spec(&[key(&on, "main", "rotated", json!({"rotation": {"overlapHours": 0}}))])).await;
    count(&on, &name, 1).await;
    eventually("the status shows one key", SOON, || async {
        let status = shown(&on, &name).await;
        anyhow::ensure!(status.previous.is_none() && status.key_id == after.id(), "{status:?}");
        Ok(())
    })
    .await
    .unwrap();
    let events = Api::<Event>::namespaced(on.cluster.client.clone(), "default");
    eventually("Events tell of the rotation and of its end, and of no drift", SOON, || async {
        let list = events.list(&ListParams::default().fields(&format!("regarding.name={name}"))).await?;
        let reasons: Vec<String> = list.iter().filter_map(|event| event.reason.clone()).collect();
        let told = |reason: &str| reasons.iter().any(|told| told == reason);
        anyhow::ensure!(told("KeyRotated") && told("KeyEnded") && !told("DriftCorrected"), "{reasons:?}");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

/// Between two resyncs, which are an hour apart here, the operator comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_and_the_one_before_ends_when_their_time_has_come() {
    let on = Operator::start().await;
    let rotation = json!({"rotation": {"intervalDays": 1, "overlapHours": 1}});
    let name = ready(&on, &[key(&on, "main", "scheduled", rotation)]).await;
    let first = text(&on, "scheduled").await;
    let due = "UPDATE api_keys SET issued_at = now() - interval '1 day' + interval '8 s' WHERE tenant = $1";
    age(&on, due, &name).await;
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    assert_eq!(text(&on, "scheduled").await.id(), first.id(), "not yet");
    count(&on, &name, 2).await;
    let second = text(&on, "scheduled").await;
    assert_ne!(second.id(), first.id());
    let over = "UPDATE api_keys SET expires_at = now() + interval '4 s' WHERE tenant = $1 AND expires_at IS NOT NULL";
    age(&on, over, &name).await;
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    count(&on, &name, 1).await;
    assert_eq!(registered(&on, &name).await[0].id, second.id());
    on.stop().await;
}

/// As an operator leaves it that ends between the write of the Secret and the key's registration.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_cut_off_is_finished() {
    let on = Operator::start().await;
    let name = ready(&on, &[key(&on, "main", "cut", json!({}))]).await;
    let (old, new) = (text(&on, "cut").await, ApiKey::generate());
    let written = json!({
        "metadata": {"annotations": {"loggerhub.io/replaces-key": old.id()}},
        "stringData": {"apiKey": new.to_string()},
    });
    let secrets = on.cluster.ours::<Secret>();
    // No other look at the Tenant comes between the Secret and the request.
    on.pause(&name).await;
    secrets.patch("cut", &PatchParams::default(), &Patch::Merge(written)).await.unwrap();
    let request = [(ROTATE_KEYS_ANNOTATION, "main@1"), (PAUSED_ANNOTATION, "false")];
    on.cluster.annotate_tenant(&name, &request).await.unwrap();
    rotated(&on, &name, "main@1").await;
    assert_eq!(text(&on, "cut").await.id(), new.id(), "no third key");
    let status = shown(&on, &name).await;
    assert_eq!((status.key_id.as_str(), status.previous.unwrap().key_id.as_str()), (new.id(), old.id()));
    assert_eq!(registered(&on, &name).await.len(), 2);
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_key_is_read_and_its_secret_is_never_touched() {
    let on = Operator::start().await;
    let name = unique("keys");
    let existing = || key(&on, "main", "theirs", json!({"source": "Existing"}));
    on.tenant(&name, spec(&[existing()])).await;
    let refused = async |reason: &str, said: &str| {
        eventually(&format!("the condition says {reason}"), SOON, || async {
            let condition = on.cluster.tenant_condition(&name, "CredentialsReady", "False", SOON).await?;
            anyhow::ensure!(condition.reason == reason && condition.message.contains(said), "{condition:?}");
            anyhow::ensure!(!condition.message.contains("hunter2"), "it tells what the Secret holds");
            Ok(())
        })
        .await
        .unwrap();
    };
    refused("SecretMissing", "does not exist").await;
    put(&on, "theirs", "hunter2").await;
    refused("KeyRejected", "is not an API key").await;
    let (first, second) = (ApiKey::generate(), ApiKey::generate());
    let version = put(&on, "theirs", &format!("{first}\n")).await.resource_version();
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    assert_eq!(registered(&on, &name).await[0].id, first.id());
    let kept = on.cluster.ours::<Secret>().get("theirs").await.unwrap();
    assert_eq!((kept.resource_version(), kept.labels().len()), (version, 0));

    put(&on, "theirs", &second.to_string()).await;
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    let status = shown(&on, &name).await;
    assert_eq!((status.key_id.as_str(), status.previous.unwrap().key_id.as_str()), (second.id(), first.id()));
    // What was put back while it works is the current one again; once it was revoked, never more.
    put(&on, "theirs", &first.to_string()).await;
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    assert_eq!(shown(&on, &name).await.key_id, first.id());
    on.tenant(&name, spec(&[])).await;
    count(&on, &name, 0).await;
    on.cluster.ours::<Secret>().get("theirs").await.unwrap();
    on.tenant(&name, spec(&[existing()])).await;
    refused("KeyRejected", "was revoked").await;
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_keys_secret_goes_if_it_is_ours() {
    let on = Operator::start().await;
    let (main, moved) = (key(&on, "main", "main", json!({})), key(&on, "main", "moved", json!({})));
    let (second, third) = (key(&on, "second", "second", json!({})), key(&on, "third", "third", json!({})));
    let name = ready(&on, &[main, second, third]).await;
    // Somebody has made this one theirs.
    let taken = json!({"metadata": {"labels": {"loggerhub.io/tenant": null}}});
    let secrets = on.cluster.ours::<Secret>();
    secrets.patch("third", &PatchParams::default(), &Patch::Merge(taken)).await.unwrap();
    on.tenant(&name, spec(&[moved])).await;
    count(&on, &name, 1).await;
    eventually("the Secrets of keys that are gone are gone", SOON, || async {
        for gone in ["main", "second"] {
            anyhow::ensure!(secrets.get_opt(gone).await?.is_none(), "{gone} is there");
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(text(&on, "moved").await.id(), registered(&on, &name).await[0].id);
    secrets.get("third").await.unwrap();
    let tenant: TenantName = name.parse().unwrap();
    eventually("only the one that is there is remembered", SOON, || async {
        let written = on.stores.postgres.written_secrets(&tenant).await?;
        anyhow::ensure!(written.len() == 1 && written[0].name == "moved", "{written:?}");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_shown_and_stays_when_redis_forgets_it() {
    let on = Operator::start().await;
    let name = ready(&on, &[key(&on, "main", "used", json!({}))]).await;
    let (tenant, id): (TenantName, _) = (name.parse().unwrap(), text(&on, "used").await.id().to_owned());
    let hour = hour_of(std::time::SystemTime::now());
    let mut redis = on.stores.registry.connection();
    let () = redis::cmd("HSET")
        .arg(tenant.key_uses())
        .arg(&[(&id, hour), (&"gone".to_owned(), hour)])
        .query_async(&mut redis)
        .await
        .unwrap();
    for _ in 0..2 {
        on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
        let used = shown(&on, &name).await.last_used_at.map(|at| at.0.as_second() as u64);
        assert_eq!(used, Some(hour));
        let left: Vec<String> = redis::cmd("HKEYS").arg(tenant.key_uses()).query_async(&mut redis).await.unwrap();
        assert!(!left.contains(&"gone".to_owned()), "{left:?}");
        let () = redis::cmd("DEL").arg(tenant.key_uses()).query_async(&mut redis).await.unwrap();
    }
    on.stop().await;
}
