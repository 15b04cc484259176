//! What is found in a text: by detectors of ours, and by patterns of the user's.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use crds::stage::Detector;
use regex::Regex;

use super::card;

/// Finds one kind of thing.
#[derive(Debug)]
pub(super) struct Finder {
    /// What stands in its place.
    pub(super) label: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Email,
    Card,
    Token,
    Ip,
    Pattern(Regex),
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)[a-z0-9._%+-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.){1,8}[a-z]{2,24}\b").expect("it is tested")
});

/// Where there is a group, the group is the secret.
static TOKENS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        // JSON Web Tokens begin with `{"` in base64.
        r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*",
        r"\blh_[a-z0-9]{12}_[A-Za-z0-9]{43}\b",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r#"(?i)\baws.{0,20}?secret.{0,20}?[:=\s"']([A-Za-z0-9/+=]{40})(?:[^A-Za-z0-9/+=]|$)"#,
        r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
        r"\bgithub_pat_[A-Za-z0-9_]{22,}\b",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        r"(?i)\bbearer\s+([A-Za-z0-9._~+/=-]{8,})",
        r#"(?i)\bauthorization["']?\s*[:=]\s*["']?(?:basic|token|digest|apikey)\s+([^\s"',]{4,})"#,
    ]
    .map(|pattern| Regex::new(pattern).expect("it is tested"))
    .into()
});

static IPV4: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}").expect("it is tested"));
static IPV6: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.[0-9]{1,3}){3})?").expect("it is tested")
});

impl Finder {
    pub(super) fn of(detector: Detector) -> Self {
        let (label, what) = match detector {
            Detector::Email => ("email", What::Email),
            Detector::CardNumber => ("card", What::Card),
            Detector::Token => ("token", What::Token),
            Detector::IpAddress => ("ip", What::Ip),
        };
        Self { label: label.to_owned(), what }
    }

    pub(super) fn custom(name: &str, regex: Regex) -> Self {
        Self { label: name.to_owned(), what: What::Pattern(regex) }
    }

    /// Where it is found, in order; nothing overlaps and nothing is empty.
    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        match &self.what {
            What::Email if !text.contains('@') => Vec::new(),
            What::Email => ranges(&EMAIL, text),
            What::Card => card::find(text),
            What::Token => merged(TOKENS.iter().flat_map(|regex| secrets(regex, text)).collect()),
            What::Ip => merged(ips(text)),
            What::Pattern(regex) => ranges(regex, text),
        }
    }
}

fn ranges(regex: &Regex, text: &str) -> Vec<Range<usize>> {
    regex.find_iter(text).map(|found| found.range()).filter(|range| !range.is_empty()).collect()
}

fn secrets(regex: &Regex, text: &str) -> Vec<Range<usize>> {
    let secret = |captures: regex::Captures<'_>| Some(captures.get(1).or_else(|| captures.get(0))?.range());
    regex.captures_iter(text).filter_map(secret).collect()
}

fn ips(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if text.contains(':') {
        for candidate in IPV6.find_iter(text) {
            // `at fe80::1: unreachable` ends with a colon that is not the address's.
            let end = match candidate.as_str() {
                whole if whole.ends_with(':') && !whole.ends_with("::") => candidate.end() - 1,
                _ => candidate.end(),
            };
            let range = candidate.start()..end;
            if text[range.clone()].parse::<Ipv6Addr>().is_ok() && stands_alone(text, &range) {
                found.push(range);
            }
        }
    }
    let v4 = IPV4.find_iter(text).map(|candidate| candidate.range());
    found.extend(v4.filter(|range| text[range.clone()].parse::<Ipv4Addr>().is_ok() && stands_alone(text, range)));
    found
}

/// Whether no word, number or longer address goes on before or behind.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let (before, after) = (&text.as_bytes()[..range.start], &text.as_bytes()[range.end..]);
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = !matches!(before, [.., last] if goes_on(*last))
        && !matches!(before, [.., digit, b'.'] if digit.is_ascii_digit());
    let ends =
        !matches!(after, [next, ..] if goes_on(*next)) && !matches!(after, [b'.', digit, ..] if digit.is_ascii_digit());
    begins && ends
}

/// The ranges in order, those that touch one another joined.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(detector: Detector, text: &str) -> Vec<&str> {
        Finder::of(detector).find(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn each_detector_finds_its_own() {
        use Detector::{Email, IpAddress, Token};
        let key = format!("lh_{}_{}", "a1b2c3d4e5f6", "x".repeat(43));
        let aws = format!("aws_secret_access_key = {}", "Ab1/".repeat(10));
        let bearer = "authorization: Bearer abc.def-123456";
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
        for (detector, text, expected) in [
            (
                Email,
                "from ada@example.com, to <b.c+d@mail.example.co.uk>",
                vec!["ada@example.com", "b.c+d@mail.example.co.uk"],
            ),
            (Email, "user@host and @handle and a@b.", vec![]),
            (Email, "mail to jürgen@exämple.de", vec![]),
            (Token, jwt, vec![jwt]),
            (Token, bearer, vec!["abc.def-123456"]),
            (Token, "Authorization: Basic dXNlcjpwYXNz", vec!["dXNlcjpwYXNz"]),
            (Token, "the bearer of news", vec![]),
            (Token, "AKIAIOSFODNN7EXAMPLE is a key", vec!["AKIAIOSFODNN7EXAMPLE"]),
            (Token, key.as_str(), vec![key.as_str()]),
            (Token, "lh_short_key", vec![]),
            (Token, aws.as_str(), vec![&aws[24..]]),
            (IpAddress, "10.0.0.1:80 -> [2001:db8::1]:443", vec!["10.0.0.1", "2001:db8::1"]),
            (IpAddress, "at fe80::1: unreachable, ::ffff:192.0.2.7.", vec!["fe80::1", "::ffff:192.0.2.7"]),
            (IpAddress, "version 1.2.3.4.5, 300.1.1.1, 12:34:56, std::net, a1.2.3.4", vec![]),
            (IpAddress, "203.0.113.9, 203.0.113.10.", vec!["203.0.113.9", "203.0.113.10"]),
        ] {
            assert_eq!(found(detector, text), expected, "{text}");
        }
    }

    #[test]
    fn overlapping_finds_are_one() {
        assert_eq!(merged(vec![4..9, 0..5, 12..13]), [0..9, 12..13]);
    }
}
