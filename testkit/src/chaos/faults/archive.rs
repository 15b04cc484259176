//! The object store: away, refusing, or silent about what it did.

use std::time::Duration;

use super::{Struck, break_by};
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::chaos::proxy::Mode;
use crate::stores::control::{Outage, Store};

/// Two passes of `maintain`.
const AWAY: Duration = Duration::from_secs(11);

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>";
const FULL: &str = "<Error><Code>XMinioStorageFull</Code><Message>the drive is full</Message></Error>";

pub(super) async fn stopped(load: &Load) -> anyhow::Result<Struck> {
    let outage = Outage::of(Store::Minio).await?;
    let before = load.sender.answers.accepted();
    tokio::time::sleep(AWAY).await;
    let accepted = load.sender.answers.accepted() - before;
    outage.end().await?;
    let mut struck = Struck::default();
    struck.note(accepted > 0, format!("{accepted} requests accepted meanwhile"));
    Ok(struck)
}

pub(super) async fn answers(house: &House, status: u16) -> anyhow::Result<Struck> {
    let mode = Mode::Answer(status, if status == 507 { FULL } else { SLOW_DOWN });
    break_by(&house.proxies.minio, mode, 6, &format!("requests answered {status}")).await
}

pub(super) async fn loses_answers(house: &House) -> anyhow::Result<Struck> {
    break_by(&house.proxies.minio, Mode::LoseAnswer, 4, "answers lost").await
}
