//! Doors for the fuzz targets in `fuzz/`: one for each decoder of bytes that come from outside, with
//! what must hold of whatever it makes of them. Built for fuzzing only.

use axum::http::HeaderMap;

use crate::ingest::fuzzing as ingest;
use crate::queue::entry::Entry;
use crate::search::cursor::Cursor;
use crate::search::query;
use crate::stores::archive::fuzzing as archive;
use crate::stores::batch::{Treatment, map};

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

/// The header and the frame of a queue entry; the first two bytes say where one ends.
pub fn entry(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (header, frame) = rest.split_at((u16::from_le_bytes(*length) as usize).min(rest.len()));
    let field = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    let fields = vec![field(b"v", b"1"), field(b"t", b"acme"), field(b"h", header), field(b"p", frame)];
    if let Ok(entry) = Entry::decode(fields) {
        let batches = map(&entry.header, &entry.raw, Treatment::Process);
        let lines: usize = entry.header.batches.iter().map(|batch| batch.events.len()).sum();
        let places = batches.iter().map(|batch| batch.events.len() + batch.dead_letters.len() + batch.dropped.len());
        assert_eq!(lines, places.sum(), "each line is an event or a dead letter, or was dropped");
    }
}

/// An object's last bytes. The checksum is made right, or no run would ever get past it.
pub fn footer(bytes: &[u8]) {
    archive::read_footer(bytes);
}

/// A cursor: what can be read is written the same way.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::decode(text) {
        assert_eq!(cursor.encode(), text);
    }
}

/// A query and what OpenSearch would be asked.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(query) = query::parse(text) {
        crate::search::fuzzing::compile(query);
    }
}
