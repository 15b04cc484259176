//! The dead letters' routes. Reading them needs the scope `Query`; to try them again or to purge
//! them changes what the tenant has, so it needs `Admin`.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use crds::tenant::Scope;
use query::params::{self, letters};
use runtime::audit::{self, Act, Action};

use super::super::{Error, Search};
use super::{Id, answer, caller, now, pairs, read};
use crate::tenancy::Caller;

/// Longest body: a thousand ids.
const MAX_BODY: usize = 64 * 1024;
/// Longest wait for it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn list(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let page = letters::page(&pairs(&uri)?, now())?;
    answer(read(&search, &caller, |reader, tenant| async move { reader.letters(&tenant, &page).await }).await?)
}

pub(super) async fn one(State(search): State<Search>, headers: HeaderMap, id: Id, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    let id = id.named()?;
    let letter = read(&search, &caller, move |reader, tenant| async move { reader.letter(&tenant, id).await }).await?;
    answer(letter.ok_or(Error::NotFound)?)
}

pub(super) async fn redrive(
    State(search): State<Search>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, Error> {
    let caller = admin(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    let chosen = letters::redrive(&collect(body).await?, now())?;
    let marked = read(&search, &caller, |reader, tenant| async move { reader.redrive(&tenant, &chosen).await }).await?;
    told(&caller, Action::LettersRedriven, "chosen ones", marked.marked);
    Ok((StatusCode::ACCEPTED, Json(marked)).into_response())
}

pub(super) async fn redrive_one(
    State(search): State<Search>,
    headers: HeaderMap,
    id: Id,
    uri: Uri,
) -> Result<Response, Error> {
    let caller = admin(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    let id = id.named()?;
    let marked =
        read(&search, &caller, move |reader, tenant| async move { reader.redrive_one(&tenant, id).await }).await?;
    told(&caller, Action::LettersRedriven, &id.to_string(), marked.marked);
    Ok((StatusCode::ACCEPTED, Json(marked)).into_response())
}

pub(super) async fn purge(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = admin(&search, &headers)?;
    let chosen = letters::purge(&pairs(&uri)?, now())?;
    let purged = read(&search, &caller, |reader, tenant| async move { reader.purge(&tenant, &chosen).await }).await?;
    told(&caller, Action::LettersPurged, "chosen ones", purged.purged);
    answer(purged)
}

pub(super) async fn purge_one(
    State(search): State<Search>,
    headers: HeaderMap,
    id: Id,
    uri: Uri,
) -> Result<Response, Error> {
    let caller = admin(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    let id = id.named()?;
    let chosen = letters::Chosen::Ids(vec![id]);
    let purged = read(&search, &caller, |reader, tenant| async move { reader.purge(&tenant, &chosen).await }).await?;
    if purged.purged == 0 {
        return Err(Error::NotFound);
    }
    told(&caller, Action::LettersPurged, &id.to_string(), purged.purged);
    answer(purged)
}

/// Writes it to the audit log.
fn told(caller: &Caller, action: Action, object: &str, letters: u64) {
    let (actor, outcome) = (format!("key:{}", caller.key_id), format!("{letters} dead letters"));
    let tenant = caller.tenant.name().as_str();
    audit::tell(&Act { actor: &actor, action, tenant, object, outcome: &outcome });
}

fn admin(search: &Search, headers: &HeaderMap) -> Result<Caller, Error> {
    Ok(search.registry.admit(headers, Scope::Admin)?)
}

async fn collect(body: Body) -> Result<Vec<u8>, Error> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(_)) => Err(Error::BodyTooLarge { limit: MAX_BODY }),
        Err(_) => Err(Error::BodyTimeout),
    }
}
