//! A Redis of a test's own: the queue's settings unless a test changes one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crds::PipelineName;
use dataplane::queue::{Consumer, ConsumerSettings};
use runtime::settings::{QueueSettings, TlsSettings};
use runtime::stores::Redis;

pub(crate) struct RedisServer {
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// A server that has every write on disk before it answers.
    pub(crate) async fn durable() -> Self {
        Self::with(&["--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"]).await
    }

    /// A consumer of the default pipeline's queue, which takes over what others held for so long.
    pub(crate) fn consumer(&self, name: &str, claim_idle: Duration) -> Consumer {
        let pipeline = PipelineName::default_pipeline();
        Consumer::new(&self.redis(), ConsumerSettings { pipeline, consumer: name.into(), claim_idle }).unwrap()
    }

    pub(crate) async fn with(settings: &[&str]) -> Self {
        let port = testkit::free_address().unwrap().port();
        let folder = std::env::temp_dir().join(format!("loggerhub-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings: Vec<String> = settings.iter().flat_map(|setting| setting.split(' ')).map(str::to_owned).collect();
        let child = spawn(&folder, port, &settings);
        let server = Self { folder, port, settings, child };
        server.answers().await;
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn settings(&self) -> QueueSettings {
        QueueSettings { queue_url: format!("redis://127.0.0.1:{}", self.port), queue_credentials: None }
    }

    pub(crate) fn redis(&self) -> Redis {
        Redis::queue(&self.settings(), &TlsSettings::default()).unwrap()
    }

    /// One command, as a person would give it.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query_async(&mut self.redis().connection().unwrap()).await.unwrap()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on what it left on disk.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port, &self.settings);
        self.answers().await;
    }

    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn answers(&self) {
        for _ in 0..200 {
            if let Ok(mut connection) = self.redis().connection()
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("redis-server did not answer within 10 s");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn spawn(folder: &PathBuf, port: u16, settings: &[String]) -> Child {
    Command::new("redis-server")
        .current_dir(folder)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(settings)
        .stdout(Stdio::null())
        .spawn()
        .expect("this test needs Redis 7: install `redis-server`, or let `dev/stores up` do it")
}
