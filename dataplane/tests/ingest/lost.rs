//! A Redis whose machine vanishes without a word, and one that became a replica while its name leads elsewhere.

use std::time::Duration;

use dataplane::queue::{Consumer, ConsumerSettings, Lanes};
use runtime::settings::{QueueSettings, TlsSettings};
use runtime::stores::Redis;
use testkit::chaos::proxy::Proxy;

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

/// The queue as its name leads to it.
fn at(name: &Proxy) -> QueueSettings {
    QueueSettings { queue_url: format!("redis://{}", name.address), queue_credentials: None }
}

/// A consumer by that name, and what acknowledges what it reads.
fn consumer(name: &Proxy) -> (Consumer, Lanes) {
    let redis = Redis::queue(&at(name), &TlsSettings::default()).unwrap();
    let pipeline = crds::PipelineName::default_pipeline();
    let settings = ConsumerSettings { pipeline, consumer: "p-0".into(), claim_idle: Duration::from_secs(30) };
    (Consumer::new(&redis, settings).unwrap(), Lanes::new(&redis).unwrap())
}

/// Reads until something comes, and acknowledges it.
async fn consumed((consumer, lanes): &mut (Consumer, Lanes)) {
    eventually("something is read and acknowledged", async || {
        let Ok(read) = consumer.read().await else { return false };
        let entries: Vec<_> = read.into_iter().map(|delivery| delivery.entry).collect();
        !entries.is_empty() && lanes.acknowledge(&entries).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_vanished_without_a_word_is_left_within_seconds() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let name = Proxy::start(format!("127.0.0.1:{}", redis.port())).await.unwrap();
    let door = Door::open_with(&redis, |settings| settings.queue = at(&name)).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let mut processor = consumer(&name);
    assert_eq!(outcome(door.logs(&sender).body("{}")).await.0, 202);
    consumed(&mut processor).await;

    // What is open stays open and says nothing for ever; whoever connects anew is served.
    name.vanish();
    eventually("accepted again", async || outcome(door.logs(&sender).body("{}")).await.0 == 202).await;
    eventually("ready again", async || door.get("/ready").await.status() == 200).await;
    consumed(&mut processor).await;
    // And the registry is followed.
    sender.withdraw(&redis).await;
    eventually("the key is gone", async || outcome(door.logs(&sender).body("{}")).await.0 == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_queue_is_not_ready_and_its_successor_is_found() {
    let durable = ["--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"];
    let settings = [&durable[..], &["--repl-diskless-sync-delay 0"]].concat();
    let (first, second) = (RedisServer::with(&settings).await, RedisServer::with(&settings).await);
    let sender = Sender::new();
    sender.project(&first).await;
    follow(&second, &first).await;
    let name = Proxy::start(format!("127.0.0.1:{}", first.port())).await.unwrap();
    let door = Door::open_with(&first, |settings| settings.queue = at(&name)).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let mut processor = consumer(&name);
    assert_eq!(outcome(door.logs(&sender).body("{}")).await.0, 202);
    consumed(&mut processor).await;

    // They change parts. Nobody ends a connection, and the name still leads to the first.
    let _: String = second.command(&["REPLICAOF", "NO", "ONE"]).await;
    follow(&first, &second).await;
    assert_ne!(outcome(door.logs(&sender).body("{}")).await.0, 202, "a replica takes nothing");
    eventually("not ready", async || door.get("/ready").await.status() == 503).await;

    name.lead_to(format!("127.0.0.1:{}", second.port()));
    eventually("accepted again", async || outcome(door.logs(&sender).body("{}")).await.0 == 202).await;
    eventually("ready again", async || door.get("/ready").await.status() == 200).await;
    let entries: u64 = second.command(&["XLEN", &sender.tenant().lane().stream()]).await;
    assert_eq!(entries, 1, "it is where the name leads");
    consumed(&mut processor).await;
}

/// Makes a replica, and waits until it has everything.
async fn follow(replica: &RedisServer, master: &RedisServer) {
    let _: String = replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    eventually("the replica has everything", async || {
        let info: String = replica.command(&["INFO", "replication"]).await;
        info.contains("master_link_status:up")
    })
    .await;
}
