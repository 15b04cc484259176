//! Counts by groups of the index, without reading a line.

use std::collections::BTreeMap;

use query::logql::{Boundaries, Counted, Labels, RangeExpr, Windows, candidates};
use serde_json::{Value, json};

use super::Refused;
use super::lines::{Cost, doubts};
use super::metric::{OfRange, too_broad};
use crate::event::{Micros, rfc3339};
use crate::search::{Error, Reader};
use crate::stores::read::{Asked, Group, Grouped};
use crate::tenancy::Tenant;

/// Groups of one question: some hundred thousand numbers.
const MAX_GROUPS: usize = 100_000;
/// Edges that the index is asked for at once: a query has 1,024 clauses at most.
const EDGES: usize = 900;

/// What one range finds, as the index counts it.
pub(super) async fn count(
    reader: &Reader,
    tenant: &Tenant,
    range: &RangeExpr,
    windows: Windows,
    boundaries: Boundaries,
    now: Micros,
) -> Result<OfRange, Error> {
    let (from, to) = windows.span(range);
    let grouped =
        Grouped { fields: range.fields().into_iter().collect(), time: Some((boundaries.interval, boundaries.offset)) };
    let filters = candidates(&range.log).filters;
    let kept_after = tenant.kept_after(now);
    let asked = Asked { filters: filters.clone(), from, to, kept_after };
    let (groups, mut partial) = all(reader, tenant, &asked, &grouped).await?;
    let mut lines = 0;
    let mut counted = Counted::default();
    for group in groups {
        lines += group.count;
        add(range, &mut counted.groups, group);
    }
    if lines > 0 {
        for edges in boundaries.edges.chunks(EDGES) {
            let (Some(first), Some(last)) = (edges.first(), edges.last()) else { continue };
            let near: Vec<Value> = edges.iter().map(|edge| until(*edge)).collect();
            let near = json!({"bool": {"should": near, "minimum_should_match": 1}});
            let filters = filters.iter().cloned().chain([near]).collect();
            let asked = Asked { filters, from: from.max(floor(*first)), to: to.min(last + 1), kept_after };
            if asked.from >= asked.to {
                continue;
            }
            let (groups, in_part) = all(reader, tenant, &asked, &grouped).await?;
            partial |= in_part;
            for group in groups {
                add(range, &mut counted.edges, group);
            }
        }
    }
    let warnings = doubts(reader, tenant, (from, to), false, partial, now).await?;
    let series = windows.of_counts(range, &counted).ok_or_else(too_broad)?;
    Ok(OfRange { series, warnings, cost: Cost { lines, bytes: 0 } })
}

fn add(range: &RangeExpr, into: &mut BTreeMap<Labels, BTreeMap<i64, u64>>, group: Group) {
    *into.entry(range.labels_of(&group.values)).or_default().entry(group.millis).or_default() += group.count;
}

/// The first microsecond of a time's millisecond.
fn floor(time: Micros) -> Micros {
    time.div_euclid(1000) * 1000
}

/// Events in the millisecond of an edge that are not after it.
fn until(edge: Micros) -> Value {
    let shown = |time: Micros| rfc3339(time.clamp(0, i64::MAX / 1000));
    json!({"range": {"@timestamp": {"gte": shown(floor(edge)), "lte": shown(edge)}}})
}

/// All groups, and whether a part of the index didn't answer in time.
pub(super) async fn all(
    reader: &Reader,
    tenant: &Tenant,
    asked: &Asked,
    grouped: &Grouped,
) -> Result<(Vec<Group>, bool), Error> {
    let (mut all, mut partial, mut after) = (Vec::new(), false, None);
    loop {
        let page = reader.index.groups_of(tenant, asked, grouped, after.as_ref()).await?;
        partial |= page.partial;
        all.extend(page.groups);
        if all.len() > MAX_GROUPS {
            let message = "the query is too broad to count: it has too many series and steps; increase the step, narrow the \
                           time range, or group by fewer labels";
            return Err(Refused::Because(message.to_owned()).into());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((all, partial)),
        }
    }
}
