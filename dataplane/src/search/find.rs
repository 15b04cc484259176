//! A page of a search: what the index finds, and a scan of the raw lines for what it does not hold.
//!
//! ```text
//!  index ─ places ─┬─────────────────────────────────► merge ─► rows
//!                  └─ what it lacks ─► scan ─ places ──┘           (index away: a scan of everything)
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;

use api::event::{Listing, Source};
use query::cursor::Cursor;
use query::{Order, Page};
use runtime::logging::chain;
use uuid::Uuid;

use super::Error;
use super::coverage::Lack;
use super::reader::{INDEX_LOOSE, INDEX_PARTIAL, INDEX_UNKNOWN, QUEUE_UNKNOWN, QUEUED, Reader, catalog_listing};
use super::scan::{Scanned, Scope};
use super::show::cut;
use super::waiting::Waits;
use crate::event::{Micros, rfc3339};
use crate::stores::read::{Among, CatalogError, Hits};
use crate::tenancy::Tenant;

/// Events in part of which one page is told; there are few at any time.
const MOST_REDUCED: u32 = 1000;

/// Said while neither the index nor the raw lines can be read.
const NO_LINES: &str = "neither the search index nor the raw lines can be read; this is a search of the first 500 \
     characters of each message, without `full_log`, `metadata` and `attributes`: nothing is found by words that are \
     excluded";
/// Said where the raw lines of what the index lacks can't be read.
const LACKING: &str = "the index lacks events of this time range, and their raw lines can't be read now; GET /api/logs \
     lists them";
/// Said where raw lines are gone.
const UNREAD: &str = "the raw lines of some events are gone, so it is not known whether they match; GET /api/logs lists \
     them";

/// What an answer may have missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubts {
    /// A part of the index did not answer.
    partial: bool,
    /// What waits in the queue.
    waits: Waits,
    /// Where a scan ended because its time was over.
    ended_at: Option<Micros>,
    /// What the index lacks can't be read.
    lacking: bool,
    /// Raw lines are gone.
    unread: bool,
    /// What the index holds is not known.
    unknown: bool,
    /// A prefix was taken for more than it is.
    loose: bool,
}

/// What the index lacks of a page.
#[derive(Debug, Default)]
struct Lacking {
    /// Which events: they are looked for in the raw lines, and not in the index.
    among: Among,
    /// As far as which these are all, if there are more.
    floor: Option<Cursor>,
    /// Whether that is all that is known to be lacking.
    unknown: bool,
}

impl Reader {
    /// A page of a search.
    pub async fn search(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Listing, Error> {
        match self.index.search(tenant, page).await {
            Ok(hits) => self.search_index(tenant, page, hits, now).await,
            Err(error) if !error.is_outage() => Err(error.into()),
            Err(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "search the raw lines instead of the index");
                self.search_lines(tenant, page, now).await
            }
        }
    }

    /// A page of what the index found, completed by a scan of what it lacks.
    async fn search_index(&self, tenant: &Tenant, page: &Page, hits: Hits, now: Micros) -> Result<Listing, Error> {
        let (places, next) = cut(hits.places.clone(), page.limit, |place| *place);
        let (coverage, waits) = tokio::join!(self.coverage(tenant, now), self.waiting.of(tenant, now));
        let coverage = coverage?;
        let lack = coverage.as_ref().map(|coverage| coverage.lack(page)).unwrap_or_default();
        let found = self.catalog.found(tenant, &ids(&places), page.order).await?;
        let doubts = Doubts {
            partial: hits.partial,
            waits,
            ended_at: None,
            lacking: false,
            unread: false,
            unknown: coverage.is_none(),
            loose: hits.loose,
        };
        if lack == Lack::default() && !found.index_is_behind {
            // An event whose row is gone has expired: it is dropped here, before the index drops it.
            let items = found.rows.into_iter().map(|row| row.item).collect();
            return Ok(listing(items, next, page, Source::Index, &doubts));
        }

        let lacking = self.lacking_of(tenant, page, lack, found.index_is_behind).await?;
        let unknown = doubts.unknown || lacking.unknown;
        let more = hits.places.get(page.limit as usize).copied();
        let floor = first(page.order, more, lacking.floor);
        let scope = Scope { page, among: Some(&lacking.among), floor };
        let scanned = match self.scanner().scan(tenant, scope).await {
            Ok(scanned) => scanned,
            Err(error) if is_of_lines(&error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "answer from an index that lacks events");
                let items = found.rows.into_iter().map(|row| row.item).collect();
                let doubts = Doubts { lacking: true, unknown, ..doubts };
                return Ok(listing(items, next, page, Source::Index, &doubts));
            }
            Err(error) => return Err(error),
        };
        let sound = hits.places.into_iter().filter(|place| !lacking.among.has(place.event_id)).collect();
        let (places, next) = {
            let reached = first(page.order, scanned.ended_at, floor);
            merge(page, sound, scanned.places.clone(), reached)
        };
        let rows = self.catalog.rows(tenant, &ids(&places), page.order).await?;
        let items = rows.into_iter().map(|row| row.item).collect();
        let ended_at = scanned.ended_at.map(|at| at.time);
        let doubts = Doubts { ended_at, unread: scanned.unread > 0, unknown, ..doubts };
        let source = if scanned.events > 0 { Source::IndexAndScan } else { Source::Index };
        let scan = (scanned.events > 0 || ended_at.is_some()).then(|| told(&scanned));
        Ok(Listing { scanned: scan, ..listing(items, next, page, source, &doubts) })
    }

    /// A page of what stands in the raw lines.
    async fn search_lines(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Listing, Error> {
        let scope = Scope { page, among: None, floor: None };
        let scanner = self.scanner();
        let (scanned, waits) = tokio::join!(scanner.scan(tenant, scope), self.waiting.of(tenant, now));
        let scanned = match scanned {
            Ok(scanned) => scanned,
            Err(error @ Error::Raw(_)) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "search the catalog instead of raw lines");
                let rows = self.catalog.page(tenant, page).await?;
                return Ok(catalog_listing(rows, page, Some(NO_LINES)));
            }
            Err(error) => return Err(error),
        };
        let (places, next) = merge(page, Vec::new(), scanned.places.clone(), scanned.ended_at);
        let rows = self.catalog.rows(tenant, &ids(&places), page.order).await?;
        let items = rows.into_iter().map(|row| row.item).collect();
        let doubts = Doubts {
            partial: false,
            waits,
            ended_at: scanned.ended_at.map(|at| at.time),
            lacking: false,
            unread: scanned.unread > 0,
            unknown: false,
            loose: false,
        };
        // Rows alone say whether a query that asks for nothing else finds them.
        let asks_lines = page.query.as_ref().is_some_and(query::Query::asks_for_the_whole);
        let source = if asks_lines { Source::Scan } else { Source::Catalog };
        Ok(Listing { scanned: Some(told(&scanned)), ..listing(items, next, page, source, &doubts) })
    }

    /// Which events the index lacks of a page, by what is known of it.
    async fn lacking_of(&self, tenant: &Tenant, page: &Page, lack: Lack, is_behind: bool) -> Result<Lacking, Error> {
        let mut ranges = lack.ranges;
        if is_behind {
            ranges.extend(self.catalog.unindexed(tenant).await?);
        }
        let mut lacking = Lacking { among: Among::of(ranges), ..Lacking::default() };
        if lack.parts {
            match self.index.reduced(tenant, page, MOST_REDUCED).await {
                Ok(Some(places)) => {
                    let (places, more) = cut(places, MOST_REDUCED, |place| *place);
                    (lacking.among.ids, lacking.floor) = (ids(&places), more);
                }
                Ok(None) => lacking.unknown = true,
                Err(error) => {
                    tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "which events the index holds in part is not known");
                    lacking.unknown = true;
                }
            }
        }
        Ok(lacking)
    }
}

/// Whether raw lines could not be read, and the rest of an answer is there all the same.
fn is_of_lines(error: &Error) -> bool {
    matches!(error, Error::Raw(_) | Error::Catalog(CatalogError::TooSlow))
}

fn ids(places: &[Cursor]) -> Vec<Uuid> {
    places.iter().map(|place| place.event_id).collect()
}

/// How two places follow each other in a list.
fn by(order: Order, one: &Cursor, other: &Cursor) -> Ordering {
    let newest = (other.time, other.event_id).cmp(&(one.time, one.event_id));
    match order {
        Order::Newest => newest,
        Order::Oldest => newest.reverse(),
    }
}

/// The one of two places that comes first in a list.
fn first(order: Order, one: Option<Cursor>, other: Option<Cursor>) -> Option<Cursor> {
    one.into_iter().chain(other).min_by(|one, other| by(order, one, other))
}

/// A page of what two sources found, in its order, and the cursor behind it. As far as `reached` both have found all
/// that there is; `None`: to the end.
fn merge(
    page: &Page,
    mut places: Vec<Cursor>,
    others: Vec<Cursor>,
    reached: Option<Cursor>,
) -> (Vec<Cursor>, Option<Cursor>) {
    places.extend(others);
    places.retain(|place| reached.is_none_or(|reached| by(page.order, place, &reached).is_le()));
    places.sort_unstable_by(|one, other| by(page.order, one, other));
    places.dedup();
    let (places, next) = cut(places, page.limit, |place| *place);
    (places, next.or(reached))
}

fn told(scanned: &Scanned) -> api::event::Scanned {
    api::event::Scanned {
        events: scanned.events,
        bytes: scanned.bytes,
        until: scanned.ended_at.map(|at| rfc3339(at.time)),
    }
}

fn listing(
    items: Vec<api::event::Item>,
    next: Option<Cursor>,
    page: &Page,
    source: Source,
    doubts: &Doubts,
) -> Listing {
    let notice = missing(doubts);
    Listing {
        items,
        next_cursor: next.map(|cursor| cursor.encode(page.asked)),
        source,
        complete: notice.is_none(),
        notice,
        scanned: None,
    }
}

/// What a search may have missed, the most urgent first.
fn missing(doubts: &Doubts) -> Option<Cow<'static, str>> {
    let Doubts { partial, waits, ended_at, lacking, unread, unknown, loose } = *doubts;
    let said = match ended_at {
        _ if partial => INDEX_PARTIAL,
        _ if waits == Waits::Something => QUEUED,
        _ if lacking => LACKING,
        Some(at) => {
            let at = rfc3339(at);
            return Some(Cow::Owned(format!(
                "raw lines were read as far as {at} in the time that a request has; go on with `next_cursor`"
            )));
        }
        None if unread => UNREAD,
        None if unknown => INDEX_UNKNOWN,
        None if loose => INDEX_LOOSE,
        None if waits == Waits::Unknown => QUEUE_UNKNOWN,
        None => return None,
    };
    Some(Cow::Borrowed(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_may_have_missed() {
        let sure = Doubts {
            partial: false,
            waits: Waits::Nothing,
            ended_at: None,
            lacking: false,
            unread: false,
            unknown: false,
            loose: false,
        };
        let (queued, unsaid) = (Waits::Something, Waits::Unknown);
        let early = "raw lines were read as far as 1970-01-01T00:00:01.000000Z in the time that a request has; go on with \
             `next_cursor`";
        for (doubts, notice) in [
            (sure, None),
            (Doubts { waits: unsaid, ..sure }, Some(QUEUE_UNKNOWN)),
            (Doubts { loose: true, waits: unsaid, ..sure }, Some(INDEX_LOOSE)),
            (Doubts { unknown: true, loose: true, ..sure }, Some(INDEX_UNKNOWN)),
            (Doubts { unread: true, unknown: true, ..sure }, Some(UNREAD)),
            (Doubts { ended_at: Some(1_000_000), unread: true, ..sure }, Some(early)),
            (Doubts { lacking: true, unknown: true, ..sure }, Some(LACKING)),
            (Doubts { waits: queued, lacking: true, ended_at: Some(1_000_000), ..sure }, Some(QUEUED)),
            (Doubts { partial: true, waits: queued, ..sure }, Some(INDEX_PARTIAL)),
        ] {
            assert_eq!(missing(&doubts).as_deref(), notice, "{doubts:?}");
        }
    }

    #[test]
    fn a_merged_page_has_no_gap_and_no_duplicate() {
        let place = |n: i64| Cursor { time: n / 10, event_id: Uuid::from_u128(n as u128 % 10) };
        let places = |all: &[i64]| all.iter().map(|n| place(*n)).collect::<Vec<_>>();
        for (name, hits, scanned, reached, expected, next) in [
            ("nothing", &[][..], &[][..], None, &[][..], None),
            ("the index alone", &[95, 94], &[], None, &[95, 94], None),
            ("in between", &[95, 81], &[94], None, &[95, 94, 81], None),
            ("found by both", &[95, 81], &[95, 81], None, &[95, 81], None),
            ("more than a page", &[95, 81], &[94, 93, 70], None, &[95, 94, 93], Some(93)),
            ("the index has more", &[95, 94, 93, 81], &[], Some(81), &[95, 94, 93], Some(93)),
            ("the index has more, and was wrong", &[95, 94, 81], &[], Some(81), &[95, 94, 81], Some(81)),
            ("the scan ended early", &[95, 70], &[94], Some(90), &[95, 94], Some(90)),
            ("early, with nothing", &[70], &[], Some(90), &[], Some(90)),
        ] {
            let page = Page { limit: 3, ..Page::default() };
            let (found, then) = merge(&page, places(hits), places(scanned), reached.map(place));
            assert_eq!((found, then), (places(expected), next.map(place)), "{name}");
            // The other way round: times are mirrored.
            let mirrored = |all: &[i64]| all.iter().map(|n| place(1000 - n)).collect::<Vec<_>>();
            let page = Page { order: Order::Oldest, ..page };
            let mirror = |n: Option<i64>| n.map(|n| place(1000 - n));
            let (found, then) = merge(&page, mirrored(hits), mirrored(scanned), mirror(reached));
            assert_eq!((found, then), (mirrored(expected), mirror(next)), "{name}, oldest first");
        }
        for (order, expected) in [(Order::Newest, 90), (Order::Oldest, 81)] {
            assert_eq!(first(order, Some(place(81)), Some(place(90))), Some(place(expected)));
            assert_eq!(first(order, None, Some(place(90))), Some(place(90)));
            assert_eq!(first(order, None, None), None);
        }
    }
}
