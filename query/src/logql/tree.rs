//! A query of LogQL as a tree, its regular expressions compiled.

use regex::Regex;
use stages::time::Micros;

use super::template::Template;

/// A query.
#[derive(Debug, Clone)]
pub enum Expr {
    /// Lines.
    Log(LogExpr),
    /// A value a series, at each step.
    Metric(Metric),
}

/// What finds lines: a selector, and what is done with each line.
#[derive(Debug, Clone, Default)]
pub struct LogExpr {
    /// `{service_name="api"}`: all of them hold.
    pub matchers: Vec<Matcher>,
    /// What follows, in order.
    pub stages: Vec<Stage>,
}

/// A label and what its value must be. A label that is missing has the value "".
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How it is compared.
    pub test: Test,
}

/// How a label is compared with a text.
#[derive(Debug, Clone)]
pub enum Test {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, of the whole value.
    Regex(Anchored),
    /// `!~`
    NotRegex(Anchored),
}

/// A regular expression of a whole value, with the text that it was made of.
#[derive(Debug, Clone)]
pub struct Anchored {
    /// As it was written.
    pub text: String,
    /// With its anchors.
    pub regex: Regex,
}

/// One step of a pipeline.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Keeps lines.
    Line(LineFilter),
    /// Keeps lines by their labels.
    Label(LabelFilter),
    /// Reads the line as JSON: all of it, or these paths under these names.
    Json(Vec<(String, Vec<String>)>),
    /// Reads the line as logfmt: all of it, or these keys under these names.
    Logfmt {
        /// What is no logfmt is an error.
        strict: bool,
        /// Keys without a value are labels, too.
        keep_empty: bool,
        /// Which; all if there are none.
        fields: Vec<(String, String)>,
    },
    /// Takes labels from where they stand in a line.
    Pattern(LinePattern),
    /// Takes labels from the groups of a regular expression.
    Regexp(Regex),
    /// Removes labels; of those with a test, if it holds.
    Drop(Vec<Pick>),
    /// Removes all other labels.
    Keep(Vec<Pick>),
    /// Rewrites the line.
    LineFormat(Template),
    /// Renames labels, or makes new ones.
    LabelFormat(Vec<(String, LabelSource)>),
    /// Removes the colour codes of terminals.
    Decolorize,
}

/// A label that is dropped or kept.
#[derive(Debug, Clone)]
pub struct Pick {
    /// Which.
    pub name: String,
    /// Only if it is this.
    pub test: Option<Test>,
}

/// What a label is made of.
#[derive(Debug, Clone)]
pub enum LabelSource {
    /// Another label, which goes.
    Rename(String),
    /// A text with labels in it.
    Template(Template),
}

/// A filter of lines: any of these texts is found, or none of them.
#[derive(Debug, Clone)]
pub struct LineFilter {
    /// Whether lines are kept that have one.
    pub wanted: bool,
    /// What is looked for.
    pub any: Vec<Needle>,
}

/// What a line filter looks for.
#[derive(Debug, Clone)]
pub enum Needle {
    /// A text, with its case.
    Text(String),
    /// A regular expression, anywhere in the line.
    Regex(Regex),
    /// Texts in this order: `<_>` stands for anything.
    Pattern(LinePattern),
}

/// `<ip> - <_> "<method> `: texts, and names of what stands between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePattern {
    /// What stands before the first name.
    pub first: String,
    /// Each name (none for `<_>`), and the text after it.
    pub rest: Vec<(Option<String>, String)>,
}

/// A condition on labels.
#[derive(Debug, Clone)]
pub enum LabelFilter {
    /// Both.
    And(Box<LabelFilter>, Box<LabelFilter>),
    /// Either.
    Or(Box<LabelFilter>, Box<LabelFilter>),
    /// A text.
    Matches(Matcher),
    /// A number, a duration in seconds, or a number of bytes.
    Compares {
        /// The label.
        name: String,
        /// What its value is read as.
        unit: Unit,
        /// How.
        compare: Compare,
        /// With what.
        value: f64,
    },
}

/// What a value is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `500`
    Number,
    /// `250ms`, as seconds.
    Duration,
    /// `10KB`
    Bytes,
}

/// A comparison of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// A metric query.
#[derive(Debug, Clone)]
pub enum Metric {
    /// `rate({…}[5m])`
    Range(Box<RangeExpr>),
    /// `sum by (a) (…)`
    Aggregate {
        /// What is made of the series of a group.
        of: Aggregate,
        /// Of `topk` and `bottomk`.
        parameter: usize,
        /// Which series are one group.
        grouping: Option<Grouping>,
        /// Of what.
        inner: Box<Metric>,
    },
    /// `a / b`
    Binary {
        /// The operator.
        of: Operator,
        /// Whether a comparison says 0 or 1.
        as_bool: bool,
        /// Left.
        left: Box<Metric>,
        /// Right.
        right: Box<Metric>,
    },
    /// A number.
    Number(f64),
    /// `vector(1)`: the one series without labels.
    Vector(f64),
}

/// What is counted, over which time.
#[derive(Debug, Clone)]
pub struct RangeExpr {
    /// What of the lines in the window.
    pub of: RangeOp,
    /// Of which lines.
    pub log: LogExpr,
    /// The label whose value counts, with `| unwrap`.
    pub unwrap: Option<Unwrap>,
    /// Length of the window.
    pub range: Micros,
    /// How long before the step the window ends.
    pub offset: Micros,
    /// `by` or `without` of the function itself.
    pub grouping: Option<Grouping>,
    /// Labels that tell series apart, as far as the query looks at them.
    pub identity: Identity,
}

/// What tells the series of a range apart. Lines have many labels, one of which may be another for each line, so only
/// those count that the query names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// These, sorted.
    pub names: Vec<String>,
}

/// `| unwrap duration(took)`
#[derive(Debug, Clone)]
pub struct Unwrap {
    /// The label.
    pub name: String,
    /// What its value is read as.
    pub unit: Unit,
    /// Filters behind it.
    pub filters: Vec<LabelFilter>,
}

/// A function over the lines of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RangeOp {
    /// How many, and of an unwrapped label their number, too.
    Count,
    /// How many a second, or of an unwrapped label its sum a second.
    Rate,
    /// Bytes of the lines.
    Bytes,
    /// The same a second.
    BytesRate,
    /// 1 where there is none.
    Absent,
    /// Of an unwrapped label.
    Sum,
    /// Of an unwrapped label.
    Avg,
    /// Of an unwrapped label.
    Min,
    /// Of an unwrapped label.
    Max,
    /// Of an unwrapped label.
    Stddev,
    /// Of an unwrapped label.
    Stdvar,
    /// Of an unwrapped label.
    First,
    /// Of an unwrapped label.
    Last,
    /// Of an unwrapped label.
    Quantile(f64),
}

/// What is made of the series of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `count`
    Count,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Top,
    /// `bottomk`
    Bottom,
    /// `sort`
    Sort,
    /// `sort_desc`
    SortDescending,
}

/// Which series are one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// `without`: all labels but these.
    pub without: bool,
    /// The labels.
    pub names: Vec<String>,
}

/// An operator between two metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
    /// `==`, `>` and others.
    Compare(Compare),
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

impl Test {
    /// Whether a value passes; "" is none.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equal(text) => value == text,
            Self::NotEqual(text) => value != text,
            Self::Regex(regex) => regex.regex.is_match(value),
            Self::NotRegex(regex) => !regex.regex.is_match(value),
        }
    }
}

impl Compare {
    /// Whether it holds between two numbers.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Above => left > right,
            Self::AtLeast => left >= right,
            Self::Below => left < right,
            Self::AtMost => left <= right,
        }
    }
}

impl Metric {
    /// What has to be looked up before it can be evaluated, in the order in which [`super::evaluate`] takes it.
    pub fn leaves(&self) -> Vec<&RangeExpr> {
        fn collect<'a>(metric: &'a Metric, into: &mut Vec<&'a RangeExpr>) {
            match metric {
                Metric::Range(range) => into.push(range),
                Metric::Aggregate { inner, .. } => collect(inner, into),
                Metric::Binary { left, right, .. } => {
                    collect(left, into);
                    collect(right, into);
                }
                Metric::Number(_) | Metric::Vector(_) => {}
            }
        }
        let mut leaves = Vec::new();
        collect(self, &mut leaves);
        leaves
    }

    /// Whether it is one number at each step, and no series.
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Binary { left, right, .. } => left.is_scalar() && right.is_scalar(),
            _ => false,
        }
    }
}
