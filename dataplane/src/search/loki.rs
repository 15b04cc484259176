//! The Loki API: what Grafana and logcli ask, answered as Loki answers it. Refusals are plain text, and parameters that
//! are not known are not looked at.
//!
//! ```text
//!  LogQL ─┬─ lines ──► index: candidates ─► each whole line is looked at ─► streams
//!         └─ metric ─┬► index: counts of groups, where it finds just what the query does
//!                    └► the same lines, up to a bound ─► windows ─► matrix, vector
//! ```

mod answers;
mod counts;
mod fields;
mod lines;
mod metric;
mod sets;

use std::time::{Duration, Instant};

use api::loki::{Answer, MatrixSeries, Names, SUCCESS, VectorSeries};
use axum::body::to_bytes;
use axum::extract::{Path, Query as Parameters, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use crds::tenant::Scope;
use query::logql::params::{self, InvalidParam, Span};
use query::logql::{Expr, LogQlError, Windows, parse, parse_selector};
use query::params::InvalidParams;
use serde_json::json;

use super::routes::{now, read};
use super::{Error, Search};
use crate::loki::{is_categorized, plain, text};
use crate::tenancy::Caller;

/// Longest body: a query in a form.
const MAX_BODY: usize = 64 * 1024;
/// Time for it to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Fields that are told of, if the client does not say how many.
const FIELDS: usize = 1000;
/// The release of Loki whose API this is.
const VERSION: &str = "3.6.0";

/// Why a question has no answer. The client reads what `Display` says.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The query.
    #[error(transparent)]
    Query(#[from] LogQlError),
    /// A parameter.
    #[error(transparent)]
    Param(#[from] InvalidParam),
    /// What can't be answered, and why.
    #[error("{0}")]
    Because(String),
    /// Something that there is not.
    #[error("{0} is not supported by LoggerHub")]
    Missing(&'static str),
}

impl Refused {
    pub(super) fn response(&self) -> Response {
        let status = if let Self::Missing(_) = self { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        text(status, self.to_string())
    }
}

impl From<LogQlError> for Error {
    fn from(error: LogQlError) -> Self {
        Self::Loki(error.into())
    }
}

impl From<InvalidParam> for Error {
    fn from(error: InvalidParam) -> Self {
        Self::Loki(error.into())
    }
}

/// Routes under `/loki`.
pub(super) fn router() -> Router<Search> {
    Router::new()
        .route("/loki/api/v1/query_range", known(get(range).post(range)))
        .route("/loki/api/v1/query", known(get(instant).post(instant)))
        .route("/loki/api/v1/labels", known(get(labels).post(labels)))
        .route("/loki/api/v1/label", known(get(labels).post(labels)))
        .route("/loki/api/v1/label/{name}/values", known(get(values).post(values)))
        .route("/loki/api/v1/series", known(get(series).post(series)))
        .route("/loki/api/v1/index/stats", known(get(stats).post(stats)))
        .route("/loki/api/v1/index/volume", known(get(volume).post(volume)))
        .route("/loki/api/v1/detected_labels", known(get(detected_labels).post(detected_labels)))
        .route("/loki/api/v1/detected_fields", known(get(detected_fields).post(detected_fields)))
        .route("/loki/api/v1/detected_field/{name}/values", known(get(detected_values).post(detected_values)))
        .route("/loki/api/v1/drilldown-limits", known(get(limits)))
        .route("/loki/api/v1/status/buildinfo", known(get(build)))
        .route("/loki/api/v1/patterns", known(get(patterns).post(patterns)))
        .route("/loki/{*rest}", axum::routing::any(missing))
        .layer(map_response(plain))
}

fn known(route: MethodRouter<Search>) -> MethodRouter<Search> {
    route.fallback(|| async { Error::Method })
}

/// Who asks, and with which parameters.
struct Question {
    caller: Caller,
    pairs: Vec<(String, String)>,
    /// Whether the client knows of a third element of a line.
    categorized: bool,
    /// Now, in nanoseconds.
    now: i64,
}

impl Question {
    async fn read(search: &Search, request: Request) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let caller = search.registry.admit(&parts.headers, Scope::Query)?;
        let mut pairs = pairs(&parts.uri)?;
        let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return Err(Error::BodyTooLarge { limit: MAX_BODY }),
            Err(_) => return Err(Error::BodyTimeout),
        };
        if !body.is_empty() {
            let form = str::from_utf8(&body).ok().and_then(|form| format!("/?{form}").parse::<Uri>().ok());
            let form = form.ok_or_else(|| InvalidParams::unreadable("the body is no form"))?;
            // As in Go, the form comes first.
            pairs.splice(0..0, self::pairs(&form)?);
        }
        let tags = parts.headers.get("x-query-tags").and_then(|tags| tags.to_str().ok());
        tracing::debug!(tenant.name = %caller.tenant.name(), tags, path = parts.uri.path(), "a question of the Loki API");
        Ok(Self { caller, pairs, categorized: is_categorized(&parts.headers), now: now().saturating_mul(1000) })
    }

    fn span(&self) -> Result<Span, Error> {
        Ok(params::span(&self.pairs, self.now)?)
    }

    fn one(&self, name: &str) -> Option<&str> {
        params::one(&self.pairs, name)
    }

    /// What a selector finds, with what may follow it.
    fn log(&self) -> Result<query::logql::LogExpr, Error> {
        match self.one("query") {
            None => Ok(query::logql::LogExpr::default()),
            Some(text) => match parse(text)? {
                Expr::Log(log) => Ok(log),
                Expr::Metric(_) => {
                    Err(Refused::Because("a log query is expected here, and no metric".to_owned()).into())
                }
            },
        }
    }

    fn count(&self, name: &str, usual: usize, most: usize) -> usize {
        self.one(name).and_then(|text| text.parse().ok()).unwrap_or(usual).clamp(1, most)
    }
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, InvalidParams> {
    let query = Parameters::try_from_uri(uri);
    query.map(|Parameters(pairs)| pairs).map_err(|error| InvalidParams::unreadable(&error.body_text()))
}

async fn range(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let (begun, now) = (Instant::now(), now());
    let span = asked.span()?;
    match parse(params::query(&asked.pairs)?)? {
        Expr::Log(log) => {
            let (limit, forward) = (params::limit(&asked.pairs)?, params::forward(&asked.pairs)?);
            let wanted = lines::Wanted { span: span.micros(), forward, limit, whole: !asked.categorized };
            let found = read(&search, &asked.caller, move |reader, tenant| async move {
                lines::find(&reader, &tenant, &log, wanted, now).await
            });
            Ok(answers::streams(found.await?, asked.categorized, begun))
        }
        Expr::Metric(metric) => {
            let windows = params::windows(&asked.pairs, span)?;
            let found = read(&search, &asked.caller, move |reader, tenant| async move {
                metric::value(&reader, &tenant, &metric, windows, now).await
            });
            let found = found.await?;
            let values = |series: query::logql::Series| MatrixSeries {
                metric: series.labels,
                values: answers::samples(windows, &series.values),
            };
            let result: Vec<MatrixSeries> = found.outcome.into_series().into_iter().map(values).collect();
            let result = result.into_iter().filter(|series| !series.values.is_empty()).collect::<Vec<_>>();
            Ok(answers::with_cost(Answer::new("matrix", result), found.warnings, found.cost, begun))
        }
    }
}

async fn instant(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let (begun, now) = (Instant::now(), now());
    let windows = Windows::at(params::moment(&asked.pairs, asked.now)?);
    let Expr::Metric(metric) = parse(params::query(&asked.pairs)?)? else {
        let message = "log queries are not supported as an instant query type, please change your query to a range \
                       query type";
        return Err(Refused::Because(message.to_owned()).into());
    };
    let scalar = metric.is_scalar();
    let found = read(&search, &asked.caller, move |reader, tenant| async move {
        metric::value(&reader, &tenant, &metric, windows, now).await
    });
    let found = found.await?;
    let series = found.outcome.into_series().into_iter();
    let value = |series: query::logql::Series| {
        let value = answers::samples(windows, &series.values).pop()?;
        Some(VectorSeries { metric: series.labels, value })
    };
    let result: Vec<VectorSeries> = series.filter_map(value).collect();
    if scalar && let Some(VectorSeries { value, .. }) = result.first() {
        return Ok(answers::with_cost(Answer::new("scalar", value.clone()), found.warnings, found.cost, begun));
    }
    Ok(answers::with_cost(Answer::new("vector", result), found.warnings, found.cost, begun))
}

async fn labels(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let sets = sets_of(&search, &asked, &sets::STREAM).await?;
    let mut names: Vec<String> = sets.sets.iter().flat_map(|set| set.labels.keys().cloned()).collect();
    names.sort();
    names.dedup();
    Ok(Json(Names { status: SUCCESS.to_owned(), warnings: sets.warnings, data: names }).into_response())
}

async fn values(State(search): State<Search>, Path(name): Path<String>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    if name.starts_with("__") {
        return Ok(Json(Names::<String> { status: SUCCESS.to_owned(), warnings: vec![], data: vec![] }).into_response());
    }
    let (mut values, warnings) = if query::logql::keyword_of(&name).is_some() {
        let sets = sets_of(&search, &asked, &[name.as_str()]).await?;
        let values = sets.sets.into_iter().filter_map(|mut set| set.labels.remove(&name)).collect::<Vec<_>>();
        (values, sets.warnings)
    } else {
        let (mut detected, mut warnings) = fields_of(&search, &asked).await?;
        warnings.push(fields::SAMPLED.to_owned());
        (detected.remove(&name).map(|field| field.values.into_iter().collect()).unwrap_or_default(), warnings)
    };
    values.sort();
    values.dedup();
    Ok(Json(Names { status: SUCCESS.to_owned(), warnings, data: values }).into_response())
}

async fn series(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let (span, now) = (asked.span()?.micros(), now());
    let texts = params::several(&asked.pairs, &["match[]", "match"]);
    if texts.len() > 16 {
        return Err(Refused::Because("at most 16 selectors may be asked for at once".to_owned()).into());
    }
    let mut selectors = texts.into_iter().map(parse_selector).collect::<Result<Vec<_>, _>>()?;
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    let found = read(&search, &asked.caller, move |reader, tenant| async move {
        let mut all = sets::Sets::default();
        for matchers in selectors {
            let log = query::logql::LogExpr { matchers, stages: Vec::new() };
            all.join(sets::find(&reader, &tenant, &log, span, &sets::STREAM, now).await?);
        }
        Ok(all)
    });
    let found = found.await?;
    let mut data: Vec<_> = found.sets.into_iter().map(|set| set.labels).collect();
    data.sort();
    data.dedup();
    Ok(Json(Names { status: SUCCESS.to_owned(), warnings: found.warnings, data }).into_response())
}

async fn stats(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let (log, span, now) = (asked.log()?, asked.span()?.micros(), now());
    let found = read(&search, &asked.caller, move |reader, tenant| async move {
        sets::weigh(&reader, &tenant, &log, span, &sets::STREAM, now).await
    });
    let (sets, mean) = found.await?;
    let entries = sets.sets.iter().map(|set| set.count).sum::<u64>();
    let bytes = (entries as f64 * mean) as u64;
    Ok(Json(api::loki::IndexStats { streams: sets.sets.len() as u64, chunks: 0, bytes, entries }).into_response())
}

async fn volume(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let (begun, now, span) = (Instant::now(), now(), asked.span()?);
    let log = asked.log()?;
    let named = asked.one("targetLabels").map(|names| names.split(',').map(|name| name.trim().to_owned()).collect());
    let mut names: Vec<String> =
        named.unwrap_or_else(|| log.matchers.iter().map(|matcher| matcher.name.clone()).collect());
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| query::logql::keyword_of(name).is_none()) {
        return Err(Refused::Because(format!("the volume by the label `{name}` is not supported by LoggerHub")).into());
    }
    let limit = asked.count("limit", params::DEFAULT_LIMIT, params::MAX_LIMIT);
    let found = read(&search, &asked.caller, move |reader, tenant| async move {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        sets::weigh(&reader, &tenant, &log, span.micros(), &names, now).await
    });
    let (mut sets, mean) = found.await?;
    sets.sets.sort_by_key(|set| std::cmp::Reverse(set.count));
    let millis = span.end.div_euclid(1_000_000);
    let volume = |set: sets::Set| VectorSeries {
        metric: set.labels,
        value: api::loki::Sample { millis, value: (set.count as f64 * mean).round() },
    };
    let result: Vec<VectorSeries> = sets.sets.into_iter().take(limit).map(volume).collect();
    Ok(answers::with_cost(Answer::new("vector", result), sets.warnings, lines::Cost::default(), begun))
}

async fn detected_labels(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let sets = sets_of(&search, &asked, &sets::STREAM).await?;
    let mut values = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    for (name, value) in sets.sets.into_iter().flat_map(|set| set.labels) {
        values.entry(name).or_default().insert(value);
    }
    let detected = values.into_iter().filter(|(_, values)| !values.iter().all(|value| fields::is_id(value)));
    let label = |(label, values): (String, std::collections::BTreeSet<String>)| api::loki::DetectedLabel {
        label,
        cardinality: values.len() as u64,
    };
    Ok(Json(api::loki::DetectedLabels { detected_labels: detected.map(label).collect() }).into_response())
}

async fn detected_fields(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let limit = asked.count("limit", FIELDS, FIELDS);
    let (detected, _) = fields_of(&search, &asked).await?;
    let fields = detected.into_iter().take(limit).map(fields::shown).collect();
    Ok(Json(api::loki::DetectedFields { fields, limit: limit as u64 }).into_response())
}

async fn detected_values(
    State(search): State<Search>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let limit = asked.count("limit", FIELDS, FIELDS);
    let (mut detected, _) = fields_of(&search, &asked).await?;
    let values = detected.remove(&name).map(|field| field.values.into_iter().take(limit).collect());
    let body = api::loki::DetectedValues { values: values.unwrap_or_default(), limit: limit as u64 };
    Ok(Json(body).into_response())
}

async fn limits(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    let asked = Question::read(&search, request).await?;
    let hours = i64::from(asked.caller.tenant.registered().hot_days) * 24;
    Ok(Json(json!({
        "limits": {
            "max_entries_limit_per_query": params::MAX_LIMIT,
            "retention_period": format!("{hours}h"),
            "volume_enabled": true,
            "discover_log_levels": true,
            "log_level_fields": ["level"],
            "discover_service_name": ["service_name"],
            "max_query_series": metric::MAX_SERIES,
        },
        "pattern_ingester_enabled": false,
        "version": VERSION,
    }))
    .into_response())
}

async fn build(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    Question::read(&search, request).await?;
    Ok(Json(json!({
        "version": VERSION, "revision": concat!("loggerhub-", env!("CARGO_PKG_VERSION")), "branch": "", "buildUser": "",
        "buildDate": "", "goVersion": "",
    }))
    .into_response())
}

async fn patterns(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    Question::read(&search, request).await?;
    Err(Refused::Missing("`patterns`").into())
}

async fn missing(State(search): State<Search>, request: Request) -> Result<Response, Error> {
    search.registry.admit(request.headers(), Scope::Query)?;
    Err(Refused::Missing("this route of the Loki API").into())
}

async fn sets_of(search: &Search, asked: &Question, names: &[&str]) -> Result<sets::Sets, Error> {
    let (log, span, now) = (asked.log()?, asked.span()?.micros(), now());
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let found = read(search, &asked.caller, move |reader, tenant| async move {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        sets::find(&reader, &tenant, &log, span, &names, now).await
    });
    found.await
}

async fn fields_of(search: &Search, asked: &Question) -> Result<(fields::Fields, Vec<String>), Error> {
    let (log, span, now) = (asked.log()?, asked.span()?.micros(), now());
    let limit = asked.count("line_limit", FIELDS, params::MAX_LIMIT);
    let wanted = lines::Wanted { span, forward: false, limit, whole: false };
    let found = read(search, &asked.caller, move |reader, tenant| async move {
        let found = lines::find(&reader, &tenant, &log, wanted, now).await?;
        Ok((query::logql::detect(&found.rows), found.warnings))
    });
    found.await
}
