//! What OpenSearch is asked, as JSON, besides a query's own part.

use crds::TenantName;
use query::Page;
use query::to_index::{Prefixes, search};
use serde_json::{Value, json};

/// Time that OpenSearch may spend on a query before it answers with what it has. Below the time
/// that we wait for the answer, so that a slow query ends with a part and not with nothing.
pub(super) const TIMEOUT: &str = "2500ms";

/// The body of a search for one page, and one event more.
pub(super) fn search_body(tenant: &TenantName, page: &Page, prefixes: Prefixes) -> Value {
    let mut body = search(tenant, page, prefixes);
    body["timeout"] = json!(TIMEOUT);
    body
}

/// The body of a search that counts what it finds, up to `most`.
pub(super) fn count_body(tenant: &TenantName, page: &Page, most: u64) -> Value {
    let query = search(tenant, page, Prefixes::SideBySide)["query"].take();
    json!({"query": query, "size": 0, "track_total_hits": most, "timeout": TIMEOUT})
}

/// The body of a search for one event.
pub(super) fn event_body(tenant: &TenantName, event_id: uuid::Uuid) -> Value {
    let must = [json!({"term": {"tenant": tenant.as_str()}}), json!({"ids": {"values": [event_id.to_string()]}})];
    json!({"query": {"bool": {"filter": must}}, "size": 1, "timeout": TIMEOUT, "track_total_hits": false})
}

/// The body of a search that says which of these events the index holds.
pub(super) fn held_body(tenant: &TenantName, ids: &[uuid::Uuid]) -> Value {
    let values: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let must = [json!({"term": {"tenant": tenant.as_str()}}), json!({"ids": {"values": values}})];
    json!({
        "query": {"bool": {"filter": must}}, "size": ids.len(), "timeout": TIMEOUT, "track_total_hits": false,
        "_source": ["form"],
    })
}

/// The body of a search for the newest event of which the index holds less than the whole.
pub(super) fn reduced_body(tenant: &TenantName) -> Value {
    let must = [json!({"term": {"tenant": tenant.as_str()}}), json!({"exists": {"field": "index_error"}})];
    json!({
        "query": {"bool": {"filter": must}}, "sort": [{"@timestamp": {"order": "desc"}}], "size": 1,
        "timeout": TIMEOUT, "track_total_hits": false, "_source": false,
    })
}

/// The body of a search for events of which the index holds less than the whole: those that a page may show, whatever its
/// query says, and one event more.
pub(super) fn reduced_page_body(tenant: &TenantName, page: &Page, most: u32) -> Value {
    let all = Page { query: None, limit: most, ..page.clone() };
    let mut body = search_body(tenant, &all, Prefixes::SideBySide);
    if let Some(filters) = body["query"]["bool"]["filter"].as_array_mut() {
        filters.push(json!({"exists": {"field": "index_error"}}));
    }
    body
}

/// The body of a search that costs nothing.
pub(super) fn easy_body() -> Value {
    json!({"query": {"match_none": {}}, "size": 0, "track_total_hits": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_part_are_asked_for_without_the_query() {
        let page = Page { query: Some(query::parse("word").unwrap()), limit: 5, ..Page::default() };
        let body = reduced_page_body(&"acme".parse().unwrap(), &page, 10);
        let filters = json!([{"term": {"tenant": "acme"}}, {"exists": {"field": "index_error"}}]);
        assert_eq!((&body["query"]["bool"]["filter"], &body["size"]), (&filters, &json!(11)));
    }

    #[test]
    fn every_request_about_events_has_the_tenant_as_a_filter() {
        let tenant = "acme".parse().unwrap();
        let id = uuid::Uuid::nil();
        let page = Page::default();
        for body in [
            search_body(&tenant, &page, Prefixes::SideBySide),
            count_body(&tenant, &page, 5),
            event_body(&tenant, id),
            held_body(&tenant, &[id]),
            reduced_body(&tenant),
            reduced_page_body(&tenant, &page, 10),
        ] {
            assert_eq!(body["query"]["bool"]["filter"][0], json!({"term": {"tenant": "acme"}}));
            assert_eq!(body["timeout"], TIMEOUT);
        }
    }
}
