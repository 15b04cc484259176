//! When Redis is down, full or wiped, nothing is accepted that could be lost, and it ends well.

use std::time::Duration;

use crds::names::CONSUMER_GROUP;
use dataplane::queue::Lanes;

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

#[tokio::test]
async fn without_redis_requests_are_refused_and_then_taken_again() {
    let mut redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    assert_eq!(outcome(door.logs(&sender).body("{}")).await.0, 202);
    redis.kill();
    let response = door.logs(&sender).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert!(response.text().await.unwrap().contains("queue_unavailable"));
    eventually("not ready", async || door.get("/ready").await.status() == 503).await;
    assert_eq!(door.get("/health").await.status(), 200);
    assert_eq!(door.get("/queue/status").await.status(), 503);
    redis.restart().await;
    eventually("accepted again", async || outcome(door.logs(&sender).body("{}")).await.0 == 202).await;
    let lane = sender.tenant().lane();
    let events: u64 = redis.command(&["GET", &lane.events_counter()]).await;
    assert!(events >= 2, "{events}: what was accepted before the kill is gone");
}

#[tokio::test]
async fn a_full_queue_refuses_and_can_still_be_emptied() {
    let redis = RedisServer::with(&["--appendonly yes", "--appendfsync always", "--maxmemory 24mb"]).await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let stream = sender.tenant().lane().stream();
    let _: String = redis.command(&["XGROUP", "CREATE", &stream, CONSUMER_GROUP, "0", "MKSTREAM"]).await;
    // Incompressible, so that memory fills as fast as bytes are sent.
    let mut noise = 1_u64;
    let mut body = || {
        let line: String = (0..16_000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{:016x}", noise ^ (noise >> 29))
            })
            .collect();
        format!(r#"{{"a":"{line}"}}"#)
    };
    let mut refused = None;
    for _ in 0..400 {
        match outcome(door.logs(&sender).body(body())).await {
            (202, _) => {}
            other => {
                refused = Some(other);
                break;
            }
        }
    }
    assert_eq!(refused, Some((503, "queue_full".to_owned())));
    // Even past the limit, where Redis itself refuses to write, a processor that starts now joins
    // the group and acknowledges.
    let _: String = redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let lanes = Lanes::new(&redis.redis()).unwrap();
    let mut consumer = redis.consumer("a", Duration::from_secs(30));
    eventually("the queue is empty", async || {
        let delivered = consumer.read().await.unwrap();
        let entries: Vec<_> = delivered.into_iter().map(|delivery| delivery.entry).collect();
        lanes.acknowledge(&entries).await.unwrap();
        let events: u64 = redis.command(&["GET", &sender.tenant().lane().events_counter()]).await;
        events == 0
    })
    .await;
    let _: String = redis.command(&["CONFIG", "SET", "maxmemory", "100mb"]).await;
    eventually("accepted again", async || outcome(door.logs(&sender).body("{}")).await.0 == 202).await;
}
