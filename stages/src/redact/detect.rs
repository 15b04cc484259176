//! What is found in a text: by detectors of ours, and by patterns of the user's. Both look at what its escapes
//! stand for too.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use crds::stage::Detector;
use regex::{Regex, RegexSet};

use super::{card, email, plain};

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

/// What a value holds, by the name that it stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secret {
    /// Credentials of a request.
    Authorization,
    /// The same, if it has the form: what follows the header's name in a list, which may be a list of names.
    AfterAuthorization,
    /// A key of AWS.
    AwsKey,
}

/// Whether what has the form of a secret is one.
type Check = fn(&str) -> bool;

/// Patterns of secrets, and what holds of them. Where there are groups, the one that took part is the secret.
const TOKENS: [(&str, Check); 12] = [
    // JSON Web Tokens begin with `{"` in base64; signed ones have three parts, and encrypted ones five.
    (
        r"(?-u:\b|_)(eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+){0,2}|\.(?:\.[A-Za-z0-9_-]+){3}))",
        any,
    ),
    (r"(?-u:\b|_)(lh_[a-z0-9]{12}_[A-Za-z0-9]{43})(?-u:\b|_)", any),
    (r"(?-u:\b|_)((?:AKIA|ASIA)[A-Z0-9]{16})(?-u:\b|_)", any),
    (
        r#"(?i)(?:(?-u:\b|_)aws.{0,20}?secret|secret_?access_?key).{0,20}?[:=\s"']([A-Za-z0-9/+=]{40})(?:[^A-Za-z0-9/+=]|$)"#,
        any,
    ),
    (r"(?-u:\b|_)(gh[pousr]_[A-Za-z0-9]{36,})(?-u:\b|_)", any),
    (r"(?-u:\b|_)(github_pat_[A-Za-z0-9_]{22,})(?-u:\b)", any),
    (r"(?-u:\b|_)(xox[abeoprs]-[A-Za-z0-9-]{10,})", any),
    (r"(?i)(?-u:\b|_)bearer[\s+]+([A-Za-z0-9._~+/=-]{8,})", any),
    // A name and a password, wherever they stand: in a list of headers, say, which has the name elsewhere.
    (r"(?i)(?-u:\b|_)basic[\s+]+([A-Za-z0-9+/_-]{4,}={0,2})", is_name_and_password),
    // A header in any language's print: `Authorization: x`, `authorization => "x"`, `Authorization:[x]`,
    // `"name": "authorization", "value": "x"`.
    (
        r#"(?ix)(?-u:\b|_)authorization [^a-z0-9:=,>]{0,16} [:=,>] [^a-z0-9]{0,16} (?: values? [^a-z0-9]{1,16} )?
           (?: basic | bearer | token | digest | api-?key | negotiate | ntlm | hawk | jwt | dpop | oauth | signature
             | aws4-hmac-sha256 ) [\s+]+
           ( (?: [a-z0-9_-]+ = (?: "[^"]*" | [^\s",]+ ) (?: ,\s* | \b ) )+ | [^\s"',\[\]})>;] [^\s"',\]})>;]{3,} )"#,
        any,
    ),
    (
        r#"(?ix)(?-u:\b|_)authorization [^a-z0-9:=,>]{0,16} [:=,>] [^a-z0-9]{0,16} (?: values? [^a-z0-9]{1,16} )?
           ( [a-z0-9._~+/=-]{20,} )"#,
        is_mixed,
    ),
    // JSON inside a text: as of JSON itself, whatever the scheme.
    (
        r#"(?ix)(?-u:\b|_)authorization ["'] \s* (?: , \s* ["'] (?: values? | val | v ) ["'] \s* )? [:=] >? \s* \[? \s* ["'] \s*
           (?: [a-z0-9-]+ \s+ ( [^"'\s\[] [^"']* ) | ( [^"'\s\[]{8,} ) )"#,
        any,
    ),
];

static TOKEN_REGEXES: LazyLock<Vec<Regex>> =
    LazyLock::new(|| TOKENS.iter().map(|(pattern, _)| Regex::new(pattern).expect("it is tested")).collect());
/// Says which of them match, in one pass.
static TOKEN_SET: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(TOKENS.iter().map(|(pattern, _)| pattern)).expect("it is tested"));

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

    /// Where it is found, in order; nothing overlaps and nothing is empty. `secret` is what the whole text is.
    pub(super) fn find(&self, text: &str, secret: Option<Secret>) -> Vec<Range<usize>> {
        let mut found = plain::find(text, &|text| self.look(text));
        if matches!(self.what, What::Token)
            && let Some(range) = secret.and_then(|secret| secret.in_text(text))
        {
            found.push(range);
            found = plain::merged(found);
        }
        found
    }

    /// Whether names say what the values under them are.
    pub(super) fn goes_by_names(&self) -> bool {
        matches!(self.what, What::Token)
    }

    fn look(&self, text: &str) -> Vec<Range<usize>> {
        match &self.what {
            What::Email => email::find(text),
            What::Card => card::find(text),
            What::Token => tokens(text),
            What::Ip => ips(text),
            What::Pattern(regex) => {
                regex.find_iter(text).map(|found| found.range()).filter(|range| !range.is_empty()).collect()
            }
        }
    }
}

impl Secret {
    /// What stands under this name of a field, a header or a variable.
    pub(super) fn under(name: &str) -> Option<Self> {
        // Those that are meant have no fewer and not many more characters, and end with one of three letters.
        let last = name.bytes().rfind(u8::is_ascii_alphanumeric)?;
        if !(9..=256).contains(&name.len()) || !matches!(last | 0x20, b'n' | b'y' | b't') {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let last = name.split(|c: char| !c.is_ascii_alphanumeric()).rfind(|word| !word.is_empty())?;
        if last == "authorization" {
            return Some(Self::Authorization);
        }
        let bare: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let is_key = ["secretaccesskey", "awssecretkey", "awssecret"].iter().any(|ending| bare.ends_with(ending));
        is_key.then_some(Self::AwsKey)
    }

    /// The secret in a value that stands under such a name.
    fn in_text(self, text: &str) -> Option<Range<usize>> {
        let start = text.len() - text.trim_start_matches(|c: char| c.is_whitespace() || "[\"'".contains(c)).len();
        let end = text.trim_end().len();
        let value = text.get(start..end)?;
        match self {
            Self::AwsKey => (value.len() == 40 && value.bytes().all(is_base64)).then_some(start..end),
            Self::Authorization | Self::AfterAuthorization => {
                let is_scheme = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                match value.split_once(char::is_whitespace) {
                    Some((scheme, rest)) if is_scheme(scheme) => {
                        let start = end - rest.trim_start().len();
                        // What stands for a secret already is none.
                        (!text[start..end].starts_with("[token")).then_some(start..end)
                    }
                    _ if self == Self::AfterAuthorization => None,
                    // A word is no secret: `granted`.
                    _ => (value.len() >= 8 && !value.starts_with("token")).then_some(start..end),
                }
            }
        }
    }
}

fn any(_: &str) -> bool {
    true
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// Whether it has letters and digits: an identifier, and no words.
fn is_mixed(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether it is base64 of a text with a colon.
fn is_name_and_password(text: &str) -> bool {
    let (mut bits, mut count) = (0_u32, 0);
    let mut has_colon = false;
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            _ => 63,
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            let decoded = bits >> count & 0xff;
            if decoded < 0x20 {
                return false;
            }
            has_colon |= decoded == u32::from(b':');
        }
    }
    has_colon
}

fn tokens(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for at in TOKEN_SET.matches(text) {
        for captures in TOKEN_REGEXES[at].captures_iter(text) {
            let secret = captures.iter().skip(1).flatten().next().or_else(|| captures.get(0));
            found.extend(secret.filter(|secret| TOKENS[at].1(secret.as_str())).map(|secret| secret.range()));
        }
    }
    found
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
            if is_address(&text[range.clone()]) && stands_alone(text, &range) {
                found.push(range);
            }
        }
    }
    let v4 = IPV4.find_iter(text).map(|candidate| candidate.range());
    found.extend(v4.filter(|range| text[range.clone()].parse::<Ipv4Addr>().is_ok() && stands_alone(text, range)));
    found
}

/// Whether it is an address of somebody: not `::` alone, nor the eight bytes of a World Wide Name.
fn is_address(text: &str) -> bool {
    let is_name = text.len() == 23 && text.split(':').all(|group| group.len() == 2);
    !is_name && text.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_unspecified())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(detector: Detector, text: &str) -> Vec<&str> {
        Finder::of(detector).find(text, None).into_iter().map(|range| &text[range]).collect()
    }

    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
    const BASIC: &str = "YWRhOmxvdmVsYWNlLXNlY3JldA==";

    #[test]
    fn tokens_are_told_from_other_words() {
        let key = format!("lh_{}_{}", "a1b2c3d4e5f6", "x".repeat(43));
        let aws = "Ab1/".repeat(10);
        let github = format!("ghp_{}", "a1B2".repeat(9));
        let encrypted = "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVydGV4dA.dGFn";
        for (text, secrets) in [
            (JWT.to_owned(), vec![JWT]),
            (format!("GET /api?access_token={JWT}&x=1"), vec![JWT]),
            (format!("id_{JWT}, {encrypted}."), vec![JWT, encrypted]),
            ("authorization: Bearer abc.def-123456".into(), vec!["abc.def-123456"]),
            ("map[Authorization:[Bearer abc.def-123456]]".into(), vec!["abc.def-123456"]),
            ("bearer+abcdefgh1".into(), vec!["abcdefgh1"]),
            ("AKIAIOSFODNN7EXAMPLE is a key, key_AKIAIOSFODNN7EXAMPLE too".into(), vec!["AKIAIOSFODNN7EXAMPLE"; 2]),
            (
                format!("{key} {github} xoxb-000000000000-abcdefghijkl"),
                vec![&key, &github, "xoxb-000000000000-abcdefghijkl"],
            ),
            (format!("github_pat_{}", "A1_".repeat(10)), vec!["github_pat_A1_A1_A1_A1_A1_A1_A1_A1_A1_A1_"]),
            (format!("aws_secret_access_key = {aws}"), vec![&aws]),
            (format!("MY_AWS_SECRET={aws}"), vec![&aws]),
            (format!(r#"{{"SecretAccessKey": "{aws}"}}"#), vec![&aws]),
            ("Authorization: Basic dXNlcjpwYXNz".into(), vec!["dXNlcjpwYXNz"]),
            (format!("> Authorization: Basic {BASIC}"), vec![BASIC]),
            (format!("map[Accept:[*/*] Authorization:[Basic {BASIC}]]"), vec![BASIC]),
            (format!("[[host x] [authorization Basic {BASIC}]]"), vec![BASIC]),
            (format!(r#"{{"name":"x","value":"basic {BASIC}"}}"#), vec![BASIC]),
            (format!("GET /?HTTP_AUTHORIZATION=x&a=Basic+{BASIC}"), vec![BASIC]),
            ("authorization => 'Token abc1'".into(), vec!["abc1"]),
            ("Proxy-Authorization: Negotiate YIIabc==".into(), vec!["YIIabc=="]),
            (r#"{"name": "Authorization", "value": "ApiKey s3cr3t"}"#.into(), vec!["s3cr3t"]),
            (r#"{"headers":{"authorization":"Custom s3cr3t"}}"#.into(), vec!["s3cr3t"]),
            (r#"[{"name":"authorization","value":"s3cr3t-s3cr3t"}]"#.into(), vec!["s3cr3t-s3cr3t"]),
            (r#"{'Authorization': ['Custom s3cr3t', 'b']}"#.into(), vec!["s3cr3t"]),
            (r#"["authorization","content-type"], {"authorization":"granted"}"#.into(), vec![]),
            (
                r#"Authorization: Digest username="ada", realm="r, s", response=0a1b next"#.into(),
                vec![r#"username="ada", realm="r, s", response=0a1b"#],
            ),
            (
                "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/x, Signature=0a1b".into(),
                vec!["Credential=AKIAIOSFODNN7EXAMPLE/x, Signature=0a1b"],
            ),
            ("Authorization: 0123456789abcdef0123".into(), vec!["0123456789abcdef0123"]),
            ("the bearer of news, a basic course, authorization: granted, lh_short_key".into(), vec![]),
            ("Basic authentication, basic training, BASIC AUTH".into(), vec![]),
            ("authorization failed: internationalization-of-everything".into(), vec![]),
            ("keyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.x".into(), vec![]),
        ] {
            assert_eq!(found(Detector::Token, &text), secrets, "{text}");
            let redacted = secrets.iter().fold(text.clone(), |text, secret| text.replace(secret, "[token]"));
            assert_eq!(found(Detector::Token, &redacted), [""; 0], "{redacted}");
        }
    }

    #[test]
    fn addresses_are_told_from_other_numbers() {
        for (text, expected) in [
            ("10.0.0.1:80 -> [2001:db8::1]:443", vec!["10.0.0.1", "2001:db8::1"]),
            ("at fe80::1: unreachable, ::ffff:192.0.2.7.", vec!["fe80::1", "::ffff:192.0.2.7"]),
            ("from 2001:db8::2%eth0, ::1", vec!["2001:db8::2", "::1"]),
            ("version 1.2.3.4.5, 300.1.1.1, 12:34:56, std::net, a1.2.3.4", vec![]),
            ("main :: IO (), wwn 00:11:22:33:44:55:66:77, mac 00:11:22:33:44:55", vec![]),
            ("203.0.113.9, 203.0.113.10.", vec!["203.0.113.9", "203.0.113.10"]),
        ] {
            assert_eq!(found(Detector::IpAddress, text), expected, "{text}");
        }
    }

    #[test]
    fn each_detector_finds_its_own_in_every_escaping() {
        let basic = format!(r#"{{"headers": [{{"name": "Authorization", "value": "Token {}"}}]}}"#, "t".repeat(9));
        for (detector, text, secret) in [
            (Detector::Email, "<ada+test@example.com>", "ada+test@example.com"),
            (Detector::Email, "an 'ada@exämple.de'", "ada@exämple.de"),
            (Detector::CardNumber, "pan \"4111 1111 1111 1111\"", "4111 1111 1111 1111"),
            (Detector::Token, &basic, "ttttttttt"),
            (Detector::Token, "x=\"Bearer abcdefgh12\"", "abcdefgh12"),
            (Detector::IpAddress, "\"2001:db8::1\" '10.0.0.1'", "2001:db8::1"),
        ] {
            let json = |text: &str| serde_json::to_string(text).unwrap();
            let ascii = |text: &str| text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>();
            let url = |text: &str| {
                let byte = |c: char| {
                    if c.is_ascii_alphanumeric() || !c.is_ascii() { c.into() } else { format!("%{:02X}", u32::from(c)) }
                };
                text.chars().map(byte).collect::<String>()
            };
            let html = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('@', "&#64;");
            for escaped in [
                text.to_owned(),
                json(text),
                json(&json(&json(text))),
                ascii(text),
                json(&ascii(text)),
                url(text),
                url(&url(text)),
                html(text),
                json(&html(&url(text))),
            ] {
                let finder = Finder::of(detector);
                let mut left = escaped.clone();
                for range in finder.find(&escaped, None).into_iter().rev() {
                    left.replace_range(range, "-");
                }
                assert!(left != escaped && !plain::of(&left).contains(secret), "{escaped}: {left}");
            }
        }
    }

    #[test]
    fn a_name_says_what_its_value_is() {
        for (name, secret) in [
            ("authorization", Some(Secret::Authorization)),
            ("Proxy-Authorization", Some(Secret::Authorization)),
            ("HTTP_AUTHORIZATION", Some(Secret::Authorization)),
            ("request.headers.authorization", Some(Secret::Authorization)),
            ("preauthorization", None),
            ("authorization_url", None),
            ("AWS_SECRET_ACCESS_KEY", Some(Secret::AwsKey)),
            ("secretAccessKey", Some(Secret::AwsKey)),
            ("secret", None),
            ("", None),
        ] {
            assert_eq!(Secret::under(name), secret, "{name}");
        }
        let key = "Ab1/".repeat(10);
        for (secret, text, expected) in [
            (Secret::Authorization, "Custom abc", Some("abc")),
            (Secret::Authorization, " [Custom a b] ", Some("a b]")),
            (Secret::Authorization, "0123456789", Some("0123456789")),
            (Secret::Authorization, "granted", None),
            (Secret::Authorization, "Custom [token:0123456789abcdef]", None),
            (Secret::Authorization, "[token]", None),
            (Secret::Authorization, "", None),
            (Secret::AfterAuthorization, "Custom abc", Some("abc")),
            (Secret::AfterAuthorization, "content-type", None),
            (Secret::AwsKey, key.as_str(), Some(key.as_str())),
            (Secret::AwsKey, "from the vault", None),
        ] {
            assert_eq!(secret.in_text(text).map(|range| &text[range]), expected, "{text}");
        }
    }
}
