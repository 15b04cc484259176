//! E-mail addresses in a text.

use std::ops::Range;

/// Most characters of what stands before the `@`.
const LOCAL_CHARS: usize = 64;
/// Most parts of a domain, and most characters of each.
const LABELS: usize = 9;
const LABEL_CHARS: usize = 63;
/// Characters of a domain's last part.
const TOP_LEVEL: std::ops::RangeInclusive<usize> = 2..=24;

/// Addresses in `text`: letters of every language. Where a language puts no spaces between words, the words
/// that stand before an address of such letters go with it.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices('@') {
        let from = found.last().map_or(0, |last| last.end);
        // The domain of the address before may have gone beyond this one.
        let Some(before) = text.get(from..at) else { continue };
        let local = local(before);
        if local == 0 {
            continue;
        }
        if let Some(length) = domain(&text[at + 1..]) {
            found.push(at - local..at + 1 + length);
        }
    }
    found
}

/// Bytes of the name that the text ends with.
fn local(text: &str) -> usize {
    let mut length = 0;
    let mut kind = None;
    let mut chars = text.chars().rev().peekable();
    for _ in 0..LOCAL_CHARS {
        let Some(c) = chars.next() else { break };
        let is_part = if c.is_alphanumeric() || is_mark(c) {
            *kind.get_or_insert(is_spaced(c)) == is_spaced(c)
        } else {
            // An apostrophe within a name is a part of it, and a quote before it is none.
            matches!(c, '.' | '_' | '%' | '+' | '-')
                || (c == '\'' && length > 0 && chars.peek().is_some_and(|c| c.is_alphanumeric()))
        };
        if !is_part {
            break;
        }
        length += c.len_utf8();
    }
    length
}

/// Bytes of the domain that the text begins with: as many as can be.
fn domain(text: &str) -> Option<usize> {
    let mut length = None;
    let mut at = 0;
    for count in 1..=LABELS {
        let label = label(&text[at..]);
        if count > 1
            && let Some(last) = top_level(label, &text[at + label.len()..])
        {
            length = Some(at + last);
        }
        at += label.len();
        if label.is_empty() || !text[at..].starts_with('.') {
            break;
        }
        at += 1;
    }
    length
}

/// The part of a domain that the text begins with: letters of one kind, digits and hyphens.
fn label(text: &str) -> &str {
    let mut kind = None;
    let end = text.char_indices().enumerate().find(|(count, (_, c))| {
        let is_part = match c {
            '-' => *count > 0,
            c => (c.is_alphanumeric() || is_mark(*c)) && *kind.get_or_insert(is_spaced(*c)) == is_spaced(*c),
        };
        !is_part || *count == LABEL_CHARS
    });
    &text[..end.map_or(text.len(), |(_, (at, _))| at)]
}

/// How much of this label may end a domain, given what follows it.
fn top_level(label: &str, behind: &str) -> Option<usize> {
    if label.starts_with("xn--") {
        return Some(label.len());
    }
    let letters: usize = label.chars().take_while(|c| c.is_alphabetic() || is_mark(*c)).map(char::len_utf8).sum();
    let goes_on = match label[letters..].chars().next() {
        None => behind.starts_with(|c: char| c.is_ascii_alphanumeric()),
        Some(c) => c != '-',
    };
    (TOP_LEVEL.contains(&label[..letters].chars().count()) && !goes_on).then_some(letters)
}

/// Whether its script puts spaces between words: neither Chinese, Japanese, Thai, Lao, Khmer nor Burmese.
fn is_spaced(c: char) -> bool {
    !matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

/// Whether it is a mark on a letter: an accent of its own, a vowel sign.
fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x0300..=0x036f | 0x0610..=0x061a | 0x064b..=0x065f | 0x0900..=0x0903 | 0x093a..=0x094f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_words() {
        let long = format!("{}@example.com", "a".repeat(100));
        for (text, expected) in [
            (
                "from ada@example.com, to <b.c+d@mail.example.co.uk>.",
                vec!["ada@example.com", "b.c+d@mail.example.co.uk"],
            ),
            ("'ada@example.com' \"o'brien@example.com\"", vec!["ada@example.com", "o'brien@example.com"]),
            (
                "to jürgen@exämple.de now, ada@xn--exmple-cua.xn--p1ai",
                vec!["jürgen@exämple.de", "ada@xn--exmple-cua.xn--p1ai"],
            ),
            ("ju\u{308}rgen@example.de почта@пример.рф", vec!["ju\u{308}rgen@example.de", "почта@пример.рф"]),
            ("联系ada@example.com请, 用户@例子.中国", vec!["ada@example.com", "用户@例子.中国"]),
            ("mail=ada@example.com&x, ada@example.com-x, ada@example.com_x", vec!["ada@example.com"; 3]),
            ("ada@example.com.1 ada@mail.example.com:25", vec!["ada@example.com", "ada@mail.example.com"]),
            ("a@b.de@c.de", vec!["a@b.de"]),
            ("user@host and @handle and a@b. a@b.c a@b.c0m a@b.com2 a@.com @b.com a@-b.com", vec![]),
            (long.as_str(), vec![&long[36..]]),
            ("", vec![]),
        ] {
            let found: Vec<&str> = find(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
