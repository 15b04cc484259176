//! The control: the same documents sent straight to OpenSearch, with nothing of ours between.
//!
//! - The documents are what the processor makes of the same lines, by the processor's own code,
//!   rendered before anything is measured. While it runs, the client only copies them and writes
//!   fresh ids and times over: it costs less than any real client could.
//! - They go to an index of a dedicated tenant: made by our index template, so with the same mapping,
//!   analyzer, one shard, refresh every 500 ms, a translog that is fsynced before each answer.
//! - `_bulk create` with our ids (UUIDv7, ordered by time) and the tenant's routing, 2,000 documents
//!   a request as in a full flush, two requests in flight like the processor's two workers. Ids of
//!   our own cost OpenSearch some 10 % more than ids that it makes; they are what makes a redelivery
//!   harmless, so both sides pay. `BENCH_CONTROL_IDS=auto` leaves them to OpenSearch.
//! - The answer is filtered to whether something failed: less than the processor asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use dataplane::queue::entry::{BatchHeader, EventHeader, Header};
use dataplane::stores::batch::{Treatment, map};
use dataplane::stores::index::Document;
use serde_json::json;
use testkit::Tenant;
use uuid::Uuid;

use crate::bed::{Bed, copy};
use crate::corpus::{Fresh, TIME_MARK, TRACE_MARK, Texts};
use crate::load::{Source, Target};
use crate::wire;

/// Documents of one request.
const DOCUMENTS: usize = 2000;
/// Requests in flight.
const CONNECTIONS: usize = 2;
/// The time that [`TIME_MARK`] says, in microseconds since 1970.
const MARKED_TIME: i64 = 1_767_225_600_000_000;
/// The batch whose id stands in the rendered documents.
const MARKED_BATCH: Uuid = Uuid::from_u128(0x0193_d5aa_77c1_7b3a_9c2e_5a7f_1b2c_3d4e);

/// Who makes the documents' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ids {
    /// We, as the processor does.
    Own,
    /// OpenSearch.
    Auto,
}

/// Where the control's requests go: into `tenant`'s index.
pub(crate) fn target(bed: &Bed, tenant: &Tenant, ids: Ids) -> anyhow::Result<Target> {
    let texts = Arc::new(documents(&bed.lines, tenant, ids)?);
    let (random, next) = (Arc::clone(&bed.random), AtomicUsize::new(0));
    let source: Source = Arc::new(move |request: &mut Vec<u8>| {
        let first = next.fetch_add(DOCUMENTS, Ordering::Relaxed);
        let path = "/_bulk?filter_path=errors,items.*.error";
        let at = wire::begin(request, path, "content-type: application/x-ndjson\r\n");
        copy(&texts, first, DOCUMENTS, &random, request);
        wire::end(request, at);
        DOCUMENTS as u64
    });
    let url = &bed.stores.opensearch.url;
    let address = format!("{}:{}", url.host_str().context("no host")?, url.port_or_known_default().unwrap_or(9200));
    Ok(Target {
        address: address.parse().with_context(|| format!("{address} is not an address"))?,
        source,
        verdict: indexed,
        connections: CONNECTIONS,
    })
}

/// Whether a `_bulk` took all of its documents.
pub(crate) fn indexed(answer: &wire::Answer<'_>) -> bool {
    answer.status == 200 && answer.body.starts_with(br#"{"errors":false"#)
}

/// What the processor would index of each line: action and document.
fn documents(lines: &Texts, tenant: &Tenant, ids: Ids) -> anyhow::Result<Texts> {
    let index = crds::names::index_name(&tenant.registered.index_series, 1);
    let tenant = tenant.desired.name().as_str();
    let mut texts = Texts::default();
    for at in 0..lines.len() {
        let line = lines.get(at).trim_ascii_end();
        let event = EventHeader { length: line.len() as u32, time: Some(MARKED_TIME), rejected: None };
        let batch = BatchHeader {
            batch_id: MARKED_BATCH,
            accepted_at: MARKED_TIME,
            key_id: String::new(),
            body_hash: None,
            events: vec![event],
        };
        let batches = map(&Header { batches: vec![batch] }, line, Treatment::Process);
        let batch = batches.first().context("no batch")?;
        let event = batch.events.first().with_context(|| format!("dead letters: {:?}", batch.dead_letters))?;
        let action = match ids {
            Ids::Own => json!({"create": {"_index": index, "_id": event.id, "routing": tenant}}),
            Ids::Auto => json!({"create": {"_index": index, "routing": tenant}}),
        };
        let mut text = serde_json::to_vec(&action)?;
        text.push(b'\n');
        let accepted_at = dataplane::event::rfc3339(batch.accepted_at);
        serde_json::to_writer(&mut text, &Document::new(tenant, batch, &accepted_at, event))?;
        text.push(b'\n');
        let (id, batch_id) = (event.id.to_string(), batch.batch_id.to_string());
        let marks = [
            (TIME_MARK, Fresh::Time),
            (TRACE_MARK, Fresh::Trace),
            (id.as_str(), Fresh::Id),
            (batch_id.as_str(), Fresh::Batch),
        ];
        texts.push(&text, &marks);
    }
    Ok(texts)
}
