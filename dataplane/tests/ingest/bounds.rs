//! What ingest may hold: a tenant's share of the queue, replicas, bodies that don't come, connections.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crds::apikey::ApiKey;
use crds::names::CONSUMER_GROUP;
use crds::tenant::Scope;
use dataplane::queue::Lanes;

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

const DURABLE: [&str; 3] = ["--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"];

/// An event that does not compress.
fn noise(length: usize) -> String {
    let hex: String = (0..length / 16).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    format!(r#"{{"a":"{hex}"}}"#)
}

/// Sends until something is refused, and gives back that answer.
async fn fill(door: &Door, sender: &Sender) -> (u16, String) {
    for _ in 0..40 {
        let response = door.logs(sender).body(noise(100_000)).send().await.unwrap();
        if response.status() != 202 {
            return (response.status().as_u16(), response.text().await.unwrap());
        }
    }
    panic!("it is not refused");
}

#[tokio::test]
async fn what_waits_for_a_pipeline_that_is_not_there_is_bounded_by_the_tenants_share() {
    let redis = RedisServer::with(&[DURABLE[0], DURABLE[1], DURABLE[2], "--maxmemory 64mb"]).await;
    let (mut held, other) = (Sender::new(), Sender::new());
    held.registered.pipeline = "missing".parse().unwrap();
    held.project(&redis).await;
    other.project(&redis).await;
    let door = Door::open_with(&redis, |settings| settings.producer.tenant_percent = 1).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let (status, body) = fill(&door, &held).await;
    assert!(status == 503 && body.contains("queue_full") && body.contains("share"), "{status} {body}");
    assert_eq!(outcome(door.logs(&other).body("{}")).await.0, 202);
}

#[tokio::test]
async fn one_tenants_backlog_is_refused_and_another_tenant_goes_on() {
    let redis = RedisServer::with(&[DURABLE[0], DURABLE[1], DURABLE[2], "--maxmemory 64mb"]).await;
    let (greedy, other) = (Sender::new(), Sender::new());
    greedy.project(&redis).await;
    other.project(&redis).await;
    // 640 KiB.
    let door = Door::open_with(&redis, |settings| settings.producer.tenant_percent = 1).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let lane = greedy.tenant().lane();
    let _: String = redis.command(&["XGROUP", "CREATE", &lane.stream(), CONSUMER_GROUP, "0", "MKSTREAM"]).await;
    let (status, body) = fill(&door, &greedy).await;
    assert!(status == 503 && body.contains("queue_full") && body.contains("share"), "{status} {body}");
    assert_eq!(outcome(door.logs(&other).body("{}")).await.0, 202);
    let waiting: u64 = redis.command(&["HGET", &lane.tenant_bytes(), greedy.name()]).await;
    assert!((640 * 1024..900 * 1024).contains(&waiting), "{waiting}");
    let lanes = Lanes::new(&redis.redis()).unwrap();
    let mut consumer = redis.consumer("a", Duration::from_secs(30));
    eventually("accepted again", async || {
        let read = consumer.read_at_hand().await.unwrap();
        let entries: Vec<_> = read.into_iter().map(|delivery| delivery.entry).collect();
        lanes.acknowledge(&entries).await.unwrap();
        outcome(door.logs(&greedy).body("{}")).await.0 == 202
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_too_few_replicas_have_is_not_accepted() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_with(&redis, |settings| {
        settings.producer.wait_replicas = 1;
        settings.producer.wait_timeout_ms = 300;
    })
    .await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    assert_eq!(outcome(door.logs(&sender).body("{}")).await, (503, "queue_unavailable".into()));
    let stream = sender.tenant().lane().stream();
    let entries: u64 = redis.command(&["XLEN", &stream]).await;
    assert_eq!(entries, 0, "known to be too few before anything is written");
    let health: Value = door.get("/health").await.json().await.unwrap();
    assert_eq!((&health["replicas_required"], &health["replicas_connected"]), (&1.into(), &0.into()));

    let primary = format!("--replicaof 127.0.0.1 {}", redis.port());
    let replica = RedisServer::with(&[&primary]).await;
    eventually("accepted", async || outcome(door.logs(&sender).body("{}")).await.0 == 202).await;
    let copied: u64 = replica.command(&["XLEN", &stream]).await;
    assert!(copied >= 1, "the replica has it before the client is told");
    let health: Value = door.get("/health").await.json().await.unwrap();
    assert_eq!(health["replicas_connected"], 1);

    replica.freeze();
    let response = door.logs(&sender).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.text().await.unwrap().contains("may or may not be kept"));
    replica.thaw();
    eventually("accepted again", async || outcome(door.logs(&sender).body("{}")).await.0 == 202).await;
}

/// Begins a request, writes `rest`, and gives back what is answered.
async fn answer(door: &Door, sender: &Sender, framing: &str, rest: &str) -> String {
    let mut socket = TcpStream::connect(door.url.trim_start_matches("http://")).await.unwrap();
    let head = format!("POST /logs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{framing}\r\n\r\n", sender.key);
    socket.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut part = vec![0; 4096];
    while !answer.ends_with(b"}}") {
        match socket.read(&mut part).await.unwrap() {
            0 => break,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_that_does_not_come_or_breaks_off_is_refused() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_with(&redis, |settings| settings.body_timeout_seconds = 1).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let late = answer(&door, &sender, "content-length: 100", "{\"a\":").await;
    assert!(late.starts_with("HTTP/1.1 408") && late.contains("body_timeout") && late.contains("within 1 s"), "{late}");
    let broken = answer(&door, &sender, "transfer-encoding: chunked", "5\r\n{\"a\":\r\nnot a length\r\n").await;
    assert!(broken.starts_with("HTTP/1.1 400") && broken.contains("body_incomplete"), "{broken}");
    let metrics = door.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("loggerhub_ingest_in_flight_bytes 0"), "{metrics}");
}

#[tokio::test]
async fn one_tenants_slow_bodies_leave_room_for_another() {
    let redis = RedisServer::durable().await;
    let (slow, other) = (Sender::new(), Sender::new());
    slow.project(&redis).await;
    other.project(&redis).await;
    let door = Door::open_unready(&redis, 1024 * 1024).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut socket = TcpStream::connect(door.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /logs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n{{",
            slow.key
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        held.push(socket);
    }
    eventually("the slow tenant is at its share", async || {
        outcome(door.logs(&slow).body("{}")).await == (503, "overloaded".to_owned())
    })
    .await;
    assert_eq!(outcome(door.logs(&other).body(noise(50_000))).await.0, 202);
    drop(held);
    eventually("the slow one is served again", async || outcome(door.logs(&slow).body("{}")).await.0 == 202).await;
}

#[tokio::test]
async fn a_crowd_of_connections_keeps_out_neither_another_peer_nor_the_probes() {
    let redis = RedisServer::durable().await;
    let door = Door::open_with(&redis, |settings| settings.max_connections = 8).await;
    let address = door.url.trim_start_matches("http://").to_owned();
    let idle: Vec<_> = futures::future::try_join_all((0..4).map(|_| TcpStream::connect(&address))).await.unwrap();
    let status = async |from: [u8; 4]| {
        let client = reqwest::Client::builder().local_address(IpAddr::from(from)).build().unwrap();
        client.get(&door.url).send().await.map(|answer| answer.status().as_u16())
    };
    // The first peer has its half of eight. What it is told may be lost with the connection.
    let mut turned_away = TcpStream::connect(&address).await.unwrap();
    let mut answer = String::new();
    turned_away.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["error"]["code"], "overloaded");
    assert_eq!(status([127, 0, 0, 2]).await.unwrap(), 200);
    assert_eq!(door.get("/health").await.status(), 200);
    drop(idle);
    eventually("the first peer is served again", async || {
        status([127, 0, 0, 1]).await.is_ok_and(|status| status == 200)
    })
    .await;
    for path in ["/health", "/ready", "/metrics", "/queue/status"] {
        assert_eq!(
            reqwest::get(format!("{}{path}", door.url)).await.unwrap().status(),
            404,
            "{path} is not a tenant's"
        );
    }
}

/// Sends all of a request before it reads, as many clients do, and gives back what is answered.
async fn sent_whole(door: &Door, key: &str, length: usize) -> String {
    let mut socket = TcpStream::connect(door.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&vec![b' '; length]).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_refusal_of_a_large_body_arrives() {
    let redis = RedisServer::durable().await;
    let (sender, reader) = (Sender::new(), Sender::with_scopes(&[Scope::Query]));
    sender.project(&redis).await;
    reader.project(&redis).await;
    let door = Door::open(&redis).await;
    let unknown = ApiKey::generate().to_string();
    for _ in 0..5 {
        for (key, length, expected) in [
            (unknown.clone(), 4_000_000, "HTTP/1.1 401"),
            (unknown.clone(), 20_000_000, "HTTP/1.1 401"),
            (reader.key.to_string(), 4_000_000, "HTTP/1.1 403"),
            (sender.key.to_string(), 25_000_000, "HTTP/1.1 413"),
        ] {
            let answer = sent_whole(&door, &key, length).await;
            assert!(answer.starts_with(expected), "{length}: {answer:?}");
        }
    }
}

/// The memory attack: small requests whose refusals were once as long as what they decompress to.
#[tokio::test]
async fn a_refusal_is_short_whatever_was_sent() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let text = [b"[\"".to_vec(), vec![0x7f; 20_000_000], b"\"]".to_vec()].concat();
    let sent = zstd::encode_all(&text[..], 1).unwrap();
    let answer = door.logs(&sender).header("content-encoding", "zstd").body(sent).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let text = answer.text().await.unwrap();
    assert!(text.len() < 300 && text.contains("invalid_json"), "{} bytes", text.len());
    let secret = door.logs(&sender).header("content-type", "application/json").body(r#"["my-password"]"#);
    assert!(!secret.send().await.unwrap().text().await.unwrap().contains("my-password"));
    eventually("all is given back", async || {
        door.get("/metrics").await.text().await.unwrap().contains("loggerhub_ingest_in_flight_bytes 0")
    })
    .await;
}
