//! What a live tail sends: JSON text frames, and a close frame that says why it ends.

use std::sync::OnceLock;

use api::tail::{Ending, Frame, NoticeCode};
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use query::matches::Subject;
use serde::Deserialize;
use stages::Map;
use uuid::Uuid;

/// One event on its way to the sockets.
#[derive(Debug)]
pub struct TailEvent {
    /// The event's id.
    pub id: Uuid,
    /// Its service, to filter by.
    pub service: String,
    /// Its level, to filter by.
    pub level: String,
    /// The whole frame.
    pub frame: Utf8Bytes,
    /// The event as a query is asked of it: made for the first socket that has one, and the same for all of them.
    subject: OnceLock<Option<Subject<'static>>>,
}

impl TailEvent {
    /// An event and its frame.
    pub fn new(id: Uuid, service: String, level: String, frame: Utf8Bytes) -> Self {
        Self { id, service, level, frame, subject: OnceLock::new() }
    }

    /// The event as a query is asked of it; `None` if its frame can't be read.
    pub(super) fn subject(&self) -> Option<&Subject<'static>> {
        let subject = || {
            let event = said(&self.frame)?;
            let time = event.time.unwrap_or_default();
            Some(Subject::owned(event, time))
        };
        self.subject.get_or_init(subject).as_ref()
    }

    /// The event in the frame, with the time that is shown; `None` if it can't be read.
    pub(super) fn said(&self) -> Option<stages::Event> {
        said(&self.frame)
    }
}

/// What a processor publishes of an event, as far as a query looks at it.
#[derive(Deserialize)]
struct Published {
    service: String,
    level: String,
    message: String,
    timestamp: Option<String>,
    application: Option<String>,
    full_log: Option<String>,
    language: Option<String>,
    metadata: Option<Map>,
    attributes: Option<Map>,
}

/// The event in a frame, with the time that is shown; `None` if it can't be read.
fn said(frame: &str) -> Option<stages::Event> {
    let Ok(Some(Frame::Event { event })) = Frame::<Published>::read(frame) else {
        tracing::warn!("an event of the live tail can't be read");
        return None;
    };
    let Published { service, level, message, timestamp, application, full_log, language, metadata, attributes } = event;
    let time = timestamp.as_deref().and_then(stages::time::parse_text);
    Some(stages::Event { time, level, service, application, message, full_log, language, metadata, attributes })
}

/// The close frame of a tail that ends.
pub(super) fn close(ending: Ending) -> Message {
    Message::Close(Some(CloseFrame { code: ending.code(), reason: Utf8Bytes::from_static(ending.reason()) }))
}

/// Said once the tail is in place: what is stored from now on will be shown.
pub(super) fn ready() -> Message {
    text(Frame::Ready)
}

/// Said when the reader was too slow for `count` events, before any filter.
pub(super) fn dropped(count: u64) -> Message {
    text(Frame::Dropped { count })
}

/// Said when the source of the tail goes away or comes back.
pub(super) fn notice(code: NoticeCode, message: &'static str) -> Message {
    text(Frame::Notice { code, message: message.into() })
}

/// A frame that holds no event, its fields in the order of their names.
fn text(frame: Frame<()>) -> Message {
    Message::Text(serde_json::to_value(frame).unwrap_or_default().to_string().into())
}

/// What a frame begins with that holds an event.
pub(super) const BEFORE_EVENT: &str = r#"{"type":"event","event":"#;

#[derive(Deserialize)]
struct Known {
    id: Uuid,
    service: String,
    level: String,
}

/// The events in one entry of a tail's stream: a zstd frame of JSON lines. A line that can't be
/// read is left out: the tail is a view, the catalog has the event.
pub(super) fn events(compressed: &[u8]) -> std::io::Result<Vec<TailEvent>> {
    let lines = Bytes::from(zstd::bulk::decompress(compressed, MAX_ENTRY_BYTES)?);
    Ok(lines.split(|byte| *byte == b'\n').filter_map(event).collect())
}

/// Most bytes of one entry's lines: the processor ends it after 1 MiB, with an event of up to 1 MiB,
/// escaped.
const MAX_ENTRY_BYTES: usize = 8 * 1024 * 1024;

fn event(line: &[u8]) -> Option<TailEvent> {
    let line = str::from_utf8(line).ok()?;
    let Known { id, service, level } = serde_json::from_str(line).ok()?;
    Some(TailEvent::new(id, service, level, frame(line)))
}

/// The frame of an event as it was published.
pub(super) fn frame(event: &str) -> Utf8Bytes {
    format!("{BEFORE_EVENT}{event}}}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_taken_apart_into_frames() {
        let id = Uuid::from_u128(7);
        let line = format!(r#"{{"id":"{id}","service":"api","level":"WARN","message":"hi"}}"#);
        let entry = zstd::encode_all(format!("{line}\nnonsense\n{line}\n").as_bytes(), 1).unwrap();
        let events = events(&entry).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].id, events[0].service.as_str(), events[0].level.as_str()), (id, "api", "WARN"));
        assert_eq!(events[0].frame.as_str(), format!(r#"{{"type":"event","event":{line}}}"#));
        assert!(super::events(b"nonsense").is_err());
    }

    #[test]
    fn a_query_means_of_what_is_published_what_it_means_of_the_event() {
        let line = r#"{"message": "Connection reset by peer", "level": "warning", "service": "api", "application": "shop",
            "full_log": "Connection reset by peer\n at Foo.bar", "metadata": {"user": {"id": 42}, "wei": 12345678901234567890123},
            "trace_id": "abc", "status": 503, "timestamp": "2026-01-31T12:00:00.123456Z"}"#;
        let event = stages::event(line.as_bytes(), 1_769_862_896_000_000).unwrap();
        let of_event = Subject::new(&event, event.time.unwrap());
        let shown = crate::event::shown("acme", Uuid::nil(), 1_769_862_896_000_000, Uuid::nil(), &event);
        let published = super::event(serde_json::to_string(&shown).unwrap().as_bytes()).unwrap();
        let of_published = published.subject().unwrap();
        for (query, expected) in [
            ("reset", true),
            ("foo bar", true),
            ("\"by peer at\"", true),
            ("gone", false),
            ("level:>=warn service:api application:shop", true),
            ("metadata.user.id:42", true),
            ("wei:12345678901234567890123", true),
            ("status:>=500", true),
            ("status:500..502", false),
            ("@trace_id:ab*", true),
            ("-language:*", true),
        ] {
            let query = query::parse(query).unwrap();
            assert_eq!((of_event.matches(&query), of_published.matches(&query)), (expected, expected), "{query}");
        }
    }

    #[test]
    fn frames_say_their_type() {
        for (message, text) in [
            (ready(), r#"{"type":"ready"}"#),
            (dropped(5), r#"{"count":5,"type":"dropped"}"#),
            (notice(NoticeCode::TailInterrupted, "m"), r#"{"code":"tail_interrupted","message":"m","type":"notice"}"#),
        ] {
            assert_eq!(message.to_text().unwrap(), text);
        }
        let Message::Close(Some(close)) = close(Ending::Stopping) else { panic!("a close frame") };
        assert_eq!((close.code, close.reason.as_str()), (1001, "server_stopping"));
    }
}
