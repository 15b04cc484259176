//! `kubectl loggerhub`: kubectl runs any program of this name on the PATH as its plugin.

use std::process::ExitCode;

use clap::Parser;
use cli::args::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
