//! Tables: a redaction, a line, and what is left of it.

use super::*;
use serde_json::{Value, json};

fn redacted(spec: Value, line: Value) -> Value {
    let redactor = Redactor::compile(&serde_json::from_value(spec).unwrap()).unwrap();
    let raw = line.to_string();
    let mut found = Line::read(raw.as_bytes()).unwrap();
    let changed = redactor.apply(&mut found);
    assert_eq!(changed, found.written() != raw.as_bytes(), "{line}");
    found.shown()
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
    assert_eq!(line.shown(), json!({"message": "[email]"}));
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
        (
            json!({"fields": ["users.email"]}),
            json!({"users": [{"email": "a", "id": 1}, [{"email": "b"}], "c"], "email": "d"}),
            json!({"users": [{"email": "[redacted]", "id": 1}, [{"email": "[redacted]"}], "c"], "email": "d"}),
        ),
        (
            json!({"fields": ["a.b.c"], "action": "Remove"}),
            json!({"a.b": {"c": 1, "d": 2}, "a": {"b.c": 3, "b": [{"c": 4}]}, "a.b.c": 5, "c": 6}),
            json!({"a.b": {"d": 2}, "a": {"b": [{}]}, "c": 6}),
        ),
        (
            json!({"fields": ["to.mail"], "detectors": ["Email"]}),
            json!({"to": [{"mail": ["a@example.com", "b"]}], "cc": "c@example.com"}),
            json!({"to": [{"mail": ["[email]", "b"]}], "cc": "c@example.com"}),
        ),
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
fn no_redacted_name_takes_the_place_of_another() {
    let spec = json!({"detectors": ["Email"]});
    for (line, expected) in [
        (
            json!({"counts": {"a@x.com": 1, "b@x.com": 2, "c@x.com": 3}}),
            json!({"counts": {"[email]": 1, "[email]#2": 2, "[email]#3": 3}}),
        ),
        (
            json!({"[email]": 1, "[email]#3": 2, "a@x.com": 3, "b@x.com": 4}),
            json!({"[email]": 1, "[email]#3": 2, "[email]#2": 3, "[email]#4": 4}),
        ),
    ] {
        assert_eq!(redacted(spec.clone(), line.clone()), expected, "{line}");
    }
    let hash = json!({"detectors": ["Email"], "action": "Hash", "salt": "a salt of the test's"});
    let line = redacted(hash, json!({"a@x.com": 1, "b@x.com": 2}));
    assert!(line.as_object().unwrap().keys().all(|name| name.len() == "[email:]".len() + HASH_DIGITS), "{line}");
}

#[test]
fn credentials_are_found_by_the_name_that_they_stand_under() {
    let aws = "Ab1/".repeat(10);
    let spec = json!({"detectors": ["Token"]});
    for (line, expected) in [
        (
            json!({"req": {"headers": {"authorization": "Custom s3cr3t"}}}),
            json!({"req": {"headers": {"authorization": "Custom [token]"}}}),
        ),
        (json!({"Authorization": ["Token abc", "x"]}), json!({"Authorization": ["Token [token]", "x"]})),
        (
            json!({"headers": [{"name": "Authorization", "value": "Token abc"}, {"name": "accept", "value": "Token abc"}]}),
            json!({"headers": [{"name": "Authorization", "value": "Token [token]"}, {"name": "accept", "value": "Token abc"}]}),
        ),
        (
            json!({"rawHeaders": ["host", "x y", "Authorization", "Token abc", "accept", "a b"]}),
            json!({"rawHeaders": ["host", "x y", "Authorization", "Token [token]", "accept", "a b"]}),
        ),
        (
            json!({"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": aws}], "secretAccessKey": aws, "sha1": aws}),
            json!({"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "[token]"}], "secretAccessKey": "[token]", "sha1": aws}),
        ),
        (json!({"vary": ["authorization", "accept-encoding"]}), json!({"vary": ["authorization", "accept-encoding"]})),
        (json!({"authorization": {"allowed": "by a policy"}}), json!({"authorization": {"allowed": "by a policy"}})),
    ] {
        assert_eq!(redacted(spec.clone(), line.clone()), expected, "{line}");
        assert_eq!(redacted(spec.clone(), expected.clone()), expected, "a second stage finds nothing more");
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
    assert_eq!(first, hash("a salt of the test's", "ada%40example.com"), "however it is escaped");
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

#[test]
fn secrets_pass_in_no_form_that_others_met_them_in() {
    const BASIC: &str = "YWRhOmxvdmVsYWNlLXNlY3JldA";
    let detectors = json!(["Email", "CardNumber", "Token", "IpAddress"]);
    let pem = "(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----";
    let spec = json!({"detectors": detectors, "patterns": [{"name": "private-key", "regex": pem}]});
    for (line, gone, stays) in [
        (
            json!({"message": "req", "req": {"headers": {"authorization": format!("Basic {BASIC}=="), "accept": "*/*"}}}),
            vec![BASIC],
            vec!["req", "*/*"],
        ),
        (
            json!({"message": format!("map[Accept:[*/*] Authorization:[Basic {BASIC}==]]")}),
            vec![BASIC],
            vec!["map[Accept:[*/*] "],
        ),
        (json!({"message": format!("> Authorization: Basic {BASIC}==")}), vec![BASIC], vec![]),
        (
            json!({"message": format!(r#""{{\"headers\": {{\"Authorization\": \"Basic {BASIC}==\"}}}}""#)}),
            vec![BASIC],
            vec![],
        ),
        (
            json!({"message": "GET /api?access_token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLXg&x=1 HTTP/1.1"}),
            vec!["eyJhbGciOiJIUzI1NiJ9", "c2lnbmF0dXJl"],
            vec!["access_token=", "&x=1 HTTP/1.1"],
        ),
        (
            json!({"message": "AKIAIOSFODNN7EXAMPLE then ghp_a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2 then xoxb-000000000000-abcdefghijkl"}),
            vec!["AKIAIOSF", "a1B2a1B2", "abcdefghijkl"],
            vec!["then"],
        ),
        (
            json!({"message": "to <ada+test@mail.example.co.uk>."}),
            vec!["ada+test", "example.co.uk"],
            vec!["to <", ">."],
        ),
        (
            json!({"message": "GET /reset?email=ada%40example.com&x=1"}),
            vec!["ada%40example.com"],
            vec!["GET /reset?email=", "&x=1"],
        ),
        (json!({"message": "to jürgen@example.de now"}), vec!["rgen@", "jü["], vec!["to ", " now"]),
        (json!({"message": "to ada@exämple.de now"}), vec!["ada@"], vec!["now"]),
        (json!({"message": "seen", "users": {"ada@example.com": 1}}), vec!["ada@example.com"], vec!["seen"]),
        (
            json!({"message": "paid 4111 1111 1111 1111, 5555-5555-5555-4444", "pan": 4111111111111111_u64}),
            vec!["4111", "4444"],
            vec!["paid"],
        ),
        (
            json!({"message": "%B4111111111111111^LOVELACE/ADA^29121010000000000000?;4111111111111111=29121010000000000000?"}),
            vec!["4111111111111111"],
            vec!["LOVELACE"],
        ),
        (
            json!({"message": "card=4111+1111+1111+1111&alt=4111%201111%201111%201111"}),
            vec!["4111"],
            vec!["card=", "&alt="],
        ),
        (
            json!({"message": "4111.1111.1111.1111 and 4111\u{a0}1111\u{a0}1111\u{a0}1111 and pan_4111111111111111"}),
            vec!["4111"],
            vec!["pan_"],
        ),
        (
            json!({"message": "from [2001:db8::1]:443 via 203.0.113.9:80, ::ffff:203.0.113.10, 2001:db8::2%eth0"}),
            vec!["2001:db8::1", "203.0.113.9", "203.0.113.10", "2001:db8::2"],
            vec!["443"],
        ),
        (
            json!({"message": "main :: IO () at 12:34:56, std::net, wwn 00:11:22:33:44:55:66:77"}),
            vec![],
            vec!["main :: IO () at 12:34:56, std::net, wwn 00:11:22:33:44:55:66:77"],
        ),
        (
            json!({"message": "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34\nGkxFhD90vcNLYLInFEX\n-----END RSA PRIVATE KEY-----"}),
            vec!["MIIBOgIBAAJBAKj34", "GkxFhD90vcNLYLInFEX"],
            vec![],
        ),
    ] {
        let redactor = Redactor::compile(&serde_json::from_value(spec.clone()).unwrap()).unwrap();
        let as_event = redacted(spec.clone(), line.clone()).to_string();
        // Cut off, it is no JSON, and a dead letter.
        let raw = line.to_string();
        let as_letter = redactor.conceal(&raw[..raw.len() - 1]).unwrap();
        // A log inside a log.
        let inside = redacted(spec.clone(), json!({"log": raw, "twice": json!({"log": raw}).to_string()})).to_string();
        for found in [&as_event, &as_letter, &inside] {
            let kept = gone.iter().find(|secret| found.contains(*secret));
            assert!(kept.is_none(), "{kept:?} is in {found}");
        }
        let lost = stays.iter().find(|word| !as_event.contains(*word));
        assert!(lost.is_none(), "{lost:?} is not in {as_event}");
    }
}
