//! Payment card numbers in a text.

use std::ops::Range;

/// Digits of a card number.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Fewest digits of a number's first group, and of each other one but the last: lists of small numbers are
/// no card.
const FIRST_GROUP: usize = 4;
const INNER_GROUP: usize = 3;

/// The groups that issuers print, where what stands between them might mean something else: `4111.1111` is a
/// number, and `1+1` a sum.
const PRINTED: [&[usize]; 5] = [&[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 4, 3], &[4, 4, 4, 1]];

/// Digits side by side, and what separates them from those before.
struct Group {
    digits: Range<usize>,
    /// Whether it is something else than a space or a hyphen.
    odd: bool,
}

/// Card numbers in `text`: 13 to 19 digits, in groups with one space or hyphen between, or in the groups of a
/// printed card with one `.`, `+` or `_` between, with a valid check digit, and beginning as issuers' numbers
/// do. Part of a longer word or number is none, but for the `B` that a card's magnetic track begins with.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) {
        let groups = groups(text, start);
        at = groups.last().map_or(bytes.len(), |group| group.digits.end);
        let mut first = 0;
        while first < groups.len() {
            match number(bytes, &groups[first..]) {
                Some(count) => {
                    found.push(groups[first].digits.start..groups[first + count - 1].digits.end);
                    first += count;
                }
                None => first += 1,
            }
        }
    }
    found
}

/// The groups of digits from `start` on that single separators stand between.
fn groups(text: &str, start: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    let (mut at, mut odd) = (start, false);
    loop {
        let rest = &text.as_bytes()[at..];
        let end = rest.iter().position(|byte| !byte.is_ascii_digit()).map_or(text.len(), |length| at + length);
        groups.push(Group { digits: at..end, odd });
        let mut behind = text[end..].chars();
        let is_odd = match behind.next() {
            // Spaces and hyphens of any width that breaks no line, too.
            Some(' ' | '-' | '\u{a0}' | '\u{2007}' | '\u{2009}' | '\u{202f}' | '\u{2010}'..='\u{2013}') => false,
            Some('.' | '+' | '_') => true,
            _ => return groups,
        };
        let next = text.len() - behind.as_str().len();
        if !behind.next().is_some_and(|c| c.is_ascii_digit()) {
            return groups;
        }
        (at, odd) = (next, is_odd);
    }
}

/// How many of these groups, from the first on, are a card number: as many as can be.
fn number(bytes: &[u8], groups: &[Group]) -> Option<usize> {
    let start = groups.first()?.digits.clone();
    if start.len() < FIRST_GROUP || !matches!(bytes[start.start], b'2'..=b'6') || continues_before(bytes, start.start) {
        return None;
    }
    let mut digits = Vec::with_capacity(*DIGITS.end());
    let mut lengths = Vec::new();
    let mut odd = false;
    let mut longest = None;
    for (count, group) in (1..).zip(groups) {
        digits.extend_from_slice(&bytes[group.digits.clone()]);
        lengths.push(group.digits.len());
        odd |= count > 1 && group.odd;
        if digits.len() > *DIGITS.end() {
            break;
        }
        let is_whole = DIGITS.contains(&digits.len()) && !continues_after(bytes, group.digits.end);
        if is_whole && is_checked(&digits) && (!odd || PRINTED.contains(&lengths.as_slice())) {
            longest = Some(count);
        }
        if group.digits.len() < INNER_GROUP {
            break;
        }
    }
    longest
}

/// Whether a word or a number goes on into what begins here.
fn continues_before(bytes: &[u8], start: usize) -> bool {
    match bytes[..start] {
        [.., digit, b'.'] => digit.is_ascii_digit(),
        // As a magnetic track begins: `%B4111…`.
        [b'B'] => false,
        [.., before, b'B'] => before.is_ascii_alphanumeric(),
        [.., last] => last.is_ascii_alphanumeric(),
        [] => false,
    }
}

fn continues_after(bytes: &[u8], end: usize) -> bool {
    bytes.get(end).is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether the last digit is Luhn's.
fn is_checked(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0') * (1 + place as u32 % 2);
            digit / 10 + digit % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_told_from_other_numbers() {
        // The numbers are those that payment providers publish for tests.
        for (text, expected) in [
            ("4111111111111111", vec!["4111111111111111"]),
            ("paid with 4111 1111 1111 1111.", vec!["4111 1111 1111 1111"]),
            ("5555-5555-5555-4444,378282246310005", vec!["5555-5555-5555-4444", "378282246310005"]),
            ("order 12 6011 1111 1111 1117 ok", vec!["6011 1111 1111 1117"]),
            ("6011 1111 1111 1117 12", vec!["6011 1111 1111 1117"]),
            ("4222222222222", vec!["4222222222222"]),
            ("\"pan\":\"2223003122003222\"", vec!["2223003122003222"]),
            ("4111111111111112", vec![]),
            ("1767323045000000", vec![]),
            ("0.4111111111111111", vec![]),
            ("a4111111111111111", vec![]),
            ("4111111111111111b", vec![]),
            ("4111  1111 1111 1111", vec![]),
            ("41111111111111110000000", vec![]),
            ("", vec![]),
            ("12 34 56", vec![]),
            ("channels 36 40 44 48 52 56 60 64 100 104 108 112 116 120 124 128", vec![]),
            ("4222 222 222 222", vec!["4222 222 222 222"]),
            ("3782 822463 10005", vec!["3782 822463 10005"]),
            ("4111+1111+1111+1111&x", vec!["4111+1111+1111+1111"]),
            ("4111.1111.1111.1111.", vec!["4111.1111.1111.1111"]),
            ("4111\u{a0}1111\u{a0}1111\u{a0}1111", vec!["4111\u{a0}1111\u{a0}1111\u{a0}1111"]),
            ("5555\u{2013}5555\u{2013}5555\u{2013}4444", vec!["5555\u{2013}5555\u{2013}5555\u{2013}4444"]),
            ("pan_4111111111111111_x", vec!["4111111111111111"]),
            ("卡号4111111111111111。", vec!["4111111111111111"]),
            ("%B4111111111111111^LOVELACE/ADA^2912101", vec!["4111111111111111"]),
            (";4111111111111111=29121010000000000000?", vec!["4111111111111111"]),
            ("AB4111111111111111", vec![]),
            ("41111111.11111111", vec![]),
            ("4222222.222222", vec![]),
            ("411111+1111111111", vec![]),
        ] {
            let found: Vec<&str> = find(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
