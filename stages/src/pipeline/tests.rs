//! Tables: stages, a line, and what is stored of it.

use super::*;
use serde_json::{Value, json};

const ACCEPTED: i64 = 1_767_323_045_000_000;
const CARD: &str = "4111 1111 1111 1111";

fn pipeline(stages: Value) -> Pipeline {
    Pipeline::compile(&serde_json::from_value::<Vec<Stage>>(stages).unwrap()).unwrap()
}

fn refused(stages: Value) -> CompileError {
    Pipeline::compile(&serde_json::from_value::<Vec<Stage>>(stages).unwrap()).unwrap_err()
}

fn event(pipeline: &Pipeline, line: &str) -> Event {
    match pipeline.apply(line.as_bytes(), ACCEPTED, 7).unwrap() {
        Outcome::Event(event) => event,
        Outcome::Dropped { stage } => panic!("dropped by {stage}"),
    }
}

fn stored(pipeline: &Pipeline, line: &[u8]) -> String {
    match pipeline.rewrite(line, ACCEPTED, 7) {
        Rewritten::Line(line) => String::from_utf8(line.into_owned()).unwrap(),
        Rewritten::Dropped { stage } => panic!("dropped by {stage}"),
    }
}

#[test]
fn stages_run_in_order_each_on_what_the_one_before_left() {
    let pipeline = pipeline(json!([
        {"name": "read", "match": {"services": ["edge"]}, "parse": {"format": "Json"}},
        {"name": "health", "match": {"fields": [{"name": "path", "equals": "/healthz"}]}, "drop": {}},
        {"name": "region", "enrich": {"set": {"region": "eu-1", "service": "x"}}},
        {"name": "team", "match": {"levels": ["error"]}, "enrich": {"set": {"metadata.team": "pay", "service": "loud"}, "overwrite": true}},
    ]));
    let line = |message: &str| json!({"source": "edge", "message": message}).to_string();
    let found = event(&pipeline, &line(r#"{"level":"error","msg":"no","path":"/pay"}"#));
    assert_eq!((found.service.as_str(), found.level.as_str(), found.message.as_str()), ("loud", "ERROR", "no"));
    assert_eq!(json!(found.attributes), json!({"path": "/pay", "region": "eu-1"}));
    assert_eq!(json!(found.metadata), json!({"team": "pay"}));
    let quiet = event(&pipeline, &line("plain"));
    assert_eq!((quiet.service.as_str(), quiet.message.as_str()), ("edge", "plain"), "a service that is there stays");
    let health = line(r#"{"path":"/healthz"}"#);
    let dropped = pipeline.apply(health.as_bytes(), ACCEPTED, 7).unwrap();
    assert_eq!(dropped, Outcome::Dropped { stage: "health".into() });
}

#[test]
fn a_line_that_no_stage_changes_is_kept_as_sent() {
    let pipeline = pipeline(json!([
        {"name": "read", "parse": {"format": "Auto"}},
        {"name": "errors", "match": {"levels": ["error"]}, "enrich": {"set": {"a": "b"}}},
    ]));
    for line in [br#"{ "message" : "plain", "n": 1.0e2 }"#.as_slice(), b"not json", b"[1]", b"\xff"] {
        assert_eq!(pipeline.rewrite(line, ACCEPTED, 7), Rewritten::Line(Cow::Borrowed(line)));
    }
}

#[test]
fn what_no_stage_changes_of_a_line_stays_byte_for_byte() {
    let big = r#"{"service":"c07","message":"big numbers","metadata":{"snowflake":9007199254740993,"u64":18446744073709551615,"neg":-9223372036854775808,"wei":12345678901234567890123,"pi":3.14159265358979323846,"price":1.10,"zip":"00742"}}"#;
    let spaced = "{ \"z\" : 1.0e2 ,\"message\":\"a\\u0062\\/ a@example.com\", \"a\":[1.10 , {} ],\"a\":-0 }\r";
    let mail = json!([{"name": "mail", "redact": {"detectors": ["Email", "CardNumber", "Token", "IpAddress"]}}]);
    let fields = json!([{"name": "fields", "redact": {"fields": ["message", "gone"], "action": "Remove"}}]);
    let parsed = json!([{"name": "read", "parse": {"format": "Json", "field": "inner"}}]);
    let enrich = json!([{"name": "region", "enrich": {"set": {"metadata.region": "cases"}}}]);
    for (stages, line, expected) in [
        (&mail, big.to_owned(), big.to_owned()),
        (&enrich, big.to_owned(), big.replace(r#""00742"}"#, r#""00742","region":"cases"}"#)),
        (&mail, spaced.to_owned(), spaced.replace(r"a\u0062\/ a@example.com", "ab/ [email]")),
        (&fields, spaced.to_owned(), spaced.replace(r#""message":"a\u0062\/ a@example.com","#, "")),
        (&enrich, spaced.to_owned(), spaced.replace("-0 }", r#"-0 ,"metadata":{"region":"cases"}}"#)),
        (
            &parsed,
            r#"{"n":1.10,"inner":"{\"wei\":12345678901234567890123,\"p\":1.10}"}"#.to_owned(),
            r#"{"n":1.10,"inner":"{\"wei\":12345678901234567890123,\"p\":1.10}","p":1.10,"wei":12345678901234567890123}"#.to_owned(),
        ),
    ] {
        let pipeline = pipeline(stages.clone());
        let found = pipeline.rewrite(line.as_bytes(), ACCEPTED, 7);
        let Rewritten::Line(bytes) = &found else { panic!("dropped") };
        assert_eq!(String::from_utf8_lossy(bytes), expected, "{stages}");
        assert_eq!(matches!(bytes, Cow::Borrowed(_)), line == expected, "{stages}");
    }
    let event = event(&pipeline(enrich), big);
    let shown = serde_json::to_string(&crate::shown(&event)).unwrap();
    for part in
        [r#""wei":12345678901234567890123"#, r#""pi":3.14159265358979323846"#, r#""price":1.10"#, r#""zip":"00742""#]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn the_stored_line_gives_the_same_event_to_whoever_reads_it_later() {
    let pipeline = pipeline(json!([
        {"name": "read", "parse": {"format": "Syslog"}},
        {"name": "cards", "redact": {"detectors": ["CardNumber"]}},
    ]));
    let line = json!({"message": format!("<34>Jan  2 03:04:01 h su[9]: paid with {CARD}")}).to_string();
    let stored = stored(&pipeline, line.as_bytes());
    assert!(!stored.contains("4111"), "{stored}");
    assert_eq!(crate::event(stored.as_bytes(), ACCEPTED).unwrap(), event(&pipeline, &line));
}

#[test]
fn nothing_that_is_redacted_is_left_of_any_line() {
    let texts = pipeline(json!([{"name": "cards", "redact": {"detectors": ["CardNumber"]}}]));
    let fields = pipeline(json!([{"name": "secret", "redact": {"fields": ["pin"]}}]));
    for (line, by_text, by_field) in [
        // Of a name that is sent twice the last counts, and the first must not stay either.
        (
            format!(r#"{{"pin":"{CARD}","pin":"x"}}"#),
            r#"{"pin":"[card]","pin":"x"}"#,
            r#"{"pin":"[redacted]","pin":"[redacted]"}"#,
        ),
        (
            format!(r#"{{"pin":"{CARD}", broken"#),
            r#"{"pin":"[card]", broken"#,
            "withheld: 36 bytes that the stages could not redact",
        ),
        (format!(r#"["{CARD}"]"#), r#"["[card]"]"#, "withheld: 23 bytes that the stages could not redact"),
    ] {
        assert_eq!(stored(&texts, line.as_bytes()), by_text);
        assert_eq!(stored(&fields, line.as_bytes()), by_field);
    }
    let withheld = fields.unprocessed(b"{}");
    assert_eq!(crate::event(&withheld, ACCEPTED).unwrap_err(), Error::Withheld);
    assert_eq!(Error::Withheld.code(), "withheld");
}

#[test]
fn no_part_of_a_line_makes_a_stage_fail_or_keeps_what_is_redacted() {
    let pipeline = pipeline(json!([
        {"name": "read", "parse": {"format": "Auto", "pattern": r"^\[(?<level>\w+)\] (?<message>.*)$"}},
        {"name": "personal", "redact": {"detectors": ["CardNumber", "Email", "Token", "IpAddress"]}},
    ]));
    for text in [
        format!(r#"{{"level":"warn","msg":"é paid with {CARD} ","list":[1,"{CARD}"]}}"#),
        format!(r#"<165>1 2026-01-02T03:04:05.003Z h é 8710 ID47 [a@1 k="v \" \]"][b] paid with {CARD} "#),
        format!("<34>Jan  2 03:04:01 h su[91]: é paid with {CARD} by [2001:db8::1]:80"),
        format!(r#"::1 - é [02/Jan/2026:03:04:05 +0000] "GET /pay? {CARD} HTTP/1.1" 200 5 "-" "{CARD}""#),
        format!("[warn] é paid with {CARD} by Bearer abcdefgh12"),
    ] {
        for cut in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            for part in [&text[..cut], &text[cut..]] {
                let line = json!({"message": part}).to_string();
                let stored_line = stored(&pipeline, line.as_bytes());
                assert!(!stored_line.contains(CARD), "{part}: {stored_line}");
                assert!(crate::event(stored_line.as_bytes(), ACCEPTED).is_ok(), "{part}: {stored_line}");
                let broken = stored(&pipeline, part.as_bytes());
                assert!(!broken.contains(CARD), "{part}: {broken}");
            }
        }
    }
}

#[test]
fn a_line_grows_within_a_bound() {
    let set: serde_json::Map<String, Value> = (0..4).map(|n| (format!("f{n}"), "x".repeat(1000).into())).collect();
    let large = pipeline(json!([{"name": "large", "enrich": {"set": set}}]));
    assert_eq!(stored(&large, br#"{"message":"m"}"#), r#"{"message":"m"}"#, "it is stored as sent");
    let spec =
        json!([{"name": "dots", "redact": {"patterns": [{"name": "p", "regex": "."}], "replacement": "x".repeat(64)}}]);
    let dots = pipeline(spec);
    let line = json!({"message": "m".repeat(500)}).to_string();
    assert_eq!(stored(&dots, line.as_bytes()), "withheld: 514 bytes that the stages could not redact");
}

#[test]
fn a_sample_drops_the_same_events_each_time() {
    let pipeline = pipeline(json!([{"name": "some", "sample": {"keepOneIn": 3}}]));
    let kept = || (0..300).filter(|id| matches!(pipeline.rewrite(b"{}", ACCEPTED, *id), Rewritten::Line(_))).collect();
    let first: Vec<u128> = kept();
    assert!((60..=140).contains(&first.len()), "{}", first.len());
    assert_eq!(first, kept());
}

#[test]
fn what_a_parse_stage_cannot_read_may_be_dropped() {
    let pipeline = pipeline(json!([{"name": "json", "parse": {"format": "Json", "onFailure": "Drop"}}]));
    assert_eq!(pipeline.rewrite(br#"{"message":"m"}"#, ACCEPTED, 7), Rewritten::Dropped { stage: "json" });
}

#[test]
fn stages_that_cannot_be_run_say_which_where_and_what_to_do() {
    let pattern = json!({"format": "Regex", "pattern": r"(?<a>\d+"});
    let many: Vec<Value> = (0..5)
        .map(|n| {
            let patterns: Vec<_> = (0..16).map(|p| json!({"name": format!("p{p}"), "regex": "x"})).collect();
            json!({"name": format!("s{n}"), "redact": {"patterns": patterns}})
        })
        .collect();
    let long: Vec<Value> = (0..32)
        .map(|n| json!({"name": format!("s{n}"), "enrich": {"set": {"a": "x".repeat(1024), "b": "y".repeat(1024), "c": "z".repeat(1024)}}}))
        .collect();
    for (stages, code, said) in [
        (
            json!([{"name": "ok", "drop": {}}, {"name": "bad", "parse": pattern}]),
            "invalid_regex",
            "spec.stages[1] `bad`: parse.pattern: at character 1: unclosed group",
        ),
        (json!([{"name": "a"}]), "not_one_kind", "exactly one of"),
        (json!([{"name": "a", "drop": {}, "sample": {"keepOneIn": 2}}]), "not_one_kind", "exactly one of"),
        (json!([{"name": "a", "drop": {}}, {"name": "a", "drop": {}}]), "duplicate_stage", "names are unique"),
        (json!([{"name": "a", "sample": {"keepOneIn": 0}}]), "invalid_sample", "sample.keepOneIn"),
        (json!([{"name": "a", "match": {"fields": [{"name": "x"}]}, "drop": {}}]), "invalid_match", "match.fields[0]"),
        (json!(many), "too_many_patterns", "at most 64 regular expressions"),
        (json!(long), "stages_too_large", "shorten"),
        (
            json!((0..33).map(|n| json!({"name": format!("s{n}"), "drop": {}})).collect::<Vec<_>>()),
            "too_many_stages",
            "32",
        ),
    ] {
        let error = refused(stages);
        assert!(error.code == code && error.to_string().contains(said), "{error:?}");
    }
}
