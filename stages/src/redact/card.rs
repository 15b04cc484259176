//! Payment card numbers in a text.

use std::ops::Range;

/// Digits of a card number.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Fewest digits of a number's first group, and of each other one but the last: lists of small numbers are
/// no card.
const FIRST_GROUP: usize = 4;
const INNER_GROUP: usize = 3;

/// Card numbers in `text`: 13 to 19 digits, in groups with one space or hyphen between, with a valid check
/// digit, and beginning as issuers' numbers do. Part of a longer word or number is none.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) {
        let groups = groups(bytes, start);
        at = groups.last().map_or(bytes.len(), |group| group.end);
        let mut first = 0;
        while first < groups.len() {
            match number(bytes, &groups[first..]) {
                Some(count) => {
                    found.push(groups[first].start..groups[first + count - 1].end);
                    first += count;
                }
                None => first += 1,
            }
        }
    }
    found
}

/// The groups of digits from `start` on that single spaces or hyphens separate.
fn groups(bytes: &[u8], start: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut at = start;
    loop {
        let end = bytes[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |length| at + length);
        groups.push(at..end);
        match (bytes.get(end), bytes.get(end + 1)) {
            (Some(b' ' | b'-'), Some(next)) if next.is_ascii_digit() => at = end + 1,
            _ => return groups,
        }
    }
}

/// How many of these groups, from the first on, are a card number: as many as can be.
fn number(bytes: &[u8], groups: &[Range<usize>]) -> Option<usize> {
    let first = groups.first()?;
    if first.len() < FIRST_GROUP || !matches!(bytes[first.start], b'2'..=b'6') || continues_before(bytes, first.start) {
        return None;
    }
    let mut digits = Vec::with_capacity(*DIGITS.end());
    let mut longest = None;
    for (count, group) in (1..).zip(groups) {
        digits.extend_from_slice(&bytes[group.clone()]);
        if digits.len() > *DIGITS.end() {
            break;
        }
        if DIGITS.contains(&digits.len()) && is_checked(&digits) && !continues_after(bytes, group.end) {
            longest = Some(count);
        }
        if group.len() < INNER_GROUP {
            break;
        }
    }
    longest
}

/// Whether a word or a number goes on into what begins here.
fn continues_before(bytes: &[u8], start: usize) -> bool {
    match bytes[..start] {
        [.., digit, b'.'] => digit.is_ascii_digit(),
        [.., last] => last.is_ascii_alphanumeric() || last == b'_' || !last.is_ascii(),
        [] => false,
    }
}

fn continues_after(bytes: &[u8], end: usize) -> bool {
    bytes.get(end).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_')
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
        ] {
            let found: Vec<&str> = find(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
