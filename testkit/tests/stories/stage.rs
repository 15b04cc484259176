//! Where a story plays: the cluster, its stores and doors, and the tenants that take part.

use std::time::Duration;

use crds::tenant::Backends;
use serde_json::{Value, json};
use testkit::http::Door;
use testkit::ledger::Holdings;
use testkit::{Cluster, Ledger, Stores, eventually, unique};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Longest wait for what takes seconds on an idle machine; here others use it too.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Longest wait for what follows a crash or an outage.
pub(crate) const LATER: Duration = Duration::from_secs(180);

static TURN: RwLock<()> = RwLock::const_new(());

/// The installed system.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) stores: Stores,
    pub(crate) door: Door,
    _turn: Turn,
}

/// What keeps stories out of each other's way.
enum Turn {
    Beside { _others: RwLockReadGuard<'static, ()> },
    Alone { _nobody: RwLockWriteGuard<'static, ()> },
}

impl Stage {
    /// For a story that leaves everything of others alone.
    pub(crate) async fn enter() -> Self {
        Self::set(Turn::Beside { _others: TURN.read().await }).await
    }

    /// For a story that takes a store away: no other plays meanwhile.
    pub(crate) async fn enter_alone() -> Self {
        Self::set(Turn::Alone { _nobody: TURN.write().await }).await
    }

    async fn set(turn: Turn) -> Self {
        let cluster = Cluster::connect().await.expect("a cluster");
        cluster.pipeline_ready("default", LATER).await.expect("LoggerHub is installed and its default pipeline Ready");
        // At rest until now: tests of its steps run on the same stores, and are not to be helped by it.
        cluster.scale("loggerhub-maintain", 1).await.expect("maintain is installed");
        Self {
            cluster,
            stores: Stores::from_environment().expect("stores"),
            door: Door::from_environment().expect("doors"),
            _turn: turn,
        }
    }

    /// A tenant that is onboarded as a person would: a namespace, a Tenant, and the key from its Secret.
    pub(crate) async fn tenant(&self, prefix: &str) -> anyhow::Result<Actor> {
        self.tenant_with(prefix, json!({})).await
    }

    /// The same, with `spec` merged over the ordinary one.
    pub(crate) async fn tenant_with(&self, prefix: &str, spec: Value) -> anyhow::Result<Actor> {
        let tenant = self.apply(&unique(prefix), spec).await?;
        self.actor(&tenant).await
    }

    /// Applies a Tenant with a namespace of the same name; Ready or not.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> anyhow::Result<String> {
        self.cluster.ensure_namespace(name).await?;
        self.cluster.apply(&self.cluster.tenants(), &tenant(name, spec)?).await?;
        Ok(name.to_owned())
    }

    /// Waits until the Tenant is Ready, and takes its key from the Secret. From then on the key works.
    pub(crate) async fn actor(&self, name: &str) -> anyhow::Result<Actor> {
        let tenant = self.cluster.tenant_ready(name, SOON).await?;
        let backends = tenant.status.and_then(|status| status.backends);
        let backends = backends.ok_or_else(|| anyhow::anyhow!("Tenant {name} is Ready without backends"))?;
        let key = self.cluster.secret_value(name, "loggerhub-key", "apiKey").await?;
        let door = self.door.with_key(&key);
        Ok(Actor { name: name.to_owned(), door, backends, ledger: Ledger::default() })
    }

    /// What the stores hold of the tenant.
    pub(crate) fn holdings(&self, actor: &Actor) -> anyhow::Result<Holdings> {
        Holdings::new(&self.stores, &actor.backends)
    }

    /// Waits until catalog, billing, index and archive each hold every accepted event once.
    pub(crate) async fn everything_once(&self, actor: &Actor, within: Duration) -> anyhow::Result<()> {
        let held = self.holdings(actor)?;
        eventually("every accepted event is in the catalog, the index and the archive", within, || async {
            actor.ledger.matches("the catalog", &held.catalog().await?)?;
            actor.ledger.matches("billing", &held.billed().await?)?;
            actor.ledger.matches("the index", &held.index().await?)?;
            actor.ledger.matches("the archive", &held.archive().await?)
        })
        .await?;
        let dead = held.dead_letters().await?;
        anyhow::ensure!(dead.is_empty(), "dead letters: {dead:?}");
        Ok(())
    }

    /// Takes a tenant and its namespace away.
    pub(crate) async fn clear(&self, actor: &Actor) -> anyhow::Result<()> {
        self.cluster.delete_tenant(&actor.name, LATER).await?;
        self.cluster.delete_namespace(&actor.name).await
    }
}

/// A tenant with its key, and a ledger of what it sent.
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) door: Door,
    pub(crate) backends: Backends,
    pub(crate) ledger: Ledger,
}

impl Actor {
    /// Sends `count` events, numbered from `first`, in one request.
    pub(crate) async fn send_numbered(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let lines: String = (first..first + count)
            .map(|n| {
                format!(
                    "{}\n",
                    json!({"service": "story", "level": "INFO", "message": format!("event {n} of a story")})
                )
            })
            .collect();
        let accepted = self.door.send_lines(&lines).await?;
        anyhow::ensure!(accepted.accepted == count && accepted.rejected == 0, "{accepted:?}");
        self.ledger.record(&accepted);
        Ok(())
    }
}

/// A Tenant with one key in Secret `loggerhub-key` of the namespace of its name; Delete, so that a
/// story leaves nothing behind.
fn tenant(name: &str, spec: Value) -> anyhow::Result<crds::Tenant> {
    let mut whole = json!({
        "displayName": "A story's tenant",
        "namespaces": [name],
        "deletionPolicy": "Delete",
        "apiKeys": [{
            "name": "main",
            "scopes": ["Ingest", "Query"],
            "secretRef": {"name": "loggerhub-key", "namespace": name},
        }],
    });
    if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
        whole.extend(spec);
    }
    Ok(crds::Tenant::new(name, serde_json::from_value(whole)?))
}
