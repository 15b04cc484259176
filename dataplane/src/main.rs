//! `loggerhub`: one program, a role per subcommand.

use clap::{Parser, Subcommand};
use runtime::logging::{self, LogSettings};
use runtime::shutdown;

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
    #[arg(long, env = "LOGGERHUB_FAIL_POINT")]
    fail_point: Option<dataplane::fail_points::Order>,
    #[command(subcommand)]
    role: Role,
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    logging::init(&cli.log)?;
    #[cfg(feature = "failpoints")]
    if let Some(order) = cli.fail_point {
        dataplane::fail_points::arm(order);
    }
    let stop = shutdown::on_signal()?;
    match cli.role {
        Role::Ingest(settings) => dataplane::ingest::run(settings, stop).await,
        Role::Process(settings) => dataplane::process::run(settings, stop).await,
        Role::Maintain(settings) => dataplane::maintain::run(settings, stop).await,
        Role::Search(settings) => dataplane::search::run(settings, stop).await,
        Role::Gateway(settings) => dataplane::gateway::run(settings, stop).await,
    }
}
