//! Why a look at a LogPipeline ended early.

use crds::LogPipeline;
use kube::ResourceExt;

/// Why a reconciliation ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API failed.
    #[error("{doing} of LogPipeline `{name}`")]
    Api {
        /// What we were doing.
        doing: &'static str,
        /// The pipeline.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
}

/// What failed of a pipeline.
pub(super) fn failed<'a>(doing: &'static str, pipeline: &'a LogPipeline) -> impl FnOnce(kube::Error) -> Error + 'a {
    move |source| Error::Api { doing, name: pipeline.name_any(), source: Box::new(source) }
}
