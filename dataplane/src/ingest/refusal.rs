//! Every way in which ingest refuses a request, as a status and a stable code.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use runtime::http::refusal;

use super::quota::Exceeded;
use crate::queue::{Overloaded, SendError};
use crate::tenancy::AuthError;

/// Why nothing of a request was kept. The text never repeats what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the parameter atomic is true or false, once")]
    InvalidAtomic,
    #[error("event {index} is not valid: {reason}")]
    InvalidJson { index: usize, reason: String },
    #[error("the body holds no event")]
    EmptyBatch,
    #[error("event {index} is nested deeper than {limit} levels")]
    TooDeep { index: usize, limit: usize },
    #[error("event {index} is too large: {reason}")]
    EventTooLarge { index: usize, reason: String },
    #[error("the body holds more than {limit} events; send several bodies", limit = super::parse::MAX_EVENTS)]
    TooManyEvents,
    #[error("the body is longer than {limit} bytes; send several", limit = super::body::MAX_BYTES)]
    BodyTooLarge,
    #[error("the body is longer than {limit} bytes once decompressed; send several", limit = super::body::MAX_BYTES)]
    DecompressedTooLarge,
    #[error("the body did not arrive within {seconds} s")]
    BodyTimeout { seconds: u64 },
    #[error("the body ended early")]
    BodyIncomplete,
    #[error("use one Content-Encoding of gzip, zstd or identity")]
    UnsupportedEncoding,
    #[error("the body is not what its Content-Encoding says, or ends early, or something else follows it")]
    NotAsEncoded,
    #[error("use the Content-Type application/json or application/x-ndjson")]
    UnsupportedContentType,
    #[error("use one Idempotency-Key of 1 to 255 visible ASCII characters")]
    InvalidIdempotencyKey,
    #[error("{}", reused(*kept))]
    IdempotencyKeyReused { kept: bool },
    #[error("the queue can't be reached right now, and the events may or may not be kept; send them again")]
    QueueUnavailable,
    #[error("the queue has fewer replicas than a 202 promises, and the events may or may not be kept; send them again")]
    TooFewReplicas,
    #[error("the queue is full; send again later")]
    QueueFull,
    #[error("the tenant's share of the queue is full: its events wait to be processed; send again later")]
    TenantQueueFull,
    #[error("too much is in flight, of this tenant or of all; send again later")]
    Overloaded,
    #[error(transparent)]
    QuotaExceeded(#[from] Exceeded),
}

impl Refusal {
    /// The status and the stable code.
    pub(super) fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Auth(AuthError::NotLoaded) => (StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"),
            Self::Auth(error) => error.code(),
            Self::InvalidAtomic => (StatusCode::BAD_REQUEST, "invalid_parameter"),
            Self::InvalidJson { .. } => (StatusCode::BAD_REQUEST, "invalid_json"),
            Self::EmptyBatch => (StatusCode::BAD_REQUEST, "empty_batch"),
            Self::TooDeep { .. } => (StatusCode::BAD_REQUEST, "too_deep"),
            Self::EventTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "event_too_large"),
            Self::TooManyEvents => (StatusCode::PAYLOAD_TOO_LARGE, "too_many_events"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::DecompressedTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "decompressed_too_large"),
            Self::BodyTimeout { .. } => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::BodyIncomplete => (StatusCode::BAD_REQUEST, "body_incomplete"),
            Self::UnsupportedEncoding | Self::NotAsEncoded => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding")
            }
            Self::UnsupportedContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type"),
            Self::InvalidIdempotencyKey => (StatusCode::BAD_REQUEST, "invalid_idempotency_key"),
            Self::IdempotencyKeyReused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::QueueUnavailable | Self::TooFewReplicas => (StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"),
            Self::QuotaExceeded(_) => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
            Self::QueueFull | Self::TenantQueueFull => (StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        }
    }

    /// Whether what was sent is at fault, and not what we have room for.
    pub(super) fn is_the_senders(&self) -> bool {
        let (status, _) = self.code();
        status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
    }

    /// Seconds after which to send again: a round of the queue for an overload, about the time
    /// that processors need to make room for a full one, when a quota has enough again.
    fn retry_after(&self) -> Option<u64> {
        match (self, self.code()) {
            (Self::QuotaExceeded(exceeded), _) => Some(exceeded.retry_after_seconds()),
            (_, (_, "queue_full")) => Some(10),
            (_, (StatusCode::SERVICE_UNAVAILABLE, _)) => Some(1),
            _ => None,
        }
    }

    /// The refusal as a tenant's metrics name it: a closed set.
    pub(super) fn outcome(&self) -> &'static str {
        match (self, self.code()) {
            (Self::QuotaExceeded(exceeded), _) => exceeded.dimension.outcome(),
            (_, (StatusCode::SERVICE_UNAVAILABLE, code)) => code,
            _ => "invalid",
        }
    }
}

/// What is said of a reused key, whether the body is `kept` or not.
fn reused(kept: bool) -> &'static str {
    if kept {
        "another body was sent before under this Idempotency-Key; the events of this one are kept as dead letters: \
         see GET /api/dead-letters, and send other events under other keys"
    } else {
        "another body was sent before under this Idempotency-Key, and nothing of this one is kept; send it under \
         another key"
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let mut response = refusal(status, code, self.to_string());
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Overloaded> for Refusal {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Overloaded => Self::Overloaded,
            SendError::Full => Self::QueueFull,
            SendError::TenantFull => Self::TenantQueueFull,
            SendError::TooFewReplicas => Self::TooFewReplicas,
            SendError::Unavailable => Self::QueueUnavailable,
        }
    }
}
