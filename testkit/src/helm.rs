//! Helm on the chart of this checkout: the one that HELM names, or that of the PATH.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::environment::optional_variable;

/// The release that everything committed is rendered as.
const RELEASE: [&str; 4] = ["loggerhub", "charts/loggerhub", "--namespace", "loggerhub"];

/// Values of an ordinary installation.
pub const EXAMPLE: &str = "charts/loggerhub/ci/example-values.yaml";
/// Values that switch on everything that can be.
pub const EVERYTHING: &str = "charts/loggerhub/ci/everything-values.yaml";

/// The checkout's root. cargo runs a test in its package's folder, and the checkout that a test was built in
/// need not be there any more.
pub fn root() -> PathBuf {
    PathBuf::from("..")
}

/// `helm template` of the chart with the example's values and further `--set` pairs. An error holds
/// what Helm says.
pub async fn template(sets: &[&str]) -> anyhow::Result<String> {
    template_with(EXAMPLE, sets).await
}

/// The same with the values of another file.
pub async fn template_with(values: &str, sets: &[&str]) -> anyhow::Result<String> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    said(helm(["template"].into_iter().chain(RELEASE).chain(["--values", values]).chain(sets)).await?)
}

/// `helm template` of the chart without any values.
pub async fn template_without_values() -> anyhow::Result<String> {
    said(helm(["template"].into_iter().chain(RELEASE)).await?)
}

/// `helm lint --strict` with the values of a file.
pub async fn lint(values: &str) -> anyhow::Result<String> {
    said(helm(["lint", "--strict", "charts/loggerhub", "--values", values]).await?)
}

/// `helm upgrade` of the installed release to this checkout's chart, with its own values and one more.
pub async fn upgrade_reusing_values(namespace: &str, set: &str) -> anyhow::Result<String> {
    let [release, chart, ..] = RELEASE;
    said(helm(["upgrade", release, chart, "--namespace", namespace, "--reset-then-reuse-values", "--set", set]).await?)
}

/// `helm test` of the installed release, and what its pods said.
pub async fn test(namespace: &str) -> anyhow::Result<String> {
    let [release, ..] = RELEASE;
    said(helm(["test", release, "--namespace", namespace, "--logs", "--timeout", "3m"]).await?)
}

async fn helm(arguments: impl IntoIterator<Item = &str>) -> anyhow::Result<Output> {
    let program = optional_variable("HELM").unwrap_or_else(|| "helm".to_owned());
    let output = Command::new(program).args(arguments).current_dir(root()).output().await;
    output.context("run helm: it is in the PATH that `eval \"$(make -s env)\"` sets")
}

fn said(output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
