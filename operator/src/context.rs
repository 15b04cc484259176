//! What every reconciliation works with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
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
    pub refused_since: Mutex<HashMap<String, Instant>>,
    /// Since when each LogPipeline that is being deleted has been needed by nobody.
    pub unneeded_since: Mutex<HashMap<String, Instant>>,
}

impl Context {
    /// When to look again at an object that is as it should be.
    pub fn resync(&self) -> Duration {
        jittered(Duration::from_secs(self.settings.resync_seconds))
    }

    /// How long a Tenant under deletion has been refused at ingest; begins to count at the first call.
    pub fn refused_for(&self, tenant: &str) -> Duration {
        let mut refused = self.refused_since.lock().unwrap_or_else(PoisonError::into_inner);
        refused.entry(tenant.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    /// How long a LogPipeline under deletion has been needed by nobody; begins anew whenever somebody needs it.
    pub fn unneeded_for(&self, pipeline: &str, needed: bool) -> Duration {
        let mut unneeded = self.unneeded_since.lock().unwrap_or_else(PoisonError::into_inner);
        if needed {
            unneeded.remove(pipeline);
            return Duration::ZERO;
        }
        unneeded.entry(pipeline.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    /// Forgets a LogPipeline that is gone.
    pub fn forget_pipeline(&self, pipeline: &str) {
        self.unneeded_since.lock().unwrap_or_else(PoisonError::into_inner).remove(pipeline);
        self.pipeline_backoff.succeeded(pipeline);
    }

    /// Forgets a Tenant that is gone.
    pub fn forget_tenant(&self, tenant: &str) {
        self.refused_since.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
        self.tenant_backoff.succeeded(tenant);
    }
}
