//! Tables: a raw line, and what becomes of it.

use super::*;
use serde_json::{Value, json};

const ACCEPTED: i64 = 1_767_323_045_000_000;

fn of(line: &Value) -> Event {
    event(line.to_string().as_bytes(), ACCEPTED).unwrap()
}

fn object(value: Value) -> Option<Map> {
    crate::Value::from(value).as_object().cloned()
}

#[test]
fn the_documented_payload_fills_its_fields() {
    let line = json!({
        "service": "checkout", "level": "error", "timestamp": "2026-01-02T03:04:05.000001Z", "message": "declined",
        "full_log": "declined\n  at pay()", "language": "java", "metadata": {"card": "visa"}, "application": "shop",
    });
    assert_eq!(
        of(&line),
        Event {
            time: Some(ACCEPTED + 1),
            level: "ERROR".into(),
            service: "checkout".into(),
            application: Some("shop".into()),
            message: "declined".into(),
            full_log: Some("declined\n  at pay()".into()),
            language: Some("java".into()),
            metadata: object(json!({"card": "visa"})),
            attributes: None,
        }
    );
}

#[test]
fn each_alias_is_taken_and_the_first_one_wins() {
    for (line, service, level, message, attributes) in [
        (json!({"source": "s", "severity": "warn", "msg": "m"}), "s", "WARN", "m", None),
        (json!({"service": "s", "lvl": "dbg", "log": "m"}), "s", "DEBUG", "m", None),
        (json!({"service": "a", "source": "b", "message": "m"}), "a", "INFO", "m", Some(json!({"source": "b"}))),
        (json!({"service": null, "source": "b", "message": null, "msg": "m"}), "b", "INFO", "m", None),
        (
            json!({"message": "m", "msg": "n", "log": "o"}),
            "unknown",
            "INFO",
            "m",
            Some(json!({"msg": "n", "log": "o"})),
        ),
    ] {
        let event = of(&line);
        assert_eq!(
            (event.service.as_str(), event.level.as_str(), event.message.as_str()),
            (service, level, message),
            "{line}"
        );
        assert_eq!(event.attributes, attributes.and_then(object), "{line}");
    }
}

#[test]
fn each_spelling_of_a_level_becomes_one_of_six() {
    for (sent, expected) in [
        (json!("info"), "INFO"),
        (json!("Warning"), "WARN"),
        (json!("ERR"), "ERROR"),
        (json!("severe"), "ERROR"),
        (json!("critical"), "FATAL"),
        (json!("emerg"), "FATAL"),
        (json!("notice"), "INFO"),
        (json!(" trace "), "TRACE"),
        (json!(30), "INFO"),
        (json!(3), "ERROR"),
        (json!(""), "INFO"),
        (json!("audit"), "AUDIT"),
        (json!("ß".repeat(40)), "SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS"),
    ] {
        assert_eq!(of(&json!({"level": sent})).level, expected, "{sent}");
    }
    assert_eq!(of(&json!({"message": "m"})).level, "INFO");
    assert_eq!(of(&json!({"level": ["x"]})).attributes, object(json!({"level": ["x"]})));
}

#[test]
fn unknown_fields_are_kept() {
    let event =
        of(&json!({"message": "m", "trace_id": "abc", "n": 1.5, "deep": {"a": [1, {"b": null}]}, "metadata": "text"}));
    assert_eq!(
        event.attributes,
        object(json!({"trace_id": "abc", "n": 1.5, "deep": {"a": [1, {"b": null}]}, "metadata": "text"}))
    );
    assert_eq!(event.metadata, None);
}

#[test]
fn a_message_is_found_in_every_line() {
    for (line, message) in [
        (json!({"message": "plain"}), "plain"),
        (json!({"message": 17}), "17"),
        (json!({"message": true}), "true"),
        (json!({"message": {"a": [1]}}), r#"{"a":[1]}"#),
        (json!({"message": ""}), ""),
        (json!({"full_log": "first\nsecond"}), "first"),
        (json!({"full_log": ""}), ""),
        (json!({"x": 1}), r#"{"x":1}"#),
        (json!({}), "{}"),
    ] {
        assert_eq!(of(&line).message, message, "{line}");
    }
}

#[test]
fn a_long_message_is_cut_at_a_character_and_kept_whole() {
    let long = "é".repeat(501);
    let event = of(&json!({"message": long}));
    assert_eq!(event.message, "é".repeat(500));
    assert_eq!(event.full_log.as_deref(), Some(long.as_str()));

    let exact = "é".repeat(500);
    let event = of(&json!({"message": exact}));
    assert_eq!((event.message.as_str(), event.full_log), (exact.as_str(), None));

    let event = of(&json!({"msg": long, "full_log": "another"}));
    assert_eq!(event.full_log.as_deref(), Some("another"));
    assert_eq!(event.attributes, object(json!({"msg": long})));

    let event = of(&json!({"msg": long, "full_log": format!("{long} and more")}));
    assert_eq!(event.attributes, None);
}

#[test]
fn no_store_meets_a_nul() {
    let raw = br#"{"message":"a\u0000b","service":"s\u0000","k\u0000":["\u0000",{"\u0000":1}]}"#;
    let event = event(raw, ACCEPTED).unwrap();
    assert_eq!((event.message.as_str(), event.service.as_str()), ("a\u{fffd}b", "s\u{fffd}"));
    assert_eq!(event.attributes, object(json!({"k\u{fffd}": ["\u{fffd}", {"\u{fffd}": 1}]})));
}

#[test]
fn an_unusable_time_is_kept_as_an_attribute() {
    for sent in
        [json!("soon"), json!("0001-01-01T00:00:00Z"), json!("9999-12-31T23:59:59Z"), json!({"s": 1}), json!(-1)]
    {
        let event = of(&json!({"message": "m", "ts": sent}));
        assert_eq!((event.time, event.attributes), (None, object(json!({"ts": sent}))));
    }
    assert_eq!(of(&json!({"message": "m"})).time, None);
}

#[test]
fn names_are_short_and_lose_nothing() {
    let long = "x".repeat(300);
    let event = of(&json!({"service": long, "application": 7, "language": {"name": "de"}}));
    assert_eq!((event.service.len(), event.application.as_deref(), event.language), (256, Some("7"), None));
    assert_eq!(event.attributes, object(json!({"service": long, "language": {"name": "de"}})));
    assert_eq!(of(&json!({"service": ""})).service, "unknown");
}

#[test]
fn what_is_not_one_json_object_is_an_error_with_a_code() {
    for raw in ["", "plain text", "[1]", "\"text\"", "{\"a\":1", "{} {}", "{\"a\": 1e999}", "{\"a\":\"\\ud800\"}"] {
        assert_eq!(event(raw.as_bytes(), ACCEPTED).unwrap_err().code(), "invalid_json", "{raw}");
    }
    assert!(event(b"{\"a\":\"\xff\"}", ACCEPTED).is_err(), "bytes that are not UTF-8");
}
