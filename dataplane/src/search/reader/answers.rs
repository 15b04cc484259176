//! A question's answer: events, a table or a chart; and facets, fields and values.

use std::collections::{BTreeMap, BTreeSet};

use api::answer::{
    Answer, Cell, Column, ColumnKind, Events, EventsKind, Facet, Facets, FieldShare, FieldType, Fields, Line, Series,
    SeriesKind, Table, TableKind, Told, ValueCount, Values,
};
use query::Page;
use query::counting::{Buckets, Counted, Group, Grouping, Key, Order, Tally, compute, compute_over_time, count};
use query::expression::{Clause, Field, Pattern, Query};
use query::params::InvalidParams;
use query::params::counting::{Ask, ValuesOf};
use query::parse::is_field_name;
use query::scalar::Scalar;
use query::stage::{Aggregate, Function, Interval, MAX_BUCKETS, MAX_SERIES, Shape, Verb};

use super::Reader;
use super::counts::{ALL, Counts, SAMPLE, Surety};
use crate::event::{Micros, rfc3339};
use crate::search::Error;
use crate::tenancy::Tenant;

/// Values of each field that facets show.
const FACET_VALUES: u32 = 20;
/// Events that tell which fields there are.
const FIELD_SAMPLE: u32 = 1_000;
/// Most fields in an answer: some 50 KB.
const MAX_FIELDS: usize = 500;
/// Values of a field that are shown with it.
const SHOWN_VALUES: usize = 3;
/// Longest such value, in bytes.
const SHOWN_BYTES: usize = 128;

impl Reader {
    /// What a question is answered with.
    pub async fn ask(&self, tenant: &Tenant, asked: &Ask, now: Micros) -> Result<Answer, Error> {
        let Ask { page, question } = asked;
        match &question.shape {
            Shape::Events { columns, limit } => {
                let (mut listing, looked_at) = if question.greps.is_empty() {
                    (self.search(tenant, page, now).await?, None)
                } else {
                    let (listing, looked_at) = self.grep(tenant, page, &question.greps, now).await?;
                    (listing, Some(looked_at))
                };
                if limit.is_some() {
                    // More than so many were not asked for.
                    listing.next_cursor = None;
                }
                let columns = columns.iter().map(ToString::to_string).collect();
                Ok(Answer::Events(Events { kind: EventsKind::Events, page: listing, columns, looked_at, took_ms: 0 }))
            }
            Shape::Table { verb, aggregates, by, rows } => {
                Ok(Answer::Table(self.table(tenant, page, *verb, aggregates, by, *rows, now).await?))
            }
            Shape::Series { interval, aggregate, by, lines } => {
                let chart = Chart { interval: *interval, aggregate, by: by.as_ref(), lines: *lines };
                Ok(Answer::Series(self.series(tenant, page, &chart, "q", now).await?))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one stage")]
    async fn table(
        &self,
        tenant: &Tenant,
        page: &Page,
        verb: Verb,
        aggregates: &[Aggregate],
        by: &[Field],
        rows: u32,
        now: Micros,
    ) -> Result<Table, Error> {
        let order = if verb == Verb::Rare { Order::Fewest } else { Order::Most };
        let with_missing = matches!(verb, Verb::Count | Verb::Stats);
        let grouping = Grouping { by: by.to_vec(), buckets: None, limit: rows, order, with_missing };
        let only_counts = aggregates.iter().all(|aggregate| aggregate.function == Function::Count);
        if only_counts {
            let Counts { tally, surety } = self.counts(tenant, page, &grouping, now).await?;
            let numbers = |group: &Group| aggregates.iter().map(|_| Cell::Count(group.count)).collect();
            return Ok(table_of(tally, surety, aggregates, by, numbers));
        }
        let mut fields = by.to_vec();
        fields.extend(aggregates.iter().filter_map(|aggregate| aggregate.field.clone()));
        let (sample, surety) = self.sample(tenant, page, Some(&fields), SAMPLE, now).await?;
        let computed = compute(&sample.events, aggregates, by);
        if sample.is_whole() {
            let tally = count(&sample.events, &grouping);
            return Ok(table_of(tally, surety, aggregates, by, |group| cells(group, aggregates, &computed, 1.0)));
        }
        // How many there are of each group is counted; what is computed of them is estimated.
        let Counts { tally, surety: counted } = self.counts(tenant, page, &grouping, now).await?;
        let of_sample = count(&sample.events, &Grouping { limit: u32::MAX, ..grouping.clone() });
        let in_sample: BTreeMap<&Key, u64> = of_sample.groups.iter().map(|group| (&group.key, group.count)).collect();
        let mut distinct = BTreeMap::new();
        for aggregate in aggregates.iter().filter(|_| by.is_empty()) {
            if let (Function::Uniq, Some(field)) = (aggregate.function, &aggregate.field)
                && field.is_reserved()
            {
                let (values, _) = self.index.distinct(tenant, page, field).await?;
                distinct.insert(aggregate.to_string(), values);
            }
        }
        let surety = Surety { notice: surety.notice.or(counted.notice), ..surety };
        Ok(table_of(tally, surety, aggregates, by, |group| {
            let share = in_sample.get(&group.key).map_or(1.0, |found| group.count as f64 / *found as f64);
            let mut cells = cells(group, aggregates, &computed, share);
            for (cell, aggregate) in cells.iter_mut().zip(aggregates) {
                if let Some(values) = distinct.get(&aggregate.to_string()) {
                    *cell = Cell::Count(*values);
                }
            }
            cells
        }))
    }

    /// How many events there are over time, by level.
    pub async fn histogram(
        &self,
        tenant: &Tenant,
        page: &Page,
        interval: Option<Interval>,
        now: Micros,
    ) -> Result<Series, Error> {
        let (aggregate, by) = (Aggregate::count(), Field::Level);
        let chart = Chart { interval, aggregate: &aggregate, by: Some(&by), lines: MAX_SERIES };
        self.series(tenant, page, &chart, "interval", now).await
    }

    /// A chart. `named` is the parameter that an interval stands in.
    async fn series(
        &self,
        tenant: &Tenant,
        page: &Page,
        chart: &Chart<'_>,
        named: &str,
        now: Micros,
    ) -> Result<Series, Error> {
        let filters = &page.filters;
        let found = match (filters.from, filters.to) {
            (Some(from), Some(to)) => Some((from, to)),
            (from, to) => {
                let bounds = self.bounds(tenant, page).await?;
                bounds.map(|(first, last)| (from.unwrap_or(first), to.unwrap_or(last)))
            }
        };
        let (from, to) = found.unwrap_or_else(|| {
            let at = filters.from.or(filters.to).unwrap_or(now);
            (at, at)
        });
        let range = to.saturating_sub(from);
        let interval = chart.interval.unwrap_or_else(|| Interval::for_range(range));
        let by: Vec<Field> = chart.by.into_iter().cloned().collect();
        let buckets = if to > from {
            Buckets::covering(from, to, interval.micros(), 0).ok_or_else(|| too_many_points(named, interval, range))?
        } else {
            Buckets { start: from, width: interval.micros(), count: 0 }
        };
        let page =
            Page { filters: query::Filters { from: Some(from), to: Some(to), ..filters.clone() }, ..page.clone() };
        let grouping = Grouping {
            by: by.clone(),
            buckets: Some(buckets),
            limit: chart.lines,
            order: Order::Most,
            with_missing: true,
        };
        let Counts { tally, surety } = if buckets.count > 0 {
            self.counts(tenant, &page, &grouping, now).await?
        } else {
            Counts { tally: Tally::default(), surety: Surety::of_nothing() }
        };
        let mut series = Series {
            kind: SeriesKind::Series,
            value: chart.aggregate.to_string(),
            by: chart.by.map(ToString::to_string),
            start: rfc3339(buckets.start),
            interval_ms: u64::try_from(buckets.width / 1000).unwrap_or(0),
            series: Vec::new(),
            other: None,
            total: tally.total,
            more: tally.more,
            told: surety.clone().told(),
        };
        let name = |key: &Key| key.first().cloned().flatten();
        if chart.aggregate.function == Function::Count {
            let points = |counts: &[u64]| counts.iter().map(|count| Cell::Count(*count)).collect();
            let line = |group: &Group| Line { name: name(&group.key), points: points(&group.buckets) };
            series.series = tally.groups.iter().map(line).collect();
            // Without groups there are no others.
            series.other = (!by.is_empty()).then_some(tally.other_buckets);
            return Ok(series);
        }
        let mut fields = by.clone();
        fields.extend(chart.aggregate.field.clone());
        let (sample, computed) = self.sample(tenant, &page, Some(&fields), ALL, now).await?;
        let mut lines = compute_over_time(&sample.events, chart.aggregate, &by, &buckets);
        let nothing = || vec![None; buckets.count];
        let share = if sample.events.is_empty() { 1.0 } else { sample.total as f64 / sample.events.len() as f64 };
        let scaled = |number: f64| if chart.aggregate.function == Function::Sum { number * share } else { number };
        series.series = (tally.groups.iter())
            .map(|group| {
                let numbers = lines.remove(&group.key).unwrap_or_else(nothing);
                Line {
                    name: name(&group.key),
                    points: numbers.into_iter().map(|n| Cell::from(n.map(scaled))).collect(),
                }
            })
            .collect();
        let notice = computed.notice.clone().or(surety.notice);
        series.told = Surety { notice, ..computed }.told();
        Ok(series)
    }

    /// The values of the fields that LoggerHub has names for.
    pub async fn facets(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Facets, Error> {
        let fields = [Field::Service, Field::Level, Field::Application, Field::Language];
        let groupings = fields.clone().map(|field| Grouping {
            by: vec![field],
            limit: FACET_VALUES,
            with_missing: true,
            ..Grouping::default()
        });
        let (tallies, surety) = self.counts_by_each(tenant, page, &groupings, now).await?;
        let total = tallies.first().map_or(0, |tally| tally.total);
        let facets = fields.iter().zip(tallies).map(|(field, tally)| facet(field, tally)).collect();
        Ok(Facets { facets, total, told: surety.told() })
    }

    /// The values of one field.
    pub async fn values(&self, tenant: &Tenant, asked: &ValuesOf, now: Micros) -> Result<Values, Error> {
        let ValuesOf { page, field, prefix, limit } = asked;
        let mut page = page.clone();
        if let Some(prefix) = prefix {
            let clause = Query::Clause(Clause { field: field.clone(), pattern: Pattern::Prefix(prefix.clone()) });
            page.query = Some(Query::And(page.query.into_iter().chain([clause]).collect()));
        }
        let grouping = Grouping { by: vec![field.clone()], limit: *limit, ..Grouping::default() };
        let Counts { mut tally, surety } = self.counts(tenant, &page, &grouping, now).await?;
        if let Some(prefix) = prefix {
            // An event with several values has others too.
            let upper = prefix.to_uppercase();
            let prefix = if *field == Field::Level { &upper } else { prefix };
            let begins =
                |value: &Option<String>| value.as_ref().is_some_and(|value| value.starts_with(prefix.as_str()));
            tally.groups.retain(|group| group.key.iter().all(begins));
        }
        let total = tally.total;
        Ok(Values { facet: facet(field, tally), total, told: surety.told() })
    }

    /// The fields that events have, by a sample of them.
    pub async fn fields(&self, tenant: &Tenant, page: &Page, now: Micros) -> Result<Fields, Error> {
        let (sample, surety) = self.sample(tenant, page, None, FIELD_SAMPLE, now).await?;
        let mut fields = shares(&sample.events);
        let more = fields.len().saturating_sub(MAX_FIELDS) as u64;
        fields.truncate(MAX_FIELDS);
        Ok(Fields { fields, more, told: surety.told() })
    }
}

/// A chart that is asked for.
struct Chart<'a> {
    interval: Option<Interval>,
    aggregate: &'a Aggregate,
    by: Option<&'a Field>,
    lines: u32,
}

impl Surety {
    fn of_nothing() -> Self {
        Self { exact: true, sampled: None, source: api::event::Source::Catalog, notice: None }
    }

    fn told(self) -> Told {
        let Self { exact, sampled, source, notice } = self;
        Told { exact, sampled, source, complete: notice.is_none(), notice, took_ms: 0 }
    }
}

fn too_many_points(named: &str, interval: Interval, range: Micros) -> Error {
    let wider = interval.widened(range);
    let why = format!(
        "asks for a point each {interval}, which are {} in this time range and at most {MAX_BUCKETS}; ask for {wider}, or for a \
         shorter range",
        range / interval.micros() + 1
    );
    InvalidParams::Parameter { name: named.to_owned(), why }.into()
}

fn table_of(
    tally: Tally,
    surety: Surety,
    aggregates: &[Aggregate],
    by: &[Field],
    numbers: impl Fn(&Group) -> Vec<Cell>,
) -> Table {
    let groups = by.iter().map(|field| Column { name: field.to_string(), kind: ColumnKind::Group });
    let computed = aggregates.iter().map(|of| Column { name: of.to_string(), kind: ColumnKind::Number });
    let row = |group: &Group| group.key.iter().cloned().map(Cell::from).chain(numbers(group)).collect();
    Table {
        kind: TableKind::Table,
        columns: groups.chain(computed).collect(),
        rows: tally.groups.iter().map(row).collect(),
        total: tally.total,
        other: tally.other,
        missing: tally.missing,
        more: tally.more,
        told: surety.told(),
    }
}

/// The numbers of a group. `share` is how many events each of a sample stands for.
fn cells(group: &Group, aggregates: &[Aggregate], computed: &BTreeMap<Key, Vec<Option<f64>>>, share: f64) -> Vec<Cell> {
    let numbers = computed.get(&group.key);
    let cell = |(place, aggregate): (usize, &Aggregate)| {
        let number = numbers.and_then(|numbers| numbers[place]);
        match aggregate.function {
            Function::Count => Cell::Count(group.count),
            // At least so many.
            Function::Uniq => Cell::Count(number.unwrap_or(0.0) as u64),
            Function::Sum => Cell::from(number.map(|number| number * share)),
            _ => Cell::from(number),
        }
    };
    aggregates.iter().enumerate().map(cell).collect()
}

fn facet(field: &Field, tally: Tally) -> Facet {
    let value = |mut group: Group| ValueCount { value: group.key.pop().flatten(), count: group.count };
    Facet {
        field: field.to_string(),
        values: tally.groups.into_iter().map(value).collect(),
        other: tally.other,
        more: tally.more,
    }
}

/// What is known of a field by some events.
#[derive(Default)]
struct Known {
    events: u64,
    places: BTreeSet<&'static str>,
    types: BTreeSet<FieldType>,
    values: BTreeSet<String>,
}

/// The fields that events have, those of most of them first.
pub(super) fn shares(events: &[Counted]) -> Vec<FieldShare> {
    let mut fields: BTreeMap<String, Known> = BTreeMap::new();
    for event in events {
        for field in [Field::Service, Field::Level, Field::Application, Field::Language] {
            let values = event.values(&field);
            if !values.is_empty() {
                let known = fields.entry(field.to_string()).or_default();
                known.events += 1;
                known.types.insert(FieldType::Text);
                values.into_iter().for_each(|value| known.show(value));
            }
        }
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for (path, value) in event.leaves.iter().filter_map(|word| word.split_once('=')) {
            let place = if path.starts_with("metadata.") { "metadata" } else { "attributes" };
            let Some(short) = path.strip_prefix(place).and_then(|rest| rest.strip_prefix('.')) else { continue };
            // What its own name would not find is called by its whole path; what has no name that can be typed is left out.
            let name = if Field::of(short).paths().len() == 2 { short } else { path };
            if !is_field_name(name) || name.starts_with('@') {
                continue;
            }
            let known = fields.entry(name.to_owned()).or_default();
            known.events += u64::from(seen.insert(name.to_owned()));
            known.places.insert(place);
            known.types.insert(kind(value));
            known.show(value);
        }
    }
    let share = |(name, known): (String, Known)| FieldShare {
        name,
        places: known.places.into_iter().map(str::to_owned).collect(),
        events: known.events,
        share: known.events as f64 / events.len().max(1) as f64,
        types: known.types.into_iter().collect(),
        values: known.values.into_iter().collect(),
    };
    let mut fields: Vec<FieldShare> = fields.into_iter().map(share).collect();
    fields.sort_by_key(|field| std::cmp::Reverse(field.events));
    fields
}

impl Known {
    fn show(&mut self, value: &str) {
        if self.values.len() < SHOWN_VALUES {
            self.values.insert(value[..value.floor_char_boundary(SHOWN_BYTES)].to_owned());
        }
    }
}

fn kind(value: &str) -> FieldType {
    match (Scalar::of(value), value) {
        (Some(Scalar::Number(_)), _) => FieldType::Number,
        (Some(Scalar::Time(_)), _) => FieldType::Time,
        (None, "true" | "false") => FieldType::Boolean,
        (None, _) => FieldType::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_by_the_events_that_have_them() {
        let line = |line: &str| Counted::of(&stages::event(line.as_bytes(), 0).unwrap(), 0);
        let events = [
            line(
                r#"{"message":"m","service":"api","status":500,"metadata":{"status":"200","at":"2026-01-02","level":"x"}}"#,
            ),
            line(r#"{"message":"m","service":"web","ok":true,"not a name":1,"tags":["a","b"]}"#),
        ];
        let told = |field: &FieldShare| {
            let types: Vec<_> = field.types.iter().map(|kind| format!("{kind:?}")).collect();
            format!("{} {} {} {}", field.name, field.places.join("+"), field.events, types.join("+"))
        };
        let told: Vec<String> = shares(&events).iter().map(told).collect();
        assert_eq!(
            told,
            [
                "level  2 Text",
                "service  2 Text",
                "at metadata 1 Time",
                "metadata.level metadata 1 Text",
                "ok attributes 1 Boolean",
                "status attributes+metadata 1 Number",
                "tags attributes 1 Text",
            ]
        );
    }
}
