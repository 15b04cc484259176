//! A PostgreSQL of a test's own. The platform's roles are of a whole server, so a test that changes their passwords, or
//! shows that nobody does, can't share it with others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runtime::settings::{PostgresSettings, SslMode};

use crate::{Stores, eventually, free_address};

/// Where Debian has it, as in `dev/lib/stores/postgres.sh`.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Password of both logins: it is reached from this machine only.
const PASSWORD: &str = "ofatest";
/// The login that LoggerHub is given: it may make databases and roles, and is no superuser.
const USER: &str = "loggerhub";
const SUPERUSER: &str = "postgres";
/// Longest wait for it to start, and to end.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

/// The server. It and its data are gone when this is dropped.
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
    child: Child,
}

impl PostgresServer {
    /// Starts an empty one with a login as LoggerHub is given it; its log goes to `logs`.
    pub async fn start(logs: &Path, stores: &Stores) -> anyhow::Result<Self> {
        let name = crate::unique("postgres");
        // PostgreSQL refuses to be root, and its user can't look into root's home.
        let folder = std::env::temp_dir().join(&name);
        let (data, password) = (folder.join("data"), folder.join("password"));
        run(Command::new("install").args(["-d", "-o", "postgres", "-g", "postgres", "-m", "700"]).arg(&folder))?;
        fs::write(&password, PASSWORD)?;
        let made = run(as_postgres("initdb").arg("-D").arg(&data).arg("--pwfile").arg(&password).args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]));
        made.context("make a PostgreSQL: `dev/stores up` installs it")?;
        let port = free_address()?.port();
        let log = File::create(logs.join(format!("{name}.log")))?;
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "fsync=off"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let server = Self { folder, port, child: command.spawn().context("start PostgreSQL")? };
        let mut stores = stores.clone();
        stores.postgres = server.superuser(&stores)?;
        eventually("PostgreSQL lets its user in", START, || async {
            let pool = stores.postgres("postgres")?;
            let make = format!("CREATE ROLE {USER} LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}'");
            sqlx::raw_sql(&make).execute(&pool).await?;
            Ok(())
        })
        .await?;
        Ok(server)
    }

    /// Settings of the login that LoggerHub is given.
    pub fn settings(&self, stores: &Stores) -> anyhow::Result<PostgresSettings> {
        self.login(stores, USER)
    }

    /// Settings of the superuser, who sees what others do not.
    pub fn superuser(&self, stores: &Stores) -> anyhow::Result<PostgresSettings> {
        self.login(stores, SUPERUSER)
    }

    fn login(&self, stores: &Stores, username: &str) -> anyhow::Result<PostgresSettings> {
        let name = format!("postgres-{}-{username}", self.port);
        Ok(PostgresSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            ssl_mode: SslMode::Disable,
            credentials: stores.credentials(&name, &[("username", username), ("password", PASSWORD)])?,
            max_connections: 4,
        })
    }
}

impl Drop for PostgresServer {
    /// Asks it to end, and waits: killed, it would leave shared memory behind.
    fn drop(&mut self) {
        let asked = Command::new("kill").arg("-QUIT").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            tracing::warn!(?asked, "PostgreSQL {} is killed", self.child.id());
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "remove {}", self.folder.display());
        }
    }
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(format!("{PROGRAMS}/{program}"));
    // Its user may not look at where we are.
    command.current_dir("/");
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
