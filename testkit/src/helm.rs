//! Helm on the chart of this checkout.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, bail};
use tokio::process::Command;

/// The release that everything committed is rendered as.
const RELEASE: [&str; 4] = ["loggerhub", "charts/loggerhub", "--namespace", "loggerhub"];

/// The checkout's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `helm template` of the chart with the example's values and further `--set` pairs. An error holds
/// what Helm says.
pub async fn template(sets: &[&str]) -> anyhow::Result<String> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let values = ["--values", "charts/loggerhub/ci/example-values.yaml"];
    said(helm(["template"].into_iter().chain(RELEASE).chain(values).chain(sets)).await?)
}

/// `helm template` of the chart without any values.
pub async fn template_without_values() -> anyhow::Result<String> {
    said(helm(["template"].into_iter().chain(RELEASE)).await?)
}

/// `helm lint --strict` with the example's values.
pub async fn lint() -> anyhow::Result<String> {
    said(helm(["lint", "--strict", "charts/loggerhub", "--values", "charts/loggerhub/ci/example-values.yaml"]).await?)
}

async fn helm(arguments: impl IntoIterator<Item = &str>) -> anyhow::Result<Output> {
    let output = Command::new("helm").args(arguments).current_dir(root()).output().await;
    output.context("run helm: it is in the PATH that `eval \"$(make -s env)\"` sets")
}

fn said(output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
