//! `loggerhub canary` with roles on real stores: its events go through ingest, queue and processor, and are
//! listed, found and shown live; and where one gets stuck, that stage and no other is named.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use crds::canary::{Report, RoundTrip, Stage, failure};
use crds::names::PROCESSOR_DATABASE;
use dataplane::tenancy::{Peppers, Registry};
use testkit::chaos::house::{House as Roles, Plan};
use testkit::eventually;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::gateway::gateway;
use crate::house::{House, Served, closed_port};

/// Longest wait for what takes a second on an idle machine.
const SOON: Duration = Duration::from_secs(90);

/// A canary that runs until it is dropped.
struct Canary {
    url: String,
    _process: Child,
}

impl Canary {
    async fn start(ingest: &str, front: &Served, credentials: &Path, timeout_seconds: u64) -> anyhow::Result<Self> {
        let address = closed_port().await?.to_string();
        let process = Command::new(env!("CARGO_BIN_EXE_loggerhub"))
            .args(["canary", "--admin-listen", &address, "--ingest-url", ingest, "--gateway-url", &front.url])
            .args(["--interval-seconds", "1", "--timeout-seconds", &timeout_seconds.to_string(), "--credentials"])
            .arg(credentials)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { url: format!("http://{address}"), _process: process })
    }

    /// Its first round trip that is like that.
    async fn round_trip(&self, what: &str, like: impl Fn(&RoundTrip) -> bool) -> anyhow::Result<RoundTrip> {
        eventually(what, SOON, async || {
            let report: Report = reqwest::get(format!("{}/canary", self.url)).await?.json().await?;
            let last = report.last.context("none has ended")?;
            ensure!(like(&last), "{last:?}");
            Ok(last)
        })
        .await
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        Ok(reqwest::get(format!("{}/metrics", self.url)).await?.text().await?)
    }
}

fn credentials(folder: &Path, key: &str) -> anyhow::Result<PathBuf> {
    let folder = folder.join(testkit::unique("key"));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("apiKey"), key)?;
    Ok(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_followed_through_every_stage_and_a_stuck_one_is_named() -> anyhow::Result<()> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_loggerhub"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(testkit::unique("canary"));
    let plan =
        Plan { program, folder: folder.clone(), seed: 1, lives: Vec::new(), flush_events: 100, small_disk: false };
    let roles = Roles::build(plan).await?;
    let (tenant, ingest) = (&roles.tenants[0], &roles.ingest[0]);
    let stores = roles.stores.clone();
    let peppers = Peppers::new([testkit::tenant::pepper()]).context("a pepper")?;
    let registry = Registry::fixed([tenant.registered.clone()], peppers);
    let settings = stores.as_data_role().await?;
    let pool = runtime::stores::postgres(&settings, &stores.tls, PROCESSOR_DATABASE, "loggerhub-test")?;
    let house = House { stores, registry, seats: Vec::new(), pool };
    let key = credentials(&folder, &format!("{}\n", tenant.key))?;
    let stop = CancellationToken::new();

    let search = house.search().await?;
    let front = gateway(&house, Some(&search), &stop).await?;
    let canary = Canary::start(ingest, &front, &key, 60).await?;
    let whole = canary.round_trip("an event goes the whole way", |last| failure(&last.stages).is_none()).await?;
    assert_eq!(whole.stages.iter().map(|one| one.stage).collect::<Vec<_>>(), Stage::ALL);
    let took = |stage: usize| whole.stages[stage].milliseconds;
    assert!(took(0).is_some() && (1..4).all(|stage| took(stage) >= took(0)), "{whole:?}");
    let metrics = canary.metrics().await?;
    for stage in Stage::ALL {
        let counted = format!("loggerhub_canary_stage_seconds_count{{stage=\"{}\"}} 0\n", stage.as_str());
        assert!(!metrics.contains(&counted), "{metrics}");
    }
    drop(canary);

    let without_index = house.search_without_index().await?;
    let front = gateway(&house, Some(&without_index), &stop).await?;
    let canary = Canary::start(ingest, &front, &key, 15).await?;
    let is_stuck = |last: &RoundTrip| failure(&last.stages).is_some_and(|(stage, _)| stage == Stage::Search);
    let stuck = canary.round_trip("the search is stuck", is_stuck).await?;
    assert_eq!(
        failure(&stuck.stages).map(|(_, why)| why),
        Some("not there in time: the scan answers in place of the index")
    );
    let failed: Vec<_> = stuck.stages.iter().filter(|one| one.error.is_some()).map(|one| one.stage).collect();
    assert_eq!(failed, [Stage::Search], "{stuck:?}");
    drop(canary);

    let wrong = credentials(&folder, "lh_0000000000000000_wrong")?;
    let canary = Canary::start(ingest, &front, &wrong, 15).await?;
    let refused = canary.round_trip("its key is refused", |last| last.stages.len() == 1).await?;
    let (stage, why) = failure(&refused.stages).context("it failed")?;
    assert!(stage == Stage::Accept && why.contains("invalid_api_key") && !why.contains("wrong"), "{why}");
    assert!(canary.metrics().await?.contains("loggerhub_canary_stage_seconds_count{stage=\"accept\"} 0\n"));
    roles.pull_down().await
}
