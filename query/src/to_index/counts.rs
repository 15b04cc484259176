//! Counting as requests to OpenSearch, and its answers read.
//!
//! Reserved fields have doc values, so the index finds their largest groups by itself. Leaves have none (ADR 0018): it
//! is asked for groups by name, which a sample of events gives.

use crds::TenantName;
use serde_json::{Map, Value, json};

use super::{Prefixes, exact, filters, query, word};
use crate::counting::{Buckets, Group, Grouping, Key, Tally, cut};
use crate::expression::{Field, Pattern};
use crate::filters::Page;

/// What stands for no value in the index's answers: no stored text has it.
const MISSING: &str = "\0";

/// How events are divided by a reserved field: by the values that most of them have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The field.
    pub field: Field,
    /// Most values.
    pub size: u32,
    /// Whether events without a value are a group among them; else they are counted beside them.
    pub with_missing: bool,
}

/// The body of a request that counts events by reserved fields; over time each group, and all events only without
/// groups: to do both takes nearly twice as long, and [`read_totals`] usually tells it.
pub fn divided(tenant: &TenantName, page: &Page, splits: &[Split], buckets: Option<&Buckets>) -> Value {
    let mut all = aggregations(splits, buckets);
    if !splits.is_empty()
        && let Some(all) = all.as_object_mut()
    {
        all.remove("times");
    }
    body(tenant, page, Vec::new(), all)
}

/// The body of a request that counts the same events by one reserved field after the other; each answer stands under its
/// number.
pub fn divided_by_each(tenant: &TenantName, page: &Page, ways: &[Split]) -> Value {
    let of = |(number, split): (usize, &Split)| {
        let mut all = aggregations(std::slice::from_ref(split), None);
        (number.to_string(), all["by"].take())
    };
    body(tenant, page, Vec::new(), Value::Object(ways.iter().enumerate().map(of).collect()))
}

/// Which events of a page are counted by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// Those of one group.
    Group(&'a Key),
    /// Those of none of these groups, and with a value of each field if so said.
    Others {
        /// The groups.
        keys: &'a [Key],
        /// Whether those without a value are left out.
        with_values: bool,
    },
    /// Those without a value of some field.
    Missing,
}

/// The body of a request that counts a part of events.
pub fn part(tenant: &TenantName, page: &Page, by: &[Field], part: &Part<'_>, buckets: Option<&Buckets>) -> Value {
    let missing = || by.iter().map(|field| of_value(field, None)).collect::<Vec<_>>();
    let condition = match part {
        Part::Group(key) => of_key(by, key),
        Part::Others { keys, with_values } => {
            let mut excluded: Vec<Value> = keys.iter().map(|key| of_key(by, key)).collect();
            if *with_values {
                excluded.extend(missing());
            }
            json!({"bool": {"must_not": excluded}})
        }
        Part::Missing => json!({"bool": {"should": missing(), "minimum_should_match": 1}}),
    };
    body(tenant, page, vec![condition], aggregations(&[], buckets))
}

/// The body of a search for the first event, or the last.
pub fn bound(tenant: &TenantName, page: &Page, last: bool) -> Value {
    json!({
        "query": {"bool": {"filter": must(tenant, page)}},
        "sort": [{"@timestamp": {"order": if last { "desc" } else { "asc" }}}],
        "size": 1,
        "track_total_hits": false,
        "_source": false,
    })
}

/// The body of a request for how many different values a reserved field has, about.
pub fn distinct(tenant: &TenantName, page: &Page, field: &Field) -> Value {
    body(
        tenant,
        page,
        Vec::new(),
        json!({"values": {"cardinality": {"field": keyword(field), "precision_threshold": 40_000}}}),
    )
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

fn body(tenant: &TenantName, page: &Page, and: Vec<Value>, aggregations: Value) -> Value {
    let mut events = must(tenant, page);
    events.extend(and);
    json!({
        "query": {"bool": {"filter": events}},
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
    if let Some((Split { field, size, with_missing }, inner)) = splits.split_first() {
        let mut by = json!({"terms": {"field": keyword(field), "size": size}});
        if *with_missing {
            by["terms"]["missing"] = MISSING.into();
        } else {
            let mut none = json!({"missing": {"field": keyword(field)}});
            if let Some(buckets) = buckets {
                none["aggs"] = json!({"times": histogram(buckets)});
            }
            all.insert("none".into(), none);
        }
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
    let Some((_, inner)) = splits.split_first() else { return };
    let by = &all["by"];
    for bucket in by["buckets"].as_array().into_iter().flatten() {
        let value = bucket["key"].as_str().filter(|value| *value != MISSING).map(str::to_owned);
        let key = [above.as_slice(), &[value]].concat();
        if inner.is_empty() {
            found.groups.push(Group { key, count: documents(bucket), buckets: times(bucket, buckets) });
        } else {
            read_level(bucket, inner, buckets, &key, found);
        }
    }
    found.more |= by["sum_other_doc_count"].as_u64().unwrap_or(0) > 0;
    found.is_rough |= by["doc_count_error_upper_bound"].as_i64().unwrap_or(0) != 0;
}

/// All events of one reserved field's groups over time, from the answer to [`divided`]; `None` if there are others, so
/// that they must be asked for by themselves.
pub fn read_totals(all: &Value, buckets: &Buckets) -> Option<Vec<u64>> {
    let by = &all["by"];
    let mut totals = times(&all["none"], Some(buckets));
    for bucket in by["buckets"].as_array().into_iter().flatten() {
        totals.iter_mut().zip(times(bucket, Some(buckets))).for_each(|(total, count)| *total += count);
    }
    (by["sum_other_doc_count"].as_u64() == Some(0)).then_some(totals)
}

/// What was counted of all events, or of the groups of one reserved field, each event being in one: the answer to
/// [`divided`]. `totals` are all events over time.
pub fn read_divided(all: &Value, total: u64, splits: &[Split], totals: Vec<u64>, grouping: &Grouping) -> Tally {
    let buckets = grouping.buckets.as_ref().filter(|_| !totals.is_empty());
    let mut tally = Tally { total, buckets: totals, ..Tally::default() };
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

/// One way of an answer to [`divided_by_each`].
pub fn read_one_of(all: &Value, number: usize, total: u64, split: &Split, grouping: &Grouping) -> Tally {
    let all = json!({"by": all[number.to_string()]});
    read_divided(&all, total, std::slice::from_ref(split), Vec::new(), grouping)
}

/// A part's events over time: the answer to [`part`].
pub fn read_times(all: &Value, buckets: Option<&Buckets>) -> Vec<u64> {
    times(all, buckets)
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
        Split { field: Field::of(name), size: 5, with_missing: true }
    }

    #[test]
    fn every_request_has_the_tenant_as_a_filter_of_its_own() {
        let (tenant, page) = ("acme".parse().unwrap(), Page::default());
        let fields = [Field::of("service"), Field::of("status")];
        for body in [
            divided(&tenant, &page, &[largest("service")], None),
            divided_by_each(&tenant, &page, &[largest("service"), largest("level")]),
            part(&tenant, &page, &fields, &Part::Missing, None),
            part(&tenant, &page, &fields, &Part::Others { keys: &[], with_values: true }, None),
            distinct(&tenant, &page, &fields[0]),
        ] {
            assert_eq!(body["query"]["bool"]["filter"][0], json!({"term": {"tenant": "acme"}}));
            assert_eq!((&body["size"], &body["track_total_hits"]), (&json!(0), &json!(true)));
        }
        assert_eq!(bound(&tenant, &page, true)["query"]["bool"]["filter"], json!([{"term": {"tenant": "acme"}}]));
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
            json!({"by": {"terms": {"field": "service", "size": 5, "missing": "\u{0}"}, "aggs": {"times": times}}})
        );
        let by = [Field::of("@a"), Field::of("level")];
        let key = |a: Option<&str>, level: Option<&str>| vec![a.map(str::to_owned), level.map(str::to_owned)];
        let condition =
            |part: Part<'_>| super::part(&tenant, &page, &by, &part, None)["query"]["bool"]["filter"][1].clone();
        let no_level = json!({"bool": {"must_not": [{"exists": {"field": "level"}}]}});
        let no_a = json!({"bool": {"must_not": [
            {"prefix": {"leaves": {"value": "metadata.a="}}}, {"prefix": {"leaves": {"value": "attributes.a="}}},
        ]}});
        let x = json!({"bool": {"filter": [{"terms": {"leaves": ["metadata.a=x", "attributes.a=x"]}}, no_level]}});
        let info = json!({"bool": {"filter": [no_a, {"term": {"level": {"value": "INFO"}}}]}});
        let keys = [key(Some("x"), None), key(None, Some("INFO"))];
        assert_eq!((condition(Part::Group(&keys[0])), condition(Part::Group(&keys[1]))), (x.clone(), info.clone()));
        let others = Part::Others { keys: &keys, with_values: true };
        assert_eq!(condition(others), json!({"bool": {"must_not": [x, info, no_a, no_level]}}));
        let missing = json!({"bool": {"should": [no_a, no_level], "minimum_should_match": 1}});
        assert_eq!(condition(Part::Missing), missing);
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
        let grouping =
            Grouping { by: vec![Field::Application], limit: 1, buckets: Some(buckets), ..Grouping::default() };
        let splits = [largest("application")];
        assert_eq!(read_totals(&all, &buckets), None, "there are others");
        let tally = read_divided(&all, 10, &splits, vec![6, 4], &grouping);
        assert_eq!(tally.groups, [Group { key: vec![Some("api".into())], count: 5, buckets: vec![3, 2] }]);
        assert_eq!((tally.other, tally.missing, tally.more, tally.chosen), (3, Some(2), true, false));
        assert_eq!((tally.buckets, tally.other_buckets), (vec![6, 4], vec![1, 2]));
        let rare = Grouping { order: Order::Fewest, ..grouping.clone() };
        assert!(read_divided(&all, 10, &splits, vec![6, 4], &rare).chosen, "there are others, which may be rarer");
    }
}
