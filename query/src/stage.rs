//! What is made of the events that a query finds: `level:error | count by service`.

use std::fmt;

use regex::{Regex, RegexBuilder};
use stages::time::Micros;

use crate::expression::{Field, Query};
use crate::parse::quoted;

/// Most stages behind a query.
pub const MAX_STAGES: usize = 8;
/// Most fields of a `by`.
pub const MAX_BY: usize = 2;
/// Most functions of one `stats`, and columns of one `fields`.
pub const MAX_COLUMNS: usize = 20;
/// Most rows of a table.
pub const MAX_ROWS: u32 = 100;
/// Rows of `top` and `rare` unless they say how many.
pub const DEFAULT_TOP: u32 = 10;
/// Most lines of a chart besides the one of all others.
pub const MAX_SERIES: u32 = 10;
/// Most points of a line: more than a screen has pixels to tell apart.
pub const MAX_BUCKETS: usize = 1000;
/// Longest regular expression of `grep`, in bytes.
pub const MAX_REGEX_BYTES: usize = 256;
/// Most bytes of a compiled regular expression: what a few hundred characters take.
const MAX_PROGRAM_BYTES: usize = 1 << 20;

const SECOND: Micros = 1_000_000;

/// A query, and what is made of the events that it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which events.
    pub query: Query,
    /// Which of these, by their text.
    pub greps: Vec<Grep>,
    /// What is made of them.
    pub shape: Shape,
}

/// What is made of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// The events themselves.
    Events {
        /// The fields to show; none means all.
        columns: Vec<Field>,
        /// Most events.
        limit: Option<u32>,
    },
    /// A table: a row for each group of events.
    Table {
        /// The stage that says so.
        verb: Verb,
        /// What is computed of each group.
        aggregates: Vec<Aggregate>,
        /// What the events of a group have in common; none makes one group of all.
        by: Vec<Field>,
        /// Most rows.
        rows: u32,
    },
    /// A chart over time: a line for each group of events.
    Series {
        /// Time of one point; none leaves the choice to the answer.
        interval: Option<Interval>,
        /// What is computed of the events of a point.
        aggregate: Aggregate,
        /// What the events of a line have in common.
        by: Option<Field>,
        /// Most lines.
        lines: u32,
    },
}

/// A stage that makes a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `count`.
    Count,
    /// `top`: the values that most events have.
    Top,
    /// `rare`: the values that fewest events have.
    Rare,
    /// `stats`.
    Stats,
}

/// A function of the events of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// Which.
    pub function: Function,
    /// Of which field's values; none of `count`.
    pub field: Option<Field>,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// How many events.
    Count,
    /// How many different values.
    Uniq,
    /// The sum of numbers.
    Sum,
    /// Their mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The value that so many of a hundred do not exceed.
    Percentile(u8),
}

/// A length of time between two points of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Micros);

/// A text that must stand in an event's message or `full_log`, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grep {
    /// Whether it must not.
    pub excludes: bool,
    /// The text.
    pub pattern: GrepPattern,
}

/// What `grep` looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrepPattern {
    /// These letters, in any case.
    Text(String),
    /// What a regular expression matches.
    Regex {
        /// The expression.
        source: String,
        /// Whether upper and lower case are the same.
        ignores_case: bool,
    },
}

/// The verbs of all stages, as completion offers them, each with what it does.
pub const VERBS: [(&str, &str); 8] = [
    ("count", "how many, of each value: `count by service`"),
    ("top", "the values that most events have: `top 10 status`"),
    ("rare", "the values that fewest events have: `rare service`"),
    ("timechart", "over time: `timechart 5m count by level`"),
    ("stats", "sums and percentiles: `stats count, p95(latency_ms) by service`"),
    ("grep", "events with a text or a regular expression: `grep /time.?out/i`"),
    ("fields", "the columns to show: `fields service, status`"),
    ("limit", "at most so many: `limit 20`"),
];

/// The functions of `stats` and `timechart`.
pub const FUNCTIONS: [&str; 11] = ["count", "uniq", "sum", "avg", "min", "max", "p50", "p75", "p90", "p95", "p99"];

/// The lengths of time that a chart chooses from.
const CHOICES: [Micros; 20] = {
    const MINUTE: Micros = 60 * SECOND;
    const HOUR: Micros = 60 * MINUTE;
    const DAY: Micros = 24 * HOUR;
    [
        SECOND,
        2 * SECOND,
        5 * SECOND,
        10 * SECOND,
        15 * SECOND,
        30 * SECOND,
        MINUTE,
        2 * MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        2 * HOUR,
        3 * HOUR,
        6 * HOUR,
        12 * HOUR,
        DAY,
        7 * DAY,
        30 * DAY,
    ]
};

/// Points that a chart has at most where it chooses its interval: as wide as people look at it.
const COMFORTABLE: Micros = 120;

const UNITS: [(&str, Micros); 5] =
    [("w", 7 * 24 * 3600 * SECOND), ("d", 24 * 3600 * SECOND), ("h", 3600 * SECOND), ("m", 60 * SECOND), ("s", SECOND)];

impl Interval {
    /// So many of a unit: `30s`, `5m`, `2h`, `1d`, `1w`. At least a second, at most a year.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, length) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
        let count = text.strip_suffix(unit)?;
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let micros = count.parse::<Micros>().ok()?.checked_mul(length)?;
        (SECOND..=366 * 24 * 3600 * SECOND).contains(&micros).then_some(Self(micros))
    }

    /// A convenient one for a time range of this length.
    pub fn for_range(range: Micros) -> Self {
        let fits = |length: &Micros| range / length < COMFORTABLE;
        let longest = CHOICES[CHOICES.len() - 1];
        let chosen = CHOICES.into_iter().find(|length| fits(length));
        // Of a range of many years as many months as the points demand.
        Self(chosen.unwrap_or(longest * (range / longest / COMFORTABLE + 1)))
    }

    /// The same for a range that it would make too many points of: the shortest convenient one that is not shorter.
    pub fn widened(self, range: Micros) -> Self {
        let fits = |length: &Micros| *length >= self.0 && range / length < MAX_BUCKETS as Micros - 1;
        CHOICES.into_iter().find(fits).map_or_else(|| Self::for_range(range), Self)
    }

    /// In microseconds.
    pub fn micros(self) -> Micros {
        self.0
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, length)| self.0 % length == 0);
        let (unit, length) = whole.unwrap_or(("s", SECOND));
        write!(f, "{}{unit}", self.0 / length)
    }
}

impl Function {
    /// The function of this name; also by other names that people have for it.
    pub fn of(name: &str) -> Option<Self> {
        let percent = |digits: &str| {
            let plain = digits.len() <= 2 && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|percent| plain && (1..=99).contains(percent)).map(Self::Percentile)
        };
        Some(match name {
            "count" => Self::Count,
            "uniq" | "distinct" | "dc" | "cardinality" => Self::Uniq,
            "sum" => Self::Sum,
            "avg" | "mean" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "median" => Self::Percentile(50),
            name => return name.strip_prefix("perc").or_else(|| name.strip_prefix('p')).and_then(percent),
        })
    }

    /// Whether it is computed of numbers.
    pub fn is_of_numbers(self) -> bool {
        !matches!(self, Self::Count | Self::Uniq)
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Uniq => "uniq",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Percentile(percent) => return write!(f, "p{percent}"),
        })
    }
}

impl Aggregate {
    /// `count`.
    pub fn count() -> Self {
        Self { function: Function::Count, field: None }
    }

    fn sentence(&self) -> String {
        let of = self.field.as_ref().map(|field| format!("`{field}`")).unwrap_or_default();
        match self.function {
            Function::Count => "the number of events".to_owned(),
            Function::Uniq => format!("the number of different values of {of}"),
            Function::Sum => format!("the sum of {of}"),
            Function::Avg => format!("the mean of {of}"),
            Function::Min => format!("the smallest {of}"),
            Function::Max => format!("the largest {of}"),
            Function::Percentile(percent) => format!("the {percent} % percentile of {of}"),
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            None => self.function.fmt(f),
            Some(field) => write!(f, "{}({field})", self.function),
        }
    }
}

/// What several `grep`s ask for, ready to be looked for.
#[derive(Debug, Clone)]
pub struct Texts(Vec<(bool, Regex)>);

impl Texts {
    /// All of these.
    pub fn of(greps: &[Grep]) -> Self {
        Self(greps.iter().filter_map(|grep| Some((grep.excludes, grep.regex()?))).collect())
    }

    /// Whether an event with these texts is as asked.
    pub fn pass(&self, message: &str, full_log: Option<&str>) -> bool {
        self.0.iter().all(|(excludes, expression)| {
            let says = expression.is_match(message) || full_log.is_some_and(|text| expression.is_match(text));
            says != *excludes
        })
    }
}

impl Grep {
    /// The expression that finds its text. `None` if it is too large to run; the parser lets none through.
    pub(crate) fn regex(&self) -> Option<Regex> {
        let (source, ignores_case) = match &self.pattern {
            GrepPattern::Text(text) => (regex::escape(text), true),
            GrepPattern::Regex { source, ignores_case } => (source.clone(), *ignores_case),
        };
        RegexBuilder::new(&source).case_insensitive(ignores_case).size_limit(MAX_PROGRAM_BYTES).build().ok()
    }

    fn sentence(&self) -> String {
        let what = match &self.pattern {
            GrepPattern::Text(text) => format!("the letters {}", quoted(text)),
            GrepPattern::Regex { source, .. } => format!("a match of /{source}/"),
        };
        format!("the text has {}{what}", if self.excludes { "not " } else { "" })
    }
}

impl fmt::Display for Grep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.excludes { "grep -v " } else { "grep " })?;
        match &self.pattern {
            GrepPattern::Text(text) => f.write_str(&quoted(text)),
            GrepPattern::Regex { source, ignores_case } => {
                write!(f, "/{}/{}", source.replace('/', r"\/"), if *ignores_case { "i" } else { "" })
            }
        }
    }
}

impl Shape {
    /// The events themselves, whole.
    pub fn events() -> Self {
        Self::Events { columns: Vec::new(), limit: None }
    }

    /// What is made of events, in words; nothing of plain events.
    fn sentence(&self) -> Option<String> {
        let names = |fields: &[Field]| fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>();
        match self {
            Self::Events { columns, limit } => {
                let shown = (!columns.is_empty()).then(|| format!("shown are {}", names(columns).join(", ")));
                let most = limit.map(|limit| format!("at most {limit} of them"));
                let parts: Vec<String> = shown.into_iter().chain(most).collect();
                (!parts.is_empty()).then(|| parts.join(", "))
            }
            Self::Table { verb: Verb::Top, by, rows, .. } => {
                Some(format!("the {rows} values of {} that most of them have", names(by).join(" and ")))
            }
            Self::Table { verb: Verb::Rare, by, rows, .. } => {
                Some(format!("the {rows} values of {} that fewest of them have", names(by).join(" and ")))
            }
            Self::Table { aggregates, by, .. } => {
                let computed = aggregates.iter().map(Aggregate::sentence).collect::<Vec<_>>().join(", ");
                let each = if by.is_empty() { String::new() } else { format!(" for each {}", names(by).join(" and ")) };
                Some(format!("{computed}{each}"))
            }
            Self::Series { interval, aggregate, by, lines } => {
                let every = interval.map_or_else(|| "over time".to_owned(), |interval| format!("every {interval}"));
                let each = by.as_ref().map(|by| format!(" for each of the {lines} largest `{by}`")).unwrap_or_default();
                Some(format!("{} {every}{each}", aggregate.sentence()))
            }
        }
    }
}

impl Question {
    /// The same in words.
    pub fn sentence(&self) -> String {
        let found = std::iter::once(crate::explain::sentence(&self.query));
        let found: Vec<String> = found.chain(self.greps.iter().map(Grep::sentence)).collect();
        let found = found.join(", and ");
        match self.shape.sentence() {
            None => found,
            Some(made) => format!("{found}; of these {made}"),
        }
    }

    /// Whether it has no stage.
    pub fn is_plain(&self) -> bool {
        self.greps.is_empty() && self.shape == Shape::events()
    }
}

/// Its normal form: read again, it is the same.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(f)?;
        for grep in &self.greps {
            write!(f, " | {grep}")?;
        }
        self.shape.fmt(f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events { columns, limit } => {
                if !columns.is_empty() {
                    write!(f, " | fields {}", list(columns))?;
                }
                limit.map_or(Ok(()), |limit| write!(f, " | limit {limit}"))
            }
            Self::Table { verb: Verb::Top, by, rows, .. } => write!(f, " | top {rows} {}", list(by)),
            Self::Table { verb: Verb::Rare, by, rows, .. } => write!(f, " | rare {rows} {}", list(by)),
            Self::Table { verb, aggregates, by, rows } => {
                match verb {
                    Verb::Stats => write!(f, " | stats {}", list(aggregates))?,
                    _ => f.write_str(" | count")?,
                }
                if !by.is_empty() {
                    write!(f, " by {}", list(by))?;
                }
                if *rows == MAX_ROWS { Ok(()) } else { write!(f, " | limit {rows}") }
            }
            Self::Series { interval, aggregate, by, lines } => {
                f.write_str(" | timechart ")?;
                if let Some(interval) = interval {
                    write!(f, "{interval} ")?;
                }
                write!(f, "{aggregate}")?;
                if let Some(by) = by {
                    write!(f, " by {by}")?;
                }
                if *lines == MAX_SERIES { Ok(()) } else { write!(f, " | limit {lines}") }
            }
        }
    }
}

fn list(of: &[impl fmt::Display]) -> String {
    of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_and_a_unit() {
        for (text, seconds) in
            [("1s", 1), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("1w", 604_800), ("90m", 5400)]
        {
            assert_eq!(Interval::parse(text), Some(Interval(seconds * SECOND)), "{text}");
        }
        for text in ["", "m", "5", "0s", "-5m", "5 m", "1y", "500ms", "9999999999999w", "400d", "+5m"] {
            assert_eq!(Interval::parse(text), None, "{text}");
        }
        assert_eq!(Interval(5400 * SECOND).to_string(), "90m");
    }

    #[test]
    fn a_chart_chooses_an_interval_by_its_range() {
        for (seconds, expected) in [
            (1, "1s"),
            (60, "1s"),
            (900, "10s"),
            (3600, "1m"),
            (24 * 3600, "15m"),
            (7 * 86_400, "2h"),
            (30 * 86_400, "12h"),
            (365 * 86_400, "7d"),
            (40 * 365 * 86_400, "150d"),
        ] {
            let expected = Interval::parse(expected).unwrap_or(Interval(150 * 86_400 * SECOND));
            assert_eq!(Interval::for_range(seconds * SECOND), expected, "{seconds} s");
        }
        let day = 24 * 3600 * SECOND;
        assert_eq!(Interval::parse("1s").unwrap().widened(day).to_string(), "2m");
        assert_eq!(Interval::parse("1h").unwrap().widened(day).to_string(), "1h");
    }

    #[test]
    fn an_event_passes_by_its_texts() {
        for (stages, expected) in [
            ("grep nection", true),
            ("grep NECTION", true),
            ("grep foo.bar", true),
            ("grep /Foo\\.b.r/", true),
            ("grep /foo\\.b.r/", false),
            ("grep /foo\\.b.r/i", true),
            ("grep -v reset", false),
            ("grep -v health | grep reset", true),
        ] {
            let greps = crate::question(&format!("| {stages}")).unwrap().greps;
            let passes = Texts::of(&greps).pass("Connection reset", Some("at Foo.bar(Foo.java:7)"));
            assert_eq!(passes, expected, "{stages}");
        }
    }

    #[test]
    fn a_function_has_its_names() {
        for (name, function) in [
            ("count", Some(Function::Count)),
            ("dc", Some(Function::Uniq)),
            ("p95", Some(Function::Percentile(95))),
            ("p5", Some(Function::Percentile(5))),
            ("perc99", Some(Function::Percentile(99))),
            ("median", Some(Function::Percentile(50))),
            ("p0", None),
            ("p100", None),
            ("p", None),
            ("p05", None),
            ("mode", None),
        ] {
            assert_eq!(Function::of(name), function, "{name}");
        }
        assert!(FUNCTIONS.iter().all(|name| Function::of(name).is_some_and(|of| of.to_string() == *name)));
    }
}
