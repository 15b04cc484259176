//! A page as a request to OpenSearch. Values in, JSON out; a client's text only ever becomes a value.

pub mod counts;

use api::parameters::Order;
use crds::TenantName;
use serde_json::{Value, json};

use stages::time::{Micros, rfc3339};

use crate::expression::{Clause, Field, Pattern, Query};
use crate::filters::{Filters, Page};
use crate::leaves::word;
use crate::words::lower_case;

/// Most words of an index that the last word of `foo-ba*` is looked up as.
const MAX_EXPANSIONS: u32 = 200;

/// How a prefix of several words is looked for, such as `foo-ba*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefixes {
    /// As a phrase whose last word begins so. OpenSearch makes a clause of every word of the index that does, of any
    /// tenant's of a pool, and fails where these are too many.
    SideBySide,
    /// Its words anywhere in the same field: no number of words is too many for that.
    Anywhere,
}

/// The body of a search for one page. One event more than the page holds is asked for, because it
/// says whether there is a next page.
pub fn search(tenant: &TenantName, page: &Page, prefixes: Prefixes) -> Value {
    let mut must = vec![json!({"term": {"tenant": tenant.as_str()}})];
    must.extend(filters(&page.filters));
    must.extend(page.query.as_ref().map(|tree| query(tree, prefixes)));
    let order = match page.order {
        Order::Newest => "desc",
        Order::Oldest => "asc",
    };
    let mut body = json!({
        "query": {"bool": {"filter": must}},
        "sort": [{"@timestamp": {"order": order}}, {"id": {"order": order}}],
        "size": page.limit + 1,
        "track_total_hits": false,
        "_source": false,
    });
    if let Some(after) = page.after {
        body["search_after"] = json!([nanos(after.time), after.event_id.to_string()]);
    }
    body
}

fn filters(filters: &Filters) -> Vec<Value> {
    let mut all = Vec::new();
    if !filters.services.is_empty() {
        all.push(json!({"terms": {"service": filters.services}}));
    }
    if !filters.levels.is_empty() {
        all.push(json!({"terms": {"level": filters.levels}}));
    }
    let mut range = serde_json::Map::new();
    if let Some(from) = filters.from {
        range.insert("gte".into(), json!(rfc3339(countable(from))));
    }
    if let Some(to) = filters.to {
        range.insert("lt".into(), json!(rfc3339(countable(to))));
    }
    if !range.is_empty() {
        all.push(json!({"range": {"@timestamp": range}}));
    }
    all
}

/// The nearest time that the index can be asked for: it counts nanoseconds from 1970 until 2262, and refuses a query
/// for others. No stored time is outside of that.
fn countable(time: Micros) -> Micros {
    time.clamp(0, i64::MAX / 1000)
}

fn query(tree: &Query, prefixes: Prefixes) -> Value {
    let all = |parts: &[Query]| parts.iter().map(|part| query(part, prefixes)).collect::<Vec<_>>();
    match tree {
        Query::And(parts) => json!({"bool": {"filter": all(parts)}}),
        Query::Or(parts) => json!({"bool": {"should": all(parts), "minimum_should_match": 1}}),
        Query::Not(inner) => json!({"bool": {"must_not": [query(inner, prefixes)]}}),
        Query::Clause(clause) => clause_query(clause, prefixes),
    }
}

fn clause_query(clause: &Clause, prefixes: Prefixes) -> Value {
    let pattern = &clause.pattern;
    match &clause.field {
        Field::Text | Field::Message => text_query(pattern, prefixes),
        Field::Service => exact("service", pattern),
        Field::Level => exact("level", &pattern.of_level()),
        Field::Application => exact("application", pattern),
        Field::Language => exact("language", pattern),
        field @ (Field::Metadata(_) | Field::Attributes(_) | Field::Either(_) | Field::Named(_)) => {
            let mut choices: Vec<Value> = field.paths().iter().flat_map(|path| leaf(path, pattern)).collect();
            choices.extend(clause.as_text().map(|text| text_query(&text, prefixes)));
            any_of(choices)
        }
    }
}

fn any_of(mut choices: Vec<Value>) -> Value {
    match choices.len() {
        1 => choices.swap_remove(0),
        _ => json!({"bool": {"should": choices, "minimum_should_match": 1}}),
    }
}

/// In `message` or `full_log`. A word goes as a phrase too: `foo-bar` is two words to the index,
/// and they must stand together.
fn text_query(pattern: &Pattern, prefixes: Prefixes) -> Value {
    const FIELDS: [&str; 2] = ["message", "full_log"];
    match pattern {
        Pattern::Phrase(text) => json!({"multi_match": {"query": text, "fields": FIELDS, "type": "phrase"}}),
        Pattern::Prefix(text) if pattern.is_one_word() => {
            let lower = lower_case(text);
            let each = FIELDS.map(|field| json!({"prefix": {field: {"value": lower}}}));
            json!({"bool": {"should": each, "minimum_should_match": 1}})
        }
        Pattern::Prefix(text) if prefixes == Prefixes::Anywhere => json!({"multi_match": {
            "query": text, "fields": FIELDS, "type": "bool_prefix", "operator": "and",
        }}),
        Pattern::Prefix(text) => json!({"multi_match": {
            "query": text, "fields": FIELDS, "type": "phrase_prefix", "max_expansions": MAX_EXPANSIONS,
        }}),
        Pattern::Wildcard(_) | Pattern::Exists | Pattern::Range(_) => json!({"match_none": {}}),
    }
}

/// A leaf of `metadata` or `attributes`, of which one field holds all.
fn leaf(path: &str, pattern: &Pattern) -> Vec<Value> {
    const FIELD: &str = "leaves";
    match pattern {
        Pattern::Phrase(text) => vec![exact(FIELD, &Pattern::Phrase(word(path, text)))],
        Pattern::Prefix(text) => vec![exact(FIELD, &Pattern::Prefix(word(path, text)))],
        Pattern::Wildcard(text) => vec![wildcard(FIELD, &format!("{}={}", literal(path), like(text)))],
        Pattern::Range(range) => {
            let (first, last) = range.words(path);
            vec![json!({"range": {FIELD: {"gte": first, "lte": last}}})]
        }
        Pattern::Exists => ["=", "."].map(|end| exact(FIELD, &Pattern::Prefix(format!("{path}{end}")))).into(),
    }
}

fn exact(field: &str, pattern: &Pattern) -> Value {
    match pattern {
        Pattern::Phrase(text) => json!({"term": {field: {"value": text}}}),
        Pattern::Prefix(text) => json!({"prefix": {field: {"value": text}}}),
        Pattern::Wildcard(text) => wildcard(field, &like(text)),
        Pattern::Exists => json!({"exists": {"field": field}}),
        Pattern::Range(_) => json!({"match_none": {}}),
    }
}

pub(crate) fn wildcard(field: &str, value: &str) -> Value {
    json!({"wildcard": {field: {"value": value}}})
}

/// A pattern in OpenSearch's form, in which `?` and `\` mean something too.
fn like(text: &str) -> String {
    text.replace('\\', r"\\").replace('?', r"\?")
}

/// A text of which nothing means anything in a pattern.
pub(crate) fn literal(text: &str) -> String {
    like(text).replace('*', r"\*")
}

/// `date_nanos` sorts by nanoseconds; no stored time is beyond what they can count.
fn nanos(time: Micros) -> i64 {
    time.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;
    use crate::parse::parse;

    fn compiled(text: &str) -> Value {
        query(&parse(text).unwrap(), Prefixes::SideBySide)
    }

    #[test]
    fn a_query_becomes_filters_and_its_text_only_values() {
        let phrase =
            |text: &str| json!({"multi_match": {"query": text, "fields": ["message", "full_log"], "type": "phrase"}});
        for (text, dsl) in [
            ("timeout", phrase("timeout")),
            ("\"connection reset\"", phrase("connection reset")),
            ("aa bb", json!({"bool": {"filter": [phrase("aa"), phrase("bb")]}})),
            ("aa OR bb", json!({"bool": {"should": [phrase("aa"), phrase("bb")], "minimum_should_match": 1}})),
            ("-aa", json!({"bool": {"must_not": [phrase("aa")]}})),
            (
                "Timeou*",
                json!({"bool": {"minimum_should_match": 1, "should": [
                    {"prefix": {"message": {"value": "timeou"}}}, {"prefix": {"full_log": {"value": "timeou"}}},
                ]}}),
            ),
            (
                "foo-ba*",
                json!({"multi_match": {
                    "query": "foo-ba", "fields": ["message", "full_log"], "type": "phrase_prefix", "max_expansions": 200,
                }}),
            ),
            ("service:Api", json!({"term": {"service": {"value": "Api"}}})),
            ("service:ap*", json!({"prefix": {"service": {"value": "ap"}}})),
            ("level:err", json!({"term": {"level": {"value": "ERROR"}}})),
            ("application:shop", json!({"term": {"application": {"value": "shop"}}})),
            ("language:java", json!({"term": {"language": {"value": "java"}}})),
            ("metadata.user.id:42", json!({"term": {"leaves": {"value": "metadata.user.id=42"}}})),
            (
                "status:500",
                json!({"bool": {"minimum_should_match": 1, "should": [
                    {"term": {"leaves": {"value": "metadata.status=500"}}},
                    {"term": {"leaves": {"value": "attributes.status=500"}}},
                    phrase("status:500"),
                ]}}),
            ),
            ("metadata.a:w?*b", json!({"wildcard": {"leaves": {"value": "metadata.a=w\\?*b"}}})),
            ("service:*pi*", json!({"wildcard": {"service": {"value": "*pi*"}}})),
            ("service:*", json!({"exists": {"field": "service"}})),
            (
                "metadata.a:*",
                json!({"bool": {"minimum_should_match": 1, "should": [
                    {"prefix": {"leaves": {"value": "metadata.a="}}}, {"prefix": {"leaves": {"value": "metadata.a."}}},
                ]}}),
            ),
            (
                "metadata.a:>=500",
                json!({"range": {"leaves": {
                    "gte": "metadata.a\u{1}c07f400000000000", "lte": "metadata.a\u{1}ffffffffffffffff",
                }}}),
            ),
            ("*", json!({"bool": {"filter": []}})),
            ("attributes.host:web*", json!({"prefix": {"leaves": {"value": "attributes.host=web"}}})),
            (r#""}]}, {\"match_all\":{}}""#, phrase(r#"}]}, {"match_all":{}}"#)),
        ] {
            assert_eq!(compiled(text), dsl, "{text}");
        }
    }

    #[test]
    fn a_prefix_of_several_words_that_stands_for_too_many_is_looked_for_anywhere() {
        let loose = query(&parse("foo-ba* timeou*").unwrap(), Prefixes::Anywhere);
        let of_several = json!({"multi_match": {
            "query": "foo-ba", "fields": ["message", "full_log"], "type": "bool_prefix", "operator": "and",
        }});
        assert_eq!(loose["bool"]["filter"], json!([of_several, compiled("timeou*")]));
    }

    #[test]
    fn a_time_that_the_index_can_not_count_is_the_nearest_that_it_can() {
        for (time, asked) in [
            (Micros::MIN, "1970-01-01T00:00:00.000000Z"),
            (-62_135_596_800_000_000, "1970-01-01T00:00:00.000000Z"),
            (1_000_000, "1970-01-01T00:00:01.000000Z"),
            (253_402_300_799_000_000, "2262-04-11T23:47:16.854775Z"),
            (Micros::MAX, "2262-04-11T23:47:16.854775Z"),
        ] {
            let both = Filters { from: Some(time), to: Some(time), ..Filters::default() };
            assert_eq!(filters(&both), [json!({"range": {"@timestamp": {"gte": asked, "lt": asked}}})], "{time}");
        }
    }

    #[test]
    fn every_search_has_the_tenant_as_a_filter_of_its_own() {
        let tenant = "acme".parse().unwrap();
        for text in ["aa", "aa OR bb", "-aa", "-(aa bb)"] {
            let page = Page { query: Some(parse(text).unwrap()), limit: 50, ..Page::default() };
            let body = search(&tenant, &page, Prefixes::SideBySide);
            assert_eq!(body["query"]["bool"]["filter"][0], json!({"term": {"tenant": "acme"}}), "{text}");
            assert_eq!(body["query"].as_object().unwrap().len(), 1, "{text}");
            assert_eq!(body["query"]["bool"].as_object().unwrap().len(), 1, "{text}");
        }
    }

    #[test]
    fn a_page_asks_for_one_more_after_its_cursor_and_within_its_filters() {
        let event_id = uuid::Uuid::from_u128(7);
        let filters = Filters {
            services: vec!["api".into()],
            levels: vec!["ERROR".into(), "WARN".into()],
            from: Some(1),
            to: Some(2_000_000),
        };
        let after = Some(Cursor { time: 5, event_id });
        let page = Page { filters, after, limit: 10, ..Page::default() };
        let body = search(&"acme".parse().unwrap(), &page, Prefixes::SideBySide);
        assert_eq!(body["size"], 11);
        assert_eq!(body["search_after"], json!([5000, event_id.to_string()]));
        assert_eq!(
            body["query"]["bool"]["filter"],
            json!([
                {"term": {"tenant": "acme"}},
                {"terms": {"service": ["api"]}},
                {"terms": {"level": ["ERROR", "WARN"]}},
                {"range": {"@timestamp": {"gte": "1970-01-01T00:00:00.000001Z", "lt": "1970-01-01T00:00:02.000000Z"}}},
            ])
        );
    }
}
