//! Quotas: shared by replicas, told in every answer, and kept without Redis's scripts too.

use std::time::Instant;

use crds::registry::{IngestQuotas, Rate};
use serde_json::Value;

use crate::door::{Door, Sender, outcome};
use crate::redis_server::RedisServer;

fn limited(bytes: Option<(u64, u64)>, events: Option<(u64, u64)>) -> Sender {
    let rate = |(per_second, burst)| Rate { per_second, burst };
    let mut sender = Sender::new();
    sender.registered.quotas = IngestQuotas { bytes: bytes.map(rate), events: events.map(rate) };
    sender
}

#[tokio::test]
async fn two_replicas_share_a_quota_and_say_what_is_left() {
    let redis = RedisServer::durable().await;
    let sender = limited(None, Some((1, 100)));
    let free = Sender::new();
    sender.project(&redis).await;
    free.project(&redis).await;
    let doors = [Door::open(&redis).await, Door::open(&redis).await];
    let began = Instant::now();
    let (mut accepted, mut refused) = (0, 0);
    for at in 0..40 {
        let response = doors[at % 2].logs(&sender).body("[{},{},{},{},{}]").send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        assert_eq!(headers["ratelimit-policy"], r#""events";q=100;w=100"#);
        assert!(headers["ratelimit"].to_str().unwrap().starts_with(r#""events";r="#));
        let body: Value = response.json().await.unwrap();
        match status {
            202 => accepted += 5,
            429 => {
                refused += 1;
                assert_eq!(body["error"]["code"], "quota_exceeded");
                assert!(body["error"]["message"].as_str().unwrap().contains("1 events per second"), "{body}");
                assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
            }
            other => panic!("{other}: {body}"),
        }
    }
    let earned = began.elapsed().as_secs() + 1;
    assert!(accepted >= 95 && accepted <= 100 + earned, "{accepted} accepted, {refused} refused");
    let response = doors[0].logs(&free).body("{}").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().get("ratelimit")), (202, None), "no limit, no field");
    let metrics = doors[0].get("/metrics").await.text().await.unwrap();
    let counted =
        format!(r#"loggerhub_ingest_tenant_requests_total{{tenant="{}",outcome="quota_events"}}"#, sender.name());
    assert!(metrics.contains(&counted), "{metrics}");
}

#[tokio::test]
async fn a_body_that_is_refused_is_paid_for_by_what_it_unpacked_to() {
    let redis = RedisServer::durable().await;
    let (sender, free) = (limited(None, Some((10, 100))), Sender::new());
    sender.project(&redis).await;
    free.project(&redis).await;
    let door = Door::open(&redis).await;
    let bomb = zstd::encode_all([b"{".as_slice(), &vec![b' '; 300 * 1024]].concat().as_slice(), 3).unwrap();
    let send = async |sender: &Sender, body: &[u8], encoding: &str| {
        let sent = door.logs(sender).header("content-encoding", encoding).body(body.to_vec()).send().await.unwrap();
        sent.status().as_u16()
    };
    assert_eq!(send(&sender, &bomb, "zstd").await, 400);
    // One more is let through once the bucket is full, and is paid for beforehand.
    let statuses = [send(&sender, b"{}", "identity").await, send(&sender, b"{}", "identity").await];
    assert_eq!(statuses[1], 429, "{statuses:?}");
    assert_eq!(send(&sender, &bomb, "zstd").await, 429, "before it is unpacked");
    for _ in 0..3 {
        assert_eq!(send(&free, &bomb, "zstd").await, 400, "no limit, no debt");
    }
}

#[tokio::test]
async fn a_packed_body_that_is_refused_for_its_quota_is_not_unpacked_again_and_again() {
    let redis = RedisServer::durable().await;
    let sender = limited(None, Some((1, 100)));
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let send = async |body: &[u8], encoding: &str| {
        let body = if encoding == "identity" { body.to_vec() } else { zstd::encode_all(body, 3).unwrap() };
        let sent = door.logs(&sender).header("content-encoding", encoding).body(body).send().await.unwrap();
        let wait = sent.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
        (sent.status().as_u16(), wait.unwrap_or_default())
    };
    let few = format!("[{}]", vec!["{}"; 60].join(","));
    assert_eq!(send(few.as_bytes(), "identity").await.0, 202);
    // Of the burst of 100 there are 40 left.
    let noise: String = (0..400).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    let large = format!(r#"[{},{{"a":"{noise}"}}]"#, vec!["{}"; 60].join(","));
    let (status, wait) = send(large.as_bytes(), "zstd").await;
    assert!(status == 429 && (15..=21).contains(&wait), "{status} {wait}");
    // Unpacked, this one would be no JSON.
    let (status, again) = send(&[b"{", noise.as_bytes()].concat(), "zstd").await;
    assert!(status == 429 && (15..=wait).contains(&again), "before it is unpacked: {status} {again}");
    // What there is enough for passes: as it is, and packed where it is small.
    assert_eq!(send(b"{}", "identity").await.0, 202);
    assert_eq!(send(b"{}", "zstd").await.0, 202);
}

#[tokio::test]
async fn a_sender_of_nothing_but_bad_bodies_pays_for_each_and_is_soon_refused_unread() {
    let redis = RedisServer::durable().await;
    let sender = limited(None, Some((100, 100)));
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let bodies = [
        zstd::encode_all(&[b"[\"", &[0x7f; 1_000_000][..], b"\"]"].concat()[..], 1).unwrap(),
        zstd::encode_all(&[b"{", &[b' '; 21_000_000][..], b"}"].concat()[..], 1).unwrap(),
    ];
    for body in bodies {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let sent = door.logs(&sender).header("content-encoding", "zstd").body(body.clone()).send().await.unwrap();
            statuses.push(sent.status().as_u16());
        }
        // At most the first is looked at: it is worth ten seconds of the quota, or two hundred.
        assert!(statuses[1..].iter().all(|status| *status == 429), "{statuses:?}");
    }
}

#[tokio::test]
async fn a_body_above_the_burst_passes_once_and_is_paid_back() {
    let redis = RedisServer::durable().await;
    let sender = limited(Some((100, 1_000)), None);
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let body = format!(r#"{{"message":"{}"}}"#, "x".repeat(5_000));
    assert_eq!(outcome(door.logs(&sender).body(body)).await.0, 202);
    let response = door.logs(&sender).body("{}").send().await.unwrap();
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(response.status(), 429);
    assert!((30..=42).contains(&wait), "4 kB at 100 B/s are paid back: {wait}");
    assert!(response.text().await.unwrap().contains("bytes per second"));
}

#[tokio::test]
async fn a_changed_quota_holds_at_once() {
    let redis = RedisServer::durable().await;
    let mut sender = limited(None, Some((1, 1)));
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    assert_eq!(outcome(door.logs(&sender).body("{}")).await.0, 202);
    assert_eq!(outcome(door.logs(&sender).body("[{},{}]")).await.0, 429);
    sender.registered.quotas = IngestQuotas { bytes: None, events: Some(Rate { per_second: 1_000, burst: 10_000 }) };
    sender.project(&redis).await;
    crate::door::eventually("the new quota holds", async || outcome(door.logs(&sender).body("[{},{}]")).await.0 == 202)
        .await;
}

#[tokio::test]
async fn without_scripts_a_replica_keeps_the_quota_alone() {
    let redis = RedisServer::durable().await;
    let sender = limited(None, Some((1, 50)));
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let _: String = redis.command(&["ACL", "SETUSER", "default", "-eval", "-evalsha"]).await;
    let began = Instant::now();
    let mut accepted = 0;
    for _ in 0..30 {
        if outcome(door.logs(&sender).body("[{},{},{},{},{}]")).await.0 == 202 {
            accepted += 5;
        }
    }
    let earned = began.elapsed().as_secs() + 1;
    assert!(accepted >= 45 && accepted <= 50 + earned, "{accepted}");
}
