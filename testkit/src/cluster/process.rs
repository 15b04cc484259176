//! Ending a container's process from the node, with no chance to clean up.
//!
//! Kubernetes always asks politely first, and inside a container nothing can kill its first
//! process. So a test that needs `kill -9` looks for the process on the node itself, which for the
//! local stack is this machine.

use std::fs;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::process::Command;

/// Kills the pod's processes named `program` with SIGKILL.
pub async fn kill_9(pod: &Pod, program: &str) -> anyhow::Result<()> {
    let uid = pod.uid().context("the pod has no uid")?;
    let pids = pids_of(&uid, program)?;
    ensure!(
        !pids.is_empty(),
        "no process `{program}` of pod {} on this machine: this test runs on the cluster's only node",
        pod.name_any()
    );
    let status = Command::new("kill").arg("-KILL").args(pids.iter().map(u32::to_string)).status().await?;
    ensure!(status.success(), "kill -KILL {pids:?} failed");
    Ok(())
}

/// Processes of a pod are known by their cgroup, whose path holds the pod's uid (with `_` for `-`
/// under systemd).
fn pids_of(uid: &str, program: &str) -> anyhow::Result<Vec<u32>> {
    let escaped = uid.replace('-', "_");
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while we look at it.
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let cgroup = read("cgroup");
        if (cgroup.contains(uid) || cgroup.contains(&escaped)) && read("comm").trim_end() == program {
            pids.push(pid);
        }
    }
    Ok(pids)
}
