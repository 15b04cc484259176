//! Metrics in Prometheus's text form, from one registry a process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;

/// The process's registry. Cheap to clone; metrics themselves are registered once, at start.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// The registry, to register metrics in. Names begin with `loggerhub_`, units stand in names.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to `GET /metrics`.
    pub fn response(&self) -> Response {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry()) {
            Ok(()) => {
                ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
            }
            Err(error) => {
                (axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}")).into_response()
            }
        }
    }
}
