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
    /// Times of acceptance between which events are missing, oldest first.
    gaps: Vec<(Micros, Micros)>,
    /// When the newest event happened of which the index holds less than the whole.
    newest_reduced: Option<Micros>,
    /// Up to when documents were made that have no words to compare numbers and times by.
    not_compared: Option<Micros>,
}

/// What a page may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// Events older than the index.
    Older,
    /// Events that the index had.
    Lost,
    /// Parts of some events.
    Parts,
    /// Events whose numbers and times can't be compared.
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
        let (mut begins, mut missing) = (Micros::MIN, false);
        for Probe { id, accepted_at } in probes {
            if held.contains_key(id) {
                if std::mem::take(&mut missing) {
                    gaps.push((begins, *accepted_at));
                }
                begins = *accepted_at;
            } else {
                missing = true;
            }
        }
        if missing {
            gaps.push((begins, Micros::MAX));
        }
        let is_old = |probe: &&Probe| held.get(&probe.id).is_some_and(|form| *form < FORM);
        let not_compared = probes.iter().rev().find(is_old).map(|probe| probe.accepted_at);
        Self { gaps, newest_reduced, not_compared }
    }

    /// What a page of a search may lack. A range is one of times at which events happened, a gap one of acceptance.
    /// What is accepted in a gap happened in it or at any time before, so all ranges that begin before its end lack.
    pub(super) fn lack(&self, page: &Page) -> Option<Lack> {
        let from = page.filters.from.unwrap_or(Micros::MIN);
        let gap = self.gaps.iter().find(|(_, ends)| from < *ends);
        let whole = page.query.as_ref().is_some_and(query::Query::asks_for_the_whole);
        let compares = page.query.as_ref().is_some_and(query::Query::compares);
        match gap {
            Some((Micros::MIN, ends)) if *ends < Micros::MAX => Some(Lack::Older),
            Some(_) => Some(Lack::Lost),
            None if compares && self.not_compared.is_some_and(|until| from <= until) => Some(Lack::Order),
            None if whole && self.newest_reduced.is_some_and(|newest| from <= newest) => Some(Lack::Parts),
            None => None,
        }
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

    fn coverage(held: &[bool], newest_reduced: Option<Micros>) -> Coverage {
        let probe = |n: usize| Probe { id: Uuid::from_u128(n as u128), accepted_at: 100 * (n as Micros + 1) };
        let probes: Vec<_> = (0..held.len()).map(probe).collect();
        let held = probes.iter().zip(held).filter(|(_, held)| **held).map(|(probe, _)| (probe.id, FORM)).collect();
        Coverage::new(&probes, &held, newest_reduced)
    }

    #[test]
    fn what_lies_between_two_events_that_are_there_is_there() {
        for (held, gaps) in [
            (vec![], vec![]),
            (vec![true, true, true], vec![]),
            (vec![false, false, true], vec![(Micros::MIN, 300)]),
            (vec![true, false, false, true], vec![(100, 400)]),
            (vec![true, false], vec![(100, Micros::MAX)]),
            (vec![false, false], vec![(Micros::MIN, Micros::MAX)]),
            (vec![false, true, false, true, false], vec![(Micros::MIN, 200), (200, 400), (400, Micros::MAX)]),
        ] {
            assert_eq!(coverage(&held, None).gaps, gaps, "{held:?}");
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
        for (held, reduced, from, q, expected) in [
            (all, None, None, "word", None),
            (older, None, None, "word", Some(Lack::Older)),
            (older, None, Some(150), "word", Some(Lack::Older)),
            (older, None, Some(200), "word", None),
            (lost, None, None, "word", Some(Lack::Lost)),
            (lost, None, Some(50), "word", Some(Lack::Lost)),
            (lost, None, Some(300), "word", None),
            (&[true, false], None, Some(1_000_000), "word", Some(Lack::Lost)),
            (&[false, false], None, Some(1_000_000), "word", Some(Lack::Lost)),
            (all, Some(150), None, "word", Some(Lack::Parts)),
            (all, Some(150), Some(150), "metadata.a:b", Some(Lack::Parts)),
            (all, Some(150), Some(151), "word", None),
            (all, Some(150), None, "service:api", None),
            (older, Some(150), None, "word", Some(Lack::Older)),
        ] {
            assert_eq!(coverage(held, reduced).lack(&page(from, q)), expected, "{held:?} {reduced:?} {from:?} {q}");
        }
    }

    #[test]
    fn numbers_can_not_be_compared_in_documents_of_before() {
        let probe = |n: usize| Probe { id: Uuid::from_u128(n as u128), accepted_at: 100 * (n as Micros + 1) };
        let probes: Vec<_> = (0..4).map(probe).collect();
        let forms = [0, 1, FORM, FORM];
        let held = probes.iter().zip(forms).map(|(probe, form)| (probe.id, form)).collect();
        let coverage = Coverage::new(&probes, &held, None);
        for (from, q, expected) in [
            (None, "status:>=500", Some(Lack::Order)),
            (Some(200), "-(a status:>=500)", Some(Lack::Order)),
            (Some(201), "status:>=500", None),
            (None, "status:500", None),
        ] {
            let filters = Filters { from, ..Filters::default() };
            let page = Page { filters, query: Some(parse(q).unwrap()), ..Page::default() };
            assert_eq!(coverage.lack(&page), expected, "{from:?} {q}");
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
