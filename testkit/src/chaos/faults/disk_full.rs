//! PostgreSQL on a full disk: a tenant's tables move to a small file system that is then filled.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::PgPool;
use tokio::process::Command;
use url::Url;

use super::{Struck, catalog};
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::chaos::small_disk;
use crate::environment::variable;
use crate::eventually;
use crate::stores::control::{Store, pid};

/// Where the small file system is, as the server sees it.
const PLACE: &str = "/var/lib/postgresql/small";
/// Enough for a tenant's tables and some seconds of load.
const SIZE: &str = "48m";
/// Longest wait for the load to let go of a table.
const MOVE: Duration = Duration::from_secs(30);

/// The small file system, in the server's own mount namespace.
struct SmallTablespace {
    pid: u32,
    administrator: PgPool,
}

pub(super) async fn full(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let disk = SmallTablespace::mount(house).await?;
    let schema = house.tenants[0].desired.name().database_schema();
    let filled = fill(&disk, &schema, house, load).await;
    let emptied = small_disk::make_room(&disk.path());
    let moved = disk.take_away(&schema).await;
    let struck = filled?;
    emptied?;
    moved?;
    Ok(struck)
}

async fn fill(disk: &SmallTablespace, schema: &str, house: &House, load: &Load) -> anyhow::Result<Struck> {
    disk.move_tables(schema, "chaos_small").await?;
    small_disk::fill(&disk.path())?;
    let mut struck = Struck::default();
    catalog::meanwhile(house, load, &mut struck).await?;
    Ok(struck)
}

impl SmallTablespace {
    async fn mount(house: &House) -> anyhow::Result<Self> {
        let url: Url = variable("DATABASE_URL")?.parse()?;
        // The instance's superuser has the password of LoggerHub's login.
        let settings = house.stores.postgres_as("postgres", url.password().unwrap_or_default())?;
        let database = crds::names::PROCESSOR_DATABASE;
        let administrator = runtime::stores::postgres(&settings, &house.stores.tls, database, "loggerhub-chaos")?;
        let disk = Self { pid: pid(Store::Postgres).await?, administrator };
        fs::create_dir_all(disk.path())?;
        let owner =
            fs::metadata(format!("/proc/{}", disk.pid)).map(|server| std::os::unix::fs::MetadataExt::uid(&server))?;
        let options = format!("size={SIZE},uid={owner},mode=700");
        disk.inside(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", PLACE]).await?;
        disk.execute(&format!("CREATE TABLESPACE chaos_small LOCATION '{PLACE}'")).await?;
        disk.execute("GRANT CREATE ON TABLESPACE chaos_small TO PUBLIC").await?;
        Ok(disk)
    }

    /// The file system as seen from here.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{PLACE}", self.pid))
    }

    /// Runs a command in the server's mount namespace.
    async fn inside(&self, command: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("nsenter").args(["-t", &self.pid.to_string(), "-m"]).args(command).output().await?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn execute(&self, statement: &str) -> anyhow::Result<()> {
        let done = sqlx::query(statement).execute(&self.administrator);
        tokio::time::timeout(MOVE, done).await.with_context(|| format!("{statement} did not end"))??;
        Ok(())
    }

    /// Moves what a flush writes to.
    async fn move_tables(&self, schema: &str, to: &str) -> anyhow::Result<()> {
        let leaves = format!("SELECT name FROM {schema}.partitions");
        let leaves: Vec<String> = sqlx::query_scalar(&leaves).fetch_all(&self.administrator).await?;
        for table in ["spool", "batches"].into_iter().chain(leaves.iter().map(String::as_str)) {
            self.execute(&format!("ALTER TABLE {schema}.{table} SET TABLESPACE {to}")).await?;
        }
        Ok(())
    }

    async fn take_away(&self, schema: &str) -> anyhow::Result<()> {
        self.move_tables(schema, "pg_default").await?;
        // Files of moved tables go at the next checkpoint.
        self.execute("CHECKPOINT").await?;
        self.execute("DROP TABLESPACE chaos_small").await?;
        // Sessions close the files of dropped tables when they next do something.
        eventually("the small disk is let go of", MOVE, || self.inside(&["umount", PLACE])).await
    }
}
