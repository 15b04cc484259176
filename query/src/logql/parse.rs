//! From the text of LogQL to its tree. What is not supported is refused by its name.

use std::cell::Cell;

use regex::{Regex, RegexBuilder};
use stages::time::Micros;

use super::lex::{Placed, Token, tokens};
use super::template::Template;
use super::tree::{
    Aggregate, Anchored, Compare, Expr, Grouping, Identity, LabelFilter, LabelSource, LineFilter, LinePattern, LogExpr,
    Matcher, Metric, Needle, Operator, Pick, RangeExpr, RangeOp, Stage, Test, Unit, Unwrap,
};

/// Longest query in bytes: Drilldown writes some hundred.
const MAX_BYTES: usize = 8 * 1024;
/// Deepest nesting: each level is a call.
const MAX_DEPTH: usize = 32;
/// Most matchers and stages of a query, and most texts of its filters.
const MAX_PARTS: usize = 128;
/// Memory of one compiled regular expression.
const MAX_REGEX_BYTES: usize = 512 * 1024;
/// Most regular expressions of a query; one that is anchored counts twice.
const MAX_REGEXES: usize = 32;
/// Longest window and longest offset.
const MAX_RANGE_SECONDS: f64 = 10.0 * 366.0 * 86_400.0;
/// Labels that every series has, as far as its lines do, unless the query says by which.
pub(super) const STREAM: [&str; 4] = ["application", "detected_level", "language", "service_name"];

/// Why a query can't be used. Said to the client as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LogQlError {
    message: String,
}

impl LogQlError {
    /// What is wrong at a place.
    pub(super) fn at(text: &str, at: usize, what: impl std::fmt::Display) -> Self {
        let at = text.floor_char_boundary(at.min(text.len()));
        let line = text[..at].matches('\n').count() + 1;
        let column = text[..at].rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { message: format!("parse error at line {line}, col {column}: {what}") }
    }

    /// What LoggerHub does not have.
    pub(super) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what} is not supported by LoggerHub") }
    }
}

/// Reads a query.
pub fn parse(text: &str) -> Result<Expr, LogQlError> {
    let mut parser = Parser::new(text)?;
    let parsed = parser.expression(0)?;
    parser.end()?;
    let mut expr = match parsed {
        Parsed::Log(log) => Expr::Log(log),
        Parsed::Metric(metric) => Expr::Metric(metric),
    };
    if let Expr::Metric(metric) = &mut expr {
        identify(metric, &mut Vec::new(), None);
    }
    Ok(expr)
}

/// Reads a selector alone; of no text, the one that finds every line.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, LogQlError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    match parse(text)? {
        Expr::Log(LogExpr { matchers, stages }) if stages.is_empty() => Ok(matchers),
        _ => Err(LogQlError::at(text, 0, "only label matchers are supported here, such as {service_name=\"api\"}")),
    }
}

/// Tells each range which labels tell its series apart: those that the query names around it.
fn identify(metric: &mut Metric, named: &mut Vec<String>, summed: Option<Vec<String>>) {
    match metric {
        Metric::Range(range) => {
            let own = range.grouping.as_ref().filter(|grouping| !grouping.without);
            let mut names = match (own, summed) {
                (Some(grouping), _) => grouping.names.clone(),
                // A sum is the same, whatever its parts were.
                (None, Some(names)) if range.of.adds_up() => names,
                _ => STREAM.iter().map(|name| (*name).to_owned()).chain(named.iter().cloned()).collect(),
            };
            names.sort();
            names.dedup();
            range.identity = Identity { names };
        }
        Metric::Aggregate { of, grouping, inner, .. } => {
            let names = grouping.as_ref().map(|grouping| grouping.names.clone()).unwrap_or_default();
            let without = grouping.as_ref().is_some_and(|grouping| grouping.without);
            let summed = (*of == Aggregate::Sum && !without).then(|| names.clone());
            let before = named.len();
            named.extend(names);
            identify(inner, named, summed);
            named.truncate(before);
        }
        Metric::Binary { left, right, .. } => {
            identify(left, named, None);
            identify(right, named, None);
        }
        Metric::Number(_) | Metric::Vector(_) => {}
    }
}

impl RangeOp {
    /// Whether what it says of two sets of lines together is the sum of what it says of each.
    fn adds_up(self) -> bool {
        matches!(self, Self::Count | Self::Rate | Self::Bytes | Self::BytesRate | Self::Sum)
    }

    /// Whether it looks at the value of a label.
    fn needs_unwrap(self) -> bool {
        !matches!(self, Self::Count | Self::Rate | Self::Bytes | Self::BytesRate | Self::Absent)
    }
}

enum Parsed {
    Log(LogExpr),
    Metric(Metric),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
    parts: usize,
    regexes: Cell<usize>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, LogQlError> {
        if text.len() > MAX_BYTES {
            return Err(LogQlError::at(text, MAX_BYTES, format!("the query is longer than {MAX_BYTES} bytes")));
        }
        Ok(Self { text, tokens: tokens(text)?, next: 0, depth: 0, parts: 0, regexes: Cell::new(0) })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|placed| &placed.token)
    }

    fn peek_after(&self, count: usize) -> Option<&Token> {
        self.tokens.get(self.next + count).map(|placed| &placed.token)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.next += usize::from(token.is_some());
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(found)) if *found == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.next += usize::from(found);
        found
    }

    fn take_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), LogQlError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn name(&mut self) -> Result<String, LogQlError> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn string(&mut self) -> Result<String, LogQlError> {
        match self.peek() {
            Some(Token::Text(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.unexpected("a text in quotation marks")),
        }
    }

    fn end(&self) -> Result<(), LogQlError> {
        if self.next == self.tokens.len() { Ok(()) } else { Err(self.unexpected("the end of the query")) }
    }

    fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |placed| placed.at)
    }

    fn error(&self, what: impl std::fmt::Display) -> LogQlError {
        LogQlError::at(self.text, self.place(), what)
    }

    fn unexpected(&self, expected: &str) -> LogQlError {
        let found = match self.peek() {
            None => "end of query".to_owned(),
            Some(Token::Name(name)) => format!("IDENTIFIER `{name}`"),
            Some(Token::Text(_)) => "STRING".to_owned(),
            Some(Token::Number(_)) => "NUMBER".to_owned(),
            Some(Token::Duration(_)) => "DURATION".to_owned(),
            Some(Token::Bytes(_)) => "BYTES".to_owned(),
            Some(Token::Flag(flag)) => format!("`--{flag}`"),
            Some(Token::Sign(sign)) => format!("`{sign}`"),
        };
        self.error(format!("syntax error: unexpected {found}, expecting {expected}"))
    }

    fn deeper(&mut self) -> Result<(), LogQlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("the query is nested too deeply")) } else { Ok(()) }
    }

    fn part(&mut self) -> Result<(), LogQlError> {
        self.parts += 1;
        if self.parts > MAX_PARTS { Err(self.error("the query has too many parts")) } else { Ok(()) }
    }

    fn regex(&self, at: usize, text: &str) -> Result<Regex, LogQlError> {
        self.regexes.set(self.regexes.get() + 1);
        if self.regexes.get() > MAX_REGEXES {
            return Err(LogQlError::at(self.text, at, "the query has too many regular expressions".to_owned()));
        }
        let built = RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build();
        built.map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            LogQlError::at(self.text, at, format!("invalid regular expression `{text}`: {why}"))
        })
    }

    fn anchored(&self, at: usize, text: String) -> Result<Anchored, LogQlError> {
        self.regex(at, &text)?;
        let regex = self.regex(at, &format!(r"\A(?s:{text})\z"))?;
        Ok(Anchored { text, regex })
    }

    /// An expression whose operators bind at least as strongly as `strength`.
    fn expression(&mut self, strength: u8) -> Result<Parsed, LogQlError> {
        self.deeper()?;
        let mut left = self.primary()?;
        while let Some((of, own)) = self.operator().filter(|(_, own)| *own >= strength) {
            self.part()?;
            self.next += 1;
            let as_bool = self.take_name("bool");
            for word in ["on", "ignoring", "group_left", "group_right"] {
                if self.is_name(word) {
                    return Err(LogQlError::unsupported(format!("`{word}` between two metrics")));
                }
            }
            let at = self.place();
            // A power binds to the right.
            let right = self.expression(if of == Operator::Power { own } else { own + 1 })?;
            let (Parsed::Metric(left_metric), Parsed::Metric(right)) = (left, right) else {
                return Err(LogQlError::at(
                    self.text,
                    at,
                    "unexpected type for a leg of a binary operation: a log query",
                ));
            };
            left = Parsed::Metric(Metric::Binary { of, as_bool, left: Box::new(left_metric), right: Box::new(right) });
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        Some(match self.peek()? {
            Token::Name(name) => match name.as_str() {
                "or" => (Operator::Or, 1),
                "and" => (Operator::And, 2),
                "unless" => (Operator::Unless, 2),
                _ => return None,
            },
            Token::Sign(sign) => match *sign {
                "+" => (Operator::Add, 4),
                "-" => (Operator::Subtract, 4),
                "*" => (Operator::Multiply, 5),
                "/" => (Operator::Divide, 5),
                "%" => (Operator::Modulo, 5),
                "^" => (Operator::Power, 6),
                "=" => return None,
                sign => (Operator::Compare(compare(sign)?), 3),
            },
            _ => return None,
        })
    }

    fn primary(&mut self) -> Result<Parsed, LogQlError> {
        match self.peek() {
            Some(Token::Sign("{")) => Ok(Parsed::Log(self.log()?)),
            Some(Token::Sign("(")) => {
                self.next += 1;
                let inner = self.expression(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Token::Sign(sign @ ("-" | "+"))) => {
                let negative = *sign == "-";
                self.next += 1;
                match self.take() {
                    Some(Token::Number(number)) => Ok(number_of(if negative { -number } else { number })),
                    _ => {
                        self.next -= 1;
                        Err(self.unexpected("a number"))
                    }
                }
            }
            Some(Token::Number(number)) => {
                let number = *number;
                self.next += 1;
                Ok(number_of(number))
            }
            Some(Token::Name(name)) => {
                let name = name.clone();
                if let Some(of) = range_op(&name) {
                    self.next += 1;
                    return Ok(Parsed::Metric(self.range(&name, of)?));
                }
                if let Some(of) = aggregate(&name) {
                    self.next += 1;
                    return Ok(Parsed::Metric(self.aggregate(of)?));
                }
                match name.as_str() {
                    "vector" => {
                        self.next += 1;
                        self.expect("(")?;
                        let Some(Token::Number(number)) = self.take() else {
                            self.next -= 1;
                            return Err(self.unexpected("a number"));
                        };
                        self.expect(")")?;
                        Ok(Parsed::Metric(Metric::Vector(number)))
                    }
                    "label_replace" | "approx_topk" | "rate_counter" | "count_values" | "variants" => {
                        Err(LogQlError::unsupported(format!("function `{name}`")))
                    }
                    _ => Err(self.unexpected("a selector such as {service_name=\"api\"}, or a function")),
                }
            }
            _ => Err(self.unexpected("a selector such as {service_name=\"api\"}, or a function")),
        }
    }

    /// `sum by (a) (…)`, `sum(…) by (a)`, `topk(5, …)`.
    fn aggregate(&mut self, of: Aggregate) -> Result<Metric, LogQlError> {
        let mut grouping = self.grouping()?;
        self.expect("(")?;
        let mut parameter = 0;
        if matches!(of, Aggregate::Top | Aggregate::Bottom) {
            match self.take() {
                Some(Token::Number(number)) if (1.0..=10_000.0).contains(&number) && number.fract() == 0.0 => {
                    parameter = number as usize;
                }
                _ => {
                    self.next -= 1;
                    return Err(self.error("invalid parameter: a number from 1 to 10000 is expected"));
                }
            }
            self.expect(",")?;
        }
        let at = self.place();
        let Parsed::Metric(inner) = self.expression(0)? else {
            return Err(LogQlError::at(self.text, at, "syntax error: unexpected log query, expecting a metric query"));
        };
        self.expect(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        if grouping.is_some() && matches!(of, Aggregate::Sort | Aggregate::SortDescending) {
            return Err(self.error("syntax error: sort has no grouping"));
        }
        Ok(Metric::Aggregate { of, parameter, grouping, inner: Box::new(inner) })
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, LogQlError> {
        let without = match self.peek() {
            Some(Token::Name(name)) if name == "by" => false,
            Some(Token::Name(name)) if name == "without" => true,
            _ => return Ok(None),
        };
        self.next += 1;
        self.expect("(")?;
        let mut names = Vec::new();
        while !self.take_sign(")") {
            self.part()?;
            names.push(self.name()?);
            if !self.take_sign(",") && !self.is_sign(")") {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        Ok(Some(Grouping { without, names }))
    }

    /// `rate({…} |= "x" [5m] offset 1m)`, and where else the window may stand.
    fn range(&mut self, name: &str, of: RangeOp) -> Result<Metric, LogQlError> {
        let begun = self.place();
        self.expect("(")?;
        let of = match of {
            RangeOp::Quantile(_) => {
                let negative = self.take_sign("-");
                let Some(Token::Number(quantile)) = self.take() else {
                    self.next -= 1;
                    return Err(self.unexpected("a number"));
                };
                self.expect(",")?;
                RangeOp::Quantile(if negative { -quantile } else { quantile })
            }
            of => of,
        };
        let mut window = Window::default();
        let in_parentheses = self.take_sign("(");
        let mut log = LogExpr { matchers: self.selector()?, stages: Vec::new() };
        self.window(&mut window)?;
        let mut unwrap = None;
        self.stages(&mut log, Some(&mut unwrap), &mut window)?;
        if in_parentheses {
            self.expect(")")?;
        }
        self.window(&mut window)?;
        self.expect(")")?;
        let grouping = self.grouping()?;
        let Some(range) = window.range else {
            return Err(LogQlError::at(self.text, begun, "syntax error: a window such as [5m] is missing"));
        };
        match (&unwrap, of.needs_unwrap()) {
            (None, true) => {
                return Err(LogQlError::at(self.text, begun, format!("invalid aggregation {name} without unwrap")));
            }
            (Some(_), _) if matches!(of, RangeOp::Bytes | RangeOp::BytesRate | RangeOp::Absent) => {
                return Err(LogQlError::at(self.text, begun, format!("invalid aggregation {name} with unwrap")));
            }
            _ => {}
        }
        if grouping.is_some() && unwrap.is_none() {
            return Err(LogQlError::at(self.text, begun, format!("grouping not allowed for {name} aggregation")));
        }
        Ok(Metric::Range(Box::new(RangeExpr {
            of,
            log,
            unwrap,
            range,
            offset: window.offset,
            grouping,
            identity: Identity::default(),
        })))
    }

    fn window(&mut self, window: &mut Window) -> Result<(), LogQlError> {
        if self.is_sign("[") {
            if window.range.is_some() {
                return Err(self.unexpected("one window only"));
            }
            self.next += 1;
            let seconds = self.duration()?;
            if micros(seconds) <= 0 {
                return Err(self.error("the window is at least a microsecond long"));
            }
            window.range = Some(micros(seconds));
            self.expect("]")?;
        }
        if self.take_name("offset") {
            let negative = self.take_sign("-");
            let seconds = self.duration()?;
            window.offset = micros(if negative { -seconds } else { seconds });
        }
        Ok(())
    }

    fn duration(&mut self) -> Result<f64, LogQlError> {
        match self.peek() {
            Some(Token::Duration(seconds)) if seconds.abs() <= MAX_RANGE_SECONDS => {
                let seconds = *seconds;
                self.next += 1;
                Ok(seconds)
            }
            _ => Err(self.unexpected("a duration such as 5m")),
        }
    }

    fn log(&mut self) -> Result<LogExpr, LogQlError> {
        let mut log = LogExpr { matchers: self.selector()?, stages: Vec::new() };
        self.stages(&mut log, None, &mut Window::default())?;
        Ok(log)
    }

    fn selector(&mut self) -> Result<Vec<Matcher>, LogQlError> {
        self.expect("{")?;
        let mut matchers = Vec::new();
        while !self.take_sign("}") {
            self.part()?;
            let name = self.name()?;
            matchers.push(Matcher { name, test: self.test()? });
            if !self.take_sign(",") && !self.is_sign("}") {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        Ok(matchers)
    }

    /// `= "x"`, `=~ "x"` and their opposites.
    fn test(&mut self) -> Result<Test, LogQlError> {
        let sign = match self.peek() {
            Some(Token::Sign(sign @ ("=" | "!=" | "=~" | "!~"))) => *sign,
            _ => return Err(self.unexpected("`=`, `!=`, `=~` or `!~`")),
        };
        self.next += 1;
        let at = self.place();
        let text = self.string()?;
        Ok(match sign {
            "=" => Test::Equal(text),
            "!=" => Test::NotEqual(text),
            "=~" => Test::Regex(self.anchored(at, text)?),
            _ => Test::NotRegex(self.anchored(at, text)?),
        })
    }

    /// What follows a selector. `unwrap` and windows may stand in a metric query only.
    fn stages(
        &mut self,
        log: &mut LogExpr,
        mut unwrap: Option<&mut Option<Unwrap>>,
        window: &mut Window,
    ) -> Result<(), LogQlError> {
        let in_metric = unwrap.is_some();
        loop {
            if in_metric && (self.is_sign("[") || self.is_name("offset")) {
                self.window(window)?;
                continue;
            }
            let Some(Token::Sign(sign)) = self.peek() else { return Ok(()) };
            match *sign {
                sign @ ("|=" | "|~" | "|>" | "!=" | "!~" | "!>") => {
                    self.part()?;
                    self.next += 1;
                    let filter = self.line_filter(sign)?;
                    log.stages.push(Stage::Line(filter));
                }
                "|" => {
                    self.part()?;
                    self.next += 1;
                    if self.is_name("unwrap") && !self.is_comparison(1) {
                        let Some(place) = unwrap.as_deref_mut() else {
                            return Err(self.error("unwrap is allowed in a range aggregation only"));
                        };
                        self.next += 1;
                        *place = Some(self.unwrap()?);
                    } else if let Some(Some(unwrapped)) = unwrap.as_deref_mut() {
                        let filter = self.label_filter()?;
                        unwrapped.filters.push(filter);
                    } else {
                        let stage = self.stage()?;
                        log.stages.push(stage);
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn line_filter(&mut self, sign: &str) -> Result<LineFilter, LogQlError> {
        let mut any = Vec::new();
        loop {
            self.part()?;
            if self.is_name("ip") {
                return Err(LogQlError::unsupported("the filter `ip(…)`"));
            }
            let at = self.place();
            let text = self.string()?;
            any.push(match sign {
                "|=" | "!=" => Needle::Text(text),
                "|~" | "!~" => Needle::Regex(self.regex(at, &text)?),
                _ => Needle::Pattern(self.pattern(at, &text)?),
            });
            let goes_on = self.is_name("or") && matches!(self.peek_after(1), Some(Token::Text(_)));
            if !goes_on {
                return Ok(LineFilter { wanted: sign.starts_with('|'), any });
            }
            self.next += 1;
        }
    }

    fn is_comparison(&self, after: usize) -> bool {
        let Some(Token::Sign(sign)) = self.peek_after(after) else { return false };
        matches!(*sign, "=" | "!=" | "=~" | "!~") || compare(sign).is_some()
    }

    fn stage(&mut self) -> Result<Stage, LogQlError> {
        if self.is_sign("(") || self.is_comparison(1) {
            return Ok(Stage::Label(self.label_filter()?));
        }
        let begun = self.place();
        let name = self.name()?;
        Ok(match name.as_str() {
            "json" => Stage::Json(self.json_fields()?),
            "logfmt" => self.logfmt()?,
            "pattern" => {
                let at = self.place();
                let text = self.string()?;
                let pattern = self.pattern(at, &text)?;
                if pattern.rest.iter().all(|(name, _)| name.is_none()) {
                    return Err(LogQlError::at(self.text, at, "invalid pattern: it names nothing such as <ip>"));
                }
                Stage::Pattern(pattern)
            }
            "regexp" => {
                let at = self.place();
                let text = self.string()?;
                let regex = self.regex(at, &text)?;
                if regex.capture_names().flatten().next().is_none() {
                    return Err(LogQlError::at(self.text, at, "at least one named capture must be supplied"));
                }
                Stage::Regexp(regex)
            }
            "drop" => Stage::Drop(self.picks()?),
            "keep" => Stage::Keep(self.picks()?),
            "line_format" => {
                let text = self.string()?;
                Stage::LineFormat(Template::read(&text).map_err(|why| LogQlError::at(self.text, begun, why))?)
            }
            "label_format" => Stage::LabelFormat(self.label_formats()?),
            "decolorize" => Stage::Decolorize,
            "unpack" | "distinct" | "ip" => return Err(LogQlError::unsupported(format!("stage `{name}`"))),
            _ => {
                return Err(LogQlError::at(
                    self.text,
                    begun,
                    format!(
                        "syntax error: unexpected IDENTIFIER `{name}`: no stage is called so, and no comparison follows"
                    ),
                ));
            }
        })
    }

    /// `a="x.y[0]", b`
    fn json_fields(&mut self) -> Result<Vec<(String, Vec<String>)>, LogQlError> {
        let fields = self.extractions()?;
        let path = |(name, at, text): (String, usize, String)| {
            let path = json_path(&text).ok_or_else(|| LogQlError::at(self.text, at, "invalid path of a JSON value"))?;
            Ok((name, path))
        };
        fields.into_iter().map(path).collect()
    }

    fn logfmt(&mut self) -> Result<Stage, LogQlError> {
        let (mut strict, mut keep_empty) = (false, false);
        while let Some(Token::Flag(flag)) = self.peek() {
            match flag.as_str() {
                "strict" => strict = true,
                "keep-empty" => keep_empty = true,
                _ => return Err(self.unexpected("--strict or --keep-empty")),
            }
            self.next += 1;
        }
        let fields = self.extractions()?.into_iter().map(|(name, _, key)| (name, key)).collect();
        Ok(Stage::Logfmt { strict, keep_empty, fields })
    }

    /// Names, each with where a text for it begins and that text; of a name alone, the name.
    fn extractions(&mut self) -> Result<Vec<(String, usize, String)>, LogQlError> {
        let mut fields = Vec::new();
        while let Some(Token::Name(_)) = self.peek() {
            self.part()?;
            let at = self.place();
            let name = self.name()?;
            let text = if self.take_sign("=") { self.string()? } else { name.clone() };
            fields.push((name, at, text));
            if !self.take_sign(",") {
                break;
            }
        }
        Ok(fields)
    }

    fn picks(&mut self) -> Result<Vec<Pick>, LogQlError> {
        let mut picks = Vec::new();
        loop {
            self.part()?;
            let name = self.name()?;
            let tested = matches!(self.peek(), Some(Token::Sign("=" | "!=" | "=~" | "!~")))
                && matches!(self.peek_after(1), Some(Token::Text(_)));
            picks.push(Pick { name, test: if tested { Some(self.test()?) } else { None } });
            if !self.take_sign(",") {
                return Ok(picks);
            }
        }
    }

    fn label_formats(&mut self) -> Result<Vec<(String, LabelSource)>, LogQlError> {
        let mut formats = Vec::new();
        loop {
            self.part()?;
            let name = self.name()?;
            self.expect("=")?;
            let at = self.place();
            let source = match self.peek() {
                Some(Token::Text(text)) => {
                    let template = Template::read(text).map_err(|why| LogQlError::at(self.text, at, why))?;
                    self.next += 1;
                    LabelSource::Template(template)
                }
                _ => LabelSource::Rename(self.name()?),
            };
            formats.push((name, source));
            if !self.take_sign(",") {
                return Ok(formats);
            }
        }
    }

    /// `unwrap f`, `unwrap duration(f)`
    fn unwrap(&mut self) -> Result<Unwrap, LogQlError> {
        let name = self.name()?;
        if !self.take_sign("(") {
            return Ok(Unwrap { name, unit: Unit::Number, filters: Vec::new() });
        }
        let unit = match name.as_str() {
            "duration" | "duration_seconds" => Unit::Duration,
            "bytes" => Unit::Bytes,
            _ => return Err(LogQlError::unsupported(format!("the conversion `{name}(…)` of unwrap"))),
        };
        let name = self.name()?;
        self.expect(")")?;
        Ok(Unwrap { name, unit, filters: Vec::new() })
    }

    /// `a="x" or b>5 and c!="y"`; a comma is an `and`.
    fn label_filter(&mut self) -> Result<LabelFilter, LogQlError> {
        self.deeper()?;
        let mut left = self.label_filter_all()?;
        while self.take_name("or") {
            left = LabelFilter::Or(Box::new(left), Box::new(self.label_filter_all()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn label_filter_all(&mut self) -> Result<LabelFilter, LogQlError> {
        let mut left = self.label_filter_one()?;
        while self.take_name("and") || self.take_sign(",") {
            left = LabelFilter::And(Box::new(left), Box::new(self.label_filter_one()?));
        }
        Ok(left)
    }

    fn label_filter_one(&mut self) -> Result<LabelFilter, LogQlError> {
        self.part()?;
        if self.take_sign("(") {
            let inner = self.label_filter()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        let sign = match self.peek() {
            Some(Token::Sign(sign)) => *sign,
            _ => return Err(self.unexpected("a comparison")),
        };
        if let Some(Token::Text(_)) = self.peek_after(1) {
            return Ok(LabelFilter::Matches(Matcher { name, test: self.test()? }));
        }
        if let Some(Token::Name(function)) = self.peek_after(1) {
            return Err(if function == "ip" {
                LogQlError::unsupported("the filter `ip(…)`")
            } else {
                self.next += 1;
                self.unexpected("a text, a number, a duration or a size")
            });
        }
        let compare = match sign {
            "=" => Compare::Equal,
            sign => compare(sign).ok_or_else(|| self.unexpected("a comparison"))?,
        };
        self.next += 1;
        let negative = self.take_sign("-");
        let (unit, value) = match self.peek() {
            Some(Token::Number(number)) => (Unit::Number, *number),
            Some(Token::Duration(seconds)) => (Unit::Duration, *seconds),
            Some(Token::Bytes(bytes)) => (Unit::Bytes, *bytes),
            _ => return Err(self.unexpected("a text, a number, a duration or a size")),
        };
        self.next += 1;
        Ok(LabelFilter::Compares { name, unit, compare, value: if negative { -value } else { value } })
    }

    fn pattern(&self, at: usize, text: &str) -> Result<LinePattern, LogQlError> {
        LinePattern::read(text).map_err(|why| LogQlError::at(self.text, at, format!("invalid pattern: {why}")))
    }
}

/// A window as far as it is known.
#[derive(Default)]
struct Window {
    range: Option<Micros>,
    offset: Micros,
}

impl LinePattern {
    fn read(text: &str) -> Result<Self, &'static str> {
        let mut pattern = Self { first: String::new(), rest: Vec::new() };
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((name, after)) = capture(rest) {
                if pattern.rest.last().is_some_and(|(_, text)| text.is_empty()) {
                    return Err("two names stand side by side");
                }
                let named = (name != "_").then(|| name.to_owned());
                if named.is_some() && pattern.rest.iter().any(|(other, _)| *other == named) {
                    return Err("a name stands in it twice");
                }
                pattern.rest.push((named, String::new()));
                rest = after;
                continue;
            }
            let mut chars = rest.chars();
            if let Some(c) = chars.next() {
                pattern.rest.last_mut().map_or(&mut pattern.first, |(_, text)| text).push(c);
            }
            rest = chars.as_str();
        }
        Ok(pattern)
    }
}

/// The name in `<name>`, and what follows it.
fn capture(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('<')?.split_once('>')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((name, after))
}

/// The steps of `a.b[0]["c d"]`.
fn json_path(text: &str) -> Option<Vec<String>> {
    let mut steps = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (step, after) = match inside.strip_prefix('"') {
                Some(quoted) => quoted.split_once("\"]")?,
                None => inside.split_once(']').filter(|(index, _)| index.parse::<usize>().is_ok())?,
            };
            steps.push(step.to_owned());
            rest = after;
        } else {
            let field = rest.strip_prefix('.').filter(|_| !steps.is_empty()).unwrap_or(rest);
            let end = field.find(['.', '[']).unwrap_or(field.len());
            if end == 0 {
                return None;
            }
            steps.push(field[..end].to_owned());
            rest = &field[end..];
        }
    }
    (!steps.is_empty()).then_some(steps)
}

fn number_of(number: f64) -> Parsed {
    Parsed::Metric(Metric::Number(number))
}

fn micros(seconds: f64) -> Micros {
    (seconds * 1e6).round() as Micros
}

fn compare(sign: &str) -> Option<Compare> {
    Some(match sign {
        "==" => Compare::Equal,
        "!=" => Compare::NotEqual,
        ">" => Compare::Above,
        ">=" => Compare::AtLeast,
        "<" => Compare::Below,
        "<=" => Compare::AtMost,
        _ => return None,
    })
}

fn range_op(name: &str) -> Option<RangeOp> {
    Some(match name {
        "count_over_time" => RangeOp::Count,
        "rate" => RangeOp::Rate,
        "bytes_over_time" => RangeOp::Bytes,
        "bytes_rate" => RangeOp::BytesRate,
        "absent_over_time" => RangeOp::Absent,
        "sum_over_time" => RangeOp::Sum,
        "avg_over_time" => RangeOp::Avg,
        "min_over_time" => RangeOp::Min,
        "max_over_time" => RangeOp::Max,
        "stddev_over_time" => RangeOp::Stddev,
        "stdvar_over_time" => RangeOp::Stdvar,
        "first_over_time" => RangeOp::First,
        "last_over_time" => RangeOp::Last,
        "quantile_over_time" => RangeOp::Quantile(0.0),
        _ => return None,
    })
}

fn aggregate(name: &str) -> Option<Aggregate> {
    Some(match name {
        "sum" => Aggregate::Sum,
        "avg" => Aggregate::Avg,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "count" => Aggregate::Count,
        "stddev" => Aggregate::Stddev,
        "stdvar" => Aggregate::Stdvar,
        "topk" => Aggregate::Top,
        "bottomk" => Aggregate::Bottom,
        "sort" => Aggregate::Sort,
        "sort_desc" => Aggregate::SortDescending,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes that clients send.
    const SENT: [&str; 34] = [
        "vector(1)+vector(1)",
        r#"sum by (level, detected_level) (count_over_time({service_name="api"} |= "x" | drop __error__[60s]))"#,
        r#"{service_name="api"}  | detected_level="error" | json  | logfmt | drop __error__, __error_details__  | status="500""#,
        r#"sum by (detected_level) (count_over_time({service_name=`api`} [1s]))"#,
        r#"sum by (status) (count_over_time({service_name="api"} | json | logfmt | drop __error__, __error_details__ | status!="" [10s]))"#,
        r#"avg_over_time({service_name="api"} | json | logfmt | drop __error__, __error_details__ | unwrap took | __error__="" [10s]) by ()"#,
        r#"{service_name="api"} |~ `(?i)timeout` |= `Timeout`"#,
        r#"sum(count_over_time({service_name="api", pod!=""} [10s])) by (pod)"#,
        r#"{service_name="api", level=~"error|warn", pod!="x", app!~`a.*`,}"#,
        r#"{service_name="api"} |= "a" or "b" != "a" |~ `(?i)a` !~ `a` |> "<_> a <_>" !> "<_>b""#,
        r#"{a="x"} | level="error" | status>=500 | took>250ms | size>10KB | (a="x" or b="y") and c!="z""#,
        r#"{a="x"} | status=500, took==1h30m or size<1.5MiB"#,
        r#"{a="x"} | json a="x.y[0]", b="z" | json c"#,
        r#"{a="x"} | logfmt --strict --keep-empty a, b="c""#,
        r#"{a="x"} | pattern "<ip> - <_> \"<method> <path>\"" | regexp "(?P<n>[0-9]+)""#,
        r#"{a="x"} | line_format "{{.a}} {{ .b }}" | label_format a=b,c="{{.d}}" | decolorize | keep a,b | drop c="d", e"#,
        r#"rate({a="x"}[5m] offset 5m)"#,
        r#"rate(({a="x"} |= "b")[5m])"#,
        r#"bytes_rate({a="x"}[5m]) / bytes_over_time({a="x"}[5m]) * 100 > 5"#,
        r#"absent_over_time({a="x"}[5m])"#,
        r#"quantile_over_time(0.95, {a="x"} | json | unwrap duration(took) | __error__="" [5m]) by (pod)"#,
        r#"sum_over_time({a="x"} | logfmt | unwrap bytes(size) [5m])"#,
        r#"topk(10, sum by (service_name) (rate({a=~".+"}[5m])))"#,
        r#"bottomk(3, sum without (pod) (rate({a=~".+"}[5m])))"#,
        r#"sort_desc(sum(rate({a=~".+"}[5m])) by (pod))"#,
        r#"sum(rate({a="x"}[5m])) and sum(rate({a="y"}[5m])) unless vector(1) or 2 ^ 3 ^ 2 - -1"#,
        r#"sum(rate({a="x"}[5m])) >= bool 5"#,
        "{a=\"x\"} # a comment\n |= \"# none\"",
        "{}",
        r#"{service_name=~".+"}"#,
        r#"{a="x"} | json_field="y""#,
        r#"{a="\"é\x41\u00e9\t\\"} |= "a|b\\.c""#,
        r#"count_over_time({a="x"} | json [1m])"#,
        r#"sum by (detected_level) (count_over_time({service_name="api"} |= "x" | detected_level != "" [1m]))"#,
    ];

    #[test]
    fn what_clients_send_is_read() {
        for text in SENT {
            if let Err(error) = parse(text) {
                panic!("{text}: {error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_or_missing_is_named() {
        for (text, message) in [
            ("", "parse error at line 1, col 1: syntax error: unexpected end of query, expecting a selector"),
            ("{a=\"x\"", "parse error at line 1, col 7: syntax error: unexpected end of query, expecting `,` or `}`"),
            ("{a=\"x\"}\n |= x", "parse error at line 2, col 5: syntax error: unexpected IDENTIFIER `x`"),
            ("{a=~\"(\"}", "parse error at line 1, col 5: invalid regular expression `(`"),
            ("{a=\"x}", "parse error at line 1, col 4: literal not terminated"),
            ("{a=\"\\q\"}", "parse error at line 1, col 5: invalid char escape"),
            ("{a=\"x\"} | unpack", "stage `unpack` is not supported by LoggerHub"),
            ("{a=\"x\"} | distinct a", "stage `distinct` is not supported by LoggerHub"),
            ("{a=\"x\"} | nonsense", "parse error at line 1, col 11: syntax error: unexpected IDENTIFIER `nonsense`"),
            ("{a=\"x\"} |= ip(\"10.0.0.0/8\")", "the filter `ip(…)` is not supported by LoggerHub"),
            ("{a=\"x\"} | a = ip(\"10.0.0.0/8\")", "the filter `ip(…)` is not supported by LoggerHub"),
            (
                "{a=\"x\"} | line_format \"{{ToUpper .a}}\"",
                "parse error at line 1, col 11: the template function `ToUpper .a`",
            ),
            (
                "label_replace(rate({a=\"x\"}[1m]), \"a\", \"b\", \"c\", \"d\")",
                "function `label_replace` is not supported",
            ),
            ("rate({a=\"x\"})", "a window such as [5m] is missing"),
            ("sum({a=\"x\"})", "expecting a metric query"),
            ("sum_over_time({a=\"x\"}[1m])", "invalid aggregation sum_over_time without unwrap"),
            ("{a=\"x\"} | unwrap b", "unwrap is allowed in a range aggregation only"),
            ("rate({a=\"x\"}[1m]) by (b)", "grouping not allowed for rate aggregation"),
            ("rate({a=\"x\"}[1m]) + on (a) rate({a=\"y\"}[1m])", "`on` between two metrics is not supported"),
            ("{a=\"x\"} + 1", "unexpected type for a leg of a binary operation"),
            ("topk(0, vector(1))", "invalid parameter"),
            ("{a=\"x\"} | pattern \"<a><b>\"", "two names stand side by side"),
            ("{a=\"x\"} | regexp \"(a)\"", "at least one named capture"),
            ("{a=\"x\"} }", "unexpected `}`, expecting the end of the query"),
            ("{a=\"x\"} | b > 5x", "is no number, duration or size"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(parse(&"(".repeat(200)).is_err() && parse(&"x".repeat(MAX_BYTES + 1)).is_err());
        assert!(parse(&format!("{{a=\"x\"}}{}", " |= \"a\"".repeat(MAX_PARTS))).is_err());
    }

    #[test]
    fn series_are_told_apart_by_what_the_query_names() {
        let names = |text: &str| {
            let Expr::Metric(metric) = parse(text).unwrap() else { panic!("{text}") };
            metric.leaves()[0].identity.names.join(" ")
        };
        for (text, expected) in [
            (r#"rate({a="x"}[5m])"#, "application detected_level language service_name"),
            (r#"sum(rate({a="x"}[5m]))"#, ""),
            (r#"sum by (pod) (rate({a="x"}[5m]))"#, "pod"),
            (r#"sum without (pod) (rate({a="x"}[5m]))"#, "application detected_level language pod service_name"),
            (r#"max by (pod) (rate({a="x"}[5m]))"#, "application detected_level language pod service_name"),
            (r#"max by (pod) (sum by (node) (rate({a="x"}[5m])))"#, "node"),
            (r#"avg_over_time({a="x"} | unwrap b [5m]) by (pod)"#, "pod"),
            (
                r#"sum by (pod) (avg_over_time({a="x"} | unwrap b [5m]))"#,
                "application detected_level language pod service_name",
            ),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn operators_bind_as_in_arithmetic() {
        let value = |text: &str| {
            fn of(metric: &Metric) -> f64 {
                match metric {
                    Metric::Number(number) => *number,
                    Metric::Binary { of: operator, left, right, .. } => match operator {
                        Operator::Add => of(left) + of(right),
                        Operator::Subtract => of(left) - of(right),
                        Operator::Multiply => of(left) * of(right),
                        Operator::Power => of(left).powf(of(right)),
                        other => panic!("{other:?}"),
                    },
                    other => panic!("{other:?}"),
                }
            }
            let Expr::Metric(metric) = parse(text).unwrap() else { panic!("{text}") };
            of(&metric)
        };
        for (text, expected) in
            [("1 + 2 * 3", 7.0), ("2 ^ 3 ^ 2", 512.0), ("10 - 4 - 3", 3.0), ("(1 + 2) * 3", 9.0), ("2 * -3", -6.0)]
        {
            assert_eq!(value(text), expected, "{text}");
        }
    }
}
