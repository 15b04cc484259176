//! PostgreSQL: killed, stopped, silent, cut off. Nothing is acknowledged without it, and ingest goes
//! on accepting.

use std::time::Duration;

use dataplane::queue::Lanes;

use super::Struck;
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::chaos::proxy::Proxy;
use crate::stores::control::{Outage, Store};

/// How long it stays away.
const AWAY: Duration = Duration::from_secs(6);
/// How long it answers nothing: longer than the 5 s for which a connection is waited for.
pub(super) const STALL: Duration = Duration::from_secs(8);
/// For how long and how often connections are cut: some land between a COMMIT and its answer.
const CUTTING: Duration = Duration::from_secs(6);
const CUT_EVERY: Duration = Duration::from_millis(70);

pub(super) async fn killed(load: &Load) -> anyhow::Result<Struck> {
    let mut struck = Struck::default();
    for _ in 0..2 {
        let outage = Outage::killed(Store::Postgres).await?;
        outage.end().await?;
        let before = load.sender.answers.accepted();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let accepted = load.sender.answers.accepted() - before;
        struck.note(accepted > 0, format!("{accepted} requests accepted after it"));
    }
    Ok(struck)
}

pub(super) async fn stopped(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let outage = Outage::of(Store::Postgres).await?;
    let mut struck = Struck::default();
    let waited = meanwhile(house, load, &mut struck).await;
    outage.end().await?;
    waited?;
    Ok(struck)
}

/// Watches that events wait, and that ingest goes on.
pub(super) async fn meanwhile(house: &House, load: &Load, struck: &mut Struck) -> anyhow::Result<()> {
    // What had been committed already may still be acknowledged.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, accepted) = (waiting(house).await?, load.sender.answers.accepted());
    tokio::time::sleep(AWAY).await;
    let (after, accepted) = (waiting(house).await?, load.sender.answers.accepted() - accepted);
    struck.note(accepted > 0, format!("{accepted} requests accepted meanwhile"));
    struck.note(after > before, format!("{before} and then {after} events waited"));
    Ok(())
}

async fn waiting(house: &House) -> anyhow::Result<u64> {
    let lanes = Lanes::new(&house.stores.queue()?)?.status(std::slice::from_ref(&house.pipeline), 0).await?;
    Ok(lanes.iter().map(|lane| lane.events).sum())
}

/// Cuts every connection through the proxy again and again.
pub(super) async fn cut(proxy: &Proxy) -> anyhow::Result<Struck> {
    let cuts = CUTTING.as_millis() / CUT_EVERY.as_millis();
    for _ in 0..cuts {
        tokio::time::sleep(CUT_EVERY).await;
        proxy.cut();
    }
    Ok(Struck { seen: vec![format!("cut {cuts} times")], ..Struck::default() })
}
