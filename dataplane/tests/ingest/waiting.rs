//! `POST /data/` waits until its batch is stored, if somebody can say so.

use crds::tenant::Scope;
use dataplane::cache::{Cache, Fate};
use dataplane::queue::entry::{Entry, Fields};
use serde_json::Value;

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

/// Plays the processor: once an entry is queued, tells of its batch.
async fn tell(redis: &RedisServer, cache: &RedisServer, sender: &Sender, fate: Fate) {
    let stream = sender.tenant().lane().stream();
    let mut queued: Vec<(String, Fields)> = Vec::new();
    eventually("the batch is queued", async || {
        queued = redis.command(&["XRANGE", &stream, "-", "+"]).await;
        !queued.is_empty()
    })
    .await;
    let (id, fields) = queued.remove(0);
    let batch = Entry::decode(fields).unwrap().header.batches.remove(0);
    let _: u64 = redis.command(&["XDEL", &stream, &id]).await;
    let tenant = sender.tenant();
    Cache::new(&cache.redis()).unwrap().tell_fates(&tenant, &[(batch.batch_id, batch.accepted_at, fate)]).await;
}

#[tokio::test]
async fn an_answer_says_what_became_of_the_batch() {
    let (redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_with_cache(&redis, Some(&cache)).await;
    for (path, fate, status, state) in [
        ("/data/", Fate::Stored, 201, "stored"),
        ("/data", Fate::Stored, 201, "stored"),
        ("/data/", Fate::Duplicate, 200, "stored"),
        ("/data/", Fate::OtherBody, 422, "idempotency_key_reused"),
    ] {
        let request = door.post(path).bearer_auth(&sender.key).body("{}");
        let (response, ()) = tokio::join!(request.send(), tell(&redis, &cache, &sender, fate));
        let response = response.unwrap();
        assert_eq!(response.status(), status, "{path} {fate:?}");
        let answer: Value = response.json().await.unwrap();
        let said = if status == 422 { &answer["error"]["code"] } else { &answer["state"] };
        assert_eq!(said, state, "{answer}");
        assert_eq!(answer["duplicate"] == true, fate == Fate::Duplicate, "{answer}");
        assert!(status == 422 || answer["receipt"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn what_nobody_tells_of_is_kept_all_the_same() {
    let (redis, mut cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let sender = Sender::new();
    sender.project(&redis).await;
    let reader = Sender::with_scopes(&[Scope::Query]);
    reader.project(&redis).await;
    let with = Door::open_with_cache(&redis, Some(&cache)).await;
    let without = Door::open(&redis).await;
    let waited = async |door: &Door| {
        let response = door.post("/data/").bearer_auth(&sender.key).body("{}").send().await.unwrap();
        let (status, answer) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
        (status, answer["state"].as_str().unwrap_or_default().to_owned())
    };
    let queued = (202, "queued".to_owned());
    assert_eq!(waited(&with).await, queued, "no processor");
    assert_eq!(waited(&without).await, queued, "no cache");
    cache.kill();
    assert_eq!(waited(&with).await, queued, "the cache is away");
    assert_eq!(outcome(with.post("/data/").body("{}")).await, (401, "missing_api_key".to_owned()));
    assert_eq!(
        outcome(with.post("/data/").bearer_auth(&reader.key).body("{}")).await,
        (403, "scope_missing".to_owned())
    );
    assert_eq!(
        outcome(with.post("/data/").bearer_auth(&sender.key).body("text")).await,
        (400, "invalid_json".to_owned())
    );
}
