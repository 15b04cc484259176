//! What the door says of an `Idempotency-Key` that it has seen.

use serde_json::Value;

use crate::door::{Door, Sender, eventually};
use crate::redis_server::RedisServer;

/// Sends a body under a key: the status, and the code or what is said of a duplicate.
async fn sent(door: &Door, sender: &Sender, key: &str, body: &str) -> (u16, Value) {
    let response = door.logs(sender).header("idempotency-key", key).body(body.to_owned()).send().await.unwrap();
    let (status, answer) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
    (status, if status == 202 { answer["duplicate"].clone() } else { answer["error"]["code"].clone() })
}

fn kept(status: u16) -> (u16, Value) {
    (status, Value::Null)
}

async fn entries(redis: &RedisServer, sender: &Sender) -> u64 {
    redis.command(&["XLEN", &sender.tenant().lane().stream()]).await
}

#[tokio::test]
async fn a_key_that_another_body_has_is_refused_and_the_same_body_is_a_duplicate() {
    let (redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let (sender, other) = (Sender::new(), Sender::new());
    sender.project(&redis).await;
    other.project(&redis).await;
    let door = Door::open_with_cache(&redis, Some(&cache)).await;
    let (a, b) = (r#"{"n":1}"#, r#"{"n":2}"#);
    assert_eq!(sent(&door, &sender, "k", a).await, kept(202));
    assert_eq!(sent(&door, &sender, "k", a).await, (202, true.into()), "the same body");
    assert_eq!(entries(&redis, &sender).await, 2);
    assert_eq!(sent(&door, &sender, "k", b).await, (422, "idempotency_key_reused".into()));
    assert_eq!(entries(&redis, &sender).await, 2, "a refused body was queued");
    assert_eq!(sent(&door, &sender, "k2", b).await, kept(202), "another key");
    assert_eq!(sent(&door, &other, "k", b).await, kept(202), "another tenant's key");
    let ttls: Vec<i64> = {
        let keys: Vec<String> = cache.command(&["KEYS", "lh:idem:*"]).await;
        let mut ttls = Vec::new();
        for key in keys {
            ttls.push(cache.command(&["TTL", &key]).await);
        }
        ttls
    };
    assert!(ttls.len() == 3 && ttls.iter().all(|ttl| (259_000..=259_200).contains(ttl)), "{ttls:?}");
}

#[tokio::test]
async fn a_tenant_that_comes_after_another_of_its_name_has_used_no_key_yet() {
    let (redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let mut sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_with_cache(&redis, Some(&cache)).await;
    let (a, b) = (r#"{"n":1}"#, r#"{"n":2}"#);
    assert_eq!(sent(&door, &sender, "k", a).await, kept(202));
    // Deleted, and made anew.
    sender.registered.uid = "another".into();
    sender.project(&redis).await;
    eventually("the new one is known", async || sent(&door, &sender, "k", a).await == kept(202)).await;
    assert_eq!(sent(&door, &sender, "k", a).await, (202, true.into()), "its own key");
    assert_eq!(sent(&door, &sender, "k", b).await, (422, "idempotency_key_reused".into()));
}

#[tokio::test]
async fn a_body_that_was_not_kept_leaves_its_key_free() {
    let (mut redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_with_cache(&redis, Some(&cache)).await;
    redis.kill();
    assert_eq!(sent(&door, &sender, "k", r#"{"n":1}"#).await.0, 503);
    redis.restart().await;
    eventually("accepted again", async || sent(&door, &sender, "k", r#"{"n":2}"#).await == kept(202)).await;
}

#[tokio::test]
async fn without_the_cache_requests_go_on_and_the_catalog_decides() {
    let (redis, mut cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let sender = Sender::new();
    sender.project(&redis).await;
    let (a, b) = (r#"{"n":1}"#, r#"{"n":2}"#);
    let door = Door::open_with_cache(&redis, Some(&cache)).await;
    assert_eq!(sent(&door, &sender, "k", a).await, kept(202));
    cache.kill();
    assert_eq!(sent(&door, &sender, "k", b).await, kept(202), "the cache is away");
    let door = Door::open(&redis).await;
    assert_eq!(sent(&door, &sender, "k", b).await, kept(202), "there is no cache");
    assert_eq!(entries(&redis, &sender).await, 3);
}
