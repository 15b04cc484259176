//! What the pipeline's stages make of an entry, before anything of it is stored.
//!
//! The entry keeps its form: each line gives way to the one that is to be stored, and a dropped one to
//! nothing, in its place. So the spool, the archive and whoever reads them later see lines as ever,
//! and no event has another id than it would have without stages.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use stages::{Pipeline, Rewritten};
use uuid::Uuid;

use crate::event::{EventIds, Micros};
use crate::queue::entry::{Entry, EventHeader};

/// zstd's fastest ordinary level, as the entry was compressed with.
const COMPRESSION_LEVEL: i32 = 1;

/// The entry as it is to be stored.
pub(super) fn staged(pipeline: &Pipeline, entry: Entry) -> io::Result<Entry> {
    let mut header = entry.header.clone();
    let mut raw = Vec::with_capacity(entry.raw.len());
    for (batch, (sent, lines)) in header.batches.iter_mut().zip(entry.batches()) {
        let ids = EventIds::new(sent.batch_id, sent.accepted_at);
        let kept = sent.lines(lines).zip(0..).map(|((event, line), position)| {
            let stored = stored(pipeline, sent.accepted_at, event, line, ids.at(position));
            raw.extend_from_slice(&stored);
            // A line is at most 1 MiB, and becomes at most some more than twice that.
            EventHeader { length: u32::try_from(stored.len()).unwrap_or(u32::MAX), ..event.clone() }
        });
        batch.events = kept.collect();
    }
    if raw == entry.raw {
        return Ok(entry);
    }
    let frame = zstd::bulk::compress(&raw, COMPRESSION_LEVEL)?;
    Ok(Entry { tenant: entry.tenant, header, frame, raw })
}

/// What is stored of a line; nothing if it is dropped.
fn stored<'a>(
    pipeline: &'a Pipeline,
    accepted_at: Micros,
    event: &EventHeader,
    line: &'a [u8],
    id: Uuid,
) -> Cow<'a, [u8]> {
    let rewritten = catch_unwind(AssertUnwindSafe(|| match event.rejected {
        Some(_) => Rewritten::Line(pipeline.conceal(line)),
        None => pipeline.rewrite(line, accepted_at, id.as_u128()),
    }));
    match rewritten {
        Ok(Rewritten::Line(line)) => line,
        Ok(Rewritten::Dropped { .. }) => Cow::Borrowed(&[]),
        Err(_) => pipeline.unprocessed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::event_id;
    use crate::queue::entry::{BatchHeader, Header, Rejection};
    use crate::stores::batch::{Treatment, map};
    use serde_json::json;

    const ACCEPTED: i64 = 1_767_323_045_000_000;

    fn entry(lines: &[&str]) -> Entry {
        let event = |line: &&str| EventHeader {
            length: line.len() as u32,
            time: None,
            rejected: (!line.starts_with('{')).then_some(Rejection::InvalidJson),
        };
        let batch = |id, lines: &[&str]| BatchHeader {
            batch_id: Uuid::from_u128(id),
            accepted_at: ACCEPTED,
            key_id: "k".into(),
            body_hash: None,
            events: lines.iter().map(event).collect(),
        };
        let header = Header { batches: vec![batch(1, &lines[..1]), batch(2, &lines[1..])] };
        let raw = lines.concat().into_bytes();
        Entry { tenant: "acme".parse().unwrap(), header, frame: zstd::bulk::compress(&raw, 1).unwrap(), raw }
    }

    fn pipeline(stages: serde_json::Value) -> Pipeline {
        Pipeline::compile(&serde_json::from_value::<Vec<stages::Stage>>(stages).unwrap()).unwrap()
    }

    #[test]
    fn every_line_gives_way_to_what_is_stored_of_it() {
        let pipeline = pipeline(json!([
            {"name": "debug", "match": {"levels": ["debug"]}, "drop": {}},
            {"name": "mail", "redact": {"detectors": ["Email"]}},
        ]));
        let lines = [
            r#"{"level":"debug","message":"a@example.com"}"#,
            r#"{"level":"debug"}"#,
            r#"{"message":"to a@example.com"}"#,
            "broken a@example.com",
            r#"{"level":"debug"}"#,
            r#"{"message":"b"}"#,
        ];
        let staged = staged(&pipeline, entry(&lines)).unwrap();
        assert_eq!(String::from_utf8_lossy(&staged.raw), r#"{"message":"to [email]"}broken [email]{"message":"b"}"#);
        assert_eq!(zstd::decode_all(staged.frame.as_slice()).unwrap(), staged.raw);
        let batches = map(&staged.header, &staged.raw, Treatment::Process);
        let counts: Vec<_> = batches.iter().map(|b| (b.events.len(), b.dead_letters.len(), b.dropped.len())).collect();
        assert_eq!(counts, [(0, 0, 1), (2, 1, 2)]);
        let ids: Vec<Uuid> = batches[1].events.iter().map(|event| event.id).collect();
        assert_eq!(ids, [1, 4].map(|position| event_id(Uuid::from_u128(2), ACCEPTED, position)));
        assert_eq!(batches[1].dead_letters[0].code, "invalid_json");
    }

    #[test]
    fn an_entry_that_no_stage_changes_stays_as_it_came() {
        let pipeline = pipeline(json!([{"name": "read", "parse": {"format": "Json"}}]));
        let sent = entry(&[r#"{ "message": "a" }"#, r#"{"message":"b"}"#, "broken"]);
        assert_eq!(staged(&pipeline, sent.clone()).unwrap(), sent);
    }
}
