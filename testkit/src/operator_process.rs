//! The operator as a process of its own, with the settings that the chart gives it: for tests that
//! kill it, and for the benchmark.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

use crate::Stores;
use crate::environment::variable;
use crate::wait::eventually;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait until it is ready, and until it has stopped: it may drain for 20 s.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// How one is started.
#[derive(Clone, Debug)]
pub struct OperatorProgram {
    /// The program.
    pub program: PathBuf,
    /// The stores that it provisions.
    pub stores: Stores,
    /// Folder of its logs.
    pub logs: PathBuf,
}

/// A running operator. It is killed when this is dropped.
pub struct OperatorProcess {
    /// Its process.
    pub pid: u32,
    address: SocketAddr,
    child: Child,
    log: PathBuf,
    /// Whose folder holds its credentials.
    _stores: Stores,
}

impl OperatorProgram {
    /// Starts one over the cluster of KUBECONFIG with these settings, and more of its environment.
    pub fn start(&self, settings: &str, more: &[(&str, &str)]) -> anyhow::Result<OperatorProcess> {
        let name = crate::unique("operator");
        let config = self.stores.credentials(&name, &[("config.yaml", settings)])?.join("config.yaml");
        let address = crate::free_address()?;
        let log = self.logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(&self.program);
        command.arg("run").env_clear().envs(self.environment()?).envs(more.iter().copied());
        command.env("LOGGERHUB_OPERATOR_CONFIG", config).env("LOGGERHUB_ADMIN_LISTEN", address.to_string());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        let pid = child.id().context("a process without an id")?;
        Ok(OperatorProcess { pid, address, child, log, _stores: self.stores.clone() })
    }

    fn environment(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut environment = self.stores.variables();
        environment.extend([("KUBECONFIG", variable("KUBECONFIG")?), ("LOGGERHUB_LOG", "info".to_owned())]);
        Ok(environment)
    }
}

impl OperatorProcess {
    /// What a path of its HTTP server answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        let response = client.get(format!("http://{}{path}", self.address)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{status}: {text}");
        Ok(text)
    }

    /// What it has logged so far.
    pub fn logged(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))
    }

    /// Waits until it says of itself that it `leads` or `stands by`.
    pub async fn standing(&self, wanted: &str, within: Duration) -> anyhow::Result<()> {
        eventually(&format!("the operator {} {wanted}", self.pid), within, || async {
            let said = self.get("/ready").await?;
            ensure!(said.contains(wanted), "{said}");
            Ok(())
        })
        .await
        .with_context(|| format!("see {}", self.log.display()))
    }

    /// Waits until it leads, from its start.
    pub async fn leads(&self) -> anyhow::Result<()> {
        self.standing("leads", START).await
    }

    /// Whether it stands still, by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Sends a signal such as `STOP`.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid.to_string()]).status().await;
        ensure!(sent.context("run kill")?.success(), "kill -{signal} {}", self.pid);
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        Ok(ended.with_context(|| format!("the operator goes on: see {}", self.log.display()))??)
    }

    /// Ends it without warning, as its node would.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the operator")
    }

    /// Asks it to end, as Kubernetes would, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.signal("TERM").await?;
        let status = self.ended(STOP).await?;
        ensure!(status.success(), "{status}: see {}", self.log.display());
        Ok(())
    }
}
