//! An ingest in this process, its tenants, and requests to it.

use std::path::PathBuf;
use std::time::Duration;

use crds::TenantName;
use crds::apikey::{ApiKey, Pepper};
use crds::names::{BucketLayout, REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_SIGNATURES, REGISTRY_TENANTS};
use crds::registry::{REGISTRY_VERSION, RegistryKey, RegistryTenant, TenantState};
use crds::signature::SigningKey;
use crds::tenant::Scope;
use dataplane::cache::OptionalCacheSettings;
use dataplane::ingest::{self, Settings};
use dataplane::queue::ProducerSettings;
use dataplane::tenancy::{Peppers, Registry, RegistrySettings};
use reqwest::{RequestBuilder, Response};
use runtime::settings::{AdminSettings, TlsSettings};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::redis_server::RedisServer;

pub(crate) fn pepper() -> Pepper {
    Pepper { id: "p1".into(), bytes: vec![b'p'; 43] }
}

/// A tenant with one key.
pub(crate) struct Sender {
    pub(crate) key: ApiKey,
    pub(crate) registered: RegistryTenant,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self::with_scopes(&[Scope::Ingest, Scope::Query])
    }

    pub(crate) fn with_scopes(scopes: &[Scope]) -> Self {
        let key = ApiKey::generate();
        let tenant: TenantName = format!("t-{:08x}", rand::random::<u32>()).parse().unwrap();
        let registered = RegistryTenant {
            version: REGISTRY_VERSION,
            uid: format!("{:08x}", rand::random::<u32>()),
            state: TenantState::Active,
            pipeline: crds::PipelineName::default_pipeline(),
            plan: "standard".into(),
            archive: tenant.archive(BucketLayout::PerTenant, "lh-"),
            index_series: crds::names::pool_series(7, 0),
            hot_days: 7,
            total_days: 30,
            quotas: Default::default(),
            keys: vec![RegistryKey {
                id: key.id().to_owned(),
                name: "main".into(),
                scopes: scopes.to_vec(),
                digest: key.digest(&pepper()),
                pepper_id: pepper().id,
                expires_at: None,
            }],
            tenant,
        };
        Self { key, registered }
    }

    pub(crate) fn in_state(mut self, state: TenantState) -> Self {
        self.registered.state = state;
        self
    }

    pub(crate) fn name(&self) -> &str {
        self.registered.tenant.as_str()
    }

    /// The tenant as a store's caller has it.
    pub(crate) fn tenant(&self) -> std::sync::Arc<dataplane::tenancy::Tenant> {
        let registry = Registry::fixed([self.registered.clone()], Peppers::new([pepper()]).unwrap());
        registry.tenant(&self.registered.tenant).unwrap()
    }

    /// Projects the tenant as the operator does: state, epoch and announcement at once.
    pub(crate) async fn project(&self, redis: &RedisServer) {
        announce(redis, self.name(), Some(&self.document()), true).await;
    }

    /// What the registry holds of the tenant.
    pub(crate) fn document(&self) -> String {
        serde_json::to_string(&self.registered).unwrap()
    }

    /// Projects the tenant, signed.
    pub(crate) async fn project_signed(&self, redis: &RedisServer, key: &SigningKey, revision: u64) {
        let signature = key.sign(&self.registered.tenant, revision, self.document().as_bytes()).to_string();
        let _: u64 = redis.command(&["HSET", REGISTRY_SIGNATURES, self.name(), &signature]).await;
        self.project(redis).await;
    }

    /// Projects the tenant, and the announcement is lost.
    pub(crate) async fn project_unannounced(&self, redis: &RedisServer) {
        announce(redis, self.name(), Some(&self.document()), false).await;
    }

    pub(crate) async fn withdraw(&self, redis: &RedisServer) {
        announce(redis, self.name(), None, true).await;
    }
}

async fn announce(redis: &RedisServer, tenant: &str, json: Option<&str>, announced: bool) {
    let script = r"
        if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
        local epoch = redis.call('INCR', KEYS[2])
        if ARGV[3] == '1' then
            redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*', 'tenant', ARGV[1], 'kind', 'upserted', 'epoch', epoch)
        end
        return epoch";
    let announced = if announced { "1" } else { "0" };
    let json = json.unwrap_or_default();
    let keys = [REGISTRY_TENANTS, REGISTRY_EPOCH, REGISTRY_CHANGES];
    let _: u64 = redis.command(&["EVAL", script, "3", keys[0], keys[1], keys[2], tenant, json, announced]).await;
}

/// An ingest that runs until it is stopped or dropped.
pub(crate) struct Door {
    pub(crate) url: String,
    /// Where it says how it is.
    admin: String,
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    peppers: PathBuf,
}

impl Door {
    /// Opens once keys are known and the queue answers.
    pub(crate) async fn open(redis: &RedisServer) -> Self {
        Self::open_with_cache(redis, None).await
    }

    pub(crate) async fn open_with_cache(redis: &RedisServer, cache: Option<&RedisServer>) -> Self {
        let url = cache.map(|cache| cache.settings().queue_url);
        let door = Self::open_with(redis, |settings| settings.cache.cache_url = url).await;
        door.ready().await;
        door
    }

    /// One that writes each request by itself.
    pub(crate) async fn open_ungrouped(redis: &RedisServer) -> Self {
        let door = Self::open_with(redis, |settings| settings.batch = 1).await;
        door.ready().await;
        door
    }

    pub(crate) async fn ready(&self) {
        eventually("the ingest is ready", async || self.get("/ready").await.status() == 200).await;
    }

    pub(crate) async fn open_unready(redis: &RedisServer, max_in_flight_bytes: usize) -> Self {
        Self::open_with(redis, |settings| settings.max_in_flight_bytes = max_in_flight_bytes).await
    }

    /// Opens with other settings, and waits for nothing.
    pub(crate) async fn open_with(redis: &RedisServer, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listen, admin_listen) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let peppers = std::env::temp_dir().join(format!("loggerhub-door-{}-{}", std::process::id(), listen.port()));
        std::fs::create_dir_all(&peppers).unwrap();
        std::fs::write(peppers.join(pepper().id), pepper().bytes).unwrap();
        let mut settings = Settings {
            listen,
            admin: AdminSettings { admin_listen },
            max_in_flight_bytes: 256 * 1024 * 1024,
            body_timeout_seconds: 30,
            max_connections: 4096,
            producer: ProducerSettings::default(),
            queue: redis.settings(),
            batch: 0,
            cache: OptionalCacheSettings { cache_url: None, cache_credentials: None },
            registry: RegistrySettings { peppers: peppers.clone(), trust: Default::default() },
            tls: TlsSettings::default(),
        };
        change(&mut settings);
        let stop = CancellationToken::new();
        let running = tokio::spawn(ingest::run_on(listener, admin, settings, stop.clone()));
        Self {
            url: format!("http://{listen}"),
            admin: format!("http://{admin_listen}"),
            stop,
            running: Some(running),
            peppers,
        }
    }

    /// What it says of itself.
    pub(crate) async fn get(&self, path: &str) -> Response {
        reqwest::get(format!("{}{path}", self.admin)).await.unwrap()
    }

    /// `POST /logs` with a key.
    pub(crate) fn logs(&self, sender: &Sender) -> RequestBuilder {
        self.post("/logs").bearer_auth(&sender.key)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        reqwest::Client::new().post(format!("{}{path}", self.url))
    }

    /// Mounts one more pepper.
    pub(crate) fn add_pepper(&self, pepper: &Pepper) {
        std::fs::write(self.peppers.join(&pepper.id), &pepper.bytes).unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
        std::fs::remove_dir_all(&self.peppers).ok();
    }
}

/// The status and the code of an answer; `accepted` for a 202.
pub(crate) async fn outcome(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let code = body["error"]["code"].as_str().unwrap_or("accepted").to_owned();
    (status, code)
}

/// Waits up to 10 s for something to become true.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("within 10 s: {what}");
}
