//! The queue's way out: whatever dies, each entry is handed out until it is acknowledged once.

use std::time::Duration;

use crds::names::{CONSUMER_GROUP, ORPHANED_PIPELINES};
use dataplane::queue::entry::{UNKNOWN_TENANT, Undecodable};
use dataplane::queue::{Consumer, Delivery, EntryRef, Lanes};
use dataplane::requeue::{Report, Wanted, requeue};
use dataplane::tenancy::{Peppers, Registry};

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

struct Queue {
    redis: RedisServer,
    sender: Sender,
    door: Door,
    lanes: Lanes,
}

impl Queue {
    async fn new() -> Self {
        let redis = RedisServer::durable().await;
        let sender = Sender::new();
        sender.project(&redis).await;
        let door = Door::open(&redis).await;
        let lanes = Lanes::new(&redis.redis()).unwrap();
        Self { redis, sender, door, lanes }
    }

    async fn send(&self, body: &str) {
        assert_eq!(outcome(self.door.logs(&self.sender).body(body.to_owned())).await.0, 202);
    }

    /// Events and bytes as the lane counts them, and its entries.
    async fn counted(&self) -> (u64, u64, u64) {
        let lane = self.sender.tenant().lane();
        let (events, bytes): (u64, u64) =
            self.redis.command(&["MGET", &lane.events_counter(), &lane.bytes_counter()]).await;
        (events, bytes, self.redis.command(&["XLEN", &lane.stream()]).await)
    }
}

const SOON: Duration = Duration::from_millis(300);
const NEVER: Duration = Duration::from_secs(3600);

async fn read_some(consumer: &mut Consumer) -> Vec<Delivery> {
    for _ in 0..10 {
        let read = consumer.read().await.unwrap();
        if !read.is_empty() {
            return read;
        }
    }
    panic!("nothing to read within 10 s");
}

fn entries(deliveries: &[Delivery]) -> Vec<EntryRef> {
    deliveries.iter().map(|delivery| delivery.entry.clone()).collect()
}

#[tokio::test]
async fn an_acknowledged_entry_counts_once_however_often_it_is_acknowledged() {
    let queue = Queue::new().await;
    queue.send("[{},{},{}]").await;
    let mut consumer = queue.redis.consumer("a", NEVER);
    let read = read_some(&mut consumer).await;
    assert_eq!((read.len(), read[0].deliveries), (1, 1));
    assert_eq!(read[0].content.as_ref().unwrap().raw, b"{}{}{}");
    queue.send("{}").await;
    assert_eq!(queue.lanes.acknowledge(&entries(&read)).await.unwrap(), 1);
    assert_eq!(queue.lanes.acknowledge(&entries(&read)).await.unwrap(), 0);
    let (events, bytes, left) = queue.counted().await;
    assert!(events == 1 && bytes > 0 && left == 1, "{events} {bytes} {left}");
    let read = read_some(&mut consumer).await;
    queue.lanes.acknowledge(&entries(&read)).await.unwrap();
    assert_eq!(queue.counted().await, (0, 0, 0));
    assert!(consumer.leave().await.unwrap());
}

#[tokio::test]
async fn what_a_consumer_left_unfinished_comes_first_after_its_restart() {
    let queue = Queue::new().await;
    queue.send(r#"{"n":1}"#).await;
    let mut before = queue.redis.consumer("a", NEVER);
    assert_eq!(read_some(&mut before).await.len(), 1);
    drop(before);
    queue.send(r#"{"n":2}"#).await;
    let mut after = queue.redis.consumer("a", NEVER);
    let own = read_some(&mut after).await;
    assert_eq!(own[0].content.as_ref().unwrap().raw, br#"{"n":1}"#);
    assert!(own[0].deliveries > 1, "{}", own[0].deliveries);
    let new = read_some(&mut after).await;
    assert_eq!(new[0].content.as_ref().unwrap().raw, br#"{"n":2}"#);
    assert!(!after.leave().await.unwrap(), "left with entries pending");
}

#[tokio::test]
async fn what_was_not_finished_at_a_stop_is_another_ones_at_once() {
    let queue = Queue::new().await;
    queue.send("{}").await;
    let mut stopped = queue.redis.consumer("a", NEVER);
    let held = entries(&read_some(&mut stopped).await);
    assert!(!stopped.leave().await.unwrap());
    let mut next = queue.redis.consumer("b", NEVER);
    let claimed = read_some(&mut next).await;
    assert_eq!((entries(&claimed), claimed[0].deliveries), (held.clone(), 2));
    queue.lanes.acknowledge(&held).await.unwrap();
    assert!(next.leave().await.unwrap());
}

#[tokio::test]
async fn the_dead_are_taken_over_and_the_living_are_not() {
    let queue = Queue::new().await;
    queue.send("{}").await;
    let mut first = queue.redis.consumer("a", NEVER);
    let held = entries(&read_some(&mut first).await);
    let mut second = queue.redis.consumer("b", SOON);
    for _ in 0..3 {
        assert_eq!(queue.lanes.hold("a", &held).await.unwrap(), 1);
        tokio::time::sleep(SOON / 3).await;
        assert_eq!(queue.lanes.hold("a", &held).await.unwrap(), 1);
        assert!(second.read().await.unwrap().is_empty(), "claimed from the living");
        // The read above lasts longer than the claim's idle time, so it is held again first.
    }
    let claimed = read_some(&mut second).await;
    assert_eq!((entries(&claimed), claimed[0].deliveries), (held.clone(), 2));
    assert_eq!(queue.lanes.hold("a", &held).await.unwrap(), 0, "the first is told that it lost it");
}

#[tokio::test]
async fn what_the_dead_left_is_found_behind_a_thousand_entries_of_the_living() {
    const ENTRIES: usize = 1_000;
    let queue = Queue::new().await;
    let stream = queue.sender.tenant().lane().stream();
    for _ in 0..ENTRIES {
        let _: String = queue.redis.command(&["XADD", &stream, "*", "v", "99"]).await;
    }
    let mut living = queue.redis.consumer("a", NEVER);
    let mut held = Vec::new();
    while held.len() < ENTRIES {
        held.extend(entries(&read_some(&mut living).await));
    }
    tokio::time::sleep(SOON).await;
    let left = held.split_off(ENTRIES - 1);
    // As long as the next read takes.
    let idle = 10 * SOON;
    let mut second = queue.redis.consumer("b", idle);
    tokio::time::sleep(idle - SOON).await;
    assert_eq!(queue.lanes.hold("a", &held).await.unwrap(), held.len() as u64);
    tokio::time::sleep(SOON).await;
    assert!(second.read().await.unwrap().is_empty(), "it looks first for what it left unfinished itself");
    assert_eq!(entries(&second.read().await.unwrap()), left, "and finds this at its first look");
}

#[tokio::test]
async fn what_cannot_be_read_is_handed_out_as_such_and_quarantined() {
    let queue = Queue::new().await;
    let lane = queue.sender.tenant().lane();
    for fields in [
        vec!["nonsense", "x"],
        vec!["v", "1", "t", queue.sender.name(), "n", "1", "h", "\u{1}", "p", "garbage"],
        vec!["v", "99", "t", queue.sender.name(), "n", "1", "p", "x"],
    ] {
        let stream = lane.stream();
        let _: String = queue.redis.command(&[&["XADD", &stream, "*"], &fields[..]].concat()).await;
    }
    queue.send("{}").await;
    let mut consumer = queue.redis.consumer("a", NEVER);
    let mut read = read_some(&mut consumer).await;
    while read.len() < 4 {
        read.extend(read_some(&mut consumer).await);
    }
    let tenants: Vec<_> =
        read[..3].iter().map(|delivery| delivery.content.as_ref().unwrap_err().tenant.is_some()).collect();
    assert_eq!(tenants, [false, true, true]);
    assert!(read[3].content.is_ok(), "the lane goes on");
    for delivery in &read[..3] {
        let undecodable = delivery.content.as_ref().unwrap_err();
        assert!(queue.lanes.quarantine(&delivery.entry, undecodable).await.unwrap());
        assert!(!queue.lanes.quarantine(&delivery.entry, undecodable).await.unwrap(), "twice");
    }
    queue.lanes.acknowledge(&entries(&read[3..])).await.unwrap();
    assert_eq!(queue.counted().await, (0, 0, 0), "a lane heals when it is empty");
    let kept: u64 = queue.redis.command(&["XLEN", &lane.quarantine()]).await;
    assert_eq!(kept, 3);

    for _ in 3..1_000 {
        let _: String = queue.redis.command(&["XADD", &lane.quarantine(), "*", "reason", "no such tenant"]).await;
    }
    let _: String = queue.redis.command(&["XADD", &lane.stream(), "*", "v", "99"]).await;
    let more = read_some(&mut consumer).await;
    let undecodable = more[0].content.as_ref().unwrap_err();
    let full = queue.lanes.quarantine(&more[0].entry, undecodable).await;
    assert!(matches!(full, Err(dataplane::queue::Error::QuarantineFull { .. })), "{full:?}");
    assert_eq!(queue.counted().await.2, 1, "it stays in the lane");
    let kept: u64 = queue.redis.command(&["XLEN", &lane.quarantine()]).await;
    assert_eq!(kept, 1_000, "and nothing that was kept goes");
}

#[tokio::test]
async fn what_is_in_quarantine_is_put_back_for_tenants_that_are_there() {
    let queue = Queue::new().await;
    let gone = Sender::new();
    gone.project(&queue.redis).await;
    let lane = queue.sender.tenant().lane();
    queue.send(r#"{"n":1}"#).await;
    queue.send("[{},{},{}]").await;
    eventually("sent", async || outcome(queue.door.logs(&gone).body("{}".to_owned())).await.0 == 202).await;
    let before = queue.counted().await;
    let _: String =
        queue.redis.command(&["XADD", &lane.stream(), "*", "v", "99", "t", queue.sender.name(), "n", "7"]).await;
    let mut consumer = queue.redis.consumer("a", NEVER);
    let mut read = read_some(&mut consumer).await;
    while read.len() < 4 {
        read.extend(read_some(&mut consumer).await);
    }
    for delivery in read {
        let aside = match delivery.content {
            Ok(content) => Undecodable { tenant: None, ..content.into_undecodable(UNKNOWN_TENANT) },
            Err(undecodable) => undecodable,
        };
        assert!(queue.lanes.quarantine(&delivery.entry, &aside).await.unwrap());
    }
    assert_eq!(queue.counted().await, (0, 0, 0));
    let registry = Registry::fixed([queue.sender.registered.clone()], Peppers::none());
    let mut wanted = Wanted { tenant: None, reason: vec![UNKNOWN_TENANT.into()], limit: 1, apply: false };
    let groups = |report: &Report| -> Vec<(bool, u64, u64, u64)> {
        let of = |tenant: &str, reason: &str| {
            let group = report.groups.iter().find(|group| group.tenant == tenant && group.reason == reason);
            group.map_or((false, 0, 0, 0), |group| (group.wanted, group.entries, group.events, group.put_back))
        };
        vec![
            of(queue.sender.name(), UNKNOWN_TENANT),
            of(queue.sender.name(), "a version that is not ours"),
            of(gone.name(), UNKNOWN_TENANT),
        ]
    };
    let look = requeue(&queue.lanes, &registry, &wanted).await.unwrap();
    assert_eq!(groups(&look), [(true, 2, 4, 0), (false, 1, 7, 0), (true, 1, 1, 0)], "nothing is changed");
    assert_eq!(queue.counted().await, (0, 0, 0));

    wanted.apply = true;
    let first = requeue(&queue.lanes, &registry, &wanted).await.unwrap();
    assert_eq!(groups(&first), [(true, 2, 4, 1), (false, 1, 7, 0), (true, 1, 1, 0)], "as many as may be");
    assert_eq!((first.left(), queue.counted().await.0), (2, 1));
    wanted.limit = 1_000;
    let second = requeue(&queue.lanes, &registry, &wanted).await.unwrap();
    assert_eq!(groups(&second), [(true, 1, 3, 1), (false, 1, 7, 0), (true, 1, 1, 0)]);
    // The one of whom is gone may have shared the lane.
    let (events, bytes, entries) = queue.counted().await;
    assert!(events == 4 && entries == 2 && bytes <= before.1, "{events} events, {bytes} bytes");
    let share: u64 = queue.redis.command(&["HGET", &lane.tenant_bytes(), queue.sender.name()]).await;
    let read = read_some(&mut consumer).await;
    assert_eq!(share, read.iter().map(|delivery| delivery.entry.share).sum::<u64>());
    let lines: Vec<_> = read.iter().map(|delivery| delivery.content.as_ref().unwrap().raw.clone()).collect();
    assert_eq!(lines, [br#"{"n":1}"#.to_vec(), b"{}{}{}".to_vec()], "in their order");
    queue.lanes.acknowledge(&self::entries(&read)).await.unwrap();
    assert_eq!(queue.counted().await, (0, 0, 0), "and what is counted goes with them");

    let of_another = Wanted { tenant: Some("another".parse().unwrap()), ..wanted.clone() };
    assert_eq!(requeue(&queue.lanes, &registry, &of_another).await.unwrap().left(), 0);
    wanted.reason = vec!["a version that is not ours".into()];
    assert_eq!(requeue(&queue.lanes, &registry, &wanted).await.unwrap().left(), 0);
    assert_eq!(queue.counted().await, (7, 0, 1), "one that can't be read counts what it says");
}

#[tokio::test]
async fn nothing_is_put_back_where_nobody_reads_it() {
    let queue = Queue::new().await;
    let aside = |pipeline: &str| format!("lh:{{{pipeline}:4}}:quarantine");
    let fields = ["reason", UNKNOWN_TENANT, "id", "1-1", "v", "1", "t", queue.sender.name(), "n", "1"];
    for pipeline in ["gone", "used"] {
        let _: String = queue.redis.command(&[&["XADD", &aside(pipeline), "*"][..], &fields].concat()).await;
    }
    let mut other = Sender::new().registered;
    other.pipeline = "used".parse().unwrap();
    let registry = Registry::fixed([queue.sender.registered.clone(), other], Peppers::none());
    let wanted = Wanted { tenant: None, reason: vec![UNKNOWN_TENANT.into()], limit: 9, apply: true };
    let report = requeue(&queue.lanes, &registry, &wanted).await.unwrap();
    let group = &report.groups[0];
    assert_eq!((group.entries, group.unread, group.put_back, report.left()), (2, 1, 1, 1), "{report}");
    let left: (u64, u64) = (
        queue.redis.command(&["XLEN", &aside("gone")]).await,
        queue.redis.command(&["XLEN", "lh:{used:4}:queue"]).await,
    );
    assert_eq!(left, (1, 1));
}

#[tokio::test]
async fn a_wiped_queue_is_read_again_without_a_restart() {
    let queue = Queue::new().await;
    let mut consumer = queue.redis.consumer("a", NEVER);
    assert!(consumer.read().await.unwrap().is_empty());
    let lane = queue.sender.tenant().lane();
    let _: u64 = queue.redis.command(&["XGROUP", "DESTROY", &lane.stream(), CONSUMER_GROUP]).await;
    queue.send("{}").await;
    assert_eq!(read_some(&mut consumer).await.len(), 1);
}

#[tokio::test]
async fn the_processors_of_default_drain_a_pipeline_that_is_gone() {
    let queue = Queue::new().await;
    let mut gone = Sender::new();
    gone.registered.pipeline = "gone".parse().unwrap();
    gone.project(&queue.redis).await;
    eventually("accepted", async || outcome(queue.door.logs(&gone).body("{}")).await.0 == 202).await;
    let _: u64 = queue.redis.command(&["SADD", ORPHANED_PIPELINES, "gone", "never-written-to"]).await;
    let mut consumer = queue.redis.consumer("a", NEVER);
    let read = read_some(&mut consumer).await;
    assert_eq!(read[0].entry.lane.pipeline.as_str(), "gone");
    assert_eq!(read[0].content.as_ref().unwrap().tenant, gone.registered.tenant);
    let made: Vec<String> = queue.redis.command(&["KEYS", "lh:{never-written-to:*}:queue"]).await;
    assert_eq!(made, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_sent_for_a_pipeline_that_is_not_there_is_accepted_and_read_by_its_own_processors_alone() {
    let queue = Queue::new().await;
    let mut held = Sender::new();
    held.registered.pipeline = "missing".parse().unwrap();
    held.project(&queue.redis).await;
    eventually("accepted", async || outcome(queue.door.logs(&held).body("{}")).await.0 == 202).await;
    queue.send("{}").await;
    let mut of_default = queue.redis.consumer("a", NEVER);
    let read = read_some(&mut of_default).await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].content.as_ref().unwrap().tenant, queue.sender.registered.tenant);
    for _ in 0..3 {
        assert!(of_default.read().await.unwrap().is_empty(), "it takes what is not its own");
    }
    let lane = held.tenant().lane();
    assert_eq!(queue.redis.command::<u64>(&["XLEN", &lane.stream()]).await, 1);
}
