//! `kubectl loggerhub` as a person uses it: a kubeconfig and nothing else, through the API server.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use api::event::Listing;
use api::tail::TailEvent;
use serde_json::{Value, json};
use testkit::eventually;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::stage::{LATER, SOON, Stage};

/// The plugin, which is built beside these tests.
fn plugin(line: &str) -> anyhow::Result<Command> {
    let here = std::env::current_exe()?;
    let folder = here.ancestors().nth(2).context("the tests lie in target/debug/deps")?;
    let program: PathBuf = folder.join("kubectl-loggerhub");
    ensure!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
    let mut command = Command::new(program);
    command.args(line.split(' ')).env_remove("LOGGERHUB_URL").env_remove("LOGGERHUB_API_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn printed(line: &str) -> anyhow::Result<String> {
    let ended = plugin(line)?.output().await?;
    let (out, said) = (String::from_utf8(ended.stdout)?, String::from_utf8_lossy(&ended.stderr).into_owned());
    ensure!(ended.status.success(), "{line}: {} {out} {said}", ended.status);
    Ok(out)
}

#[tokio::test]
async fn a_person_with_a_kubeconfig_sees_tenants_events_and_lanes() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let mut acme = stage.tenant("kubectl").await?;
    let name = acme.name.clone();
    let tenants = printed("tenants").await?;
    let row = tenants.lines().find(|line| line.starts_with(&name)).context("the tenant's row")?;
    ensure!(row.contains("True"), "{row}");
    let lanes: Vec<Value> = serde_json::from_str(&printed("backlog -o json").await?)?;
    ensure!(lanes.iter().any(|lane| lane["name"] == "default" && lane["scalingActive"] == "True"), "{lanes:?}");

    // What is sent until the tail stands is not shown: send until something is.
    let mut tail = plugin(&format!("tail {name} -o json"))?.spawn()?;
    let mut lines = BufReader::new(tail.stdout.take().context("its output")?).lines();
    let shown = tokio::spawn(async move { lines.next_line().await });
    let mut sent = 0;
    eventually("the tail shows an event", SOON, || {
        let (first, over) = (sent, shown.is_finished());
        sent += u64::from(!over);
        let door = acme.door.clone();
        async move {
            if !over {
                door.send_json(&json!({"service": "story", "message": format!("event {first} for kubectl")})).await?;
            }
            ensure!(over, "nothing yet");
            Ok(())
        }
    })
    .await?;
    let event: TailEvent<'_> = serde_json::from_str(&shown.await??.context("the tail ended")?)?;
    ensure!(event.service == "story", "{event:?}");
    tail.kill().await?;

    eventually("the search finds them", SOON, || async {
        let found: Listing =
            serde_json::from_str(&printed(&format!("search {name} kubectl -o json --limit 500")).await?)?;
        ensure!(found.items.len() == usize::try_from(sent)?, "{found:?}");
        Ok(())
    })
    .await?;
    let refused = plugin(&format!("dead-letters purge {name} --all"))?.output().await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("keys issue"), "no key may purge: {said}");

    acme.send_numbered(0, 10).await?;
    let verified = eventually("the stores agree", LATER, || async {
        printed(&format!("verify {name} --timeout 2m -o json")).await
    })
    .await?;
    let report: Value = serde_json::from_str(&verified)?;
    ensure!(report["tenant"] == name.as_str(), "{report}");
    stage.clear(&acme).await
}

#[tokio::test]
async fn a_key_is_issued_and_revoked_by_kubectl() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let acme = stage.tenant("kubectl").await?;
    let name = &acme.name;
    printed(&format!("keys issue {name} admin --scope Admin --secret {name}/admin-key")).await?;
    let purged = printed(&format!("dead-letters purge {name} --all -o json")).await?;
    ensure!(purged.contains("\"purged\": 0"), "{purged}");
    printed(&format!("keys revoke {name} admin")).await?;
    stage.clear(&acme).await
}
