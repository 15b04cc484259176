//! The value of a metric query at each step, of what its ranges found.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::row::Labels;
use super::tree::{Aggregate, Grouping, Metric, Operator};
use super::windows::variance;

/// A value at each step, where there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What tells it from others.
    pub labels: Labels,
    /// The values.
    pub values: Vec<Option<f64>>,
}

/// What a metric query says.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// One number a step.
    Scalar(Vec<f64>),
    /// Series, in the order in which they are shown.
    Series(Vec<Series>),
}

/// Evaluates a query at `steps` moments. `found` gives what each of its [`Metric::leaves`] found, in their order.
pub fn evaluate(metric: &Metric, steps: usize, found: &mut impl Iterator<Item = Vec<Series>>) -> Outcome {
    match metric {
        Metric::Number(number) => Outcome::Scalar(vec![*number; steps]),
        Metric::Vector(number) => {
            Outcome::Series(vec![Series { labels: Labels::new(), values: vec![Some(*number); steps] }])
        }
        Metric::Range(_) => Outcome::Series(found.next().unwrap_or_default()),
        Metric::Aggregate { of, parameter, grouping, inner } => {
            let inner = evaluate(inner, steps, found).into_series();
            Outcome::Series(aggregate(*of, *parameter, grouping.as_ref(), inner, steps))
        }
        Metric::Binary { of, as_bool, left, right } => {
            let left = evaluate(left, steps, found);
            let right = evaluate(right, steps, found);
            binary(*of, *as_bool, left, right)
        }
    }
}

impl Outcome {
    /// As series: a number is one without labels.
    pub fn into_series(self) -> Vec<Series> {
        match self {
            Self::Series(series) => series,
            Self::Scalar(values) => {
                vec![Series { labels: Labels::new(), values: values.into_iter().map(Some).collect() }]
            }
        }
    }
}

impl Grouping {
    fn of(&self, labels: &Labels) -> Labels {
        let kept = labels.iter().filter(|(name, _)| self.names.contains(name) != self.without);
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

fn aggregate(of: Aggregate, most: usize, grouping: Option<&Grouping>, inner: Vec<Series>, steps: usize) -> Vec<Series> {
    if matches!(of, Aggregate::Sort | Aggregate::SortDescending) {
        return sorted(inner, of == Aggregate::SortDescending);
    }
    let mut groups: BTreeMap<Labels, Vec<Series>> = BTreeMap::new();
    for series in inner {
        let labels = grouping.map(|grouping| grouping.of(&series.labels)).unwrap_or_default();
        groups.entry(labels).or_default().push(series);
    }
    if matches!(of, Aggregate::Top | Aggregate::Bottom) {
        let chosen =
            groups.into_values().flat_map(|group| extremes(of == Aggregate::Top, most, group, steps)).collect();
        return sorted(chosen, of == Aggregate::Top);
    }
    let value = |group: &[Series], step: usize| {
        let values: Vec<f64> = group.iter().filter_map(|series| series.values[step]).collect();
        (!values.is_empty()).then(|| match of {
            Aggregate::Avg => values.iter().sum::<f64>() / values.len() as f64,
            Aggregate::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Aggregate::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Aggregate::Count => values.len() as f64,
            Aggregate::Stddev => variance(&values).sqrt(),
            Aggregate::Stdvar => variance(&values),
            _ => values.iter().sum(),
        })
    };
    let of_group = |(labels, group): (Labels, Vec<Series>)| Series {
        labels,
        values: (0..steps).map(|step| value(&group, step)).collect(),
    };
    groups.into_iter().map(of_group).collect()
}

/// The series with the largest or smallest values at each step, with these alone.
fn extremes(largest: bool, most: usize, group: Vec<Series>, steps: usize) -> Vec<Series> {
    let mut chosen: Vec<Series> =
        group.iter().map(|series| Series { labels: series.labels.clone(), values: vec![None; steps] }).collect();
    for step in 0..steps {
        let mut values: Vec<(usize, f64)> =
            group.iter().enumerate().filter_map(|(at, series)| Some((at, series.values[step]?))).collect();
        values.sort_by(|(_, a), (_, b)| if largest { b.total_cmp(a) } else { a.total_cmp(b) });
        for (at, value) in values.into_iter().take(most) {
            chosen[at].values[step] = Some(value);
        }
    }
    chosen.retain(|series| series.values.iter().any(Option::is_some));
    chosen
}

/// By the last value of each.
fn sorted(mut all: Vec<Series>, descending: bool) -> Vec<Series> {
    let last = |series: &Series| series.values.iter().rev().find_map(|value| *value).unwrap_or(f64::NAN);
    all.sort_by(|a, b| {
        let order = last(a).total_cmp(&last(b));
        if descending { order.reverse() } else { order }
    });
    all
}

fn binary(of: Operator, as_bool: bool, left: Outcome, right: Outcome) -> Outcome {
    match (left, right) {
        (Outcome::Scalar(left), Outcome::Scalar(right)) => {
            let value = |(left, right): (&f64, &f64)| calculate(of, true, *left, *right).unwrap_or(f64::NAN);
            Outcome::Scalar(left.iter().zip(&right).map(value).collect())
        }
        (Outcome::Series(left), Outcome::Scalar(right)) => {
            Outcome::Series(each(left, |value, step| calculate(of, as_bool, value, right[step])))
        }
        (Outcome::Scalar(left), Outcome::Series(right)) => Outcome::Series(each(right, |value, step| {
            let result = calculate(of, as_bool, left[step], value)?;
            // A comparison keeps the value of the series.
            Some(if matches!(of, Operator::Compare(_)) && !as_bool { value } else { result })
        })),
        (Outcome::Series(left), Outcome::Series(right)) => Outcome::Series(match of {
            Operator::Or => either(left, right),
            Operator::And | Operator::Unless => {
                let keep = of == Operator::And;
                let there = by_labels(&right);
                each_of(left, |labels, value, step| {
                    let found = there.get(labels).is_some_and(|series| series.values[step].is_some());
                    (found == keep).then_some(value)
                })
            }
            _ => {
                let there = by_labels(&right);
                each_of(left, |labels, value, step| calculate(of, as_bool, value, there.get(labels)?.values[step]?))
            }
        }),
    }
}

fn by_labels(all: &[Series]) -> BTreeMap<&Labels, &Series> {
    all.iter().map(|series| (&series.labels, series)).collect()
}

fn either(left: Vec<Series>, right: Vec<Series>) -> Vec<Series> {
    let mut all: BTreeMap<Labels, Vec<Option<f64>>> =
        left.into_iter().map(|series| (series.labels, series.values)).collect();
    for Series { labels, values } in right {
        match all.entry(labels) {
            Entry::Vacant(none) => drop(none.insert(values)),
            Entry::Occupied(mut there) => {
                for (value, further) in there.get_mut().iter_mut().zip(values) {
                    *value = value.or(further);
                }
            }
        }
    }
    all.into_iter().map(|(labels, values)| Series { labels, values }).collect()
}

fn each(all: Vec<Series>, value: impl Fn(f64, usize) -> Option<f64>) -> Vec<Series> {
    each_of(all, |_, of, step| value(of, step))
}

/// Series without any value are none.
fn each_of(all: Vec<Series>, value: impl Fn(&Labels, f64, usize) -> Option<f64>) -> Vec<Series> {
    let changed = all.into_iter().map(|Series { labels, values }| {
        let values =
            values.into_iter().enumerate().map(|(step, of)| of.and_then(|of| value(&labels, of, step))).collect();
        Series { labels, values }
    });
    changed.filter(|series: &Series| series.values.iter().any(Option::is_some)).collect()
}

/// A comparison that does not hold has no value, or 0.
fn calculate(of: Operator, as_bool: bool, left: f64, right: f64) -> Option<f64> {
    Some(match of {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        Operator::Power => left.powf(right),
        Operator::Compare(compare) => match (compare.holds(left, right), as_bool) {
            (holds, true) => f64::from(u8::from(holds)),
            (true, false) => left,
            (false, false) => return None,
        },
        Operator::And | Operator::Or | Operator::Unless => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::tree::Expr;
    use super::*;

    fn series(labels: &[(&str, &str)], values: &[Option<f64>]) -> Series {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Series { labels, values: values.to_vec() }
    }

    fn shown(query: &str, found: Vec<Vec<Series>>) -> Vec<String> {
        let Expr::Metric(metric) = parse(query).unwrap() else { panic!("{query}") };
        assert_eq!(metric.leaves().len(), found.len(), "{query}");
        let all = evaluate(&metric, 2, &mut found.into_iter()).into_series();
        let text = |series: Series| {
            let labels: Vec<String> = series.labels.into_values().collect();
            let values = series.values.into_iter().map(|value| value.map_or("-".to_owned(), |value| value.to_string()));
            format!("{}={}", labels.join("/"), values.collect::<Vec<_>>().join(","))
        };
        all.into_iter().map(text).collect()
    }

    #[test]
    fn a_query_is_evaluated_at_each_step() {
        let all = || {
            vec![
                series(&[("pod", "a"), ("zone", "x")], &[Some(1.0), Some(5.0)]),
                series(&[("pod", "b"), ("zone", "x")], &[Some(2.0), None]),
                series(&[("pod", "c"), ("zone", "y")], &[Some(3.0), Some(4.0)]),
            ]
        };
        let rate = r#"rate({a="x"}[5m])"#;
        for (query, expected) in [
            (format!("sum({rate})"), &["=6,9"][..]),
            (format!("sum by (zone) ({rate})"), &["x=3,5", "y=3,4"]),
            (format!("sum without (pod) ({rate})"), &["x=3,5", "y=3,4"]),
            (format!("count by (zone) ({rate})"), &["x=2,1", "y=1,1"]),
            (format!("avg({rate})"), &["=2,4.5"]),
            (format!("max by (zone) ({rate})"), &["x=2,5", "y=3,4"]),
            (format!("topk(1, {rate})"), &["a/x=-,5", "c/y=3,-"]),
            (format!("bottomk(1, {rate})"), &["a/x=1,-", "c/y=-,4"]),
            (format!("sort_desc({rate})"), &["a/x=1,5", "c/y=3,4", "b/x=2,-"]),
            (format!("{rate} * 2"), &["a/x=2,10", "b/x=4,-", "c/y=6,8"]),
            (format!("10 - {rate}"), &["a/x=9,5", "b/x=8,-", "c/y=7,6"]),
            (format!("{rate} > 2"), &["a/x=-,5", "c/y=3,4"]),
            (format!("2 < {rate}"), &["a/x=-,5", "c/y=3,4"]),
            (format!("{rate} > bool 2"), &["a/x=0,1", "b/x=0,-", "c/y=1,1"]),
            (format!("sum({rate}) or vector(7)"), &["=6,9"]),
            (format!("(sum({rate}) > 100) or vector(7)"), &["=7,7"]),
        ] {
            assert_eq!(shown(&query, vec![all()]), expected, "{query}");
        }
        let both = |of: &str| shown(&format!("{rate} {of} {rate}"), vec![all(), all()[1..].to_vec()]);
        assert_eq!(both("+"), ["b/x=4,-", "c/y=6,8"]);
        assert_eq!(both("and"), ["b/x=2,-", "c/y=3,4"]);
        assert_eq!(both("unless"), ["a/x=1,5"]);
        assert_eq!(both("/"), ["b/x=1,-", "c/y=1,1"]);
    }

    #[test]
    fn a_data_source_is_tested_by_a_sum() {
        assert_eq!(shown("vector(1)+vector(1)", vec![]), ["=2,2"]);
        assert_eq!(shown("1 + 2 * 3 > 5", vec![]), ["=1,1"]);
    }
}
