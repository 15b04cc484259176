//! The windows of a metric query, and what is found in them: of whole lines, or of counts that the index made.
//!
//! The sample at `t` covers `(t - range, t]`. Clients count in nanoseconds, events in microseconds, and the index groups
//! by milliseconds. So counts of the index are put together from groups between the milliseconds of all edges, and from
//! the events within those milliseconds that are not past their edge.

use std::collections::{BTreeMap, BTreeSet};

use stages::time::Micros;

use super::evaluate::Series;
use super::pipeline::is_level;
use super::row::{Labels, Row};
use super::tree::{Matcher, RangeExpr, RangeOp, Test, Unwrap};

/// Groups in time that the index is asked for at most.
const MAX_GROUPS: i64 = 20_000;
/// Edges that the index is asked for at most: each is a clause of a question.
const MAX_EDGES: usize = 25_000;
/// Samples of all windows that are looked at one by one, as for a quantile.
const MAX_LOOKS: usize = 50_000_000;

/// Values of all windows and series of a range: some 16 MB.
const MAX_VALUES: usize = 1_000_000;

/// The moments at which a query is evaluated, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// The first.
    pub start: i64,
    /// Between two.
    pub step: i64,
    /// How many.
    pub count: usize,
}

impl Windows {
    /// From `start` to `end`.
    pub fn over(start: i64, end: i64, step: i64) -> Self {
        let count = usize::try_from(end.saturating_sub(start) / step.max(1)).unwrap_or(0) + 1;
        Self { start, step, count }
    }

    /// One moment.
    pub fn at(time: i64) -> Self {
        Self { start: time, step: 1, count: 1 }
    }

    /// The moments.
    pub fn times(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.count).map(|at| self.start.saturating_add(self.step.saturating_mul(at as i64)))
    }

    /// Of each window: events after the first, up to and with the second.
    fn edges(&self, range: &RangeExpr) -> impl Iterator<Item = (Micros, Micros)> + '_ {
        let (offset, length) = (range.offset.saturating_mul(1000), range.range.saturating_mul(1000));
        self.times().map(move |time| {
            let until = time.saturating_sub(offset);
            (until.saturating_sub(length).div_euclid(1000), until.div_euclid(1000))
        })
    }

    /// Times of all events that any window holds: from the first, up to and without the second.
    pub fn span(&self, range: &RangeExpr) -> (Micros, Micros) {
        let (mut from, mut to) = (Micros::MAX, Micros::MIN);
        for (after, until) in self.edges(range) {
            from = from.min(after + 1);
            to = to.max(until + 1);
        }
        (from, to)
    }

    /// How the index is to count, if it can: lengths are whole milliseconds, and there are not too many groups.
    pub fn boundaries(&self, range: &RangeExpr) -> Option<Boundaries> {
        const MILLI: i64 = 1_000_000;
        let length = range.range.checked_mul(1000)?;
        let step = if self.count > 1 { self.step } else { length };
        if step % MILLI != 0 || length % MILLI != 0 {
            return None;
        }
        let interval = gcd(step / MILLI, length / MILLI);
        let edges: BTreeSet<Micros> = self.edges(range).flat_map(|(after, until)| [after, until]).collect();
        let (first, last) = (edges.first()?.div_euclid(1000), edges.last()?.div_euclid(1000));
        let fits = (last - first) / interval <= MAX_GROUPS && edges.len() <= MAX_EDGES;
        fits.then(|| Boundaries { interval, offset: first.rem_euclid(interval), edges: edges.into_iter().collect() })
    }

    /// Whether so many series may have a value for each window.
    fn bears(&self, series: usize) -> bool {
        series.saturating_mul(self.count) <= MAX_VALUES
    }

    /// A value for each window, of what the index counted; `None` if these were too many.
    pub fn of_counts(&self, range: &RangeExpr, counted: &Counted) -> Option<Vec<Series>> {
        let series = counted.groups.keys().chain(counted.edges.keys()).cloned().collect::<BTreeSet<Labels>>();
        if !self.bears(series.len()) {
            return None;
        }
        let none = BTreeMap::new();
        let values = |labels: &Labels| {
            let groups = counted.groups.get(labels).unwrap_or(&none);
            let edges = counted.edges.get(labels).unwrap_or(&none);
            let mut sum = 0;
            let before: Vec<(i64, u64)> = groups
                .iter()
                .map(|(milli, count)| {
                    sum += count;
                    (*milli, sum)
                })
                .collect();
            // Events up to and with this microsecond.
            let until = |edge: Micros| {
                let milli = edge.div_euclid(1000);
                let at = before.partition_point(|(group, _)| *group < milli);
                at.checked_sub(1).map_or(0, |at| before[at].1) + edges.get(&milli).copied().unwrap_or(0)
            };
            let count = |(after, last): (Micros, Micros)| until(last).saturating_sub(until(after));
            self.edges(range).map(count).map(|count| (count > 0).then(|| per_window(range, count as f64))).collect()
        };
        Some(series.into_iter().map(|labels| Series { values: values(&labels), labels }).collect())
    }

    /// A value for each window, of samples; `None` if that were too many, or too much to look at.
    pub fn of_samples(&self, range: &RangeExpr, samples: &Samples) -> Option<Vec<Series>> {
        if range.of == RangeOp::Absent {
            return Some(vec![self.absent(range, samples)]);
        }
        if !self.bears(samples.series.len()) {
            return None;
        }
        let mut looks = 0;
        let mut all = Vec::new();
        for (labels, samples) in &samples.series {
            let mut sums = vec![0.0];
            sums.extend(samples.iter().scan(0.0, |sum, (_, value)| {
                *sum += value;
                Some(*sum)
            }));
            let mut values = Vec::with_capacity(self.count);
            for (after, until) in self.edges(range) {
                let first = samples.partition_point(|(time, _)| *time <= after);
                let end = samples.partition_point(|(time, _)| *time <= until);
                if first >= end {
                    values.push(None);
                    continue;
                }
                values.push(Some(match range.of {
                    RangeOp::Count => (end - first) as f64,
                    RangeOp::Sum | RangeOp::Bytes | RangeOp::Rate | RangeOp::BytesRate => {
                        per_window(range, sums[end] - sums[first])
                    }
                    RangeOp::Avg => (sums[end] - sums[first]) / (end - first) as f64,
                    _ => {
                        looks += end - first;
                        if looks > MAX_LOOKS {
                            return None;
                        }
                        of_window(range.of, &samples[first..end])
                    }
                }));
            }
            all.push(Series { labels: labels.clone(), values });
        }
        Some(all)
    }

    /// 1 where no window of any series has a line.
    fn absent(&self, range: &RangeExpr, samples: &Samples) -> Series {
        let equal = |Matcher { name, test }: &Matcher| match test {
            Test::Equal(text) if !text.is_empty() => Some((name.clone(), text.clone())),
            _ => None,
        };
        let labels = range.log.matchers.iter().filter_map(equal).collect();
        let is_empty = |(after, until)| {
            samples.series.values().all(|samples| {
                let first = samples.partition_point(|(time, _)| *time <= after);
                samples.get(first).is_none_or(|(time, _)| *time > until)
            })
        };
        Series { labels, values: self.edges(range).map(|edges| is_empty(edges).then_some(1.0)).collect() }
    }
}

/// A sum over a window, or the same a second.
fn per_window(range: &RangeExpr, sum: f64) -> f64 {
    match range.of {
        RangeOp::Rate | RangeOp::BytesRate => sum / (range.range as f64 / 1e6),
        _ => sum,
    }
}

fn of_window(of: RangeOp, samples: &[(Micros, f64)]) -> f64 {
    let values = || samples.iter().map(|(_, value)| *value);
    match of {
        RangeOp::Min => values().fold(f64::INFINITY, f64::min),
        RangeOp::Max => values().fold(f64::NEG_INFINITY, f64::max),
        RangeOp::First => samples[0].1,
        RangeOp::Last => samples[samples.len() - 1].1,
        RangeOp::Stddev => variance(&values().collect::<Vec<_>>()).sqrt(),
        RangeOp::Stdvar => variance(&values().collect::<Vec<_>>()),
        RangeOp::Quantile(quantile) => {
            let mut sorted: Vec<f64> = values().collect();
            sorted.sort_by(f64::total_cmp);
            of_sorted(quantile, &sorted)
        }
        _ => values().sum(),
    }
}

/// The mean of the squared distances from the mean.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// A quantile, between two values in proportion.
fn of_sorted(quantile: f64, sorted: &[f64]) -> f64 {
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if quantile > 1.0 {
        return f64::INFINITY;
    }
    let rank = quantile * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How the index is to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundaries {
    /// Milliseconds of a group.
    pub interval: i64,
    /// Where the groups begin.
    pub offset: i64,
    /// The edges of all windows; an event at an edge is before it.
    pub edges: Vec<Micros>,
}

/// What the index counted: of each series, in each group by the millisecond in which it begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// All events.
    pub groups: BTreeMap<Labels, BTreeMap<i64, u64>>,
    /// Those in the millisecond of an edge that are not after the edge.
    pub edges: BTreeMap<Labels, BTreeMap<i64, u64>>,
}

/// What lines are worth, by series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    series: BTreeMap<Labels, Vec<(Micros, f64)>>,
    /// Values that could not be read.
    pub unread: usize,
}

impl Samples {
    /// Adds a line that the query keeps. Lines come in the order of time, oldest first.
    pub fn add(&mut self, range: &RangeExpr, row: &Row) {
        let value = match &range.unwrap {
            None => match range.of {
                RangeOp::Bytes | RangeOp::BytesRate => row.line.len() as f64,
                _ => 1.0,
            },
            Some(unwrap) => match unwrap.value(row) {
                Ok(Some(value)) => value,
                Ok(None) => return,
                Err(()) => {
                    self.unread += 1;
                    return;
                }
            },
        };
        self.series.entry(range.series_of(row)).or_default().push((row.time, value));
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.series.len()
    }
}

impl Unwrap {
    /// The value of the label, if it has one; an error if it is no value.
    fn value(&self, row: &Row) -> Result<Option<f64>, ()> {
        let text = row.label(&self.name);
        if text.is_empty() {
            return Ok(None);
        }
        let value = self.unit.read(text).ok_or(())?;
        Ok(self.filters.iter().all(|filter| filter.holds(row)).then_some(value))
    }
}

impl RangeExpr {
    /// The labels by which a line's series is told from others.
    fn series_of(&self, row: &Row) -> Labels {
        let without: &[String] = match &self.grouping {
            Some(grouping) if grouping.without => &grouping.names,
            _ => &[],
        };
        let names = self.identity.names.iter().filter(|name| !without.contains(name));
        let pairs = names.map(|name| (name.clone(), row.label(name).to_owned()));
        pairs.filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The labels of a series that the index counted, of the values of these fields.
    pub fn labels_of(&self, values: &BTreeMap<&'static str, String>) -> Labels {
        let pairs = self.identity.names.iter().filter_map(|name| {
            let value = values.get(super::to_index::keyword_of(name)?)?;
            let shown = if is_level(name) { super::row::shown_level(value) } else { value.clone() };
            (!shown.is_empty()).then(|| (name.clone(), shown))
        });
        pairs.collect()
    }

    /// Whether the index can count it.
    pub fn is_counted(&self) -> bool {
        let counts = matches!(self.of, RangeOp::Count | RangeOp::Rate) && self.unwrap.is_none();
        counts && self.log.is_counted_by(&self.identity.names)
    }

    /// Whether its series are told apart by what only a whole event has.
    pub fn names_a_leaf(&self) -> bool {
        self.identity.names.iter().any(|name| super::to_index::keyword_of(name).is_none())
    }

    /// The fields of the index that its series are told apart by.
    pub fn fields(&self) -> BTreeSet<&'static str> {
        self.identity.names.iter().filter_map(|name| super::to_index::keyword_of(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::row::tests::row;
    use super::super::tree::{Expr, Metric};
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn range(query: &str) -> RangeExpr {
        let Expr::Metric(Metric::Range(range)) = parse(query).unwrap() else { panic!("{query}") };
        *range
    }

    fn samples(range: &RangeExpr, times: &[Micros]) -> Samples {
        let mut samples = Samples::default();
        for time in times {
            samples.add(range, &Row { time: *time, ..row(r#"{"message":"abc","service":"api","took":"5"}"#) });
        }
        samples
    }

    fn values(windows: Windows, query: &str, times: &[Micros]) -> Vec<Option<f64>> {
        let range = range(query);
        windows.of_samples(&range, &samples(&range, times)).unwrap().swap_remove(0).values
    }

    #[test]
    fn a_window_ends_with_its_moment_and_begins_after_the_one_before() {
        let windows = Windows::over(10 * SECOND, 40 * SECOND, 10 * SECOND);
        let times = [10_000_000, 10_000_001, 20_000_000, 35_000_000];
        let count = "count_over_time({a=\"x\"}[10s])";
        assert_eq!(values(windows, count, &times), [Some(1.0), Some(2.0), None, Some(1.0)]);
        assert_eq!(values(windows, "rate({a=\"x\"}[10s])", &times), [Some(0.1), Some(0.2), None, Some(0.1)]);
        assert_eq!(values(windows, "bytes_over_time({a=\"x\"}[20s])", &times)[1], Some(9.0));
        assert_eq!(
            values(windows, "count_over_time({a=\"x\"}[10s] offset 10s)", &times),
            [None, Some(1.0), Some(2.0), None]
        );
        assert_eq!(values(windows, "absent_over_time({a=\"x\"}[10s])", &times), [None, None, Some(1.0), None]);
        assert_eq!(values(windows, "avg_over_time({a=\"x\"} | unwrap took [10s])", &times)[1], Some(5.0));
        let odd = Windows::at(20_000_000_500);
        assert_eq!(values(odd, count, &[10_000_000, 10_000_001, 20_000_000, 20_000_001]), [Some(2.0)]);
        assert_eq!(windows.span(&range(count)), (1, 40_000_001));
    }

    /// Counts as the index does.
    fn counted(boundaries: &Boundaries, span: (Micros, Micros), times: &[Micros]) -> Counted {
        let mut counted = Counted::default();
        let labels = Labels::from([("service_name".to_owned(), "api".to_owned())]);
        let group = |milli: i64| {
            (milli - boundaries.offset).div_euclid(boundaries.interval) * boundaries.interval + boundaries.offset
        };
        for time in times.iter().filter(|time| span.0 <= **time && **time < span.1) {
            let milli = time.div_euclid(1000);
            *counted.groups.entry(labels.clone()).or_default().entry(group(milli)).or_default() += 1;
            if boundaries.edges.iter().any(|edge| edge.div_euclid(1000) == milli && time <= edge) {
                *counted.edges.entry(labels.clone()).or_default().entry(group(milli)).or_default() += 1;
            }
        }
        counted
    }

    #[test]
    fn counts_of_the_index_are_those_of_the_lines() {
        let mut seed = 7_u64;
        let mut random = move |below: i64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as i64 % below
        };
        for round in 0..300 {
            let step = [1, 2, 7, 10, 60][random(5) as usize] * SECOND / [1, 1000][random(2) as usize];
            let length = [1, 3, 10, 20][random(4) as usize] * if step < SECOND { 1000 } else { 1_000_000 };
            let start = 100 * SECOND + random(3) * 123_456 + random(2) * 1_000_000;
            let windows = Windows::over(start, start + step * random(20), step);
            let range = RangeExpr { range: length, ..range("count_over_time({a=\"x\"}[1s])") };
            let span = windows.span(&range);
            let times: Vec<Micros> = (0..200)
                .map(|_| {
                    let edges: Vec<_> = windows.edges(&range).collect();
                    let (after, until) = edges[random(edges.len() as i64) as usize];
                    [after, until][random(2) as usize] + [-1000, -1, 0, 1, 999, 5000][random(6) as usize]
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            let expected = windows.of_samples(&range, &samples(&range, &times)).unwrap();
            let boundaries = windows.boundaries(&range).expect("whole milliseconds");
            let found = windows.of_counts(&range, &counted(&boundaries, span, &times)).unwrap();
            let values = |all: Vec<Series>| all.into_iter().flat_map(|series| series.values).collect::<Vec<_>>();
            assert_eq!(values(found), values(expected), "{round}: {windows:?} {length}");
        }
    }

    #[test]
    fn quantiles_and_spread_are_of_the_windows_values() {
        let of = |of, values: &[f64]| of_window(of, &values.iter().map(|value| (0, *value)).collect::<Vec<_>>());
        assert_eq!(of(RangeOp::Quantile(0.5), &[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(of(RangeOp::Quantile(1.0), &[4.0, 1.0]), 4.0);
        assert_eq!(of(RangeOp::Stdvar, &[1.0, 3.0]), 1.0);
        assert_eq!((of(RangeOp::Min, &[2.0, 1.0]), of(RangeOp::Max, &[2.0, 1.0])), (1.0, 2.0));
        assert_eq!((of(RangeOp::First, &[2.0, 1.0]), of(RangeOp::Last, &[2.0, 1.0])), (2.0, 1.0));
    }
}
