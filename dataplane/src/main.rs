//! `loggerhub`: one program, a role per subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dataplane::maintain::tool::{self, Tool};
use dataplane::try_out;
use runtime::logging::{self, LogSettings};
use runtime::shutdown;
use runtime::traces::Traces;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// LoggerHub's data plane.
#[derive(Parser)]
#[command(name = "loggerhub", version)]
struct Cli {
    #[command(flatten)]
    log: LogSettings,
    /// Where this build for tests dies or stands still: POINT=kill@N or POINT=stop@N.
    #[cfg(feature = "failpoints")]
    #[arg(long, env = "LOGGERHUB_FAIL_POINT", value_parser = dataplane::fail_points::order)]
    fail_point: Option<runtime::fail_points::Order>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, made once")]
enum Command {
    #[command(flatten)]
    Role(Role),
    /// Show what a pipeline's stages make of lines, and run its tests: ends with 1 if one fails, and with 2
    /// if the stages can't be run. Needs no store.
    Try(try_out::Settings),
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, made once")]
enum Role {
    /// Accept logs over HTTP and queue them.
    Ingest(dataplane::ingest::Settings),
    /// Store and index what is queued, for one pipeline.
    Process(dataplane::process::Settings),
    /// Archive, expire, roll over and index late.
    Maintain(dataplane::maintain::Settings),
    /// Answer list, search and detail queries.
    Search(dataplane::search::Settings),
    /// The front door: live tail, and everything else forwarded to its role.
    Gateway(dataplane::gateway::Settings),
    /// Compare a tenant's stores line by line: ends with 1 if they differ, and with 2 if that could
    /// not be found out.
    Verify(tool::VerifySettings),
    /// Restore a tenant's catalog and index from its archive.
    Rebuild(tool::RebuildSettings),
    /// Show what lies in the queue's quarantine, and put it back into its lanes with `--apply`: ends with 1 if
    /// something was left, and with 2 if that could not be done.
    Requeue(dataplane::requeue::Settings),
    /// Send one event and find it again: ends with 1 if it is not found in time, and with 2 if it is
    /// not accepted.
    Smoke(dataplane::smoke::Settings),
    /// Send an event every so often as a tenant would, find it again, and measure how long that takes.
    Canary(dataplane::canary::Settings),
}

impl Role {
    /// What traces call it.
    fn service(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "loggerhub-ingest",
            Self::Process(_) => "loggerhub-process",
            Self::Maintain(_) => "loggerhub-maintain",
            Self::Search(_) => "loggerhub-search",
            Self::Gateway(_) => "loggerhub-gateway",
            Self::Canary(_) => "loggerhub-canary",
            Self::Verify(_) | Self::Rebuild(_) | Self::Requeue(_) | Self::Smoke(_) => "loggerhub",
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // What is computed off the threads that serve is bounded by the cores, and each thread more holds on to memory
    // that it once needed. Two to spare for whatever waits there: a name to be looked up, a file to be read.
    let blocking = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(blocking).build()?.block_on(run(cli))
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let role = match cli.command {
        // Before anything waits for signals: one is to end it as it ends any filter.
        Command::Try(settings) => {
            logging::init_on_stderr(&cli.log)?;
            return Ok(try_out::run(&settings));
        }
        Command::Role(role) => role,
    };
    // Until the end: what is still to be sent is sent when they are dropped.
    let _traces = if matches!(role, Role::Verify(_) | Role::Rebuild(_) | Role::Requeue(_) | Role::Smoke(_)) {
        logging::init_on_stderr(&cli.log)?;
        Traces::default()
    } else {
        logging::init(&cli.log, role.service())?
    };
    #[cfg(feature = "failpoints")]
    if let Some(order) = cli.fail_point {
        runtime::fail_points::arm(order);
    }
    let stop = shutdown::on_signal()?;
    match role {
        Role::Ingest(settings) => dataplane::ingest::run(settings, stop).await,
        Role::Process(settings) => dataplane::process::run(settings, stop).await,
        Role::Maintain(settings) => dataplane::maintain::run(settings, stop).await,
        Role::Search(settings) => dataplane::search::run(settings, stop).await,
        Role::Gateway(settings) => dataplane::gateway::run(settings, stop).await,
        Role::Canary(settings) => dataplane::canary::run(settings, stop).await,
        Role::Verify(settings) => return Ok(tool::run(Tool::Verify(settings), stop).await),
        Role::Rebuild(settings) => return Ok(tool::run(Tool::Rebuild(settings), stop).await),
        Role::Requeue(settings) => return Ok(dataplane::requeue::run(settings, stop).await),
        Role::Smoke(settings) => return Ok(dataplane::smoke::run(settings, stop).await),
    }?;
    Ok(ExitCode::SUCCESS)
}
