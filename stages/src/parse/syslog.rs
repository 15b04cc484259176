//! Syslog: RFC 5424, and RFC 3164 as it is found in the wild, with or without its priority.

use time::OffsetDateTime;

use super::Parsed;
use crate::json::{Map, Value};
use crate::time::{micros_of_day_in_year, rfc3339};

/// Longest host or tag that is one; longer text is not syslog.
const MAX_NAME: usize = 255;
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const LEVELS: [&str; 8] = ["FATAL", "FATAL", "FATAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG"];
const MICROS_PER_DAY: i64 = 24 * 3600 * 1_000_000;

pub(super) fn read(text: &str, accepted_at: i64) -> Option<Parsed> {
    let text = text.trim_end_matches(['\r', '\n']);
    let (priority, rest) = priority(text)?;
    let mut parsed = match (priority, rest.strip_prefix("1 ")) {
        (Some(_), Some(rest)) => modern(rest)?,
        _ => traditional(rest, accepted_at, priority.is_some())?,
    };
    if let Some(priority) = priority {
        parsed.fields.insert("level".to_owned(), Value::from(LEVELS[priority % 8]));
        parsed.fields.insert("facility".to_owned(), Value::from(FACILITIES[priority / 8]));
    }
    parsed.complete = true;
    Some(parsed)
}

/// The number in `<34>`, if there is one, and what follows.
fn priority(text: &str) -> Option<(Option<usize>, &str)> {
    let Some(text) = text.strip_prefix('<') else { return Some((None, text)) };
    let (digits, rest) = text.split_once('>')?;
    let number = digits.parse::<usize>().ok()?;
    (digits.len() <= 3 && number < FACILITIES.len() * LEVELS.len()).then_some((Some(number), rest))
}

/// RFC 5424 after its version: time, host, application, process, message id, data, message.
fn modern(text: &str) -> Option<Parsed> {
    let mut parsed = Parsed::default();
    let mut rest = text;
    let mut names = [""; 5];
    for name in &mut names {
        (*name, rest) = rest.split_once(' ')?;
        if name.is_empty() || name.len() > MAX_NAME {
            return None;
        }
    }
    let [time, host, application, process, id] = names;
    crate::time::parse_text(time).filter(|_| time.len() > 10).or_else(|| (time == "-").then_some(0))?;
    parsed.name("timestamp", time);
    parsed.name("host", host);
    parsed.application(application);
    parsed.name("pid", process);
    parsed.name("message_id", id);
    let (data, message) = structured_data(rest)?;
    if !data.is_empty() {
        parsed.fields.insert("structured_data".to_owned(), Value::Object(data));
    }
    let message = message.strip_prefix(' ').unwrap_or(message);
    parsed.message = Some(message.strip_prefix('\u{feff}').unwrap_or(message).to_owned());
    Some(parsed)
}

/// `-`, or `[id name="value" …]…`; and what follows. A parameter that is there several times has a list of its
/// values, in their order.
fn structured_data(text: &str) -> Option<(Map, &str)> {
    let mut data = Map::new();
    if let Some(rest) = text.strip_prefix('-') {
        return (rest.is_empty() || rest.starts_with(' ')).then_some((data, rest));
    }
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        let (id, mut parameters) = element.split_at(end);
        // RFC 5424 allows no identifier twice; of one that is there nevertheless, nothing is lost.
        let Value::Object(values) = data.entry(id.to_owned()).or_insert_with(|| Value::Object(Map::new())) else {
            return None;
        };
        while let Some(parameter) = parameters.strip_prefix(' ') {
            let (name, value) = parameter.split_once("=\"")?;
            let end = closing_quote(value)?;
            add(values, name, unescaped(&value[..end]).into());
            parameters = &value[end + 1..];
        }
        rest = parameters.strip_prefix(']')?;
    }
    (!data.is_empty() && (rest.is_empty() || rest.starts_with(' '))).then_some((data, rest))
}

/// Adds a value to those of the same name.
fn add(values: &mut Map, name: &str, value: Value) {
    match values.get_mut(name) {
        None => {
            values.insert(name.to_owned(), value);
        }
        Some(Value::Array(several)) => several.push(value),
        Some(one) => *one = Value::Array(vec![std::mem::replace(one, Value::Null), value]),
    }
}

/// Where the first quote is that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// The value without the backslashes before a quote, a backslash and a closing bracket.
fn unescaped(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next_if(|next| matches!(next, '"' | '\\' | ']')) } else { None };
        plain.push(escaped.unwrap_or(c));
    }
    plain
}

/// RFC 3164 after its priority: `Mmm dd hh:mm:ss` or an ISO time, host, tag and process, message. A tag may
/// be missing, but not where nothing else says that it is syslog: an ISO time without a priority.
fn traditional(text: &str, accepted_at: i64, has_priority: bool) -> Option<Parsed> {
    let mut parsed = Parsed::default();
    let (rest, needs_tag) = match day_in_year(text, accepted_at) {
        Some((time, rest)) => {
            parsed.name("timestamp", &rfc3339(time));
            (rest, false)
        }
        None => {
            let (time, rest) = text.split_once(' ')?;
            // With a date and a time of day: a bare number is no sign of syslog.
            crate::time::parse_text(time).filter(|_| time.len() > 10 && time.contains('T'))?;
            parsed.name("timestamp", time);
            (rest, !has_priority)
        }
    };
    let (host, rest) = rest.split_once(' ').filter(|(host, _)| !host.is_empty() && host.len() <= MAX_NAME)?;
    if host.ends_with(':') || host.contains(['[', '"', '=', '{']) {
        return None;
    }
    parsed.name("host", host);
    let message = match tag(rest) {
        Some((application, process, message)) => {
            parsed.application(application);
            if let Some(process) = process {
                parsed.name("pid", process);
            }
            message
        }
        None if needs_tag => return None,
        None => rest,
    };
    parsed.message = Some(message.to_owned());
    Some(parsed)
}

/// What wrote the line, its process, and the message: `su[91]: message`.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (tag, message) = text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, "")))?;
    let (application, process) = match tag.strip_suffix(']').and_then(|tag| tag.split_once('[')) {
        Some((application, process)) => (application, Some(process)),
        None => (tag, None),
    };
    let is_odd = |c: char| c.is_whitespace() || "\"{}<>[]".contains(c);
    let is_name = !application.is_empty() && application.len() <= MAX_NAME && !application.contains(is_odd);
    is_name.then_some((application, process, message))
}

/// The time in `Mmm dd hh:mm:ss `, and what follows. It names no year: it is the latest one in which
/// the line was written before it was accepted. It names no zone, so it is UTC.
fn day_in_year(text: &str, accepted_at: i64) -> Option<(i64, &str)> {
    let (day, rest) = text.split_at_checked(15)?;
    let year = OffsetDateTime::from_unix_timestamp(accepted_at.div_euclid(1_000_000)).ok()?.year();
    let latest = accepted_at.saturating_add(MICROS_PER_DAY);
    // A leap day may be four years back, and eight over the turn of some centuries.
    let time = (0..=8).filter_map(|back| micros_of_day_in_year(day, year + 1 - back)).find(|time| *time <= latest)?;
    Some((time, rest.strip_prefix(' ')?))
}

impl Parsed {
    /// A name, unless it is the hyphen that says that there is none.
    fn name(&mut self, field: &str, value: &str) {
        if value != "-" {
            self.fields.insert(field.to_owned(), value.into());
        }
    }

    /// What wrote the line: the application, and the service where nothing else says one.
    fn application(&mut self, name: &str) {
        self.name("application", name);
        if name != "-" {
            self.defaults.push(("service", name.into()));
        }
    }
}
