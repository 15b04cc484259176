//! The operator signs the registry: with a key that it makes once, before anybody verifies it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::TenantName;
use crds::names::{REGISTRY_SIGNATURES, REGISTRY_TENANTS, registry_keys_config_map, registry_signing_secret};
use crds::registry::{RegistryKey, TenantState};
use crds::signature::{SigningKey, VerifyingKey, VerifyingKeys};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use operator::provision::{Registry, Signing};
use redis::AsyncCommands;
use serde_json::json;
use testkit::{eventually, unique};
use tokio::sync::watch;

use crate::operator_under_test::{Ground, Operator, SOON};

/// A ground without the keys of an installed LoggerHub.
async fn ground() -> Ground {
    let ground = Ground::new().await;
    let secrets = ground.cluster.ours::<Secret>();
    secrets.delete(&registry_signing_secret("r"), &DeleteParams::default()).await.ok();
    ground
}

/// The public keys that pods mount; none before there are any.
async fn published(on: &Ground) -> VerifyingKeys {
    let found = on.cluster.ours::<ConfigMap>().get_opt(&registry_keys_config_map("r")).await.unwrap();
    let data = found.and_then(|found| found.data).unwrap_or_default();
    data.iter().map(|(id, text)| VerifyingKey::parse(id, text).unwrap()).collect()
}

async fn awaited(on: &Ground, what: &str, as_wanted: impl Fn(&VerifyingKeys) -> bool) -> VerifyingKeys {
    let look = || async {
        let keys = published(on).await;
        anyhow::ensure!(as_wanted(&keys), "{keys:?}");
        Ok(keys)
    };
    eventually(what, SOON, look).await.unwrap()
}

/// An operator with a tenant whose entry is signed, and the public keys that pods mount.
async fn signed(ground: Ground, settings: &str, client: Client) -> (Operator, TenantName, VerifyingKeys) {
    let on = Operator::start_on(ground, settings, client).await;
    let name: TenantName = unique("signed").parse().unwrap();
    on.tenant(name.as_str(), json!({})).await;
    on.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    let keys = awaited(&on, "the public key is shown", |keys| !keys.is_empty()).await;
    (on, name, keys)
}

/// The entry and its signature, as they stand in Redis.
async fn entry(on: &Ground, name: &TenantName) -> (String, Option<String>) {
    let mut redis = on.stores.registry.connection();
    let document: String = redis.hget(REGISTRY_TENANTS, name.as_str()).await.unwrap();
    (document, redis.hget(REGISTRY_SIGNATURES, name.as_str()).await.unwrap())
}

async fn revision(on: &Ground, name: &TenantName, keys: &VerifyingKeys) -> anyhow::Result<u64> {
    let (document, signature) = entry(on, name).await;
    Ok(keys.verify(name, document.as_bytes(), signature.as_deref())?.revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_once_and_shown_only_when_every_entry_is_signed() {
    let ground = ground().await;
    let settings = ground.settings();
    let client = ground.cluster.client.clone();
    let (on, name, keys) = signed(ground, &settings, client.clone()).await;
    let first = revision(&on, &name, &keys).await.unwrap();
    let secrets = on.cluster.ours::<Secret>();
    let made = secrets.get(&registry_signing_secret("r")).await.unwrap();
    let private = made.data.as_ref().unwrap()["k1"].0.clone();
    assert!(keys.holds(&SigningKey::from_pkcs8("k1", &private).unwrap().public()));

    // An operator of before wrote the entry, and its Tenant is not looked at: it is signed before the key is shown again.
    let ground = on.leave().await;
    let config_maps = ground.cluster.ours::<ConfigMap>();
    config_maps.delete(&registry_keys_config_map("r"), &DeleteParams::default()).await.unwrap();
    let (document, _) = entry(&ground, &name).await;
    let _: i64 = ground.stores.registry.connection().hdel(REGISTRY_SIGNATURES, name.as_str()).await.unwrap();
    ground.cluster.annotate_tenant(name.as_str(), &[(crds::PAUSED_ANNOTATION, "true")]).await.unwrap();
    let on = Operator::start_on(ground, &settings, client).await;
    let keys = awaited(&on, "the public key is shown again", |keys| !keys.is_empty()).await;
    assert_eq!(entry(&on, &name).await.0, document);
    assert!(revision(&on, &name, &keys).await.unwrap() > first);
    let again = secrets.get(&registry_signing_secret("r")).await.unwrap();
    assert_eq!(again.metadata.resource_version, made.metadata.resource_version, "made once");
    on.cluster.annotate_tenant(name.as_str(), &[(crds::PAUSED_ANNOTATION, "false")]).await.unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_wrote_is_not_signed_with_a_change_of_ours() {
    let ground = ground().await;
    let (settings, client) = (ground.settings(), ground.cluster.client.clone());
    let (on, name, keys) = signed(ground, &settings, client).await;
    let genuine = entry(&on, &name).await.0;
    let mut forged = on.stores.registry.get(&name).await.unwrap().unwrap();
    forged.state = TenantState::Suspended;
    let text = serde_json::to_string(&forged).unwrap();
    let mut redis = on.stores.registry.connection();
    let _: i64 = redis.hset(REGISTRY_TENANTS, name.as_str(), &text).await.unwrap();
    // As the operator has it: it holds the key, and entries have to be signed.
    let secret = on.cluster.ours::<Secret>().get(&registry_signing_secret("r")).await.unwrap();
    let signer = SigningKey::from_pkcs8("k1", &secret.data.unwrap()["k1"].0).unwrap();
    let signing = Signing { signer, accepted: keys.clone(), in_force: true };
    let registry: Registry = on.stores.registry.clone().signed_by(watch::channel(Some(Arc::new(signing))).1);
    assert!(registry.see(&name).await.unwrap().is_none(), "it is passed over");
    for seen in registry.to_sign(std::slice::from_ref(&name)).await.unwrap() {
        registry.sign(&seen, |_| true).await.unwrap();
    }
    // The operator may have put it right already.
    let unsigned = revision(&on, &name, &keys).await.is_err();
    assert!(unsigned || entry(&on, &name).await.0 == genuine, "a forged entry was signed");
    on.cluster.reconcile_tenant(name.as_str(), SOON).await.unwrap();
    assert_eq!(entry(&on, &name).await.0, genuine, "the operator puts it right");
    revision(&on, &name, &keys).await.unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_private_key_is_replaced_by_one_of_another_name() {
    let ground = ground().await;
    let (settings, client) = (ground.settings(), ground.cluster.client.clone());
    let (on, name, before) = signed(ground, &settings, client.clone()).await;
    let first = revision(&on, &name, &before).await.unwrap();
    let ground = on.leave().await;
    let secrets = ground.cluster.ours::<Secret>();
    secrets.delete(&registry_signing_secret("r"), &DeleteParams::default()).await.unwrap();
    let on = Operator::start_on(ground, &settings, client).await;
    let only_new = |keys: &VerifyingKeys| keys.iter().map(VerifyingKey::id).eq(["k2"]);
    let after = awaited(&on, "only the new key is shown", only_new).await;
    assert!(revision(&on, &name, &after).await.unwrap() > first);
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_entry_that_is_put_back_is_not_signed_anew() {
    let ground = ground().await;
    let (settings, client) = (ground.settings(), ground.cluster.client.clone());
    let (on, name, accepted) = signed(ground, &settings, client).await;
    let genuine = on.stores.registry.get(&name).await.unwrap().unwrap();
    let secret = on.cluster.ours::<Secret>().get(&registry_signing_secret("r")).await.unwrap();
    let signer = || SigningKey::from_pkcs8("k1", &secret.data.as_ref().unwrap()["k1"].0).unwrap();
    let signing = || Some(Arc::new(Signing { signer: signer(), accepted: accepted.clone(), in_force: true }));
    let of_connection = || Registry::new(on.stores.registry.connection()).signed_by(watch::channel(signing()).1);
    let lasting = of_connection();
    assert_eq!(lasting.see(&name).await.unwrap().unwrap().entry, genuine);

    // Two days ago the tenant had one key more, and the operator signed that.
    let mut before = genuine.clone();
    before.keys.push(RegistryKey { id: "revoked00000".to_owned(), name: "old".to_owned(), ..genuine.keys[0].clone() });
    let text = serde_json::to_string(&before).unwrap();
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    let revision = two_days_ago.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let signature = signer().sign(&name, revision, text.as_bytes()).to_string();
    let mut redis = on.stores.registry.connection();
    let _: i64 = redis.hset(REGISTRY_TENANTS, name.as_str(), &text).await.unwrap();
    let _: i64 = redis.hset(REGISTRY_SIGNATURES, name.as_str(), &signature).await.unwrap();
    assert!(lasting.see(&name).await.unwrap().is_none(), "who saw a later one passes it over");
    assert!(lasting.to_sign(std::slice::from_ref(&name)).await.unwrap().is_empty());

    // One that begins has seen none. Only keys that were issued live.
    let begun = of_connection();
    let found = begun.to_sign(std::slice::from_ref(&name)).await.unwrap();
    assert_eq!(found.len(), 1, "it is a day old");
    let issued = on.stores.postgres.keys(&name, &[]).await.unwrap();
    assert!(begun.sign(&found[0], |key| issued.iter().any(|row| row.key.id == key.id)).await.unwrap());
    assert_eq!(entry(&on, &name).await.0, serde_json::to_string(&genuine).unwrap());
    assert!(self::revision(&on, &name, &accepted).await.unwrap() > revision);
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_begins_while_a_key_is_new_signs_with_the_one_before() {
    let ground = ground().await;
    let (settings, client) = (ground.settings(), ground.cluster.client.clone());
    let (on, name, _) = signed(ground, &settings, client.clone()).await;
    let ground = on.leave().await;
    let secrets = ground.cluster.ours::<Secret>();
    let more = Secret {
        data: Some([("k2".to_owned(), ByteString(SigningKey::generate().unwrap()))].into()),
        ..Secret::default()
    };
    let name_of_secret = registry_signing_secret("r");
    secrets.patch(&name_of_secret, &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    let on = Operator::start_on(ground, &settings, client.clone()).await;
    awaited(&on, "both keys are shown", |keys| keys.iter().count() == 2).await;
    let ground = on.leave().await;
    let on = Operator::start_on(ground, &settings, client).await;
    // Its first look has been when it signs for another.
    let other: TenantName = unique("signed").parse().unwrap();
    on.tenant(other.as_str(), json!({})).await;
    on.cluster.tenant_ready(other.as_str(), SOON).await.unwrap();
    for name in [&name, &other] {
        let signature = entry(&on, name).await.1.unwrap();
        assert!(signature.starts_with("k1:"), "pods may not know the new key yet: {signature}");
    }
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_of_ours_is_taken_out_of_the_config_map() {
    let ground = ground().await;
    let (settings, client) = (ground.settings_with(2), ground.cluster.client.clone());
    let (on, _, before) = signed(ground, &settings, client.clone()).await;
    let config_maps = on.cluster.ours::<ConfigMap>();
    let stranger = SigningKey::from_pkcs8("k9", &SigningKey::generate().unwrap()).unwrap().public().to_string();
    for (what, patch) in [
        ("a note", json!({"data": {"README": "do not touch"}})),
        ("a file", json!({"binaryData": {"k3": "AAAA"}})),
        ("a stranger's key", json!({"data": {"k9": stranger}})),
        ("nonsense in place of the key", json!({"data": {"k1": "nonsense"}})),
        ("nothing", json!({"data": null})),
    ] {
        let (name, patch) = (registry_keys_config_map("r"), Patch::Merge(patch));
        config_maps.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        let look = || async {
            let found = config_maps.get(&name).await?;
            let names: Vec<_> = found.data.iter().flatten().map(|(id, text)| (id.clone(), text.clone())).collect();
            let ours: Vec<_> = before.iter().map(|key| (key.id().to_owned(), key.to_string())).collect();
            anyhow::ensure!(names == ours && found.binary_data.unwrap_or_default().is_empty(), "{names:?}");
            Ok(())
        };
        eventually(&format!("{what} is taken out"), SOON, look).await.unwrap();
    }
    on.stop().await;
}
