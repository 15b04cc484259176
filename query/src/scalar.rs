//! Numbers and times as values that can be compared, and as words of the index whose order is theirs.
//!
//! A mapping with a field for each number would grow with what tenants send. So each leaf that is a number or a time
//! has a second word, of its path and sixteen digits: compared as text, they are in the order of the values.

use std::fmt;
use std::ops::Bound;

/// Longest number as text; nobody writes a longer one to compare it.
const NUMBER_BYTES: usize = 32;
/// Longest time as text.
const TIME_BYTES: usize = 40;
/// Longest path of a leaf that is compared: its word has seventeen bytes more, and is not cut.
pub const MAX_PATH_BYTES: usize = 1007;

/// A value with an order, as a number that compares as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// A decimal number: an f64, its bits in the order of its values.
    Number(u64),
    /// A moment, in microseconds.
    Time(u64),
}

impl Scalar {
    /// What a leaf's text is worth: a number, a time, or neither. A number is whatever JSON calls one, also as a text.
    pub fn of(text: &str) -> Option<Self> {
        let first = *text.as_bytes().first()?;
        if !(first.is_ascii_digit() || first == b'-') {
            return None;
        }
        Self::number(text).or_else(|| Self::time(text))
    }

    fn number(text: &str) -> Option<Self> {
        let is_decimal = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        if text.len() > NUMBER_BYTES || !text.as_bytes().iter().all(is_decimal) {
            return None;
        }
        // Zero has two forms, and is one number.
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite())? + 0.0;
        let bits = number.to_bits();
        Some(Self::Number(if number < 0.0 { !bits } else { bits ^ (1 << 63) }))
    }

    fn time(text: &str) -> Option<Self> {
        let date = text.as_bytes();
        let is_date = date.len() >= 10 && date.len() <= TIME_BYTES && date[4] == b'-' && date[7] == b'-';
        let time = is_date.then(|| stages::time::parse_text(text)).flatten()?;
        Some(Self::Time((time as u64) ^ (1 << 63)))
    }

    /// The word of a leaf at this path.
    pub fn word(self, path: &str) -> String {
        let (mark, key) = match self {
            Self::Number(key) => ('\u{1}', key),
            Self::Time(key) => ('\u{2}', key),
        };
        format!("{path}{mark}{key:016x}")
    }

    fn with(self, key: u64) -> Self {
        match self {
            Self::Number(_) => Self::Number(key),
            Self::Time(_) => Self::Time(key),
        }
    }
}

/// A limit of a range, as it was written and as it compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// As it was written.
    pub text: String,
    /// As it compares.
    pub value: Scalar,
}

/// Values between two limits, both numbers or both times; one of them may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    low: Bound<Limit>,
    high: Bound<Limit>,
}

impl Range {
    /// Values between these limits. `None` if there is no limit, or they are not of one kind.
    pub fn new(low: Bound<Limit>, high: Bound<Limit>) -> Option<Self> {
        let kind = |bound: &Bound<Limit>| match bound {
            Bound::Included(limit) | Bound::Excluded(limit) => Some(matches!(limit.value, Scalar::Number(_))),
            Bound::Unbounded => None,
        };
        let kinds = [kind(&low), kind(&high)];
        let known = kinds.iter().flatten().copied().collect::<Vec<_>>();
        (known.iter().all(|kind| *kind == known[0]) && !known.is_empty()).then_some(Self { low, high })
    }

    /// Whether a leaf's text is in it.
    pub fn holds(&self, text: &str) -> bool {
        let Some(value) = Scalar::of(text) else { return false };
        let is_alike = |limit: &Limit| std::mem::discriminant(&limit.value) == std::mem::discriminant(&value);
        let above = match &self.low {
            Bound::Included(limit) => is_alike(limit) && value >= limit.value,
            Bound::Excluded(limit) => is_alike(limit) && value > limit.value,
            Bound::Unbounded => true,
        };
        let below = match &self.high {
            Bound::Included(limit) => is_alike(limit) && value <= limit.value,
            Bound::Excluded(limit) => is_alike(limit) && value < limit.value,
            Bound::Unbounded => true,
        };
        above && below
    }

    /// The first and the last word of leaves at this path that are in it.
    pub fn words(&self, path: &str) -> (String, String) {
        let some = match (&self.low, &self.high) {
            (Bound::Included(limit) | Bound::Excluded(limit), _) => limit.value,
            (_, Bound::Included(limit) | Bound::Excluded(limit)) => limit.value,
            // `new` makes none.
            (Bound::Unbounded, Bound::Unbounded) => Scalar::Number(0),
        };
        let key = |value: Scalar| match value {
            Scalar::Number(key) | Scalar::Time(key) => key,
        };
        let first = match &self.low {
            Bound::Included(limit) => key(limit.value),
            Bound::Excluded(limit) => key(limit.value).saturating_add(1),
            Bound::Unbounded => 0,
        };
        let last = match &self.high {
            Bound::Included(limit) => key(limit.value),
            Bound::Excluded(limit) => key(limit.value).saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        (some.with(first).word(path), some.with(last).word(path))
    }

    /// In words, to follow a field's name: `is 500 or more`.
    pub fn sentence(&self) -> String {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Included(high)) => format!("is {} to {}", low.text, high.text),
            (Bound::Included(low), _) => format!("is {} or more", low.text),
            (Bound::Excluded(low), _) => format!("is more than {}", low.text),
            (_, Bound::Included(high)) => format!("is {} or less", high.text),
            (_, Bound::Excluded(high)) => format!("is less than {}", high.text),
            (Bound::Unbounded, Bound::Unbounded) => "has an order".to_owned(),
        }
    }
}

/// As a query has it behind the colon.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Included(high)) => write!(f, "[{} TO {}]", low.text, high.text),
            (Bound::Included(low), _) => write!(f, ">={low}"),
            (Bound::Excluded(low), _) => write!(f, ">{low}"),
            (_, Bound::Included(high)) => write!(f, "<={high}"),
            (_, Bound::Excluded(high)) => write!(f, "<{high}"),
            (Bound::Unbounded, Bound::Unbounded) => f.write_str("[* TO *]"),
        }
    }
}

/// As a query has it behind a comparison: a time may have a space in it.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.contains(' ') { write!(f, "\"{}\"", self.text) } else { f.write_str(&self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_the_order_of_their_values() {
        let numbers = [
            "-1e300",
            "-500",
            "-1.5",
            "-1",
            "-0.001",
            "0",
            "0.001",
            "1",
            "1.10",
            "2",
            "10",
            "499.9",
            "500",
            "1e3",
            "9007199254740993",
            "1e300",
        ];
        let words: Vec<String> = numbers.iter().map(|text| Scalar::of(text).unwrap().word("a")).collect();
        assert!(words.is_sorted() && words.windows(2).all(|two| two[0] != two[1]), "{words:?}");
        let times = [
            "1969-12-31T00:00:00Z",
            "2026-01-01",
            "2026-01-01T00:00:01Z",
            "2026-01-01T02:00:00.5+01:00",
            "2026-02-01 00:00:00",
        ];
        let words: Vec<String> = times.iter().map(|text| Scalar::of(text).expect(text).word("a")).collect();
        assert!(words.is_sorted() && words.windows(2).all(|two| two[0] != two[1]), "{words:?}");
        assert_eq!(Scalar::of("500"), Scalar::of("500.0"));
        assert_eq!(Scalar::of("-0"), Scalar::of("0"));
        for text in
            ["", "x", "1_000", "1,000", "inf", "NaN", "-", "1e999", "0x10", "2026-13-01", "1.2.3", &"1".repeat(33)]
        {
            assert_eq!(Scalar::of(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_holds_what_its_words_hold() {
        let limit = |text: &str| Limit { text: text.to_owned(), value: Scalar::of(text).unwrap() };
        let (low, high) = (limit("500"), limit("599"));
        let ranges = [
            (Bound::Included(low.clone()), Bound::Unbounded),
            (Bound::Excluded(low.clone()), Bound::Unbounded),
            (Bound::Included(low.clone()), Bound::Included(high.clone())),
            (Bound::Unbounded, Bound::Excluded(high.clone())),
            (Bound::Unbounded, Bound::Included(high.clone())),
            (Bound::Excluded(limit("2026-01-01")), Bound::Unbounded),
        ];
        for (low, high) in ranges {
            let range = Range::new(low, high).unwrap();
            let (first, last) = range.words("a");
            for text in [
                "-1",
                "0",
                "499",
                "499.999",
                "500",
                "500.0",
                "500.001",
                "598",
                "599",
                "600",
                "1e9",
                "2025-12-31",
                "2026-01-01",
                "2026-01-02",
            ] {
                let word = Scalar::of(text).unwrap().word("a");
                let in_words = first.as_str() <= word.as_str() && word <= last;
                assert_eq!(range.holds(text), in_words, "{range}: {text}");
            }
            assert!(!range.holds("x"));
        }
        assert_eq!(Range::new(Bound::Unbounded, Bound::Unbounded), None);
        assert_eq!(Range::new(Bound::Included(low), Bound::Included(limit("2026-01-01"))), None);
    }
}
