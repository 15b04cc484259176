//! The index: events as OpenSearch documents, made with `_bulk create` under the event's id.
//!
//! A document that is there already is success. So an index request can be repeated by anybody at
//! any time, as long as it goes to the index that the batch's row names.

mod bulk;
mod document;
mod health;
mod leaves;
mod listing;
mod series;
mod together;
mod unusable;

pub use document::Document;
pub use health::{Ask, IndexHealth};
pub use leaves::word;
pub use listing::Listed;
pub use series::{IndexState, SeriesIndex};
pub use unusable::UnusableIndices;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opensearch::OpenSearch;
use opensearch::http::Method;
use opensearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::event::rfc3339;
use crate::stores::batch::{Batch, BatchEvent};
use crate::tenancy::Tenant;
use bulk::{Verdict, verdicts};
use together::Together;

/// Bytes of one `_bulk` request: large enough that the request itself costs nothing, small enough
/// for any server's limit and for two of them to wait in memory.
const BULK_BYTES: usize = 5 * 1024 * 1024;
/// Bytes that a document takes beyond its raw line, about.
const DOCUMENT_OVERHEAD: usize = 500;
/// Longest wait for one `_bulk`: 5 MB take well under a second on an idle server.
const BULK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a `_bulk` waits for an index without a shard that works: all that is in the request waits with it.
const NO_SHARD_TIMEOUT: &str = "1s";
/// Longest wait for one `_bulk` where nobody waits behind it.
const PATIENT_BULK_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the index did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// OpenSearch can't be reached.
    #[error("{doing}")]
    Unreachable {
        /// What we were doing.
        doing: &'static str,
        /// The cause.
        source: Arc<opensearch::Error>,
    },
    /// OpenSearch can't do it now.
    #[error("{doing}: OpenSearch answered {status}: {reason}")]
    Refused {
        /// What we were doing.
        doing: &'static str,
        /// The HTTP status of the answer, or of one item.
        status: u16,
        /// What OpenSearch says.
        reason: String,
    },
    /// One index takes nothing now: it is gone, blocked, or has no shard that works.
    #[error("index events into `{index}`: OpenSearch answered {status}: {reason}")]
    Unusable {
        /// The index.
        index: String,
        /// The status of the item.
        status: u16,
        /// What OpenSearch says.
        reason: String,
    },
}

impl Error {
    /// Whether one index is at fault, rather than OpenSearch: others can be written to.
    pub fn concerns_one_index(&self) -> bool {
        matches!(self, Self::Unusable { .. } | Self::Refused { status: 400 | 404, .. })
    }
}

/// The index of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Index {
    client: OpenSearch,
    bulk_timeout: Duration,
    together: Option<Together>,
}

/// What an index request did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// Documents made now.
    pub created: usize,
    /// Documents that were there already.
    pub existing: usize,
    /// Documents that hold the message only, because OpenSearch refused the rest.
    pub reduced: usize,
}

impl Index {
    /// The index behind this client.
    pub fn new(client: OpenSearch) -> Self {
        Self { client, bulk_timeout: BULK_TIMEOUT, together: None }
    }

    /// The same for whoever can wait: a server with much to do is slow, and not away.
    pub fn patient(self) -> Self {
        Self { bulk_timeout: PATIENT_BULK_TIMEOUT, ..self }
    }

    /// The same where many ask at once: what they ask for goes in common requests.
    pub fn together(self) -> Self {
        Self { together: Some(Together::new(self.client.clone())), ..self }
    }

    /// Waits until no more waits to be sent than one request takes.
    pub async fn caught_up(&self) {
        if let Some(together) = &self.together {
            together.caught_up().await;
        }
    }

    /// The client, for questions of other rooms.
    pub fn client(&self) -> &OpenSearch {
        &self.client
    }

    /// Makes the documents of these batches, each in the index named beside it. An error means that
    /// some may be missing: ask again.
    pub async fn create(&self, tenant: &Tenant, batches: &[(&Batch, &str)]) -> Result<Indexed, Error> {
        let mut done = Indexed::default();
        let mut refused = Vec::new();
        let mut request = bulk::Request::new(tenant.name());
        let expected: usize = batches.iter().map(|(batch, _)| expected_bytes(batch)).sum();
        request.reserve(expected.min(BULK_BYTES));
        for (batch, index) in batches {
            let accepted_at = rfc3339(batch.accepted_at);
            for event in &batch.events {
                let document = Document::new(tenant.name().as_str(), batch, &accepted_at, event);
                request.create(index, event.id, &document, (*batch, event, *index));
                if request.bytes() >= BULK_BYTES {
                    refused.extend(self.send(&mut request, &mut done).await?);
                }
            }
        }
        refused.extend(self.send(&mut request, &mut done).await?);
        self.create_reduced(tenant, refused, &mut done).await?;
        Ok(done)
    }

    /// Makes documents with the message only for events whose documents OpenSearch refuses.
    async fn create_reduced(
        &self,
        tenant: &Tenant,
        refused: Vec<Refusal<'_>>,
        done: &mut Indexed,
    ) -> Result<(), Error> {
        let mut request = bulk::Request::new(tenant.name());
        if let Some(((_, event, _), reason)) = refused.first() {
            // One line, however many a tenant sends of them.
            let (name, events) = (tenant.name(), refused.len());
            tracing::warn!(event.id = %event.id, tenant.name = %name, events, reason, "index the message only of {events} events of {name}");
        }
        for ((batch, event, index), reason) in refused {
            let accepted_at = rfc3339(batch.accepted_at);
            let document = Document::new(tenant.name().as_str(), batch, &accepted_at, event).reduced(reason);
            request.create(index, event.id, &document, (batch, event, index));
            done.reduced += 1;
            if request.bytes() >= BULK_BYTES {
                self.send_reduced(&mut request, done).await?;
            }
        }
        self.send_reduced(&mut request, done).await
    }

    async fn send_reduced(&self, request: &mut bulk::Request<'_, Place<'_>>, done: &mut Indexed) -> Result<(), Error> {
        match self.send(request, done).await?.into_iter().next() {
            None => Ok(()),
            // The fixed mapping takes any message, so the index is not one of ours.
            Some((place, reason)) => Err(Error::Unusable { index: place.2.to_owned(), status: 400, reason }),
        }
    }

    /// Sends the request, if it holds anything, and gives back what OpenSearch refuses for good.
    async fn send<'a>(
        &self,
        request: &mut bulk::Request<'_, Place<'a>>,
        done: &mut Indexed,
    ) -> Result<Vec<Refusal<'a>>, Error> {
        let (body, places) = request.take();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let verdicts = match &self.together {
            Some(together) => together.send(request.tenant(), body, places.len()).await?,
            None => post_bulk(&self.client, body, places.len(), self.bulk_timeout).await?,
        };
        let mut refused = Vec::new();
        for (place, verdict) in places.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Created => done.created += 1,
                Verdict::Existing => done.existing += 1,
                Verdict::Refused(reason) => refused.push((place, reason)),
                Verdict::IndexUnusable { status, reason } => {
                    return Err(Error::Unusable { index: place.2.to_owned(), status, reason });
                }
                Verdict::Again { status, reason } => {
                    return Err(Error::Refused { doing: "index events", status, reason });
                }
            }
        }
        Ok(refused)
    }

    async fn call(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Vec<u8>, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = body.map(|body| body.to_string());
        let response = self
            .client
            .send(method, path, headers, Option::<&()>::None, body, None)
            .await
            .map_err(unreachable(doing))?;
        answer(doing, response).await
    }
}

/// About what a batch takes in a request: a document holds what the line says, and has a line of its own before it.
fn expected_bytes(batch: &Batch) -> usize {
    batch.events.iter().map(|event| event.raw_length as usize + DOCUMENT_OVERHEAD).sum()
}

/// The verdicts on so many items, in their order.
async fn post_bulk(client: &OpenSearch, body: Vec<u8>, items: usize, timeout: Duration) -> Result<Vec<Verdict>, Error> {
    let path = format!("/_bulk?timeout={NO_SHARD_TIMEOUT}&filter_path=items.create.status,items.create.error");
    verdicts(&post(client, "index events", &path, body, timeout).await?, items)
}

async fn post(
    client: &OpenSearch,
    doing: &'static str,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<Vec<u8>, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let response = client
        // The client sends `Bytes` as they are, and copies anything else.
        .send(Method::Post, path, headers, Option::<&()>::None, Some(Bytes::from(body)), Some(timeout))
        .await
        .map_err(unreachable(doing))?;
    answer(doing, response).await
}

/// An event, its batch and its index.
type Place<'a> = (&'a Batch, &'a BatchEvent, &'a str);
/// What OpenSearch refuses, and why.
type Refusal<'a> = (Place<'a>, String);

fn unreachable(doing: &'static str) -> impl FnOnce(opensearch::Error) -> Error {
    move |source| Error::Unreachable { doing, source: Arc::new(source) }
}

/// The body of a response, if it succeeded.
async fn answer(doing: &'static str, response: opensearch::http::response::Response) -> Result<Vec<u8>, Error> {
    let status = response.status_code();
    let body = response.bytes().await.map_err(unreachable(doing))?;
    if status.is_success() {
        return Ok(body.to_vec());
    }
    let reason = String::from_utf8_lossy(&body).chars().take(500).collect();
    Err(Error::Refused { doing, status: status.as_u16(), reason })
}
