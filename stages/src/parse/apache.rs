//! Access logs as Apache and nginx write them: common, combined, with the virtual host before, and
//! with more behind. The line itself stays the message.

use std::sync::LazyLock;

use regex::Regex;

use super::Parsed;
use crate::json::{Map, Value};

static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?x) ^ (?: (?<virtual_host> \S+ :\d+ ) \x20 )?
           (?<client_ip> \S+ ) \x20 (?<ident> \S+ ) \x20 (?<user> \S.{0,254}? ) \x20
           \[ (?<timestamp> [^\]]{10,40} ) \] \x20
           "(?<request> (?: [^"\\] | \\. )* )" \x20 (?<status> \d{3} ) \x20 (?<bytes> \d{1,18} | - )
           (?: \x20 "(?<referrer> (?: [^"\\] | \\. )* )" \x20 "(?<user_agent> (?: [^"\\] | \\. )* )" )?
           (?: \s .* )? $"#,
    )
    .expect("it is tested")
});

static REQUEST: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?<method>[A-Z]{3,16}) (?<path>\S+)(?: (?<protocol>HTTP/[0-9.]{1,3}))?$").expect("it is tested")
});

pub(super) fn read(text: &str) -> Option<Parsed> {
    let text = text.trim_end();
    let captures = LINE.captures(text)?;
    let mut fields = Map::new();
    for name in ["virtual_host", "client_ip", "ident", "user", "timestamp", "referrer", "user_agent"] {
        // A hyphen says that there is none.
        if let Some(found) = captures.name(name).map(|found| found.as_str()).filter(|text| !matches!(*text, "-" | "")) {
            fields.insert(name.to_owned(), found.into());
        }
    }
    let request = &captures["request"];
    match REQUEST.captures(request) {
        Some(parts) => {
            for name in ["method", "path", "protocol"] {
                if let Some(found) = parts.name(name) {
                    fields.insert(name.to_owned(), found.as_str().into());
                }
            }
        }
        None if matches!(request, "-" | "") => {}
        None => {
            fields.insert("request".to_owned(), request.into());
        }
    }
    for name in ["status", "bytes"] {
        if let Ok(number) = captures[name].parse::<u64>() {
            fields.insert(name.to_owned(), Value::from(number));
        }
    }
    Some(Parsed { fields, ..Parsed::default() })
}
