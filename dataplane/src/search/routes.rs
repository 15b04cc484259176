//! The search role's routes: who asks, what for, and how an answer or a refusal looks.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use crds::tenant::Scope;
use serde::Serialize;
use uuid::Uuid;

use super::params::{self, InvalidParams};
use super::{Error, Search};
use crate::event::Micros;
use crate::tenancy::Caller;

type Pairs = Vec<(String, String)>;

const LIST: &str = "/api/logs";
const EVENT: &str = "/api/logs/{id}";
const SEARCH: &str = "/api/search";
const BATCH: &str = "/api/batches/{id}";
/// Every route. Tests try each of them as each kind of caller.
pub const ROUTES: [&str; 4] = [LIST, EVENT, SEARCH, BATCH];

/// Routes under `/api`.
pub(super) fn router(search: Search) -> Router {
    Router::new()
        .route(LIST, read_only(get(list)))
        .route(EVENT, read_only(get(event)))
        .route(SEARCH, read_only(get(find)))
        .route(BATCH, read_only(get(batch)))
        .fallback(|| async { Error::NoRoute })
        .with_state(search)
}

fn read_only(route: MethodRouter<Search>) -> MethodRouter<Search> {
    route.fallback(|| async { Error::Method })
}

async fn list(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let page = params::list(&pairs(&uri)?)?;
    answer(search.reader.list(&caller.tenant, &page).await?)
}

async fn find(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let page = params::search(&pairs(&uri)?)?;
    answer(search.reader.search(&caller.tenant, &page, now()).await?)
}

async fn event(
    State(search): State<Search>,
    headers: HeaderMap,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    let id: Uuid = id.parse().map_err(|_| Error::NotFound)?;
    answer(search.reader.event(&caller.tenant, id).await?.ok_or(Error::NotFound)?)
}

async fn batch(
    State(search): State<Search>,
    headers: HeaderMap,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let receipt = params::batch(&pairs(&uri)?)?;
    let id: Uuid = id.parse().map_err(|_| Error::NotFound)?;
    let receipt = receipt.and_then(|receipt| search.registry.peppers().read_receipt(&receipt));
    answer(search.reader.batch(&caller.tenant, id, receipt).await?.ok_or(Error::NotFound)?)
}

fn caller(search: &Search, headers: &HeaderMap) -> Result<Caller, Error> {
    Ok(search.registry.admit(headers, Scope::Query)?)
}

fn pairs(uri: &Uri) -> Result<Pairs, InvalidParams> {
    let query = Query::try_from_uri(uri);
    query.map(|Query(pairs)| pairs).map_err(|error| InvalidParams::unreadable(&error.body_text()))
}

fn answer(body: impl Serialize) -> Result<Response, Error> {
    Ok(Json(body).into_response())
}

fn now() -> Micros {
    crate::event::micros(time::OffsetDateTime::now_utc())
}
