//! The queue's users as the chart ships them: each program works as its own, and may do no more.

use std::path::Path;
use std::time::Duration;

use crds::PipelineName;
use crds::names::{CONSUMER_GROUP, HELD_PIPELINES};
use crds::registry::Rate;
use dataplane::queue::entry::UNKNOWN_TENANT;
use dataplane::queue::{Consumer, ConsumerSettings, Delivery, Lanes};
use dataplane::requeue::{Wanted, requeue};
use dataplane::tenancy::{Peppers, Registry};
use runtime::settings::{QueueSettings, TlsSettings};
use runtime::stores::Redis;
use testkit::unique;

use crate::door::{Door, Sender, eventually};
use crate::redis_server::RedisServer;

const SHIPPED: &str = "../charts/loggerhub/files/access/redis-queue.acl";

/// Makes the users of the shipped file, each with its name for a password.
async fn make_users(redis: &RedisServer) {
    let shipped = std::fs::read_to_string(SHIPPED).unwrap();
    for line in shipped.lines().filter(|line| !line.is_empty()) {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let name = words[1].clone();
        for word in &mut words {
            if word.starts_with('>') {
                *word = format!(">{name}");
            }
        }
        let command: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(words[1..].iter().map(String::as_str)).collect();
        assert_eq!(redis.command::<String>(&command).await, "OK", "{line}");
    }
}

/// The queue as that user.
fn as_user(redis: &RedisServer, user: &str, folder: &Path) -> QueueSettings {
    let folder = folder.join(user);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("username"), user).unwrap();
    std::fs::write(folder.join("password"), user).unwrap();
    QueueSettings { queue_credentials: Some(folder), ..redis.settings() }
}

#[tokio::test]
async fn each_program_works_as_its_own_user_and_may_do_no_more() {
    let redis = RedisServer::durable().await;
    make_users(&redis).await;
    let folder = std::env::temp_dir().join(unique("acl"));
    let [operator, ingest, process, read] =
        ["lh_operator", "lh_ingest", "lh_process", "lh_read"].map(|user| as_user(&redis, user, &folder));
    let mut sender = Sender::new();
    sender.registered.quotas.events = Some(Rate { per_second: 1000, burst: 1000 });
    sender.project(&redis).await;

    let door = Door::open_with(&redis, |settings| settings.queue = ingest.clone()).await;
    eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let answer = door.logs(&sender).body("{}").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers().contains_key("ratelimit")),
        (202, true),
        "its quota is leased"
    );
    let denied: redis::Value = redis.command(&["ACL", "LOG"]).await;
    assert_eq!(denied, redis::Value::Array(vec![]), "nothing that it needs is refused");
    assert_eq!(door.get("/queue/status").await.status(), 200);
    assert!(door.get("/health").await.text().await.unwrap().contains("disk"), "it reads the settings");

    let connect = |settings: &QueueSettings| Redis::queue(settings, &TlsSettings::default()).unwrap();
    let pipeline = PipelineName::default_pipeline();
    let settings = ConsumerSettings { pipeline, consumer: "a".into(), claim_idle: Duration::from_secs(30) };
    let mut consumer = Consumer::new(&connect(&process), settings).unwrap();
    let lanes = Lanes::new(&connect(&process)).unwrap();
    eventually("taken", async || {
        let entries: Vec<_> = consumer.read_at_hand().await.unwrap().into_iter().map(|read| read.entry).collect();
        lanes.acknowledge(&entries).await.unwrap();
        !entries.is_empty()
    })
    .await;

    // Into quarantine, and back.
    assert_eq!(door.logs(&sender).body("{}").send().await.unwrap().status().as_u16(), 202);
    eventually("set aside", async || {
        for Delivery { entry, content, .. } in consumer.read_at_hand().await.unwrap() {
            lanes.quarantine(&entry, &content.unwrap().into_undecodable(UNKNOWN_TENANT)).await.unwrap();
        }
        !lanes.quarantines().await.unwrap().is_empty()
    })
    .await;
    let registry = Registry::fixed([sender.registered.clone()], Peppers::none());
    let wanted = Wanted { tenant: None, reason: vec![UNKNOWN_TENANT.into()], limit: 10, apply: true };
    let report = requeue(&lanes, &registry, &wanted).await.unwrap();
    assert_eq!((report.left(), report.groups[0].put_back, lanes.is_full().await.unwrap()), (0, 1, false));

    let lane = sender.tenant().lane();
    let (stream, tenants, uses) = (lane.stream(), lane.tenant_bytes(), sender.registered.tenant.key_uses());
    let forge = ["HSET", "lh:registry:tenants", sender.name(), "{}"];
    let all_but_operator: &[&QueueSettings] = &[&ingest, &process, &read];
    let everybody: &[&QueueSettings] = &[&operator, &ingest, &process, &read];
    let refused: [(&[&QueueSettings], &[&str]); 17] = [
        (all_but_operator, &forge),
        (all_but_operator, &["HDEL", "lh:registry:tenants", sender.name()]),
        (all_but_operator, &["INCR", "lh:registry:epoch"]),
        (all_but_operator, &["EVAL", "return redis.call('DEL', KEYS[1])", "1", "lh:registry:tenants"]),
        (all_but_operator, &["EVAL", "return redis.call('DEL', 'lh:registry:tenants')", "0"]),
        (&[&ingest, &read], &["DEL", &stream]),
        (&[&ingest, &read], &["XTRIM", &stream, "MAXLEN", "0"]),
        (&[&read], &["XRANGE", &stream, "-", "+"]),
        (&[&read], &["XADD", &stream, "*", "a", "b"]),
        (all_but_operator, &["SREM", HELD_PIPELINES, "a"]),
        (everybody, &["FLUSHALL"]),
        (everybody, &["CONFIG", "SET", "dir", "/"]),
        (everybody, &["SHUTDOWN"]),
        (everybody, &["REPLICAOF", "127.0.0.1", "1"]),
        (everybody, &["ACL", "SETUSER", "x"]),
        (everybody, &["MONITOR"]),
        (everybody, &["GET", "another:key"]),
    ];
    for (users, command) in refused {
        for user in users {
            let mut cmd = redis::cmd(command[0]);
            cmd.arg(&command[1..]);
            let answer = cmd.query_async::<redis::Value>(&mut connect(user).connection().unwrap()).await;
            let error = format!("{:?}", answer.expect_err(&format!("{user:?} may {command:?}")));
            assert!(
                ["NOPERM", "permission", "can't run", "can't access"].iter().any(|said| error.contains(said)),
                "{user:?} {command:?}: {error}"
            );
        }
    }
    let read_by_search: [&[&str]; 5] = [
        &["HGETALL", "lh:registry:tenants"],
        &["SMEMBERS", HELD_PIPELINES],
        &["HGET", &tenants, sender.name()],
        &["HSET", &uses, "k", "1"],
        &["XPENDING", &stream, CONSUMER_GROUP, "-", "+", "1"],
    ];
    for command in read_by_search {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query_async::<redis::Value>(&mut connect(&read).connection().unwrap()).await.unwrap();
    }
    std::fs::remove_dir_all(folder).ok();
}
