//! What can go wrong in the search role, and the status and stable code of each.

use api::{Code, Refusal};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use query::QueryError;
use query::params::InvalidParams;
use runtime::http::{after, refusal};
use runtime::logging::chain;

use super::limits::TooMany;
use super::loki::Refused;
use crate::stores::raw::RawError;
use crate::stores::read::{CatalogError, Fault, IndexError};
use crate::tenancy::AuthError;

/// Why a request has no answer. The client reads what `Display` says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Who asks is unknown, or may not.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The parameters.
    #[error(transparent)]
    Params(#[from] InvalidParams),
    /// The tenant has no such event or batch. Whether another one has it, nobody learns.
    #[error("there is no such event, batch or dead letter")]
    NotFound,
    /// No such route.
    #[error("there is no such route")]
    NoRoute,
    /// The route has other methods.
    #[error("this route does not answer that method; see GET /")]
    Method,
    /// A receipt that is not of this tenant's batch. Of whose it is, nobody learns.
    #[error(
        "the receipt is not one that this server gave you for this batch; leave it out, or send the one of its 202"
    )]
    InvalidReceipt,
    /// The batch's time is over.
    #[error("the batch was accepted longer ago than events are kept")]
    Expired,
    /// A dead letter without a line.
    #[error("what could not be read at all has no line to try again; it can only be read and purged")]
    NotRedrivable,
    /// The body is too long.
    #[error("the body is longer than {limit} bytes; send several requests")]
    BodyTooLarge {
        /// Longest body.
        limit: usize,
    },
    /// The body does not come.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The catalog.
    #[error("the catalog can't answer")]
    Catalog(#[from] CatalogError),
    /// Raw bytes.
    #[error("raw lines can't be read")]
    Raw(#[source] RawError),
    /// The index, where the catalog is not to answer in its place.
    #[error("the index can't answer")]
    Index(#[from] IndexError),
    /// Something that only the index can tell, while it does not answer.
    #[error("{0} need the search index, which doesn't answer")]
    NeedsIndex(&'static str),
    /// A question of the Loki API.
    #[error(transparent)]
    Loki(#[from] Refused),
    /// The tenant has more than its share.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// What worked on the request is gone.
    #[error("the request was not worked on to its end")]
    Broken,
}

impl From<RawError> for Error {
    fn from(error: RawError) -> Self {
        match error {
            RawError::Catalog(error) => Self::Catalog(error),
            error => Self::Raw(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Auth(error) => return error.into_response(),
            Self::Loki(error) => return error.response(),
            Self::Params(InvalidParams::Parameter { .. }) => Code::InvalidParameter,
            Self::Params(InvalidParams::Cursor(_)) => Code::InvalidCursor,
            Self::Params(InvalidParams::Query(error)) => return of_query(error),
            Self::NotFound | Self::NoRoute => Code::NotFound,
            Self::Method => Code::MethodNotAllowed,
            Self::InvalidReceipt => Code::InvalidReceipt,
            Self::Expired => Code::Expired,
            Self::NotRedrivable => Code::NotRedrivable,
            Self::BodyTooLarge { .. } => Code::BodyTooLarge,
            Self::BodyTimeout => Code::BodyTimeout,
            Self::Catalog(CatalogError::OlderSchema) => Code::SchemaUpgrading,
            Self::Catalog(CatalogError::TooSlow) => return too_slow(),
            Self::Catalog(error) => {
                tracing::error!(error = %chain(error), "refuse a request: the catalog can't answer");
                Code::StoreUnavailable
            }
            Self::Raw(error) => {
                tracing::error!(error = %chain(error), "refuse a request: raw lines can't be read");
                Code::StoreUnavailable
            }
            Self::Index(error) => return of_index(error),
            Self::NeedsIndex(_) => Code::StoreUnavailable,
            Self::TooMany(TooMany { retry_after }) => {
                return after(refusal(Code::TooManyQueries, self.to_string()), *retry_after);
            }
            Self::Broken => Code::Internal,
        };
        refusal(code, self.to_string())
    }
}

/// What can't be understood of a query is said with its place, and with what may be meant.
fn of_query(error: &QueryError) -> Response {
    let refusal = Refusal::new(Code::InvalidQuery, error.to_string()).at(error.at.clone(), error.repairs.clone());
    (StatusCode::BAD_REQUEST, Json(refusal)).into_response()
}

/// What the index says of one query is said to whoever asked it.
fn of_index(error: &IndexError) -> Response {
    let fault = match error {
        IndexError::TooSlow => Fault::TooDear,
        IndexError::Refused { fault, .. } => *fault,
        _ => Fault::Ours,
    };
    match fault {
        Fault::TooBroad => {
            refusal(Code::QueryTooBroad, "a `*` of the query stands for too many words; put more letters before it")
        }
        Fault::Query => {
            tracing::warn!(error = %chain(error), "refuse a query that the index can't run");
            refusal(Code::InvalidQuery, "the index can't run this query; ask for it in other words")
        }
        Fault::TooDear => too_slow(),
        Fault::Busy => after(refusal(Code::Overloaded, "the index has more to do than it can; try again"), 2),
        Fault::Away | Fault::Ours => {
            tracing::error!(error = %chain(error), "refuse a request: the index can't answer");
            refusal(Code::StoreUnavailable, "the index can't answer")
        }
    }
}

/// Trying again would take as long.
fn too_slow() -> Response {
    refusal(Code::QueryTimeout, "the query took too long; narrow the time range, or ask for fewer words")
}
