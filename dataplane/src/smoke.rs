//! `loggerhub smoke`: sends one event as a tenant would, and finds it again. `helm test` runs it.
//!
//! It ends with 0 if the event was found, 1 if it was accepted and not found in time, and 2 if it was
//! not accepted or nobody could be asked. The answer goes to standard output, the log to standard error.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use api::event::Source;
use api::routes::SEARCH;
use api::sent::Sent;
use clap::Args;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::asking::{Step, after_looking, after_sending, ask, bearer, getting, marker, sending, until};
use crate::gateway::forward::Upstream;

/// Exit code: accepted, and not found in time.
const NOT_FOUND: u8 = 1;
/// Exit code: not even accepted.
const FAILED: u8 = 2;

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
    Found { accepted: Duration, found: Duration, source: Source },
    /// Accepted, and then this until the time was over.
    NotFound { last: String },
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
    let marker = marker("smoke");
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(settings.timeout_seconds);

    let event = Sent {
        service: Some("loggerhub-smoke".into()),
        level: Some("INFO".into()),
        message: Some(format!("{marker} of loggerhub smoke")),
        ..Sent::default()
    };
    let send = async || after_sending(ask(&ingest, sending(&event, &marker)?, &key).await?);
    if let Step::Again(last) = until(deadline, send).await? {
        bail!("not accepted within {} s: {last}", settings.timeout_seconds);
    }
    let accepted = begun.elapsed();

    let search = async || {
        let answer = ask(&gateway, getting(&format!("{SEARCH}?limit=1&q={marker}"))?, &key).await?;
        after_looking(answer, &marker)
    };
    Ok(match until(deadline, search).await? {
        Step::Done(source) => Trip::Found { accepted, found: begun.elapsed(), source },
        Step::Again(last) => Trip::NotFound { last },
    })
}

#[cfg(test)]
mod tests {
    use api::event::Listing;
    use api::{Code, Refusal};
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;
    use crate::asking::listing;

    const KEY: &str = "lh_0000000000000000_secret";

    /// A server that answers every event and every search with these.
    async fn trip(sent: StatusCode, search: Listing) -> anyhow::Result<Trip> {
        let router = Router::new()
            .route("/logs", post(async move || (sent, Json(Refusal::new(Code::InvalidApiKey, "why")))))
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
        let error = format!("{:#}", trip(StatusCode::UNAUTHORIZED, listing(Source::Catalog, &[])).await.unwrap_err());
        assert!(error.contains("invalid_api_key") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn an_event_that_never_appears_is_not_found() {
        let trip = trip(StatusCode::ACCEPTED, listing(Source::Catalog, &[])).await.unwrap();
        assert_eq!(trip, Trip::NotFound { last: "catalog does not know the event".to_owned() });
    }

    #[tokio::test]
    async fn whoever_is_not_there_is_named() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = format!("{:#}", round_trip_at(&format!("http://{free}")).await.unwrap_err());
        assert!(error.contains("not accepted within 1 s") && error.contains("upstream_unavailable"), "{error}");
    }
}
