//! Routes that count: questions with stages, histograms, facets, fields, values; and completion.

use std::time::Instant;

use api::answer::{Answer, Told};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use query::params::counting as params;

use super::{answer, caller, now, pairs, read};
use crate::search::{Error, Search};

pub(super) async fn ask(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let begun = Instant::now();
    let caller = caller(&search, &headers)?;
    let asked = params::ask(&pairs(&uri)?, now())?;
    let mut found =
        read(&search, &caller, |reader, tenant| async move { reader.ask(&tenant, &asked, now()).await }).await?;
    match &mut found {
        Answer::Events(events) => events.took_ms = millis(begun),
        Answer::Table(table) => took(&mut table.told, begun),
        Answer::Series(series) => took(&mut series.told, begun),
    }
    answer(found)
}

pub(super) async fn histogram(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let begun = Instant::now();
    let caller = caller(&search, &headers)?;
    let (page, interval) = params::histogram(&pairs(&uri)?, now())?;
    let mut series =
        read(&search, &caller, |reader, tenant| async move { reader.histogram(&tenant, &page, interval, now()).await })
            .await?;
    took(&mut series.told, begun);
    answer(series)
}

pub(super) async fn facets(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let begun = Instant::now();
    let caller = caller(&search, &headers)?;
    let page = params::chosen(&pairs(&uri)?, now())?;
    let mut facets =
        read(&search, &caller, |reader, tenant| async move { reader.facets(&tenant, &page, now()).await }).await?;
    took(&mut facets.told, begun);
    answer(facets)
}

pub(super) async fn fields(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let begun = Instant::now();
    let caller = caller(&search, &headers)?;
    let page = params::chosen(&pairs(&uri)?, now())?;
    let mut fields =
        read(&search, &caller, |reader, tenant| async move { reader.fields(&tenant, &page, now()).await }).await?;
    took(&mut fields.told, begun);
    answer(fields)
}

pub(super) async fn values(
    State(search): State<Search>,
    headers: HeaderMap,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    let begun = Instant::now();
    let caller = caller(&search, &headers)?;
    let asked = params::values(&name, &pairs(&uri)?, now())?;
    let mut values =
        read(&search, &caller, |reader, tenant| async move { reader.values(&tenant, &asked, now()).await }).await?;
    took(&mut values.told, begun);
    answer(values)
}

pub(super) async fn complete(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let asked = params::complete(&pairs(&uri)?, now())?;
    answer(
        read(&search, &caller, |reader, tenant| async move { Ok(reader.complete(&tenant, &asked, now()).await) })
            .await?,
    )
}

fn took(told: &mut Told, begun: Instant) {
    told.took_ms = millis(begun);
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
