//! A search of the raw lines: for what the index does not hold, or while it is away.
//!
//! ```text
//!  catalog: candidates in order ─► slices of some MB ─► raw lines ─► needles ─► event ─► matches ─► places
//!           the next step meanwhile        some at once, in turn with other tenants
//! ```
//! What is found is what the query means, because [`Subject::matches`] decides. A request reads for some seconds at
//! most: then it says how far it has come, and the next one goes on there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use query::cursor::Cursor;
use query::matches::Subject;
use query::{Needles, Page, Query};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Error;
use super::limits::Meter;
use crate::event::Micros;
use crate::fair::workers::Workers;
use crate::stores::archive::Archive;
use crate::stores::raw::{self, Line, Place, RawAt, RawError, portions};
use crate::stores::read::{Among, BatchAt, Candidate, Candidates, Catalog, Step};
use crate::tenancy::Tenant;

/// How long one request reads on: with what comes before and after, less than a client waits.
pub(super) const PATIENCE: Duration = Duration::from_millis(2500);
/// Longest wait for a slice after that: a store that hangs must not keep the answer.
const LATE: Duration = Duration::from_millis(1500);
/// Raw bytes that one request reads at most.
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Raw bytes of one slice: so many times these are in memory as there are places.
const SLICE_BYTES: u64 = 8 * 1024 * 1024;
/// Slices of one scan at once.
const AT_ONCE: usize = 4;
/// Rows of the first step: a common word needs no more.
const FIRST_ROWS: i64 = 2_000;
/// Rows of a later step: what is walked over between two candidates costs a fraction of a second.
const MOST_ROWS: i64 = 524_288;
/// Lines between two looks whether the client is still there.
const LOOK_EVERY: usize = 64;

/// What a scan needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Scanner {
    /// Candidates.
    pub(super) catalog: Catalog,
    /// Their lines.
    pub(super) archive: Archive,
    /// Places at which slices are worked on, for all tenants.
    pub(super) workers: Workers,
    /// What the work of this request takes of the CPUs.
    pub(super) meter: Meter,
    /// Cancelled once the client has left.
    pub(super) left: CancellationToken,
    /// How long it reads on.
    pub(super) patience: Duration,
}

/// Which events a scan looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The query, the filters, and where the page before ended.
    pub(super) page: &'a Page,
    /// Only these.
    pub(super) among: Option<&'a Among>,
    /// As far as this place, which is included.
    pub(super) floor: Option<Cursor>,
}

/// What a scan found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Scanned {
    /// The places of events, in the page's order; more than the page holds if there are more.
    pub(super) places: Vec<Cursor>,
    /// Where it ended early: all that it would find as far as here is found, and what is behind is not known.
    pub(super) ended_at: Option<Cursor>,
    /// Events that it looked at.
    pub(super) events: u64,
    /// Raw bytes that it read of them.
    pub(super) bytes: u64,
    /// Events whose raw lines are gone: whether the query finds them is not known.
    pub(super) unread: u64,
}

/// Candidates that are worked on together.
struct Slice {
    events: Vec<Candidate>,
    batches: Arc<Vec<BatchAt>>,
    /// The place up to which nothing is missing once it is done; `None`: all is done then.
    reached: Option<Cursor>,
}

/// How many places to work there are: each holds a slice in memory, and waits for a store half of the time.
pub(super) fn workers() -> Workers {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Workers::new((2 * cores).clamp(2, AT_ONCE))
}

impl Scanner {
    /// Looks for what is on a page, until the page is full, everything is looked at, or the time is over.
    pub(super) async fn scan(&self, tenant: &Tenant, scope: Scope<'_>) -> Result<Scanned, Error> {
        if scope.among.is_some_and(Among::is_empty) {
            return Ok(Scanned::default());
        }
        // Ends with us what still works on slices that nobody waits for any more.
        let stop = self.left.child_token();
        let _ends = stop.clone().drop_guard();
        let query = Arc::new(scope.page.query.clone().unwrap_or_else(Query::everything));
        let needles = Arc::new(Needles::of(&query));
        let slices = self.slices(tenant, scope).map(|slice| {
            let (query, needles, stop) = (Arc::clone(&query), Arc::clone(&needles), stop.clone());
            async move {
                let slice = slice?;
                let reached = slice.reached;
                self.look(tenant, slice, query, needles, stop).await.map(|looked| (looked, reached))
            }
        });
        let looked = std::pin::pin!(slices.buffered(AT_ONCE));
        tokio::select! {
            biased;
            () = self.left.cancelled() => Err(Error::Broken),
            scanned = collect(looked, scope.page.limit, Instant::now() + self.patience) => scanned,
        }
    }

    /// The candidates in their order, step by step, cut into slices.
    fn slices<'a>(&'a self, tenant: &'a Tenant, scope: Scope<'a>) -> impl Stream<Item = Result<Slice, Error>> + 'a {
        let Scope { page, among, floor } = scope;
        let first = Step { page, among, after: page.after, floor, rows: FIRST_ROWS };
        let steps = stream::try_unfold(Some(first), move |step| async move {
            let Some(step) = step else { return Ok::<_, Error>(None) };
            let begun = Instant::now();
            let candidates = self.catalog.candidates(tenant, &step).await?;
            let rows = next_rows(step.rows, begun.elapsed());
            let next = candidates.reached.map(|reached| Step { after: Some(reached), rows, ..step });
            Ok(Some((candidates, next)))
        });
        steps.map_ok(|candidates| stream::iter(cut(candidates).into_iter().map(Ok))).try_flatten()
    }

    /// Which events of a slice the query finds.
    async fn look(
        &self,
        tenant: &Tenant,
        slice: Slice,
        query: Arc<Query>,
        needles: Arc<Option<Needles>>,
        stop: CancellationToken,
    ) -> Result<Scanned, Error> {
        let unknown: Vec<Candidate> = slice.events.iter().filter(|event| !event.found).copied().collect();
        if unknown.is_empty() {
            let places: Vec<Cursor> = slice.events.iter().map(|event| event.place).collect();
            return Ok(Scanned { events: places.len() as u64, places, ..Scanned::default() });
        }
        let _place = self.workers.place(tenant.name()).await;
        let lines = self.lines(tenant, &unknown, &slice.batches).await?;
        let begun = Instant::now();
        let looking = move || find(&slice, lines, &query, needles.as_ref().as_ref(), &stop);
        let found = tokio::task::spawn_blocking(looking).await.map_err(|_| RawError::Broken)?;
        self.meter.add(begun.elapsed());
        Ok(found)
    }

    /// The raw lines of these events.
    async fn lines(
        &self,
        tenant: &Tenant,
        events: &[Candidate],
        batches: &[BatchAt],
    ) -> Result<Vec<Option<Line>>, Error> {
        let at: Vec<RawAt> = events.iter().map(|event| event.at(&batches[event.batch])).collect();
        let mut lines = raw::many(&self.catalog, &self.archive, tenant, &at).await?;
        // What was archived between our reading where it is and its frame: its batch says now where it went.
        let is_missing = |n: &usize| lines[*n].is_none() && matches!(at[*n].place, Some(Place::Spool(_)));
        let missing: Vec<usize> = (0..events.len()).filter(is_missing).collect();
        if !missing.is_empty() {
            let mut ids: Vec<Uuid> = missing.iter().map(|n| batches[events[*n].batch].batch_id).collect();
            ids.sort_unstable();
            ids.dedup();
            let now: HashMap<Uuid, BatchAt> = self.catalog.batches_at(tenant, &ids).await?;
            let nowhere = RawAt { place: None, start: 0, length: 0 };
            let at_now = |n: &usize| now.get(&batches[events[*n].batch].batch_id).map_or(nowhere, |b| events[*n].at(b));
            let at: Vec<RawAt> = missing.iter().map(at_now).collect();
            let found = raw::many(&self.catalog, &self.archive, tenant, &at).await?;
            missing.into_iter().zip(found).for_each(|(n, line)| lines[n] = line);
        }
        Ok(lines)
    }
}

/// The rows of the step after one that took so long.
fn next_rows(rows: i64, took: Duration) -> i64 {
    const LONG: Duration = Duration::from_millis(300);
    if took > LONG { (rows / 2).max(FIRST_ROWS) } else { (rows * 4).min(MOST_ROWS) }
}

/// A step in slices. One without candidates is a slice too: it says how far it reached.
fn cut(candidates: Candidates) -> Vec<Slice> {
    let Candidates { events, batches, reached } = candidates;
    let to_read = |event: &Candidate| if event.found { 0 } else { u64::from(event.length.unsigned_abs()) };
    let mut slices: Vec<Slice> = portions(events, SLICE_BYTES, to_read)
        .into_iter()
        .map(|events| {
            let reached = events.last().map(|event| event.place);
            Slice { events, batches: Arc::clone(&batches), reached }
        })
        .collect();
    match slices.last_mut() {
        Some(last) => last.reached = reached,
        None => slices.push(Slice { events: Vec::new(), batches, reached }),
    }
    slices
}

/// What the query finds of a slice; `lines` are those of the events that are not known to be found.
fn find(
    slice: &Slice,
    lines: Vec<Option<Line>>,
    query: &Query,
    needles: Option<&Needles>,
    stop: &CancellationToken,
) -> Scanned {
    let mut found = Scanned { events: slice.events.len() as u64, ..Scanned::default() };
    let mut lines = lines.into_iter();
    for (n, event) in slice.events.iter().enumerate() {
        if n % LOOK_EVERY == 0 && stop.is_cancelled() {
            break;
        }
        let finds = event.found
            || match lines.next().flatten() {
                Some(line) => {
                    found.bytes += line.bytes.len() as u64;
                    let accepted_at = slice.batches[event.batch].accepted_at;
                    finds(&line.bytes, accepted_at, event.place.time, query, needles)
                }
                None => {
                    found.unread += 1;
                    false
                }
            };
        if finds {
            found.places.push(event.place);
        }
    }
    found
}

/// Whether the query finds the event of a line.
fn finds(line: &[u8], accepted_at: Micros, time: Micros, query: &Query, needles: Option<&Needles>) -> bool {
    if needles.is_some_and(|needles| !needles.may_be_in(line)) {
        return false;
    }
    match stages::event(line, accepted_at) {
        Ok(event) => Subject::new(&event, time).matches(query),
        Err(error) => {
            tracing::error!("a stored line is no event: {error}");
            false
        }
    }
}

/// Puts together what slices found, in their order.
async fn collect(
    mut looked: impl Stream<Item = Result<(Scanned, Option<Cursor>), Error>> + Unpin,
    limit: u32,
    until: Instant,
) -> Result<Scanned, Error> {
    let mut scanned = Scanned::default();
    let mut reached = None;
    loop {
        let next = tokio::time::timeout_at((until + LATE).into(), looked.next());
        let (found, at) = match next.await {
            Ok(Some(Ok(found))) => found,
            Ok(None) => return Ok(scanned),
            // What is found is told of; what did not come, or can't be read, is asked for again by the next request.
            Ok(Some(Err(_))) | Err(_) if reached.is_some() => return Ok(Scanned { ended_at: reached, ..scanned }),
            Ok(Some(Err(error))) => return Err(error),
            Err(_) => return Err(Error::Raw(RawError::TooSlow)),
        };
        scanned.add(found);
        if scanned.places.len() > limit as usize || at.is_none() {
            return Ok(scanned);
        }
        reached = at;
        if Instant::now() >= until || scanned.bytes >= MOST_BYTES {
            return Ok(Scanned { ended_at: reached, ..scanned });
        }
    }
}

impl Scanned {
    fn add(&mut self, more: Self) {
        self.places.extend(more.places);
        self.events += more.events;
        self.bytes += more.bytes;
        self.unread += more.unread;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(time: Micros) -> Cursor {
        Cursor { time, event_id: Uuid::nil() }
    }

    fn candidate(time: Micros, length: i32, found: bool) -> Candidate {
        Candidate { place: place(time), batch: 0, offset: 0, length, found }
    }

    #[test]
    fn a_step_is_cut_by_what_there_is_to_read() {
        let half = SLICE_BYTES as i32 / 2;
        let (small, large) = (candidate(9, half, false), candidate(8, half + 1, false));
        let known = candidate(7, i32::MAX, true);
        for (name, events, reached, expected) in [
            ("nothing", vec![], None, vec![(0, None)]),
            ("nothing yet", vec![], Some(place(3)), vec![(0, Some(place(3)))]),
            ("one slice", vec![small, small], Some(place(3)), vec![(2, Some(place(3)))]),
            ("two", vec![small, large], None, vec![(1, Some(place(9))), (1, None)]),
            ("what is known costs nothing", vec![small, known, known, small], None, vec![(4, None)]),
        ] {
            let slices = cut(Candidates { events, batches: Arc::default(), reached });
            let slices: Vec<_> = slices.iter().map(|slice| (slice.events.len(), slice.reached)).collect();
            assert_eq!(slices, expected, "{name}");
        }
    }

    #[test]
    fn steps_grow_until_they_take_long() {
        let quick = Duration::from_millis(10);
        let mut rows = FIRST_ROWS;
        for _ in 0..10 {
            rows = next_rows(rows, quick);
        }
        assert_eq!(rows, MOST_ROWS);
        assert_eq!(next_rows(rows, Duration::from_secs(1)), MOST_ROWS / 2);
        assert_eq!(next_rows(FIRST_ROWS, Duration::from_secs(1)), FIRST_ROWS);
    }

    #[tokio::test]
    async fn it_ends_at_the_end_at_a_full_page_or_early() {
        let slice = |times: &[Micros], reached: Option<Micros>| {
            let places: Vec<_> = times.iter().map(|time| place(*time)).collect();
            Ok((Scanned { places, events: 10, bytes: 100, ..Scanned::default() }, reached.map(place)))
        };
        let failed = || Err(Error::Raw(RawError::Damaged));
        let now = Instant::now();
        let soon = now + PATIENCE;
        let large = Ok((Scanned { bytes: MOST_BYTES, ..Scanned::default() }, Some(place(5))));
        for (name, slices, until, expected) in [
            ("to the end", vec![slice(&[9], Some(8)), slice(&[], None)], soon, Ok((1, None, 20))),
            ("nothing", vec![slice(&[], None)], soon, Ok((0, None, 10))),
            ("full", vec![slice(&[9, 8], Some(8)), slice(&[7, 6], Some(6)), failed()], soon, Ok((4, None, 20))),
            ("late", vec![slice(&[9], Some(8)), slice(&[7], Some(6))], now, Ok((1, Some(8), 10))),
            ("late, nothing yet", vec![slice(&[], Some(8)), failed()], now, Ok((0, Some(8), 10))),
            ("much", vec![large, failed()], soon, Ok((0, Some(5), 0))),
            ("failed later", vec![slice(&[9], Some(8)), failed()], soon, Ok((1, Some(8), 10))),
            ("failed at once", vec![failed()], soon, Err(())),
        ] {
            let scanned = collect(stream::iter(slices), 2, until).await;
            let told = scanned.map(|s| (s.places.len(), s.ended_at.map(|at| at.time), s.events)).map_err(|_| ());
            assert_eq!(told, expected, "{name}");
        }
    }

    #[test]
    fn a_slice_is_looked_at_until_the_client_leaves() {
        let line = |text: &str| Some(Line { bytes: text.to_owned().into(), source: api::event::Source::Spool });
        let batch = BatchAt { batch_id: Uuid::nil(), accepted_at: 0, place: None, start: 0 };
        let slice = Slice {
            events: vec![candidate(4, 9, false), candidate(3, 9, true), candidate(2, 9, false), candidate(1, 9, false)],
            batches: Arc::new(vec![batch]),
            reached: None,
        };
        let query = query::parse("needle").unwrap();
        let needles = Needles::of(&query);
        let lines = || vec![line(r#"{"message":"a needle"}"#), None, line(r#"{"message":"needles"}"#)];
        let stop = CancellationToken::new();
        let found = find(&slice, lines(), &query, needles.as_ref(), &stop);
        assert_eq!((found.places, found.events, found.unread), (vec![place(4), place(3)], 4, 1));
        assert_eq!(found.bytes, 43);
        stop.cancel();
        assert!(find(&slice, lines(), &query, needles.as_ref(), &stop).places.is_empty());
    }
}
