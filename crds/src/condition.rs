//! Conditions: their types, their reasons, and the one way to set them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;

/// Condition types of a Tenant and a LogPipeline.
pub mod types {
    /// Everything asked for is in place.
    pub const READY: &str = "Ready";
    /// The operator is still working towards the wanted state.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing more will happen until somebody changes something.
    pub const STALLED: &str = "Stalled";
    /// Tenant: registry row, schema, role and tables are in PostgreSQL.
    pub const DATABASE_READY: &str = "DatabaseReady";
    /// Tenant: bucket or prefix, lifecycle and tag are in the object store.
    pub const OBJECT_STORE_READY: &str = "ObjectStoreReady";
    /// Tenant: template, index and alias are in OpenSearch.
    pub const SEARCH_READY: &str = "SearchReady";
    /// Tenant: keys are issued, in their Secrets, and known to ingest.
    pub const CREDENTIALS_READY: &str = "CredentialsReady";
    /// Tenant: the pipeline that it names is there, and none of its events wait for one that is not.
    pub const PIPELINE_READY: &str = "PipelineReady";
    /// Tenant: events are kept for as long as the spec says, and not for longer.
    pub const RETENTION_APPLIED: &str = "RetentionApplied";
    /// Pipeline: the spec is one that we run.
    pub const ACCEPTED: &str = "Accepted";
    /// Pipeline: the operator can see the backlog and sets the number of processors.
    pub const SCALING_ACTIVE: &str = "ScalingActive";
    /// Pipeline: the canary's last event was accepted, listed, found and shown live in time.
    pub const CANARY_HEALTHY: &str = "CanaryHealthy";
}

/// Why a condition has its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema)]
pub enum Reason {
    /// Everything is in place.
    Provisioned,
    /// It is being put in place.
    Provisioning,
    /// A store is unreachable; the operator retries.
    BackendUnavailable,
    /// A store refused a request of the operator; the message says which.
    BackendRejected,
    /// Something with this name already exists and belongs to somebody else.
    OwnershipConflict,
    /// The operator may not write a Secret; the message has the command that allows it.
    SecretAccessDenied,
    /// The Secret of an existing key doesn't exist.
    SecretMissing,
    /// An existing key can't be used; the message says why.
    KeyRejected,
    /// The namespace of a Secret doesn't exist.
    NamespaceNotFound,
    /// `spec.plan` is not one of the installation's plans.
    UnknownPlan,
    /// `spec.pipelineRef` names a pipeline that doesn't exist.
    PipelineNotFound,
    /// Events wait for a pipeline that doesn't exist and that the Tenant no longer names.
    EventsHeld,
    /// `spec.retention` would remove data, and nobody has confirmed that.
    RetentionUnconfirmed,
    /// The spec is invalid; the message says where.
    InvalidSpec,
    /// `spec.stages` can't be run; the message says which stage, where and what to do.
    InvalidStages,
    /// A test in `spec.tests` fails; the message says which, what it expected, and what it got.
    TestsFailed,
    /// `spec.suspend` is set.
    Suspended,
    /// Reconciliation is paused by the annotation loggerhub.io/paused.
    Paused,
    /// It is being deleted: queued events are processed first.
    Draining,
    /// It is being deleted: keys and data are removed, or kept, as `deletionPolicy` says.
    Retiring,
    /// The deletion waits for something; the message says what.
    DeletionBlocked,
    /// The pipeline is outside the release's namespace.
    NamespaceNotAllowed,
    /// The spec is accepted.
    Accepted,
    /// Not all pods are available yet.
    WaitingForPods,
    /// The number of processors fits the backlog.
    Steady,
    /// The backlog needs more processors.
    ScalingUp,
    /// The backlog has needed fewer processors for long enough.
    ScalingDown,
    /// The backlog needs more processors than `maxReplicas`.
    AtMaxReplicas,
    /// Fewer processors are enough, but not yet for the stabilization window.
    Stabilizing,
    /// The backlog can't be read; the number of processors stays the same.
    BacklogUnavailable,
    /// Something else scales the processors (`scaling.mode: External`).
    External,
    /// The canary's last event reached all stages in time; the message says how long each took.
    RoundTripSucceeded,
    /// The canary's last event got stuck; the message says at which stage.
    RoundTripFailed,
    /// The canary can't be reached, or has sent nothing for too long.
    CanaryUnavailable,
}

impl Reason {
    /// The reason as it stands in a condition: its variant's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioned => "Provisioned",
            Self::Provisioning => "Provisioning",
            Self::BackendUnavailable => "BackendUnavailable",
            Self::BackendRejected => "BackendRejected",
            Self::OwnershipConflict => "OwnershipConflict",
            Self::SecretAccessDenied => "SecretAccessDenied",
            Self::SecretMissing => "SecretMissing",
            Self::KeyRejected => "KeyRejected",
            Self::NamespaceNotFound => "NamespaceNotFound",
            Self::UnknownPlan => "UnknownPlan",
            Self::PipelineNotFound => "PipelineNotFound",
            Self::EventsHeld => "EventsHeld",
            Self::RetentionUnconfirmed => "RetentionUnconfirmed",
            Self::InvalidSpec => "InvalidSpec",
            Self::InvalidStages => "InvalidStages",
            Self::TestsFailed => "TestsFailed",
            Self::Suspended => "Suspended",
            Self::Paused => "Paused",
            Self::Draining => "Draining",
            Self::Retiring => "Retiring",
            Self::DeletionBlocked => "DeletionBlocked",
            Self::NamespaceNotAllowed => "NamespaceNotAllowed",
            Self::Accepted => "Accepted",
            Self::WaitingForPods => "WaitingForPods",
            Self::Steady => "Steady",
            Self::ScalingUp => "ScalingUp",
            Self::ScalingDown => "ScalingDown",
            Self::AtMaxReplicas => "AtMaxReplicas",
            Self::Stabilizing => "Stabilizing",
            Self::BacklogUnavailable => "BacklogUnavailable",
            Self::External => "External",
            Self::RoundTripSucceeded => "RoundTripSucceeded",
            Self::RoundTripFailed => "RoundTripFailed",
            Self::CanaryUnavailable => "CanaryUnavailable",
        }
    }
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The condition holds.
    True,
    /// It does not.
    False,
    /// It can't be told.
    Unknown,
}

impl Status {
    /// As it stands in a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What was found out about one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of [`types`].
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person; cut at [`MAX_MESSAGE_LENGTH`].
    pub message: String,
}

/// Longest message kept in a condition, in bytes: an Event's note takes no more either.
pub const MAX_MESSAGE_LENGTH: usize = 1024;

/// Sets one condition, keeping `lastTransitionTime` unless its status changed. Other conditions
/// stay as they are.
pub fn set(conditions: &mut Vec<Condition>, finding: Finding, generation: Option<i64>, now: Time) {
    let status = finding.status.as_str();
    let mut message = finding.message;
    if message.len() > MAX_MESSAGE_LENGTH {
        let end = (0..=MAX_MESSAGE_LENGTH).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    let previous = conditions.iter().position(|condition| condition.type_ == finding.type_);
    let since = previous
        .map(|at| &conditions[at])
        .filter(|condition| condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: finding.type_.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.as_str().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.unwrap_or(now),
    };
    match previous {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: Status, message: &str) -> Finding {
        Finding { type_: types::READY, status, reason: Reason::Provisioned, message: message.into() }
    }

    fn at(second: i64) -> Time {
        serde_json::from_value(format!("2026-01-01T00:00:{second:02}Z").into()).unwrap()
    }

    #[test]
    fn the_transition_time_changes_with_the_status_only() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(Status::False, "a"), Some(1), at(1));
        set(&mut conditions, ready(Status::False, "b"), Some(2), at(2));
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert_eq!((conditions[0].message.as_str(), conditions[0].observed_generation), ("b", Some(2)));
        set(&mut conditions, ready(Status::True, "c"), Some(2), at(3));
        assert_eq!(conditions[0].last_transition_time, at(3));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(Status::True, &"é".repeat(600)), None, at(1));
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE_LENGTH);
        set(&mut conditions, ready(Status::True, &format!("x{}", "é".repeat(600))), None, at(1));
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE_LENGTH - 1);
    }
}
