//! An export: whole events, page by page, as they flow to the client.
//!
//! ```text
//!  find a page ─► rows ─► portions ─► raw lines ─► bytes ─► client
//!     └ the next one meanwhile
//! ```
//! What is in memory is bounded by bytes, whatever an event has. A client that leaves ends it, and one that reads slowly
//! slows it down. A store that fails for a moment is asked again; for longer, the export ends with a cursor.

mod form;

pub(super) use form::is_formula;

use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

use api::export::{EVENTS_HEADER, Exported, Summary};
use api::parameters::{Format, MAX_EXPORT};
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use query::params::export::Export;
use query::{Cursor, Page};
use runtime::logging::chain;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::limits::{Exporting, TooMany};
use super::reader::Rows;
use super::routes::{now, read};
use super::whole::WholeEvent;
use super::{Error, Search};
use crate::stores::raw::portions;
use crate::stores::read::Row;
use crate::tenancy::Caller;

/// Events that are looked up at once: a list page of the largest size ten times over.
const PAGE: u32 = 5_000;
/// Raw bytes of the events that are read at once, unless one has more.
const PORTION: u64 = 4 * 1024 * 1024;
/// Portions that are made at once.
const AT_ONCE: usize = 2;
/// Portions that wait for the client.
const WAITING: usize = 1;
/// Longest wait for the number of events: nobody waits long for the first of them.
const COUNTING: Duration = Duration::from_secs(2);
/// How often the stores are asked before an export ends early, and how long between: a restart takes some seconds.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// Said of an export that ends at its limit.
const LIMIT: &str = "there are more events; go on with `next_cursor`";
/// Said of an export that ends early.
const FAILED: &str = "the stores can't answer now; go on later with `next_cursor`";
/// Said of an export with events of which only rows are left.
const RAW_AWAY: &str = "the raw lines of some events could not be read: these have `complete: false`";

/// Answers with an export. What can be refused is refused before the first byte.
pub(super) async fn answer(search: Search, caller: Caller, export: Export) -> Result<Response, Error> {
    let place = search.limits.export(caller.tenant.name())?;
    let limit = u32::try_from(export.limit).map_or(PAGE, |limit| limit.min(PAGE));
    let mut page = Page { limit, ..export.page.clone() };
    if let Some(id) = export.after {
        let row =
            read(&search, &caller, move |reader, tenant| async move { Ok(reader.catalog.event(&tenant, id).await?) });
        page.after = Some(row.await?.ok_or(Error::NotFound)?.place);
    }
    let (first, count) = tokio::join!(find(&search, &caller, page.clone()), count(&search, &caller, page.clone()));
    let (format, name) = (export.format, caller.tenant.name().clone());
    let (sender, receiver) = mpsc::channel(WAITING);
    let work = Work { search, caller, export, out: sender, _place: place };
    tokio::spawn(work.run(page, first?).in_current_span());
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<Bytes, Infallible>(bytes), receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form::media_type(format)));
    let extension = if format == Format::Text { "txt" } else { format.as_str() };
    if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"loggerhub-{name}.{extension}\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    if let Some(count) = count.and_then(|count| HeaderValue::try_from(count).ok()) {
        headers.insert(EVENTS_HEADER, count);
    }
    Ok(response)
}

/// How many events there are, where it can be known at once.
async fn count(search: &Search, caller: &Caller, page: Page) -> Option<String> {
    // Those behind a cursor are not all.
    if page.after.is_some() {
        return None;
    }
    let counting = read(search, caller, move |reader, tenant| async move {
        // A count that takes too long is given up, not continued.
        let count = timeout(COUNTING, async {
            match &page.query {
                Some(_) => Ok::<_, Error>(reader.index.count(&tenant, &page, MAX_EXPORT + 1).await?),
                None => Ok(Some(reader.catalog.count(&tenant, &page, MAX_EXPORT + 1).await?)),
            }
        });
        count.await.unwrap_or(Ok(None))
    });
    match counting.await {
        Ok(count) => count.map(|count| match count {
            0..=MAX_EXPORT => count.to_string(),
            _ => format!("{MAX_EXPORT}+"),
        }),
        Err(error) => {
            tracing::debug!(error = %chain(&error), "export without a count");
            None
        }
    }
}

async fn find(search: &Search, caller: &Caller, page: Page) -> Result<Rows, Error> {
    let find = |reader: super::Reader, tenant: std::sync::Arc<crate::tenancy::Tenant>| async move {
        match &page.query {
            Some(_) => reader.searched(&tenant, &page, now()).await,
            None => reader.listed(&tenant, &page, now()).await,
        }
    };
    read(search, caller, find).await
}

/// The work of one export.
struct Work {
    search: Search,
    caller: Caller,
    export: Export,
    out: mpsc::Sender<Bytes>,
    _place: Exporting,
}

/// What has been sent so far.
#[derive(Default)]
struct Sent {
    events: u64,
    last: Option<Cursor>,
    notice: Option<Cow<'static, str>>,
}

/// Some events, ready to be sent.
struct Portion {
    bytes: Vec<u8>,
    events: u64,
    last: Option<Cursor>,
    lacks_lines: bool,
}

impl Work {
    /// Sends everything, and the last line.
    async fn run(self, page: Page, first: Rows) {
        let mut sent = Sent { last: page.after, ..Sent::default() };
        let mut head = Vec::new();
        form::begin(self.export.format, &mut head);
        if !head.is_empty() && self.out.send(head.into()).await.is_err() {
            return;
        }
        // A client that left ends it, whatever is being done.
        let complete = tokio::select! {
            complete = self.pages(&page, first, &mut sent) => complete,
            () = self.out.closed() => return,
        };
        let Some(complete) = complete else { return };
        let next_cursor = sent.last.filter(|_| !complete).map(|last| last.encode(page.asked));
        let complete = complete && sent.notice.is_none();
        let summary = Summary { events: sent.events, complete, next_cursor, notice: sent.notice };
        let mut end = Vec::new();
        form::end(self.export.format, summary, &mut end);
        if self.out.send(end.into()).await.is_err() {
            tracing::debug!("a client left before the last line of its export");
        }
    }

    /// Sends page after page, and says whether the last was reached; `None` if the client left.
    async fn pages(&self, page: &Page, first: Rows, sent: &mut Sent) -> Option<bool> {
        let mut found = first;
        loop {
            let left = usize::try_from(self.export.limit - sent.events).unwrap_or(usize::MAX);
            let is_cut = found.rows.len() > left;
            found.rows.truncate(left);
            sent.notice = sent.notice.take().or(found.notice.take());
            let goes_on = !is_cut && found.rows.len() < left;
            let next = found.next.filter(|_| goes_on).map(|next| {
                let (search, caller) = (self.search.clone(), self.caller.clone());
                let page = Page { after: Some(next), ..page.clone() };
                tokio::spawn(async move { patiently(|| find(&search, &caller, page.clone())).await }.in_current_span())
            });
            match self.rows(found.rows, sent).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(failed(&error, sent)),
            }
            let Some(next) = next else {
                let more = is_cut || found.next.is_some();
                if more {
                    sent.notice = Some(LIMIT.into());
                }
                return Some(!more);
            };
            // Of a page whose events have all expired, this is the end.
            sent.last = found.next;
            found = match next.await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Some(failed(&error, sent)),
                Err(_) => return Some(failed(&Error::Broken, sent)),
            };
        }
    }

    /// Sends these events; false if the client left.
    async fn rows(&self, rows: Vec<Row>, sent: &mut Sent) -> Result<bool, Error> {
        let length = |row: &Row| u64::try_from(row.raw.length).unwrap_or(0);
        let portions = portions(rows, PORTION, length).into_iter().map(|rows| self.portion(rows));
        let mut portions = std::pin::pin!(stream::iter(portions).buffered(AT_ONCE));
        while let Some(portion) = portions.next().await {
            let portion = portion?;
            if portion.lacks_lines {
                sent.notice = sent.notice.take().or(Some(RAW_AWAY.into()));
            }
            if self.out.send(portion.bytes.into()).await.is_err() {
                return Ok(false);
            }
            sent.events += portion.events;
            sent.last = portion.last;
        }
        Ok(true)
    }

    async fn portion(&self, rows: Vec<Row>) -> Result<Portion, Error> {
        let (last, events) = (rows.last().map(|row| row.place), rows.len() as u64);
        let (reader, tenant) = (&self.search.reader, &self.caller.tenant);
        let whole = patiently(|| reader.whole(tenant, rows.clone())).await?;
        let (format, raw) = (self.export.format, self.export.raw);
        // Writing megabytes of JSON stays off the threads that serve everything else.
        let write = move || {
            let (mut bytes, mut lacks_lines) = (Vec::new(), false);
            for event in whole.into_iter().map(exported) {
                lacks_lines |= !event.complete;
                form::event(format, raw, &event, &mut bytes);
            }
            Portion { bytes, events, last, lacks_lines }
        };
        tokio::task::spawn_blocking(write).await.map_err(|_| Error::Broken)
    }
}

fn exported(WholeEvent { row, event }: WholeEvent) -> Exported {
    let complete = event.is_some();
    let (full_log, metadata, attributes) =
        event.map(|event| (event.full_log, event.metadata, event.attributes)).unwrap_or_default();
    Exported { item: row.item, full_log, metadata, attributes, complete }
}

/// Not all was sent.
fn failed(error: &Error, sent: &mut Sent) -> bool {
    tracing::warn!(error = %chain(error), "end an export early");
    sent.notice = Some(FAILED.into());
    false
}

/// Asks again where that may help.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> Result<T, Error> {
    let mut tries = 1;
    loop {
        match ask().await {
            Err(Error::TooMany(TooMany { retry_after })) if tries < TRIES => {
                sleep(Duration::from_secs(retry_after)).await
            }
            Err(Error::Catalog(_) | Error::Raw(_) | Error::Index(_) | Error::Broken) if tries < TRIES => {
                sleep(PAUSE).await;
            }
            done => return done,
        }
        tries += 1;
    }
}
