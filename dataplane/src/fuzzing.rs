//! Doors for the fuzz targets in `fuzz/`: one for each decoder of bytes that come from outside, with
//! what must hold of whatever it makes of them. Built for fuzzing only.

mod seeds;

use std::sync::LazyLock;

pub use seeds::seeds;

use axum::http::HeaderMap;
use query::cursor::{Asked, Cursor, InvalidCursor};

use crate::event::Micros;
use crate::ingest::fuzzing as ingest;
use crate::queue::entry::Entry;

use crate::stores::archive::fuzzing as archive;
use crate::stores::batch::{Treatment, map};
use ::stages::{MAX_GROWTH, Pipeline, Rewritten, Stage};
use uuid::Uuid;

/// An ordinary time of acceptance.
const NOW: Micros = 1_767_323_045_000_000;

/// A body as it is, in the form that its first byte picks.
pub fn body(bytes: &[u8]) {
    let Some((form, body)) = bytes.split_first() else { return };
    ingest::parse_as(*form, body);
}

/// A body under a Content-Encoding that its first byte picks.
pub fn encoded(bytes: &[u8]) {
    let Some((encoding, body)) = bytes.split_first() else { return };
    let mut headers = HeaderMap::new();
    let name = ["gzip", "zstd"][usize::from(encoding % 2)];
    headers.insert("content-encoding", axum::http::HeaderValue::from_static(name));
    ingest::read(&headers, body.to_vec());
}

/// The header and the frame of a queue entry: whether the frame is still to be compressed, in two bytes
/// where the header ends, then both.
pub fn entry(bytes: &[u8]) {
    let Some(([form, length @ ..], rest)) = bytes.split_first_chunk::<3>() else { return };
    let (header, rest) = rest.split_at((u16::from_le_bytes(*length) as usize).min(rest.len()));
    let Some(frame) = compressed(*form, rest) else { return };
    let fields = [("v", b"1".as_slice()), ("t", b"acme".as_slice()), ("h", header), ("p", frame.as_slice())];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).to_vec();
    if let Ok(entry) = Entry::decode(fields) {
        let batches = map(&entry.header, &entry.raw, Treatment::Process);
        let lines: usize = entry.header.batches.iter().map(|batch| batch.events.len()).sum();
        let places = batches.iter().map(|batch| batch.events.len() + batch.dead_letters.len() + batch.dropped.len());
        assert_eq!(lines, places.sum::<usize>(), "each line is an event or a dead letter, or was dropped");
    }
}

/// An object's footer. The checksum is made right, or no run would ever get past it.
pub fn footer(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else { return };
    if let Some(footer) = compressed(*form, rest) {
        archive::read_footer(&footer);
    }
}

/// A cursor: what can be read is written the same way. The bytes of one that we could have given out
/// are taken as such, since none would be found by chance.
pub fn cursor(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(cursor) = Cursor::decode(text, Asked::default())
    {
        assert_eq!(cursor.encode(Asked::default()), text);
    }
    if let Some((time, event_id)) = bytes.split_first_chunk::<8>()
        && let Ok(event_id) = Uuid::from_slice(event_id)
    {
        let cursor = Cursor { time: Micros::from_be_bytes(*time), event_id };
        let read = Cursor::decode(&cursor.encode(Asked::default()), Asked::default());
        assert_eq!(read, if is_a_date(cursor.time) { Ok(cursor) } else { Err(InvalidCursor::Foreign) });
    }
}

/// A query and what OpenSearch would be asked.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let (Ok(query), Ok(tenant)) = (query::parse(text), "acme".parse()) {
        let page = query::Page { query: Some(query), limit: 50, ..query::Page::default() };
        query::to_index::search(&tenant, &page, query::to_index::Prefixes::SideBySide);
        query::to_catalog::conditions(&page);
    }
    if let Err(error) = query::question(text) {
        error.repairs.iter().for_each(|repair| assert!(query::question(repair).is_ok(), "{repair}"));
    }
    for at in [0, text.len() / 2, text.len()] {
        let (_, range) = query::complete::place(text, at);
        assert!(text.get(range).is_some());
    }
}

/// A line as a pipeline's stages see it. The first byte picks the pipeline.
pub fn stages(bytes: &[u8]) {
    let Some((pick, line)) = bytes.split_first() else { return };
    let pipeline = &PIPELINES[usize::from(*pick) % PIPELINES.len()];
    if line.is_empty() {
        return;
    }
    let Rewritten::Line(stored) = pipeline.rewrite(line, NOW, 7) else { return };
    assert!((1..=2 * line.len() + MAX_GROWTH).contains(&stored.len()), "{} bytes", stored.len());
    assert_eq!(pipeline.rewrite(line, NOW, 7), Rewritten::Line(stored.clone()), "a redelivery makes the same line");
    // An event or none: whichever it is must be found out.
    let _event = ::stages::event(&stored, NOW);
}

/// Pipelines that use every stage, format and detector.
static PIPELINES: LazyLock<Vec<Pipeline>> = LazyLock::new(|| {
    let redact = |action, more| {
        let detectors = r#"["Email", "CardNumber", "Token", "IpAddress"]"#;
        format!(r#"[{{"name": "r", "redact": {{"detectors": {detectors}, "action": "{action}"{more}}}}}]"#)
    };
    let parse = |format, more| format!(r#"[{{"name": "p", "parse": {{"format": "{format}"{more}}}}}]"#);
    let texts = [
        parse("Auto", r#", "pattern": "(?<user>\\w+)=(?<value>\\S*)""#),
        parse("Json", ""),
        parse("Ndjson", ""),
        parse("Apache", r#", "into": "request""#),
        parse("Syslog", ""),
        redact("Replace", ""),
        redact("Remove", ""),
        redact("Hash", r#", "salt": "0123456789abcdef""#),
        r#"[{"name": "f", "redact": {"fields": ["password", "metadata.user"]}},
            {"name": "s", "sample": {"keepOneIn": 2, "by": "trace"}},
            {"name": "e", "match": {"levels": ["warn"], "fields": [{"name": "a.b", "matches": "^x+$"}]},
             "enrich": {"set": {"metadata.team": "shop", "service": "web"}, "overwrite": true}}]"#
            .to_owned(),
    ];
    let compiled = texts.map(|text| {
        let stages: Vec<Stage> = serde_json::from_str(&text).expect("the stages above");
        Pipeline::compile(&stages).expect("the stages above")
    });
    compiled.into()
});

/// The bytes as one zstd frame: as they are, or compressed here, since what is inside would hardly ever
/// be reached through zstd.
fn compressed(form: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    if form.is_multiple_of(2) { Some(bytes.to_vec()) } else { zstd::bulk::compress(bytes, 1).ok() }
}

/// Whether it is a time that can be written as a date.
fn is_a_date(time: Micros) -> bool {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1000).is_ok()
}
