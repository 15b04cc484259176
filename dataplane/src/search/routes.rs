//! The search role's routes: who asks, what for, and how an answer or a refusal looks.

mod counting;
mod letters;
mod slow;
mod usage;

use std::convert::Infallible;
use std::sync::Arc;

use api::routes::{
    ASK, BATCH, COMPLETE, CONTEXT, EVENT, EXPLAIN, EXPORT, FACETS, FIELDS, HISTOGRAM, LETTER, LETTERS, LIST, ME,
    REDRIVE, REDRIVE_ONE, SEARCH, STORED, USAGE, VALUES,
};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use crds::tenant::Scope;
use query::params::{self, InvalidParams};
use query::shape::shape;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use self::slow::Slow;
use super::reader::Reader;
use super::{Error, Search};
use crate::event::Micros;
use crate::tenancy::{Caller, Receipt, Tenant};

type Pairs = Vec<(String, String)>;

/// Routes under `/api`.
pub(super) fn router(search: Search) -> Router {
    Router::new()
        .route(LIST, known(get(list)))
        .route(EVENT, known(get(event)))
        .route(CONTEXT, known(get(context)))
        .route(SEARCH, known(get(find)))
        .route(EXPORT, known(get(export)))
        .route(EXPLAIN, known(get(explain)))
        .route(ASK, known(get(counting::ask)))
        .route(HISTOGRAM, known(get(counting::histogram)))
        .route(FACETS, known(get(counting::facets)))
        .route(FIELDS, known(get(counting::fields)))
        .route(VALUES, known(get(counting::values)))
        .route(COMPLETE, known(get(counting::complete)))
        .route(STORED, known(get(stored)))
        .route(BATCH, known(get(batch)))
        .route(USAGE, known(get(usage::usage)))
        .route(ME, known(get(usage::me)))
        .route(LETTERS, known(get(letters::list).delete(letters::purge)))
        .route(LETTER, known(get(letters::one).delete(letters::purge_one)))
        .route(REDRIVE, known(post(letters::redrive)))
        .route(REDRIVE_ONE, known(post(letters::redrive_one)))
        .merge(super::loki::router())
        .fallback(|| async { Error::NoRoute })
        .with_state(search)
}

fn known(route: MethodRouter<Search>) -> MethodRouter<Search> {
    route.fallback(|| async { Error::Method })
}

async fn list(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let page = params::list(&pairs(&uri)?, now())?;
    let slow = Slow::watch(&caller, LIST, shape(&page));
    let answered =
        read(&search, &caller, |reader, tenant| async move { reader.list(&tenant, &page, now()).await }).await;
    slow.told(&answered);
    answer(answered?)
}

async fn find(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let page = params::search(&pairs(&uri)?, now())?;
    let slow = Slow::watch(&caller, SEARCH, shape(&page));
    let work = |reader: Reader, tenant: Arc<Tenant>| async move { reader.search(&tenant, &page, now()).await };
    let answered = read(&search, &caller, work).await;
    slow.told(&answered);
    answer(answered?)
}

async fn export(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let export = params::export::export(&pairs(&uri)?, now())?;
    super::export::answer(search, caller, export).await
}

async fn explain(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    caller(&search, &headers)?;
    let text = params::explain(&pairs(&uri)?)?;
    answer(query::explain(&text).map_err(InvalidParams::from)?)
}

async fn event(State(search): State<Search>, headers: HeaderMap, id: Id, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    let id = id.named()?;
    let event = read(&search, &caller, move |reader, tenant| async move { reader.event(&tenant, id).await }).await?;
    answer(event.ok_or(Error::NotFound)?)
}

async fn context(State(search): State<Search>, headers: HeaderMap, id: Id, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let pairs = pairs(&uri)?;
    // Whether the parameters are good is said before whether there is such an event.
    let around = params::context::context(id.0.unwrap_or_default(), &pairs)?;
    let id = id.named()?;
    let context =
        move |reader: Reader, tenant: Arc<Tenant>| async move { reader.context(&tenant, id, &around, now()).await };
    answer(read(&search, &caller, context).await?.ok_or(Error::NotFound)?)
}

async fn stored(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let asked = params::tail::stored(&pairs(&uri)?)?;
    answer(read(&search, &caller, |reader, tenant| async move { reader.stored(&tenant, asked).await }).await?)
}

async fn batch(State(search): State<Search>, headers: HeaderMap, id: Id, uri: Uri) -> Result<Response, Error> {
    let caller = search.registry.authenticate(&headers)?;
    let receipt = params::batch(&pairs(&uri)?)?;
    // Who may send may follow by its receipt what was sent, also while nothing new is accepted.
    if receipt.is_none() || !caller.scopes.contains(&Scope::Ingest) {
        caller.require(Scope::Query)?;
    }
    let id = id.named()?;
    let receipt = match receipt {
        Some(text) => {
            let receipt = search.registry.peppers().read_receipt(&text);
            let ours = |receipt: &Receipt| receipt.tenant == *caller.tenant.name() && receipt.batch_id == id;
            Some(receipt.filter(ours).ok_or(Error::InvalidReceipt)?)
        }
        None => None,
    };
    let batch =
        move |reader: Reader, tenant: Arc<Tenant>| async move { reader.batch(&tenant, id, receipt, now()).await };
    answer(read(&search, &caller, batch).await?)
}

/// Works on a request within its tenant's share. It is worked on to its end also if its sender leaves: the stores
/// go on with what they have begun, so the share is taken for as long. What is done step by step, such as a scan, ends
/// with its step.
pub(super) async fn read<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send + 'static>(
    search: &Search,
    caller: &Caller,
    work: impl FnOnce(Reader, Arc<Tenant>) -> F,
) -> Result<T, Error> {
    let turn = search.limits.turn(caller.tenant.name()).await?;
    let left = CancellationToken::new();
    let _leaves = left.clone().drop_guard();
    let work = work(search.reader.of_request(turn.meter.clone(), left), Arc::clone(&caller.tenant));
    let work = async move {
        let done = work.await;
        drop(turn);
        done
    };
    tokio::spawn(work.in_current_span()).await.map_err(|_| Error::Broken)?
}

fn caller(search: &Search, headers: &HeaderMap) -> Result<Caller, Error> {
    Ok(search.registry.admit(headers, Scope::Query)?)
}

/// The id in a path.
struct Id(Option<Uuid>);

impl Id {
    /// What is no id names nothing. Said once it is known who asks.
    fn named(self) -> Result<Uuid, Error> {
        self.0.ok_or(Error::NotFound)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(Path::from_request_parts(parts, state).await.ok().map(|Path(id)| id)))
    }
}

fn pairs(uri: &Uri) -> Result<Pairs, InvalidParams> {
    let query = Query::try_from_uri(uri);
    query.map(|Query(pairs)| pairs).map_err(|error| InvalidParams::unreadable(&error.body_text()))
}

fn answer(body: impl Serialize) -> Result<Response, Error> {
    Ok(Json(body).into_response())
}

pub(super) fn now() -> Micros {
    crate::event::micros(time::OffsetDateTime::now_utc())
}
