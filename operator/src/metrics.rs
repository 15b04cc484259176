//! The operator's own metrics. Labels come from closed sets; pipelines are few and the platform's own.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Controller {
    /// Of Tenants.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    tenant,
    /// Of LogPipelines.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    pipeline,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ending {
    /// All is as it should be.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    success,
    /// To be looked at again soon: something is missing or going on.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    requeue,
    /// The Kubernetes API failed us.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    error,
}

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Store {
    /// PostgreSQL.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    postgres,
    /// The object store.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    s3,
    /// OpenSearch.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    opensearch,
    /// The queue's Redis.
    #[expect(non_camel_case_types, reason = "label values are lower case")]
    redis,
}

/// Labels of a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    controller: Controller,
    result: Ending,
}

/// Label of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabel {
    controller: Controller,
}

/// Label of a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabel {
    store: Store,
}

/// Label of a store that was repaired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabel {
    backend: Store,
}

/// Label of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LeaseLabel {
    name: String,
}

/// Label of what is wrong: the reason of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: String,
}

/// Label of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PipelineLabel {
    pipeline: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// All of them.
#[derive(Clone)]
pub struct OperatorMetrics {
    reconciles: Family<ReconcileLabels, Counter>,
    errors: Family<ControllerLabel, Counter>,
    times: Family<ControllerLabel, Histogram>,
    ready_times: Histogram,
    deletion_times: Histogram,
    drift: Family<BackendLabel, Counter>,
    leads: Family<LeaseLabel, Gauge>,
    stores: Family<StoreLabel, Gauge>,
    backlog: Family<PipelineLabel, Gauge>,
    oldest: Family<PipelineLabel, Seconds>,
    drained_in: Family<PipelineLabel, Seconds>,
    desired: Family<PipelineLabel, Gauge>,
    at_most: Family<PipelineLabel, Gauge>,
    not_ready: Family<ReasonLabel, Gauge>,
    aside: Gauge,
    missing: Gauge,
    unconfirmed: Gauge,
    forged: Counter,
}

impl OperatorMetrics {
    /// Registers all of them.
    pub fn register(metrics: &runtime::metrics::Metrics) -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.01, 2.0, 16));
        let all = Self {
            reconciles: Family::default(),
            errors: Family::default(),
            times: Family::new_with_constructor(histogram),
            ready_times: histogram(),
            deletion_times: histogram(),
            drift: Family::default(),
            leads: Family::default(),
            stores: Family::default(),
            backlog: Family::default(),
            oldest: Family::default(),
            drained_in: Family::default(),
            desired: Family::default(),
            at_most: Family::default(),
            not_ready: Family::default(),
            aside: Gauge::default(),
            missing: Gauge::default(),
            unconfirmed: Gauge::default(),
            forged: Counter::default(),
        };
        let mut registry = metrics.registry();
        registry.register("controller_runtime_reconcile", "Reconciliations", all.reconciles.clone());
        registry.register("controller_runtime_reconcile_errors", "Failed reconciliations", all.errors.clone());
        registry.register("controller_runtime_reconcile_time_seconds", "Time of a reconciliation", all.times.clone());
        registry.register(
            "loggerhub_tenant_time_to_ready_seconds",
            "From a Tenant's creation to its first Ready",
            all.ready_times.clone(),
        );
        registry.register(
            "loggerhub_tenant_deletion_seconds",
            "From a Tenant's deletion to its end",
            all.deletion_times.clone(),
        );
        registry.register("loggerhub_tenant_drift_corrections", "Repairs of what was provisioned", all.drift.clone());
        registry.register("leader_election_master_status", "Whether this operator leads", all.leads.clone());
        registry.register("loggerhub_store_up", "Whether a store answers", all.stores.clone());
        registry.register("loggerhub_pipeline_backlog_events", "Events that wait", all.backlog.clone());
        registry.register("loggerhub_pipeline_oldest_age_seconds", "Age of the oldest entry", all.oldest.clone());
        registry.register(
            "loggerhub_pipeline_drained_in_seconds",
            "Time until nothing waits, if things go on as in the last minute; +Inf while the backlog does not fall",
            all.drained_in.clone(),
        );
        registry.register("loggerhub_pipeline_desired_replicas", "Processors asked for", all.desired.clone());
        registry.register(
            "loggerhub_pipeline_at_max_replicas",
            "Whether the backlog asks for more than maxReplicas",
            all.at_most.clone(),
        );
        registry.register("loggerhub_tenants_not_ready", "Tenants that are not Ready", all.not_ready.clone());
        registry.register(
            "loggerhub_operator_stands_aside",
            "Whether these stores are another cluster's or installation's, so that nothing is done",
            all.aside.clone(),
        );
        registry.register(
            "loggerhub_tenants_missing",
            "Tenants that the registry holds and the cluster does not",
            all.missing.clone(),
        );
        registry.register(
            "loggerhub_tenants_missing_unconfirmed",
            "Of those: more than go at once by themselves, so that somebody has to say that they are gone",
            all.unconfirmed.clone(),
        );
        registry.register(
            "loggerhub_forged_keys",
            "Keys found in the registry that LoggerHub did not issue, and removed",
            all.forged.clone(),
        );
        drop(registry);
        all
    }

    /// Counts a reconciliation.
    pub fn reconciled(&self, controller: Controller, result: Ending, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, result }).inc();
        if result == Ending::error {
            self.errors.get_or_create(&ControllerLabel { controller }).inc();
        }
        self.times.get_or_create(&ControllerLabel { controller }).observe(took.as_secs_f64());
    }

    /// A Tenant became Ready for the first time.
    pub fn became_ready(&self, after: Duration) {
        self.ready_times.observe(after.as_secs_f64());
    }

    /// A Tenant's deletion ended.
    pub fn deleted(&self, after: Duration) {
        self.deletion_times.observe(after.as_secs_f64());
    }

    /// Something that had been in place was put back.
    pub fn drift_corrected(&self, store: Store) {
        self.drift.get_or_create(&BackendLabel { backend: store }).inc();
    }

    /// Whether this operator holds the lease.
    pub fn leads(&self, lease: &str, leads: bool) {
        self.leads.get_or_create(&LeaseLabel { name: lease.to_owned() }).set(i64::from(leads));
    }

    /// Whether a store answers.
    pub fn store_up(&self, store: Store, up: bool) {
        self.stores.get_or_create(&StoreLabel { store }).set(i64::from(up));
    }

    /// What waits in a pipeline, and for how long still: none if no end is in sight.
    pub fn backlog(&self, pipeline: &str, events: i64, oldest_age: Duration, drained_in: Option<Duration>) {
        let label = PipelineLabel { pipeline: pipeline.to_owned() };
        self.backlog.get_or_create(&label).set(events);
        self.oldest.get_or_create(&label).set(oldest_age.as_secs_f64());
        self.drained_in.get_or_create(&label).set(drained_in.map_or(f64::INFINITY, |time| time.as_secs_f64()));
    }

    /// How many processors a pipeline is to have.
    pub fn desired_replicas(&self, pipeline: &str, replicas: i32) {
        self.desired.get_or_create(&PipelineLabel { pipeline: pipeline.to_owned() }).set(i64::from(replicas));
    }

    /// Whether a pipeline's backlog asks for more processors than it may have.
    pub fn at_max_replicas(&self, pipeline: &str, at_most: bool) {
        self.at_most.get_or_create(&PipelineLabel { pipeline: pipeline.to_owned() }).set(i64::from(at_most));
    }

    /// How many Tenants are not Ready for this reason.
    pub fn tenants_not_ready(&self, reason: &str, tenants: i64) {
        self.not_ready.get_or_create(&ReasonLabel { reason: reason.to_owned() }).set(tenants);
    }

    /// Whether the stores are another's.
    pub fn stands_aside(&self, aside: bool) {
        self.aside.set(i64::from(aside));
    }

    /// How many Tenants are missing, and how many of them wait for somebody's word.
    pub fn tenants_missing(&self, missing: usize, unconfirmed: usize) {
        let number = |tenants: usize| i64::try_from(tenants).unwrap_or(i64::MAX);
        self.missing.set(number(missing));
        self.unconfirmed.set(number(unconfirmed));
    }

    /// Keys were found in the registry that nobody issued.
    pub fn keys_forged(&self, keys: usize) {
        self.forged.inc_by(keys as u64);
    }

    /// Forgets a pipeline that is gone.
    pub fn forget_pipeline(&self, pipeline: &str) {
        let label = PipelineLabel { pipeline: pipeline.to_owned() };
        self.backlog.remove(&label);
        self.oldest.remove(&label);
        self.drained_in.remove(&label);
        self.desired.remove(&label);
        self.at_most.remove(&label);
    }
}
