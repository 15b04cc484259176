//! The API is what its OpenAPI document says: schemathesis asks ingest, search and gateway on real stores, right and
//! wrong, and compares each answer with the document.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use crds::names::PROCESSOR_DATABASE;
use crds::tenant::Scope;
use dataplane::gateway::forward::Upstream;
use dataplane::gateway::{Gateway, Tails, router};
use dataplane::tenancy::{Peppers, Registry};
use testkit::chaos::house::{House as Roles, Plan};
use testkit::http::Door;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::house::{House, Served};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() -> anyhow::Result<()> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_loggerhub"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(testkit::unique("contract"));
    let roles =
        Roles::build(Plan { program, folder, seed: 1, lives: Vec::new(), flush_events: 100, small_disk: false })
            .await?;
    let tenant = &roles.tenants[0];
    let stores = roles.stores.clone();
    // To the readers, the key that sends may do everything.
    let mut registered = tenant.registered.clone();
    registered.keys[0].scopes = vec![Scope::Ingest, Scope::Query, Scope::Admin];
    let registry = Registry::fixed([registered], Peppers::new([testkit::tenant::pepper()]).context("a pepper")?);
    let settings = stores.as_data_role().await?;
    let pool = runtime::stores::postgres(&settings, &stores.tls, PROCESSOR_DATABASE, "loggerhub-test")?;
    let house = House { stores, registry, seats: Vec::new(), pool };
    let search = house.search().await?;
    let front = Served::start(router(Gateway {
        registry: house.registry.clone(),
        ingest: Upstream::new(&roles.ingest[0])?,
        search: Upstream::new(&search.url)?,
        tails: Tails::new(house.stores.cache()?),
        sockets: TaskTracker::new(),
        stop: CancellationToken::new(),
    }))
    .await?;
    // Something to be listed and read, of each kind.
    let door = Door::at(&front.url, &roles.ingest[0])?.with_key(&tenant.key);
    let sent = door.send_lines("{\"message\":\"first\"}\nbroken\n").await?;
    ensure!((sent.accepted, sent.rejected) == (1, 1), "{sent:?}");

    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/contract");
    let output = Command::new(contract)
        .arg(&front.url)
        .env("LOGGERHUB_KEY", &tenant.key)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}{log}");
    println!("{said}");
    roles.pull_down().await
}
