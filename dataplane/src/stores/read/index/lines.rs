//! Whole documents page by page, and counts of groups: what a query of LogQL asks the index.

use std::collections::BTreeMap;

use crds::TenantName;
use query::cursor::Cursor;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Index, IndexError};
use crate::event::{Micros, rfc3339};
use crate::stores::read::Document;
use crate::stores::read::requests::TIMEOUT;
use crate::tenancy::Tenant;

/// Groups of one answer.
const GROUPS: usize = 10_000;

/// Which documents.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Filters, all of which hold.
    pub filters: Vec<Value>,
    /// At this time or after.
    pub from: Micros,
    /// Before this time.
    pub to: Micros,
    /// Accepted at this time or after: what was before is kept no more, also where the index has it still.
    pub kept_after: Micros,
}

/// Which page of them.
#[derive(Debug, Clone, Copy)]
pub struct Leaf {
    /// Oldest first.
    pub forward: bool,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Most documents.
    pub size: usize,
    /// With `metadata` and `attributes`.
    pub labels: bool,
    /// Whether to count all of them, up to this many.
    pub count: Option<u64>,
}

/// A page of documents.
#[derive(Debug)]
pub struct Leaves {
    /// In the order of their time.
    pub documents: Vec<(Cursor, Document)>,
    /// How many there are, if it was asked.
    pub total: u64,
    /// Whether a part of the index didn't answer in time.
    pub partial: bool,
}

/// How documents are grouped.
#[derive(Debug, Clone, Default)]
pub struct Grouped {
    /// By the values of these fields.
    pub fields: Vec<&'static str>,
    /// And by time: milliseconds of a group, and where groups begin.
    pub time: Option<(i64, i64)>,
}

/// Counts of groups.
#[derive(Debug)]
pub struct Groups {
    /// The groups.
    pub groups: Vec<Group>,
    /// Where the next page begins, if there is one.
    pub next: Option<Value>,
    /// Whether a part of the index didn't answer in time.
    pub partial: bool,
}

/// Documents with the same values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The values; of a field that is missing, none.
    pub values: BTreeMap<&'static str, String>,
    /// The first millisecond.
    pub millis: i64,
    /// How many documents.
    pub count: u64,
}

#[derive(Deserialize)]
struct Hit {
    sort: (i64, Uuid),
    #[serde(rename = "_source")]
    document: Document,
}

#[derive(Deserialize, Default)]
struct Aggregations {
    groups: Composite,
}

#[derive(Deserialize, Default)]
struct Composite {
    after_key: Option<Value>,
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    key: BTreeMap<String, Value>,
    doc_count: u64,
}

impl Index {
    /// A page of whole documents.
    pub async fn leaves(&self, tenant: &Tenant, asked: &Asked, leaf: Leaf) -> Result<Leaves, IndexError> {
        let answer: super::Answer<Hit> = self.ask(tenant, leaves_body(tenant.name(), asked, leaf)).await?;
        let place = |(nanos, event_id): (i64, Uuid)| Cursor { time: nanos.div_euclid(1000), event_id };
        Ok(Leaves {
            partial: answer.is_partial(),
            total: answer.hits.total.as_ref().map_or(0, |total| total.value),
            documents: answer.hits.hits.into_iter().map(|hit| (place(hit.sort), hit.document)).collect(),
        })
    }

    /// A page of groups.
    pub async fn groups_of(
        &self,
        tenant: &Tenant,
        asked: &Asked,
        grouped: &Grouped,
        after: Option<&Value>,
    ) -> Result<Groups, IndexError> {
        let body = groups_body(tenant.name(), asked, grouped, after);
        let answer: super::Answer<serde::de::IgnoredAny> = self.ask(tenant, body).await?;
        let partial = answer.is_partial();
        let Aggregations { groups } = match answer.aggregations {
            // A tenant without an index has no groups.
            Value::Null => Aggregations::default(),
            aggregations => serde_json::from_value(aggregations)?,
        };
        let next = groups.after_key.filter(|_| groups.buckets.len() >= GROUPS);
        Ok(Groups { groups: groups.buckets.into_iter().map(|bucket| group(grouped, bucket)).collect(), next, partial })
    }
}

fn group(grouped: &Grouped, bucket: Bucket) -> Group {
    let value = |field: &&'static str| Some((*field, bucket.key.get(*field)?.as_str()?.to_owned()));
    Group {
        values: grouped.fields.iter().filter_map(value).collect(),
        millis: bucket.key.get("time").and_then(Value::as_i64).unwrap_or(0),
        count: bucket.doc_count,
    }
}

fn query(tenant: &TenantName, asked: &Asked) -> Value {
    // The index counts nanoseconds from 1970 until 2262.
    let shown = |time: Micros| rfc3339(time.clamp(0, i64::MAX / 1000));
    let mut must = vec![
        json!({"term": {"tenant": tenant.as_str()}}),
        json!({"range": {"@timestamp": {"gte": shown(asked.from), "lt": shown(asked.to)}}}),
        json!({"range": {"accepted_at": {"gte": shown(asked.kept_after)}}}),
    ];
    must.extend(asked.filters.iter().cloned());
    json!({"bool": {"filter": must}})
}

fn leaves_body(tenant: &TenantName, asked: &Asked, leaf: Leaf) -> Value {
    let order = if leaf.forward { "asc" } else { "desc" };
    let hidden: &[&str] = if leaf.labels { &["leaves"] } else { &["leaves", "metadata", "attributes"] };
    let mut body = json!({
        "query": query(tenant, asked),
        "sort": [{"@timestamp": {"order": order}}, {"id": {"order": order}}],
        "size": leaf.size,
        "timeout": TIMEOUT,
        "track_total_hits": leaf.count.map_or(json!(false), |count| json!(count)),
        "_source": {"excludes": hidden},
    });
    if let Some(after) = leaf.after {
        body["search_after"] = json!([after.time.saturating_mul(1000), after.event_id.to_string()]);
    }
    body
}

fn groups_body(tenant: &TenantName, asked: &Asked, grouped: &Grouped, after: Option<&Value>) -> Value {
    let by_value = |field: &&'static str| json!({*field: {"terms": {"field": field, "missing_bucket": true}}});
    let mut sources: Vec<Value> = grouped.fields.iter().map(by_value).collect();
    sources.extend(grouped.time.map(|(interval, offset)| {
        json!({"time": {"date_histogram": {
            "field": "@timestamp", "fixed_interval": format!("{interval}ms"), "offset": format!("{offset}ms"),
        }}})
    }));
    let mut composite = json!({"size": GROUPS, "sources": sources});
    if let Some(after) = after {
        composite["after"] = after.clone();
    }
    json!({
        "query": query(tenant, asked), "size": 0, "timeout": TIMEOUT, "track_total_hits": false,
        "aggs": {"groups": {"composite": composite}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_the_tenant_and_its_time_as_filters() {
        let tenant = "acme".parse().unwrap();
        let asked =
            Asked { filters: vec![json!({"term": {"service": "api"}})], from: 1, to: Micros::MAX, kept_after: 7 };
        let after = Some(Cursor { time: 5, event_id: Uuid::nil() });
        let leaf = Leaf { forward: true, after, size: 10, labels: false, count: Some(7) };
        let grouped = Grouped { fields: vec!["service"], time: Some((1000, 3)) };
        let bodies =
            [leaves_body(&tenant, &asked, leaf), groups_body(&tenant, &asked, &grouped, Some(&json!({"a": 1})))];
        for body in &bodies {
            let filter = &body["query"]["bool"]["filter"];
            assert_eq!(filter[0], json!({"term": {"tenant": "acme"}}));
            assert_eq!(filter[1]["range"]["@timestamp"]["gte"], "1970-01-01T00:00:00.000001Z");
            assert_eq!(filter[2]["range"]["accepted_at"]["gte"], "1970-01-01T00:00:00.000007Z");
            assert_eq!(filter[3], asked.filters[0]);
            assert_eq!(body["timeout"], TIMEOUT);
        }
        assert_eq!(bodies[0]["search_after"], json!([5000, Uuid::nil().to_string()]));
        assert_eq!(bodies[0]["track_total_hits"], 7);
        let composite = &bodies[1]["aggs"]["groups"]["composite"];
        assert_eq!(composite["after"], json!({"a": 1}));
        assert_eq!(
            composite["sources"][0],
            json!({"service": {"terms": {"field": "service", "missing_bucket": true}}})
        );
        assert_eq!(composite["sources"][1]["time"]["date_histogram"]["offset"], "3ms");
    }
}
