//! A page as a request to OpenSearch. Values in, JSON out; a client's text only ever becomes a value.

use crds::TenantName;
use serde_json::{Value, json};

use super::params::{Filters, Page};
use super::query::{Clause, Field, Pattern, Query};
use crate::event::{Micros, rfc3339};
use crate::stores::index::word;

/// Time that OpenSearch may spend on a query before it answers with what it has. Below the time
/// that we wait for the answer, so that a slow query ends with a part and not with nothing.
const TIMEOUT: &str = "2500ms";

/// Most words of an index that the last word of `foo-ba*` is looked up as.
const MAX_EXPANSIONS: u32 = 200;

/// The body of a search for one page. One event more than the page holds is asked for, because it
/// says whether there is a next page.
pub(super) fn search_body(tenant: &TenantName, page: &Page) -> Value {
    let mut must = vec![json!({"term": {"tenant": tenant.as_str()}})];
    must.extend(filters(&page.filters));
    must.extend(page.query.as_ref().map(query));
    let mut body = json!({
        "query": {"bool": {"filter": must}},
        "sort": [{"@timestamp": {"order": "desc"}}, {"id": {"order": "desc"}}],
        "size": page.limit + 1,
        "timeout": TIMEOUT,
        "track_total_hits": false,
        "_source": false,
    });
    if let Some(after) = page.after {
        body["search_after"] = json!([nanos(after.time), after.event_id.to_string()]);
    }
    body
}

/// The body of a search for one event.
pub(super) fn event_body(tenant: &TenantName, event_id: uuid::Uuid) -> Value {
    let must = [json!({"term": {"tenant": tenant.as_str()}}), json!({"ids": {"values": [event_id.to_string()]}})];
    json!({"query": {"bool": {"filter": must}}, "size": 1, "timeout": TIMEOUT, "track_total_hits": false})
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
        range.insert("gte".into(), json!(rfc3339(from)));
    }
    if let Some(to) = filters.to {
        range.insert("lt".into(), json!(rfc3339(to)));
    }
    if !range.is_empty() {
        all.push(json!({"range": {"@timestamp": range}}));
    }
    all
}

fn query(tree: &Query) -> Value {
    match tree {
        Query::And(parts) => json!({"bool": {"filter": parts.iter().map(query).collect::<Vec<_>>()}}),
        Query::Or(parts) => {
            json!({"bool": {"should": parts.iter().map(query).collect::<Vec<_>>(), "minimum_should_match": 1}})
        }
        Query::Not(inner) => json!({"bool": {"must_not": [query(inner)]}}),
        Query::Clause(clause) => clause_query(clause),
    }
}

fn clause_query(Clause { field, pattern }: &Clause) -> Value {
    match field {
        Field::Text => text_query(pattern),
        Field::Service => exact("service", pattern),
        Field::Level => exact("level", &pattern.of_level()),
        Field::Application => exact("application", pattern),
        Field::Language => exact("language", pattern),
        Field::Metadata(path) => leaf(&format!("metadata.{path}"), pattern),
        Field::Attributes(path) => leaf(&format!("attributes.{path}"), pattern),
    }
}

/// In `message` or `full_log`. A word goes as a phrase too: `foo-bar` is two words to the index,
/// and they must stand together.
fn text_query(pattern: &Pattern) -> Value {
    const FIELDS: [&str; 2] = ["message", "full_log"];
    match pattern {
        Pattern::Phrase(text) => json!({"multi_match": {"query": text, "fields": FIELDS, "type": "phrase"}}),
        Pattern::Prefix(text) if text.chars().all(char::is_alphanumeric) => {
            let lower = text.to_lowercase();
            let each = FIELDS.map(|field| json!({"prefix": {field: {"value": lower}}}));
            json!({"bool": {"should": each, "minimum_should_match": 1}})
        }
        Pattern::Prefix(text) => json!({"multi_match": {
            "query": text, "fields": FIELDS, "type": "phrase_prefix", "max_expansions": MAX_EXPANSIONS,
        }}),
    }
}

/// A leaf of `metadata` or `attributes`, of which one field holds all.
fn leaf(path: &str, pattern: &Pattern) -> Value {
    let word = match pattern {
        Pattern::Phrase(text) => Pattern::Phrase(word(path, text)),
        Pattern::Prefix(text) => Pattern::Prefix(word(path, text)),
    };
    exact("leaves", &word)
}

fn exact(field: &str, pattern: &Pattern) -> Value {
    match pattern {
        Pattern::Phrase(text) => json!({"term": {field: {"value": text}}}),
        Pattern::Prefix(text) => json!({"prefix": {field: {"value": text}}}),
    }
}

/// `date_nanos` sorts by nanoseconds; no stored time is beyond what they can count.
fn nanos(time: Micros) -> i64 {
    time.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::super::cursor::Cursor;
    use super::super::query::parse;
    use super::*;

    fn compiled(text: &str) -> Value {
        query(&parse(text).unwrap())
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
            ("attributes.host:web*", json!({"prefix": {"leaves": {"value": "attributes.host=web"}}})),
            (r#""}]}, {\"match_all\":{}}""#, phrase(r#"}]}, {"match_all":{}}"#)),
        ] {
            assert_eq!(compiled(text), dsl, "{text}");
        }
    }

    #[test]
    fn every_search_has_the_tenant_as_a_filter_of_its_own() {
        let tenant = "acme".parse().unwrap();
        for text in ["aa", "aa OR bb", "-aa", "-(aa bb)"] {
            let page = Page { query: Some(parse(text).unwrap()), limit: 50, ..Page::default() };
            let body = search_body(&tenant, &page);
            assert_eq!(body["query"]["bool"]["filter"][0], json!({"term": {"tenant": "acme"}}), "{text}");
            assert_eq!(body["query"].as_object().unwrap().len(), 1, "{text}");
            assert_eq!(body["query"]["bool"].as_object().unwrap().len(), 1, "{text}");
        }
        let body = event_body(&tenant, uuid::Uuid::nil());
        assert_eq!(body["query"]["bool"]["filter"][0], json!({"term": {"tenant": "acme"}}));
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
        let page = Page { filters, query: None, after: Some(Cursor { time: 5, event_id }), limit: 10 };
        let body = search_body(&"acme".parse().unwrap(), &page);
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
