//! The table of bad and odd bodies: what each becomes, by the content type that it came with.

use super::events::{Events, Found, Taking};
use super::limits::{MAX_EVENT_BYTES, MAX_EVENTS};
use super::parse::Form;
use super::protocols::native;
use super::refusal::Refusal;
use crate::queue::Budget;
use crate::queue::entry::Rejection;

const NOW: i64 = 1_767_323_045_000_000;

/// The budget has nothing beyond the body: what is split needs no more.
fn parse(body: &[u8], form: Form, taking: Taking, now: i64) -> Result<Found, Refusal> {
    let mut claim = Budget::new(0).claim();
    let mut events = Events::new(taking, now, body.len(), &mut claim);
    form.split(body, &mut events)?;
    events.finish()
}

fn parsed(body: impl AsRef<[u8]>, form: Form) -> Result<Found, Refusal> {
    parse(body.as_ref(), form, Taking::Each, NOW)
}

/// Lines taken, lines rejected; or the code.
type Outcome = Result<(usize, usize), &'static str>;

fn outcome(body: impl AsRef<[u8]>, form: Form) -> Outcome {
    parsed(body, form)
        .map(|parsed| (parsed.events.len() - parsed.rejected.len(), parsed.rejected.len()))
        .map_err(|refusal| refusal.code().as_str())
}

fn nested(depth: usize) -> String {
    format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[test]
fn of_a_json_body_the_good_events_are_kept() {
    let many = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    let long = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    let wide = format!("{{{}}}", (0..10_000).map(|n| format!(r#""f{n}":1"#)).collect::<Vec<_>>().join(","));
    let cases: Vec<(Vec<u8>, Outcome)> = vec![
        ("".into(), Err("empty_batch")),
        (" \r\n\t ".into(), Err("empty_batch")),
        ("\u{feff}".into(), Err("empty_batch")),
        ("[]".into(), Err("empty_batch")),
        (" [ ] ".into(), Err("empty_batch")),
        ("{}".into(), Ok((1, 0))),
        (r#"{"message":"x"}"#.into(), Ok((1, 0))),
        ("\u{feff}{\"message\":\"x\"}".into(), Ok((1, 0))),
        ("{\r\n \"message\":\r\n \"x\"}\r\n".into(), Ok((1, 0))),
        (r#"[{"a":1},{"a":2} , {"a":3}]"#.into(), Ok((3, 0))),
        (r#"[{"a":1},{"a":2},]"#.into(), Err("invalid_json")),
        (r#"[{"a":1} {"a":2}]"#.into(), Err("invalid_json")),
        (r#"[{"a":1}"#.into(), Err("invalid_json")),
        (r#"[{"a":1}]]"#.into(), Err("invalid_json")),
        (r#"[{"a":1}] {}"#.into(), Err("invalid_json")),
        (r#"[{"a":1},2]"#.into(), Ok((1, 1))),
        (r#"[[{"a":1}]]"#.into(), Err("invalid_json")),
        ("[null]".into(), Err("invalid_json")),
        (r#"[{"a":1},{"a":NaN},{"a":2},"text",{"a":"],}\"]"}]"#.into(), Ok((3, 2))),
        (format!("[{{}},{},{{}}]", nested(33)).into(), Ok((2, 1))),
        (format!("[{},{{}}]", nested(100_000)).into(), Ok((1, 1))),
        (r#"[{"a":1},{"a":"torn]"#.into(), Err("invalid_json")),
        (r#"["my-password"]"#.into(), Err("invalid_json")),
        ("[".into(), Err("invalid_json")),
        ("{".into(), Err("invalid_json")),
        ("null".into(), Err("invalid_json")),
        ("1".into(), Err("invalid_json")),
        ("plain text".into(), Err("invalid_json")),
        (r#"{"a":NaN}"#.into(), Err("invalid_json")),
        (r#"{"a":1e999}"#.into(), Err("invalid_json")),
        (r#"{"a":18446744073709551616}"#.into(), Ok((1, 0))),
        (r#"{"a":1,"a":2}"#.into(), Ok((1, 0))),
        (r#"{"a":"\ud800"}"#.into(), Ok((1, 0))),
        (r#"{"a":"\ud83d\ude00"}"#.into(), Ok((1, 0))),
        (b"{\"a\":\"\xff\"}".to_vec(), Err("invalid_json")),
        (r#"{"a":"\u0000"}"#.into(), Ok((1, 0))),
        ("{\"a\":\"\0\"}".into(), Err("invalid_json")),
        ("{\"a\":\"\u{2028}\"}".into(), Ok((1, 0))),
        (r#"{"message":"${jndi:ldap://x}\u001b[31m<script>"}"#.into(), Ok((1, 0))),
        ("{\"a\":1}\n{\"a\":2}\n".into(), Ok((2, 0))),
        ("{\"a\":1}{\"a\":2}".into(), Ok((2, 0))),
        ("{\"a\":1}\nbroken\n{\"a\":2}".into(), Ok((2, 1))),
        ("{\n\"a\":\n{}\n".into(), Err("invalid_json")),
        (nested(32).into(), Ok((1, 0))),
        (nested(33).into(), Err("too_deep")),
        (nested(128).into(), Err("too_deep")),
        (nested(100_000).into(), Err("too_deep")),
        ("[".repeat(100_000).into(), Err("invalid_json")),
        (wide.into(), Err("event_too_large")),
        (format!(r#"{{"{}":1}}"#, "k".repeat(65_536)).into(), Ok((1, 0))),
        (long(MAX_EVENT_BYTES).into(), Ok((1, 0))),
        (long(MAX_EVENT_BYTES + 1).into(), Err("event_too_large")),
        (format!("[{{}},{}]", long(5_000_000)).into(), Ok((1, 1))),
        (many(MAX_EVENTS).into(), Ok((MAX_EVENTS, 0))),
        (many(MAX_EVENTS + 1).into(), Err("too_many_events")),
        (r#"{"tenant":"acme"}"#.into(), Ok((1, 0))),
        (r#"[{},{"tenant_id":"globex"}]"#.into(), Ok((2, 0))),
    ];
    for (body, expected) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(outcome(&body, Form::Json), expected, "{shown}");
    }
}

#[test]
fn of_lines_the_good_are_events_and_the_bad_dead_letters() {
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES));
    let cases: Vec<(Vec<u8>, Outcome)> = vec![
        ("\n\r\n \n".into(), Err("empty_batch")),
        ("{\"a\":1}\n{\"a\":2}\n".into(), Ok((2, 0))),
        ("{\"a\":1}\n{\"a\":2}".into(), Ok((2, 0))),
        ("{\"a\":1}\r\n\r\n{\"a\":2}\r\n".into(), Ok((2, 0))),
        ("\u{feff}{\"a\":1}\n".into(), Ok((1, 0))),
        ("{\"a\":1}\nplain\n{\"a\":2".into(), Ok((1, 2))),
        ("{\"a\":1}{\"a\":2}\n{\"a\":3}".into(), Ok((3, 0))),
        ("{\"a\":1},\n\u{1e}{\"a\":2}\n{\"a\":3}, {\"a\":4}".into(), Ok((4, 0))),
        ("{\"a\":1}rest\n{\"a\":\"\\ud83d\"}".into(), Ok((1, 1))),
        ("{\"a\":1}\n[{\"a\":2}]\n3\nnull".into(), Ok((1, 3))),
        (b"{\"a\":1}\n{\"a\":\"\xff\"}\n\0".to_vec(), Ok((1, 2))),
        (format!("{{}}\n{}\n{long}", nested(33)).into(), Ok((1, 2))),
        ("plain\ntext".into(), Err("invalid_json")),
        ("[{\"a\":1}]".into(), Err("invalid_json")),
        (nested(33).into(), Err("too_deep")),
        (long.into(), Err("event_too_large")),
        ("{}\n".repeat(MAX_EVENTS).into(), Ok((MAX_EVENTS, 0))),
        ("x\n".repeat(MAX_EVENTS + 1).into(), Err("too_many_events")),
        ("{}\n{\"tenant\":\"globex\"}".into(), Ok((2, 0))),
        ("{}".repeat(MAX_EVENTS + 1).into(), Err("too_many_events")),
    ];
    for (body, expected) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(outcome(&body, Form::Lines), expected, "{shown}");
    }
}

#[test]
fn without_a_content_type_the_body_says_its_form() {
    for (body, expected) in [
        ("[{},{}]", Ok((2, 0))),
        ("{\n}", Ok((1, 0))),
        ("{}\n{}", Ok((2, 0))),
        ("{}\nplain", Ok((1, 1))),
        ("plain\n{}", Ok((1, 1))),
        ("plain", Err("invalid_json")),
        ("{\n\"a\":\n", Err("invalid_json")),
        ("[{}", Err("invalid_json")),
        ("", Err("empty_batch")),
    ] {
        assert_eq!(outcome(body, Form::Unsaid), expected, "{body}");
    }
}

#[test]
fn an_item_of_several_objects_counts_each_of_them() {
    // The half of a surrogate pair makes the last item one to look at again, and it is full of objects.
    let (few, many) = ("{},".repeat(MAX_EVENTS - 1), " {}".repeat(MAX_EVENTS));
    let body = format!(r#"[{few}{{"a":"\ud83d"}}{many}]"#);
    assert_eq!(parsed(body, Form::Json), Err(Refusal::TooManyEvents));
}

#[test]
fn all_or_nothing_is_kept_on_request() {
    for (query, expected) in [
        (None, Ok(Taking::Each)),
        (Some("a=b&atomic=false"), Ok(Taking::Each)),
        (Some("atomic=true&x"), Ok(Taking::Atomic)),
        (Some("atomic"), Err(Refusal::InvalidAtomic)),
        (Some("atomic=yes"), Err(Refusal::InvalidAtomic)),
        (Some("atomic=true&atomic=true"), Err(Refusal::InvalidAtomic)),
    ] {
        assert_eq!(native::taking(query), expected, "{query:?}");
    }
    for (body, form) in [("[{},2]", Form::Json), ("{}\nbroken", Form::Lines)] {
        let refusal = parse(body.as_bytes(), form, Taking::Atomic, NOW).unwrap_err();
        assert!(matches!(refusal, Refusal::InvalidJson { index: 1, .. }), "{refusal}");
    }
    assert_eq!(parse(b"[{},{}]", Form::Json, Taking::Atomic, NOW).unwrap().events.len(), 2);
}

#[test]
fn a_refusal_names_the_event_and_repeats_nothing() {
    let long = format!("[\"my-password{}\"]", "\u{7f}".repeat(1_000_000));
    for (body, expected) in [
        (
            r#"[{},{},{"a"}"#,
            "event 2 is not valid: expected `:` at line 1 column 5 of the event, which begins at byte 7",
        ),
        (
            r#"["my-password"]"#,
            "event 0 is not valid: expected a JSON object at line 1 column 1 of the event, which begins at byte 1",
        ),
        (
            long.as_str(),
            "event 0 is not valid: expected a JSON object at line 1 column 1 of the event, which begins at byte 1",
        ),
        (&format!("[{}]", nested(33)), "event 0 is nested deeper than 32 levels"),
    ] {
        assert_eq!(parsed(body, Form::Json).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_dead_letter_of_an_array_has_its_items_bytes() {
    let array = parsed(r#"[{"a":1}, {"a":NaN} ,[2],{"b":2}]"#, Form::Json).unwrap();
    let mut at = 0;
    let items = array.events.iter().map(|event| {
        let item = &array.raw[at..at + event.length as usize];
        at += event.length as usize;
        (std::str::from_utf8(item).unwrap().trim_end(), event.rejected)
    });
    let expected = [
        (r#"{"a":1}"#, None),
        (r#"{"a":NaN}"#, Some(Rejection::InvalidJson)),
        ("[2]", Some(Rejection::InvalidJson)),
        (r#"{"b":2}"#, None),
    ];
    assert_eq!(items.collect::<Vec<_>>(), expected);
}

#[test]
fn the_raw_bytes_are_those_that_were_sent() {
    let array = parsed("[ {\"a\" : 1.0},\n{\"b\":\"\\u00e9\"} ]", Form::Json).unwrap();
    assert_eq!(array.raw, b"{\"a\" : 1.0}{\"b\":\"\\u00e9\"}");
    assert_eq!(array.events.iter().map(|event| event.length).collect::<Vec<_>>(), [11, 14]);
    let lines = parsed(b"{\"a\": 1}\r\nnot \xff json\r\n", Form::Lines).unwrap();
    assert_eq!(lines.raw, b"{\"a\": 1}not \xff json");
    assert_eq!(lines.events[1].rejected, Some(Rejection::InvalidJson));
}

#[test]
fn an_absurd_time_is_not_passed_on() {
    for (sent, expected) in [
        ("\"2026-01-02T03:04:05.123456789Z\"", Some(NOW + 123_456)),
        ("1767323045", Some(NOW)),
        ("0", None),
        ("\"1970-01-01T00:00:00Z\"", None),
        ("\"2100-01-01T00:00:00Z\"", None),
        ("\"9999-12-31T23:59:59Z\"", None),
        ("\"yesterday\"", None),
    ] {
        let event = format!(r#"{{"timestamp":{sent}}}"#);
        assert_eq!(parsed(&event, Form::Json).unwrap().events[0].time, expected, "{sent}");
    }
}

#[test]
fn a_content_type_is_json_lines_unsaid_or_refused() {
    for (value, expected) in [
        (Some("application/json"), Ok(Form::Json)),
        (Some("Application/JSON; charset=utf-8"), Ok(Form::Json)),
        (Some("application/x-ndjson"), Ok(Form::Lines)),
        (Some("application/x-www-form-urlencoded"), Ok(Form::Unsaid)),
        (Some(""), Ok(Form::Unsaid)),
        (None, Ok(Form::Unsaid)),
        (Some("application/msgpack"), Err(Refusal::UnsupportedContentType)),
        (Some("text/html"), Err(Refusal::UnsupportedContentType)),
    ] {
        assert_eq!(native::form(value), expected, "{value:?}");
    }
}

#[test]
fn the_cache_may_be_left_out() {
    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        settings: super::Settings,
    }
    let parse = |more: &[&str]| {
        let needed = ["ingest", "--redis-queue-url", "redis://queue", "--peppers", "/peppers"];
        let program: Program = clap::Parser::try_parse_from(needed.iter().chain(more)).unwrap();
        program.settings.cache.cache_url
    };
    assert_eq!(parse(&[]), None);
    assert_eq!(parse(&["--redis-cache-url", "redis://cache"]).as_deref(), Some("redis://cache"));
}
