//! The doors that users go through: sending, listing, searching, reading and watching logs.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::Refusal;
use api::batch::Batch;
use api::event::{Event, Listing};
use api::letter::Letters;
use api::routes::{LETTERS, LIST, LOGS, SEARCH};
use api::sent::Accepted;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::environment::variable;

pub mod live_tail;
pub mod raw;

pub use live_tail::LiveTail;

/// Longest wait for one answer: longer than any route may take, so that a hang shows as a hang.
const ANSWER: Duration = Duration::from_secs(20);

/// The gateway and ingest, used with one API key.
#[derive(Clone)]
pub struct Door {
    client: reqwest::Client,
    /// Address of the gateway.
    pub gateway: String,
    /// Address of ingest.
    pub ingest: String,
    key: Option<String>,
}

impl Door {
    /// Reads LOGGERHUB_URL and LOGGERHUB_INGEST_URL.
    pub fn from_environment() -> anyhow::Result<Self> {
        Self::at(&variable("LOGGERHUB_URL")?, &variable("LOGGERHUB_INGEST_URL")?)
    }

    /// A door at the given addresses, without a key.
    pub fn at(gateway: &str, ingest: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(Self { client, gateway: bare(gateway), ingest: bare(ingest), key: None })
    }

    /// The same door, used with `key`.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// A request to the gateway with the key, for what has no helper here.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.keyed(self.client.request(method, format!("{}{path}", self.gateway)))
    }

    /// A `POST /logs` to ingest with the key.
    pub fn send(&self) -> RequestBuilder {
        self.keyed(self.client.post(format!("{}{LOGS}", self.ingest)))
    }

    fn keyed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends one event, or an array of them; only a 202 is a success.
    pub async fn send_json(&self, body: &Value) -> anyhow::Result<Accepted> {
        accepted(self.send().json(body)).await
    }

    /// Sends lines of JSON, compressed with zstd.
    pub async fn send_lines(&self, lines: &str) -> anyhow::Result<Accepted> {
        let body = zstd::encode_all(lines.as_bytes(), 1)?;
        let request = self.send().header("content-type", "application/x-ndjson").header("content-encoding", "zstd");
        accepted(request.body(body)).await
    }

    /// A page of the list; `query` such as `limit=10&service=web`.
    pub async fn list(&self, query: &str) -> anyhow::Result<Listing> {
        self.json(&format!("{LIST}?{query}")).await
    }

    /// A page of what a search finds; `query` is already encoded, such as `q=error`.
    pub async fn search(&self, query: &str) -> anyhow::Result<Listing> {
        self.json(&format!("{SEARCH}?{query}")).await
    }

    /// One event in full.
    pub async fn detail(&self, id: Uuid) -> anyhow::Result<Event> {
        self.json(&format!("{LIST}/{id}")).await
    }

    /// How far a batch is.
    pub async fn batch(&self, id: Uuid) -> anyhow::Result<Batch> {
        self.json(&format!("/api/batches/{id}")).await
    }

    /// A page of the dead letters.
    pub async fn dead_letters(&self, query: &str) -> anyhow::Result<Letters> {
        self.json(&format!("{LETTERS}?{query}")).await
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.request(Method::GET, path).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status == StatusCode::OK, "GET {path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("GET {path}: {text}"))
    }

    /// Status and stable error code of an answer that refuses.
    pub async fn refusal(request: RequestBuilder) -> anyhow::Result<(u16, String)> {
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        Ok((status.as_u16(), Refusal::read(text.as_bytes()).map_or(text, |refusal| refusal.error.code)))
    }
}

async fn accepted(request: RequestBuilder) -> anyhow::Result<Accepted> {
    let response = request.send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status == StatusCode::ACCEPTED, "POST /logs: {status} {text}");
    serde_json::from_str(&text).with_context(|| format!("POST /logs: {text}"))
}
