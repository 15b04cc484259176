//! Who may send follows the registry, whatever becomes of its announcements.

use std::time::{Duration, Instant};

use crds::names::{REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_TENANTS};
use crds::registry::{KEY_USES_SECONDS, RegistryTenant, TenantState};
use futures::StreamExt as _;

use crate::door::{Door, Sender, eventually, outcome};
use crate::redis_server::RedisServer;

/// Loses everything and projects somebody else, in one step.
const WIPE_AND_BEGIN: &str = r"
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    redis.call('SET', KEYS[1], 1000000)
    redis.call('XADD', KEYS[3], '*', 'tenant', 'somebody-else', 'kind', 'upserted', 'epoch', 1000000)
    return 'done'";

async fn accepted(door: &Door, sender: &Sender) -> bool {
    outcome(door.logs(sender).body("{}")).await.0 == 202
}

#[tokio::test]
async fn a_new_tenant_sends_at_once_and_a_removed_one_no_more() {
    let redis = RedisServer::durable().await;
    let (first, second) = (Sender::new(), Sender::new());
    first.project(&redis).await;
    let door = Door::open(&redis).await;
    second.project(&redis).await;
    eventually("the new tenant is known", async || accepted(&door, &second).await).await;
    second.withdraw(&redis).await;
    eventually("the removed tenant is refused", async || !accepted(&door, &second).await).await;
    assert!(accepted(&door, &first).await);
}

/// A request whose body comes in two halves, of which the second waits for `go`.
fn in_two_halves(door: &Door, sender: &Sender, go: tokio::sync::oneshot::Receiver<()>) -> reqwest::RequestBuilder {
    let second = futures::stream::once(async move {
        go.await.ok();
        Ok::<_, std::io::Error>("\"late\"}")
    });
    let body = futures::stream::iter([Ok("{\"message\":")]).chain(second);
    door.logs(sender).body(reqwest::Body::wrap_stream(body))
}

#[tokio::test]
async fn a_body_that_was_under_way_goes_where_its_tenant_is_now() {
    let redis = RedisServer::durable().await;
    type Change = fn(&mut RegistryTenant);
    let changes: [(&str, Change, u16); 5] = [
        ("it leaves", |tenant| tenant.state = TenantState::Deleting, 401),
        ("it is suspended", |tenant| tenant.state = TenantState::Suspended, 403),
        ("its key is revoked", |tenant| tenant.keys.clear(), 401),
        ("it moves", |_| {}, 202),
        ("another cluster has taken it over", |tenant| tenant.uid = "another".into(), 202),
    ];
    for (what, change, expected) in changes {
        let mut sender = Sender::new();
        sender.project(&redis).await;
        let door = Door::open(&redis).await;
        assert!(accepted(&door, &sender).await);
        let before = sender.tenant().lane().stream();
        let entries = redis.command::<i64>(&["XLEN", &before]).await;
        let (go, went) = tokio::sync::oneshot::channel();
        let answer = tokio::spawn(outcome(in_two_halves(&door, &sender, went)));
        // The first half is there, and its tenant admitted.
        tokio::time::sleep(Duration::from_millis(300)).await;
        change(&mut sender.registered);
        sender.registered.pipeline = "another".parse().unwrap();
        let after = sender.tenant().lane().stream();
        let others = redis.command::<i64>(&["XLEN", &after]).await;
        sender.project(&redis).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        go.send(()).unwrap();
        let (status, body) = answer.await.unwrap();
        assert_eq!(status, expected, "{what}: {body}");
        assert_eq!(redis.command::<i64>(&["XLEN", &before]).await, entries, "{what}: nothing more where it was");
        let there = redis.command::<i64>(&["XLEN", &after]).await - others;
        assert_eq!(there, i64::from(expected == 202), "{what}");
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_five_seconds_though_its_announcement_is_lost() {
    let redis = RedisServer::durable().await;
    let mut sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    assert!(accepted(&door, &sender).await);
    sender.registered.keys.clear();
    sender.project_unannounced(&redis).await;
    let revoked = Instant::now();
    eventually("the key is refused", async || !accepted(&door, &sender).await).await;
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn a_replaced_key_ends_by_itself_and_its_last_use_is_written_down() {
    let redis = RedisServer::durable().await;
    let mut sender = Sender::new();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let end = now() + 6;
    sender.registered.keys[0].expires_at = Some(end);
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    assert!(accepted(&door, &sender).await, "until its end it works");
    let epoch: u64 = redis.command(&["GET", REGISTRY_EPOCH]).await;
    eventually("the key is refused", async || !accepted(&door, &sender).await).await;
    assert!((end..end + 5).contains(&now()), "refused at {}, its end was {end}", now());
    assert_eq!(redis.command::<u64>(&["GET", REGISTRY_EPOCH]).await, epoch, "nobody took it away");
    door.close().await;
    let (uses, id) = (sender.registered.tenant.key_uses(), &sender.registered.keys[0].id);
    eventually("its use is written", async || redis.command::<bool>(&["HEXISTS", &uses, id]).await).await;
    let hour: u64 = redis.command(&["HGET", &uses, id]).await;
    assert_eq!(hour % 3600, 0);
    assert!((end - 7200..=end).contains(&hour), "{hour}");
    assert!((1..=KEY_USES_SECONDS).contains(&redis.command::<i64>(&["TTL", &uses]).await));
}

#[tokio::test]
async fn a_pepper_that_is_added_is_known_without_a_restart() {
    let redis = RedisServer::durable().await;
    let (mut sender, other) = (Sender::new(), Sender::new());
    let later = crds::apikey::Pepper { id: "p2".into(), bytes: vec![b'b'; 32] };
    sender.registered.keys[0].digest = sender.key.digest(&later);
    sender.registered.keys[0].pepper_id = later.id.clone();
    sender.project(&redis).await;
    other.project(&redis).await;
    let door = Door::open(&redis).await;
    assert!(!accepted(&door, &sender).await);
    door.add_pepper(&later);
    eventually("the key under it works", async || accepted(&door, &sender).await).await;
    assert!(accepted(&door, &other).await, "and the others as before");
}

#[tokio::test]
async fn a_lost_registry_revokes_nobody_while_it_is_projected_anew() {
    let redis = RedisServer::durable().await;
    let (first, second) = (Sender::new(), Sender::new());
    first.project(&redis).await;
    second.project(&redis).await;
    let door = Door::open(&redis).await;
    let _: u64 = redis.command(&["DEL", REGISTRY_EPOCH, REGISTRY_TENANTS, REGISTRY_CHANGES]).await;
    let both = async || accepted(&door, &first).await && accepted(&door, &second).await;
    for _ in 0..10 {
        assert!(both().await, "refused after the loss");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // The operator gets to one tenant, then to a new one, and to the other last.
    first.project(&redis).await;
    let third = Sender::new();
    third.project(&redis).await;
    eventually("the new tenant is known", async || accepted(&door, &third).await).await;
    assert!(both().await, "refused while the registry was half projected");
    // Nor if it was lost and begun anew between two looks.
    let _: String =
        redis.command(&["EVAL", WIPE_AND_BEGIN, "3", REGISTRY_EPOCH, REGISTRY_TENANTS, REGISTRY_CHANGES]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(both().await && accepted(&door, &third).await, "refused after an unnoticed loss");
    // A removal that is announced holds all the same.
    second.project(&redis).await;
    second.withdraw(&redis).await;
    eventually("the removed tenant is refused", async || !accepted(&door, &second).await).await;
}

#[tokio::test]
async fn a_loss_is_noticed_though_the_epoch_stays() {
    let redis = RedisServer::durable().await;
    let (first, second) = (Sender::new(), Sender::new());
    first.project(&redis).await;
    second.project(&redis).await;
    let door = Door::open(&redis).await;
    let age = async || -> i64 {
        let metrics = door.get("/metrics").await.text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with("loggerhub_ingest_registry_age_seconds "));
        line.unwrap().split_once(' ').unwrap().1.parse().unwrap()
    };
    let both = async || accepted(&door, &first).await && accepted(&door, &second).await;
    let _: u64 = redis.command(&["DEL", REGISTRY_TENANTS, REGISTRY_CHANGES]).await;
    eventually("nothing confirms what is known", async || age().await > 3).await;
    assert!(both().await, "refused after the loss");
    // The operator gets to one tenant; what is missing stays for as long as it may take to get to the others.
    first.project(&redis).await;
    eventually("it is confirmed again", async || (0..2).contains(&age().await)).await;
    assert!(both().await, "refused while the registry was half projected");
}

#[tokio::test]
async fn without_a_registry_nobody_is_refused_for_good() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    let door = Door::open_unready(&redis, 1 << 28).await;
    eventually("it listens", async || door.get("/health").await.status() == 200).await;
    assert_eq!(door.get("/ready").await.status(), 503);
    let response = door.logs(&sender).body("{}").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().contains_key("retry-after")), (503, true));
    sender.project(&redis).await;
    eventually("the tenant is known", async || accepted(&door, &sender).await).await;
}

#[tokio::test]
async fn a_document_of_another_version_is_skipped_and_the_rest_is_served() {
    let redis = RedisServer::durable().await;
    let (sender, mut newer) = (Sender::new(), Sender::new());
    newer.registered.version = 99;
    newer.project(&redis).await;
    sender.project(&redis).await;
    let _: u64 = redis.command(&["HSET", REGISTRY_TENANTS, "broken", "{"]).await;
    let door = Door::open(&redis).await;
    assert!(accepted(&door, &sender).await);
    assert!(!accepted(&door, &newer).await);
}
