//! `completion`: scripts for shells, and the helper that kubectl asks about its plugin.

use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell as Script, generate};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::args::{Cli, Global, Shell};
use crate::kubernetes::Kubernetes;
use crate::output;

/// kubectl runs a program of this name, with the words typed so far, to complete `kubectl loggerhub`.
const HELPER: &str = "#!/bin/sh\n\
    # Save as kubectl_complete-loggerhub on the PATH, executable.\n\
    exec kubectl-loggerhub complete-words -- \"$@\"\n";
/// Tells kubectl that file names would be of no use here.
const NO_FILES: &str = ":4\n";
/// Longest wait for the cluster while somebody has pressed a key, and most names to show.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST_NAMES: u32 = 200;

/// Prints the script.
pub fn print(shell: Shell) -> anyhow::Result<()> {
    let script = match shell {
        Shell::Bash => Script::Bash,
        Shell::Elvish => Script::Elvish,
        Shell::Fish => Script::Fish,
        Shell::Powershell => Script::PowerShell,
        Shell::Zsh => Script::Zsh,
        Shell::Kubectl => return output::text(HELPER),
    };
    let mut text = Vec::new();
    generate(script, &mut Cli::command(), "kubectl-loggerhub", &mut text);
    output::text(&String::from_utf8_lossy(&text))
}

/// Prints what the last of `words` may become, one a line, and what kubectl is to do with it.
pub async fn words(global: &Global, words: &[String]) -> anyhow::Result<()> {
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut found = match candidates(last, before) {
        Candidates::Words(words) => words,
        Candidates::Tenants => tenants(global).await.unwrap_or_default(),
    };
    found.retain(|word| word.starts_with(last));
    let lines: String = found.iter().map(|word| format!("{word}\n")).collect();
    output::text(&format!("{lines}{NO_FILES}"))
}

#[derive(Debug, PartialEq)]
enum Candidates {
    Words(Vec<String>),
    /// Names of Tenants, which the cluster knows.
    Tenants,
}

fn candidates(last: &str, before: &[String]) -> Candidates {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    let mut option: Option<&Arg> = None;
    let mut places = 0;
    for word in before {
        if option.take().is_some() {
            continue;
        }
        option = option_of(command, word);
        match command.find_subcommand(word) {
            Some(next) => command = next,
            None if !word.starts_with('-') => places += 1,
            None => {}
        }
    }
    if let Some(option) = option {
        let values = option.get_possible_values();
        return Candidates::Words(values.iter().map(|value| value.get_name().to_owned()).collect());
    }
    if last.starts_with('-') {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        return Candidates::Words(shown.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect());
    }
    if command.has_subcommands() {
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        return Candidates::Words(shown.map(|command| command.get_name().to_owned()).collect());
    }
    match command.get_positionals().nth(places) {
        Some(place) if place.get_id() == "tenant" => Candidates::Tenants,
        Some(place) => {
            let values = place.get_possible_values();
            Candidates::Words(values.iter().map(|value| value.get_name().to_owned()).collect())
        }
        None => Candidates::Words(Vec::new()),
    }
}

/// The option of which the next word is the value.
fn option_of<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let named = |arg: &&Arg| {
        let long = word.strip_prefix("--").is_some_and(|word| arg.get_long() == Some(word));
        long || arg.get_short().is_some_and(|short| word == format!("-{short}"))
    };
    command.get_arguments().find(named).filter(|arg| arg.get_action().takes_values())
}

async fn tenants(global: &Global) -> anyhow::Result<Vec<String>> {
    let asked = async {
        let kubernetes = Kubernetes::connect(global).await?;
        let found = kubernetes.tenants().list_metadata(&ListParams::default().limit(MOST_NAMES)).await?;
        Ok(found.iter().map(ResourceExt::name_any).collect())
    };
    tokio::time::timeout(PATIENCE, asked).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_becomes_what_fits_there() {
        let words = |words: &[&str]| Candidates::Words(words.iter().map(|word| (*word).to_owned()).collect());
        for (before, last, expected) in [
            (&["keys"][..], "", words(&["list", "issue", "rotate", "revoke", "help"])),
            (&["tail"], "ac", Candidates::Tenants),
            (&["-o", "json", "keys", "revoke"], "", Candidates::Tenants),
            (&["tail", "acme"], "", words(&[])),
            (&["tenants", "-o"], "", words(&["table", "json", "ndjson", "csv", "text"])),
            (&["tenants", "--output"], "j", words(&["table", "json", "ndjson", "csv", "text"])),
            (&["completion"], "k", words(&["bash", "elvish", "fish", "kubectl", "powershell", "zsh"])),
        ] {
            let before: Vec<_> = before.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(candidates(last, &before), expected, "{before:?} {last}");
        }
        let Candidates::Words(flags) = candidates("--", &["tail".to_owned()]) else { panic!("flags") };
        assert!(flags.contains(&"--service".to_owned()) && flags.contains(&"--namespace".to_owned()), "{flags:?}");
        assert!(!flags.contains(&"--api-key".to_owned()), "{flags:?}");
    }
}
