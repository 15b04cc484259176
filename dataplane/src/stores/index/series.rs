//! The indices of a series: what there is, and making and dropping one.
//!
//! Every index of a series carries the same aliases, one for each of its tenants, so a new index
//! takes its aliases from the one before it, in the request that makes it.

use opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::listing::whole;
use super::{Error, Index};
use crate::event::Micros;

/// One index of a series, as OpenSearch knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexState {
    /// Its number in the series.
    pub number: i64,
    /// Documents.
    pub documents: u64,
    /// Bytes on disk, replicas not counted.
    pub bytes: u64,
    /// When it was made.
    pub created_at: Micros,
}

/// One index of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesIndex {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub state: IndexState,
}

#[derive(Deserialize)]
struct CatRow {
    index: String,
    #[serde(rename = "docs.count")]
    documents: Option<String>,
    #[serde(rename = "pri.store.size")]
    bytes: Option<String>,
    #[serde(rename = "creation.date")]
    created_ms: Option<String>,
}

impl Index {
    /// The indices of a series, oldest first.
    pub async fn of_series(&self, series: &str) -> Result<Vec<SeriesIndex>, Error> {
        let path =
            format!("/_cat/indices/{series}-*?format=json&bytes=b&h=index,docs.count,pri.store.size,creation.date");
        let body = self.call("list the indices of a series", Method::Get, &path, None).await?;
        let rows: Vec<CatRow> = read("list the indices of a series", &body)?;
        let mut indices: Vec<_> = rows.into_iter().filter_map(|row| series_index(series, row)).collect();
        indices.sort_by_key(|index| index.state.number);
        Ok(indices)
    }

    /// When the first and the last of an index's events were accepted; `None` if it has none.
    pub async fn acceptances(&self, index: &str) -> Result<Option<(Micros, Micros)>, Error> {
        let doing = "find the oldest and the newest event of an index";
        let query = json!({"size": 0, "aggs": {
            "oldest": {"min": {"field": "accepted_at"}},
            "newest": {"max": {"field": "accepted_at"}},
        }});
        let body = self.call(doing, Method::Post, &format!("/{index}/_search"), Some(query)).await?;
        let answer: Value = read(doing, &body)?;
        // An index is dropped by what this says.
        whole(doing, &answer["_shards"])?;
        let micros = |name: &str| answer["aggregations"][name]["value"].as_f64().map(|millis| millis as Micros * 1000);
        Ok(micros("oldest").zip(micros("newest")))
    }

    /// Makes an index with the aliases of `previous`. One that is there already is left as it is.
    pub async fn make_next(&self, previous: &str, next: &str) -> Result<(), Error> {
        let doing = "make the next index of a series";
        let body = self.call(doing, Method::Get, &format!("/{previous}/_alias"), None).await?;
        let mut found: Map<String, Value> = read(doing, &body)?;
        let aliases = found.remove(previous).map(|mut index| index["aliases"].take()).unwrap_or_default();
        let aliases = aliases.as_object().map(copied).unwrap_or_default();
        match self.call(doing, Method::Put, &format!("/{next}"), Some(json!({"aliases": aliases}))).await {
            Err(Error::Refused { reason, .. }) if reason.contains("resource_already_exists_exception") => Ok(()),
            made => made.map(|_| ()),
        }
    }

    /// Drops an index; one that is gone already is success.
    pub async fn drop_index(&self, index: &str) -> Result<(), Error> {
        match self.call("drop an index", Method::Delete, &format!("/{index}"), None).await {
            Err(Error::Refused { status: 404, .. }) => Ok(()),
            dropped => dropped.map(|_| ()),
        }
    }

    /// Whether there is such an index.
    pub async fn exists(&self, index: &str) -> Result<bool, Error> {
        let doing = "look for an index";
        match self.call(doing, Method::Get, &format!("/{index}/_settings/index.uuid"), None).await {
            Err(Error::Refused { status: 404, .. }) => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// Whether OpenSearch answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call("ping the index", Method::Get, "/", None).await.map(|_| ())
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(doing: &'static str, body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Refused { doing, status: 200, reason: error.to_string() })
}

/// A row of the listing, if its index belongs to the series: `lh-hot7-p1-*` also finds what is
/// named `lh-hot7-p1-…` by somebody else.
fn series_index(series: &str, row: CatRow) -> Option<SeriesIndex> {
    let number = row.index.strip_prefix(series)?.strip_prefix('-')?.parse().ok()?;
    if crds::names::index_name(series, number) != row.index {
        return None;
    }
    let whole = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let state = IndexState {
        number,
        documents: whole(row.documents),
        bytes: whole(row.bytes),
        created_at: i64::try_from(whole(row.created_ms)).unwrap_or(0) * 1000,
    };
    Some(SeriesIndex { name: row.index, state })
}

/// Aliases as OpenSearch shows them, in the form in which it takes them.
fn copied(shown: &Map<String, Value>) -> Map<String, Value> {
    let copy = |(name, alias): (&String, &Value)| {
        let mut copy = Map::new();
        for field in ["filter", "index_routing", "search_routing"] {
            if let Some(value) = alias.get(field) {
                copy.insert(field.to_owned(), value.clone());
            }
        }
        (name.clone(), Value::Object(copy))
    };
    shown.iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_indices_of_the_series_are_its_own() {
        let row = |index: &str| CatRow {
            index: index.into(),
            documents: Some("5".into()),
            bytes: None,
            created_ms: Some("7".into()),
        };
        let own = series_index("lh-own-a", row("lh-own-a-000012")).unwrap();
        assert_eq!(own.state, IndexState { number: 12, documents: 5, bytes: 0, created_at: 7000 });
        for other in ["lh-own-a-b-000001", "lh-own-a-12", "lh-own-ab-000001", "lh-own-a", "lh-own-a-000012-x"] {
            assert!(series_index("lh-own-a", row(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn aliases_are_copied_with_filter_and_routing() {
        let shown = json!({"lh-t-a": {"filter": {"term": {"tenant": "a"}}, "index_routing": "a", "search_routing": "a", "is_hidden": true}});
        let expected =
            json!({"lh-t-a": {"filter": {"term": {"tenant": "a"}}, "index_routing": "a", "search_routing": "a"}});
        assert_eq!(Value::Object(copied(shown.as_object().unwrap())), expected);
    }
}
