//! What a live tail sends: text frames of JSON, and a close frame that says why it ends.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stages::Map;
use uuid::Uuid;

/// The subprotocol of the live tail, which a browser has to offer beside its key to be answered at all.
pub const PROTOCOL: &str = "loggerhub";
/// What the subprotocol begins with that carries a browser's key: a page can set no header of a WebSocket.
pub const KEY_PROTOCOL: &str = "loggerhub.key.";

/// One text frame. `E` is the event: to write, to read, or as the text that it came as.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schemars(rename = "Frame", description = "One text frame of a live tail.")]
pub enum Frame<E> {
    /// The tail is in place: what is stored from now on is shown.
    Ready,
    /// An event was stored.
    Event {
        /// The event.
        event: E,
    },
    /// Events were left out, before any filter.
    Dropped {
        /// How many.
        count: u64,
    },
    /// The source of the tail went away or came back.
    Notice {
        /// For programs.
        code: NoticeCode,
        /// For people.
        message: Cow<'static, str>,
    },
}

/// What was stored after an event, in the order of storing: what a gateway shows before the live part. `E` is the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored<E> {
    /// Those that match.
    pub events: Vec<E>,
    /// Where to go on; `None` if that was all.
    pub next: Option<String>,
}

/// What a notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeCode {
    /// Events are passing unseen; the tail goes on by itself.
    TailInterrupted,
    /// The tail goes on; events between may be missing.
    TailResumed,
    /// Of what was stored after `after`, not all was shown.
    HistoryCut,
}

/// Why a tail ends. Codes from 4000 are the program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The server stops; another one answers.
    Stopping,
    /// The key was revoked or has lost its scope, or the tenant leaves.
    KeyRefused,
    /// The client didn't answer pings.
    Idle,
    /// The client read nothing for too long.
    TooSlow,
}

/// An event as it was just stored: `raw_path` is null and `indexed` false, for neither is known yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TailEvent")]
pub struct TailEvent<'a> {
    /// The event's id.
    pub id: Uuid,
    /// When it happened.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: String,
    /// When it was accepted.
    #[schemars(extend("format" = "date-time"))]
    pub accepted_at: String,
    /// Whose it is.
    pub tenant: Cow<'a, str>,
    /// What sent it.
    pub service: Cow<'a, str>,
    /// The application that the service belongs to.
    pub application: Option<Cow<'a, str>>,
    /// Its level.
    pub level: Cow<'a, str>,
    /// The first 500 characters of its message.
    pub message: Cow<'a, str>,
    /// The whole text, where it is more than the message.
    pub full_log: Option<Cow<'a, str>>,
    /// Programming or human language.
    pub language: Option<Cow<'a, str>>,
    /// What the client sent as `metadata`.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub metadata: Option<Cow<'a, Map>>,
    /// Fields that LoggerHub has no name for.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub attributes: Option<Cow<'a, Map>>,
    /// The request that brought it.
    pub batch_id: Uuid,
    /// Where its raw bytes are.
    pub raw_path: Option<String>,
    /// Whether full-text search can find it.
    pub indexed: bool,
    /// Remarks: `time_of_acceptance`.
    pub flags: Vec<Cow<'a, str>>,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stopping, Self::KeyRefused, Self::Idle, Self::TooSlow];

    /// The code of the close frame.
    pub const fn code(self) -> u16 {
        match self {
            Self::Stopping => 1001,
            Self::KeyRefused => 4401,
            Self::Idle => 4408,
            Self::TooSlow => 4429,
        }
    }

    /// The reason in the close frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Stopping => "server_stopping",
            Self::KeyRefused => "key_refused",
            Self::Idle => "idle",
            Self::TooSlow => "too_slow",
        }
    }
}

impl<E> Frame<E> {
    /// Reads a frame; `None` is one of a kind that this version does not know, to be passed over.
    pub fn read<'a>(text: &'a str) -> serde_json::Result<Option<Self>>
    where
        E: Deserialize<'a>,
    {
        // An enum with a tag would be buffered, and an event must stay as it was written, digits and all.
        #[derive(Deserialize)]
        struct Parts<'a, E> {
            r#type: Cow<'a, str>,
            #[serde(default = "Option::default")]
            event: Option<E>,
            count: Option<u64>,
            code: Option<NoticeCode>,
            message: Option<String>,
        }
        let parts: Parts<'a, E> = serde_json::from_str(text)?;
        let missing = serde::de::Error::missing_field;
        Ok(Some(match &*parts.r#type {
            "ready" => Self::Ready,
            "event" => Self::Event { event: parts.event.ok_or_else(|| missing("event"))? },
            "dropped" => Self::Dropped { count: parts.count.ok_or_else(|| missing("count"))? },
            "notice" => Self::Notice {
                code: parts.code.ok_or_else(|| missing("code"))?,
                message: parts.message.ok_or_else(|| missing("message"))?.into(),
            },
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[test]
    fn a_frame_reads_back_and_an_event_keeps_its_digits() {
        let event = r#"{"id":"x","metadata":{"wei":12345678901234567890123,"p":1.10}}"#;
        let raw: Box<RawValue> = serde_json::from_str(event).unwrap();
        let text = serde_json::to_string(&Frame::Event { event: raw }).unwrap();
        assert_eq!(text, format!(r#"{{"type":"event","event":{event}}}"#));
        let Frame::Event { event: read } = Frame::<&RawValue>::read(&text).unwrap().unwrap() else { panic!("{text}") };
        assert_eq!(read.get(), event);
        for frame in [
            Frame::Ready,
            Frame::Dropped { count: 5 },
            Frame::Notice { code: NoticeCode::TailResumed, message: "m".into() },
        ] {
            let text = serde_json::to_string(&frame).unwrap();
            assert_eq!(Frame::<Sure>::read(&text).unwrap(), Some(frame), "{text}");
        }
    }

    type Sure = std::collections::BTreeMap<String, bool>;

    #[test]
    fn a_frame_of_a_later_version_is_passed_over_and_a_broken_one_is_not() {
        assert_eq!(Frame::<Sure>::read(r#"{"type":"later","event":{}}"#).unwrap(), None);
        for broken in ["", "{}", r#"{"type":"event"}"#, r#"{"type":"dropped"}"#, r#"{"type":"notice","code":"x"}"#] {
            assert!(Frame::<Sure>::read(broken).is_err(), "{broken}");
        }
    }
}
