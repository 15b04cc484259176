//! Which store answers what: the catalog lists, index or raw bytes tell the rest of an event; and what an answer says of
//! itself when one of them is away.

mod answers;
mod complete;
mod counts;
mod doubts;
mod grep;

pub use counts::{Counts, Surety};
pub(super) use doubts::{INDEX_LOOSE, INDEX_PARTIAL, INDEX_UNKNOWN};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::batch::{Batch, BatchState, Resend};
use api::event::{Event, Item, Listing, Source};
use query::Page;
use query::cursor::Cursor;
use runtime::logging::chain;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Error;
use super::coverage::{self, Coverage, Known};
use super::limits::Meter;
use super::scan::{self, Scanner};
use super::show::cut;
use super::waiting::{Waiting, Waits};
use crate::event::{Micros, rfc3339};
use crate::fair::workers::Workers;
use crate::stores::archive::Archive;
use crate::stores::raw;
use crate::stores::read::{Catalog, Document, Index, IndexError, Row, StoredBatch};
use crate::tenancy::{Receipt, Tenant};

/// Said while accepted events wait in the queue.
pub(super) const QUEUED: &str = "some accepted events are still in the queue; they are found once they are stored";
/// Said while nobody knows.
pub(super) const QUEUE_UNKNOWN: &str = "the queue doesn't say whether accepted events are still in it; ask again";
/// Said of a search for a text in the list.
const TEXT_CUT: &str =
    "`text` looks at the first 500 characters of each message; GET /api/search?q= looks at all of it";
/// Said of an event that only the index could be asked for.
const CATALOG_AWAY: &str = "the catalog doesn't answer; `raw_path` and `indexed` are not known";
/// Said of an event whose raw bytes couldn't be had.
const RAW_AWAY: &str = "neither the index nor the raw bytes could be read; this is the event's row alone";

/// Said of a batch of which only its receipt is known.
const BATCH_UNKNOWN: &str = "the catalog doesn't answer; the batch is kept, and how far it has come is not known";
/// Said of a batch that the receipt was not given for.
const EARLIER_BATCH: &str = "an earlier request's batch under the same Idempotency-Key; the receipt's own request brought \
     the same body, or is still queued";

/// Everything that answers come from. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    /// Rows, batches, spool.
    pub catalog: Catalog,
    /// Full text.
    pub index: Index,
    /// Archived raw bytes.
    pub archive: Archive,
    /// The queue, for what is in no store yet.
    pub waiting: Waiting,
    /// How long one request reads raw lines.
    pub patience: Duration,
    known: Known,
    fields: complete::KnownFields,
    /// Places at which raw lines are looked at.
    workers: Workers,
    /// What the request takes of the CPUs.
    meter: Meter,
    /// Cancelled once the request's client has left.
    left: CancellationToken,
}

impl Reader {
    /// Over these stores.
    pub fn new(catalog: Catalog, index: Index, archive: Archive, waiting: Waiting) -> Self {
        let (known, fields, meter, left) = Default::default();
        let (patience, workers) = (scan::PATIENCE, scan::workers());
        Self { catalog, index, archive, waiting, patience, known, fields, workers, meter, left }
    }

    /// The same for one request: what it takes of the CPUs goes to `meter`, and a scan ends when `left` is cancelled.
    pub(super) fn of_request(&self, meter: Meter, left: CancellationToken) -> Self {
        Self { meter, left, ..self.clone() }
    }

    pub(super) fn scanner(&self) -> Scanner {
        let Self { catalog, archive, patience, workers, meter, left, .. } = self.clone();
        Scanner { catalog, archive, workers, meter, left, patience }
    }

    /// A page of the plain list.
    pub async fn list(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Listing, Error> {
        let (rows, waits) = tokio::join!(self.catalog.page(tenant, page), self.waiting.of(tenant, now));
        Ok(catalog_listing(rows?, page, listed(waits, page)))
    }

    /// The rows of a page of the plain list.
    pub(super) async fn listed(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Rows, Error> {
        let (rows, waits) = tokio::join!(self.catalog.page(tenant, page), self.waiting.of(tenant, now));
        let (rows, next) = cut(rows?, page.limit, |row| row.place);
        Ok(Rows { rows, next, source: Source::Catalog, notice: listed(waits, page).map(Cow::Borrowed) })
    }

    /// The rows of a page of a search.
    pub(super) async fn searched(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Rows, Error> {
        let Listing { items, next_cursor, source, notice, .. } = self.search(tenant, page, now).await?;
        let next = next_cursor.and_then(|next| Cursor::decode(&next, page.asked).ok());
        let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
        let rows = self.catalog.found(tenant, &ids, page.order).await?.rows;
        Ok(Rows { rows, next, source, notice })
    }

    /// What an answer of the index over a page's time may have missed, where it was asked by other means.
    pub(super) async fn lacking(
        &self,
        tenant: &Tenant,
        page: &Page,
        partial: bool,
        now: Micros,
    ) -> Option<&'static str> {
        doubts::missing(doubts::Doubts { partial, ..self.doubts(tenant, page, now).await })
    }

    /// One whole event; `None` if the tenant has no such event.
    pub async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Event>, Error> {
        let row = match self.catalog.event(tenant, id).await {
            Ok(None) => return Ok(None),
            Ok(Some(row)) => row,
            Err(error) => {
                let document = self.document(tenant, id).await.ok_or(error)?;
                return Ok(Some(event_of_document(tenant, document)));
            }
        };
        if row.item.indexed
            && let Some(document) = self.document(tenant, id).await
        {
            return Ok(Some(Event {
                item: Item { message: document.message, ..row.item },
                full_log: document.full_log,
                metadata: document.metadata,
                attributes: document.attributes,
                source: Source::Index,
                complete: true,
                notice: None,
            }));
        }
        Ok(Some(self.event_from_raw(tenant, row).await))
    }

    /// One batch. Before it is stored, its receipt is the only one who knows of it. A receipt is of
    /// this tenant and batch.
    pub async fn batch(
        &self,
        tenant: &Tenant,
        id: Uuid,
        receipt: Option<Receipt>,
        now: Micros,
    ) -> Result<Batch, Error> {
        let kept_after = tenant.kept_after(now);
        match (self.catalog.batches(tenant, id).await, receipt) {
            (Ok(stored), receipt) => batch_of(stored, id, receipt, kept_after),
            (Err(error), Some(receipt)) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "tell of a batch by its receipt alone");
                Ok(Batch { complete: false, notice: Some(BATCH_UNKNOWN.into()), ..queued(receipt) })
            }
            (Err(error), None) => Err(error.into()),
        }
    }

    /// What the index holds of what it was given; `None` if it does not say.
    pub(super) async fn coverage(&self, tenant: &Tenant, now: Micros) -> Result<Option<Arc<Coverage>>, Error> {
        if let Some(known) = self.known.get(tenant.name(), Instant::now()) {
            return Ok(Some(known));
        }
        let kept = tenant.registered();
        let moments = coverage::moments(kept.hot_days, kept.total_days, now);
        let probes = self.catalog.probes(tenant, &moments).await?;
        let ids: Vec<Uuid> = probes.iter().map(|probe| probe.id).collect();
        let asked: Result<_, IndexError> =
            async { Ok((self.index.held(tenant, &ids).await?, self.index.newest_reduced(tenant).await?)) }.await;
        let (held, newest_reduced) = match asked {
            Ok((Some(held), newest_reduced)) => (held, newest_reduced),
            Ok((None, _)) => return Ok(None),
            Err(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "what the index holds is not known");
                return Ok(None);
            }
        };
        let coverage = Arc::new(Coverage::new(&probes, &held, newest_reduced));
        self.known.put(tenant.name(), Arc::clone(&coverage), Instant::now());
        Ok(Some(coverage))
    }

    /// The event from the index, if it holds all of it.
    async fn document(&self, tenant: &Tenant, id: Uuid) -> Option<Document> {
        match self.index.event(tenant, id).await {
            Ok(document) => document.filter(|document| document.index_error.is_none()),
            Err(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "read an event without the index");
                None
            }
        }
    }

    async fn event_from_raw(&self, tenant: &Tenant, row: Row) -> Event {
        let read = match raw::read(&self.catalog, &self.archive, tenant, row.raw).await {
            // Archived between our reading its row and its frame: its row says now where it went.
            Ok(None) => self.raw_moved(tenant, row.item.id).await,
            read => read,
        };
        match read {
            Ok(Some((bytes, source))) => event_of_raw(row, &bytes, source),
            Ok(None) => event_of_row(row),
            Err(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "show an event's row alone");
                event_of_row(row)
            }
        }
    }

    async fn raw_moved(&self, tenant: &Tenant, id: Uuid) -> Result<Option<(Vec<u8>, Source)>, raw::RawError> {
        match self.catalog.event(tenant, id).await? {
            Some(row) => raw::read(&self.catalog, &self.archive, tenant, row.raw).await,
            None => Ok(None),
        }
    }
}

/// The rows of a page, and what it may have missed.
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// Where the next page begins; `None` on the last.
    pub(super) next: Option<Cursor>,
    pub(super) source: Source,
    /// Why it is not complete.
    pub(super) notice: Option<Cow<'static, str>>,
}

pub(super) fn catalog_listing(rows: Vec<Row>, page: &Page, notice: Option<&'static str>) -> Listing {
    let (rows, next) = cut(rows, page.limit, |row| row.place);
    Listing {
        items: rows.into_iter().map(|row| row.item).collect(),
        next_cursor: next.map(|cursor: Cursor| cursor.encode(page.asked)),
        source: Source::Catalog,
        complete: notice.is_none(),
        notice: notice.map(Cow::Borrowed),
        scanned: None,
    }
}

/// What a list may have missed, the most urgent first.
fn listed(waits: Waits, page: &Page) -> Option<&'static str> {
    match waits {
        Waits::Something => Some(QUEUED),
        _ if page.query.as_ref().is_some_and(query::Query::asks_for_a_shown_message) => Some(TEXT_CUT),
        Waits::Unknown => Some(QUEUE_UNKNOWN),
        Waits::Nothing => None,
    }
}

/// What is told of a batch: with a receipt, of the very request that it was given for.
fn batch_of(
    mut stored: Vec<StoredBatch>,
    id: Uuid,
    receipt: Option<Receipt>,
    kept_after: Micros,
) -> Result<Batch, Error> {
    let of_request =
        receipt.as_ref().and_then(|receipt| stored.iter().position(|batch| batch.accepted_at == receipt.accepted_at));
    let first = || stored.iter().position(|batch| batch.shown.batch_id == id);
    let Some(at) = of_request.or_else(first) else {
        return match receipt {
            Some(receipt) if receipt.accepted_at > kept_after => Ok(queued(receipt)),
            Some(_) => Err(Error::Expired),
            None => Err(Error::NotFound),
        };
    };
    let mut batch = stored.swap_remove(at).shown;
    if batch.batch_id == id {
        stored.sort_by_key(|resend| resend.accepted_at);
        batch.resends = stored.into_iter().map(|resend| resend_of(resend.shown)).collect();
    }
    if receipt.is_some() && of_request.is_none() {
        batch.notice = Some(EARLIER_BATCH.into());
    }
    Ok(batch)
}

fn resend_of(batch: Batch) -> Resend {
    let Batch { batch_id, accepted_at, events, dead_letters, .. } = batch;
    Resend { batch_id, accepted_at, events, dead_letters }
}

fn queued(receipt: Receipt) -> Batch {
    Batch {
        batch_id: receipt.batch_id,
        first_batch_id: None,
        state: BatchState::Queued,
        events: i64::from(receipt.events),
        dead_letters: None,
        dropped: None,
        accepted_at: rfc3339(receipt.accepted_at),
        stored_at: None,
        indexed_at: None,
        archived_at: None,
        resends: Vec::new(),
        source: Source::Queue,
        complete: true,
        notice: None,
    }
}

fn event_of_document(tenant: &Tenant, document: Document) -> Event {
    Event {
        item: Item {
            id: document.id,
            timestamp: document.timestamp,
            accepted_at: document.accepted_at,
            tenant: tenant.name().to_string(),
            service: document.service,
            application: document.application,
            level: document.level,
            message: document.message,
            language: document.language,
            batch_id: document.batch_id,
            raw_path: None,
            indexed: true,
            flags: document.flags,
        },
        full_log: document.full_log,
        metadata: document.metadata,
        attributes: document.attributes,
        source: Source::Index,
        complete: false,
        notice: Some(CATALOG_AWAY.into()),
    }
}

/// The stored line is read as it was when it was stored. It went through its pipeline's stages before that.
fn event_of_raw(row: Row, raw: &[u8], source: Source) -> Event {
    match stages::event(raw, row.accepted_at) {
        Ok(event) => Event {
            item: row.item,
            full_log: event.full_log,
            metadata: event.metadata,
            attributes: event.attributes,
            source,
            complete: true,
            notice: None,
        },
        Err(error) => {
            tracing::warn!(error = %chain(&error), "show an event's row alone");
            event_of_row(row)
        }
    }
}

fn event_of_row(row: Row) -> Event {
    Event {
        item: row.item,
        full_log: None,
        metadata: None,
        attributes: None,
        source: Source::Catalog,
        complete: false,
        notice: Some(RAW_AWAY.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_it_may_have_missed() {
        let plain = Page::default();
        let text = query::params::list(&[("text".to_owned(), "x".to_owned())], 0).unwrap();
        for (waits, page, notice) in [
            (Waits::Nothing, &plain, None),
            (Waits::Unknown, &plain, Some(QUEUE_UNKNOWN)),
            (Waits::Something, &plain, Some(QUEUED)),
            (Waits::Nothing, &text, Some(TEXT_CUT)),
            (Waits::Something, &text, Some(QUEUED)),
        ] {
            assert_eq!(listed(waits, page), notice, "{waits:?} {page:?}");
        }
    }

    #[test]
    fn a_receipt_tells_of_the_very_request_that_it_was_given_for() {
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let receipt = |accepted_at| Receipt { tenant: "acme".parse().unwrap(), batch_id: id, accepted_at, events: 3 };
        let stored = |batch_id, accepted_at, first_batch_id| StoredBatch {
            accepted_at,
            shown: Batch { batch_id, first_batch_id, state: BatchState::Stored, ..queued(receipt(accepted_at)) },
        };
        let both = || vec![stored(id, 100, None), stored(other, 200, Some(id))];
        for (what, stored, sent, expected) in [
            ("the first's", both(), Some(100), Ok((id, BatchState::Stored, 1, false))),
            ("the other body's", both(), Some(200), Ok((other, BatchState::Stored, 0, false))),
            ("the same body's again", both(), Some(300), Ok((id, BatchState::Stored, 1, true))),
            ("none", both(), None, Ok((id, BatchState::Stored, 1, false))),
            ("nothing stored", vec![], Some(100), Ok((id, BatchState::Queued, 0, false))),
            ("nothing stored any more", vec![], Some(50), Err("Expired")),
            ("nothing at all", vec![], None, Err("NotFound")),
        ] {
            let told = batch_of(stored, id, sent.map(receipt), 50);
            let told = told
                .map(|batch| (batch.batch_id, batch.state, batch.resends.len(), batch.notice.is_some()))
                .map_err(|error| format!("{error:?}"));
            assert_eq!(told, expected.map_err(str::to_owned), "{what}");
        }
    }
}
