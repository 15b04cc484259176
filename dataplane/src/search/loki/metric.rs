//! Evaluates a metric query: each of its ranges by counts of the index, where it finds just what the query does, else by
//! whole lines, of which only so many are looked at. A number is never of some of the lines only.

use query::logql::{Metric, Outcome, RangeExpr, Samples, Series, Windows, evaluate};

use super::Refused;
use super::counts;
use super::lines::{Cost, MAX_LOOKED_AT, Pages};
use crate::event::Micros;
use crate::search::{Error, Reader};
use crate::tenancy::Tenant;

/// Series of an answer.
pub(super) const MAX_SERIES: usize = 500;
/// Series that are told apart while they are counted.
pub(super) const MAX_COUNTED: usize = 20_000;
/// Ranges of one query.
const MAX_RANGES: usize = 16;

/// What a metric query says.
pub(super) struct Value {
    pub(super) outcome: Outcome,
    pub(super) warnings: Vec<String>,
    pub(super) cost: Cost,
}

/// What a query says at each moment.
pub(super) async fn value(
    reader: &Reader,
    tenant: &Tenant,
    metric: &Metric,
    windows: Windows,
    now: Micros,
) -> Result<Value, Error> {
    let ranges = metric.leaves();
    if ranges.len() > MAX_RANGES {
        return Err(Refused::Because(format!("a query has at most {MAX_RANGES} ranges")).into());
    }
    let (mut all, mut warnings, mut cost) = (Vec::new(), Vec::new(), Cost::default());
    for range in ranges {
        let found = of_range(reader, tenant, range, windows, now).await?;
        all.push(found.series);
        warnings.extend(found.warnings);
        cost.lines += found.cost.lines;
        cost.bytes += found.cost.bytes;
    }
    let mut outcome = evaluate(metric, windows.count, &mut all.into_iter());
    if let Outcome::Series(series) = &mut outcome
        && series.len() > MAX_SERIES
    {
        let left_out = series.len() - MAX_SERIES;
        largest(series);
        warnings.push(format!(
            "maximum number of series ({MAX_SERIES}) reached for a single query; the {left_out} with the smallest values are \
             left out"
        ));
    }
    warnings.sort();
    warnings.dedup();
    Ok(Value { outcome, warnings, cost })
}

/// Leaves the series with the largest values, in their order.
fn largest(series: &mut Vec<Series>) {
    let weight = |series: &Series| series.values.iter().flatten().filter(|value| value.is_finite()).sum::<f64>();
    let mut weights: Vec<f64> = series.iter().map(weight).collect();
    weights.sort_by(|a, b| b.total_cmp(a));
    let least = weights[MAX_SERIES - 1];
    let mut of_least = MAX_SERIES - weights.iter().filter(|weight| **weight > least).count();
    series.retain(|series| {
        let weight = weight(series);
        let last = weight == least && of_least > 0;
        of_least -= usize::from(last);
        weight > least || last
    });
}

/// What one range finds.
pub(super) struct OfRange {
    pub(super) series: Vec<Series>,
    pub(super) warnings: Vec<String>,
    pub(super) cost: Cost,
}

async fn of_range(
    reader: &Reader,
    tenant: &Tenant,
    range: &RangeExpr,
    windows: Windows,
    now: Micros,
) -> Result<OfRange, Error> {
    if range.is_counted()
        && let Some(boundaries) = windows.boundaries(range)
    {
        return counts::count(reader, tenant, range, windows, boundaries, now).await;
    }
    let span = windows.span(range);
    let labels = range.log.reads_labels() || range.unwrap.is_some() || range.names_a_leaf();
    let mut pages = Pages::new(&range.log, span, true, labels, now, tenant).counting();
    let mut samples = Samples::default();
    while let Some(rows) = pages.next(reader, tenant).await? {
        if pages.total as usize > MAX_LOOKED_AT || pages.is_spent() {
            return Err(too_broad().into());
        }
        for mut row in rows {
            if range.log.keeps(&mut row) {
                samples.add(range, &row);
            }
        }
        if samples.series() > MAX_COUNTED {
            return Err(Refused::Because(format!(
                "maximum of series ({MAX_COUNTED}) reached for a single query; group by fewer labels"
            ))
            .into());
        }
    }
    let mut warnings = pages.doubts(reader, tenant, now).await?;
    if samples.unread > 0 {
        let name = range.unwrap.as_ref().map_or("", |unwrap| unwrap.name.as_str());
        warnings.push(format!("{} values of `{name}` are no numbers and were left out", samples.unread));
    }
    let series = windows.of_samples(range, &samples).ok_or_else(too_broad)?;
    Ok(OfRange { series, warnings, cost: pages.cost })
}

pub(super) fn too_broad() -> Refused {
    Refused::Because(format!(
        "the query is too broad to count: more than {MAX_LOOKED_AT} lines would have to be looked at, or there are too many \
         series for so many steps; narrow the time range, take longer steps, or filter and group by fewer labels"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_series_the_largest_are_left_in_their_order() {
        let mut series: Vec<Series> = (0..MAX_SERIES + 7)
            .map(|n| Series {
                labels: [("n".to_owned(), format!("{n:04}"))].into(),
                values: vec![Some((n % 100) as f64), None],
            })
            .collect();
        largest(&mut series);
        assert_eq!(series.len(), MAX_SERIES);
        assert!(series.is_sorted_by_key(|series| series.labels["n"].clone()));
        let sum: f64 = series.iter().filter_map(|series| series.values[0]).sum();
        // Of the values from 0 to 99, five times each and some once more, seven of the smallest are gone.
        assert_eq!(sum, 5.0 * 4950.0 + 21.0 - 1.0);
    }
}
