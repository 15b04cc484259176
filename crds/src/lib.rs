//! What the operator and the data plane agree on: the two resources, the names of everything in
//! the stores, the API key, and the registry that carries tenants from one to the other.
//!
//! The operator and the data plane never import each other; this crate is where they meet.

#![allow(unreachable_pub, reason = "kube's KubeSchema derive repeats each struct inside a function")]

pub mod tenant;
pub mod pipeline;
pub mod stage;
pub mod quota;
pub mod condition;
pub mod names;
pub mod apikey;
pub mod registry;
pub mod signature;
pub mod canary;
pub mod reference;

pub use names::{PipelineName, TenantName};
pub use pipeline::{LogPipeline, LogPipelineSpec, LogPipelineStatus};
pub use tenant::{Tenant, TenantSpec, TenantStatus};

/// API group of every LoggerHub resource; also the prefix of our labels and annotations.
pub const GROUP: &str = "loggerhub.io";

/// Annotation: `"true"` stops the reconciliation of one object.
pub const PAUSED_ANNOTATION: &str = "loggerhub.io/paused";
/// Annotation: a new value asks for a reconciliation now; echoed in `status.lastHandledReconcileAt`.
pub const RECONCILE_REQUESTED_AT_ANNOTATION: &str = "loggerhub.io/reconcile-requested-at";
/// Annotation: `"true"` lets a Tenant take over backends that another installation's marker owns.
pub const ADOPT_ANNOTATION: &str = "loggerhub.io/adopt";
/// Annotation: `<names>@<nonce>` asks for new keys; names are separated by commas, `*` is every
/// generated key. A nonce is carried out once for each key; echoed in `status.lastHandledKeyRotation`.
pub const ROTATE_KEYS_ANNOTATION: &str = "loggerhub.io/rotate-keys";
/// Annotation: a Tenant's name confirms that deleting it is to remove its data (`deletionPolicy: Delete`); a
/// LogPipeline's name, that it is to go although Tenants use it or events wait for it.
pub const CONFIRM_DELETE_ANNOTATION: &str = "loggerhub.io/confirm-delete";
/// Annotation: the days of `spec.retention.totalDays`, where they are fewer than before, confirm that what is older
/// is to be removed.
pub const CONFIRM_RETENTION_ANNOTATION: &str = "loggerhub.io/confirm-retention";
/// Annotation: `"true"` lets a Tenant under deletion go at once, whatever is left in the stores.
pub const FORCE_FINALIZE_ANNOTATION: &str = "loggerhub.io/force-finalize";
/// Label on every object that belongs to one Tenant; the value is the Tenant's name.
pub const TENANT_LABEL: &str = "loggerhub.io/tenant";
/// Label on every object that belongs to one LogPipeline; the value is the pipeline's name.
pub const PIPELINE_LABEL: &str = "loggerhub.io/pipeline";
/// Finalizer that holds a Tenant until its stores are retired.
pub const TENANT_FINALIZER: &str = "loggerhub.io/tenant-cleanup";
/// Annotation of a pipeline's processors: the spec that was accepted last, and its generation.
pub const ACCEPTED_SPEC_ANNOTATION: &str = "loggerhub.io/accepted-spec";
/// Finalizer that holds a LogPipeline while Tenants use it or events wait for it; `default` has none.
pub const PIPELINE_FINALIZER: &str = "loggerhub.io/pipeline-cleanup";
