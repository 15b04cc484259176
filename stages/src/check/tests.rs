//! Tables: what a test expects, and what it says where that is otherwise.

use super::*;
use crds::stage::Stage;
use serde_json::{Value, json};

const ACCEPTED: i64 = 1_767_323_045_000_000;

fn failures(tests: Value) -> Vec<String> {
    let stages: Vec<Stage> = serde_json::from_value(json!([
        {"name": "read", "parse": {"format": "Auto"}},
        {"name": "health", "match": {"fields": [{"name": "path", "equals": "/healthz"}]}, "drop": {}},
        {"name": "mail", "redact": {"detectors": ["Email"]}},
    ]))
    .unwrap();
    let tests: Vec<PipelineTest> = serde_json::from_value(tests).unwrap();
    let pipeline = Pipeline::compile(&stages).unwrap();
    run_tests(&pipeline, &tests, ACCEPTED).iter().map(Failure::to_string).collect()
}

#[test]
fn a_test_says_which_field_is_otherwise() {
    let access = r#"192.0.2.1 - - [02/Jan/2026:03:04:00 +0000] "GET /pay HTTP/1.1" 502 7"#;
    let health = access.replace("/pay", "/healthz");
    for (input, expect, said) in [
        (
            access,
            json!({"fields": {"status": "502", "attributes.method": "GET", "timestamp": "2026-01-02T03:04:00Z"}}),
            None,
        ),
        (access, json!({"fields": {"status": "200"}}), Some("field `status`: expected `200`, got `502`")),
        (access, json!({"fields": {"user": "ada"}}), Some("field `user`: expected `ada`, got nothing")),
        (access, json!({"absent": ["user", "full_log"]}), None),
        (access, json!({"absent": ["status"]}), Some("field `status`: expected none, got `502`")),
        (access, json!({"dropped": true}), Some("expected it to be dropped, and it is an event")),
        (&health, json!({"dropped": true}), None),
        (&health, json!({"fields": {"level": "INFO"}}), Some("expected an event, and stage `health` dropped it")),
        (
            r#"{"msg":"to \"ada@example.com\"","level":"warn"}"#,
            json!({"lacks": ["ada"], "fields": {"level": "WARN", "message": "to \"[email]\""}}),
            None,
        ),
        ("to \"you\"", json!({"lacks": ["elsewhere", "\"you\""]}), Some("lacks[1]: the event still holds this text")),
        ("{broken", json!({"dropped": true}), Some("the input can't be an event")),
    ] {
        let failures = failures(json!([{"name": "t", "input": input, "expect": expect}]));
        match said {
            None => assert_eq!(failures, [""; 0], "{expect}"),
            Some(said) => {
                assert!(failures.len() == 1 && failures[0].starts_with(&format!("test `t`: {said}")), "{failures:?}")
            }
        }
    }
}

#[test]
fn every_test_is_run() {
    let test = |name: &str, level: &str| json!({"name": name, "input": "x", "expect": {"fields": {"level": level}}});
    let failures = failures(json!([test("a", "INFO"), test("b", "WARN"), test("c", "ERROR")]));
    assert_eq!(
        failures,
        [
            "test `b`: field `level`: expected `WARN`, got `INFO`",
            "test `c`: field `level`: expected `ERROR`, got `INFO`"
        ]
    );
}
