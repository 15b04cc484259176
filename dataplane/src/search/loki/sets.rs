//! Sets of labels that a selector finds, and how many lines each has: of the index's groups, where all that the selector
//! names are its fields; else of the newest lines, and that is said.

use std::collections::BTreeMap;

use query::logql::{Labels, LogExpr, Row, candidates, keyword_of};
use stages::Event;
use uuid::Uuid;

use super::counts;
use super::lines::{self, Wanted, doubts};
use crate::event::Micros;
use crate::search::{Error, Reader};
use crate::stores::read::{Asked, Grouped};
use crate::tenancy::Tenant;

/// What streams are told apart by.
pub(super) const STREAM: [&str; 3] = ["service_name", "application", "language"];

/// Lines that are looked at where the index can't group.
const SAMPLE: usize = 5000;
/// Lines whose mean length is taken.
const WEIGHED: usize = 100;

/// Lines with the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) labels: Labels,
    pub(super) count: u64,
}

/// What a selector finds.
#[derive(Debug, Default)]
pub(super) struct Sets {
    pub(super) sets: Vec<Set>,
    pub(super) warnings: Vec<String>,
}

impl Sets {
    pub(super) fn join(&mut self, other: Self) {
        self.sets.extend(other.sets);
        self.warnings
            .extend(other.warnings.into_iter().filter(|warning| !self.warnings.contains(warning)).collect::<Vec<_>>());
    }
}

/// The sets of these labels, all of which are fields of the index.
pub(super) async fn find(
    reader: &Reader,
    tenant: &Tenant,
    log: &LogExpr,
    span: (Micros, Micros),
    names: &[&str],
    now: Micros,
) -> Result<Sets, Error> {
    if span.0 >= span.1 {
        return Ok(Sets::default());
    }
    let found = candidates(log);
    let matched = log.matchers.iter().map(|matcher| keyword_of(&matcher.name)).collect::<Option<Vec<_>>>();
    let Some(matched) = matched.filter(|_| found.exact || log.stages.is_empty()) else {
        return sampled(reader, tenant, log, span, names, now).await;
    };
    let mut fields: Vec<&'static str> = names.iter().filter_map(|name| keyword_of(name)).chain(matched).collect();
    fields.sort_unstable();
    fields.dedup();
    if fields.is_empty() {
        fields.push("service");
    }
    let asked = Asked { filters: found.filters, from: span.0, to: span.1, kept_after: tenant.kept_after(now) };
    let (groups, partial) = counts::all(reader, tenant, &asked, &Grouped { fields, time: None }).await?;
    let mut sets: BTreeMap<Labels, u64> = BTreeMap::new();
    for group in groups {
        let row = row_of(&group.values);
        if log.matchers.iter().all(|matcher| matcher.holds(&row)) {
            *sets.entry(labels_of(&row, names)).or_default() += group.count;
        }
    }
    let warnings = doubts(reader, tenant, span, false, partial, now).await?;
    Ok(Sets { sets: sets.into_iter().map(|(labels, count)| Set { labels, count }).collect(), warnings })
}

/// The same, and the mean length of a line.
pub(super) async fn weigh(
    reader: &Reader,
    tenant: &Tenant,
    log: &LogExpr,
    span: (Micros, Micros),
    names: &[&str],
    now: Micros,
) -> Result<(Sets, f64), Error> {
    let sets = find(reader, tenant, log, span, names, now).await?;
    if sets.sets.is_empty() {
        return Ok((sets, 0.0));
    }
    // A mean over all lines of the selector, of some of the newest: clients show about how much there is.
    let matchers = LogExpr { matchers: log.matchers.clone(), stages: Vec::new() };
    let wanted = Wanted { span, forward: false, limit: WEIGHED, whole: false };
    let rows = lines::find(reader, tenant, &matchers, wanted, now).await?.rows;
    let bytes = rows.iter().map(|row| row.line.len()).sum::<usize>();
    Ok((sets, bytes as f64 / rows.len().max(1) as f64))
}

async fn sampled(
    reader: &Reader,
    tenant: &Tenant,
    log: &LogExpr,
    span: (Micros, Micros),
    names: &[&str],
    now: Micros,
) -> Result<Sets, Error> {
    let wanted = Wanted { span, forward: false, limit: SAMPLE, whole: false };
    let found = lines::find(reader, tenant, log, wanted, now).await?;
    let mut warnings = found.warnings;
    if found.rows.len() == SAMPLE {
        warnings.push(format!("these are of the newest {SAMPLE} lines only"));
    }
    let mut sets: BTreeMap<Labels, u64> = BTreeMap::new();
    for row in &found.rows {
        *sets.entry(labels_of(row, names)).or_default() += 1;
    }
    Ok(Sets { sets: sets.into_iter().map(|(labels, count)| Set { labels, count }).collect(), warnings })
}

fn labels_of(row: &Row, names: &[&str]) -> Labels {
    let pairs = names.iter().map(|name| ((*name).to_owned(), row.label(name).to_owned()));
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// A line of which only fields of the index are known.
fn row_of(values: &BTreeMap<&'static str, String>) -> Row {
    let value = |field: &str| values.get(field).cloned();
    let event = Event {
        time: None,
        level: value("level").unwrap_or_default(),
        service: value("service").unwrap_or_default(),
        application: value("application"),
        message: String::new(),
        full_log: None,
        language: value("language"),
        metadata: None,
        attributes: None,
    };
    Row::new(event, 0, Uuid::nil())
}
