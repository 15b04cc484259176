//! The index: events as OpenSearch documents, made with `_bulk create` under the event's id.
//!
//! A document that is there already is success. So an index request can be repeated by anybody at
//! any time, as long as it goes to the index that the batch's row names.

mod bulk;
mod document;
mod health;
mod listing;
mod series;
mod together;
mod unusable;

pub use document::{Document, FORM};
pub use health::{Ask, IndexHealth};
pub use listing::Listed;
pub use series::{IndexState, SeriesIndex};
pub use unusable::UnusableIndices;

use std::sync::{Arc, Once};
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
/// Status of a request that is too large for OpenSearch, or for a proxy before it.
const TOO_LARGE: u16 = 413;
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

/// The verdicts on so many items, in their order. A request that is too large for OpenSearch, or for a proxy before it,
/// goes in halves, down to single documents.
async fn post_bulk(client: &OpenSearch, body: Vec<u8>, items: usize, timeout: Duration) -> Result<Vec<Verdict>, Error> {
    let path = format!("/_bulk?timeout={NO_SHARD_TIMEOUT}&filter_path=items.create.status,items.create.error");
    // The first is the last.
    let mut waiting = vec![(Bytes::from(body), items)];
    let mut all = Vec::with_capacity(items);
    while let Some((body, items)) = waiting.pop() {
        match post(client, "index events", &path, body.clone(), timeout).await {
            Ok(answer) => all.extend(verdicts(&answer, items)?),
            Err(Error::Refused { status: TOO_LARGE, .. }) if items > 1 => {
                tell_of_halves(body.len());
                let (first, second) = halves(body, items);
                waiting.extend([second, first]);
            }
            Err(Error::Refused { status: TOO_LARGE, .. }) => {
                all.push(Verdict::Refused(format!("no request of {} bytes is taken (413)", body.len())));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Says once what every large request meets with.
fn tell_of_halves(bytes: usize) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            bytes,
            "OpenSearch, or a proxy before it, takes no request of {bytes} bytes: they go in parts. Allow 8 MiB"
        );
    });
}

/// The lines of the first half of these items, and of the second: two lines each.
fn halves(body: Bytes, items: usize) -> ((Bytes, usize), (Bytes, usize)) {
    let half = items / 2;
    let mut ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let at = ends.nth(2 * half - 1).unwrap_or(body.len());
    ((body.slice(..at), half), (body.slice(at..), items - half))
}

async fn post(
    client: &OpenSearch,
    doing: &'static str,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<Vec<u8>, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let response = client
        // The client sends `Bytes` as they are, and copies anything else.
        .send(Method::Post, path, headers, Option::<&()>::None, Some(body), Some(timeout))
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use runtime::settings::{OpenSearchSettings, TlsSettings};
    use serde_json::{Map, json};
    use uuid::Uuid;

    use super::*;
    use crate::stores::fixtures::tenant;

    /// An OpenSearch behind a proxy that takes requests of at most so many bytes; it tells of each document that it got.
    async fn behind_a_proxy(most: usize) -> (OpenSearch, Arc<std::sync::Mutex<Vec<Value>>>) {
        let got = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&got);
        let bulk = post(async move |body: String| {
            if body.len() > most {
                return (StatusCode::PAYLOAD_TOO_LARGE, "<html>413</html>".to_owned());
            }
            let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let items: Vec<Value> = lines.chunks(2).map(|_| json!({"create": {"status": 201}})).collect();
            seen.lock().unwrap().extend(lines.chunks(2).map(|pair| pair[1].clone()));
            (StatusCode::OK, json!({"items": items}).to_string())
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(axum::serve(listener, Router::new().route("/_bulk", bulk)).into_future());
        let settings = OpenSearchSettings { url, opensearch_credentials: None };
        (runtime::stores::opensearch(&settings, &TlsSettings::default()).unwrap(), got)
    }

    /// A batch of events whose messages have these lengths.
    fn batch(lengths: &[usize]) -> Batch {
        let event = |(number, length): (usize, &usize)| {
            let line = json!({"message": "m".repeat(*length), "service": "s", "n": number}).to_string();
            let event = stages::event(line.as_bytes(), 0).unwrap();
            BatchEvent { id: Uuid::from_u128(number as u128), raw_offset: 0, raw_length: 0, time: 0, flags: 0, event }
        };
        Batch {
            batch_id: Uuid::nil(),
            accepted_at: 0,
            key_id: "k".into(),
            body_hash: None,
            first_batch_id: None,
            raw_start: 0,
            raw_bytes: 0,
            events: lengths.iter().enumerate().map(event).collect(),
            dead_letters: Vec::new(),
            dropped: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_request_that_is_too_large_goes_in_parts_and_a_document_that_is_holds_its_message_only() {
        const MOST: usize = 100_000;
        let batch = batch(&[10, 20_000, 90_000, 30_000, 200_000, 10, 60_000]);
        for together in [false, true] {
            let (client, got) = behind_a_proxy(MOST).await;
            let index = Index::new(client);
            let index = if together { index.together() } else { index };
            let done = index.create(&tenant("acme"), &[(&batch, "i")]).await.unwrap();
            assert_eq!(done, Indexed { created: 7, existing: 0, reduced: 1 });
            let got = got.lock().unwrap();
            let of = |number: u128| -> &Map<String, Value> {
                let id = json!(Uuid::from_u128(number));
                let mut found = got.iter().filter(|document| document["id"] == id);
                let document = found.next().unwrap().as_object().unwrap();
                assert!(found.next().is_none(), "once");
                document
            };
            for (number, event) in (0..).zip(&batch.events) {
                assert_eq!(of(number)["message"], json!(event.event.message), "{number}");
                assert_eq!(of(number).contains_key("index_error"), number == 4, "{number}");
                assert_eq!(of(number).contains_key("full_log"), [1, 2, 3, 6].contains(&number), "{number}");
            }
        }
    }

    #[test]
    fn halves_are_cut_between_documents() {
        for (items, first, second) in [(2, "a\n1\n", "b\n2\n"), (3, "a\n1\n", "b\n2\nc\n3\n")] {
            let body = ["a\n1\n", "b\n2\n", "c\n3\n"][..items].concat();
            let (one, other) = halves(body.into(), items);
            assert_eq!((one, other), ((first.into(), 1), (second.into(), items - 1)));
        }
    }
}
