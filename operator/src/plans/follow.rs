//! The plans of the settings file, read again when it changes.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Plans;
use crate::settings::Settings;

/// Time between two looks at the settings file: a read of some kilobytes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Publishes the plans of the settings file whenever they are others. A file that can't be read, as
/// while it is being replaced, changes nothing.
pub async fn follow(file: PathBuf, plans: watch::Sender<Plans>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        match Settings::read(&file) {
            Ok(settings) => {
                let changed = plans.send_if_modified(|known| {
                    let other = *known != settings.plans;
                    *known = settings.plans;
                    other
                });
                if changed {
                    tracing::info!("the plans have changed");
                }
            }
            Err(error) => tracing::debug!("look for changed plans: {error:#}"),
        }
    }
}
