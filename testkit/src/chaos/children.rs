//! The roles of the data plane as child processes that are started again when they die, as a
//! cluster would. Only these are ever signalled.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Pause before a dead child is started again: about what a cluster takes for the first restart.
const RESTART_PAUSE: Duration = Duration::from_millis(150);

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name among the children, such as `process-0`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its role.
    pub role: &'static str,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// Additions to the environment of its first lives, one life after the other.
    pub lives: Vec<Vec<(String, String)>>,
}

/// One supervised child.
pub struct Child {
    /// Its name.
    pub name: String,
    state: Arc<State>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

#[derive(Default)]
struct State {
    /// 0 while it is not running.
    pid: AtomicU32,
    deaths: AtomicU32,
}

impl Child {
    /// Starts it, and starts it again whenever it ends, with its output in a file of `logs`.
    pub fn start(spec: Spec, logs: &Path) -> anyhow::Result<Self> {
        let path = logs.join(format!("{}.log", spec.name));
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("open the log {}", path.display()))?;
        let (state, stop) = (Arc::new(State::default()), CancellationToken::new());
        let name = spec.name.clone();
        let task = tokio::spawn(supervise(spec, log, Arc::clone(&state), stop.clone()));
        Ok(Self { name, state, stop, task })
    }

    /// How often it has died so far.
    pub fn deaths(&self) -> u32 {
        self.state.deaths.load(Ordering::SeqCst)
    }

    /// Sends a signal such as `KILL`; `false` if it is not running right now.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<bool> {
        let pid = self.state.pid.load(Ordering::SeqCst);
        if pid == 0 {
            return Ok(false);
        }
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status();
        Ok(sent.await.context("run kill")?.success())
    }

    /// Whether it stands still, by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let pid = self.state.pid.load(Ordering::SeqCst);
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Most memory that it has held in this life, in bytes.
    pub fn most_memory(&self) -> anyhow::Result<u64> {
        let pid = self.state.pid.load(Ordering::SeqCst);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Ok(peak.with_context(|| format!("{} does not run", self.name))?.parse::<u64>()? * 1024)
    }

    /// Ends it for good.
    pub async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await?
    }
}

async fn supervise(spec: Spec, log: File, state: Arc<State>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut lives = spec.lives.into_iter();
    loop {
        let mut command = Command::new(&spec.program);
        command.arg(spec.role).env_clear().envs(spec.environment.iter().cloned());
        command.envs(lives.next().unwrap_or_default()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("start {}", spec.program.display()))?;
        state.pid.store(child.id().unwrap_or(0), Ordering::SeqCst);
        tokio::select! {
            ended = child.wait() => {
                ended?;
                state.pid.store(0, Ordering::SeqCst);
                state.deaths.fetch_add(1, Ordering::SeqCst);
            }
            () = stop.cancelled() => {
                state.pid.store(0, Ordering::SeqCst);
                // Also one that stands still.
                child.kill().await?;
                return Ok(());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// The program, if it is there.
pub fn program(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(path.is_file(), "{} is not there: build it with `cargo build -p loggerhub-dataplane`", path.display());
    Ok(path.to_owned())
}
