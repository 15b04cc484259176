//! `loggerhub-operator run`.

use clap::{Parser, Subcommand};

use operator::run::{RunSettings, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "loggerhub-operator", version, about = "Provisions tenants, runs and scales pipelines")]
struct Cli {
    /// Where this build for tests dies or stands still: POINT=kill@N or POINT=stop@N.
    #[cfg(debug_assertions)]
    #[arg(long, env = "LOGGERHUB_FAIL_POINT", value_parser = operator::fail_points::order, hide = true)]
    fail_point: Option<runtime::fail_points::Order>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile Tenants and LogPipelines until told to stop.
    Run(Box<RunSettings>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    #[cfg(debug_assertions)]
    if let Some(order) = cli.fail_point {
        runtime::fail_points::arm(order);
    }
    match cli.command {
        Command::Run(settings) => {
            let _traces = runtime::logging::init(&settings.log, "loggerhub-operator")?;
            let shutdown = runtime::shutdown::on_signal()?;
            run(*settings, shutdown).await
        }
    }
}
