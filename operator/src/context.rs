//! What every reconciliation works with.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::apikey::Pepper;
use kube::Client;
use kube::runtime::events::Recorder;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::{Backoff, jittered};
use crate::health::StoresUp;
use crate::metrics::OperatorMetrics;
use crate::plans::Plans;
use crate::provision::Stores;
use crate::settings::Settings;

/// Collaborators of the controllers and of the scaler.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The installation.
    pub settings: Settings,
    /// The plans as they are now; those in `settings` are the ones of the start.
    pub plans: watch::Receiver<Plans>,
    /// The stores.
    pub stores: Stores,
    /// Which stores answer.
    pub health: watch::Receiver<StoresUp>,
    /// The peppers, once the platform is set up; the first is the one for new keys.
    pub peppers: watch::Receiver<Vec<Pepper>>,
    /// Publishes Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: OperatorMetrics,
    /// Waits of failing Tenants.
    pub tenant_backoff: Backoff,
    /// Waits of failing LogPipelines.
    pub pipeline_backoff: Backoff,
    /// When each Tenant that is being deleted was first refused at ingest.
    pub refused_since: Since,
    /// Since when each LogPipeline that is being deleted has been needed by nobody.
    pub unneeded_since: Since,
}

/// Since when something has been true of an object, by its name.
#[derive(Default)]
pub struct Since(Mutex<HashMap<String, Instant>>);

impl Since {
    /// For how long; begins to count at the first call.
    pub fn elapsed(&self, name: &str) -> Duration {
        self.begun().entry(name.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    /// It is no longer true.
    pub fn end(&self, name: &str) {
        self.begun().remove(name);
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// When to look again at an object that is as it should be.
    pub fn resync(&self) -> Duration {
        jittered(Duration::from_secs(self.settings.resync_seconds))
    }

    /// Forgets a LogPipeline that is gone.
    pub fn forget_pipeline(&self, pipeline: &str) {
        self.unneeded_since.end(pipeline);
        self.pipeline_backoff.succeeded(pipeline);
    }

    /// Forgets a Tenant that is gone.
    pub fn forget_tenant(&self, tenant: &str) {
        self.refused_since.end(tenant);
        self.tenant_backoff.succeeded(tenant);
    }
}
