//! Where a story plays: stores that outlive clusters, what Git holds, the data plane, and who sends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use crds::registry::RegistryTenant;
use crds::{LogPipeline, PipelineName, Tenant};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use operator::provision::Registry;
use serde_json::{Value, json};
use testkit::chaos::children::{Child, Spec};
use testkit::chaos::redis_server::RedisServer;
use testkit::http::Door;
use testkit::ledger::Holdings;
use testkit::{
    ApiServer, Cluster, Ledger, OperatorProcess, OperatorProgram, PostgresServer, Stores, eventually, free_address,
    helm, unique,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for what takes seconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Namespace of the release, and of the Secrets with the tenants' keys.
pub(crate) const NAMESPACE: &str = "loggerhub";
/// Secrets that the operator makes, by the chart's names.
pub(crate) const PEPPERS: &str = "loggerhub-peppers";
pub(crate) const DATA_LOGIN: &str = "loggerhub-postgres-data";
pub(crate) const MAINTAIN_LOGIN: &str = "loggerhub-postgres-maintain";
pub(crate) const SEARCH_LOGIN: &str = "loggerhub-postgres-search";
/// Pause between two requests of a sender, and events of each.
const PAUSE: Duration = Duration::from_millis(100);
const EVENTS: u64 = 3;

/// Stores that live on, whatever becomes of clusters.
pub(crate) struct Site {
    pub(crate) stores: Stores,
    pub(crate) postgres: PostgresServer,
    /// Also what its tenants and pipelines are named after.
    installation: String,
    /// Of logs, which stay.
    logs: PathBuf,
    _redis: RedisServer,
}

/// A cluster and what Git puts into it.
pub(crate) struct Home {
    pub(crate) api: ApiServer,
    pub(crate) cluster: Cluster,
}

impl Site {
    /// Empty stores.
    pub(crate) async fn open(story: &str) -> anyhow::Result<Self> {
        let installation = unique(story);
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clusters").join(&installation);
        std::fs::create_dir_all(&logs)?;
        let mut stores = Stores::from_environment()?;
        let postgres = PostgresServer::start(&logs, &stores).await?;
        stores.postgres = postgres.settings(&stores)?;
        let redis = RedisServer::start(&logs.join("redis"), false).await?;
        stores.queue = redis.settings();
        Ok(Self { stores, postgres, installation, logs, _redis: redis })
    }

    /// A cluster that knows of nothing.
    pub(crate) async fn cluster(&self) -> anyhow::Result<Home> {
        let api = ApiServer::start(&self.logs).await?;
        let cluster = api.cluster(NAMESPACE).await?;
        cluster.ensure_namespace(NAMESPACE).await?;
        Ok(Home { api, cluster })
    }

    /// The chart's CRDs.
    pub(crate) async fn install_crds(&self, home: &Home) -> anyhow::Result<()> {
        let crds = Api::<CustomResourceDefinition>::all(home.cluster.client.clone());
        for document in self.chart(&[]).await? {
            if document["kind"] == "CustomResourceDefinition" {
                home.cluster.apply(&crds, &serde_json::from_value(document)?).await?;
            }
        }
        eventually("the CRDs are served", SOON, || async {
            home.cluster.tenants().list(&Default::default()).await?;
            home.cluster.pipelines().list(&Default::default()).await?;
            Ok(())
        })
        .await
    }

    /// The chart: its CRDs, and the operator with the settings that it renders.
    pub(crate) async fn install(&self, home: &Home, values: &[&str]) -> anyhow::Result<OperatorProcess> {
        self.install_crds(home).await?;
        let documents = self.chart(values).await?;
        let config = documents.iter().find_map(|document| document["data"]["config.yaml"].as_str());
        let kubeconfig = home.api.kubeconfig.display().to_string();
        let program = OperatorProgram {
            program: program("loggerhub-operator")?,
            stores: self.stores.clone(),
            logs: self.logs.clone(),
        };
        program.start(config.context("the chart has no config.yaml")?, &[("KUBECONFIG", &kubeconfig)])
    }

    /// What the chart renders with the values of this story, which are the same each time, as from Git, and with further
    /// ones. It looks again as often as the chart allows, so that a story sees several looks.
    async fn chart(&self, values: &[&str]) -> anyhow::Result<Vec<Value>> {
        let installation = format!("installation={}", self.installation);
        let mut sets = vec!["stores.opensearch.replicas=0", "operator.resyncSeconds=10", &installation];
        sets.extend(values);
        let rendered = helm::template(&sets).await?;
        let documents = rendered.split("\n---\n").filter(|document| document.contains("\nkind: "));
        documents.map(|document| serde_saphyr::from_str(document).context("a document of the chart")).collect()
    }

    /// Pipeline of the second tenant.
    pub(crate) fn pipeline(&self) -> anyhow::Result<PipelineName> {
        Ok(self.installation.parse()?)
    }

    /// Name of a tenant of this story.
    pub(crate) fn tenant(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.installation)
    }

    /// Applies what Git holds: a LogPipeline beside `default`, and a Tenant on each of the two.
    pub(crate) async fn apply_git(&self, home: &Home, names: &[String; 2]) -> anyhow::Result<()> {
        let pipeline = self.pipeline()?;
        let mut own = LogPipeline::new(pipeline.as_str(), serde_json::from_value(json!({}))?);
        own.metadata.namespace = Some(NAMESPACE.to_owned());
        home.cluster.apply(&home.cluster.pipelines(), &own).await?;
        for (name, pipeline) in names.iter().zip(["default", pipeline.as_str()]) {
            self.apply_tenant(home, name, pipeline).await?;
        }
        Ok(())
    }

    /// Applies a Tenant whose key is generated. Its data goes with it, so that a story leaves nothing behind.
    pub(crate) async fn apply_tenant(&self, home: &Home, name: &str, pipeline: &str) -> anyhow::Result<()> {
        let secret = json!({"name": name, "namespace": NAMESPACE});
        let spec = json!({
            "namespaces": [NAMESPACE],
            "deletionPolicy": "Delete",
            "isolation": "Dedicated",
            "pipelineRef": {"name": pipeline},
            "apiKeys": [{"name": "main", "scopes": ["Ingest"], "secretRef": secret}],
        });
        home.cluster.apply(&home.cluster.tenants(), &Tenant::new(name, serde_json::from_value(spec)?)).await?;
        Ok(())
    }

    /// What ingest knows of a tenant.
    pub(crate) async fn registered(&self, name: &str) -> anyhow::Result<Option<RegistryTenant>> {
        Ok(Registry::new(self.stores.queue()?.connection()?).get(&name.parse()?).await?)
    }

    /// Whether the second tenant's lanes are left to `default`, which would not do to its events what its pipeline does.
    pub(crate) async fn is_left_to_default(&self) -> anyhow::Result<bool> {
        let orphaned = Registry::new(self.stores.queue()?.connection()?).orphaned().await?;
        Ok(orphaned.contains(&self.pipeline()?.to_string()))
    }

    /// Waits until catalog, billing, index and archive hold each accepted event of a tenant once.
    pub(crate) async fn everything_once(&self, home: &Home, name: &str, sent: &Ledger) -> anyhow::Result<()> {
        let tenant = home.cluster.tenants().get(name).await?;
        let backends = tenant.status.and_then(|status| status.backends).context("a Tenant without backends")?;
        let held = Holdings::new(&self.stores, &backends)?;
        eventually(&format!("each event of {name} is everywhere, once"), SOON, || async {
            sent.matches("the catalog", &held.catalog().await?)?;
            sent.matches("billing", &held.billed().await?)?;
            sent.matches("the index", &held.index().await?)?;
            sent.matches("the archive", &held.archive().await?)
        })
        .await?;
        let dead = held.dead_letters().await?;
        ensure!(dead.is_empty(), "dead letters: {dead:?}");
        Ok(())
    }

    /// Starts an ingest with the peppers that the operator made. It needs no cluster, and outlives those of a story: a
    /// key that stops working for a moment is seen.
    pub(crate) async fn ingest(&self, home: &Home) -> anyhow::Result<(Child, Door)> {
        let peppers = home.credentials(&self.stores, PEPPERS).await?;
        let (listen, admin) = (free_address()?, free_address()?);
        let child = self.role(
            "ingest",
            "ingest",
            &[
                ("LOGGERHUB_LISTEN", listen.to_string()),
                ("LOGGERHUB_ADMIN_LISTEN", admin.to_string()),
                ("LOGGERHUB_PEPPERS", peppers.display().to_string()),
            ],
        )?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        eventually("the ingest is ready", SOON, || async {
            let answer = client.get(format!("http://{admin}/ready")).send().await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            Ok(())
        })
        .await?;
        let url = format!("http://{listen}");
        Ok((child, Door::at(&url, &url)?))
    }

    /// Starts the roles that store, with the logins that this cluster's Secrets hold, as its pods would.
    pub(crate) async fn storing(&self, home: &Home) -> anyhow::Result<Vec<Child>> {
        let data = home.credentials(&self.stores, DATA_LOGIN).await?.display().to_string();
        let maintain = home.credentials(&self.stores, MAINTAIN_LOGIN).await?.display().to_string();
        let pipeline = self.pipeline()?;
        let roles = [
            ("process-default", "process", "default", &data),
            ("process-own", "process", pipeline.as_str(), &data),
            ("maintain", "maintain", "default", &maintain),
        ];
        let start = |(name, role, pipeline, login): (&str, &'static str, &str, &String)| {
            self.role(
                name,
                role,
                &[
                    ("LOGGERHUB_ADMIN_LISTEN", free_address()?.to_string()),
                    ("LOGGERHUB_POSTGRES_CREDENTIALS", login.clone()),
                    ("LOGGERHUB_PIPELINE", pipeline.to_owned()),
                    ("LOGGERHUB_CONSUMER", name.to_owned()),
                    ("LOGGERHUB_CLAIM_IDLE_SECONDS", "1".to_owned()),
                    ("LOGGERHUB_ARCHIVE_MAX_AGE_SECONDS", "1".to_owned()),
                ],
            )
        };
        roles.into_iter().map(start).collect()
    }

    fn role(&self, name: &str, role: &'static str, more: &[(&str, String)]) -> anyhow::Result<Child> {
        let mut environment = self.stores.variables();
        environment.extend(more.iter().map(|(name, value)| (*name, value.clone())));
        environment.extend([
            ("LOGGERHUB_LOG_FORMAT", "text".to_owned()),
            ("LOGGERHUB_POSTGRES_SSL_MODE", "disable".to_owned()),
        ]);
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let spec = Spec { name: name.to_owned(), program: program("loggerhub")?, role, environment, lives: Vec::new() };
        Child::start(spec, &self.logs)
    }
}

impl Home {
    /// The value by which another cluster takes the place of this one.
    pub(crate) fn take_over(&self) -> String {
        format!("takeOver={}", self.api.uid)
    }

    /// The text of a tenant's key.
    pub(crate) async fn key(&self, tenant: &str) -> anyhow::Result<String> {
        self.cluster.secret_value(NAMESPACE, tenant, "apiKey").await
    }

    /// A Secret as a backup of the usual kind keeps it: without what ties it to objects of this cluster.
    pub(crate) async fn backup(&self, name: &str) -> anyhow::Result<Secret> {
        let found = self.cluster.ours::<Secret>().get(name).await?;
        let mut kept = Secret { data: found.data.clone(), type_: found.type_.clone(), ..Secret::default() };
        kept.metadata.name = Some(name.to_owned());
        kept.metadata.labels = Some(found.labels().clone());
        kept.metadata.annotations = Some(found.annotations().clone());
        Ok(kept)
    }

    /// Puts Secrets of a backup in place.
    pub(crate) async fn restore(&self, backup: &[Secret]) -> anyhow::Result<()> {
        for secret in backup {
            self.cluster.apply(&self.cluster.ours(), secret).await?;
        }
        Ok(())
    }

    /// Deletes the Tenants with their data.
    pub(crate) async fn delete_tenants(&self, names: &[String]) -> anyhow::Result<()> {
        try_join_all(names.iter().map(|name| self.cluster.delete_tenant(name, SOON))).await?;
        Ok(())
    }

    /// A Secret, mounted. Waits for it.
    async fn credentials(&self, stores: &Stores, secret: &str) -> anyhow::Result<PathBuf> {
        let found = eventually(&format!("Secret {secret} is there"), SOON, || async {
            Ok(self.cluster.ours::<Secret>().get(secret).await?.data.unwrap_or_default())
        })
        .await?;
        let mut files = Vec::new();
        for (name, bytes) in found {
            files.push((name, String::from_utf8(bytes.0)?));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        stores.credentials(&unique(secret), &files)
    }
}

/// Somebody who sends a few events ten times a second, and never stops.
pub(crate) struct Sender {
    stop: CancellationToken,
    task: JoinHandle<Sent>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) ledger: Ledger,
    /// Whatever was no 202.
    pub(crate) refused: Vec<String>,
}

impl Sender {
    pub(crate) fn start(door: &Door, key: &str) -> Self {
        let (door, stop) = (door.with_key(key), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut sent = Sent::default();
            let mut next = 0;
            while !stopped.is_cancelled() {
                let event =
                    |n| format!("{}\n", json!({"service": "story", "message": format!("event {n} of a story")}));
                let lines: String = (next..next + EVENTS).map(event).collect();
                next += EVENTS;
                match door.send_lines(&lines).await {
                    Ok(accepted) => sent.ledger.record(&accepted),
                    Err(error) => sent.refused.push(format!("{error:#}")),
                }
                tokio::time::sleep(PAUSE).await;
            }
            sent
        });
        Self { stop, task }
    }

    /// Stops it. Nothing may have been refused.
    pub(crate) async fn stop(self) -> anyhow::Result<Ledger> {
        self.stop.cancel();
        let sent = self.task.await?;
        let (refused, events) = (sent.refused.len(), sent.ledger.events());
        ensure!(refused == 0, "{refused} requests were refused, {events} events accepted: {}", sent.refused[0]);
        ensure!(events > 0, "nothing was sent");
        Ok(sent.ledger)
    }
}

/// A program that is built beside these tests.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.ancestors().nth(2).context("the tests lie in target/debug/deps")?.join(name);
    ensure!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
    Ok(program)
}
