//! What is accepted is on the queue, exactly as it was sent.

use std::io::Read;
use std::time::Duration;

use crds::PipelineName;
use crds::names::HELD_PIPELINES;
use dataplane::queue::entry::{Entry, Fields, Rejection};
use dataplane::tenancy::Peppers;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use serde_json::Value;
use uuid::Uuid;

use crate::door::{Door, Sender, eventually, outcome, pepper};
use crate::redis_server::RedisServer;

/// Everything in the tenant's lane.
async fn entries(redis: &RedisServer, sender: &Sender) -> Vec<Entry> {
    let stream = sender.tenant().lane().stream();
    let entries: Vec<(String, Fields)> = redis.command(&["XRANGE", &stream, "-", "+"]).await;
    entries.into_iter().map(|(_, fields)| Entry::decode(fields).unwrap()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    GzEncoder::new(bytes, Compression::fast()).read_to_end(&mut compressed).unwrap();
    compressed
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[tokio::test]
async fn every_form_arrives_with_its_bytes_as_sent() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let lines = "{\"message\": \"a\",  \"timestamp\":\"2026-01-02T03:04:05Z\"}\n\nbroken\n{\"message\":\"b\"}\n";
    let twice = [gzip(lines.as_bytes()), gzip(b"{}")].concat();
    // Between two frames, one that says of itself that it is to be skipped.
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0pad!".to_vec();
    let frames = [zstd(lines.as_bytes()), skipped, zstd(b"{}")].concat();
    let taken = "{\"message\": \"a\",  \"timestamp\":\"2026-01-02T03:04:05Z\"}broken{\"message\":\"b\"}";
    let cases = [
        (door.logs(&sender).body(r#"{"message": "a"}"#), r#"{"message": "a"}"#.to_owned(), 1, 0),
        (door.logs(&sender).json(&[1, 2].map(|n| serde_json::json!({"n": n}))), r#"{"n":1}{"n":2}"#.into(), 2, 0),
        (door.logs(&sender).body(lines), taken.into(), 2, 1),
        (door.logs(&sender).header("content-encoding", "gzip").body(gzip(lines.as_bytes())), taken.into(), 2, 1),
        (door.logs(&sender).header("content-encoding", "gzip").body(twice), format!("{taken}{{}}"), 3, 1),
        (door.logs(&sender).header("Content-Encoding", "ZSTD").body(zstd(lines.as_bytes())), taken.into(), 2, 1),
        (door.logs(&sender).header("content-encoding", "zstd").body(frames), format!("{taken}{{}}"), 3, 1),
        (door.post("/data/fast").header("x-api-key", sender.key.to_string()).body("{}"), "{}".into(), 1, 0),
    ];
    for (sent, (request, raw, accepted, rejected)) in cases.into_iter().enumerate() {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202, "case {sent}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!((answer["accepted"].clone(), answer["rejected"].clone()), (accepted.into(), rejected.into()));
        let entries = entries(&redis, &sender).await;
        let entry = entries.last().unwrap();
        let batch = &entry.header.batches[0];
        assert_eq!(String::from_utf8(entry.raw.clone()).unwrap(), raw, "case {sent}");
        assert_eq!(entry.tenant.as_str(), sender.name());
        assert_eq!(answer["batch_id"], batch.batch_id.to_string());
        assert_eq!(batch.key_id, sender.key.id());
        let receipt = Peppers::new([pepper()]).unwrap().read_receipt(answer["receipt"].as_str().unwrap()).unwrap();
        assert_eq!((receipt.batch_id, receipt.accepted_at), (batch.batch_id, batch.accepted_at));
        if rejected == 1 {
            assert_eq!(batch.events[0].time, Some(1_767_323_045_000_000));
            assert_eq!(batch.events[1].rejected, Some(Rejection::InvalidJson));
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_batch_and_the_bodys_hash() {
    let redis = RedisServer::durable().await;
    let (sender, other) = (Sender::new(), Sender::new());
    sender.project(&redis).await;
    other.project(&redis).await;
    let door = Door::open(&redis).await;
    let mut ids = Vec::new();
    for sender in [&sender, &sender, &other] {
        let answer: Value =
            door.logs(sender).header("idempotency-key", "k-1").body("{}").send().await.unwrap().json().await.unwrap();
        ids.push(answer["batch_id"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
    let hashes: Vec<_> = entries(&redis, &sender)
        .await
        .iter()
        .flat_map(|entry| &entry.header.batches)
        .filter(|batch| batch.batch_id == ids[0])
        .map(|batch| batch.body_hash)
        .collect();
    assert!(hashes.len() == 2 && hashes[0].is_some() && hashes[0] == hashes[1], "{hashes:?}");
}

#[tokio::test]
async fn many_small_requests_share_entries_and_every_event_is_counted() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    // While Redis is frozen, requests queue; the next round takes them all.
    redis.freeze();
    let requests = (0..200).map(|n| outcome(door.logs(&sender).body(format!(r#"{{"n":{n}}}"#))));
    let (outcomes, ()) = tokio::join!(futures::future::join_all(requests), async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        redis.thaw();
    });
    assert!(outcomes.iter().all(|(status, _)| *status == 202), "{outcomes:?}");
    let entries = entries(&redis, &sender).await;
    assert_eq!(entries.iter().map(Entry::events).sum::<usize>(), 200);
    assert!(entries.len() < 50, "{} entries", entries.len());
    let lane = sender.tenant().lane();
    let counted: (u64, usize) = redis.command(&["MGET", &lane.events_counter(), &lane.bytes_counter()]).await;
    assert_eq!(counted, (200, entries.iter().map(|entry| entry.frame.len()).sum()));
}

#[tokio::test]
async fn ungrouped_each_request_has_an_entry_of_its_own() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_ungrouped(&redis).await;
    redis.freeze();
    let requests = (0..50).map(|n| outcome(door.logs(&sender).body(format!(r#"{{"n":{n}}}"#))));
    let (outcomes, ()) = tokio::join!(futures::future::join_all(requests), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.thaw();
    });
    assert!(outcomes.iter().all(|(status, _)| *status == 202), "{outcomes:?}");
    assert_eq!(entries(&redis, &sender).await.len(), 50);
    let counted: u64 = redis.command(&["GET", &sender.tenant().lane().events_counter()]).await;
    assert_eq!(counted, 50);
    door.close().await;
}

#[tokio::test]
async fn an_answer_waits_for_the_disk_and_a_stop_waits_for_the_answer() {
    let mut redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    redis.freeze();
    let pending = tokio::spawn(outcome(door.logs(&sender).body("{}")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!pending.is_finished(), "answered before Redis was");
    let closing = tokio::spawn(door.close());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!closing.is_finished(), "stopped with a request in flight");
    redis.thaw();
    assert_eq!(pending.await.unwrap().0, 202);
    closing.await.unwrap();
    redis.kill();
    redis.restart().await;
    assert_eq!(entries(&redis, &sender).await.len(), 1, "accepted, but lost with the process");
}

#[tokio::test]
async fn a_client_that_goes_on_sending_loses_no_request_to_a_stop() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/logs", door.url)).bearer_auth(&sender.key).body("{}");
    let send = || request.try_clone().unwrap().send();
    let before = send().await.unwrap();
    assert_eq!((before.status().as_u16(), before.headers().get("connection")), (202, None));
    before.bytes().await.unwrap();
    let closing = tokio::spawn(door.close());
    tokio::task::yield_now().await;
    let last = send().await.unwrap();
    assert_eq!((last.status().as_u16(), &last.headers()["connection"]), (202, &"close".parse().unwrap()));
    last.bytes().await.unwrap();
    assert!(send().await.unwrap_err().is_connect(), "the next connection is somebody else's");
    closing.await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_pipeline_that_is_not_there_is_shown_though_nobody_names_it() {
    let redis = RedisServer::durable().await;
    let mut sender = Sender::new();
    sender.registered.pipeline = "gone".parse().unwrap();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    assert_eq!(outcome(door.logs(&sender).body("[{},{}]")).await.0, 202);
    redis.command::<i64>(&["SADD", HELD_PIPELINES, "gone"]).await;
    sender.registered.pipeline = PipelineName::default_pipeline();
    sender.project(&redis).await;
    eventually("its events are in the next lane", async || {
        assert_eq!(outcome(door.logs(&sender).body("{}")).await.0, 202);
        redis.command::<i64>(&["XLEN", &sender.tenant().lane().stream()]).await > 0
    })
    .await;
    let lanes: Value = door.get("/queue/status").await.json().await.unwrap();
    let of = |name: &str| {
        let mut lanes = lanes.as_array().unwrap().iter().filter(|lane| lane["name"] == name);
        lanes.next().unwrap_or_else(|| panic!("no lane of {name}")).clone()
    };
    assert_eq!(of("gone")["held"], true);
    assert!(of("gone")["events"].as_i64() >= Some(2));
    assert_eq!(of("default")["held"], false);
}

#[tokio::test]
async fn a_role_says_how_it_is() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let health: Value = door.get("/health").await.json().await.unwrap();
    assert_eq!(health["durability"], "disk");
    assert_eq!(outcome(door.logs(&sender).body("[{},{}]")).await.0, 202);
    let status: Value = door.get("/queue/status").await.json().await.unwrap();
    let lane = sender.tenant().lane();
    let row = status.as_array().unwrap().iter().find(|row| row["stream"] == lane.stream()).unwrap();
    assert_eq!((row["events"].clone(), row["entries"].clone()), (2.into(), 1.into()));
    assert_eq!(row["name"], "default");
    let metrics = door.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains(r#"loggerhub_ingest_requests_total{code="accepted"} 1"#), "{metrics}");
    assert!(metrics.contains("loggerhub_ingest_events_total 2"), "{metrics}");
    let counted =
        format!(r#"loggerhub_ingest_tenant_requests_total{{tenant="{}",outcome="accepted"}} 1"#, sender.name());
    assert!(metrics.contains(&counted), "{metrics}");

    let lax = RedisServer::with(&["--appendonly yes", "--appendfsync everysec"]).await;
    sender.project(&lax).await;
    let door = Door::open(&lax).await;
    eventually("durability is memory", async || {
        door.get("/health").await.json::<Value>().await.unwrap()["durability"] == "memory"
    })
    .await;
}
