//! Where the registry is signed, nobody but the operator makes a key or changes a tenant, whatever he may write in Redis.

use std::path::PathBuf;
use std::time::Duration;

use crds::names::REGISTRY_SIGNATURES;
use crds::registry::{RegistryKey, TenantState};
use crds::signature::SigningKey;

use crate::door::{Door, Sender, eventually, outcome, pepper};
use crate::redis_server::RedisServer;

/// The operator's key, and a folder that its public one is mounted in, or not yet.
struct Keys {
    signer: SigningKey,
    folder: PathBuf,
}

impl Keys {
    fn new() -> Self {
        let signer = SigningKey::from_pkcs8("k1", &SigningKey::generate().unwrap()).unwrap();
        let folder = std::env::temp_dir().join(format!("loggerhub-signed-{}", testkit::unique("keys")));
        std::fs::create_dir_all(&folder).unwrap();
        Self { signer, folder }
    }

    fn mount(&self) {
        std::fs::write(self.folder.join("k1"), self.signer.public().to_string()).unwrap();
    }

    async fn door(&self, redis: &RedisServer) -> Door {
        let door = self.door_to_be(redis).await;
        door.ready().await;
        door
    }

    /// One that may not be ready yet.
    async fn door_to_be(&self, redis: &RedisServer) -> Door {
        let folder = self.folder.clone();
        Door::open_with(redis, |settings| settings.registry.trust.registry_keys = Some(folder)).await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

async fn accepted(door: &Door, sender: &Sender) -> bool {
    outcome(door.logs(sender).body("{}")).await.0 == 202
}

/// Waits until so many entries are refused, by what the ingest says of itself.
async fn refused(door: &Door, entries: usize) {
    let line = format!("loggerhub_registry_refused_entries {entries}");
    let says = async || door.get("/metrics").await.text().await.unwrap().lines().any(|said| said == line);
    eventually(&format!("{entries} entries are refused"), says).await;
}

/// Nothing that is refused is taken a moment later.
async fn stays_refused(door: &Door, sender: &Sender, what: &str) {
    for _ in 0..15 {
        assert!(!accepted(door, sender).await, "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_forged_entry_is_not_taken_and_what_was_known_before_stays() {
    let (redis, keys) = (RedisServer::durable().await, Keys::new());
    keys.mount();
    let (mut acme, new, mut forger) = (Sender::new(), Sender::new(), Sender::new());
    acme.project_signed(&redis, &keys.signer, 10).await;
    let door = keys.door(&redis).await;
    assert!(accepted(&door, &acme).await);
    // Who has the pepper and writes to Redis adds a key, in a document that is right in all else.
    let minted = RegistryKey { digest: forger.key.digest(&pepper()), ..forger.registered.keys[0].clone() };
    let genuine = acme.registered.clone();
    acme.registered.keys.push(minted);
    acme.project(&redis).await;
    refused(&door, 1).await;
    assert!(!accepted(&door, &forger).await);
    assert!(accepted(&door, &acme).await, "the entry of before stays");
    acme.registered = genuine;
    acme.registered.state = TenantState::Suspended;
    acme.project(&redis).await;
    refused(&door, 1).await;
    stays_refused(&door, &forger, "a forged key").await;
    assert!(accepted(&door, &acme).await, "nobody but the operator suspends it");
    // Nor is a tenant made that the operator does not know, or one under another's signature.
    new.project(&redis).await;
    refused(&door, 2).await;
    forger.registered.tenant = acme.registered.tenant.clone();
    let foreign = SigningKey::from_pkcs8("k1", &SigningKey::generate().unwrap()).unwrap();
    forger.project_signed(&redis, &foreign, 99).await;
    stays_refused(&door, &forger, "another key's signature").await;
    assert!(!accepted(&door, &new).await && accepted(&door, &acme).await);
    // A new ingest has nothing to hold on to: it takes only what is signed, and calls no key wrong while that is none.
    let second = keys.door_to_be(&redis).await;
    refused(&second, 2).await;
    assert!(!accepted(&second, &acme).await && !accepted(&second, &forger).await);
    assert_eq!(outcome(second.logs(&acme).body("{}")).await.0, 503);
    // The operator writes the entry anew.
    acme.registered.state = TenantState::Active;
    acme.project_signed(&redis, &keys.signer, 11).await;
    eventually("the tenant is known there, too", async || accepted(&second, &acme).await).await;
    refused(&door, 1).await;
}

#[tokio::test]
async fn an_entry_of_before_a_revocation_is_not_taken_again() {
    let (redis, keys) = (RedisServer::durable().await, Keys::new());
    keys.mount();
    let mut acme = Sender::new();
    acme.project_signed(&redis, &keys.signer, 10).await;
    let before = acme.registered.clone();
    let door = keys.door(&redis).await;
    assert!(accepted(&door, &acme).await);
    acme.registered.keys.clear();
    acme.project_signed(&redis, &keys.signer, 11).await;
    eventually("the key is revoked", async || !accepted(&door, &acme).await).await;
    acme.registered = before;
    acme.project_signed(&redis, &keys.signer, 10).await;
    refused(&door, 1).await;
    stays_refused(&door, &acme, "a revoked key works again").await;
    acme.project_signed(&redis, &keys.signer, 12).await;
    eventually("a later entry is taken", async || accepted(&door, &acme).await).await;
    acme.withdraw(&redis).await;
    eventually("the removed tenant is refused", async || !accepted(&door, &acme).await).await;
    acme.project(&redis).await;
    refused(&door, 1).await;
    stays_refused(&door, &acme, "a removed tenant is back").await;
    acme.project_signed(&redis, &keys.signer, 13).await;
    eventually("the operator makes it again", async || accepted(&door, &acme).await).await;
}

#[tokio::test]
async fn the_first_key_switches_verification_on_and_its_loss_does_not_switch_it_off() {
    let (redis, keys) = (RedisServer::durable().await, Keys::new());
    let (signed, unsigned) = (Sender::new(), Sender::new());
    unsigned.project(&redis).await;
    signed.project_signed(&redis, &keys.signer, 10).await;
    let door = keys.door(&redis).await;
    assert!(accepted(&door, &signed).await && accepted(&door, &unsigned).await);
    refused(&door, 0).await;
    keys.mount();
    eventually("what nobody signed is refused", async || !accepted(&door, &unsigned).await).await;
    assert!(accepted(&door, &signed).await, "refused by the change");
    refused(&door, 1).await;
    std::fs::remove_file(keys.folder.join("k1")).unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!accepted(&door, &unsigned).await, "verification was switched off");
    let _: u64 = redis.command(&["HDEL", REGISTRY_SIGNATURES, signed.name()]).await;
    signed.project(&redis).await;
    refused(&door, 2).await;
    assert!(accepted(&door, &signed).await);
}

#[tokio::test]
async fn a_key_that_signed_nothing_takes_no_tenant_away() {
    let (redis, keys) = (RedisServer::durable().await, Keys::new());
    keys.mount();
    let (acme, globex) = (Sender::new(), Sender::new());
    acme.project_signed(&redis, &keys.signer, 10).await;
    globex.project_signed(&redis, &keys.signer, 10).await;
    let door = keys.door(&redis).await;
    assert!(accepted(&door, &acme).await);
    // Somebody mounts another's key in its place.
    let stranger = SigningKey::from_pkcs8("k1", &SigningKey::generate().unwrap()).unwrap();
    std::fs::write(keys.folder.join("k1"), stranger.public().to_string()).unwrap();
    refused(&door, 2).await;
    for _ in 0..10 {
        assert!(accepted(&door, &acme).await && accepted(&door, &globex).await, "known, and told that it is not");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // One that starts knows nobody, and says so instead of calling every key wrong.
    let second = keys.door_to_be(&redis).await;
    refused(&second, 2).await;
    assert_eq!(outcome(second.logs(&acme).body("{}")).await.0, 503);
    keys.mount();
    eventually("the operator's key is back", async || accepted(&second, &acme).await).await;
    refused(&door, 0).await;
    assert!(accepted(&door, &globex).await);
}
