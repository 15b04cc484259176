//! A log line as the event that is sent.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Characters of a line that are its message; a longer line goes whole into `full_log` too.
const MESSAGE_CHARS: usize = 500;
/// Words at the beginning of a line among which its level stands.
const LEVEL_WORDS: usize = 24;

/// What `POST /logs` takes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    pub(crate) timestamp: String,
    pub(crate) service: String,
    pub(crate) level: &'static str,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) full_log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<serde_json::Value>,
}

impl Event {
    /// A line that was read now.
    pub(crate) fn of_line(service: &str, line: &str, now: OffsetDateTime) -> Self {
        let end = line.char_indices().nth(MESSAGE_CHARS).map_or(line.len(), |(end, _)| end);
        Self {
            timestamp: timestamp(now),
            service: service.to_owned(),
            level: level_of(line),
            message: line[..end].to_owned(),
            full_log: (end < line.len()).then(|| line.to_owned()),
            metadata: None,
        }
    }
}

/// RFC 3339; a time of this century always has that form.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// The first word that names a level, or klog's first letter (`E1121 06:05:00 …`), else INFO.
fn level_of(line: &str) -> &'static str {
    if let Some(level) = klog_level(line.as_bytes()) {
        return level;
    }
    let words = line.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let level = words.take(LEVEL_WORDS).find_map(|word| match word.to_ascii_uppercase().as_str() {
        "TRACE" => Some("TRACE"),
        "DEBUG" => Some("DEBUG"),
        "INFO" | "NOTICE" => Some("INFO"),
        "WARN" | "WARNING" => Some("WARN"),
        "ERROR" | "ERR" | "SEVERE" => Some("ERROR"),
        "FATAL" | "PANIC" | "CRITICAL" => Some("FATAL"),
        _ => None,
    });
    level.unwrap_or("INFO")
}

fn klog_level(line: &[u8]) -> Option<&'static str> {
    let (first, rest) = line.split_first()?;
    if rest.len() < 4 || !rest[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    match first {
        b'I' => Some("INFO"),
        b'W' => Some("WARN"),
        b'E' => Some("ERROR"),
        b'F' => Some("FATAL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_guessed_from_the_beginning() {
        for (line, level) in [
            ("", "INFO"),
            ("started", "INFO"),
            ("2026-01-01 00:00:00 WARN disk is full", "WARN"),
            (r#"{"level":"error","msg":"no info"}"#, "ERROR"),
            ("2026-01-01 UTC [1] FATAL:  the database is starting up", "FATAL"),
            ("E1121 06:05:00.123 reflector.go:1] failed", "ERROR"),
            ("W1121 06:05:00.123 error", "WARN"),
            ("Information about terrors", "INFO"),
            ("[notice] child exited", "INFO"),
        ] {
            assert_eq!(level_of(line), level, "{line}");
        }
    }

    #[test]
    fn only_a_long_line_has_a_full_log() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(Event::of_line("s", &"é".repeat(500), now).full_log, None);
        let long = "é".repeat(501);
        let event = Event::of_line("s", &long, now);
        assert_eq!((event.message.chars().count(), event.full_log), (500, Some(long)));
    }
}
