//! The fault matrix: a 202 is a promise, whatever happens.
//!
//! ```text
//!  for each fault:  a house (tenants, Redis, proxies, roles) ─► load with a ledger ─► the fault, undone
//!                   ─► quiet: queue empty, everything indexed and archived ─► audit of every store
//! ```
//! Faults that touch nothing but their own house run beside each other; the others one by one.

pub mod children;
pub mod faults;
pub mod house;
pub mod load;
pub mod proxy;
pub mod redis_server;
pub mod report;
pub mod requests;
pub mod small_disk;

pub use faults::Fault;
pub use report::{Outcome, Report};

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;

use crate::ledger::audit::{Audit, Invariant, Promise, audit};
use crate::ledger::journal::Fate;
use faults::Struck;
use house::{House, Plan};
use load::Load;

/// Load before a fault strikes, and after it is undone: some requests of each kind.
const WARM_UP: Duration = Duration::from_millis(1500);
/// Longest time of a fault between its first strike and its end; every wait inside is shorter.
const LONGEST_STRIKE: Duration = Duration::from_secs(240);

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program as it is shipped.
    pub program: PathBuf,
    /// The same with fail points; without it, faults that need them fail.
    pub fail_points: Option<PathBuf>,
    /// Where logs, ledgers and the summary go.
    pub folder: PathBuf,
    /// Where all chance comes from.
    pub seed: u64,
    /// Faults beside each other, as far as they don't touch common servers.
    pub at_once: usize,
}

/// Runs the faults, telling each outcome as it comes.
pub async fn run(settings: &Settings, faults: &[Fault], mut tell: impl FnMut(&Outcome)) -> anyhow::Result<Report> {
    let (alone, together): (Vec<Fault>, Vec<Fault>) = faults.iter().partition(|fault| fault.needs_the_servers_alone());
    let mut report = Report { seed: settings.seed, outcomes: Vec::new() };
    for (faults, at_once) in [(together, settings.at_once.max(1)), (alone, 1)] {
        let mut running = futures::stream::iter(faults)
            .map(|fault| async move { outcome(settings, fault).await })
            .buffer_unordered(at_once);
        while let Some(outcome) = running.next().await {
            tell(&outcome);
            report.outcomes.push(outcome);
        }
    }
    Ok(report)
}

/// One fault from an empty house to its audit. What fails on the way is a failure of the fault.
async fn outcome(settings: &Settings, fault: Fault) -> Outcome {
    let begun = Instant::now();
    let (audit, seen) = match try_fault(settings, fault).await {
        Ok(done) => done,
        Err(error) => {
            let mut audit = Audit::default();
            audit.problem(Invariant::AsExpected, || format!("{error:#}"));
            (audit, Vec::new())
        }
    };
    Outcome { fault: fault.name(), audit, seen, seconds: begun.elapsed().as_secs() }
}

async fn try_fault(settings: &Settings, fault: Fault) -> anyhow::Result<(Audit, Vec<String>)> {
    let program = if fault.needs_fail_points() {
        settings.fail_points.clone().context("a program with fail points is needed: `make chaos` builds it")?
    } else {
        settings.program.clone()
    };
    let plan = Plan {
        program,
        folder: settings.folder.join(fault.name().replace([' ', '(', ')'], "-")),
        seed: settings.seed ^ u64::from(crc32c::crc32c(fault.name().as_bytes())),
        lives: fault.lives(),
        flush_events: 500,
        small_disk: fault.needs_a_small_disk(),
    };
    let house = House::build(plan).await.context("build the house")?;
    let checked = strike_and_check(fault, &house).await;
    let pulled_down = house.pull_down().await.context("pull the house down");
    let (mut audit, seen) = checked?;
    if let Err(error) = pulled_down {
        audit.problem(Invariant::AsExpected, || format!("{error:#}"));
    }
    Ok((audit, seen))
}

async fn strike_and_check(fault: Fault, house: &House) -> anyhow::Result<(Audit, Vec<String>)> {
    let load = Load::start(house, fault.shape())?;
    tokio::time::sleep(WARM_UP).await;
    let struck = match tokio::time::timeout(LONGEST_STRIKE, fault.strike(house, &load)).await {
        Ok(struck) => struck.context("strike"),
        Err(_) => Err(anyhow::anyhow!("the fault did not end within {LONGEST_STRIKE:?}")),
    };
    house.mend().await.context("undo the fault")?;
    tokio::time::sleep(WARM_UP).await;
    let answers = std::sync::Arc::clone(&load.sender.answers);
    let requests = load.end().await.context("end the load")?;

    let mut problems = Audit::default();
    if let Err(error) = house.drained().await {
        problems.problem(Invariant::QueueEmpty, || format!("{error:#}"));
    }
    if let Err(error) = house.settled().await {
        problems.problem(Invariant::AcceptedOnce, || format!("{error:#}"));
    }
    let Struck { mut seen, wrong, promises: by_hand } =
        struck.unwrap_or_else(|error| Struck { wrong: vec![format!("{error:#}")], ..Struck::default() });
    let fates = house.journal.fates()?;
    let promises = requests.into_iter().map(|request| Promise {
        request: request.number,
        tenant: request.tenant,
        fate: fates.get(&request.number).copied().unwrap_or(Fate::Refused),
        lines: request.lines.into_iter().map(|line| (line.bytes, line.broken)).collect(),
    });
    let promises: Vec<Promise> = promises.chain(by_hand).collect();
    let mut audit = audit(&promises, &house.contents().await.context("read the stores")?);
    audit.problems.extend(problems.problems);
    for wrong in wrong {
        audit.problem(Invariant::AsExpected, || wrong);
    }
    seen.push(format!(
        "{} requests accepted, {} refused, {} unknown, {} sent again",
        answers.accepted(),
        answers.refused(),
        answers.unknown(),
        answers.resent()
    ));
    Ok((audit, seen))
}
