//! `loggerhub-operator run`.

use clap::{Parser, Subcommand};

use operator::run::{RunSettings, run};

#[derive(Parser)]
#[command(name = "loggerhub-operator", version, about = "Provisions tenants, runs and scales pipelines")]
struct Cli {
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
    match Cli::parse().command {
        Command::Run(settings) => {
            runtime::logging::init(&settings.log)?;
            let shutdown = runtime::shutdown::on_signal()?;
            run(*settings, shutdown).await
        }
    }
}
