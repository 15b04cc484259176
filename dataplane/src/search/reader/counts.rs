//! Events counted: which store counts them, and what the answer says of itself.
//!
//! ```text
//!  no field of its own ─► index: all at once                        (lacks something, or away: catalog, if its rows can tell)
//!  a leaf ─► index: a sample ─┬─ that is all events ─► counted here
//!                             └─ names the groups ───► index: each of them, and the rest
//! ```

use std::borrow::Cow;

use api::answer::Sampled;
use api::event::Source;
use query::Page;
use query::counting::{Counted, Grouping, Key, Order, Tally, count, cut};
use query::expression::{Clause, Field, Pattern, Query};
use query::stage::MAX_ROWS;
use runtime::logging::chain;

use super::doubts::{Doubts, missing};
use super::{Reader, listed};
use crate::event::Micros;
use crate::search::Error;
use crate::search::waiting::Waits;
use crate::stores::read::{IndexError, Sample, largest};
use crate::tenancy::Tenant;

/// Events of a sample: some tens of milliseconds of reading, and enough to know shares to two percent.
pub(super) const SAMPLE: u32 = 5_000;
/// Most events that are read to be exact: OpenSearch gives no more at once.
pub(super) const ALL: u32 = 10_000;
/// Events of a sample that names the values of a leaf: one that one event in five hundred has is hardly missed.
const NAMES: u32 = 2_000;
/// Groups that are counted, of those that a sample names.
const CANDIDATES: u32 = 50;
/// A leaf with more values in a sample has so many that to look for events without it would read all of their words.
const MANY_VALUES: usize = 500;
/// What only the index knows.
pub(super) const OF_THE_INDEX: &str = "counts of words and of fields in `metadata` and `attributes`";

/// Counted events, and what the answer says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// What was counted.
    pub tally: Tally,
    /// How far it can be relied on.
    pub surety: Surety,
}

/// How far an answer can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surety {
    /// Whether its numbers are exact for what was looked at.
    pub exact: bool,
    /// By how many events it was estimated.
    pub sampled: Option<Sampled>,
    /// Which store told it.
    pub source: Source,
    /// Why it is not complete, if it is not.
    pub notice: Option<Cow<'static, str>>,
}

/// What the index counted.
struct OfIndex {
    tally: Tally,
    exact: bool,
    sampled: Option<Sampled>,
    partial: bool,
}

impl Reader {
    /// Counts events in groups, and over time. Of very many groups or points, fewer groups are told than are asked for.
    pub async fn counts(
        &self,
        tenant: &Tenant,
        page: &Page,
        grouping: &Grouping,
        now: Micros,
    ) -> Result<Counts, Error> {
        let grouping = &grouping.bounded();
        let asked = asking_for(page, &grouping.by);
        let in_catalog = catalog_can_tell(&asked);
        let (counted, doubts) =
            tokio::join!(self.count_in_index(tenant, page, grouping), self.doubts(tenant, &asked, now));
        let counted = match counted {
            Ok(counted) => counted,
            Err(error) if !error.is_outage() => return Err(error.into()),
            Err(error) if !in_catalog => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "events can't be counted");
                return Err(Error::NeedsIndex(OF_THE_INDEX));
            }
            Err(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "count in the catalog instead of the index");
                let tally = self.catalog.tally(tenant, page, grouping).await?;
                return Ok(of_catalog(tally, doubts.waits));
            }
        };
        let OfIndex { tally, exact, sampled, partial } = counted;
        let doubts = Doubts { partial, ..doubts };
        // What the index lacks, the catalog has. It takes longer, and sometimes too long.
        if in_catalog && (partial || doubts.behind || !matches!(doubts.lack, Ok(None))) {
            match self.catalog.tally(tenant, page, grouping).await {
                Ok(tally) => return Ok(of_catalog(tally, doubts.waits)),
                Err(error) => {
                    tracing::info!(tenant.name = %tenant.name(), error = %chain(&error), "count in the index alone");
                }
            }
        }
        let notice = missing(doubts).map(Cow::Borrowed);
        Ok(Counts { tally, surety: Surety { exact, sampled, source: Source::Index, notice } })
    }

    /// The times of the first event and after the last; nothing if there is none.
    pub async fn bounds(&self, tenant: &Tenant, page: &Page) -> Result<Option<(Micros, Micros)>, Error> {
        match self.index.bounds(tenant, page).await {
            Ok(bounds) if !catalog_can_tell(page) => Ok(bounds),
            Err(error) if !error.is_outage() => Err(error.into()),
            Err(_) if !catalog_can_tell(page) => Err(Error::NeedsIndex(OF_THE_INDEX)),
            // Its rows are older than the index.
            Ok(bounds) => match self.catalog.bounds(tenant, page).await {
                Ok(of_rows) => Ok(around(bounds, of_rows)),
                Err(_) => Ok(bounds),
            },
            Err(_) => Ok(self.catalog.bounds(tenant, page).await?),
        }
    }

    /// Events of a page by chance, and how far they can be relied on.
    pub(super) async fn sample(
        &self,
        tenant: &Tenant,
        page: &Page,
        fields: Option<&[Field]>,
        size: u32,
        now: Micros,
    ) -> Result<(Sample, Surety), Error> {
        let asked = match fields {
            Some(fields) => asking_for(page, fields),
            None => page.clone(),
        };
        let (sample, doubts) =
            tokio::join!(self.index.sample(tenant, page, fields, size), self.doubts(tenant, &asked, now));
        let mut sample = sample.map_err(needs_index)?;
        // A few more, and it is exact.
        if size >= SAMPLE && !sample.is_whole() && sample.total <= u64::from(ALL) {
            sample = self.index.sample(tenant, page, fields, ALL).await.map_err(needs_index)?;
        }
        let notice = missing(Doubts { partial: sample.partial, ..doubts }).map(Cow::Borrowed);
        let exact = sample.is_whole();
        let sampled = (!exact).then_some(Sampled { used: sample.events.len() as u64, of: sample.total });
        Ok((sample, Surety { exact, sampled, source: Source::Index, notice }))
    }

    /// Several countings of the same events by reserved fields, in one request where the index is whole.
    pub(super) async fn counts_by_each(
        &self,
        tenant: &Tenant,
        page: &Page,
        groupings: &[Grouping],
        now: Micros,
    ) -> Result<(Vec<Tally>, Surety), Error> {
        let in_catalog = catalog_can_tell(page);
        let (counted, doubts) =
            tokio::join!(self.index.tally_by_each(tenant, page, groupings), self.doubts(tenant, page, now));
        let told = match counted {
            Ok((tallies, partial)) => Some((tallies, Doubts { partial, ..doubts })),
            Err(error) if !error.is_outage() => return Err(error.into()),
            Err(_) if !in_catalog => return Err(Error::NeedsIndex(OF_THE_INDEX)),
            Err(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = %chain(&error), "count in the catalog instead of the index");
                None
            }
        };
        let lacks = |doubts: &Doubts| doubts.partial || doubts.behind || !matches!(doubts.lack, Ok(None));
        match told {
            Some((tallies, doubts)) if !in_catalog || !lacks(&doubts) => Ok(of_index(tallies, doubts)),
            told => match (self.tallies_of_catalog(tenant, page, groupings).await, told) {
                (Ok(tallies), _) => {
                    let notice = listed(doubts.waits, &Page::default()).map(Cow::Borrowed);
                    Ok((tallies, Surety { exact: true, sampled: None, source: Source::Catalog, notice }))
                }
                (Err(_), Some((tallies, doubts))) => Ok(of_index(tallies, doubts)),
                (Err(error), None) => Err(error),
            },
        }
    }

    async fn tallies_of_catalog(
        &self,
        tenant: &Tenant,
        page: &Page,
        groupings: &[Grouping],
    ) -> Result<Vec<Tally>, Error> {
        let mut tallies = Vec::new();
        for grouping in groupings {
            tallies.push(self.catalog.tally(tenant, page, grouping).await?);
        }
        Ok(tallies)
    }

    /// What an answer of the index may have missed, but for what it says itself.
    pub(super) async fn doubts(&self, tenant: &Tenant, page: &Page, now: Micros) -> Doubts {
        let (coverage, waits, found) = tokio::join!(
            self.coverage(tenant, now),
            self.waiting.of(tenant, now),
            self.catalog.found(tenant, &[], query::Order::Newest)
        );
        // While the catalog is away, what the index holds is counted, and that this may not be all is said.
        let lack = coverage.ok().flatten().map(|coverage| coverage.lack(page).why).ok_or(());
        let behind = found.is_ok_and(|found| found.index_is_behind);
        Doubts { partial: false, waits, behind, lack, loose: false }
    }

    async fn count_in_index(&self, tenant: &Tenant, page: &Page, grouping: &Grouping) -> Result<OfIndex, IndexError> {
        let leaves: Vec<Field> = grouping.by.iter().filter(|field| !field.is_reserved()).cloned().collect();
        if leaves.is_empty() && grouping.by.len() <= 1 {
            let splits = largest(grouping);
            let (tally, partial) = self.index.tally_divided(tenant, page, &splits, grouping).await?;
            return Ok(OfIndex { exact: !tally.chosen, tally, sampled: None, partial });
        }
        if leaves.is_empty() {
            return self.count_by_several(tenant, page, grouping).await;
        }
        let mut sample = self.index.sample(tenant, page, Some(&grouping.by), NAMES).await?;
        // A few more, and all of them are known, also those that few have.
        if grouping.order == Order::Fewest && !sample.is_whole() && sample.total <= u64::from(ALL) {
            sample = self.index.sample(tenant, page, Some(&grouping.by), ALL).await?;
        }
        if sample.is_whole() {
            let tally = count(&sample.events, grouping);
            return Ok(OfIndex { tally, exact: true, sampled: None, partial: sample.partial });
        }
        let looks_for_missing = leaves.iter().all(|field| !has_many_values(&sample.events, field));
        // Twice as many as are shown, for the sample may be wrong about who is first.
        let limit = grouping.limit.saturating_mul(2).min(CANDIDATES).max(grouping.limit);
        let named = Grouping { limit, buckets: None, ..grouping.clone() };
        let keys = count(&sample.events, &named).groups.into_iter().map(|group| group.key);
        let keys: Vec<Key> = keys.filter(|key| looks_for_missing || key.iter().all(Option::is_some)).collect();
        let (tally, partial) = self.index.tally_keys(tenant, page, &keys, looks_for_missing, grouping).await?;
        // Where all that there is stands in a row, nothing depends on the sample.
        let exact = tally.other == 0;
        let sampled = (!exact).then_some(Sampled { used: sample.events.len() as u64, of: sample.total });
        Ok(OfIndex { tally, exact, sampled, partial: partial || sample.partial })
    }

    /// By several reserved fields.
    async fn count_by_several(&self, tenant: &Tenant, page: &Page, grouping: &Grouping) -> Result<OfIndex, IndexError> {
        let without_times = Grouping { limit: grouping.limit.max(MAX_ROWS), buckets: None, ..grouping.clone() };
        let splits = largest(&without_times);
        let (mut found, partial) = self.index.groups(tenant, page, &splits).await?;
        if !grouping.with_missing {
            found.groups.retain(|group| group.key.iter().all(Option::is_some));
        }
        let cut_off = cut(&mut found.groups, grouping);
        let keys: Vec<Key> = found.groups.into_iter().map(|group| group.key).collect();
        let (mut tally, later) = self.index.tally_keys(tenant, page, &keys, true, grouping).await?;
        tally.more |= cut_off;
        Ok(OfIndex { exact: !found.is_rough, tally, sampled: None, partial: partial || later })
    }
}

/// Whether a leaf has so many values that events without one can't be looked for.
fn has_many_values(events: &[Counted], field: &Field) -> bool {
    let mut values = std::collections::BTreeSet::new();
    for event in events {
        values.extend(event.values(field));
    }
    values.len() > MANY_VALUES
}

fn of_catalog(tally: Tally, waits: Waits) -> Counts {
    let notice = listed(waits, &Page::default()).map(Cow::Borrowed);
    Counts { tally, surety: Surety { exact: true, sampled: None, source: Source::Catalog, notice } }
}

fn of_index(tallies: Vec<Tally>, doubts: Doubts) -> (Vec<Tally>, Surety) {
    let exact = tallies.iter().all(|tally| !tally.chosen);
    let notice = missing(doubts).map(Cow::Borrowed);
    (tallies, Surety { exact, sampled: None, source: Source::Index, notice })
}

fn needs_index(error: IndexError) -> Error {
    if error.is_outage() { Error::NeedsIndex(OF_THE_INDEX) } else { error.into() }
}

/// Whether the catalog's rows tell which events are meant.
fn catalog_can_tell(page: &Page) -> bool {
    page.query.as_ref().is_none_or(|query| !query.asks_for_the_whole())
}

/// A page that asks for these fields as well: what lacks them, lacks something.
pub(super) fn asking_for(page: &Page, fields: &[Field]) -> Page {
    let exists = |field: &Field| Query::Clause(Clause { field: field.clone(), pattern: Pattern::Exists });
    let mut parts: Vec<Query> = fields.iter().filter(|field| field.is_of_the_whole()).map(exists).collect();
    if parts.is_empty() {
        return page.clone();
    }
    parts.extend(page.query.clone());
    Page { query: Some(Query::And(parts)), ..page.clone() }
}

fn around(one: Option<(Micros, Micros)>, other: Option<(Micros, Micros)>) -> Option<(Micros, Micros)> {
    match (one, other) {
        (Some((from, to)), Some((first, last))) => Some((from.min(first), to.max(last))),
        (one, other) => one.or(other),
    }
}
