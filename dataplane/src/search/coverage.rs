//! What the index holds of what the catalog says that it has been given: a search can't be complete over a range from
//! which the index has dropped, lost or never had something.
//!
//! ```text
//!  moments ─► catalog: the first indexed event accepted since each ─► index: which of them are there ─► gaps
//! ```
//! Nothing else tells it: what is indexed was noted once, indices are dropped as a whole when they are cold, a tenant
//! that is kept hot for longer gets nothing back, and an index that was lost is there again, empty. So some events are
//! looked for, close together in the last hours and days. Two neighbours that are there speak for what lies between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use query::Page;
use uuid::Uuid;

use crate::event::Micros;
use crate::stores::index::FORM;
use crate::stores::read::Probe;

const SECOND: Micros = 1_000_000;
const DAY: Micros = 24 * 3600 * SECOND;

/// Moments spread evenly over all that is kept.
const EVEN: i64 = 48;
/// The youngest moment that is looked at: what is younger may wait for a refresh of the index.
const YOUNGEST: Micros = 10 * SECOND;
/// Each further moment is half as old again: from ten seconds to a month in 40 steps.
const GROWTH: (i64, i64) = (3, 2);
/// How long what was found out holds.
const HOLDS: Duration = Duration::from_secs(5);
/// Tenants remembered.
const REMEMBERED: usize = 1024;

/// What is known of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Coverage {
    /// Between which events some are missing, oldest first.
    gaps: Vec<Gap>,
    /// When the newest event happened of which the index holds less than the whole.
    newest_reduced: Option<Micros>,
    /// The documents that were made before there were words to compare numbers and times by.
    not_compared: Option<Gap>,
}

/// Events by their ids, which are in the order of acceptance: from one on, before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    from: Uuid,
    before: Uuid,
    /// When the last of them was accepted, or the first behind them.
    ends: Micros,
}

/// What a page lacks of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lack {
    /// Ids, from one on and before another: these events are not in the index, or can't be compared there.
    pub(super) ranges: Vec<(Uuid, Uuid)>,
    /// Whether the index has parts of some events only.
    pub(super) parts: bool,
    /// The first reason.
    pub(super) why: Option<Why>,
}

/// Why a page lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Events are older than the index.
    Older,
    /// The index had them.
    Lost,
    /// It has parts of some events.
    Parts,
    /// Numbers and times of some can't be compared.
    Order,
}

/// The moments from which on events are looked for, oldest first.
pub(super) fn moments(hot_days: i32, total_days: i32, now: Micros) -> Vec<Micros> {
    let kept = Micros::from(total_days.max(1)) * DAY;
    let mut ages: Vec<Micros> = (1..=EVEN).map(|step| kept * step / EVEN).collect();
    let mut age = YOUNGEST;
    while age < kept {
        ages.push(age);
        age = age * GROWTH.0 / GROWTH.1;
    }
    // What must be there, to the second: a range of so many days is one that people ask for.
    ages.push(Micros::from(hot_days) * DAY);
    ages.sort_unstable_by(|a, b| b.cmp(a));
    ages.dedup();
    ages.into_iter().map(|age| (now - age).max(0)).collect()
}

impl Coverage {
    /// From events that the index was given, oldest first, and those that it holds, each in its form.
    pub(super) fn new(probes: &[Probe], held: &HashMap<Uuid, u32>, newest_reduced: Option<Micros>) -> Self {
        let mut gaps = Vec::new();
        let (mut from, mut missing) = (Uuid::nil(), false);
        for Probe { id, accepted_at } in probes {
            if held.contains_key(id) {
                if std::mem::take(&mut missing) {
                    gaps.push(Gap { from, before: *id, ends: *accepted_at });
                }
                from = *id;
            } else {
                missing = true;
            }
        }
        if missing {
            gaps.push(Gap { from, before: Uuid::max(), ends: Micros::MAX });
        }
        let is_old = |probe: &Probe| held.get(&probe.id).is_some_and(|form| *form < FORM);
        let not_compared = probes.iter().rposition(is_old).map(|last| Gap {
            from: Uuid::nil(),
            before: probes.get(last + 1).map_or(Uuid::max(), |next| next.id),
            ends: probes[last].accepted_at,
        });
        Self { gaps, newest_reduced, not_compared }
    }

    /// What a page of a search lacks. A range is one of times at which events happened, a gap one of acceptance. What is
    /// accepted in a gap happened in it or at any time before, so all ranges that begin before its end lack.
    pub(super) fn lack(&self, page: &Page) -> Lack {
        let from = page.filters.from.unwrap_or(Micros::MIN);
        let asks = |what: fn(&query::Query) -> bool| page.query.as_ref().is_some_and(what);
        let mut gaps = self.gaps.iter().filter(|gap| from < gap.ends).peekable();
        let old = self.not_compared.filter(|gap| from <= gap.ends && asks(query::Query::compares));
        let reduced = self.newest_reduced.is_some_and(|newest| from <= newest);
        let parts = reduced && asks(query::Query::asks_for_the_whole);
        let why = match gaps.peek() {
            Some(gap) if gap.from.is_nil() && gap.before != Uuid::max() => Some(Why::Older),
            Some(_) => Some(Why::Lost),
            None if old.is_some() => Some(Why::Order),
            None => parts.then_some(Why::Parts),
        };
        let ranges = gaps.chain(&old).map(|gap| (gap.from, gap.before)).collect();
        Lack { ranges, parts, why }
    }
}

/// What was found out a moment ago, of each tenant. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    tenants: Arc<Mutex<HashMap<TenantName, Remembered>>>,
}

/// When it was found out, and what.
type Remembered = (Instant, Arc<Coverage>);

impl Known {
    pub(super) fn get(&self, tenant: &TenantName, now: Instant) -> Option<Arc<Coverage>> {
        let tenants = self.lock();
        let (at, coverage) = tenants.get(tenant)?;
        (now.saturating_duration_since(*at) < HOLDS).then(|| Arc::clone(coverage))
    }

    pub(super) fn put(&self, tenant: &TenantName, coverage: Arc<Coverage>, now: Instant) {
        let mut tenants = self.lock();
        if tenants.len() >= REMEMBERED {
            tenants.retain(|_, (at, _)| now.saturating_duration_since(*at) < HOLDS);
        }
        if tenants.len() < REMEMBERED {
            tenants.insert(tenant.clone(), (now, coverage));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, Remembered>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::Filters;
    use query::parse;

    const FIRST: Uuid = Uuid::nil();
    const LAST: Uuid = Uuid::max();

    fn id(n: usize) -> Uuid {
        Uuid::from_u128(n as u128 + 7)
    }

    fn probe(n: usize) -> Probe {
        Probe { id: id(n), accepted_at: 100 * (n as Micros + 1) }
    }

    fn coverage(held: &[bool], newest_reduced: Option<Micros>) -> Coverage {
        let probes: Vec<_> = (0..held.len()).map(probe).collect();
        let held = probes.iter().zip(held).filter(|(_, held)| **held).map(|(probe, _)| (probe.id, FORM)).collect();
        Coverage::new(&probes, &held, newest_reduced)
    }

    #[test]
    fn what_lies_between_two_events_that_are_there_is_there() {
        for (held, expected) in [
            (vec![], vec![]),
            (vec![true, true, true], vec![]),
            (vec![false, false, true], vec![(FIRST, id(2), 300)]),
            (vec![true, false, false, true], vec![(id(0), id(3), 400)]),
            (vec![true, false], vec![(id(0), LAST, Micros::MAX)]),
            (vec![false, false], vec![(FIRST, LAST, Micros::MAX)]),
            (
                vec![false, true, false, true, false],
                vec![(FIRST, id(1), 200), (id(1), id(3), 400), (id(3), LAST, Micros::MAX)],
            ),
        ] {
            let gaps: Vec<_> = coverage(&held, None).gaps.iter().map(|gap| (gap.from, gap.before, gap.ends)).collect();
            assert_eq!(gaps, expected, "{held:?}");
        }
    }

    #[test]
    fn a_page_lacks_what_its_range_has_and_the_index_has_not() {
        let page = |from: Option<Micros>, q: &str| Page {
            filters: Filters { from, ..Filters::default() },
            query: Some(parse(q).unwrap()),
            ..Page::default()
        };
        let (all, older, lost) = (&[true, true][..], &[false, true, true][..], &[true, false, true][..]);
        let (nothing, parts) = (|| (vec![], None), || (vec![], Some(Why::Parts)));
        let lacks = |why, from, before| (vec![(from, before)], Some(why));
        for (held, reduced, from, q, expected) in [
            (all, None, None, "word", nothing()),
            (older, None, None, "word", lacks(Why::Older, FIRST, id(1))),
            (older, None, Some(150), "word", lacks(Why::Older, FIRST, id(1))),
            (older, None, Some(200), "word", nothing()),
            (lost, None, None, "word", lacks(Why::Lost, id(0), id(2))),
            (lost, None, Some(50), "word", lacks(Why::Lost, id(0), id(2))),
            (lost, None, Some(300), "word", nothing()),
            (&[true, false], None, Some(1_000_000), "word", lacks(Why::Lost, id(0), LAST)),
            (&[false, false], None, Some(1_000_000), "word", lacks(Why::Lost, FIRST, LAST)),
            (all, Some(150), None, "word", parts()),
            (all, Some(150), Some(150), "metadata.a:b", parts()),
            (all, Some(150), Some(151), "word", nothing()),
            (all, Some(150), None, "service:api", nothing()),
            (older, Some(150), None, "word", lacks(Why::Older, FIRST, id(1))),
        ] {
            let lack = coverage(held, reduced).lack(&page(from, q));
            assert_eq!((lack.ranges, lack.why), expected, "{held:?} {reduced:?} {from:?} {q}");
            assert_eq!(
                lack.parts,
                reduced.is_some() && !matches!((from, q), (Some(151), _) | (_, "service:api")),
                "{q}"
            );
        }
    }

    #[test]
    fn numbers_can_not_be_compared_in_documents_of_before() {
        let probes: Vec<_> = (0..4).map(probe).collect();
        let forms = [0, 1, FORM, FORM];
        let held = probes.iter().zip(forms).map(|(probe, form)| (probe.id, form)).collect();
        let coverage = Coverage::new(&probes, &held, None);
        for (from, q, expected) in [
            (None, "status:>=500", vec![(FIRST, id(2))]),
            (Some(200), "-(a status:>=500)", vec![(FIRST, id(2))]),
            (Some(201), "status:>=500", vec![]),
            (None, "status:500", vec![]),
        ] {
            let filters = Filters { from, ..Filters::default() };
            let page = Page { filters, query: Some(parse(q).unwrap()), ..Page::default() };
            let lack = coverage.lack(&page);
            assert_eq!(lack.why, expected.first().map(|_| Why::Order), "{from:?} {q}");
            assert_eq!(lack.ranges, expected, "{from:?} {q}");
        }
    }

    #[test]
    fn moments_are_dense_where_people_look_and_few() {
        let now = 1_767_323_045_000_000;
        for (hot, total) in [(1, 1), (7, 30), (30, 3650)] {
            let moments = moments(hot, total, now);
            assert!(moments.len() <= 110, "{} of {total} days", moments.len());
            assert!(moments.is_sorted() && moments[0] == now - Micros::from(total) * DAY);
            assert!(moments.contains(&(now - Micros::from(hot) * DAY)));
            assert_eq!(moments.last(), Some(&(now - YOUNGEST)));
            let widest = moments.windows(2).map(|two| two[1] - two[0]).max().unwrap();
            assert!(widest <= Micros::from(total) * DAY / EVEN + 1, "{widest}");
        }
    }

    #[test]
    fn what_is_known_holds_for_a_moment() {
        let (known, now) = (Known::default(), Instant::now());
        let tenant: TenantName = "acme".parse().unwrap();
        known.put(&tenant, Arc::default(), now);
        assert!(known.get(&tenant, now).is_some() && known.get(&tenant, now + HOLDS).is_none());
        for n in 0..2 * REMEMBERED {
            known.put(&format!("t{n}").parse().unwrap(), Arc::default(), now);
        }
        assert_eq!(known.lock().len(), REMEMBERED);
    }
}
