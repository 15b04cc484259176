//! Tables: a text, and the fields that are read out of it.

use super::*;
use serde_json::{Value, json};

/// 2026-01-02T03:04:05Z.
const ACCEPTED: i64 = 1_767_323_045_000_000;

/// The line after a parse stage; `None` if it was not of the format.
fn parsed(spec: Value, line: Value) -> Option<Value> {
    let parser = Parser::compile(&serde_json::from_value(spec).unwrap()).unwrap();
    let line = line.to_string();
    let mut line = Line::read(line.as_bytes()).unwrap();
    parser.apply(&mut line, ACCEPTED).then(|| line.shown())
}

fn text(format: &str, text: &str) -> Option<Value> {
    parsed(json!({"format": format}), json!({"message": text}))
}

#[test]
fn json_gives_its_fields_and_its_message() {
    for (line, expected) in [
        (
            json!({"log": r#"{"ts":"2026-01-02T03:04:00Z","lvl":"warn","msg":"slow","took":7}"#, "stream": "stderr"}),
            Some(
                json!({"ts": "2026-01-02T03:04:00Z", "lvl": "warn", "message": "slow", "took": 7, "stream": "stderr"}),
            ),
        ),
        (
            json!({"message": r#" {"event":"login"} "#, "level": "info", "timestamp": 5}),
            Some(json!({"message": r#" {"event":"login"} "#, "event": "login", "level": "info", "timestamp": 5})),
        ),
        (
            json!({"message": r#"{"level":"error","msg":"m","log":"l"}"#, "severity": "info"}),
            Some(json!({"message": "m", "log": "l", "level": "error"})),
        ),
        (
            // Fields hold one of the two values, so that the text stays.
            json!({"message": r#"{"msg":"m","id":1,"id":2}"#}),
            Some(json!({"message": "m", "id": 2, "full_log": r#"{"msg":"m","id":1,"id":2}"#})),
        ),
        (json!({"message": "not {json}"}), None),
        (json!({"message": r#"{"broken":"#}), None),
        (json!({"message": r#"["an array"]"#}), None),
        (json!({"message": {"an": "object"}}), None),
        (json!({"other": "x"}), None),
        (json!({"message": format!("{{\"a\":{}{}}}", "[".repeat(30), "]".repeat(30))}), None),
    ] {
        assert_eq!(parsed(json!({"format": "Json"}), line.clone()), expected, "{line}");
    }
}

#[test]
fn lines_of_json_are_records_of_one_event() {
    for (message, expected) in [
        ("{\"a\":1}\n\n{\"a\":2,\"b\":3}\n", Some(json!({"a": 1, "records": [{"a": 1}, {"a": 2, "b": 3}]}))),
        ("{\"a\":1}\n", Some(json!({"a": 1}))),
        ("{\"a\":1}\nbroken", None),
        ("", None),
    ] {
        let expected = expected.map(|mut fields| {
            fields["message"] = json!(message);
            fields
        });
        assert_eq!(text("Ndjson", message), expected, "{message}");
    }
}

#[test]
fn access_logs_of_apache_and_nginx() {
    let get = json!({"method": "GET", "path": "/cart?id=7", "protocol": "HTTP/1.1", "status": 200, "bytes": 5316,
                     "timestamp": "02/Jan/2026:03:04:05 +0000"});
    let with = |base: &Value, more: Value| {
        let mut fields = base.as_object().unwrap().clone();
        fields.extend(more.as_object().unwrap().clone());
        Value::Object(fields)
    };
    let line = r#"198.51.100.7 - - [02/Jan/2026:03:04:05 +0000] "GET /cart?id=7 HTTP/1.1" 200 5316"#;
    let agent = "Mozilla/5.0 (X11; Linux x86_64) \\\"quoted\\\"";
    for (log, expected) in [
        (line.to_owned(), Some(with(&get, json!({"client_ip": "198.51.100.7"})))),
        (
            format!(r#"{} "https://shop.example/" "{agent}""#, line.replace("- - [", "- ada [")),
            Some(with(
                &get,
                json!({"client_ip": "198.51.100.7", "user": "ada", "referrer": "https://shop.example/", "user_agent": agent}),
            )),
        ),
        (
            format!(r#"shop.example:443 {line} "-" "-" 0.004 upstream"#).replace("198.51.100.7", "2001:db8::7"),
            Some(with(&get, json!({"client_ip": "2001:db8::7", "virtual_host": "shop.example:443"}))),
        ),
        (
            r#"192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] "\x16\x03\x01" 400 -"#.to_owned(),
            Some(
                json!({"client_ip": "192.0.2.1", "request": "\\x16\\x03\\x01", "status": 400, "timestamp": "02/Jan/2026:03:04:05 +0000"}),
            ),
        ),
        (
            r#"192.0.2.1 - Ada Lovelace [02/Jan/2026:03:04:05 +0000] "-" 408 0"#.to_owned(),
            Some(
                json!({"client_ip": "192.0.2.1", "user": "Ada Lovelace", "status": 408, "bytes": 0, "timestamp": "02/Jan/2026:03:04:05 +0000"}),
            ),
        ),
        ("GET /cart HTTP/1.1".to_owned(), None),
        (line.replace('"', ""), None),
        (format!("{line}x"), None),
    ] {
        let expected = expected.map(|fields| with(&fields, json!({"message": log})));
        assert_eq!(text("Apache", &log), expected, "{log}");
    }
}

#[test]
fn syslog_of_both_forms() {
    for (log, expected) in [
        (
            "<165>1 2026-01-02T03:04:05.003Z web-1 checkout 8710 ID47 - \u{feff}payment declined",
            Some(
                json!({"level": "INFO", "facility": "local4", "timestamp": "2026-01-02T03:04:05.003Z", "host": "web-1",
                        "application": "checkout", "service": "checkout", "pid": "8710", "message_id": "ID47", "message": "payment declined"}),
            ),
        ),
        (
            r#"<11>1 2026-01-02T03:04:05Z - cron - - [a@1 k="v \"q\" \] \\ e"][b] failed"#,
            Some(
                json!({"level": "ERROR", "facility": "user", "timestamp": "2026-01-02T03:04:05Z", "application": "cron", "service": "cron",
                        "structured_data": {"a@1": {"k": "v \"q\" ] \\ e"}, "b": {}}, "message": "failed"}),
            ),
        ),
        (
            "<34>Jan  2 03:04:01 db-2 su[91]: session opened: root",
            Some(
                json!({"level": "FATAL", "facility": "auth", "timestamp": "2026-01-02T03:04:01.000000Z", "host": "db-2",
                        "application": "su", "service": "su", "pid": "91", "message": "session opened: root"}),
            ),
        ),
        (
            "Dec 31 23:59:59 db-2 kernel: oom",
            Some(
                json!({"timestamp": "2025-12-31T23:59:59.000000Z", "host": "db-2", "application": "kernel", "service": "kernel", "message": "oom"}),
            ),
        ),
        (
            "Feb 29 00:00:00 h t: leap",
            Some(
                json!({"timestamp": "2024-02-29T00:00:00.000000Z", "host": "h", "application": "t", "service": "t", "message": "leap"}),
            ),
        ),
        (
            "<13>2026-01-02T03:04:05.1+01:00 h app/web: m",
            Some(json!({"level": "INFO", "facility": "user", "timestamp": "2026-01-02T03:04:05.1+01:00", "host": "h",
                        "application": "app/web", "service": "app/web", "message": "m"})),
        ),
        // RFC 5424's own example of a parameter that is there twice.
        (
            r#"<34>1 2026-01-02T03:04:05Z h a - - [origin ip="192.0.2.1" ip="192.0.2.129" software="x"][b n="1"][b n="2" m="3"] m"#,
            Some(
                json!({"level": "FATAL", "facility": "auth", "timestamp": "2026-01-02T03:04:05Z", "host": "h", "application": "a",
                        "service": "a", "message": "m", "structured_data":
                        {"origin": {"ip": ["192.0.2.1", "192.0.2.129"], "software": "x"}, "b": {"n": ["1", "2"], "m": "3"}}}),
            ),
        ),
        ("<1>1 - - - - - -", Some(json!({"level": "FATAL", "facility": "kern", "message": ""}))),
        ("<192>Jan  2 03:04:01 h t: m", None),
        ("<34>1 2026-01-02T03:04:05Z web app 1 id [a k=\"v\" m", None),
        ("<34>1 yesterday web app 1 id - m", None),
        ("2026-01-02T03:04:05Z connection closed", None),
        ("2026-01-02T03:04:05Z worker: {\"a\": 1}", None),
        (
            "Jan  2 03:04:01 h syslogd 1.5: restart",
            Some(json!({"timestamp": "2026-01-02T03:04:01.000000Z", "host": "h", "message": "syslogd 1.5: restart"})),
        ),
        ("Jan  2 03:04:01 h: just words", None),
        ("plain text: with a colon", None),
        ("", None),
    ] {
        assert_eq!(text("Syslog", log), expected, "{log}");
    }
}

#[test]
fn what_stands_beside_syslog_counts_less_than_what_it_says_but_for_the_service() {
    let line = json!({"service": "edge", "time": 5, "message": "<34>Jan  2 03:04:01 h su: m"});
    let expected = json!({"service": "edge", "timestamp": "2026-01-02T03:04:01.000000Z", "host": "h", "application": "su",
                          "level": "FATAL", "facility": "auth", "message": "m"});
    assert_eq!(parsed(json!({"format": "Syslog"}), line), Some(expected));
}

#[test]
fn a_pattern_gives_its_named_groups() {
    let spec =
        json!({"format": "Regex", "pattern": r"^\[(?<level>\w+)\] (?<user>\w*) ?#(?<order>\d+) (?<message>.+)$"});
    for (message, expected) in [
        (
            "[warn] ada #12 declined",
            Some(
                json!({"level": "warn", "user": "ada", "order": "12", "message": "declined", "full_log": "[warn] ada #12 declined"}),
            ),
        ),
        ("[warn] #12 x", Some(json!({"level": "warn", "order": "12", "message": "x", "full_log": "[warn] #12 x"}))),
        ("something else", None),
    ] {
        assert_eq!(parsed(spec.clone(), json!({"message": message})), expected, "{message}");
    }
    for (spec, code) in [
        (json!({"format": "Regex"}), "invalid_parse"),
        (json!({"format": "Json", "pattern": "(?<a>.)"}), "invalid_parse"),
        (json!({"format": "Regex", "pattern": "(.)"}), "no_named_group"),
        (json!({"format": "Regex", "pattern": "(?<a>."}), "invalid_regex"),
    ] {
        assert_eq!(Parser::compile(&serde_json::from_value(spec.clone()).unwrap()).unwrap_err().code, code, "{spec}");
    }
}

#[test]
fn auto_takes_the_first_that_fits_and_leaves_the_rest_alone() {
    let spec = json!({"format": "Auto", "pattern": "^(?<word>[a-z]+)!$"});
    for (message, field) in [
        (r#"{"a":1}"#, Some("a")),
        ("<34>Jan  2 03:04:01 h su: m", Some("facility")),
        (r#"192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] "GET / HTTP/1.0" 200 1"#, Some("client_ip")),
        ("hello!", Some("word")),
        ("hello", None),
    ] {
        let parsed = parsed(spec.clone(), json!({"message": message}));
        assert_eq!(parsed.is_some(), field.is_some(), "{message}");
        assert!(parsed.is_none_or(|fields| fields.get(field.unwrap()).is_some()), "{message}");
    }
}

#[test]
fn another_field_is_read_and_its_fields_may_have_an_object_of_their_own() {
    let line = json!({"message": "m", "metadata": {"raw": r#"{"message":"inner","n":1}"#}});
    let spec = json!({"format": "Json", "field": "metadata.raw", "into": "metadata.parsed"});
    let metadata = json!({"raw": r#"{"message":"inner","n":1}"#, "parsed": {"message": "inner", "n": 1}});
    assert_eq!(parsed(spec, line), Some(json!({"message": "m", "metadata": metadata})));
}
