//! `export`: a tenant's events whole, as many as there are.

use anyhow::{Context, bail};
use api::export::{LastLine, Summary};
use api::parameters::{Export, Format, MAX_EXPORT};
use api::routes;
use crds::tenant::Scope;
use serde::Deserialize;
use uuid::Uuid;

use crate::args::{ApiArgs, ExportArgs, Global, Output, SearchArgs};
use crate::door::Door;
use crate::output;
use crate::search::{choice, ordered, query, span_of, with_query};

/// Times that an export which broke off goes on by itself.
const TRIES: u32 = 5;

/// Writes all of them, in as many requests as it takes.
pub async fn run(global: &Global, args: ExportArgs) -> anyhow::Result<()> {
    let asked = Export {
        q: query(&args.events),
        format: Some(format(global.output)),
        cursor: args.time.cursor.clone(),
        raw: args.raw.then_some(true),
        ordered: ordered(&args.time),
        span: span_of(&args.time),
        events: choice(&args.events),
        ..Export::default()
    };
    let door = open(global, &args.api, &args.tenant).await?;
    let summary = write(&door, asked, args.limit).await?;
    eprintln!("{} events", summary.events);
    match (summary.complete, summary.next_cursor, summary.notice) {
        (true, ..) => Ok(()),
        (false, Some(cursor), _) if args.limit == Some(summary.events) => {
            eprintln!("there are more: --cursor {cursor}");
            Ok(())
        }
        (false, _, notice) => {
            bail!("this is not all: {}", output::harmless(notice.as_deref().unwrap_or("no reason came")))
        }
    }
}

/// Writes what a search finds, up to its limit.
pub(crate) async fn some(global: &Global, args: SearchArgs) -> anyhow::Result<()> {
    let asked = Export {
        q: query(&args.events),
        format: Some(format(global.output)),
        cursor: args.time.cursor.clone(),
        ordered: ordered(&args.time),
        span: span_of(&args.time),
        events: choice(&args.events),
        ..Export::default()
    };
    let door = open(global, &args.api, &args.tenant).await?;
    let summary = write(&door, asked, Some(args.limit.into())).await?;
    match (summary.next_cursor, summary.notice) {
        (Some(cursor), _) => eprintln!("there are more: --cursor {cursor}"),
        (None, Some(notice)) => eprintln!("note: {}", output::harmless(&notice)),
        (None, None) => {}
    }
    Ok(())
}

async fn open(global: &Global, api: &ApiArgs, tenant: &crds::TenantName) -> anyhow::Result<Door> {
    Door::open(global, api, tenant, Scope::Query).await
}

fn format(output: Output) -> Format {
    match output {
        Output::Table | Output::Json | Output::Ndjson => Format::Ndjson,
        Output::Csv => Format::Csv,
        Output::Text => Format::Text,
    }
}

/// Writes events until there are no more, or `limit`, and says what was written in all.
async fn write(door: &Door, mut asked: Export, limit: Option<u64>) -> anyhow::Result<Summary> {
    let format = asked.format.unwrap_or_default();
    let (mut events, mut broken, mut notice, mut goes_on) = (0, 0, None, false);
    loop {
        let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(events));
        asked.limit = Some(left.min(MAX_EXPORT));
        let part = part(door, &asked, goes_on).await?;
        events += part.events;
        goes_on = true;
        match part.end {
            Ok(end) => {
                notice = notice.or(end.notice);
                let is_all = end.next_cursor.is_none() || limit.is_some_and(|limit| events >= limit);
                // A part without events ends early for another reason than its limit.
                if is_all || end.events == 0 {
                    let complete = end.complete && notice.is_none();
                    return Ok(Summary { events, complete, next_cursor: end.next_cursor, notice });
                }
                // It goes on, so this was no end.
                notice = None;
                (asked.cursor, asked.after) = (end.next_cursor, None);
            }
            Err(error) => {
                broken += 1;
                let Some(last) = part.last.filter(|_| format == Format::Ndjson && broken < TRIES) else {
                    return Err(error.context(format!("the export broke off after {events} events")));
                };
                eprintln!("the export broke off ({error:#}); going on");
                (asked.cursor, asked.after) = (None, Some(last));
            }
        }
    }
}

/// What came of one request.
struct Part {
    events: u64,
    /// The last event, where the form says its id.
    last: Option<Uuid>,
    /// The last line, or why there is none.
    end: anyhow::Result<Summary>,
}

async fn part(door: &Door, asked: &Export, goes_on: bool) -> anyhow::Result<Part> {
    let format = asked.format.unwrap_or_default();
    let mut download = door.download(&with_query(routes::EXPORT, asked)).await?;
    let mut lines = Lines::new(goes_on && format == Format::Csv);
    let broken = loop {
        match download.chunk().await {
            Ok(Some(bytes)) => output::bytes(lines.push(&bytes))?,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let (held, count) = (String::from_utf8_lossy(&lines.held).into_owned(), lines.count);
    match (broken, last_line(format, &held)) {
        (None, Some(end)) => Ok(Part { events: end.events, last: None, end: Ok(end) }),
        (broken, _) => {
            // What is held was not written: a whole line of it is an event.
            let (events, last) = match held.strip_suffix('\n').and_then(id) {
                Some(id) => {
                    output::text(&held)?;
                    (count + 1, Some(id))
                }
                None => (count, lines.written.as_deref().and_then(id)),
            };
            let error = broken.unwrap_or_else(|| anyhow::anyhow!("its last line is missing"));
            Ok(Part { events, last, end: Err(error) })
        }
    }
}

/// The id of an event in a line of JSON.
fn id(line: &str) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Named {
        id: Uuid,
    }
    serde_json::from_str::<Named>(line).ok().map(|named| named.id)
}

/// The last line of an export, if this is one.
fn last_line(format: Format, line: &str) -> Option<Summary> {
    let line = line.trim_end();
    let json = match format {
        Format::Ndjson => line.to_owned(),
        Format::Text => line.strip_prefix("# export ")?.to_owned(),
        Format::Csv => {
            let cell = line.strip_prefix("# export,\"")?.trim_end_matches(',').strip_suffix('"')?;
            cell.replace("\"\"", "\"")
        }
    };
    serde_json::from_str::<LastLine>(&json).context("the last line").ok().map(|last| last.export)
}

/// Bytes on their way, all but the last line that has come: it may be the one that is not the caller's.
struct Lines {
    held: Vec<u8>,
    out: Vec<u8>,
    /// The last line that was given out.
    written: Option<String>,
    count: u64,
    skips: bool,
}

impl Lines {
    /// `skips` leaves the first line out: a header that was written before.
    fn new(skips: bool) -> Self {
        Self { held: Vec::new(), out: Vec::new(), written: None, count: 0, skips }
    }

    /// Takes bytes, and gives those that can be written.
    fn push(&mut self, bytes: &[u8]) -> &[u8] {
        self.held.extend(bytes);
        self.out.clear();
        let searched = self.held.strip_suffix(b"\n").unwrap_or(&self.held);
        if let Some(end) = searched.iter().rposition(|byte| *byte == b'\n') {
            self.out.extend(self.held.drain(..=end));
            if std::mem::take(&mut self.skips)
                && let Some(first) = self.out.iter().position(|byte| *byte == b'\n')
            {
                self.out.drain(..=first);
            }
            let whole = self.out.strip_suffix(b"\n").unwrap_or(&self.out);
            self.count += self.out.iter().filter(|byte| **byte == b'\n').count() as u64;
            let last = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.written = Some(String::from_utf8_lossy(&whole[last..]).into_owned());
        }
        &self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(skips: bool, chunks: &[&str]) -> (String, String) {
        let mut lines = Lines::new(skips);
        let mut all = Vec::new();
        for chunk in chunks {
            all.extend(lines.push(chunk.as_bytes()));
        }
        (String::from_utf8(all).unwrap(), String::from_utf8(lines.held).unwrap())
    }

    #[test]
    fn all_but_the_last_line_is_written_however_it_comes() {
        for chunks in [&["a\nb\nend\n"][..], &["a", "\n", "b\ne", "nd", "\n"], &["a\nb\n", "end\n"]] {
            assert_eq!(written(false, chunks), ("a\nb\n".to_owned(), "end\n".to_owned()), "{chunks:?}");
            assert_eq!(written(true, chunks), ("b\n".to_owned(), "end\n".to_owned()), "{chunks:?}");
        }
        assert_eq!(written(false, &["end\n"]), (String::new(), "end\n".to_owned()));
        assert_eq!(written(false, &["a\nen"]), ("a\n".to_owned(), "en".to_owned()), "cut off");
    }

    #[test]
    fn the_last_line_is_known_in_every_form() {
        let json = r#"{"export":{"events":2,"complete":false,"next_cursor":"c","notice":"why"}}"#;
        let expected =
            Summary { events: 2, complete: false, next_cursor: Some("c".into()), notice: Some("why".into()) };
        for (format, line) in [
            (Format::Ndjson, format!("{json}\n")),
            (Format::Text, format!("# export {json}\n")),
            (Format::Csv, format!("# export,\"{}\",,,,,,,,,,,\r\n", json.replace('"', "\"\""))),
        ] {
            assert_eq!(last_line(format, &line).as_ref(), Some(&expected), "{line}");
        }
        assert_eq!(last_line(Format::Ndjson, "{\"id\":\"x\"}\n"), None);
    }
}
