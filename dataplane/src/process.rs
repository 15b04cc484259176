//! The role `process`.

use clap::Args;
use tokio_util::sync::CancellationToken;

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {}

/// Runs until `stop`.
pub async fn run(_settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    stop.cancelled().await;
    Ok(())
}
