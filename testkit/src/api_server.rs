//! A cluster of a test's own, to be destroyed: etcd and an API server on loopback. Enough for objects; nothing runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::process::{Child, Command};

use crate::environment::variable;
use crate::{Cluster, eventually, free_address};

/// Longest wait for it to serve: some seconds on an idle machine.
const START: Duration = Duration::from_secs(90);

/// The servers. They and all that they hold are gone when this is dropped.
pub struct ApiServer {
    /// How to reach it, as its administrator.
    pub kubeconfig: PathBuf,
    /// What tells it from any other cluster: the UID of its namespace kube-system.
    pub uid: String,
    folder: PathBuf,
    servers: [Child; 2],
}

impl ApiServer {
    /// Starts an empty one beside the instance's cluster, with the instance's certificates; its log goes to `logs`.
    pub async fn start(logs: &Path) -> anyhow::Result<Self> {
        let name = crate::unique("cluster");
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let log = logs.join(format!("{name}.log"));
        let instance = variable("KUBECONFIG")?;
        let pki = Path::new(&instance).parent().context("KUBECONFIG is not in a folder")?;
        let (clients, peers, address) = (free_address()?, free_address()?, free_address()?);
        let etcd = etcd(&folder.join("etcd"), &format!("http://{clients}"), &format!("http://{peers}"));
        let etcd = spawn(etcd, &log).context("start etcd: `dev/cluster api` installs it")?;
        let server = kube_apiserver(pki, &format!("http://{clients}"), address.port());
        let server = spawn(server, &log).context("start kube-apiserver: `dev/cluster api` builds it")?;
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, at(&fs::read_to_string(&instance)?, &format!("https://{address}"))?)?;
        let mut this = Self { kubeconfig, uid: String::new(), folder, servers: [server, etcd] };
        let cluster = this.cluster("default").await?;
        this.uid = eventually("the API server serves", START, || async {
            let namespace = Api::<Namespace>::all(cluster.client.clone()).get("kube-system").await?;
            namespace.metadata.uid.context("a namespace without UID")
        })
        .await
        .with_context(|| format!("see {}", log.display()))?;
        Ok(this)
    }

    /// A client, for LoggerHub in this namespace.
    pub async fn cluster(&self, namespace: &str) -> anyhow::Result<Cluster> {
        Cluster::of(&self.kubeconfig, namespace).await
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Err(error) = server.start_kill() {
                tracing::warn!(%error, "kill {:?}", server.id());
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "remove {}", self.folder.display());
        }
    }
}

fn etcd(data: &Path, clients: &str, peers: &str) -> Command {
    let mut command = Command::new("etcd");
    command.arg("--unsafe-no-fsync").arg("--data-dir").arg(data);
    command.args(["--listen-client-urls", clients, "--advertise-client-urls", clients]);
    command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
    command.args(["--initial-cluster", &format!("default={peers}")]);
    command
}

/// As `dev/lib/cluster/control-plane.sh` starts the instance's.
fn kube_apiserver(pki: &Path, etcd: &str, port: u16) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.join(name).display());
    let mut command = Command::new("kube-apiserver");
    command.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]);
    command.args([format!("--etcd-servers={etcd}"), format!("--secure-port={port}")]);
    command.args(["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"]);
    command.arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local");
    command.args([
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        file("client-ca-file", "ca.crt"),
        file("service-account-key-file", "service-accounts.pub"),
        file("service-account-signing-key-file", "service-accounts.key"),
    ]);
    command
}

fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// The kubeconfig, for another server.
fn at(kubeconfig: &str, server: &str) -> anyhow::Result<String> {
    let (before, rest) = kubeconfig.split_once("server: ").context("a kubeconfig without a server")?;
    let (_, after) = rest.split_once('\n').context("a kubeconfig without an end")?;
    ensure!(!after.contains("server: "), "a kubeconfig of several clusters");
    Ok(format!("{before}server: {server}\n{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_pointed_at_another_server() {
        let text = "clusters:\n- cluster:\n    server: https://198.18.1.2:6443\n    certificate: x\n";
        let expected = "clusters:\n- cluster:\n    server: https://127.0.0.1:1\n    certificate: x\n";
        assert_eq!(at(text, "https://127.0.0.1:1").unwrap(), expected);
        assert!(at("clusters: []\n", "https://127.0.0.1:1").is_err());
    }
}
