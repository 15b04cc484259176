//! Every way in which ingest refuses a request, as a stable code.

use api::{Code, Retry};

use super::limits::{MAX_BYTES, MAX_DEPTH, MAX_EVENT_BYTES, MAX_EVENTS, MAX_FIELDS};
use super::quota::Exceeded;
use crate::queue::entry::Rejection;
use crate::queue::{Overloaded, SendError};
use crate::tenancy::AuthError;

/// Why nothing of a request was kept. The text never repeats what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller is not known, or may not send.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// All or nothing, or not: that was not said clearly.
    #[error("the parameter atomic is true or false, once")]
    InvalidAtomic,
    /// An event is not a JSON object.
    #[error("event {index} is not valid: {reason}")]
    InvalidJson {
        /// Its position, or its line.
        index: usize,
        /// What was found instead.
        reason: String,
    },
    /// There is no event.
    #[error("the body holds no event")]
    EmptyBatch,
    /// An event is nested too deep.
    #[error("event {index} is nested deeper than {limit} levels")]
    TooDeep {
        /// Its position, or its line.
        index: usize,
        /// Deepest that it may be.
        limit: usize,
    },
    /// An event is too long, or has too many fields.
    #[error("event {index} is too large: {reason}")]
    EventTooLarge {
        /// Its position, or its line.
        index: usize,
        /// What there is too much of.
        reason: String,
    },
    /// There are too many events.
    #[error("the body holds more than {limit} events; send several bodies", limit = MAX_EVENTS)]
    TooManyEvents,
    /// Too many bytes were sent.
    #[error("the body is longer than {limit} bytes; send several", limit = MAX_BYTES)]
    BodyTooLarge,
    /// Too many bytes come out.
    #[error("the body is longer than {limit} bytes once decompressed; send several", limit = MAX_BYTES)]
    DecompressedTooLarge,
    /// The body comes too slowly.
    #[error("the body did not arrive within {seconds} s")]
    BodyTimeout {
        /// The time that it had.
        seconds: u64,
    },
    /// The body broke off.
    #[error("the body ended early")]
    BodyIncomplete,
    /// The body is packed in a way that we don't know.
    #[error("use one Content-Encoding of gzip, zstd or identity")]
    UnsupportedEncoding,
    /// The body can't be unpacked.
    #[error("the body is not what its Content-Encoding says, or ends early, or something else follows it")]
    NotAsEncoded,
    /// The body has a form that we don't know.
    #[error("use the Content-Type application/json or application/x-ndjson")]
    UnsupportedContentType,
    /// The key is none.
    #[error("use one Idempotency-Key of 1 to 255 visible ASCII characters")]
    InvalidIdempotencyKey,
    /// The key is another body's.
    #[error("{}", reused(*kept))]
    IdempotencyKeyReused {
        /// Whether this body is kept all the same, as dead letters.
        kept: bool,
    },
    /// Redis does not answer.
    #[error("the queue can't be reached right now, and the events may or may not be kept; send them again")]
    QueueUnavailable,
    /// Redis has too few replicas.
    #[error("the queue has fewer replicas than a 202 promises, and the events may or may not be kept; send them again")]
    TooFewReplicas,
    /// Redis is near its memory limit.
    #[error("the queue is full; send again later")]
    QueueFull,
    /// The tenant has as much waiting as it may.
    #[error("the tenant's share of the queue is full: its events wait to be processed; send again later")]
    TenantQueueFull,
    /// The budget is used up, or too many batches wait for Redis.
    #[error("too much is in flight, of this tenant or of all; send again later")]
    Overloaded,
    /// The tenant's quota is used up.
    #[error(transparent)]
    QuotaExceeded(#[from] Exceeded),
}

/// Whose matter a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What was sent is at fault: sent again, it is refused again.
    Sender,
    /// The tenant has sent enough for now.
    Quota,
    /// We have no room, or a store is away: the same may be accepted soon.
    Pressure,
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Auth(AuthError::NotLoaded) => Code::QueueUnavailable,
            Self::Auth(error) => error.code(),
            Self::InvalidAtomic => Code::InvalidParameter,
            Self::InvalidJson { .. } => Code::InvalidJson,
            Self::EmptyBatch => Code::EmptyBatch,
            Self::TooDeep { .. } => Code::TooDeep,
            Self::EventTooLarge { .. } => Code::EventTooLarge,
            Self::TooManyEvents => Code::TooManyEvents,
            Self::BodyTooLarge => Code::BodyTooLarge,
            Self::DecompressedTooLarge => Code::DecompressedTooLarge,
            Self::BodyTimeout { .. } => Code::BodyTimeout,
            Self::BodyIncomplete => Code::BodyIncomplete,
            Self::UnsupportedEncoding | Self::NotAsEncoded => Code::UnsupportedEncoding,
            Self::UnsupportedContentType => Code::UnsupportedContentType,
            Self::InvalidIdempotencyKey => Code::InvalidIdempotencyKey,
            Self::IdempotencyKeyReused { .. } => Code::IdempotencyKeyReused,
            Self::QueueUnavailable | Self::TooFewReplicas => Code::QueueUnavailable,
            Self::QuotaExceeded(_) => Code::QuotaExceeded,
            Self::QueueFull | Self::TenantQueueFull => Code::QueueFull,
            Self::Overloaded => Code::Overloaded,
        }
    }

    /// Whose matter it is.
    pub fn cause(&self) -> Cause {
        match self {
            Self::QuotaExceeded(_) => Cause::Quota,
            Self::Auth(AuthError::NotLoaded)
            | Self::QueueUnavailable
            | Self::TooFewReplicas
            | Self::QueueFull
            | Self::TenantQueueFull
            | Self::Overloaded => Cause::Pressure,
            Self::Auth(_)
            | Self::InvalidAtomic
            | Self::InvalidJson { .. }
            | Self::EmptyBatch
            | Self::TooDeep { .. }
            | Self::EventTooLarge { .. }
            | Self::TooManyEvents
            | Self::BodyTooLarge
            | Self::DecompressedTooLarge
            | Self::BodyTimeout { .. }
            | Self::BodyIncomplete
            | Self::UnsupportedEncoding
            | Self::NotAsEncoded
            | Self::UnsupportedContentType
            | Self::InvalidIdempotencyKey
            | Self::IdempotencyKeyReused { .. } => Cause::Sender,
        }
    }

    /// Seconds after which to send again: when a quota has enough again, else as its code says.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match (self, self.code().retry()) {
            (Self::QuotaExceeded(exceeded), _) => Some(exceeded.retry_after_seconds()),
            (_, Retry::After(seconds)) => Some(seconds),
            (_, Retry::No | Retry::Yes) => None,
        }
    }

    /// The refusal as a tenant's metrics name it: a closed set.
    pub(super) fn outcome(&self) -> &'static str {
        match (self, self.cause()) {
            (Self::QuotaExceeded(exceeded), _) => exceeded.dimension.outcome(),
            (_, Cause::Pressure) => self.code().as_str(),
            (_, Cause::Sender | Cause::Quota) => "invalid",
        }
    }

    /// An event that is no JSON object.
    pub(super) fn invalid(index: usize, reason: String) -> Self {
        Self::InvalidJson { index, reason }
    }

    /// What is said of an event that is a dead letter, if there is no good one beside it.
    pub(super) fn of(problem: Rejection, index: usize) -> Self {
        match problem {
            Rejection::InvalidJson => Self::invalid(index, "it is not a JSON object".to_owned()),
            Rejection::TooDeep => Self::TooDeep { index, limit: MAX_DEPTH },
            Rejection::TooLarge => {
                Self::EventTooLarge { index, reason: format!("it is longer than {MAX_EVENT_BYTES} bytes") }
            }
            Rejection::TooManyFields => {
                Self::EventTooLarge { index, reason: format!("it has more than {MAX_FIELDS} fields") }
            }
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
