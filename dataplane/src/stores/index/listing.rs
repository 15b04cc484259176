//! Which documents the index has of a tenant, by their ids: for comparing it with the catalog.

use std::collections::HashMap;

use opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::series::read;
use super::{Error, Index, post};
use crate::event::Micros;
use crate::tenancy::Tenant;

/// Documents of one page: OpenSearch's own bound of a result window.
const PAGE: usize = 10_000;

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listed {
    /// Its event's id.
    pub id: Uuid,
    /// The index that has it.
    pub index: String,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_shards")]
    shards: Value,
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    _id: Uuid,
    _index: String,
    #[serde(default)]
    sort: Vec<Value>,
}

impl Index {
    /// Makes what was indexed before this visible to [`Self::listed`].
    pub async fn refresh(&self, tenant: &Tenant) -> Result<(), Error> {
        let path = format!("/{}/_refresh", tenant.name().index_alias());
        match self.call("refresh the tenant's indices", Method::Post, &path, None).await {
            // No alias, no documents.
            Err(Error::Refused { status: 404, .. }) => Ok(()),
            refreshed => refreshed.map(|_| ()),
        }
    }

    /// How many documents the tenant has of a span of acceptance, in whole milliseconds.
    pub async fn count(&self, tenant: &Tenant, span: (Micros, Micros)) -> Result<u64, Error> {
        let doing = "count a tenant's documents";
        let path = format!("/{}/_count", tenant.name().index_alias());
        let body = match self.call(doing, Method::Post, &path, Some(json!({"query": accepted_in(span)}))).await {
            Err(Error::Refused { status: 404, .. }) => return Ok(0),
            counted => counted?,
        };
        let answer: Value = read(doing, &body)?;
        whole(doing, &answer["_shards"])?;
        answer["count"].as_u64().ok_or_else(|| refused(doing, "no count in the answer"))
    }

    /// The tenant's documents of a span of acceptance, in whole milliseconds, ordered by id. One
    /// that is in two indices is listed twice.
    pub async fn listed(&self, tenant: &Tenant, span: (Micros, Micros)) -> Result<Vec<Listed>, Error> {
        let doing = "list a tenant's documents";
        let path = format!("/{}/_search", tenant.name().index_alias());
        let mut listed = Vec::new();
        let mut after: Option<Vec<Value>> = None;
        loop {
            let mut query = json!({
                "size": PAGE, "_source": false, "track_total_hits": false, "query": accepted_in(span),
                "sort": [{"id": "asc"}, {"_index": "asc"}],
            });
            if let Some(after) = after.take() {
                query["search_after"] = Value::Array(after);
            }
            let body = match self.call(doing, Method::Post, &path, Some(query)).await {
                Err(Error::Refused { status: 404, .. }) => return Ok(listed),
                found => found?,
            };
            let found: Found = read(doing, &body)?;
            whole(doing, &found.shards)?;
            let hits = found.hits.hits;
            let is_full = hits.len() == PAGE;
            after = hits.last().map(|hit| hit.sort.clone()).filter(|_| is_full);
            listed.extend(hits.into_iter().map(|hit| Listed { id: hit._id, index: hit._index }));
            if after.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Which of these events the index has, and where.
    pub async fn located(&self, tenant: &Tenant, ids: &[Uuid]) -> Result<HashMap<Uuid, String>, Error> {
        let doing = "look for a tenant's documents";
        let path = format!("/{}/_search", tenant.name().index_alias());
        let mut located = HashMap::new();
        for ids in ids.chunks(PAGE) {
            let query = json!({
                "size": PAGE, "_source": false, "track_total_hits": false, "query": {"ids": {"values": ids}},
            });
            let body = match self.call(doing, Method::Post, &path, Some(query)).await {
                Err(Error::Refused { status: 404, .. }) => return Ok(located),
                found => found?,
            };
            let found: Found = read(doing, &body)?;
            whole(doing, &found.shards)?;
            located.extend(found.hits.hits.into_iter().map(|hit| (hit._id, hit._index)));
        }
        Ok(located)
    }

    /// Removes documents of the tenant; one that is gone already is success.
    pub async fn remove(&self, tenant: &Tenant, documents: &[Listed]) -> Result<(), Error> {
        let doing = "remove documents";
        for documents in documents.chunks(PAGE) {
            let mut body = Vec::new();
            for Listed { id, index } in documents {
                let action = json!({"delete": {"_index": index, "_id": id, "routing": tenant.name()}});
                body.extend_from_slice(action.to_string().as_bytes());
                body.push(b'\n');
            }
            let path = "/_bulk?filter_path=errors,items.delete.status,items.delete.error.reason";
            let answer: Value = read(doing, &post(&self.client, doing, path, body.into(), self.bulk_timeout).await?)?;
            let failed = answer["items"].as_array().into_iter().flatten().map(|item| &item["delete"]);
            let failed = failed.filter(|item| !matches!(item["status"].as_u64(), Some(200 | 404)));
            if let Some(item) = failed.into_iter().next() {
                let status = item["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(500);
                return Err(Error::Refused { doing, status, reason: item["error"]["reason"].to_string() });
            }
        }
        Ok(())
    }
}

/// Accepted at `from` or later and before `to`.
fn accepted_in((from, to): (Micros, Micros)) -> Value {
    let (from, to) = (from.div_euclid(1000), to.div_euclid(1000));
    json!({"range": {"accepted_at": {"gte": from, "lt": to, "format": "epoch_millis"}}})
}

/// An answer that lacks a shard is none. One without a copy that works is missing among the successful, and is not
/// counted as failed.
pub(super) fn whole(doing: &'static str, shards: &Value) -> Result<(), Error> {
    let number = |name: &str| shards[name].as_u64();
    let is_whole = number("failed") == Some(0) && number("total").is_some() && number("total") == number("successful");
    if is_whole { Ok(()) } else { Err(refused(doing, "some shards did not answer")) }
}

fn refused(doing: &'static str, reason: &str) -> Error {
    Error::Refused { doing, status: 200, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_shard_is_none() {
        for (shards, is_whole) in [
            (json!({"total": 2, "successful": 2, "skipped": 1, "failed": 0}), true),
            (json!({"total": 2, "successful": 1, "failed": 1}), false),
            (json!({"total": 2, "successful": 1, "failed": 0}), false),
            (json!({"failed": 0}), false),
            (json!(null), false),
        ] {
            assert_eq!(whole("test", &shards).is_ok(), is_whole, "{shards}");
        }
    }
}
