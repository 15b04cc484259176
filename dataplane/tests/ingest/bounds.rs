//! What ingest may hold: a tenant's share of the queue, replicas, bodies that don't come, connections.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crds::names::CONSUMER_GROUP;
use dataplane::queue::Lanes;

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

const DURABLE: [&str; 3] = ["--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"];

/// An event that does not compress.
fn noise(length: usize) -> String {
    let hex: String = (0..length / 16).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    format!(r#"{{"a":"{hex}"}}"#)
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
    let mut refused = None;
    for _ in 0..40 {
        let response = door.logs(&greedy).body(noise(100_000)).send().await.unwrap();
        if response.status() != 202 {
            refused = Some((response.status().as_u16(), response.text().await.unwrap()));
            break;
        }
    }
    let (status, body) = refused.expect("it is refused");
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
async fn no_more_connections_are_served_than_are_allowed() {
    let redis = RedisServer::durable().await;
    let door = Door::open_with(&redis, |settings| settings.max_connections = 1).await;
    let idle = TcpStream::connect(door.url.trim_start_matches("http://")).await.unwrap();
    let waiting = tokio::spawn(reqwest::get(format!("{}/health", door.url)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "the only place is taken");
    drop(idle);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}
