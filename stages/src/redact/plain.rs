//! A text without its escapes, and where each part of it stands.
//!
//! A secret in JSON inside a string, in a URL or in HTML is written with escapes: `ada%40example.com`,
//! `\"Authorization\": \"Basic …\"`. So whatever looks for something looks at the plain text too.

use std::borrow::Cow;
use std::ops::Range;

/// How often a text is made plain: a URL in HTML in JSON.
const LAYERS: usize = 3;

/// A text that some escapes of were undone.
struct Plain {
    text: String,
    /// Where escapes were, in order.
    escapes: Vec<Escape>,
}

/// What an escape became.
struct Escape {
    plain: Range<usize>,
    escaped: Range<usize>,
}

/// What `find` finds in the text and in what its escapes stand for: ranges of the text, in order. Those that
/// overlap are one, and none ends within an escape.
pub(super) fn find(text: &str, find: &impl Fn(&str) -> Vec<Range<usize>>) -> Vec<Range<usize>> {
    merged(layer(text, LAYERS, find))
}

/// The text with all its escapes undone.
pub(super) fn of(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..LAYERS {
        match Plain::of(&text) {
            Some(plain) => text = Cow::Owned(plain.text),
            None => break,
        }
    }
    text
}

fn layer(text: &str, left: usize, find: &impl Fn(&str) -> Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut found = find(text);
    if left > 0
        && let Some(plain) = Plain::of(text)
    {
        found.iter_mut().for_each(|range| *range = plain.widened(range));
        found.extend(layer(&plain.text, left - 1, find).iter().map(|range| plain.escaped(range)));
    }
    found
}

/// The ranges in order, those that overlap joined.
pub(super) fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if ranges.len() > 1 {
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
    }
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

impl Plain {
    /// `None` if there is no escape.
    fn of(text: &str) -> Option<Self> {
        let mut plain = Self { text: String::new(), escapes: Vec::new() };
        let mut copied = 0;
        let mut at = 0;
        while let Some(offset) = text.as_bytes()[at..].iter().position(|byte| matches!(byte, b'\\' | b'%' | b'&')) {
            at += offset;
            let Some((c, length)) = escape(&text[at..]) else {
                // Of backslashes that escape nothing, none is the beginning of an escape.
                let run = text.as_bytes()[at..].iter().take_while(|byte| **byte == b'\\').count();
                at += run.max(1);
                continue;
            };
            plain.text.push_str(&text[copied..at]);
            let start = plain.text.len();
            plain.text.push(c);
            plain.escapes.push(Escape { plain: start..plain.text.len(), escaped: at..at + length });
            at += length;
            copied = at;
        }
        plain.text.push_str(&text[copied..]);
        (!plain.escapes.is_empty()).then_some(plain)
    }

    /// The range of the text with escapes that this range of the plain one stands for.
    fn escaped(&self, range: &Range<usize>) -> Range<usize> {
        let place = |at: usize, of_escape: fn(&Escape) -> usize, first_after: usize| match first_after
            .checked_sub(1)
            .map(|last| &self.escapes[last])
        {
            None => at,
            Some(escape) if at < escape.plain.end => of_escape(escape),
            Some(escape) => escape.escaped.end + (at - escape.plain.end),
        };
        let start = self.escapes.partition_point(|escape| escape.plain.start <= range.start);
        let end = self.escapes.partition_point(|escape| escape.plain.start < range.end);
        place(range.start, |escape| escape.escaped.start, start)..place(range.end, |escape| escape.escaped.end, end)
    }

    /// The range with the escapes whole that it holds a part of.
    fn widened(&self, range: &Range<usize>) -> Range<usize> {
        let within = |at: usize| {
            let after = self.escapes.partition_point(|escape| escape.escaped.start < at);
            after.checked_sub(1).map(|last| &self.escapes[last].escaped).filter(|escaped| at < escaped.end)
        };
        let start = within(range.start).map_or(range.start, |escaped| escaped.start);
        start..within(range.end).map_or(range.end, |escaped| escaped.end)
    }
}

/// The character that the escape stands for which the text begins with, and the escape's length.
fn escape(text: &str) -> Option<(char, usize)> {
    match text.as_bytes().first()? {
        b'\\' => backslash(text),
        b'%' => percent(text),
        _ => entity(text),
    }
}

/// `\"`, `\\\"`, `\n`, `\u0040`, `\x40`: however many backslashes there are, one for each time that it was
/// escaped anew.
fn backslash(text: &str) -> Option<(char, usize)> {
    let run = text.bytes().take_while(|byte| *byte == b'\\').count();
    let c = match text.as_bytes().get(run)? {
        quote @ (b'"' | b'\'' | b'/') => char::from(*quote),
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(text, run),
        b'x' => return Some((ascii(hex(text, run + 1, 2)?)?, run + 3)),
        _ => return None,
    };
    Some((c, run + 1))
}

/// `\u0040`, or two of them.
fn unicode(text: &str, run: usize) -> Option<(char, usize)> {
    let first = hex(text, run + 1, 4)?;
    if !(0xd800..=0xdbff).contains(&first) {
        return Some((char::from_u32(first)?, run + 5));
    }
    let rest = &text[run + 5..];
    let again = rest.bytes().take_while(|byte| *byte == b'\\').count();
    rest[again..].strip_prefix('u').filter(|_| again > 0)?;
    let second = hex(rest, again + 1, 4).filter(|second| (0xdc00..=0xdfff).contains(second))?;
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, run + 5 + again + 5))
}

/// `%40`, `%2540`.
fn percent(text: &str) -> Option<(char, usize)> {
    let mut at = 1;
    while text[at..].starts_with("25") && hex(text, at + 2, 2).is_some() {
        at += 2;
    }
    Some((ascii(hex(text, at, 2)?)?, at + 2))
}

/// `&quot;`, `&#64;`, `&#x40;`, `&amp;quot;`.
fn entity(text: &str) -> Option<(char, usize)> {
    const NAMED: [(&str, char); 9] = [
        ("quot", '"'),
        ("apos", '\''),
        ("lt", '<'),
        ("gt", '>'),
        ("nbsp", '\u{a0}'),
        ("commat", '@'),
        ("colon", ':'),
        ("equals", '='),
        ("amp", '&'),
    ];
    let mut at = 1;
    while text[at..].starts_with("amp;") && text[at + 4..].starts_with(|c: char| c == '#' || c.is_ascii_lowercase()) {
        at += 4;
    }
    // The longest is `#x` and six digits.
    let length = text.as_bytes()[at..].iter().take(9).position(|byte| *byte == b';')?;
    let name = text.get(at..at + length)?;
    let c = match name.strip_prefix('#') {
        None => NAMED.iter().find(|(known, _)| *known == name)?.1,
        Some(number) => {
            let (digits, radix) = match number.strip_prefix(['x', 'X']) {
                Some(digits) => (digits, 16),
                None => (number, 10),
            };
            char::from_u32(u32::from_str_radix(digits, radix).ok()?)?
        }
    };
    Some((c, at + length + 1))
}

fn hex(text: &str, at: usize, digits: usize) -> Option<u32> {
    let digits = text.get(at..at + digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

fn ascii(code: u32) -> Option<char> {
    char::from_u32(code).filter(char::is_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_escape_is_undone_however_often_it_was_escaped() {
        for (text, expected) in [
            (r#"{\"a\": \"b\\\"c\"}"#, r#"{"a": "b"c"}"#),
            (r#"\\\\\\\"x\\u0040y"#, r#""x@y"#),
            (r"\ud83d\ude00 \\ud83d\\ude00 \ud83d", "\u{1f600} \u{1f600} \\ud83d"),
            (r"a\x40b\/c\nd", "a@b/c\nd"),
            ("ada%40x%2540y %252540z %C3%BC 100%", "ada@x@y @z %C3%BC 100%"),
            ("&quot;a&#64;b&#x40;c&amp;commat;d&amp;amp;#64;e & f &copy;", "\"a@b@c@d@e & f &copy;"),
            (r"%5Cu0040 \u00254\u0030", "@ @"),
            (r"C:\dir \\server\", r"C:\dir \\server\"),
            ("é plain", "é plain"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_found_in_the_plain_text_is_a_range_of_the_text() {
        let at = |text: &str| text.match_indices("@b").map(|(at, found)| at..at + found.len()).collect::<Vec<_>>();
        for (text, expected) in [
            ("a@b, a%40b", vec!["@b", "%40b"]),
            (r"é a\\u0040b a\u0040\u0062c", vec![r"\\u0040b", r"\u0040\u0062"]),
            ("%5Cu0040b", vec!["%5Cu0040b"]),
            ("nothing", vec![]),
        ] {
            let found: Vec<&str> = find(text, &at).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text}");
        }
        let n = |text: &str| text.match_indices("nb").map(|(at, found)| at..at + found.len()).collect::<Vec<_>>();
        let whole = find(r"a\nb", &n);
        assert_eq!((whole.len(), whole[0].clone()), (1, 1..4), "no part of an escape stays");
    }

    #[test]
    fn overlapping_finds_are_one() {
        assert_eq!(merged(vec![4..9, 0..5, 12..13]), [0..9, 12..13]);
    }
}
