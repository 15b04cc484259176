//! A Redis of a run's own for the queue, set as in production, that may be killed, cut and filled.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::FromRedisValue;
use runtime::settings::{QueueSettings, TlsSettings};
use runtime::stores::{Connection, Redis};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::small_disk::SmallDisk;
use crate::{eventually, free_address};

/// Longest wait for Redis to load its file and answer.
const START: Duration = Duration::from_secs(20);
/// The append-only file that Redis 7 writes to until it rewrites it, which it does at 64 MiB: more
/// than a run writes.
const TAIL: &str = "appendonlydir/appendonly.aof.1.incr.aof";

/// The server.
pub struct RedisServer {
    folder: PathBuf,
    /// Its port on loopback.
    pub port: u16,
    /// What it writes to, where that is a disk of its own.
    pub small_disk: Option<SmallDisk>,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    /// Starts one on an empty folder, or on a small disk that is mounted there.
    pub async fn start(folder: &Path, on_a_small_disk: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let small_disk = on_a_small_disk.then(|| SmallDisk::mount(folder)).transpose()?;
        let port = free_address()?.port();
        let server = Self { folder: folder.to_owned(), port, small_disk, child: Mutex::new(None) };
        server.restart().await?;
        Ok(server)
    }

    /// Its address, as a role is given it.
    pub fn settings(&self) -> QueueSettings {
        QueueSettings { queue_url: format!("redis://127.0.0.1:{}", self.port), queue_credentials: None }
    }

    /// A connection to it.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        Ok(Redis::queue(&self.settings(), &TlsSettings::default())?.connection()?)
    }

    /// One command, as a person would give it.
    pub async fn command<T: FromRedisValue>(&self, command: &[&str]) -> anyhow::Result<T> {
        Ok(redis::cmd(command[0]).arg(&command[1..]).query_async(&mut self.connection()?).await?)
    }

    /// Its process.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Ends it without warning.
    pub async fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.context("kill Redis")?;
        }
        Ok(())
    }

    /// Waits until it ended by itself.
    pub async fn ended(&self, within: Duration) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if let Some(running) = child.as_mut() {
            tokio::time::timeout(within, running.wait()).await.context("Redis still runs")??;
            *child = None;
        }
        Ok(())
    }

    /// Starts it on what is on disk, and waits until it answers.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.kill().await?;
        self.spawn().await?;
        eventually("Redis answers", START, || async {
            let pong: String = self.command(&["PING"]).await?;
            ensure!(pong == "PONG", "{pong}");
            Ok(())
        })
        .await
    }

    /// Starts one that has ended, and does not wait.
    pub async fn spawn(&self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.with_extension("log"))?;
        let mut command = Command::new("redis-server");
        command.current_dir(&self.folder).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--maxmemory", "1gb", "--maxmemory-policy", "noeviction"]);
        command.stdin(Stdio::null()).stdout(log).kill_on_drop(true);
        let child = command.spawn().context("start redis-server: `dev/stores up` installs it")?;
        *self.child.lock().await = Some(child);
        Ok(())
    }

    /// How long its append-only file is.
    pub fn tail_length(&self) -> anyhow::Result<u64> {
        Ok(fs::metadata(self.folder.join(TAIL))?.len())
    }

    /// Cuts the append-only file of a dead server, as a disk does that never got the rest.
    pub fn cut_tail(&self, length: u64) -> anyhow::Result<()> {
        let file = File::options().write(true).open(self.folder.join(TAIL))?;
        file.set_len(length).context("cut the append-only file")?;
        Ok(file.sync_all()?)
    }
}
