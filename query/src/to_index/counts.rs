//! Counting as requests to OpenSearch, and its answers read.
//!
//! Reserved fields have doc values, so the index finds their largest groups by itself. Leaves have none (ADR 0018): it
//! is asked for groups by name, which a sample of events gives.

use crds::TenantName;
use serde_json::{Map, Value, json};
use stages::time::Micros;

use super::{Prefixes, exact, filters, query, word};
use crate::counting::{Buckets, Group, Grouping, Key, Tally, cut};
use crate::expression::{Field, Pattern};
use crate::filters::Page;

/// What stands for no value in the index's answers: no stored text has it.
const MISSING: &str = "\0";

/// How events are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// By the values of a reserved field that most events have.
    Largest {
        /// The field.
        field: Field,
        /// Most values.
        size: u32,
        /// Whether events without a value are a group among them; else they are counted beside them.
        with_missing: bool,
    },
    /// Into these groups.
    Keys {
        /// The fields of their keys.
        by: Vec<Field>,
        /// Their keys.
        keys: Vec<Key>,
    },
}

/// The body of a request that finds groups to count, or counts those of one reserved field.
pub fn divided(tenant: &TenantName, page: &Page, splits: &[Split], buckets: Option<&Buckets>) -> Value {
    body(tenant, page, aggregations(splits, buckets))
}

/// The body of a request that counts the same events in several ways; each answer stands under its number.
pub fn divided_by_each(tenant: &TenantName, page: &Page, ways: &[Vec<Split>]) -> Value {
    let of = |(number, splits): (usize, &Vec<Split>)| {
        (number.to_string(), json!({"filter": {"match_all": {}}, "aggs": aggregations(splits, None)}))
    };
    body(tenant, page, Value::Object(ways.iter().enumerate().map(of).collect()))
}

/// The body of a request that counts these groups, the events in none of them, and, if wanted, those without a value.
pub fn counted(
    tenant: &TenantName,
    page: &Page,
    by: &[Field],
    keys: &[Key],
    missing: bool,
    buckets: Option<&Buckets>,
) -> Value {
    let split = Split::Keys { by: by.to_vec(), keys: keys.to_vec() };
    let mut all = aggregations(&[split], buckets);
    if missing {
        let without: Vec<Value> = by.iter().map(|field| of_value(field, None)).collect();
        all["by"]["filters"]["filters"]["missing"] = json!({"bool": {"should": without, "minimum_should_match": 1}});
    }
    body(tenant, page, all)
}

/// The body of a request for the times of the first and the last event.
pub fn bounds(tenant: &TenantName, page: &Page) -> Value {
    let of = |which: &str| json!({which: {"field": "@timestamp"}});
    body(tenant, page, json!({"first": of("min"), "last": of("max")}))
}

/// The body of a request for how many different values a reserved field has, about.
pub fn distinct(tenant: &TenantName, page: &Page, field: &Field) -> Value {
    body(tenant, page, json!({"values": {"cardinality": {"field": keyword(field), "precision_threshold": 40_000}}}))
}

/// The body of a request for events by chance, each as likely as any other, with what these fields need of them.
pub fn sample(tenant: &TenantName, page: &Page, fields: &[Field], size: u32) -> Value {
    let mut source: Vec<String> = vec!["@timestamp".to_owned()];
    for field in fields {
        source.extend(field.paths());
        source.extend(field.is_reserved().then(|| keyword(field).to_owned()));
    }
    by_chance(tenant, page, json!(source), size)
}

/// The same with all fields of the events.
pub fn sample_whole(tenant: &TenantName, page: &Page, size: u32) -> Value {
    let source = ["@timestamp", "service", "level", "application", "language", "metadata", "attributes"];
    by_chance(tenant, page, json!(source), size)
}

fn by_chance(tenant: &TenantName, page: &Page, source: Value, size: u32) -> Value {
    let events = json!({"bool": {"filter": must(tenant, page)}});
    json!({
        "query": {"function_score": {
            "query": events, "random_score": {"seed": 20, "field": "_seq_no"}, "boost_mode": "replace",
        }},
        "size": size,
        "track_total_hits": true,
        "_source": source,
    })
}

fn body(tenant: &TenantName, page: &Page, aggregations: Value) -> Value {
    json!({
        "query": {"bool": {"filter": must(tenant, page)}},
        "size": 0,
        "track_total_hits": true,
        "aggs": aggregations,
    })
}

fn must(tenant: &TenantName, page: &Page) -> Vec<Value> {
    let mut must = vec![json!({"term": {"tenant": tenant.as_str()}})];
    must.extend(filters(&page.filters));
    // Of a prefix of several words, to count where they stand side by side would be refused for too many.
    must.extend(page.query.as_ref().map(|tree| query(tree, Prefixes::SideBySide)));
    must
}

fn aggregations(splits: &[Split], buckets: Option<&Buckets>) -> Value {
    let mut all = Map::new();
    if let Some(buckets) = buckets {
        all.insert("times".into(), histogram(buckets));
    }
    if let Some((split, inner)) = splits.split_first() {
        let mut by = match split {
            Split::Largest { field, size, with_missing } => {
                let mut terms = json!({"field": keyword(field), "size": size, "collect_mode": "breadth_first"});
                if *with_missing {
                    terms["missing"] = MISSING.into();
                } else {
                    let mut none = json!({"missing": {"field": keyword(field)}});
                    if let Some(buckets) = buckets {
                        none["aggs"] = json!({"times": histogram(buckets)});
                    }
                    all.insert("none".into(), none);
                }
                json!({"terms": terms})
            }
            Split::Keys { by, keys } => {
                let named = keys.iter().enumerate().map(|(number, key)| (number.to_string(), of_key(by, key)));
                json!({"filters": {"filters": named.collect::<Map<_, _>>(), "other_bucket_key": "other"}})
            }
        };
        let inner = aggregations(inner, buckets);
        if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
            by["aggs"] = inner;
        }
        all.insert("by".into(), by);
    }
    Value::Object(all)
}

fn histogram(buckets: &Buckets) -> Value {
    let millis = buckets.width / 1000;
    json!({"date_histogram": {
        "field": "@timestamp", "fixed_interval": format!("{millis}ms"),
        "offset": format!("+{}ms", buckets.start.rem_euclid(buckets.width) / 1000), "min_doc_count": 1,
    }})
}

/// The events with these values.
fn of_key(by: &[Field], key: &Key) -> Value {
    let mut conditions: Vec<Value> =
        by.iter().zip(key).map(|(field, value)| of_value(field, value.as_deref())).collect();
    if conditions.len() == 1 { conditions.swap_remove(0) } else { json!({"bool": {"filter": conditions}}) }
}

fn of_value(field: &Field, value: Option<&str>) -> Value {
    match (field.is_reserved(), value) {
        (true, Some(value)) => exact(keyword(field), &Pattern::Phrase(value.to_owned())),
        (true, None) => json!({"bool": {"must_not": [{"exists": {"field": keyword(field)}}]}}),
        (false, Some(value)) => {
            let words: Vec<String> = field.paths().iter().map(|path| word(path, value)).collect();
            json!({"terms": {"leaves": words}})
        }
        (false, None) => {
            let any =
                field.paths().into_iter().map(|path| json!({"prefix": {"leaves": {"value": format!("{path}=")}}}));
            json!({"bool": {"must_not": any.collect::<Vec<_>>()}})
        }
    }
}

/// The name of a reserved field in the index. A text has none that can be counted by.
fn keyword(field: &Field) -> &'static str {
    match field {
        Field::Level => "level",
        Field::Application => "application",
        Field::Language => "language",
        _ => "service",
    }
}

/// The times of the first and the last event, as far as the index tells them: to the millisecond. The second is after
/// the last.
pub fn read_bounds(aggregations: &Value) -> Option<(Micros, Micros)> {
    let millis = |name: &str| aggregations[name]["value"].as_f64().map(|millis| millis.floor() as Micros);
    let (first, last) = (millis("first")?, millis("last")?);
    Some((first.checked_mul(1000)?, last.checked_add(1)?.checked_mul(1000)?))
}

/// What the index found of groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The groups, each with its number of events.
    pub groups: Vec<Group>,
    /// Whether there are more.
    pub more: bool,
    /// Whether their numbers may be too small: a part of the index did not tell of all that it has.
    pub is_rough: bool,
}

/// The groups in the answer to [`divided`].
pub fn read_groups(aggregations: &Value, splits: &[Split], buckets: Option<&Buckets>) -> Found {
    let mut found = Found::default();
    read_level(aggregations, splits, buckets, &Vec::new(), &mut found);
    found.groups.retain(|group| group.count > 0);
    found
}

fn read_level(all: &Value, splits: &[Split], buckets: Option<&Buckets>, above: &Key, found: &mut Found) {
    let Some((split, inner)) = splits.split_first() else { return };
    let by = &all["by"];
    let mut one = |part: &[Option<String>], bucket: &Value| {
        let key = [above.as_slice(), part].concat();
        if inner.is_empty() {
            found.groups.push(Group { key, count: documents(bucket), buckets: times(bucket, buckets) });
        } else {
            read_level(bucket, inner, buckets, &key, found);
        }
    };
    match split {
        Split::Largest { .. } => {
            for bucket in by["buckets"].as_array().into_iter().flatten() {
                let value = bucket["key"].as_str().filter(|value| *value != MISSING).map(str::to_owned);
                one(&[value], bucket);
            }
            found.more |= by["sum_other_doc_count"].as_u64().unwrap_or(0) > 0;
            found.is_rough |= by["doc_count_error_upper_bound"].as_i64().unwrap_or(0) != 0;
        }
        Split::Keys { keys, .. } => {
            for (number, key) in keys.iter().enumerate() {
                one(key, &by["buckets"][number.to_string()]);
            }
            found.more |= documents(&by["buckets"]["other"]) > 0;
        }
    }
}

/// What was counted of all events, or of the groups of one reserved field, each event being in one: the answer to
/// [`divided`].
pub fn read_divided(
    all: &Value,
    total: u64,
    splits: &[Split],
    buckets: Option<&Buckets>,
    grouping: &Grouping,
) -> Tally {
    let mut tally = Tally { total, buckets: times(all, buckets), ..Tally::default() };
    let mut found = match splits {
        [] => {
            let group = Group { key: Vec::new(), count: total, buckets: tally.buckets.clone() };
            Found { groups: vec![group], ..Found::default() }
        }
        splits => read_groups(all, splits, buckets),
    };
    let mut rest = Group { key: Vec::new(), count: total, buckets: tally.buckets.clone() };
    if !grouping.with_missing {
        let none = Group { key: Vec::new(), count: documents(&all["none"]), buckets: times(&all["none"], buckets) };
        tally.missing = Some(none.count);
        take_away(&mut rest, &none);
    }
    tally.more = cut(&mut found.groups, grouping) || found.more;
    tally.chosen = found.is_rough || (found.more && grouping.order == crate::counting::Order::Fewest);
    found.groups.iter().for_each(|group| take_away(&mut rest, group));
    tally.groups = found.groups;
    (tally.other, tally.other_buckets) = (rest.count, rest.buckets);
    tally
}

fn take_away(from: &mut Group, group: &Group) {
    from.count = from.count.saturating_sub(group.count);
    for (from, count) in from.buckets.iter_mut().zip(&group.buckets) {
        *from = from.saturating_sub(*count);
    }
}

/// What was counted of these groups: the answer to [`counted`].
pub fn read_counted(
    all: &Value,
    total: u64,
    keys: &[Key],
    missing: bool,
    buckets: Option<&Buckets>,
    grouping: &Grouping,
) -> Tally {
    let found = &all["by"]["buckets"];
    let group = |(number, key): (usize, &Key)| {
        let bucket = &found[number.to_string()];
        Group { key: key.clone(), count: documents(bucket), buckets: times(bucket, buckets) }
    };
    let mut groups: Vec<Group> = keys.iter().enumerate().map(group).filter(|group| group.count > 0).collect();
    // None is cut off: there are not more than were asked for.
    cut(&mut groups, grouping);
    Tally {
        total,
        groups,
        other: documents(&found["other"]),
        missing: missing.then(|| documents(&found["missing"])),
        buckets: times(all, buckets),
        other_buckets: times(&found["other"], buckets),
        more: documents(&found["other"]) > 0,
        chosen: false,
    }
}

fn documents(bucket: &Value) -> u64 {
    bucket["doc_count"].as_u64().unwrap_or(0)
}

/// The numbers of a histogram, one for each bucket; the index leaves out the empty ones.
fn times(all: &Value, buckets: Option<&Buckets>) -> Vec<u64> {
    let Some(buckets) = buckets else { return Vec::new() };
    let mut counts = vec![0; buckets.count];
    for found in all["times"]["buckets"].as_array().into_iter().flatten() {
        // The index counts in milliseconds, and a bucket may begin between two of them.
        let time = found["key"].as_i64().and_then(|millis| millis.checked_mul(1000)?.checked_add(999));
        if let Some(place) = time.and_then(|time| buckets.place(time)) {
            counts[place] += documents(found);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting::Order;

    fn largest(name: &str) -> Split {
        Split::Largest { field: Field::of(name), size: 5, with_missing: true }
    }

    #[test]
    fn every_request_has_the_tenant_as_a_filter_of_its_own() {
        let (tenant, page) = ("acme".parse().unwrap(), Page::default());
        let fields = [Field::of("service"), Field::of("status")];
        for body in [
            divided(&tenant, &page, &[largest("service")], None),
            divided_by_each(&tenant, &page, &[vec![largest("service")], vec![largest("level")]]),
            counted(&tenant, &page, &fields, &[vec![None, Some("1".into())]], true, None),
            bounds(&tenant, &page),
            distinct(&tenant, &page, &fields[0]),
        ] {
            assert_eq!(body["query"]["bool"]["filter"], json!([{"term": {"tenant": "acme"}}]));
            assert_eq!((&body["size"], &body["track_total_hits"]), (&json!(0), &json!(true)));
        }
        for body in [sample(&tenant, &page, &fields, 7), sample_whole(&tenant, &page, 7)] {
            let inner = &body["query"]["function_score"]["query"]["bool"]["filter"];
            assert_eq!((inner, &body["size"]), (&json!([{"term": {"tenant": "acme"}}]), &json!(7)));
        }
        let source = &sample(&tenant, &page, &fields, 7)["_source"];
        assert_eq!(source, &json!(["@timestamp", "service", "metadata.status", "attributes.status"]));
    }

    #[test]
    fn groups_and_times_become_aggregations() {
        let (tenant, page) = ("acme".parse().unwrap(), Page::default());
        let buckets = Buckets { start: 61_000_000, width: 60_000_000, count: 3 };
        let body = divided(&tenant, &page, &[largest("service")], Some(&buckets));
        let times = json!({"date_histogram": {
            "field": "@timestamp", "fixed_interval": "60000ms", "offset": "+1000ms", "min_doc_count": 1,
        }});
        assert_eq!(
            body["aggs"],
            json!({"times": times, "by": {
                "terms": {"field": "service", "size": 5, "missing": "\u{0}", "collect_mode": "breadth_first"},
                "aggs": {"times": times},
            }})
        );
        let by = [Field::of("@a"), Field::of("level")];
        let keys = [vec![Some("x".to_owned()), None], vec![None, Some("INFO".to_owned())]];
        let body = counted(&tenant, &page, &by, &keys, false, None);
        let no_level = json!({"bool": {"must_not": [{"exists": {"field": "level"}}]}});
        assert_eq!(
            body["aggs"]["by"]["filters"],
            json!({"other_bucket_key": "other", "filters": {
                "0": {"bool": {"filter": [{"terms": {"leaves": ["metadata.a=x", "attributes.a=x"]}}, no_level]}},
                "1": {"bool": {"filter": [
                    {"bool": {"must_not": [
                        {"prefix": {"leaves": {"value": "metadata.a="}}}, {"prefix": {"leaves": {"value": "attributes.a="}}},
                    ]}},
                    {"term": {"level": {"value": "INFO"}}},
                ]}},
            }})
        );
    }

    #[test]
    fn an_answer_is_read_into_groups_and_the_rest() {
        let buckets = Buckets { start: 0, width: 1_000_000, count: 2 };
        let at = |counts: [u64; 2]| {
            json!({"buckets": [
                {"key": 0, "doc_count": counts[0]}, {"key": 1000, "doc_count": counts[1]},
            ]})
        };
        let all = json!({"times": at([6, 4]), "none": {"doc_count": 2, "times": at([2, 0])}, "by": {"sum_other_doc_count": 1, "doc_count_error_upper_bound": 0, "buckets": [
            {"key": "api", "doc_count": 5, "times": at([3, 2])},
            {"key": "web", "doc_count": 2, "times": at([1, 1])},
        ]}});
        let grouping = Grouping { by: vec![Field::Application], limit: 1, ..Grouping::default() };
        let splits = [largest("application")];
        let tally = read_divided(&all, 10, &splits, Some(&buckets), &grouping);
        assert_eq!(tally.groups, [Group { key: vec![Some("api".into())], count: 5, buckets: vec![3, 2] }]);
        assert_eq!((tally.other, tally.missing, tally.more, tally.chosen), (3, Some(2), true, false));
        assert_eq!((tally.buckets, tally.other_buckets), (vec![6, 4], vec![1, 2]));
        let rare = Grouping { order: Order::Fewest, ..grouping.clone() };
        assert!(read_divided(&all, 10, &splits, Some(&buckets), &rare).chosen, "there are others, which may be rarer");

        let keys = [vec![Some("a".to_owned())], vec![Some("b".to_owned())], vec![None]];
        let all = json!({"by": {"buckets": {
            "0": {"doc_count": 2}, "1": {"doc_count": 3}, "2": {"doc_count": 0}, "other": {"doc_count": 4}, "missing": {"doc_count": 1},
        }}});
        let tally = read_counted(&all, 9, &keys, true, None, &Grouping { limit: 5, ..grouping });
        let shown: Vec<_> = tally.groups.iter().map(|group| (group.key[0].as_deref(), group.count)).collect();
        assert_eq!(shown, [(Some("b"), 3), (Some("a"), 2)]);
        assert_eq!((tally.other, tally.missing, tally.more), (4, Some(1), true));
        assert_eq!(read_bounds(&json!({"first": {"value": 5.0}, "last": {"value": 7.0}})), Some((5000, 8000)));
        assert_eq!(read_bounds(&json!({"first": {"value": null}, "last": {"value": null}})), None);
    }
}
