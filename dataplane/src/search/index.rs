//! Reads from the index, always through the tenant's own alias.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opensearch::{OpenSearch, SearchParts};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::compile::{event_body, search_body};
use super::cursor::Cursor;
use super::params::Page;
use super::show::Document;
use crate::stores::index::{Ask, IndexHealth};
use crate::tenancy::Tenant;

/// Longest wait for the index before the catalog answers instead.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The index, to read from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Index {
    client: OpenSearch,
    /// A reader has no patience: whoever asks after a failure is answered from the catalog at once.
    health: Arc<IndexHealth>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// OpenSearch doesn't answer.
    #[error("ask the index")]
    Request(#[from] opensearch::Error),
    /// OpenSearch answers that it can't.
    #[error("the index answered {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The kind of error, as OpenSearch names it.
        reason: String,
    },
    /// OpenSearch did not answer a moment ago, and is not asked.
    #[error("the index did not answer a moment ago")]
    Away,
    /// An answer that we can't read.
    #[error("read the index's answer")]
    Malformed(#[from] serde_json::Error),
}

impl IndexError {
    /// Whether another request would fail in the same way. A refusal is about one query.
    fn is_outage(&self) -> bool {
        match self {
            Self::Request(_) | Self::Away => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Malformed(_) => false,
        }
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Hits {
    /// Events, newest first, one more than the page holds if there are more.
    pub places: Vec<Cursor>,
    /// Whether a part of the index didn't answer in time.
    pub partial: bool,
}

#[derive(Deserialize)]
struct Answer<H> {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: HitList<H>,
}

#[derive(Deserialize)]
struct Shards {
    failed: u32,
}

#[derive(Deserialize)]
struct HitList<H> {
    hits: Vec<H>,
}

/// A hit is known by its sort values: nanoseconds, id.
#[derive(Deserialize)]
struct Place {
    sort: (i64, Uuid),
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_source")]
    document: Document,
}

impl Index {
    /// Over a client of OpenSearch.
    pub fn new(client: OpenSearch) -> Self {
        Self { client, health: Arc::new(IndexHealth::new(Duration::ZERO)) }
    }

    /// The events of one page, and one more if there is one.
    pub async fn search(&self, tenant: &Tenant, page: &Page) -> Result<Hits, IndexError> {
        let answer: Answer<Place> = self.ask(tenant, search_body(tenant.name(), page)).await?;
        let place = |Place { sort: (nanos, event_id) }| Cursor { time: nanos.div_euclid(1000), event_id };
        Ok(Hits {
            partial: answer.timed_out || answer.shards.failed > 0,
            places: answer.hits.hits.into_iter().map(place).collect(),
        })
    }

    /// One event; `None` if the index doesn't hold it (yet, or any more).
    pub async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Document>, IndexError> {
        let mut answer: Answer<Found> = self.ask(tenant, event_body(tenant.name(), id)).await?;
        Ok(answer.hits.hits.pop().map(|found| found.document))
    }

    /// Asks unless the index failed a moment ago.
    async fn ask<H: serde::de::DeserializeOwned>(&self, tenant: &Tenant, body: Value) -> Result<Answer<H>, IndexError> {
        let sent = Instant::now();
        if self.health.ask(sent) == Ask::Leave {
            return Err(IndexError::Away);
        }
        let answer = self.ask_now(tenant, body).await;
        match &answer {
            Err(error) if error.is_outage() => {
                self.health.failed(sent, Instant::now());
            }
            _ => {
                if self.health.answered() {
                    tracing::info!("the index answers again");
                }
            }
        }
        answer
    }

    async fn ask_now<H: serde::de::DeserializeOwned>(
        &self,
        tenant: &Tenant,
        body: Value,
    ) -> Result<Answer<H>, IndexError> {
        let alias = tenant.name().index_alias();
        let aliases = [alias.as_str()];
        let search = self.client.search(SearchParts::Index(&aliases)).request_timeout(TIMEOUT).body(body);
        let response = search.send().await?;
        let status = response.status_code();
        let text = response.text().await?;
        if !status.is_success() {
            let reason = serde_json::from_str::<Value>(&text).unwrap_or_default();
            let reason = reason["error"]["type"].as_str().unwrap_or("no reason given").to_owned();
            return Err(IndexError::Refused { status: status.as_u16(), reason });
        }
        Ok(serde_json::from_str(&text)?)
    }
}
