//! What can go wrong in the search role, and the status and stable code of each.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use query::params::InvalidParams;
use runtime::http::refusal;
use runtime::logging::chain;

use super::catalog::CatalogError;
use super::index::{Fault, IndexError};
use super::limits::TooMany;
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
    /// The index, where the catalog is not to answer in its place.
    #[error("the index can't answer")]
    Index(#[from] IndexError),
    /// The tenant has more than its share.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// What worked on the request is gone.
    #[error("the request was not worked on to its end")]
    Broken,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Auth(error) => return error.into_response(),
            Self::Params(InvalidParams::Parameter { .. }) => (StatusCode::BAD_REQUEST, "invalid_parameter"),
            Self::Params(InvalidParams::Cursor(_)) => (StatusCode::BAD_REQUEST, "invalid_cursor"),
            Self::Params(InvalidParams::Query(_)) => (StatusCode::BAD_REQUEST, "invalid_query"),
            Self::NotFound | Self::NoRoute => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::InvalidReceipt => (StatusCode::BAD_REQUEST, "invalid_receipt"),
            Self::Expired => (StatusCode::GONE, "expired"),
            Self::NotRedrivable => (StatusCode::CONFLICT, "not_redrivable"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::Catalog(CatalogError::OlderSchema) => (StatusCode::SERVICE_UNAVAILABLE, "schema_upgrading"),
            Self::Catalog(CatalogError::TooSlow) => return too_slow(),
            Self::Catalog(error) => {
                tracing::error!(error = %chain(error), "refuse a request: the catalog can't answer");
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            Self::Index(error) => return of_index(error),
            Self::TooMany(TooMany { retry_after }) => {
                let refused = refusal(StatusCode::TOO_MANY_REQUESTS, "too_many_queries", self.to_string());
                return again_after(refused, *retry_after);
            }
            Self::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let response = refusal(status, code, self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE { again_after(response, 1) } else { response }
    }
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
            let message = "a `*` of the query stands for too many words; put more letters before it";
            refusal(StatusCode::BAD_REQUEST, "query_too_broad", message)
        }
        Fault::Query => {
            tracing::warn!(error = %chain(error), "refuse a query that the index can't run");
            refusal(
                StatusCode::BAD_REQUEST,
                "invalid_query",
                "the index can't run this query; ask for it in other words",
            )
        }
        Fault::TooDear => too_slow(),
        Fault::Busy => {
            let message = "the index has more to do than it can; try again";
            again_after(refusal(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message), 2)
        }
        Fault::Away | Fault::Ours => {
            tracing::error!(error = %chain(error), "refuse a request: the index can't answer");
            again_after(refusal(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "the index can't answer"), 1)
        }
    }
}

fn again_after(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Trying again would take as long, so it says no time to try again after.
fn too_slow() -> Response {
    let message = "the query took too long; narrow the time range, or ask for fewer words";
    refusal(StatusCode::SERVICE_UNAVAILABLE, "query_timeout", message)
}
