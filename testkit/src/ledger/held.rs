//! What each store holds of a tenant, counted by batch, read from the store itself.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use crds::tenant::Backends;
use opensearch::SearchParts;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::Counts;
use crate::stores::{Stores, whole};

/// Hits of one page of the index: OpenSearch's own bound of a result window.
const PAGE: usize = 10_000;

/// A tenant's things in the stores, to be counted.
pub struct Holdings {
    pub(super) catalog: PgPool,
    pub(super) s3: aws_sdk_s3::Client,
    pub(super) opensearch: opensearch::OpenSearch,
    pub(super) backends: Backends,
}

impl Holdings {
    /// Of the tenant whose status names `backends`.
    pub fn new(stores: &Stores, backends: &Backends) -> anyhow::Result<Self> {
        Ok(Self {
            catalog: stores.postgres(crds::names::PROCESSOR_DATABASE)?,
            s3: stores.s3()?,
            opensearch: stores.opensearch()?,
            backends: backends.clone(),
        })
    }

    /// Events in the catalog.
    pub async fn catalog(&self) -> anyhow::Result<Counts> {
        self.count("SELECT batch_id, count(*) FROM {schema}.logs GROUP BY batch_id").await
    }

    /// Dead letters in the catalog.
    pub async fn dead_letters(&self) -> anyhow::Result<Counts> {
        self.count("SELECT batch_id, count(*) FROM {schema}.dead_letters GROUP BY batch_id").await
    }

    /// Events that the ledger of usage bills.
    pub async fn billed(&self) -> anyhow::Result<Counts> {
        self.count("SELECT batch_id, sum(events)::bigint FROM {schema}.usage_ledger GROUP BY batch_id").await
    }

    async fn count(&self, sql: &str) -> anyhow::Result<Counts> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(&self.in_schema(sql)).fetch_all(&self.catalog).await?;
        rows.into_iter().map(|(batch, events)| Ok((batch, u64::try_from(events)?))).collect()
    }

    pub(super) fn in_schema(&self, sql: &str) -> String {
        sql.replace("{schema}", &format!("\"{}\"", self.backends.database_schema))
    }

    /// Documents in the index, through the tenant's alias. An id that shows twice is an error.
    pub async fn index(&self) -> anyhow::Result<Counts> {
        let mut seen = BTreeSet::new();
        let mut counts = Counts::new();
        let mut after: Option<Value> = None;
        loop {
            let hits = self.index_page(after.as_ref()).await?;
            for hit in &hits {
                let id = hit["_id"].as_str().context("a hit without _id")?;
                ensure!(seen.insert(id.to_owned()), "event {id} is in the index twice");
                let batch = hit["_source"]["batch_id"].as_str().context("a document without batch_id")?;
                *counts.entry(batch.parse()?).or_default() += 1;
            }
            match hits.last() {
                Some(last) if hits.len() == PAGE => after = Some(last["sort"].clone()),
                _ => return Ok(counts),
            }
        }
    }

    async fn index_page(&self, after: Option<&Value>) -> anyhow::Result<Vec<Value>> {
        let mut body = json!({
            "size": PAGE,
            "_source": ["batch_id"],
            "sort": [{"@timestamp": "desc"}, {"id": "desc"}],
        });
        if let Some(after) = after {
            body["search_after"] = after.clone();
        }
        let alias = self.backends.index_alias.as_str();
        let mut answer = whole(self.opensearch.search(SearchParts::Index(&[alias])).body(body).send().await?).await?;
        serde_json::from_value(answer["hits"]["hits"].take()).context("hits")
    }

    /// Events whose raw line stands in the archive: every object is read back, and each line's
    /// `message` compared with the row's. Only for lines that are JSON with a short message.
    pub async fn archive(&self) -> anyhow::Result<Counts> {
        let sql = "SELECT object_id, key, raw_bytes, starts FROM {schema}.objects";
        let objects: Vec<Object> = sqlx::query_as(&self.in_schema(sql)).fetch_all(&self.catalog).await?;
        let mut counts = Counts::new();
        for object in objects {
            let raw = self.read_object(&object).await.with_context(|| format!("read object {}", object.key))?;
            for line in self.lines_of(&object).await? {
                line.check(&raw).with_context(|| format!("batch {} in object {}", line.batch_id, object.key))?;
                *counts.entry(line.batch_id).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The raw bytes of an object: its frames, decoded one by one.
    async fn read_object(&self, object: &Object) -> anyhow::Result<Vec<u8>> {
        let got = self.s3.get_object().bucket(&self.backends.bucket).key(&object.key).send().await?;
        let stored = got.body.collect().await?.into_bytes();
        let mut raw = Vec::new();
        for frame in object.starts.windows(2) {
            let range = usize::try_from(frame[0])?..usize::try_from(frame[1])?;
            let frame = stored.get(range).context("a frame beyond the object's end")?;
            raw.extend(zstd::decode_all(frame).context("decode a frame")?);
        }
        ensure!(raw.len() == usize::try_from(object.raw_bytes)?, "{} raw bytes, not {}", raw.len(), object.raw_bytes);
        Ok(raw)
    }

    async fn lines_of(&self, object: &Object) -> anyhow::Result<Vec<Line>> {
        let sql = "SELECT l.batch_id, b.raw_start + l.raw_offset AS raw_start, l.raw_length, l.message \
                   FROM {schema}.logs l JOIN {schema}.batches b USING (batch_id) WHERE b.object_id = $1";
        Ok(sqlx::query_as(&self.in_schema(sql)).bind(object.object_id).fetch_all(&self.catalog).await?)
    }

    /// Keys in the bucket below the tenant's prefix, with their sizes.
    pub async fn objects(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let mut keys = BTreeMap::new();
        let list = self.s3.list_objects_v2().bucket(&self.backends.bucket).prefix(&self.backends.prefix);
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page?.contents() {
                keys.insert(object.key().unwrap_or_default().to_owned(), object.size().unwrap_or(0));
            }
        }
        Ok(keys)
    }
}

#[derive(sqlx::FromRow)]
struct Object {
    object_id: i64,
    key: String,
    raw_bytes: i64,
    starts: Vec<i64>,
}

#[derive(sqlx::FromRow)]
struct Line {
    batch_id: Uuid,
    raw_start: i64,
    raw_length: i32,
    message: String,
}

impl Line {
    fn check(&self, raw: &[u8]) -> anyhow::Result<()> {
        let start = usize::try_from(self.raw_start)?;
        let end = start + usize::try_from(self.raw_length)?;
        let line = raw.get(start..end).context("a line beyond the object's end")?;
        let event: Value = serde_json::from_slice(line).context("a raw line that is not JSON")?;
        ensure!(event["message"] == self.message.as_str(), "the raw line says {}", event["message"]);
        Ok(())
    }
}
