//! Tables: a redaction, a line, and what is left of it.

use super::*;
use serde_json::json;

fn redacted(spec: Value, line: Value) -> Value {
    let redactor = Redactor::compile(&serde_json::from_value(spec).unwrap()).unwrap();
    let mut line = Line::read(line.to_string().as_bytes()).unwrap();
    redactor.apply(&mut line);
    Value::Object(line.fields)
}

#[test]
fn what_is_found_is_replaced_wherever_it_is() {
    let spec = json!({"detectors": ["Email", "CardNumber"], "patterns": [{"name": "order", "regex": r"\bO-\d+\b"}]});
    for (line, expected) in [
        (
            json!({"message": "ada@example.com paid O-77 with 4111 1111 1111 1111", "metadata": {"a": ["b@example.com", 1, null, true]}}),
            json!({"message": "[email] paid [order] with [card]", "metadata": {"a": ["[email]", 1, null, true]}}),
        ),
        (json!({"pan": 4111111111111111_u64, "n": 41111}), json!({"pan": "[card]", "n": 41111})),
        (json!({"by": {"ada@example.com": 1}}), json!({"by": {"[email]": 1}})),
        (json!({"message": "nothing here"}), json!({"message": "nothing here"})),
    ] {
        assert_eq!(redacted(spec.clone(), line.clone()), expected, "{line}");
    }
}

#[test]
fn an_escaped_text_is_found_too() {
    let redactor = Redactor::compile(&serde_json::from_value(json!({"detectors": ["Email"]})).unwrap()).unwrap();
    let mut line = Line::read(br#"{"message":"ada\u0040example.com"}"#).unwrap();
    redactor.apply(&mut line);
    assert_eq!(line.fields["message"], "[email]");
}

#[test]
fn fields_bound_where_is_looked_or_are_redacted_whole() {
    for (spec, line, expected) in [
        (
            json!({"detectors": ["Email"], "fields": ["message"]}),
            json!({"msg": "a@example.com", "to": "b@example.com"}),
            json!({"msg": "[email]", "to": "b@example.com"}),
        ),
        (
            json!({"fields": ["password", "user.name", "gone"]}),
            json!({"password": {"deep": 1}, "user": {"name": "Ada", "id": 7}}),
            json!({"password": "[redacted]", "user": {"name": "[redacted]", "id": 7}}),
        ),
        (json!({"fields": ["user.name"]}), json!({"user.name": "Ada"}), json!({"user.name": "[redacted]"})),
        (json!({"fields": ["a"], "action": "Remove"}), json!({"a": 1, "b": 2}), json!({"b": 2})),
        (json!({"fields": ["a"], "replacement": "***"}), json!({"a": 1, "b": null}), json!({"a": "***", "b": null})),
        (json!({"fields": ["b"]}), json!({"b": null}), json!({"b": null})),
        (
            json!({"detectors": ["Token"], "action": "Remove"}),
            json!({"message": "m", "auth": "Bearer abcdefgh12", "list": ["AKIAIOSFODNN7EXAMPLE", "x"]}),
            json!({"message": "m", "list": ["x"]}),
        ),
    ] {
        assert_eq!(redacted(spec.clone(), line.clone()), expected, "{spec} {line}");
    }
}

#[test]
fn a_hash_is_the_same_for_the_same_value_and_salt() {
    let hash = |salt: &str, email: &str| {
        let spec = json!({"detectors": ["Email"], "action": "Hash", "salt": salt});
        redacted(spec, json!({"message": email}))["message"].as_str().unwrap().to_owned()
    };
    let first = hash("a salt of the test's", "ada@example.com");
    assert!(first.starts_with("[email:") && first.len() == "[email:]".len() + HASH_DIGITS, "{first}");
    assert_eq!(first, hash("a salt of the test's", "ada@example.com"));
    assert_ne!(first, hash("a salt of the test's", "bob@example.com"));
    assert_ne!(first, hash("another salt of the test's", "ada@example.com"));
}

#[test]
fn what_cannot_be_run_is_refused() {
    for (spec, code) in [
        (json!({}), "nothing_to_redact"),
        (json!({"detectors": ["Email"], "action": "Hash"}), "salt_missing"),
        (json!({"patterns": [{"name": "p", "regex": "["}]}), "invalid_regex"),
    ] {
        assert_eq!(Redactor::compile(&serde_json::from_value(spec.clone()).unwrap()).unwrap_err().code, code, "{spec}");
    }
}
