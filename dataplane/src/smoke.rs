//! `loggerhub smoke`: sends one event as a tenant would, and finds it again. `helm test` runs it.
//!
//! It ends with 0 if the event was found, 1 if it was accepted and not found in time, and 2 if it was
//! not accepted or nobody could be asked. The answer goes to standard output, the log to standard error.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::gateway::forward::Upstream;

/// Exit code: accepted, and not found in time.
const NOT_FOUND: u8 = 1;
/// Exit code: not even accepted.
const FAILED: u8 = 2;
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest answer that is read: a page of one event is a thousandth of it.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest file that can be a key's.
const MAX_KEY: usize = 512;

/// Settings of `smoke`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// URL of ingest, such as http://loggerhub-default-ingest.
    #[arg(long)]
    pub ingest_url: String,
    /// URL of the gateway, such as http://loggerhub-gateway.
    #[arg(long)]
    pub url: String,
    /// File with an API key of the scopes Ingest and Query.
    #[arg(long)]
    pub key_file: PathBuf,
    /// Longest time from the first attempt to send until the event is found.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout_seconds: u64,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
enum Trip {
    /// Accepted and found, each after so long; `source` is the store that knew it.
    Found { accepted: Duration, found: Duration, source: String },
    /// Accepted, and then this until the time was over.
    NotFound { last: String },
}

/// What follows from one answer.
#[derive(Debug, PartialEq, Eq)]
enum Step<T> {
    Done(T),
    Again(String),
}

/// Does it, unless `stop` comes first.
pub async fn run(settings: Settings, stop: CancellationToken) -> ExitCode {
    let trip = tokio::select! {
        trip = round_trip(&settings) => trip,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped before the end")),
    };
    match trip.and_then(|trip| told(&trip)) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn told(trip: &Trip) -> anyhow::Result<ExitCode> {
    let (text, code) = match trip {
        Trip::Found { accepted, found, source } => {
            let (accepted, found) = (accepted.as_millis(), found.as_millis());
            (format!("accepted after {accepted} ms, found after {found} ms in the {source}"), ExitCode::SUCCESS)
        }
        Trip::NotFound { last } => (format!("accepted, and not found in time: {last}"), ExitCode::from(NOT_FOUND)),
    };
    writeln!(std::io::stdout(), "{text}").context("write the answer")?;
    Ok(code)
}

async fn round_trip(settings: &Settings) -> anyhow::Result<Trip> {
    let ingest = Upstream::new(&settings.ingest_url).context("--ingest-url")?;
    let gateway = Upstream::new(&settings.url).context("--url")?;
    let file = std::fs::read_to_string(&settings.key_file).context("read --key-file")?;
    let key = bearer(&file).context("--key-file")?;
    // A word of its own: nothing else can be found by it.
    let marker = format!("smoke{}", Uuid::now_v7().simple());
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(settings.timeout_seconds);

    let event =
        json!({"service": "loggerhub-smoke", "level": "INFO", "message": format!("{marker} of loggerhub smoke")});
    let send = async || {
        let request =
            Request::post("/logs").header(CONTENT_TYPE, "application/json").header("idempotency-key", &marker);
        let (status, body) = ask(&ingest, request.body(Body::from(event.to_string()))?, &key).await?;
        after_sending(status, &body)
    };
    if let Step::Again(last) = until(deadline, send).await? {
        bail!("not accepted within {} s: {last}", settings.timeout_seconds);
    }
    let accepted = begun.elapsed();

    let search = async || {
        let request = Request::builder().method(Method::GET).uri(format!("/api/search?limit=1&q={marker}"));
        let (status, body) = ask(&gateway, request.body(Body::empty())?, &key).await?;
        after_searching(status, &body, &marker)
    };
    Ok(match until(deadline, search).await? {
        Step::Done(source) => Trip::Found { accepted, found: begun.elapsed(), source },
        Step::Again(last) => Trip::NotFound { last },
    })
}

/// The key as a header's value that no log shows.
fn bearer(file: &str) -> anyhow::Result<HeaderValue> {
    let key = file.trim();
    ensure!(!key.is_empty() && key.len() <= MAX_KEY, "holds no API key");
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).context("holds no API key")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Attempts until one is done or the time is over; then, what the last one said.
async fn until<T>(
    deadline: Instant,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<Step<T>>,
) -> anyhow::Result<Step<T>> {
    let mut last = "no answer came".to_owned();
    while let Ok(step) = timeout_at(deadline, attempt()).await {
        match step? {
            Step::Done(done) => return Ok(Step::Done(done)),
            Step::Again(why) => last = why,
        }
        sleep(PAUSE).await;
    }
    Ok(Step::Again(last))
}

/// Status and body. A role that can't be reached answers 503, as behind the gateway.
async fn ask(role: &Upstream, mut request: Request, key: &HeaderValue) -> anyhow::Result<(StatusCode, Value)> {
    request.headers_mut().insert(AUTHORIZATION, key.clone());
    let response = role.forward(request, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), MAX_ANSWER).await.context("read the answer")?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn after_sending(status: StatusCode, body: &Value) -> anyhow::Result<Step<()>> {
    if status.is_success() { Ok(Step::Done(())) } else { refused("ingest", status, body) }
}

fn after_searching(status: StatusCode, body: &Value, marker: &str) -> anyhow::Result<Step<String>> {
    if !status.is_success() {
        return refused("the gateway", status, body);
    }
    let found = body["items"].as_array().into_iter().flatten();
    let found = found.filter_map(|item| item["message"].as_str()).any(|message| message.contains(marker));
    let source = body["source"].as_str().unwrap_or("search").to_owned();
    Ok(if found { Step::Done(source) } else { Step::Again(format!("{source} does not know the event")) })
}

/// A refusal that passes, or one that does not.
fn refused<T>(who: &str, status: StatusCode, body: &Value) -> anyhow::Result<Step<T>> {
    let code = body["error"]["code"].as_str().unwrap_or("no code");
    let message = body["error"]["message"].as_str().unwrap_or("no message");
    let said = format!("{who} answers {status} ({code}): {message}");
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Step::Again(said));
    }
    bail!(said)
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    const KEY: &str = "lh_0000000000000000_secret";

    fn refusal(code: &str) -> Value {
        json!({"error": {"code": code, "message": "why"}})
    }

    #[test]
    fn a_refusal_that_passes_is_asked_again_and_another_is_the_end() {
        for (status, again) in [(503, true), (500, true), (429, true), (401, false), (403, false), (404, false)] {
            let step = after_sending(StatusCode::from_u16(status).unwrap(), &refusal("code"));
            assert_eq!(step.is_ok_and(|step| matches!(step, Step::Again(_))), again, "{status}");
        }
        assert_eq!(after_sending(StatusCode::ACCEPTED, &Value::Null).unwrap(), Step::Done(()));
    }

    #[test]
    fn only_the_event_itself_is_found() {
        let page = |message: &str| json!({"items": [{"message": message}], "source": "index"});
        let after = |body: &Value| after_searching(StatusCode::OK, body, "smoke1").unwrap();
        assert_eq!(after(&page("smoke1 of loggerhub smoke")), Step::Done("index".to_owned()));
        for other in [page("smoke2 of loggerhub smoke"), json!({"items": [], "source": "index"}), Value::Null] {
            assert!(matches!(after(&other), Step::Again(_)), "{other}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_sent() {
        assert_eq!(bearer(&format!("{KEY}\n")).unwrap(), format!("Bearer {KEY}"));
        for wrong in ["", " \n", "two\nlines", &"x".repeat(MAX_KEY + 1)] {
            assert!(bearer(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A server that answers every event and every search with these.
    async fn trip(sent: StatusCode, search: Value) -> anyhow::Result<Trip> {
        let router = Router::new()
            .route("/logs", post(async move || (sent, Json(refusal("invalid_api_key")))))
            .route("/api/search", get(async move || Json(search)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        round_trip_at(&url).await
    }

    async fn round_trip_at(url: &str) -> anyhow::Result<Trip> {
        let key_file = std::env::temp_dir().join(format!("loggerhub-smoke-{}", Uuid::now_v7()));
        std::fs::write(&key_file, KEY).unwrap();
        let settings = Settings {
            ingest_url: url.to_owned(),
            url: url.to_owned(),
            key_file: key_file.clone(),
            timeout_seconds: 1,
        };
        let trip = round_trip(&settings).await;
        std::fs::remove_file(key_file).unwrap();
        trip
    }

    #[tokio::test]
    async fn a_refused_key_is_named_and_never_shown() {
        let error = format!("{:#}", trip(StatusCode::UNAUTHORIZED, Value::Null).await.unwrap_err());
        assert!(error.contains("invalid_api_key") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn an_event_that_never_appears_is_not_found() {
        let trip = trip(StatusCode::ACCEPTED, json!({"items": [], "source": "catalog"})).await.unwrap();
        assert_eq!(trip, Trip::NotFound { last: "catalog does not know the event".to_owned() });
    }

    #[tokio::test]
    async fn whoever_is_not_there_is_named() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = format!("{:#}", round_trip_at(&format!("http://{free}")).await.unwrap_err());
        assert!(error.contains("not accepted within 1 s") && error.contains("upstream_unavailable"), "{error}");
    }
}
