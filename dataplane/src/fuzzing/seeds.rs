//! What each target begins with: inputs as our own encoders make them, so that a run needn't find the
//! forms by chance.

use std::io::{self, Read};

use flate2::Compression;
use flate2::bufread::GzEncoder;
use query::cursor::{Asked, Cursor};
use uuid::Uuid;

use super::NOW;
use crate::queue::entry::{BatchHeader, EventHeader, Header, Rejection};
use crate::stores::archive::{Footer, FooterBatch};

/// Bodies of each form.
const BODIES: [&str; 8] = [
    r#"{"service":"checkout","level":"info","message":"payment declined","timestamp":"2026-01-02T03:04:05.678+02:00"}"#,
    r#"{"timestamp":1767323045,"severity":"WARN","msg":"a \"quoted\" \u00e9\ud83d\ude00 word","metadata":{"user":{"id":7}}}"#,
    r#"{"time":1767323045123.5,"app":"shop","lang":"java","message":"x","full_log":"x\ny","a":[1,2.5e-3,null,true,[{}]]}"#,
    "[{\"message\":\"one\"},\n {\"message\":\"two\",\"level\":\"fatal\"} ]",
    "{\"message\":\"one\"}\n{\"message\":\"two\"}\r\n\nnot json\n{\"@timestamp\":\"Fri, 02 Jan 2026 03:04:05 GMT\"}\n",
    "\u{feff}{\"message\":\"täglich 日本語\",\"tenant\":\"acme\",\"@timestamp\":\"2026-01-02 03:04:05,678\"}",
    r#"{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{}}}}}}}},"a":1,"":"","message":{"not":"text"}}"#,
    r#"[1, "two", {}, []]"#,
];

const QUERIES: [&str; 9] = [
    "timeout",
    "a b OR c",
    "-(a OR b) NOT c AND d",
    r#""a \"quoted\" \\ word" peer"#,
    "timeou* foo-bar a/b x=1",
    r#"service:"my api" level:error -application:shop language:java"#,
    "metadata.user.id:42 attributes.trace_id:ab*",
    "12:30:45 grüße 世界",
    "((((a))))",
];

/// Lines for the stages.
const LINES: [&str; 9] = [
    r#"{"message":"user=jo value=7 jo@example.org paid with 4111 1111 1111 1111 from 198.18.0.7 and 2001:db8::7"}"#,
    r#"{"message":"127.0.0.1 - jo [02/Jan/2026:03:04:05 +0000] \"GET /cart?x=1 HTTP/1.1\" 200 12 \"-\" \"curl/8\""}"#,
    r#"{"message":"<34>1 2026-01-02T03:04:05.003Z host app 1234 ID47 [ex@1 a=\"b\\]c\"] it failed"}"#,
    r#"{"message":"<13>Jan  2 03:04:05 host app[1234]: it failed"}"#,
    r#"{"message":"{\"level\":\"warn\",\"a\":{\"b\":\"xx\"},\"message\":\"inner\"}"}"#,
    r#"{"message":"{\"a\":1}\n{\"b\":2}\n"}"#,
    r#"{"password":"p","metadata":{"user":"u","more":1},"trace":"t1","level":"warn","a":{"b":"xxx"}}"#,
    r#"{"message":"Authorization: Bearer abcdefghijklmnop.qrstuvwxyz","AKIAIOSFODNN7EXAMPLE":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"}"#,
    "no json: jo@example.org, 4111-1111-1111-1111",
];

/// Inputs by the name of their target.
pub fn seeds() -> io::Result<Vec<(&'static str, Vec<Vec<u8>>)>> {
    Ok(vec![
        ("body", picked(3, &BODIES)),
        ("encoded", encoded()?),
        ("entry", entries()?),
        ("footer", footers()?),
        ("cursor", cursors()),
        ("query", QUERIES.map(|query| query.as_bytes().to_vec()).into()),
        ("stages", picked(u8::try_from(super::PIPELINES.len()).unwrap_or(u8::MAX), &LINES)),
    ])
}

/// Each text behind each of so many first bytes.
fn picked(picks: u8, texts: &[&str]) -> Vec<Vec<u8>> {
    let text = |pick: u8, text: &&str| [[pick].as_slice(), text.as_bytes()].concat();
    (0..picks).flat_map(|pick| texts.iter().map(move |it| text(pick, it))).collect()
}

/// Bodies as clients compress them, and two frames behind each other.
fn encoded() -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    for body in BODIES.map(str::as_bytes) {
        let (mut gzip, mut frame) = (vec![0], vec![1]);
        GzEncoder::new(body, Compression::fast()).read_to_end(&mut gzip)?;
        frame.extend(zstd::encode_all(body, 1)?);
        let twice = |frame: &[u8]| [frame, &frame[1..]].concat();
        inputs.extend([twice(&gzip), twice(&frame), gzip, frame]);
    }
    Ok(inputs)
}

/// Entries of one and of two batches, with each kind of event.
fn entries() -> io::Result<Vec<Vec<u8>>> {
    let raw = BODIES.concat();
    let header = Header { batches: vec![batch(1, &BODIES[..3]), batch(2, &BODIES[3..])] };
    let one = Header { batches: vec![batch(1, &[&raw])] };
    let mut inputs = Vec::new();
    for header in [header, one] {
        let header = postcard::to_stdvec(&header).map_err(io::Error::other)?;
        let length = u16::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes();
        let frame = zstd::bulk::compress(raw.as_bytes(), 1)?;
        inputs.push([[0].as_slice(), &length, &header, &frame].concat());
        inputs.push([[1].as_slice(), &length, &header, raw.as_bytes()].concat());
    }
    Ok(inputs)
}

fn batch(id: u128, lines: &[&str]) -> BatchHeader {
    let rejections = [
        None,
        Some(Rejection::InvalidJson),
        Some(Rejection::TooDeep),
        Some(Rejection::TooLarge),
        Some(Rejection::TooManyFields),
    ];
    let events = lines.iter().zip(rejections.into_iter().cycle());
    let events = events.map(|(line, rejected)| EventHeader {
        length: u32::try_from(line.len()).unwrap_or(u32::MAX),
        time: rejected.is_none().then_some(NOW),
        rejected,
    });
    BatchHeader {
        batch_id: Uuid::from_u128(id),
        accepted_at: NOW,
        key_id: "k".to_owned(),
        body_hash: (id == 1).then_some([7; 32]),
        events: events.collect(),
    }
}

fn footers() -> io::Result<Vec<Vec<u8>>> {
    let batches = [batch(1, &BODIES[..3]), batch(2, &BODIES[3..])].map(|batch| {
        let BatchHeader { batch_id, accepted_at, key_id, body_hash, events } = batch;
        FooterBatch { batch_id, accepted_at, key_id, body_hash, raw_start: 0, events }
    });
    let footer = Footer {
        version: 1,
        tenant: "acme".to_owned(),
        frames: vec![(262_144, 50_000, 1), (1000, 500, 2)],
        accepted: (NOW, NOW),
        batches: batches.into(),
    };
    let footer = postcard::to_stdvec(&footer).map_err(io::Error::other)?;
    let frame = zstd::bulk::compress(&footer, 1)?;
    Ok(vec![[[0].as_slice(), &frame].concat(), [[1].as_slice(), &footer].concat()])
}

fn cursors() -> Vec<Vec<u8>> {
    let cursor = Cursor { time: NOW, event_id: Uuid::from_u128(7) };
    let bytes = [NOW.to_be_bytes().as_slice(), cursor.event_id.as_bytes()].concat();
    vec![cursor.encode(Asked::default()).into_bytes(), bytes]
}
