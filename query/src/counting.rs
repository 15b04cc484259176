//! Events counted in groups and over time: what is asked, what is answered, and the definition of both over events in
//! memory. What a store counts is held to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stages::Event;
use stages::time::Micros;

use crate::expression::Field;
use crate::leaves::Leaves;
use crate::scalar::Scalar;
use crate::stage::{Aggregate, Function, MAX_BUCKETS};

/// How events are to be counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grouping {
    /// What the events of a group have in common; none makes one group of all.
    pub by: Vec<Field>,
    /// Over which times; none counts each group once.
    pub buckets: Option<Buckets>,
    /// Most groups; the others are counted together.
    pub limit: u32,
    /// Which groups come first.
    pub order: Order,
    /// Whether events without a value are a group too. Else they are counted apart.
    pub with_missing: bool,
}

/// Which groups come first. Of equal ones that whose values come first in the alphabet, and none last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Those with most events.
    #[default]
    Most,
    /// Those with fewest.
    Fewest,
}

/// Equal times from one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// The first's begin.
    pub start: Micros,
    /// The length of each.
    pub width: Micros,
    /// How many.
    pub count: usize,
}

/// What the events of a group have in common: a value of each field, or none.
pub type Key = Vec<Option<String>>;

/// A group of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its values.
    pub key: Key,
    /// How many.
    pub count: u64,
    /// How many in each bucket; empty without buckets.
    pub buckets: Vec<u64>,
}

/// Events, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// All of them.
    pub total: u64,
    /// The groups, in their order.
    pub groups: Vec<Group>,
    /// Events that are in none of the groups.
    pub other: u64,
    /// Events without a value, where these are no group. Not known of a field with very many values: they are among the
    /// others then.
    pub missing: Option<u64>,
    /// All events, bucket by bucket.
    pub buckets: Vec<u64>,
    /// Events that are in none of the groups, bucket by bucket.
    pub other_buckets: Vec<u64>,
    /// Whether there are more groups than these.
    pub more: bool,
    /// Whether other groups may belong among these: they were chosen by a sample, or part by part.
    pub chosen: bool,
}

/// Most groups that are counted at once.
const MAX_GROUPS: u32 = 1000;
/// Most numbers of one counting: what OpenSearch allows, less some for its own.
const MAX_NUMBERS: usize = 50_000;

impl Grouping {
    /// The same with as many groups at most as can be counted at once.
    pub fn bounded(&self) -> Self {
        let points = self.buckets.map_or(1, |buckets| buckets.count.max(1));
        let most = u32::try_from(MAX_NUMBERS / points).unwrap_or(MAX_GROUPS).clamp(1, MAX_GROUPS);
        Self { limit: self.limit.clamp(1, most), ..self.clone() }
    }
}

impl Buckets {
    /// Those of this length that hold all times from `from` until before `to`, beginning at a multiple of the length
    /// counted from `origin`. `None`: there would be more than [`MAX_BUCKETS`], or none.
    pub fn covering(from: Micros, to: Micros, width: Micros, origin: Micros) -> Option<Self> {
        if width <= 0 || to <= from {
            return None;
        }
        let start = from.checked_sub(from.checked_sub(origin)?.rem_euclid(width))?;
        let length = to.checked_sub(start)?;
        let count = usize::try_from(length / width + Micros::from(length % width != 0)).ok()?;
        (count <= MAX_BUCKETS).then_some(Self { start, width, count })
    }

    /// The place of the bucket that holds this time.
    pub fn place(&self, time: Micros) -> Option<usize> {
        let place = usize::try_from(time.checked_sub(self.start)?.div_euclid(self.width)).ok()?;
        (place < self.count).then_some(place)
    }

    /// The end of the last.
    pub fn end(&self) -> Micros {
        self.start + self.width * self.count as Micros
    }
}

/// What of an event is counted: its time and its values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// When it happened.
    pub time: Micros,
    /// Its service.
    pub service: Option<String>,
    /// Its level.
    pub level: Option<String>,
    /// Its application.
    pub application: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// The words of its leaves.
    pub leaves: Vec<String>,
}

impl Counted {
    /// Of an event that happened at `time`.
    pub fn of(event: &Event, time: Micros) -> Self {
        Self {
            time,
            service: Some(event.service.clone()),
            level: Some(event.level.clone()),
            application: event.application.clone(),
            language: event.language.clone(),
            leaves: words(Leaves::of(event)),
        }
    }

    /// The values of a field, each once, in the order of the alphabet.
    pub fn values(&self, field: &Field) -> BTreeSet<&str> {
        match field {
            Field::Service => self.service.as_deref().into_iter().collect(),
            Field::Level => self.level.as_deref().into_iter().collect(),
            Field::Application => self.application.as_deref().into_iter().collect(),
            Field::Language => self.language.as_deref().into_iter().collect(),
            Field::Text | Field::Message => BTreeSet::new(),
            leaf => {
                let paths = leaf.paths();
                let mut values = BTreeSet::new();
                for word in &self.leaves {
                    values.extend(paths.iter().filter_map(|path| word.strip_prefix(path.as_str())?.strip_prefix('=')));
                }
                values
            }
        }
    }

    /// The numbers among the values of a field.
    fn numbers(&self, field: &Field) -> Vec<f64> {
        let number = |value: &str| matches!(Scalar::of(value), Some(Scalar::Number(_))).then(|| value.parse().ok());
        self.values(field).into_iter().filter_map(|value| number(value).flatten()).collect()
    }

    /// The groups that it is in: several where a field has several values.
    fn keys(&self, by: &[Field]) -> Vec<Key> {
        let mut keys: Vec<Key> = vec![Vec::new()];
        for field in by {
            let values = self.values(field);
            let values: Vec<Option<String>> = if values.is_empty() {
                vec![None]
            } else {
                values.into_iter().map(|value| Some(value.to_owned())).collect()
            };
            let with = |key: &Key| {
                values.iter().map(|value| [key.as_slice(), std::slice::from_ref(value)].concat()).collect::<Vec<_>>()
            };
            keys = keys.iter().flat_map(with).collect();
        }
        keys
    }
}

/// The words of leaves.
pub fn words(leaves: Leaves<'_>) -> Vec<String> {
    let mut words = Vec::new();
    let Ok(()) = leaves.each(|word| {
        words.push(word.to_owned());
        Ok::<(), std::convert::Infallible>(())
    });
    words
}

/// Puts groups in their order and leaves as many as are wanted. Says whether there were more.
pub fn cut(groups: &mut Vec<Group>, grouping: &Grouping) -> bool {
    let by_value = |group: &Group| group.key.iter().map(|value| (value.is_none(), value.clone())).collect::<Vec<_>>();
    match grouping.order {
        Order::Most => groups.sort_by_cached_key(|group| (Reverse(group.count), by_value(group))),
        Order::Fewest => groups.sort_by_cached_key(|group| (group.count, by_value(group))),
    }
    let limit = usize::try_from(grouping.limit).unwrap_or(usize::MAX);
    let more = groups.len() > limit;
    groups.truncate(limit);
    more
}

/// Counts events.
pub fn count(events: &[Counted], grouping: &Grouping) -> Tally {
    let places = grouping.buckets.map_or(0, |buckets| buckets.count);
    let place = |event: &Counted| grouping.buckets.and_then(|buckets| buckets.place(event.time));
    let mut found: BTreeMap<Key, Group> = BTreeMap::new();
    let mut tally = Tally { buckets: vec![0; places], other_buckets: vec![0; places], ..Tally::default() };
    let mut missing = 0;
    for event in events {
        tally.total += 1;
        if let Some(place) = place(event) {
            tally.buckets[place] += 1;
        }
        let mut keys = event.keys(&grouping.by);
        if !grouping.with_missing {
            keys.retain(|key| key.iter().all(Option::is_some));
            missing += u64::from(keys.is_empty());
        }
        for key in keys {
            let group = Group { key: key.clone(), count: 0, buckets: vec![0; places] };
            let group = found.entry(key).or_insert(group);
            group.count += 1;
            if let Some(place) = place(event) {
                group.buckets[place] += 1;
            }
        }
    }
    if grouping.by.is_empty() && found.is_empty() {
        // All of no events are a group too.
        found.insert(Vec::new(), Group { key: Vec::new(), count: 0, buckets: vec![0; places] });
    }
    tally.groups = found.into_values().collect();
    tally.more = cut(&mut tally.groups, grouping);
    tally.missing = (!grouping.with_missing).then_some(missing);
    let shown: BTreeSet<Key> = tally.groups.iter().map(|group| group.key.clone()).collect();
    for event in events {
        let mut keys = event.keys(&grouping.by);
        if !grouping.with_missing {
            keys.retain(|key| key.iter().all(Option::is_some));
        }
        if !keys.is_empty() && !keys.iter().any(|key| shown.contains(key)) {
            tally.other += 1;
            if let Some(place) = place(event) {
                tally.other_buckets[place] += 1;
            }
        }
    }
    tally
}

/// What functions make of events: a row for each group, and a number for each function in it, if there is any.
pub fn compute(events: &[Counted], aggregates: &[Aggregate], by: &[Field]) -> BTreeMap<Key, Vec<Option<f64>>> {
    let mut groups: BTreeMap<Key, Vec<&Counted>> = BTreeMap::new();
    for event in events {
        for key in event.keys(by) {
            groups.entry(key).or_default().push(event);
        }
    }
    if by.is_empty() {
        groups.entry(Vec::new()).or_default();
    }
    let row = |events: Vec<&Counted>| aggregates.iter().map(|aggregate| one(&events, aggregate)).collect();
    groups.into_iter().map(|(key, events)| (key, row(events))).collect()
}

/// What functions make of the events of each bucket, and of each group in it.
pub fn compute_over_time(
    events: &[Counted],
    aggregate: &Aggregate,
    by: &[Field],
    buckets: &Buckets,
) -> BTreeMap<Key, Vec<Option<f64>>> {
    let mut groups: BTreeMap<Key, Vec<Vec<&Counted>>> = BTreeMap::new();
    for event in events {
        let Some(place) = buckets.place(event.time) else { continue };
        for key in event.keys(by) {
            groups.entry(key).or_insert_with(|| vec![Vec::new(); buckets.count])[place].push(event);
        }
    }
    let line = |places: Vec<Vec<&Counted>>| places.iter().map(|events| one(events, aggregate)).collect();
    groups.into_iter().map(|(key, places)| (key, line(places))).collect()
}

/// What one function makes of events. `None` where there is nothing to compute with.
fn one(events: &[&Counted], aggregate: &Aggregate) -> Option<f64> {
    let Some(field) = &aggregate.field else { return Some(events.len() as f64) };
    if aggregate.function == Function::Uniq {
        let values: BTreeSet<&str> = events.iter().flat_map(|event| event.values(field)).collect();
        return Some(values.len() as f64);
    }
    let mut numbers: Vec<f64> = events.iter().flat_map(|event| event.numbers(field)).collect();
    let sum = || numbers.iter().sum::<f64>();
    let count = numbers.len();
    if count == 0 {
        return None;
    }
    Some(match aggregate.function {
        Function::Count | Function::Uniq => count as f64,
        Function::Sum => sum(),
        Function::Avg => sum() / count as f64,
        Function::Min => numbers.iter().copied().fold(f64::INFINITY, f64::min),
        Function::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        // The nearest rank: a value that was sent.
        Function::Percentile(percent) => {
            numbers.sort_by(f64::total_cmp);
            let rank = (usize::from(percent) * count).div_ceil(100);
            numbers[rank.clamp(1, count) - 1]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::question;
    use crate::stage::Shape;

    const LINES: [&str; 6] = [
        r#"{"service":"api","level":"error","ms":10,"tags":["a","b"]}"#,
        r#"{"service":"api","level":"info","ms":"20","tags":["a"]}"#,
        r#"{"service":"api","level":"info","ms":30,"application":"shop"}"#,
        r#"{"service":"web","level":"info","ms":40}"#,
        r#"{"service":"web","level":"error","metadata":{"ms":50}}"#,
        r#"{"service":"db","level":"warn","ms":"slow"}"#,
    ];

    /// One event a second.
    fn events() -> Vec<Counted> {
        let event = |(second, line): (usize, &&str)| {
            let line = line.replacen('{', r#"{"message":"m","#, 1);
            Counted::of(&stages::event(line.as_bytes(), 0).unwrap(), 1_000_000 * second as Micros)
        };
        LINES.iter().enumerate().map(event).collect()
    }

    fn grouping(by: &[&str], limit: u32, with_missing: bool) -> Grouping {
        let by = by.iter().map(|name| Field::of(name)).collect();
        Grouping { by, limit, with_missing, ..Grouping::default() }
    }

    fn shown(tally: &Tally) -> String {
        let key = |key: &Key| key.iter().map(|value| value.clone().unwrap_or("-".into())).collect::<Vec<_>>().join("+");
        tally.groups.iter().map(|group| format!("{}={}", key(&group.key), group.count)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn events_are_counted_in_groups() {
        let events = events();
        for (by, limit, with_missing, groups, other, missing, more) in [
            (&[][..], 10, true, "=6", 0, None, false),
            (&["service"], 10, true, "api=3 web=2 db=1", 0, None, false),
            (&["service"], 1, true, "api=3", 3, None, true),
            (&["application"], 10, true, "-=5 shop=1", 0, None, false),
            (&["application"], 10, false, "shop=1", 0, Some(5), false),
            (&["tags"], 10, false, "a=2 b=1", 0, Some(4), false),
            (&["tags"], 1, false, "a=2", 0, Some(4), true),
            (&["@ms"], 2, true, "10=1 20=1", 4, None, true),
            (&["service", "level"], 2, true, "api+INFO=2 api+ERROR=1", 3, None, true),
        ] {
            let tally = count(&events, &grouping(by, limit, with_missing));
            let told = (shown(&tally), tally.other, tally.missing, tally.more);
            assert_eq!((tally.total, told), (6, (groups.to_owned(), other, missing, more)), "{by:?}");
        }
        let fewest = Grouping { order: Order::Fewest, ..grouping(&["service"], 2, true) };
        assert_eq!(shown(&count(&events, &fewest)), "db=1 web=2");
    }

    #[test]
    fn every_event_is_in_a_bucket_and_the_others_are_the_rest() {
        let buckets = Buckets::covering(500_000, 5_500_000, 2_000_000, 0).unwrap();
        assert_eq!(buckets, Buckets { start: 0, width: 2_000_000, count: 3 });
        let tally = count(&events(), &Grouping { buckets: Some(buckets), ..grouping(&["service"], 1, true) });
        assert_eq!((tally.buckets, &tally.groups[0].buckets), (vec![2, 2, 2], &vec![2, 1, 0]));
        assert_eq!(tally.other_buckets, [0, 1, 2]);
        for (from, to, width, origin, expected) in [
            (0, 10, 10, 0, Some((0, 1))),
            (0, 11, 10, 0, Some((0, 2))),
            (9, 11, 10, 0, Some((0, 2))),
            (9, 11, 10, 9, Some((9, 1))),
            (-1, 1, 10, 0, Some((-10, 2))),
            (0, 10_001, 10, 0, None),
            (5, 5, 10, 0, None),
            (0, 10, 0, 0, None),
            (Micros::MIN, Micros::MAX, 10, 0, None),
        ] {
            let found = Buckets::covering(from, to, width, origin).map(|buckets| (buckets.start, buckets.count));
            assert_eq!(found, expected, "{from}..{to} by {width}");
        }
    }

    #[test]
    fn functions_are_of_the_values_that_are_numbers() {
        let events = events();
        for (stage, expected) in [
            ("stats count", "=6"),
            ("stats uniq(service)", "=3"),
            ("stats sum(@ms), avg(@ms), min(@ms), max(@ms)", "=150,30,10,50"),
            ("stats p50(@ms), p95(@ms), p1(@ms)", "=30,50,10"),
            ("stats avg(@ms), uniq(tags) by service", "api=20,2 db=-,0 web=45,0"),
        ] {
            let Shape::Table { aggregates, by, .. } = question(&format!("* | {stage}")).unwrap().shape else {
                panic!("{stage}")
            };
            let number = |number: &Option<f64>| number.map_or("-".to_owned(), |number| number.to_string());
            let row = |(key, numbers): (Key, Vec<Option<f64>>)| {
                let key: Vec<_> = key.into_iter().flatten().collect();
                format!("{}={}", key.join("+"), numbers.iter().map(number).collect::<Vec<_>>().join(","))
            };
            let rows: Vec<String> = compute(&events, &aggregates, &by).into_iter().map(row).collect();
            assert_eq!(rows.join(" "), expected, "{stage}");
        }
    }
}
