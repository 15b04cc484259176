//! `kubectl loggerhub`: what a person wants to know or do about tenants, keys, logs and lanes, with
//! nothing but a kubeconfig.
//!
//! ```text
//!  args ─► tenants, backlog, canary, keys, verify ─► kubernetes ─► API server
//!      └─► search, export, tail, dead_letters ─► door ─► gateway, by a URL or through the API server
//!                                                 └ credentials: the key, from the Secret of the tenant's
//! ```
//! What is decided (which key, which patch, which Job, which columns) is plain functions beside
//! the little that asks and prints.

pub mod args;
pub mod output;
pub mod kubernetes;
pub mod tenants;
pub mod backlog;
pub mod canary;
pub mod keys;
pub mod credentials;
pub mod door;
pub mod search;
pub mod export;
pub mod tail;
pub mod dead_letters;
pub mod verify;
pub mod completion;

use std::process::ExitCode;

use args::{Cli, Command, Output};

/// Exit code: it could not be done, or was refused. clap ends wrong usage with 2.
const FAILED: u8 = 1;

/// Exit code: wrong usage that clap can't see.
const WRONG_USAGE: u8 = 2;

/// Whether a command has this form.
fn suits(output: Output, command: &Command) -> bool {
    match (output, command) {
        (Output::Table | Output::Json, _) | (_, Command::Export(_)) => true,
        (Output::Csv, Command::Search(args)) => !args.follow,
        (_, Command::Search(_)) | (Output::Ndjson | Output::Text, Command::Tail(_)) => true,
        _ => false,
    }
}

/// Does what is asked for, and says on standard error why if it could not.
pub async fn run(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    if !suits(global.output, &command) {
        eprintln!("error: -o ndjson, csv and text are of search and export (ndjson and text of tail, too)");
        return ExitCode::from(WRONG_USAGE);
    }
    let done = match command {
        Command::Tenants => tenants::list(&global).await,
        Command::Backlog => backlog::list(&global).await,
        Command::Canary => canary::list(&global).await,
        Command::Keys(command) => keys::run(&global, command).await,
        Command::Search(args) => search::run(&global, args).await,
        Command::Export(args) => export::run(&global, args).await,
        Command::Tail(args) => tail::run(&global, args).await,
        Command::DeadLetters(command) => dead_letters::run(&global, command).await,
        Command::Completion { shell } => completion::print(shell),
        Command::CompleteWords { words } => completion::words(&global, &words).await,
        Command::Verify(args) => return verify::run(&global, args).await,
    };
    match done {
        Err(error) if !output::is_closed_pipe(&error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}
