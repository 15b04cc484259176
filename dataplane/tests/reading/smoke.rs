//! `loggerhub smoke` with roles on real stores: its event goes through ingest, queue and processor, and
//! is found.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use crds::names::PROCESSOR_DATABASE;
use dataplane::tenancy::{Peppers, Registry};
use testkit::chaos::house::{House as Roles, Plan};
use tokio::process::Command;

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn the_event_of_a_smoke_test_is_found() -> anyhow::Result<()> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_loggerhub"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(testkit::unique("smoke"));
    let plan = Plan {
        program: program.clone(),
        folder: folder.clone(),
        seed: 1,
        lives: Vec::new(),
        flush_events: 100,
        small_disk: false,
    };
    let roles = Roles::build(plan).await?;
    let tenant = &roles.tenants[0];

    let stores = roles.stores.clone();
    let peppers = Peppers::new([testkit::tenant::pepper()]).context("a pepper")?;
    let registry = Registry::fixed([tenant.registered.clone()], peppers);
    let settings = stores.as_data_role().await?;
    let pool = runtime::stores::postgres(&settings, &stores.tls, PROCESSOR_DATABASE, "loggerhub-test")?;
    let search = House { stores, registry, seats: Vec::new(), pool }.search().await?;

    let key = folder.join("key");
    std::fs::write(&key, format!("{}\n", tenant.key))?;
    let output = Command::new(program)
        .args(["smoke", "--ingest-url", &roles.ingest[0], "--url", &search.url, "--key-file"])
        .arg(key)
        .stdin(Stdio::null())
        .output()
        .await?;
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{log}");
    assert!(said.starts_with("accepted after ") && said.contains(" ms, found after "), "{said}");
    assert!(!log.contains(&tenant.key), "{log}");
    roles.pull_down().await
}
