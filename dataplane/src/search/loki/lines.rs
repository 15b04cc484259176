//! Finds whole lines: the index names candidates page by page, and the query looks at each.

use std::time::{Duration, Instant};

use query::cursor::Cursor;
use query::logql::{LogExpr, Row, candidates};
use query::{Filters, Page};
use stages::Event;

use super::Refused;
use crate::event::{Micros, rfc3339};
use crate::search::{Error, Reader};
use crate::stores::read::{Asked, Document, IndexError, Leaf};
use crate::tenancy::Tenant;

/// Lines that are looked at for one answer: at some 50,000 a second, this takes two seconds.
pub(super) const MAX_LOOKED_AT: usize = 100_000;
/// Time that is spent on one answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes of one answer's lines and labels.
const MAX_BYTES: usize = 32 << 20;
/// Documents of the first page, while nobody knows how large they are.
const FIRST_PAGE: usize = 500;
/// Documents of a page.
const MAX_PAGE: usize = 2_000;
/// Bytes that a page is to have.
const PAGE_BYTES: usize = 8 << 20;

/// What is wanted of the lines that a query finds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// From the first microsecond, up to and without the second.
    pub(super) span: (Micros, Micros),
    /// Oldest first.
    pub(super) forward: bool,
    /// How many.
    pub(super) limit: usize,
    /// Whether fewer are to be refused: the client would not show that some are missing.
    pub(super) whole: bool,
}

/// What an answer cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Lines that were looked at.
    pub(super) lines: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// Lines that were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In order.
    pub(super) rows: Vec<Row>,
    /// What is missing.
    pub(super) warnings: Vec<String>,
    pub(super) cost: Cost,
}

/// The lines that a query finds.
pub(super) async fn find(
    reader: &Reader,
    tenant: &Tenant,
    log: &LogExpr,
    wanted: Wanted,
    now: Micros,
) -> Result<Found, Error> {
    let (mut found, mut bytes) = (Found::default(), 0);
    let mut pages = Pages::new(log, wanted.span, wanted.forward, true, now, tenant);
    pages.most_useful = pages.exact.then_some(wanted.limit);
    let mut lacking = None;
    'pages: while let Some(rows) = pages.next(reader, tenant).await? {
        for mut row in rows {
            if !log.keeps(&mut row) {
                continue;
            }
            bytes += row.weight();
            if bytes > MAX_BYTES && !found.rows.is_empty() {
                lacking = Some(format!(
                    "the query would read too many bytes: its first {} lines have {} MiB with their labels; ask for fewer \
                     lines",
                    found.rows.len(),
                    MAX_BYTES >> 20
                ));
                break 'pages;
            }
            found.rows.push(row);
            if found.rows.len() == wanted.limit {
                break 'pages;
            }
        }
        if pages.is_spent() {
            let order = if wanted.forward { "oldest" } else { "newest" };
            lacking = Some(format!(
                "the query is too broad: the {order} {} lines that may match were looked at, up to {}; narrow the time range, \
                 or filter by a label or a whole word",
                pages.cost.lines,
                rfc3339(pages.reached())
            ));
            break;
        }
    }
    if let Some(lacking) = lacking {
        if wanted.whole {
            return Err(Refused::Because(lacking).into());
        }
        found.warnings.push(lacking);
    }
    found.cost = pages.cost;
    found.warnings.extend(pages.doubts(reader, tenant, now).await?);
    Ok(found)
}

/// Candidates of a query, page by page. Each page is as large as its bytes allow.
pub(super) struct Pages {
    asked: Asked,
    pub(super) exact: bool,
    compares: bool,
    leaf: Leaf,
    span: (Micros, Micros),
    /// How many there are, up to a bound.
    pub(super) total: u64,
    /// More are of no use.
    pub(super) most_useful: Option<usize>,
    pub(super) cost: Cost,
    partial: bool,
    ended: bool,
    until: Instant,
}

impl Pages {
    pub(super) fn new(
        log: &LogExpr,
        span: (Micros, Micros),
        forward: bool,
        labels: bool,
        now: Micros,
        tenant: &Tenant,
    ) -> Self {
        let found = candidates(log);
        Self {
            asked: Asked { filters: found.filters, from: span.0, to: span.1, kept_after: tenant.kept_after(now) },
            exact: found.exact,
            compares: found.compares,
            leaf: Leaf { forward, after: None, size: FIRST_PAGE, labels, count: None },
            span,
            total: 0,
            most_useful: None,
            cost: Cost::default(),
            partial: false,
            ended: span.0 >= span.1,
            until: Instant::now() + PATIENCE,
        }
    }

    /// Asks how many there are, with the first page.
    pub(super) fn counting(mut self) -> Self {
        self.leaf.count = Some(MAX_LOOKED_AT as u64 + 1);
        self
    }

    /// Whether as much was looked at as may be.
    pub(super) fn is_spent(&self) -> bool {
        !self.ended && (self.cost.lines as usize >= MAX_LOOKED_AT || Instant::now() >= self.until)
    }

    /// How far the pages have come.
    pub(super) fn reached(&self) -> Micros {
        self.leaf.after.map_or(self.span.0, |after| after.time)
    }

    /// The next page; none after the last.
    pub(super) async fn next(&mut self, reader: &Reader, tenant: &Tenant) -> Result<Option<Vec<Row>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = loop {
            let leaf =
                Leaf { size: self.most_useful.map_or(self.leaf.size, |most| most.min(self.leaf.size)), ..self.leaf };
            match reader.index.leaves(tenant, &self.asked, leaf).await {
                Err(IndexError::TooLarge) if self.leaf.size > 1 => self.leaf.size = (leaf.size / 8).max(1),
                page => break (leaf.size, page?),
            }
        };
        let (size, page) = page;
        if self.leaf.count.take().is_some() {
            self.total = page.total;
        }
        self.partial |= page.partial;
        self.ended = page.documents.len() < size;
        self.leaf.after = page.documents.last().map(|(place, _)| *place).or(self.leaf.after);
        let rows: Vec<Row> = page.documents.into_iter().map(|(place, document)| row(place, document)).collect();
        let (lines, bytes) = (rows.len(), rows.iter().map(Row::weight).sum::<usize>());
        self.cost.lines += lines as u64;
        self.cost.bytes += bytes as u64;
        if let Some(mean) = bytes.checked_div(lines) {
            self.leaf.size = (PAGE_BYTES / mean.max(1)).clamp(20, MAX_PAGE);
        }
        Ok(Some(rows))
    }

    /// What the index may have missed.
    pub(super) async fn doubts(&self, reader: &Reader, tenant: &Tenant, now: Micros) -> Result<Vec<String>, Error> {
        doubts(reader, tenant, self.span, self.compares, self.partial, now).await
    }
}

/// What the index may have missed of a time.
pub(super) async fn doubts(
    reader: &Reader,
    tenant: &Tenant,
    span: (Micros, Micros),
    compares: bool,
    partial: bool,
    now: Micros,
) -> Result<Vec<String>, Error> {
    // A query that asks for as much as these questions do.
    let query =
        query::parse(if compares { "@a:>1 AND word" } else { "word" }).map_err(query::params::InvalidParams::from)?;
    let filters = Filters { from: Some(span.0), to: Some(span.1), ..Filters::default() };
    let page = Page { filters, query: Some(query), ..Page::default() };
    Ok(reader.lacking(tenant, &page, partial, now).await.into_iter().map(str::to_owned).collect())
}

fn row(place: Cursor, document: Document) -> Row {
    let Document { service, application, level, message, full_log, language, metadata, attributes, .. } = document;
    let event = Event { time: None, level, service, application, message, full_log, language, metadata, attributes };
    Row::new(event, place.time, place.event_id)
}
