//! The forms of an export: each event as bytes, and the line that ends it.

use std::borrow::Cow;

use api::export::{Exported, LastLine, Summary};
use api::parameters::Format;
use serde::Serialize;

/// The columns of a CSV: what people read first stands first.
const COLUMNS: [&str; 13] = [
    "timestamp",
    "level",
    "service",
    "application",
    "message",
    "full_log",
    "language",
    "metadata",
    "attributes",
    "id",
    "accepted_at",
    "batch_id",
    "flags",
];
/// What the line begins with that ends a CSV or a text.
const END: &str = "# export";

/// The form's media type, and its files' usual ending.
pub(super) fn media_type(format: Format) -> &'static str {
    match format {
        Format::Ndjson => "application/x-ndjson",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Text => "text/plain; charset=utf-8",
    }
}

/// What stands before the first event.
pub(super) fn begin(format: Format, into: &mut Vec<u8>) {
    if format == Format::Csv {
        record(&COLUMNS.map(Cow::Borrowed), true, into);
    }
}

/// One event. `raw` leaves a CSV's cells as they are.
pub(super) fn event(format: Format, raw: bool, event: &Exported, into: &mut Vec<u8>) {
    match format {
        Format::Ndjson => {
            json(event, into);
            into.push(b'\n');
        }
        Format::Csv => record(&cells(event), raw, into),
        Format::Text => {
            let item = &event.item;
            let head = format!("{} {:<5} {} ", item.timestamp, item.level, item.service);
            into.extend(head.as_bytes());
            match &event.full_log {
                None => into.extend(item.message.as_bytes()),
                Some(full) if full.starts_with(&item.message) => into.extend(full.as_bytes()),
                Some(full) => {
                    into.extend(item.message.as_bytes());
                    into.push(b'\n');
                    into.extend(full.as_bytes());
                }
            }
            into.push(b'\n');
        }
    }
}

/// The line that ends it. In a CSV it is a record with as many cells as every other.
pub(super) fn end(format: Format, summary: Summary, into: &mut Vec<u8>) {
    let mut line = Vec::new();
    json(&LastLine { export: summary }, &mut line);
    match format {
        Format::Ndjson => into.extend(line),
        Format::Csv => {
            let mut cells = [const { Cow::Borrowed("") }; COLUMNS.len()];
            cells[0] = END.into();
            cells[1] = String::from_utf8_lossy(&line).into_owned().into();
            return record(&cells, true, into);
        }
        Format::Text => {
            into.extend(END.as_bytes());
            into.push(b' ');
            into.extend(line);
        }
    }
    into.push(b'\n');
}

fn cells(event: &Exported) -> [Cow<'_, str>; COLUMNS.len()] {
    let Exported { item, full_log, metadata, attributes, complete: _ } = event;
    let or_none = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let map = |map: &Option<stages::Map>| map.as_ref().map(text).unwrap_or_default();
    [
        item.timestamp.as_str().into(),
        item.level.as_str().into(),
        item.service.as_str().into(),
        or_none(&item.application).into(),
        item.message.as_str().into(),
        full_log.as_deref().unwrap_or_default().into(),
        or_none(&item.language).into(),
        map(metadata).into(),
        map(attributes).into(),
        item.id.to_string().into(),
        item.accepted_at.as_str().into(),
        item.batch_id.to_string().into(),
        item.flags.join(" ").into(),
    ]
}

/// A record as RFC 4180 has it.
fn record(cells: &[Cow<'_, str>], raw: bool, into: &mut Vec<u8>) {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            into.push(b',');
        }
        let guarded = !raw && is_formula(cell);
        let quoted = guarded || cell.contains([',', '"', '\r', '\n']);
        if quoted {
            into.push(b'"');
        }
        if guarded {
            into.push(b'\'');
        }
        if quoted {
            into.extend(cell.replace('"', "\"\"").as_bytes());
            into.push(b'"');
        } else {
            into.extend(cell.as_bytes());
        }
    }
    into.extend(b"\r\n");
}

/// Whether a spreadsheet would take a cell for a formula, and run it: the sender of a log must not run anything on its
/// reader's machine.
pub(in crate::search) fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'])
}

fn text(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    json(value, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Values of ours can't fail to be written.
fn json(value: &impl Serialize, into: &mut Vec<u8>) {
    if let Err(error) = serde_json::to_writer(into, value) {
        tracing::error!(%error, "write a line of an export");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn exported(message: &str, full_log: Option<&str>) -> Exported {
        let metadata = serde_json::from_str(r#"{"wei":12345678901234567890123,"p":1.10}"#).unwrap();
        Exported {
            item: api::event::Item {
                id: Uuid::nil(),
                timestamp: "t".into(),
                accepted_at: "a".into(),
                tenant: "acme".into(),
                service: "api".into(),
                application: None,
                level: "WARN".into(),
                message: message.into(),
                language: None,
                batch_id: Uuid::nil(),
                raw_path: None,
                indexed: true,
                flags: vec!["time_of_acceptance".into()],
            },
            full_log: full_log.map(str::to_owned),
            metadata: Some(metadata),
            attributes: None,
            complete: true,
        }
    }

    fn written(format: Format, raw: bool, of: &Exported) -> String {
        let mut bytes = Vec::new();
        event(format, raw, of, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_json_reads_back_with_all_digits() {
        let line = written(Format::Ndjson, false, &exported("m\n2", None));
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
        assert!(line.contains(r#""metadata":{"p":1.10,"wei":12345678901234567890123}"#), "{line}");
        assert!(!line.contains("complete"), "{line}");
        assert_eq!(serde_json::from_str::<Exported>(&line).unwrap(), exported("m\n2", None));
    }

    #[test]
    fn a_record_has_its_cells_whatever_they_hold_and_runs_nothing() {
        for (message, raw, cell) in [
            ("plain", false, "plain"),
            ("a, \"b\"\nc", false, "\"a, \"\"b\"\"\nc\""),
            ("=cmd|' /C calc'!A0", false, "\"'=cmd|' /C calc'!A0\""),
            ("-1", false, "\"'-1\""),
            ("@SUM(1)", false, "\"'@SUM(1)\""),
            ("=1+1", true, "=1+1"),
            ("a=b", false, "a=b"),
        ] {
            let expected = format!(
                "t,WARN,api,,{cell},,,\"{{\"\"p\"\":1.10,\"\"wei\"\":12345678901234567890123}}\",,{id},a,{id},time_of_acceptance\r\n",
                id = Uuid::nil(),
            );
            assert_eq!(written(Format::Csv, raw, &exported(message, None)), expected, "{message}");
        }
    }

    #[test]
    fn a_text_has_the_whole_text_once() {
        for (message, full_log, expected) in [
            ("m", None, "t WARN  api m\n"),
            ("m", Some("m and more\nlines"), "t WARN  api m and more\nlines\n"),
            ("m", Some("other"), "t WARN  api m\nother\n"),
        ] {
            assert_eq!(written(Format::Text, false, &exported(message, full_log)), expected);
        }
    }

    #[test]
    fn the_last_line_says_whether_that_is_all() {
        let summary = Summary { events: 2, complete: false, next_cursor: Some("c".into()), notice: Some("why".into()) };
        let json = r#"{"export":{"events":2,"complete":false,"next_cursor":"c","notice":"why"}}"#;
        for (format, expected) in [
            (Format::Ndjson, format!("{json}\n")),
            (Format::Text, format!("# export {json}\n")),
            (Format::Csv, format!("# export,\"{}\",,,,,,,,,,,\r\n", json.replace('"', "\"\""))),
        ] {
            let mut bytes = Vec::new();
            end(format, summary.clone(), &mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
        let mut head = Vec::new();
        begin(Format::Csv, &mut head);
        assert_eq!(head.iter().filter(|byte| **byte == b',').count(), COLUMNS.len() - 1);
    }
}
