//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use crds::TenantName;
use crds::tenant::Scope;
use uuid::Uuid;
use values::{moment, scope, secret, span, until};

mod values;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it could not be done, or was refused; 2 wrong usage.
verify: 0 the stores agree; 1 they differ; 2 that could not be found out.";

const GITOPS: &str = "\
This changes spec.apiKeys of the Tenant in the cluster, as field manager kubectl-loggerhub. Where Tenants come from a
repository (Argo CD, Flux), edit the manifest there instead: the next sync may undo what is done here.";

const GITOPS_ROTATE: &str = "\
This sets the annotation loggerhub.io/rotate-keys of the Tenant, as field manager kubectl-loggerhub; the spec stays.";

const EXPORT: &str = "\
As NDJSON unless -o says csv or text. An export that breaks off goes on by itself where it can, and ends with an error
where it can't: what is written then is not all.";

/// Tenants, keys, logs and dead letters of LoggerHub, with nothing but a kubeconfig.
#[derive(Parser)]
#[command(name = "kubectl-loggerhub", bin_name = "kubectl loggerhub", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What holds for each command.
    #[command(flatten)]
    pub global: Global,
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, and how to print.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// File to use instead of $KUBECONFIG and ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace that LoggerHub is installed in.
    #[arg(short, long, global = true, env = "LOGGERHUB_NAMESPACE", default_value = "loggerhub")]
    pub namespace: String,
    /// Form of what is printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
}

/// Form of what is printed.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Aligned columns for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
    /// Of search, export and tail: one JSON object a line.
    Ndjson,
    /// Of search and export: CSV with a header.
    Csv,
    /// Of search, export and tail: time, level, service and the whole text.
    Text,
}

/// What is to be done.
#[derive(Subcommand)]
pub enum Command {
    /// List the Tenants and how they are.
    Tenants,
    /// List the pipelines with what waits in them and how they scale.
    Backlog,
    /// List the pipelines' canaries: how their last round trip went, and how long each stage took.
    Canary,
    /// List, issue, rotate and revoke a tenant's API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Find a tenant's events, newest first unless it is said otherwise.
    Search(SearchArgs),
    /// Write a tenant's events whole, as many as there are, to standard output.
    #[command(after_help = EXPORT)]
    Export(ExportArgs),
    /// Follow a tenant's events as they are stored.
    Tail(TailArgs),
    /// Lines of a tenant that could not be events.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Compare a tenant's stores line by line, in a Job that is removed afterwards.
    Verify(VerifyArgs),
    /// Print a completion script, or with `kubectl` the program that completes `kubectl loggerhub`.
    Completion {
        /// What it is for.
        shell: Shell,
    },
    /// Print what the last word may become, in the form that kubectl asks for.
    #[command(hide = true)]
    CompleteWords {
        /// The words that are typed so far.
        #[arg(last = true)]
        words: Vec<String>,
    },
}

/// What can complete a command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Kubectl,
    Powershell,
    Zsh,
}

/// What can be done to keys.
#[derive(Subcommand)]
pub enum KeysCommand {
    /// List a tenant's keys; never the keys themselves.
    List {
        /// The tenant.
        tenant: TenantName,
    },
    /// Issue a key: the operator writes it to the Secret, or takes the one that is there.
    #[command(after_help = GITOPS)]
    Issue(IssueArgs),
    /// Replace keys by new ones, written to the same Secrets; those before still work for their overlap.
    #[command(after_help = GITOPS_ROTATE)]
    Rotate {
        /// The tenant.
        tenant: TenantName,
        /// The keys' names in spec.apiKeys.
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Every key that the operator makes.
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Take a key away: it is refused within seconds, and its Secret is removed if the operator made it.
    #[command(after_help = GITOPS)]
    Revoke {
        /// The tenant.
        tenant: TenantName,
        /// The key's name in spec.apiKeys.
        name: String,
    },
}

/// A key to issue.
#[derive(Args)]
pub struct IssueArgs {
    /// The tenant.
    pub tenant: TenantName,
    /// The key's name, unique among the tenant's keys.
    pub name: String,
    /// What the key may do; several times or `Ingest,Query`.
    #[arg(long, required = true, value_delimiter = ',', value_parser = scope)]
    pub scope: Vec<Scope>,
    /// Secret that the key is written to; the namespace must be one of the tenant's spec.namespaces.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = secret)]
    pub secret: (String, String),
    /// The Secret is yours and holds the key under `apiKey`: it is read, and never changed (source: Existing).
    #[arg(long)]
    pub existing: bool,
}

/// How to reach the API of a tenant.
#[derive(Args, Default)]
pub struct ApiArgs {
    /// Address of the gateway; without it a connection is forwarded to one of its pods.
    #[arg(long, env = "LOGGERHUB_URL")]
    pub url: Option<String>,
    /// Name in spec.apiKeys of the key to use; without it the one with the fewest scopes that will do.
    #[arg(long, value_name = "NAME", conflicts_with = "key_file")]
    pub key: Option<String>,
    /// File that holds an API key, to use instead of the tenant's Secret; so does LOGGERHUB_API_KEY.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// For the environment only: an argument could be seen in the list of processes.
    #[arg(long, hide = true, env = "LOGGERHUB_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
}

/// Which events.
#[derive(Args, Clone, Default)]
pub struct EventArgs {
    /// Words, "phrases", -not, OR, field:value, status:>=500, level:>=warn; without it every event.
    pub query: Vec<String>,
    /// Only of these services.
    #[arg(long, value_delimiter = ',')]
    pub service: Vec<String>,
    /// Only of these levels.
    #[arg(long, value_delimiter = ',')]
    pub level: Vec<String>,
}

/// Which of them, by time, and which come first.
#[derive(Args, Clone, Default)]
pub struct TimeArgs {
    /// Not before this time: 15m, 2h30m, 7d (ago), 2026-01-31T12:00:00Z, 2026-01-31, today, or now-1d/d.
    #[arg(long, visible_alias = "since", value_parser = moment, allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Before this time; a day ends with the day.
    #[arg(long, value_parser = until, allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Which events come first.
    #[arg(long, value_enum, default_value_t)]
    pub order: Order,
    /// Where the page or the export before ended.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Which events come first.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Newest,
    Oldest,
}

/// Which events to find.
#[derive(Args)]
pub struct SearchArgs {
    /// The tenant.
    pub tenant: TenantName,
    /// Which events.
    #[command(flatten)]
    pub events: EventArgs,
    /// When.
    #[command(flatten)]
    pub time: TimeArgs,
    /// Most events to print.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Print the newest, the oldest of them first, and then what is stored.
    #[arg(short, long, conflicts_with_all = ["to", "cursor", "order"])]
    pub follow: bool,
    /// How to reach the API.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Which events to export.
#[derive(Args)]
pub struct ExportArgs {
    /// The tenant.
    pub tenant: TenantName,
    /// Which events.
    #[command(flatten)]
    pub events: EventArgs,
    /// When.
    #[command(flatten)]
    pub time: TimeArgs,
    /// Most events; without it all.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// In a CSV, leave cells as they are that a spreadsheet would take for formulas.
    #[arg(long)]
    pub raw: bool,
    /// How to reach the API.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// A span of time and a page of what it holds.
#[derive(Args, Default)]
pub struct PageArgs {
    /// Not before this time: 15m, 2h30m, 7d (ago), 2026-01-31T12:00:00Z, 2026-01-31, today, or now-1d/d.
    #[arg(long, visible_alias = "since", value_parser = moment, allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Before this time; a day ends with the day.
    #[arg(long, value_parser = until, allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Most entries to print.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
    /// Where the page before ended.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Which events to follow.
#[derive(Args)]
pub struct TailArgs {
    /// The tenant.
    pub tenant: TenantName,
    /// Which events.
    #[command(flatten)]
    pub events: EventArgs,
    /// How to reach the API.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// What can be done to dead letters.
#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// List them, newest first.
    List {
        /// The tenant.
        tenant: TenantName,
        /// Which of them.
        #[command(flatten)]
        of: LettersFilter,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
        /// How to reach the API.
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show one with its original bytes.
    Show {
        /// The tenant.
        tenant: TenantName,
        /// Its id.
        id: String,
        /// How to reach the API.
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Try them again, after the cause is put right.
    Redrive(LettersArgs),
    /// Give them up for good.
    Purge(LettersArgs),
}

/// Which dead letters to list or change.
#[derive(Args, Default)]
pub struct LettersFilter {
    /// Only with these codes.
    #[arg(long, value_delimiter = ',')]
    pub code: Vec<String>,
    /// Only of these pipelines.
    #[arg(long, value_delimiter = ',')]
    pub pipeline: Vec<String>,
    /// Only of this batch.
    #[arg(long)]
    pub batch: Option<Uuid>,
}

/// Which dead letters to change: one, those that match, or all.
#[derive(Args)]
pub struct LettersArgs {
    /// The tenant.
    pub tenant: TenantName,
    /// Only this one.
    #[arg(conflicts_with_all = ["code", "pipeline", "batch", "from", "to", "all"])]
    pub id: Option<String>,
    /// Which of them.
    #[command(flatten)]
    pub of: LettersFilter,
    /// Not before this time: 15m, 2h30m, 7d (ago), 2026-01-31T12:00:00Z, 2026-01-31, today, or now-1d/d.
    #[arg(long, visible_alias = "since", value_parser = moment, allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Before this time; a day ends with the day.
    #[arg(long, value_parser = until, allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Every one of the tenant's.
    #[arg(long, conflicts_with_all = ["code", "pipeline", "batch", "from", "to"])]
    pub all: bool,
    /// How to reach the API.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// What to compare.
#[derive(Args)]
pub struct VerifyArgs {
    /// The tenant.
    pub tenant: TenantName,
    /// What was accepted from this time on: RFC 3339, or an age such as 2h or 7d; absent: all that is kept.
    #[arg(long, value_parser = moment)]
    pub from: Option<String>,
    /// What was accepted before this time; absent: until now.
    #[arg(long, value_parser = until)]
    pub to: Option<String>,
    /// Repair what can be repaired: docs/backup.md says what that is.
    #[arg(long)]
    pub repair: bool,
    /// Longest time that the Job may take.
    #[arg(long, default_value = "1h", value_parser = span)]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_can_be_asked_and_what_cannot() {
        let good = [
            "tenants -o json",
            "-n logs backlog",
            "canary -o json",
            "keys list acme",
            "keys issue acme shipper --scope Ingest,query --secret acme/shipper-key",
            "keys issue acme shipper --scope Ingest --secret acme/shipper-key --existing",
            "keys rotate acme main shipper",
            "keys rotate acme --all",
            "search acme payment refused --service a,b --from 15m --limit 500",
            "search acme --since -15m --to yesterday",
            "search acme --order oldest --limit 10000 -o csv",
            "search acme -f refused --level error",
            "export acme refused --from yesterday --to yesterday -o csv",
            "tail acme refused level:error --url http://localhost:8080",
            "dead-letters purge acme --all",
            "dead-letters redrive acme 0198",
            "verify acme --from 7d --repair",
            "completion kubectl",
        ];
        for line in good {
            let parsed = Cli::try_parse_from(["x"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
        let bad = [
            "tenants -o yaml",
            "keys list ACME",
            "keys issue acme shipper --secret acme/key",
            "keys issue acme shipper --scope Write --secret acme/key",
            "keys issue acme shipper --scope Query --secret key",
            "keys rotate acme",
            "keys rotate acme main --all",
            "search acme --limit 10001",
            "search acme --follow --order oldest",
            "export acme --limit 0",
            "search acme --from 15",
            "dead-letters purge acme 0198 --all",
            "dead-letters purge acme --all --code refused",
            "verify acme --timeout 0s",
        ];
        for line in bad {
            assert!(Cli::try_parse_from(["x"].into_iter().chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
