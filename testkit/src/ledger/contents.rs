//! Everything that the stores hold of a tenant, down to the raw bytes of each event.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use dataplane::event::{Micros, micros};
use dataplane::stores::archive::Footer;
use opensearch::SearchParts;
use opensearch::indices::IndicesRefreshParts;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Holdings;
use crate::stores::whole;

/// Hits of one page of the index: OpenSearch's own bound of a result window.
const PAGE: usize = 10_000;
/// Bytes behind an object's footer: its length, its checksum, four letters.
const TRAILER_BYTES: usize = 16;

/// What the stores hold of one tenant.
#[derive(Debug, Default)]
pub struct Contents {
    /// Rows of the catalog.
    pub rows: Vec<Held>,
    /// Dead letters.
    pub dead_letters: Vec<Held>,
    /// Documents of the index.
    pub documents: Vec<IndexedEvent>,
    /// What the usage ledger bills: one for each of its rows.
    pub billed: Vec<(Uuid, u64)>,
    /// Stored batches, with when they were accepted.
    pub batches: BTreeMap<Uuid, Micros>,
    /// How many objects of the archive hold each batch.
    pub archived: BTreeMap<Uuid, u32>,
    /// Objects in the bucket that the catalog does not know.
    pub orphans: Vec<String>,
}

/// One event or dead letter of the catalog.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its id.
    pub event_id: Uuid,
    /// Its batch.
    pub batch_id: Option<Uuid>,
    /// Its raw line, read from the one place that the catalog names; why not, otherwise.
    pub raw: Result<Vec<u8>, String>,
}

/// One document of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedEvent {
    /// Its id.
    pub event_id: Uuid,
    /// Whose it says that it is.
    pub tenant: String,
}

/// Where a batch's raw lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Spool(i64),
    Object(i64),
}

#[derive(sqlx::FromRow)]
struct Row {
    event_id: Uuid,
    batch_id: Option<Uuid>,
    raw: Option<Vec<u8>>,
    raw_offset: Option<i32>,
    raw_length: Option<i32>,
    raw_start: Option<i64>,
    spool_id: Option<i64>,
    object_id: Option<i64>,
}

impl Holdings {
    /// Reads all of it. Whatever is not where the catalog says is told with the event, not skipped.
    pub async fn contents(&self) -> anyhow::Result<Contents> {
        let mut contents = Contents::default();
        let mut places = self.spooled().await?;
        self.archived(&mut places, &mut contents).await?;
        contents.rows = self.held("logs", "NULL::bytea", &places).await?;
        contents.dead_letters = self.held("dead_letters", "l.raw", &places).await?;
        contents.documents = self.documents().await?;
        let billed: Vec<(Uuid, i32)> = self.query("SELECT batch_id, events FROM {schema}.usage_ledger").await?;
        contents.billed = billed
            .into_iter()
            .map(|(batch, events)| Ok((batch, u64::try_from(events)?)))
            .collect::<Result<_, anyhow::Error>>()?;
        let batches: Vec<(Uuid, OffsetDateTime)> =
            self.query("SELECT batch_id, accepted_at FROM {schema}.batches").await?;
        contents.batches = batches.into_iter().map(|(batch, accepted_at)| (batch, micros(accepted_at))).collect();
        Ok(contents)
    }

    async fn query<T>(&self, sql: &str) -> anyhow::Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        Ok(sqlx::query_as(&self.in_schema(sql)).fetch_all(&self.catalog).await?)
    }

    async fn held(&self, table: &str, raw: &str, places: &HashMap<Place, Vec<u8>>) -> anyhow::Result<Vec<Held>> {
        let rows: Vec<Row> = self
            .query(&format!(
                "SELECT l.event_id, l.batch_id, {raw} AS raw, l.raw_offset, l.raw_length, b.raw_start, b.spool_id, b.object_id
                 FROM {{schema}}.{table} l LEFT JOIN {{schema}}.batches b ON b.batch_id = l.batch_id"
            ))
            .await?;
        let held = rows.into_iter().map(|row| {
            let raw = row.raw_line(places).map_err(|error| error.to_string());
            Held { event_id: row.event_id, batch_id: row.batch_id, raw }
        });
        Ok(held.collect())
    }

    /// The raw lines of each spool row.
    async fn spooled(&self) -> anyhow::Result<HashMap<Place, Vec<u8>>> {
        let rows: Vec<(i64, Vec<u8>)> = self.query("SELECT spool_id, frame FROM {schema}.spool").await?;
        let decoded = rows.into_iter().map(|(id, frame)| {
            let raw = zstd::decode_all(frame.as_slice()).with_context(|| format!("decode spool row {id}"))?;
            Ok((Place::Spool(id), raw))
        });
        decoded.collect()
    }

    /// The raw lines of each object, and what the objects say of themselves.
    async fn archived(&self, places: &mut HashMap<Place, Vec<u8>>, contents: &mut Contents) -> anyhow::Result<()> {
        let known: Vec<(i64, String)> = self.query("SELECT object_id, key FROM {schema}.objects").await?;
        let known: HashMap<String, i64> = known.into_iter().map(|(id, key)| (key, id)).collect();
        for key in self.objects().await?.into_keys() {
            let got = self.s3.get_object().bucket(&self.backends.bucket).key(&key).send().await?;
            let bytes = got.body.collect().await?.into_bytes();
            let (footer, raw) = read_object(&bytes).with_context(|| format!("read object {key}"))?;
            for batch in footer.batches {
                *contents.archived.entry(batch.batch_id).or_default() += 1;
            }
            match known.get(&key) {
                Some(id) => drop(places.insert(Place::Object(*id), raw)),
                None => contents.orphans.push(key),
            }
        }
        Ok(())
    }

    async fn documents(&self) -> anyhow::Result<Vec<IndexedEvent>> {
        let alias = self.backends.index_alias.as_str();
        let refreshed = self.opensearch.indices().refresh(IndicesRefreshParts::Index(&[alias])).send().await?;
        whole(refreshed).await?;
        let mut documents = Vec::new();
        let mut after: Option<Value> = None;
        loop {
            let mut body = json!({"size": PAGE, "_source": ["tenant"], "sort": [{"id": "asc"}]});
            if let Some(after) = &after {
                body["search_after"] = after.clone();
            }
            let answer = whole(self.opensearch.search(SearchParts::Index(&[alias])).body(body).send().await?).await?;
            let hits = answer["hits"]["hits"].as_array().context("hits")?;
            for hit in hits {
                documents.push(IndexedEvent {
                    event_id: hit["_id"].as_str().context("a hit without _id")?.parse()?,
                    tenant: hit["_source"]["tenant"].as_str().unwrap_or_default().to_owned(),
                });
            }
            match hits.last() {
                Some(last) if hits.len() == PAGE => after = Some(last["sort"].clone()),
                _ => return Ok(documents),
            }
        }
    }
}

impl Row {
    fn raw_line(&self, places: &HashMap<Place, Vec<u8>>) -> anyhow::Result<Vec<u8>> {
        if let Some(raw) = &self.raw {
            return Ok(raw.clone());
        }
        let place = match (self.spool_id, self.object_id) {
            (Some(id), None) => Place::Spool(id),
            (None, Some(id)) => Place::Object(id),
            places => anyhow::bail!("its batch names {places:?}, not one place"),
        };
        let raw = places.get(&place).with_context(|| format!("{place:?} is not there"))?;
        let start = self.raw_start.unwrap_or_default() + i64::from(self.raw_offset.unwrap_or_default());
        let start = usize::try_from(start)?;
        let end = start + usize::try_from(self.raw_length.unwrap_or_default())?;
        Ok(raw.get(start..end).with_context(|| format!("{place:?} has no bytes {start}..{end}"))?.to_vec())
    }
}

/// Reads an object with nothing but its own bytes: the footer, and every frame by its checksum.
fn read_object(object: &[u8]) -> anyhow::Result<(Footer, Vec<u8>)> {
    let trailer_start = object.len().checked_sub(TRAILER_BYTES).context("it has no trailer")?;
    let (rest, trailer) = object.split_at(trailer_start);
    let length = usize::try_from(u64::from_le_bytes(trailer[..8].try_into()?))?;
    let crc = u32::from_le_bytes(trailer[8..12].try_into()?);
    let footer_start = rest.len().checked_sub(length).context("its footer is too long")?;
    let (mut frames, footer) = rest.split_at(footer_start);
    ensure!(crc32c::crc32c(footer) == crc, "its footer's checksum differs");
    let footer: Footer = postcard::from_bytes(&zstd::decode_all(footer)?)?;
    let mut raw = Vec::new();
    for (number, (raw_length, length, crc)) in footer.frames.iter().enumerate() {
        let (frame, after) = frames.split_at_checked(*length as usize).context("a frame beyond its end")?;
        ensure!(crc32c::crc32c(frame) == *crc, "frame {number}'s checksum differs");
        let decoded = zstd::decode_all(frame)?;
        ensure!(decoded.len() == *raw_length as usize, "frame {number} has {} raw bytes", decoded.len());
        raw.extend(decoded);
        frames = after;
    }
    Ok((footer, raw))
}
