//! Stages behind a query: `| grep -v health | stats count, p95(latency_ms) by service`.

use std::ops::Range;

use api::explain::TokenKind;

use super::lex::{Scanner, is_name};
use super::{Piece, Problem, QueryError};
use crate::expression::Field;
use crate::stage::{
    Aggregate, DEFAULT_TOP, FUNCTIONS, Function, Grep, GrepPattern, Interval, MAX_BY, MAX_COLUMNS, MAX_REGEX_BYTES,
    MAX_ROWS, MAX_SERIES, MAX_STAGES, Shape, VERBS, Verb,
};

/// Most events that `limit` leaves: a page.
const MAX_LIMIT: u32 = api::parameters::MAX_LIMIT;

/// Verbs of other languages, and what says the same here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("head", "limit"),
    ("take", "limit"),
    ("tail", "limit"),
    ("table", "fields"),
    ("project", "fields"),
    ("keep", "fields"),
    ("columns", "fields"),
    ("summarize", "stats"),
    ("chart", "timechart"),
    ("histogram", "timechart"),
    ("hist", "timechart"),
    ("match", "grep"),
];
/// Verbs of other languages for what stands before the first `|` here.
const FILTERS: [&str; 3] = ["where", "filter", "search"];
/// Fields that nothing can be grouped by.
const WHOLE: [(&str, &str); 6] = [
    ("id", "each event has its own"),
    ("timestamp", "`timechart` counts over time"),
    ("@timestamp", "`timechart` counts over time"),
    ("time", "`timechart` counts over time"),
    ("tenant", "the key decides it"),
    ("batch", "it is no part of an event"),
];

/// Whether what follows a `|` is a stage: a verb, and then a space or the end.
pub(super) fn begins(text: &str) -> bool {
    let text = text.trim_start();
    let verb = word_of(text);
    VERBS.iter().any(|(known, _)| *known == verb)
        && !text[verb.len()..].starts_with(|c: char| !c.is_whitespace() && !matches!(c, '|' | '('))
}

fn word_of(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '|' | '"'));
    &text[..end.unwrap_or(text.len())]
}

/// Reads the stages of a text, whose first `|` is at `from`. `pieces` gets what can be read of them.
pub(super) fn read(text: &str, from: usize, pieces: &mut Vec<Piece>) -> Result<(Vec<Grep>, Shape), QueryError> {
    let mut parser = Parser { scanner: Scanner { text, at: from }, pieces, pipe: from, greps: Vec::new(), shape: None };
    let mut stages = 0;
    loop {
        parser.scanner.skip_spaces();
        if parser.scanner.peek().is_none() {
            break;
        }
        stages += 1;
        if stages > MAX_STAGES {
            let at = parser.scanner.at..text.len();
            return Err(parser.scanner.error(Problem::TooManyStages, at));
        }
        parser.stage()?;
    }
    let shape = parser.shape.unwrap_or_else(Shape::events);
    Ok((parser.greps, shape))
}

struct Parser<'a, 'p> {
    scanner: Scanner<'a>,
    pieces: &'p mut Vec<Piece>,
    /// Where the `|` of the stage that is read stands.
    pipe: usize,
    greps: Vec<Grep>,
    shape: Option<Shape>,
}

impl<'a> Parser<'a, '_> {
    fn stage(&mut self) -> Result<(), QueryError> {
        self.pipe = self.scanner.at;
        if !self.scanner.eat("|") {
            return Err(self.unexpected());
        }
        let bar = self.pipe..self.scanner.at;
        self.pieces.push(Piece { kind: TokenKind::Stage, at: bar.clone() });
        self.scanner.skip_spaces();
        let (verb, at) = self.word();
        let known = VERBS.iter().any(|(known, _)| *known == verb);
        if verb.is_empty() && self.scanner.peek().is_none_or(|c| c == '|') {
            return Err(self.scanner.error(Problem::NoStage, bar));
        }
        if !known {
            return Err(self.unknown(verb, at));
        }
        self.pieces.push(Piece { kind: TokenKind::Stage, at: at.clone() });
        match (verb, &self.shape) {
            ("grep", None) => self.grep(),
            ("limit", _) => self.limit(),
            (_, None) => {
                let shape = match verb {
                    "count" => self.count(),
                    "top" => self.top(Verb::Top),
                    "rare" => self.top(Verb::Rare),
                    "timechart" => self.timechart(),
                    "stats" => self.stats(),
                    _ => self.fields(),
                }?;
                if !self.greps.is_empty() && !matches!(shape, Shape::Events { .. }) {
                    return Err(self.scanner.error(Problem::GrepBeforeCount, at));
                }
                self.shape = Some(shape);
                self.ends()
            }
            (_, Some(_)) => Err(self.scanner.error(Problem::StageOrder, at)),
        }
    }

    fn count(&mut self) -> Result<Shape, QueryError> {
        if self.scanner.rest().starts_with("()") {
            self.scanner.eat("()");
        }
        let by = self.by(MAX_BY)?;
        Ok(Shape::Table { verb: Verb::Count, aggregates: vec![Aggregate::count()], by, rows: MAX_ROWS })
    }

    fn top(&mut self, verb: Verb) -> Result<Shape, QueryError> {
        self.scanner.skip_spaces();
        let before = self.scanner.at;
        let (first, at) = self.word();
        let rows = if first.starts_with(|c: char| c.is_ascii_digit()) {
            self.number(first, at, MAX_ROWS)?
        } else {
            self.scanner.at = before;
            DEFAULT_TOP
        };
        // `top 10 by status` says the same.
        self.scanner.skip_spaces();
        self.eat_word("by");
        let field = self.group()?;
        Ok(Shape::Table { verb, aggregates: vec![Aggregate::count()], by: vec![field], rows })
    }

    fn timechart(&mut self) -> Result<Shape, QueryError> {
        self.scanner.skip_spaces();
        let before = self.scanner.at;
        let (first, at) = self.word();
        let length = first.strip_prefix("span=").or_else(|| first.strip_prefix("interval=")).unwrap_or(first);
        let interval = Interval::parse(length);
        match interval {
            Some(_) => self.pieces.push(Piece { kind: TokenKind::Value, at }),
            None if length != first || first.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(self.scanner.error(Problem::Expected("a time such as 30s, 5m, 2h or 1d"), at));
            }
            None => self.scanner.at = before,
        }
        self.scanner.skip_spaces();
        // `timechart by level` can only count.
        let counts = self.scanner.peek().is_none_or(|c| c == '|') || self.next_is("by");
        let aggregate = if counts { Aggregate::count() } else { self.aggregate()? };
        let by = self.by(1)?.pop();
        Ok(Shape::Series { interval, aggregate, by, lines: MAX_SERIES })
    }

    fn stats(&mut self) -> Result<Shape, QueryError> {
        let mut aggregates = vec![self.aggregate()?];
        while self.comma() {
            let aggregate = self.aggregate()?;
            if !aggregates.contains(&aggregate) {
                aggregates.push(aggregate);
            }
            if aggregates.len() > MAX_COLUMNS {
                return Err(self.scanner.error(Problem::TooManyColumns, self.pipe..self.scanner.at));
            }
        }
        let by = self.by(MAX_BY)?;
        Ok(Shape::Table { verb: Verb::Stats, aggregates, by, rows: MAX_ROWS })
    }

    fn fields(&mut self) -> Result<Shape, QueryError> {
        let mut columns = vec![self.field()?.0];
        while self.comma() {
            let field = self.field()?.0;
            if !columns.contains(&field) {
                columns.push(field);
            }
            if columns.len() > MAX_COLUMNS {
                return Err(self.scanner.error(Problem::TooManyColumns, self.pipe..self.scanner.at));
            }
        }
        Ok(Shape::Events { columns, limit: None })
    }

    fn limit(&mut self) -> Result<(), QueryError> {
        self.scanner.skip_spaces();
        let (word, at) = self.word();
        let most = match &self.shape {
            None | Some(Shape::Events { .. }) => MAX_LIMIT,
            Some(Shape::Table { .. }) => MAX_ROWS,
            Some(Shape::Series { .. }) => MAX_SERIES,
        };
        let number = self.number(word, at.clone(), most)?;
        match self.shape.get_or_insert_with(Shape::events) {
            Shape::Events { limit: Some(_), .. } => return Err(self.scanner.error(Problem::StageOrder, at)),
            Shape::Events { limit, .. } => *limit = Some(number),
            Shape::Table { rows, .. } => *rows = number.min(*rows),
            Shape::Series { lines, .. } => *lines = number,
        }
        self.ends()
    }

    fn grep(&mut self) -> Result<(), QueryError> {
        self.scanner.skip_spaces();
        let mut excludes = false;
        if self.next_is("-v") {
            let (_, at) = self.word();
            self.pieces.push(Piece { kind: TokenKind::Operator, at });
            excludes = true;
            self.scanner.skip_spaces();
        }
        let start = self.scanner.at;
        let (pattern, kind) = match self.scanner.peek() {
            None | Some('|') => {
                return Err(self
                    .scanner
                    .error(Problem::Expected("a word, a \"phrase\" or a /regular expression/"), self.pipe..start));
            }
            Some('"') => (GrepPattern::Text(self.scanner.quoted()?), TokenKind::Phrase),
            Some('/') => (self.regex()?, TokenKind::Value),
            Some(_) => {
                let end = self.scanner.rest().find(char::is_whitespace).unwrap_or(self.scanner.rest().len());
                let text = self.scanner.rest()[..end].to_owned();
                self.scanner.at += end;
                (GrepPattern::Text(text), TokenKind::Word)
            }
        };
        let at = start..self.scanner.at;
        let grep = Grep { excludes, pattern };
        let is_empty = matches!(&grep.pattern, GrepPattern::Text(text) if text.is_empty());
        if is_empty || at.len() > MAX_REGEX_BYTES || grep.regex().is_none() {
            return Err(self.scanner.error(Problem::Regex, at));
        }
        self.pieces.push(Piece { kind, at });
        self.greps.push(grep);
        self.scanner.skip_spaces();
        match self.scanner.peek() {
            None | Some('|') => Ok(()),
            // `grep connection reset`: two words are meant together.
            Some(_) => {
                let rest = self.scanner.rest();
                let end = rest.find(" |").unwrap_or(rest.len());
                let words = self.scanner.text[start..self.scanner.at + end].trim_end();
                let repair = self.replaced(start..start + words.len(), &super::quoted(words));
                Err(self.unexpected().or_rather(repair))
            }
        }
    }

    /// `/time.?out/i`, in which `\/` stands for a slash.
    fn regex(&mut self) -> Result<GrepPattern, QueryError> {
        let start = self.scanner.at;
        let mut source = String::new();
        let mut chars = self.scanner.text[start + 1..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '/' => {
                    self.scanner.at = start + 1 + at + 1;
                    let ignores_case = self.scanner.eat("i");
                    return Ok(GrepPattern::Regex { source, ignores_case });
                }
                '\\' => match chars.next() {
                    Some((_, '/')) => source.push('/'),
                    Some((_, escaped)) => source.extend(['\\', escaped]),
                    None => {}
                },
                c => source.push(c),
            }
        }
        let rest = self.scanner.text[start..].trim_end();
        let repair = self.replaced(start..start + rest.len(), &format!("{rest}/"));
        Err(self.scanner.error(Problem::Regex, start..self.scanner.text.len()).or_rather(repair))
    }

    /// `count`, `count()`, `p95(latency_ms)`.
    fn aggregate(&mut self) -> Result<Aggregate, QueryError> {
        self.scanner.skip_spaces();
        let (name, at) = self.word();
        let Some(function) = Function::of(&name.to_ascii_lowercase()) else {
            let mut error = self
                .scanner
                .error(Problem::Expected(FUNCTION), if name.is_empty() { self.place() } else { at.clone() });
            if let Some(near) = nearest(name, FUNCTIONS) {
                error = error.or_rather(self.replaced(at, near));
            }
            return Err(error);
        };
        self.pieces.push(Piece { kind: TokenKind::Stage, at: at.clone() });
        if !self.scanner.eat("(") {
            if function == Function::Count {
                return Ok(Aggregate::count());
            }
            // `stats avg latency`
            self.scanner.skip_spaces();
            let field = word_of(self.scanner.rest());
            let repair = self.replaced(at.start..self.scanner.at + field.len(), &format!("{function}({field})"));
            return Err(self
                .scanner
                .error(Problem::Expected("the field in parentheses, such as avg(latency_ms)"), at)
                .or_rather(repair));
        }
        self.scanner.skip_spaces();
        if function == Function::Count && self.scanner.eat(")") {
            return Ok(Aggregate::count());
        }
        let (field, place) = self.field()?;
        if function == Function::Count {
            let problem = Problem::Expected(
                "nothing in the parentheses of count; `field:*` before the first `|` finds events that have a field",
            );
            return Err(self
                .scanner
                .error(problem, place)
                .or_rather(self.replaced(at.start..self.scanner.at, "count")));
        }
        if function.is_of_numbers() && field.is_reserved() {
            return Err(self.scanner.error(Problem::NoNumbers, place));
        }
        self.scanner.skip_spaces();
        if !self.scanner.eat(")") {
            let repair = self.replaced(place.end..place.end, ")");
            return Err(self.scanner.error(Problem::OpenParenthesis, at.start..place.end).or_rather(repair));
        }
        if field == Field::Text {
            return Err(self.scanner.error(Problem::NotGroupable("its words differ from event to event"), place));
        }
        Ok(Aggregate { function, field: Some(field) })
    }

    /// `by service, level`, if that is what follows.
    fn by(&mut self, most: usize) -> Result<Vec<Field>, QueryError> {
        self.scanner.skip_spaces();
        if !self.next_is("by") {
            return Ok(Vec::new());
        }
        let (_, at) = self.word();
        self.pieces.push(Piece { kind: TokenKind::Stage, at: at.clone() });
        let mut fields = vec![self.group()?];
        while self.comma() {
            let field = self.group()?;
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        if fields.len() > most {
            return Err(self.scanner.error(Problem::TooManyGroups(most), at.start..self.scanner.at));
        }
        Ok(fields)
    }

    /// A field that events can be grouped by.
    fn group(&mut self) -> Result<Field, QueryError> {
        let (field, at) = self.field()?;
        if let Some((_, why)) = WHOLE.iter().find(|(name, _)| *name == &self.scanner.text[at.clone()]) {
            return Err(self.scanner.error(Problem::NotGroupable(why), at));
        }
        match field {
            Field::Text => Err(self.scanner.error(Problem::NotGroupable("its words differ from event to event"), at)),
            field => Ok(field),
        }
    }

    /// A field's name, and where it stands.
    fn field(&mut self) -> Result<(Field, Range<usize>), QueryError> {
        self.scanner.skip_spaces();
        let (name, at) = self.word();
        if !is_name(name) || name.len() > super::value::MAX_NAME_BYTES {
            let at = if name.is_empty() { self.place() } else { at };
            return Err(self.scanner.error(Problem::Expected("a field's name"), at));
        }
        self.pieces.push(Piece { kind: TokenKind::Field, at: at.clone() });
        Ok((Field::of(name), at))
    }

    fn number(&mut self, text: &str, at: Range<usize>, most: u32) -> Result<u32, QueryError> {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        let Some(number) = number else {
            let at = if text.is_empty() { self.place() } else { at };
            return Err(self.scanner.error(Problem::Number(most), at));
        };
        self.pieces.push(Piece { kind: TokenKind::Value, at });
        Ok(number)
    }

    /// The stage that is read, for an error about what is missing from it.
    fn place(&self) -> Range<usize> {
        self.pipe..self.scanner.text[..self.scanner.at].trim_end().len().max(self.pipe + 1)
    }

    /// The next word, which may be empty.
    fn word(&mut self) -> (&'a str, Range<usize>) {
        let text: &'a str = self.scanner.text;
        let start = self.scanner.at;
        let word = word_of(&text[start..]);
        self.scanner.at += word.len();
        (word, start..self.scanner.at)
    }

    fn next_is(&self, word: &str) -> bool {
        word_of(self.scanner.rest()) == word
    }

    fn eat_word(&mut self, word: &str) {
        if self.next_is(word) {
            let (_, at) = self.word();
            self.pieces.push(Piece { kind: TokenKind::Stage, at });
        }
    }

    fn comma(&mut self) -> bool {
        self.scanner.skip_spaces();
        self.scanner.eat(",")
    }

    /// Nothing but another stage may follow.
    fn ends(&mut self) -> Result<(), QueryError> {
        self.scanner.skip_spaces();
        match self.scanner.peek() {
            None | Some('|') => Ok(()),
            Some(_) => Err(self.unexpected()),
        }
    }

    /// What stands here can't. Without it, the rest may be meant.
    fn unexpected(&self) -> QueryError {
        let start = self.scanner.at;
        let word = word_of(self.scanner.rest());
        let end = start + word.len().max(self.scanner.peek().map_or(0, char::len_utf8));
        let without = self.replaced(start..end, "");
        self.scanner.error(Problem::NotInStage, start..end).or_rather(without)
    }

    fn unknown(&self, verb: &str, at: Range<usize>) -> QueryError {
        let text = self.scanner.text;
        let at = if verb.is_empty() { at.start..at.start + self.scanner.peek().map_or(0, char::len_utf8) } else { at };
        let mut error = self.scanner.error(Problem::Stage, at.clone());
        let lower = verb.to_ascii_lowercase();
        let end = text[at.end..].find('|').map_or(text.len(), |next| at.end + next);
        let rest = text[at.end..end].trim();
        let before = text[..self.pipe].trim_end();
        // `{…} |= "text"` of LogQL.
        if let Some(text_of) = text[at.start..end].strip_prefix('=') {
            error = error.or_rather(format!("{before} | grep {}{}", text_of.trim(), spaced(&text[end..])));
        } else if FILTERS.contains(&lower.as_str()) && !rest.is_empty() {
            error = error.or_rather(format!("{before} {rest}{}", spaced(&text[end..])));
        } else if lower == "sort" || lower == "order" {
            error = error.or_rather(format!("{before}{}", spaced(&text[end..])));
        } else if let Some((_, own)) = ELSEWHERE.iter().find(|(other, _)| *other == lower) {
            error = error.or_rather(self.replaced(at, own));
        } else if let Some(near) = nearest(&lower, VERBS.map(|(verb, _)| verb)) {
            error = error.or_rather(self.replaced(at, near));
        }
        error.or_rather(super::quoted(text.trim()))
    }

    /// The whole text with something else in this place.
    fn replaced(&self, at: Range<usize>, by: &str) -> String {
        let text = self.scanner.text;
        format!("{}{by}{}", &text[..at.start], &text[at.end..])
    }
}

/// A stage to follow another.
fn spaced(stages: &str) -> String {
    if stages.is_empty() { String::new() } else { format!(" {stages}") }
}

const FUNCTION: &str = "one of count, uniq(…), sum(…), avg(…), min(…), max(…), p50(…) to p99(…)";

/// The one of these that a word is, but for a letter or two.
pub(crate) fn nearest<'a>(word: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = if word.len() < 4 { 1 } else { 2 };
    let near = among.into_iter().map(|known| (distance(word, known), known)).filter(|(far, _)| *far <= most);
    near.min_by_key(|(far, _)| *far).map(|(_, known)| known).filter(|_| word.len() <= 32)
}

/// How many letters must be changed, added, taken away or swapped with their neighbour to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().take(40).collect(), other.chars().take(40).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (above[j] + usize::from(a != b)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && other[j - 1] == *a {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{pieces, question};
    use super::*;

    #[test]
    fn stages_read_as_their_normal_form() {
        for (text, normal) in [
            ("level:error | count", "level:error | count"),
            ("| count by service", "* | count by service"),
            ("a b|count", "a b | count"),
            ("level:error| count by service", "level:error | count by service"),
            ("status:500..599| count", "status:[500 TO 599] | count"),
            ("status>=500| count", "status:>=500 | count"),
            ("x | count() by service,level", "x | count by service, level"),
            ("x | count by svc , severity | limit 5", "x | count by service, level | limit 5"),
            ("x | top status", "x | top 10 status"),
            ("x | top 20 by @path", "x | top 20 @path"),
            ("x | rare 5 service", "x | rare 5 service"),
            ("x | timechart", "x | timechart count"),
            ("x | timechart 5m", "x | timechart 5m count"),
            ("x | timechart by level", "x | timechart count by level"),
            ("x | timechart span=60s count() by level", "x | timechart 1m count by level"),
            (
                "x | timechart 1h p95(latency_ms) by service | limit 3",
                "x | timechart 1h p95(latency_ms) by service | limit 3",
            ),
            (
                "x | stats count, avg(metadata.ms), median(ms), dc(user.id) by service",
                "x | stats count, avg(metadata.ms), p50(ms), uniq(user.id) by service",
            ),
            ("x | stats uniq( service )", "x | stats uniq(service)"),
            ("x | stats max(a), max(a)", "x | stats max(a)"),
            ("x | grep -v health | grep /Time.?out\\/x/i", "x | grep -v \"health\" | grep /Time.?out\\/x/i"),
            (
                "x | grep \"a | b\" | fields service, status | limit 7",
                "x | grep \"a | b\" | fields service, status | limit 7",
            ),
            ("x | grep a|b", "x | grep \"a|b\""),
            ("x | grep /a|b \\d+/ | limit 5", "x | grep /a|b \\d+/ | limit 5"),
            ("x | limit 20", "x | limit 20"),
            ("\"a | count\"", "\"a | count\""),
            ("x || count", "x OR count"),
            ("kubectl get x|jq .", "kubectl get \"x|jq\""),
        ] {
            let read = question(text).map_err(|error| format!("{error} {:?}", error.repairs));
            let read = read.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), normal, "{text}");
            assert_eq!(question(normal).as_ref(), Ok(&read), "{normal}");
        }
    }

    #[test]
    fn what_is_no_stage_is_refused_with_what_may_be_meant() {
        for (text, problem, shown, repair) in [
            ("a |", Problem::NoStage, "|", Some("a")),
            ("a | | count", Problem::NoStage, "|", Some("a | count")),
            ("a | conut by x", Problem::Stage, "conut", Some("a | count by x")),
            ("a | head 20", Problem::Stage, "head", Some("a | limit 20")),
            ("a | where level:error | count", Problem::Stage, "where", Some("a level:error | count")),
            ("a | sort -x | count", Problem::Stage, "sort", Some("a | count")),
            ("a | ready b", Problem::Stage, "ready", Some("\"a | ready b\"")),
            ("a | \"b\"", Problem::Stage, "\"", Some("\"a | \\\"b\\\"\"")),
            ("a |= \"b c\" | count", Problem::Stage, "=", Some("\"a |= \\\"b c\\\" | count\"")),
            ("a |= \"b c\"", Problem::Stage, "=", Some("a | grep \"b c\"")),
            ("a | count by", Problem::Expected("a field's name"), "| count by", None),
            ("a | count by message", Problem::NotGroupable("its words differ from event to event"), "message", None),
            ("a | count by timestamp", Problem::NotGroupable("`timechart` counts over time"), "timestamp", None),
            ("a | count by x, y, z", Problem::TooManyGroups(2), "by x, y, z", None),
            ("a | count service", Problem::NotInStage, "service", None),
            ("a | count | top x", Problem::StageOrder, "top", None),
            ("a | count | grep x", Problem::StageOrder, "grep", None),
            ("a | grep x | count", Problem::GrepBeforeCount, "count", None),
            ("a | top 0 x", Problem::Number(100), "0", None),
            ("a | top 101 x", Problem::Number(100), "101", None),
            ("a | top", Problem::Expected("a field's name"), "| top", None),
            ("a | limit", Problem::Number(500), "| limit", None),
            ("a | limit ten", Problem::Number(500), "ten", None),
            ("a | limit 5 | limit 5", Problem::StageOrder, "5", None),
            ("a | timechart 5x count", Problem::Expected("a time such as 30s, 5m, 2h or 1d"), "5x", None),
            ("a | timechart count by x, y", Problem::TooManyGroups(1), "by x, y", None),
            ("a | stats", Problem::Expected(FUNCTION), "| stats", None),
            ("a | stats p59x(b)", Problem::Expected(FUNCTION), "p59x", Some("a | stats p50(b)")),
            (
                "a | stats avg latency by x",
                Problem::Expected("the field in parentheses, such as avg(latency_ms)"),
                "avg",
                Some("a | stats avg(latency) by x"),
            ),
            ("a | stats avg(service)", Problem::NoNumbers, "service", None),
            ("a | stats avg(x", Problem::OpenParenthesis, "avg(x", Some("a | stats avg(x)")),
            ("a | grep", Problem::Expected("a word, a \"phrase\" or a /regular expression/"), "| grep", None),
            ("a | grep b c | limit 5", Problem::NotInStage, "c", Some("a | grep \"b c\" | limit 5")),
            ("a | grep /b", Problem::Regex, "/b", Some("a | grep /b/")),
            ("a | grep /(/", Problem::Regex, "/(/", None),
            ("a | fields", Problem::Expected("a field's name"), "| fields", None),
        ] {
            let error = question(text).expect_err(text);
            assert_eq!((error.problem, &text[error.at.clone()]), (problem, shown), "{text}: {error}");
            if let Some(repair) = repair {
                assert!(error.repairs.iter().any(|offered| offered == repair), "{text}: {:?}", error.repairs);
            }
            for repair in &error.repairs {
                assert!(question(repair).is_ok(), "{text}: {repair} is no query");
            }
            assert!(error.to_string().len() < 300, "{text}: {error}");
        }
        let many = format!("a{}", " | grep x".repeat(MAX_STAGES + 1));
        assert_eq!(question(&many).unwrap_err().problem, Problem::TooManyStages);
        let long = format!("a | grep /{}/", "x".repeat(MAX_REGEX_BYTES));
        assert_eq!(question(&long).unwrap_err().problem, Problem::Regex);
        assert_eq!(question("a | grep /(x{1000}){1000}/").unwrap_err().problem, Problem::Regex);
    }

    #[test]
    fn stages_have_pieces() {
        let text = "a | stats count, p95(ms) by service | limit 5";
        let shown: Vec<_> = pieces(text).into_iter().map(|piece| (piece.kind, &text[piece.at])).collect();
        let (stage, field) = (TokenKind::Stage, TokenKind::Field);
        let expected = [
            (TokenKind::Word, "a"),
            (stage, "|"),
            (stage, "stats"),
            (stage, "count"),
            (stage, "p95"),
            (field, "ms"),
            (stage, "by"),
            (field, "service"),
            (stage, "|"),
            (stage, "limit"),
            (TokenKind::Value, "5"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_word_is_near_another_by_a_letter_or_two() {
        for (word, near) in
            [("conut", Some("count")), ("grpe", Some("grep")), ("timechrt", Some("timechart")), ("x", None)]
        {
            assert_eq!(nearest(word, VERBS.map(|(verb, _)| verb)), near, "{word}");
        }
    }
}
