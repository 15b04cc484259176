//! What the index is asked for a query of LogQL: events among which are all that it finds. A client's text only ever
//! becomes a value.

use std::ops::Bound;

use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Value, json};

use super::pipeline::is_level;
use super::tree::{Compare, LabelFilter, LineFilter, LinePattern, LogExpr, Matcher, Needle, Stage, Test, Unit};
use crate::leaves::word;
use crate::scalar::{Limit, Range, Scalar};
use crate::to_index::{literal, wildcard};
use crate::words::words;

/// Labels that are fields of the index, and these.
pub const KEYWORDS: [(&str, &str); 5] = [
    ("service_name", "service"),
    ("application", "application"),
    ("language", "language"),
    ("level", "level"),
    ("detected_level", "level"),
];
/// Labels that nothing that is read in a line replaces.
const FIXED: [&str; 2] = ["service_name", "detected_level"];
/// Choices of a regular expression that the index is asked for one by one.
const MAX_CHOICES: usize = 32;
/// Shortest part of a word that is looked up; a shorter one is in most lines.
const MIN_PART: usize = 3;
/// Longest one.
const MAX_PART: usize = 64;
/// Words of a phrase that are looked up.
const MAX_WORDS: usize = 12;
/// Longest word of a leaf that is looked up as it is; a longer one is cut.
const MAX_LEAF: usize = 1000;

/// What to ask the index.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Filters, all of which hold.
    pub filters: Vec<Value>,
    /// Whether these are the very events that the query finds.
    pub exact: bool,
    /// Whether numbers are compared in the index.
    pub compares: bool,
}

/// The field of the index that a label is.
pub fn keyword_of(name: &str) -> Option<&'static str> {
    KEYWORDS.iter().find(|(label, _)| *label == name).map(|(_, field)| *field)
}

/// Events among which are all that a query finds.
pub fn candidates(log: &LogExpr) -> Candidates {
    let mut all = Candidates { filters: Vec::new(), exact: true, compares: false };
    let mut view = View::default();
    let mut add = |condition: Condition| {
        all.filters.extend(condition.filter);
        all.exact &= condition.exact;
    };
    for matcher in &log.matchers {
        add(of_matcher(matcher, &view));
    }
    let mut compares = false;
    for stage in &log.stages {
        match stage {
            Stage::Line(filter) => add(of_line(filter, &view)),
            Stage::Label(filter) => {
                compares |= filter.compares();
                add(of_label(filter, &view));
            }
            Stage::Json(_) | Stage::Logfmt { .. } | Stage::Pattern(_) | Stage::Regexp(_) => view.parsed = true,
            Stage::LineFormat(_) | Stage::Decolorize => view.rewritten = true,
            Stage::LabelFormat(_) => view.relabelled = true,
            Stage::Drop(picks) | Stage::Keep(picks) => {
                view.relabelled |= picks.iter().any(|pick| !pick.name.starts_with("__"));
            }
        }
    }
    Candidates { compares, ..all }
}

impl LabelFilter {
    fn compares(&self) -> bool {
        match self {
            Self::And(left, right) | Self::Or(left, right) => left.compares() || right.compares(),
            Self::Matches(_) => false,
            Self::Compares { .. } => true,
        }
    }
}

impl LogExpr {
    /// Whether the index can count what it finds by these labels: it finds just that, and the labels are fields.
    pub fn is_counted_by(&self, names: &[String]) -> bool {
        let touched = self.stages.iter().any(|stage| match stage {
            Stage::Line(_) | Stage::Label(_) => false,
            Stage::Drop(picks) => picks.iter().any(|pick| !pick.name.starts_with("__")),
            Stage::Json(_) | Stage::Logfmt { .. } | Stage::Pattern(_) | Stage::Regexp(_) => {
                !names.iter().all(|name| FIXED.contains(&name.as_str()))
            }
            Stage::Keep(_) | Stage::LineFormat(_) | Stage::LabelFormat(_) | Stage::Decolorize => true,
        });
        !touched && names.iter().all(|name| keyword_of(name).is_some()) && candidates(self).exact
    }
}

/// What the stages before have done.
#[derive(Default)]
struct View {
    /// Labels were read in the line.
    parsed: bool,
    /// Labels were renamed or removed.
    relabelled: bool,
    /// The line is another.
    rewritten: bool,
}

/// A necessary condition, if there is one, and whether it suffices.
struct Condition {
    filter: Option<Value>,
    exact: bool,
}

impl Condition {
    fn exactly(filter: Value) -> Self {
        Self { filter: Some(filter), exact: true }
    }

    fn at_least(filter: Option<Value>) -> Self {
        Self { filter, exact: false }
    }

    fn nothing() -> Self {
        Self { filter: None, exact: true }
    }
}

fn of_matcher(matcher: &Matcher, view: &View) -> Condition {
    let Matcher { name, test } = matcher;
    if view.relabelled || name.starts_with("__") {
        return Condition::at_least(None);
    }
    if name == super::row::EVENT_ID {
        let Test::Equal(text) = test else { return Condition::at_least(None) };
        return Condition::at_least(Some(json!({"ids": {"values": [text]}})));
    }
    let keyword = keyword_of(name).map(|field| of_keyword(field, is_level(name), test));
    if !view.parsed || FIXED.contains(&name.as_str()) {
        return keyword.unwrap_or_else(|| Condition::at_least(of_leaf(name, test)));
    }
    // It may have been read in the line as well: what is there is a part of the line.
    let Test::Equal(text) = test else { return Condition::at_least(None) };
    let of_event = keyword.map_or_else(|| of_leaf(name, test), |condition| condition.filter);
    let choices = longest_part(text).map(part_of_word).zip(of_event).map(|(of_line, of_event)| [of_event, of_line]);
    Condition::at_least(choices.map(|choices| any(choices.into())))
}

/// A field with one value. Levels are stored in capitals.
fn of_keyword(field: &str, level: bool, test: &Test) -> Condition {
    let exists = json!({"exists": {"field": field}});
    let term = |text: &str| {
        let text = if level { stages::normalize_level(text) } else { text.to_owned() };
        json!({"term": {field: {"value": text}}})
    };
    match test {
        Test::Equal(text) if text.is_empty() => Condition::exactly(not(exists)),
        Test::NotEqual(text) if text.is_empty() => Condition::exactly(exists),
        Test::Equal(text) => Condition::exactly(term(text)),
        Test::NotEqual(text) => Condition::exactly(not(term(text))),
        Test::Regex(regex) if regex.text == ".*" => Condition::nothing(),
        Test::Regex(regex) if regex.regex.is_match("") => Condition::at_least(None),
        Test::Regex(regex) => {
            keyword_like(field, level, &regex.text).unwrap_or_else(|| Condition::at_least(Some(exists)))
        }
        Test::NotRegex(regex) if regex.regex.is_match("") => Condition::at_least(Some(exists)),
        Test::NotRegex(regex) => match keyword_like(field, level, &regex.text) {
            Some(Condition { filter: Some(filter), exact: true }) => Condition::exactly(not(filter)),
            _ => Condition::at_least(None),
        },
    }
}

/// A regular expression that the index has a query for.
fn keyword_like(field: &str, level: bool, regex: &str) -> Option<Condition> {
    if regex == ".+" {
        return Some(Condition::exactly(json!({"exists": {"field": field}})));
    }
    if let Some((texts, exact)) = choices(regex) {
        // What is shown of a level is in small letters.
        let stored = |text: String| if level { text.to_uppercase() } else { text };
        let ascii = texts.iter().all(|text| text.is_ascii());
        let shown = |text: &String| !level || *text == text.to_lowercase();
        let texts: Vec<String> = texts.into_iter().filter(shown).map(stored).collect();
        let filter = json!({"terms": {field: texts}});
        return (ascii || !level).then_some(Condition { filter: Some(filter), exact });
    }
    let (open, rest) = regex.strip_prefix(".*").map_or((false, regex), |rest| (true, rest));
    let (text, goes_on) = rest.strip_suffix(".*").map_or((rest, false), |text| (text, true));
    let plain = !text.is_empty() && regex_syntax::escape(text) == text && !level;
    plain.then(|| {
        let (before, after) = (if open { "*" } else { "" }, if goes_on { "*" } else { "" });
        Condition::exactly(wildcard(field, &format!("{before}{}{after}", literal(text))))
    })
}

/// The texts that a regular expression stands for, if these are few, and whether it stands for each of them.
fn choices(regex: &str) -> Option<(Vec<String>, bool)> {
    let hir = regex_syntax::parse(regex).ok()?;
    let mut extractor = Extractor::new();
    extractor.limit_total(MAX_CHOICES);
    let found = extractor.extract(&hir);
    if !found.is_exact() {
        return None;
    }
    let texts = found.literals()?.iter().map(|text| String::from_utf8(text.as_bytes().to_vec()).ok());
    Some((texts.collect::<Option<_>>()?, hir.properties().look_set().is_empty()))
}

/// A leaf of `metadata` or `attributes`.
fn of_leaf(name: &str, test: &Test) -> Option<Value> {
    match test {
        Test::Equal(text) if text.is_empty() => None,
        Test::NotEqual(text) if text.is_empty() => Some(leaf_exists(name)),
        Test::Equal(text) => Some(leaf_is(name, text)),
        Test::Regex(regex) if !regex.regex.is_match("") => Some(match choices(&regex.text) {
            Some((texts, _)) => any(texts.iter().map(|text| leaf_is(name, text)).collect()),
            None => leaf_exists(name),
        }),
        Test::NotRegex(regex) if regex.regex.is_match("") => Some(leaf_exists(name)),
        Test::NotEqual(_) | Test::Regex(_) | Test::NotRegex(_) => None,
    }
}

/// The paths that a label may stand for, as a pattern of the index: `_` may be any sign.
fn paths(name: &str) -> Vec<String> {
    let name = name.replace('_', "?");
    let mut paths = vec![format!("metadata.{name}"), format!("attributes.{name}")];
    if name.starts_with("metadata?") || name.starts_with("attributes?") {
        paths.push(name);
    }
    paths
}

fn leaf_is(name: &str, text: &str) -> Value {
    // The values of a list are one label and several leaves.
    if text.contains(',') || name.len() + text.len() > MAX_LEAF {
        return leaf_exists(name);
    }
    any(paths(name)
        .into_iter()
        .map(|path| match path.contains('?') {
            true => wildcard("leaves", &format!("{path}={}", literal(text))),
            false => json!({"term": {"leaves": {"value": word(&path, text)}}}),
        })
        .collect())
}

fn leaf_exists(name: &str) -> Value {
    any(paths(name)
        .into_iter()
        .map(|path| match path.contains('?') {
            true => wildcard("leaves", &format!("{path}=*")),
            false => json!({"prefix": {"leaves": {"value": format!("{path}=")}}}),
        })
        .collect())
}

/// A leaf with a number that compares so.
fn leaf_compares(name: &str, compare: Compare, value: f64) -> Value {
    let text = value.to_string();
    let limit = |value| Limit { text: text.clone(), value };
    let range = Scalar::of(&text).filter(|_| !name.contains('_')).and_then(|scalar| {
        let limit = limit(scalar);
        let (low, high) = match compare {
            Compare::Equal => (Bound::Included(limit.clone()), Bound::Included(limit)),
            Compare::Above => (Bound::Excluded(limit), Bound::Unbounded),
            Compare::AtLeast => (Bound::Included(limit), Bound::Unbounded),
            Compare::Below => (Bound::Unbounded, Bound::Excluded(limit)),
            Compare::AtMost => (Bound::Unbounded, Bound::Included(limit)),
            Compare::NotEqual => return None,
        };
        Range::new(low, high)
    });
    let Some(range) = range else { return leaf_exists(name) };
    any(paths(name)
        .into_iter()
        .map(|path| {
            let (first, last) = range.words(&path);
            json!({"range": {"leaves": {"gte": first, "lte": last}}})
        })
        .collect())
}

fn of_label(filter: &LabelFilter, view: &View) -> Condition {
    match filter {
        LabelFilter::And(left, right) => {
            let (left, right) = (of_label(left, view), of_label(right, view));
            let filters: Vec<Value> = left.filter.into_iter().chain(right.filter).collect();
            Condition { filter: (!filters.is_empty()).then(|| every(filters)), exact: left.exact && right.exact }
        }
        LabelFilter::Or(left, right) => {
            let (left, right) = (of_label(left, view), of_label(right, view));
            let filter = left.filter.zip(right.filter).map(|(left, right)| any(vec![left, right]));
            Condition { exact: filter.is_some() && left.exact && right.exact, filter }
        }
        LabelFilter::Matches(matcher) => of_matcher(matcher, view),
        LabelFilter::Compares { name, unit, compare, value } => {
            let known = !view.parsed && !view.relabelled && keyword_of(name).is_none() && !name.starts_with("__");
            Condition::at_least(known.then(|| match unit {
                Unit::Number => leaf_compares(name, *compare, *value),
                Unit::Duration | Unit::Bytes => leaf_exists(name),
            }))
        }
    }
}

fn of_line(filter: &LineFilter, view: &View) -> Condition {
    let everything = |needle: &Needle| match needle {
        Needle::Text(text) => text.is_empty(),
        Needle::Regex(regex) => matches!(regex.as_str(), "" | ".*"),
        Needle::Pattern(_) => false,
    };
    if filter.any.iter().any(everything) {
        return if filter.wanted { Condition::nothing() } else { Condition::exactly(json!({"match_none": {}})) };
    }
    if !filter.wanted || view.rewritten {
        return Condition::at_least(None);
    }
    let choices: Option<Vec<Value>> = filter
        .any
        .iter()
        .map(|needle| match needle {
            Needle::Text(text) => all_of(parts(text)),
            Needle::Regex(regex) => regex_syntax::parse(regex.as_str()).ok().and_then(|hir| of_hir(&hir)),
            Needle::Pattern(pattern) => of_pattern(pattern),
        })
        .collect();
    Condition::at_least(choices.map(any))
}

fn of_pattern(pattern: &LinePattern) -> Option<Value> {
    let texts = std::iter::once(&pattern.first).chain(pattern.rest.iter().map(|(_, text)| text));
    all_of(texts.flat_map(|text| parts(text)).collect())
}

/// What each line has in which a regular expression is found.
fn of_hir(hir: &Hir) -> Option<Value> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => all_of(text_of(hir).map(|text| parts(&text)).unwrap_or_default()),
        HirKind::Capture(capture) => of_hir(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => of_hir(&repetition.sub),
        HirKind::Concat(all) => {
            let (mut conditions, mut text) = (Vec::new(), String::new());
            for part in all {
                match text_of(part) {
                    Some(more) => text.push_str(&more),
                    None => {
                        conditions.extend(parts(&std::mem::take(&mut text)));
                        conditions.extend(of_hir(part));
                    }
                }
            }
            conditions.extend(parts(&text));
            all_of(conditions)
        }
        HirKind::Alternation(choices) if choices.len() <= MAX_CHOICES => {
            choices.iter().map(of_hir).collect::<Option<Vec<Value>>>().map(any)
        }
        _ => None,
    }
}

/// The one text that a part of a regular expression stands for, whatever its case.
fn text_of(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).ok(),
        HirKind::Class(Class::Unicode(class)) => {
            let chars: Vec<char> =
                class.iter().take(4).flat_map(|range| (range.start()..=range.end()).take(4)).collect();
            let first = chars.first()?.to_ascii_lowercase();
            // Some letters have a third form, which the index knows as another letter.
            (chars.len() <= 2 && chars.iter().all(|c| c.is_ascii() && c.to_ascii_lowercase() == first))
                .then(|| first.to_string())
        }
        HirKind::Capture(capture) => text_of(&capture.sub),
        _ => None,
    }
}

/// What each line has that contains this text: the whole words in it, or parts of words.
fn parts(text: &str) -> Vec<Value> {
    const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];
    let pieces: Vec<&str> = text.split(SPACES).collect();
    // What stands between two spaces is cut into words as it is in the line.
    let inner = pieces.get(1..pieces.len().saturating_sub(1)).unwrap_or_default();
    let inner: Vec<&str> = inner.iter().copied().filter(|piece| !piece.is_empty()).take(MAX_WORDS).collect();
    let phrase = inner.join(" ");
    if !words(&phrase).is_empty() {
        return vec![json!({"multi_match": {"query": phrase, "fields": ["message", "full_log"], "type": "phrase"}})];
    }
    let edges = [pieces.first(), pieces.last().filter(|_| pieces.len() > 1)];
    edges.into_iter().flatten().filter_map(|piece| longest_part(piece)).map(part_of_word).collect()
}

/// The longest run of letters and digits: no word ends within it.
fn longest_part(text: &str) -> Option<&str> {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric());
    // Beside another letter it is a part of a word all the same.
    let longest = runs.max_by_key(|run| run.len()).filter(|run| run.len() >= MIN_PART)?;
    Some(&longest[..longest.len().min(MAX_PART)])
}

fn part_of_word(part: &str) -> Value {
    let part = format!("*{}*", part.to_ascii_lowercase());
    any(["message", "full_log"].map(|field| wildcard(field, &part)).into())
}

fn not(filter: Value) -> Value {
    json!({"bool": {"must_not": [filter]}})
}

fn all_of(conditions: Vec<Value>) -> Option<Value> {
    (!conditions.is_empty()).then(|| every(conditions))
}

fn every(mut conditions: Vec<Value>) -> Value {
    if conditions.len() == 1 { conditions.swap_remove(0) } else { json!({"bool": {"filter": conditions}}) }
}

fn any(mut choices: Vec<Value>) -> Value {
    match choices.len() {
        1 => choices.swap_remove(0),
        _ => json!({"bool": {"should": choices, "minimum_should_match": 1}}),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::tree::Expr;
    use super::*;

    fn asked(query: &str) -> Candidates {
        let Expr::Log(log) = parse(query).unwrap() else { panic!("{query}") };
        candidates(&log)
    }

    #[test]
    fn the_index_is_asked_for_what_it_knows() {
        let part = |part: &str| any(["message", "full_log"].map(|field| wildcard(field, part)).into());
        let phrase =
            |text: &str| json!({"multi_match": {"query": text, "fields": ["message", "full_log"], "type": "phrase"}});
        let leaf =
            |kind: &str, texts: [&str; 2]| any(texts.map(|text| json!({kind: {"leaves": {"value": text}}})).into());
        for (query, filters, exact) in [
            ("{}", vec![], true),
            (r#"{service_name="api"}"#, vec![json!({"term": {"service": {"value": "api"}}})], true),
            (r#"{service_name=~".+"}"#, vec![json!({"exists": {"field": "service"}})], true),
            (r#"{service_name=~"api|web"}"#, vec![json!({"terms": {"service": ["api", "web"]}})], true),
            (r#"{service_name=~"api.*"}"#, vec![wildcard("service", "api*")], true),
            (r#"{service_name=~"a[0-9]+"}"#, vec![json!({"exists": {"field": "service"}})], false),
            (r#"{service_name!~"api|web"}"#, vec![not(json!({"terms": {"service": ["api", "web"]}}))], true),
            (r#"{application=""}"#, vec![not(json!({"exists": {"field": "application"}}))], true),
            (r#"{application!="x"}"#, vec![not(json!({"term": {"application": {"value": "x"}}}))], true),
            (r#"{level=~"error|warn"}"#, vec![json!({"terms": {"level": ["ERROR", "WARN"]}})], true),
            (r#"{} | detected_level="warning""#, vec![json!({"term": {"level": {"value": "WARN"}}})], true),
            (r#"{pod="p-1"}"#, vec![leaf("term", ["metadata.pod=p-1", "attributes.pod=p-1"])], false),
            (r#"{user_id="1*"}"#, vec![leaf("wildcard", [r"metadata.user?id=1\*", r"attributes.user?id=1\*"])], false),
            (r#"{pod!=""}"#, vec![leaf("prefix", ["metadata.pod=", "attributes.pod="])], false),
            (r#"{pod!="x"}"#, vec![], false),
            ("{} |= ``", vec![], true),
            ("{} |= `timeout`", vec![part("*timeout*")], false),
            ("{} |= `connection reset`", vec![part("*connection*"), part("*reset*")], false),
            ("{} |= `the connection was reset by`", vec![phrase("connection was reset")], false),
            ("{} |= ` Timeout `", vec![phrase("Timeout")], false),
            ("{} |= `a/b`", vec![], false),
            ("{} |= `GET /orders`", vec![part("*get*"), part("*orders*")], false),
            ("{} != `x`", vec![], false),
            ("{} |= `one` or `two`", vec![any(vec![part("*one*"), part("*two*")])], false),
            ("{} |~ `(?i)timeout`", vec![part("*timeout*")], false),
            ("{} |~ `took [0-9]+ms`", vec![part("*took*")], false),
            ("{} |~ `error|warn`", vec![any(vec![part("*error*"), part("*warn*")])], false),
            ("{} |~ `(a )?connection x?`", vec![part("*connection*")], false),
            ("{} |> `<_> took <_>`", vec![phrase("took")], false),
            (
                r#"{} | json | status="500""#,
                vec![any(vec![leaf("term", ["metadata.status=500", "attributes.status=500"]), part("*500*")])],
                false,
            ),
            ("{} | json | status>=500", vec![], false),
            ("{} | line_format `x` |= `timeout`", vec![], false),
            ("{} | label_format a=pod | pod=\"x\"", vec![], false),
        ] {
            let found = asked(query);
            let expected: Vec<Value> = filters;
            let flat: Vec<Value> = match &found.filters[..] {
                [one] if expected.len() > 1 => one["bool"]["filter"].as_array().cloned().unwrap_or_default(),
                all => all.to_vec(),
            };
            assert_eq!((flat, found.exact), (expected, exact), "{query}");
        }
        let range = asked("{} | status>=500").filters;
        assert_eq!(range[0]["bool"]["should"][0]["range"]["leaves"]["gte"], "metadata.status\u{1}c07f400000000000");
    }

    /// Whether the index finds a line, whose words it has as [`words`] has them.
    fn finds(filter: &Value, line: &[String]) -> bool {
        let all = |of: &Value, holds: &dyn Fn(&Value) -> bool| of.as_array().is_some_and(|all| all.iter().all(holds));
        if let Some(phrase) = filter["multi_match"]["query"].as_str() {
            let asked = words(phrase);
            return line.windows(asked.len()).any(|window| window == asked);
        }
        if let Some(part) = filter["wildcard"]["message"]["value"].as_str() {
            return line.iter().any(|word| word.contains(part.trim_matches('*')));
        }
        let bool = &filter["bool"];
        if bool["should"].is_array() {
            return !all(&bool["should"], &|one| !finds(one, line));
        }
        bool["filter"].is_array() && all(&bool["filter"], &|one| finds(one, line))
    }

    #[test]
    fn the_index_is_asked_for_no_less_than_what_lines_contain() {
        const PIECES: [&str; 40] = [
            "Connection",
            "reset",
            "by",
            "peer",
            " ",
            "  ",
            "\t",
            "\n",
            ".",
            ",",
            ":",
            "_",
            "-",
            "'",
            "\"",
            "/",
            "=",
            "(",
            "42",
            "3,000.5",
            "12.5ms",
            "GET",
            "java.lang.Null",
            "user_id",
            "grüße",
            "ÜBER",
            "STRASSE",
            "İ",
            "ς",
            "世界",
            "カタ",
            "สวัส",
            "👍",
            "🇩🇪",
            "\u{301}",
            "\u{200d}",
            "ſ",
            "K",
            "a",
            "x1y2",
        ];
        let mut seed = 11_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut asked_some = 0;
        for _ in 0..20_000 {
            let line: String = (0..1 + random(14)).map(|_| PIECES[random(PIECES.len())]).collect();
            let chars: Vec<char> = line.chars().collect();
            let from = random(chars.len());
            let text: String = chars[from..from + 1 + random(chars.len() - from)].iter().collect();
            let known = words(&line);
            let of_text = all_of(parts(&text));
            let quoted = regex_syntax::escape(&text);
            let regexes = [quoted.clone(), format!("(?i){quoted}"), format!("(?:{quoted}|zzz)+")];
            let of_regexes = regexes.iter().map(|regex| regex_syntax::parse(regex).ok().and_then(|hir| of_hir(&hir)));
            for filter in of_regexes.chain([of_text]).flatten() {
                asked_some += 1;
                assert!(finds(&filter, &known), "{text:?} in {line:?}: {filter}");
            }
        }
        assert!(asked_some > 20_000, "{asked_some}");
    }

    #[test]
    fn the_index_counts_where_it_finds_just_that() {
        for (query, names, counted) in [
            ("{}", &["service_name", "detected_level"][..], true),
            ("{} |= `` | drop __error__", &["level", "application"], true),
            ("{} |= `x`", &[], false),
            ("{}", &["pod"], false),
            ("{} | json", &["detected_level"], true),
            ("{} | json", &["level"], false),
            (r#"{} | level="error""#, &[], true),
            (r#"{} | json | level="error""#, &[], false),
            (r#"{} | json | detected_level="error""#, &[], true),
            ("{} | drop application", &["application"], false),
        ] {
            let Expr::Log(log) = parse(query).unwrap() else { panic!("{query}") };
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(log.is_counted_by(&names), counted, "{query} {names:?}");
        }
    }
}
