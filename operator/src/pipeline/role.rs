//! The roles of the data plane that pipelines run, and what tells one's objects from another's.

use std::collections::BTreeMap;

use crds::{LogPipeline, PIPELINE_LABEL, PipelineName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;

use crate::settings::Settings;

/// A role of the data plane that pipelines run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Stores and indexes what is in the queue.
    Processor,
    /// Takes events in.
    Ingest,
    /// Sends events and looks for them.
    Canary,
}

impl Role {
    /// Value of `app.kubernetes.io/component`.
    pub(super) fn component(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Ingest => "ingest",
            Self::Canary => "canary",
        }
    }

    /// Whether it follows the tenant registry. A canary knows its own tenant alone.
    pub(super) fn reads_registry(self) -> bool {
        self != Self::Canary
    }

    /// Subcommand of `loggerhub`.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Processor => "process",
            Self::Ingest => "ingest",
            Self::Canary => "canary",
        }
    }
}

/// Metadata of an object of a pipeline's.
pub(super) fn metadata(
    settings: &Settings,
    pipeline: &LogPipeline,
    name: &PipelineName,
    role: Role,
    object: String,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(object),
        namespace: Some(settings.namespace.clone()),
        labels: Some(labels(settings, name, role)),
        owner_references: pipeline.controller_owner_ref(&()).map(|owner| {
            // A deletion in the foreground would begin with the objects of a pipeline that is still needed.
            vec![OwnerReference { block_owner_deletion: None, ..owner }]
        }),
        ..ObjectMeta::default()
    }
}

pub(super) fn labels(settings: &Settings, name: &PipelineName, role: Role) -> BTreeMap<String, String> {
    let mut labels = selector(settings, name, role);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "loggerhub-operator".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "loggerhub".to_owned());
    if !settings.version.is_empty() {
        labels.insert("app.kubernetes.io/version".to_owned(), settings.version.clone());
    }
    labels
}

/// The labels that never change: a Deployment's selector can't.
pub(super) fn selector(settings: &Settings, name: &PipelineName, role: Role) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "loggerhub".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), settings.release.clone()),
        ("app.kubernetes.io/component".to_owned(), role.component().to_owned()),
        (PIPELINE_LABEL.to_owned(), name.to_string()),
    ])
}
