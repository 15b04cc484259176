//! Our own protocol: JSON in a body, and 202 once the queue has it on disk.

use api::batch::BatchState;
use api::routes;
use api::sent::Accepted;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::http::{Http, idempotency_key, refused};
use crate::cache::Fate;
use crate::ingest::accept::{Arrival, Follow, Form, Kept, Lines, Options, Refusal, Taking};

/// Its routes.
pub(in crate::ingest) fn routes() -> Router<Http> {
    Router::new()
        .route(routes::LOGS, post(take))
        .route(routes::DATA_FAST, post(take))
        .route(routes::DATA_BARE, post(take_and_wait))
        .route(routes::DATA, post(take_and_wait))
}

fn accepted(kept: Kept) -> Accepted {
    Accepted {
        batch_id: kept.batch_id,
        accepted: kept.accepted as u64,
        rejected: kept.rejected.len() as u64,
        receipt: kept.receipt,
        duplicate: kept.duplicate.then_some(true),
        state: None,
    }
}

/// `POST /logs`: answers as soon as the batch is kept.
async fn take(State(http): State<Http>, request: Request) -> Response {
    let (arrival, kept) = accept(&http, request, None).await;
    let response = match kept {
        Ok(kept) => (StatusCode::ACCEPTED, Json(accepted(kept))).into_response(),
        Err(refusal) => refused(&refusal),
    };
    http.answer(arrival, response)
}

/// `POST /data/`: the same, and then waits until the batch is stored, if a processor can say so.
async fn take_and_wait(State(http): State<Http>, request: Request) -> Response {
    let (arrival, kept) = accept(&http, request, http.intake.follow()).await;
    let response = match kept {
        Ok(kept) => {
            let fate = http.intake.stored(&kept).await;
            told(accepted(kept), fate)
        }
        Err(refusal) => refused(&refusal),
    };
    http.answer(arrival, response)
}

/// The answer once the batch is stored, or once it has been waited for long enough.
fn told(mut answer: Accepted, fate: Option<Fate>) -> Response {
    answer.state = Some(if fate.is_some() { BatchState::Stored } else { BatchState::Queued });
    let status = match fate {
        Some(Fate::Stored) => StatusCode::CREATED,
        Some(Fate::Duplicate) => {
            answer.duplicate = Some(true);
            StatusCode::OK
        }
        Some(Fate::OtherBody) => return refused(&Refusal::IdempotencyKeyReused { kept: true }),
        None => StatusCode::ACCEPTED,
    };
    (status, Json(answer)).into_response()
}

/// Takes one request, and counts it.
async fn accept(http: &Http, request: Request, follow: Option<Follow>) -> (Option<Arrival>, Result<Kept, Refusal>) {
    let (head, body) = request.into_parts();
    let mut arrival = match http.arrive(&head.headers) {
        Ok(arrival) => arrival,
        Err(refusal) => return (None, Err(refusal)),
    };
    let kept = try_accept(http, &mut arrival, &head, body, follow).await;
    http.intake.count(&arrival, &kept);
    (Some(arrival), kept)
}

/// What its head says wrong is refused before its body is read.
async fn try_accept(
    http: &Http,
    arrival: &mut Arrival,
    head: &Parts,
    body: Body,
    follow: Option<Follow>,
) -> Result<Kept, Refusal> {
    let form = form(content_type(&head.headers)?)?;
    let taking = taking(head.uri.query())?;
    let key = idempotency_key(&head.headers)?;
    let packed = http.read(arrival, &head.headers, body).await?;
    let lines = Lines::new(packed, move |body, events| form.split(body, events));
    http.intake.accept(arrival, lines, Options { key, taking, follow }).await
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let text = headers.get(CONTENT_TYPE).map(|value| value.to_str().map_err(|_| Refusal::UnsupportedContentType));
    text.transpose()
}

/// The form that a `Content-Type` says.
pub(in crate::ingest) fn form(content_type: Option<&str>) -> Result<Form, Refusal> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "text/json" => Ok(Form::Json),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonl"
        | "application/jsonlines"
        | "application/x-jsonlines" => Ok(Form::Lines),
        ""
        | "text/plain"
        | "application/stream+json"
        | "application/x-json-stream"
        | "application/json-seq"
        | "application/octet-stream"
        | "application/x-www-form-urlencoded" => Ok(Form::Unsaid),
        _ => Err(Refusal::UnsupportedContentType),
    }
}

/// The parameter `atomic` of a request's query.
pub(in crate::ingest) fn taking(query: Option<&str>) -> Result<Taking, Refusal> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=').or(Some((pair, ""))));
    let mut given = pairs.filter(|(name, _)| *name == "atomic").map(|(_, value)| value);
    match (given.next(), given.next()) {
        (None, _) | (Some("false"), None) => Ok(Taking::Each),
        (Some("true"), None) => Ok(Taking::Atomic),
        _ => Err(Refusal::InvalidAtomic),
    }
}
