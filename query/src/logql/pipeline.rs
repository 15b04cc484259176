//! What a query says of one line: whether it is found, and what becomes of its labels. The definition of what the query
//! means; what the index is asked is only a superset of it.

use super::extract::{decolorized, json, logfmt, pattern, regexp};
use super::row::{EVENT_ID, Row};
use super::tree::{LabelFilter, LabelSource, LineFilter, LogExpr, Matcher, Needle, Pick, Stage, Test, Unit};
use super::units;

/// Longest line that a template makes, in bytes: as long as an event may be.
const MAX_LINE: usize = 1024 * 1024;
/// Longest value of a label that a template makes, in bytes.
const MAX_LABEL: usize = 16 * 1024;
/// Why a line is not as a template would make it.
const TEMPLATE_ERROR: &str = "TemplateFormatErr";

impl LogExpr {
    /// Whether the query finds it. Its labels and its line are then as the query makes them.
    pub fn keeps(&self, row: &mut Row) -> bool {
        self.matchers.iter().all(|matcher| matcher.holds(row)) && self.stages.iter().all(|stage| stage.keeps(row))
    }

    /// Whether it looks at labels that only the whole event has, or reads them in its line.
    pub fn reads_labels(&self) -> bool {
        let of_event = |name: &str| !super::to_index::KEYWORDS.iter().any(|(label, _)| *label == name);
        let matchers = self.matchers.iter().any(|matcher| of_event(&matcher.name));
        matchers || self.stages.iter().any(|stage| !matches!(stage, Stage::Line(_)))
    }
}

impl Matcher {
    /// Whether the label is so.
    pub fn holds(&self, row: &Row) -> bool {
        let value = row.label(&self.name);
        match &self.test {
            // A level has several names.
            Test::Equal(text) if is_level(&self.name) && !text.is_empty() => value == same_level(text),
            Test::NotEqual(text) if is_level(&self.name) && !text.is_empty() => value != same_level(text),
            test => test.holds(value),
        }
    }
}

/// Whether a label holds the level.
pub(super) fn is_level(name: &str) -> bool {
    matches!(name, "level" | "detected_level")
}

fn same_level(text: &str) -> String {
    super::row::shown_level(&stages::normalize_level(text))
}

impl Stage {
    fn keeps(&self, row: &mut Row) -> bool {
        match self {
            Self::Line(filter) => return filter.keeps(&row.line),
            Self::Label(filter) => return filter.holds(row),
            Self::Json(fields) => json(row, fields),
            Self::Logfmt { strict, keep_empty, fields } => logfmt(row, *strict, *keep_empty, fields),
            Self::Pattern(found) => pattern(row, found),
            Self::Regexp(regex) => regexp(row, regex),
            Self::Drop(picks) => {
                for Pick { name, test } in picks {
                    if test.as_ref().is_none_or(|test| test.holds(row.label(name))) {
                        row.remove(name);
                    }
                }
            }
            Self::Keep(picks) => {
                let kept = |name: &String, value: &mut String| {
                    // By its id, a line that comes by two ways is known again.
                    if name == EVENT_ID {
                        return true;
                    }
                    let holds =
                        |pick: &Pick| pick.name == *name && pick.test.as_ref().is_none_or(|test| test.holds(value));
                    picks.iter().any(holds)
                };
                row.stream.retain(kept);
                row.structured.retain(kept);
                row.parsed.retain(kept);
            }
            Self::LineFormat(template) => match template.fill(row, MAX_LINE) {
                Some(line) => row.line = line,
                None => row.error = Some(TEMPLATE_ERROR),
            },
            Self::LabelFormat(formats) => {
                for (name, source) in formats {
                    let value = match source {
                        LabelSource::Template(template) => template.fill(row, MAX_LABEL).unwrap_or_else(|| {
                            row.error = Some(TEMPLATE_ERROR);
                            String::new()
                        }),
                        LabelSource::Rename(from) => {
                            let value = row.label(from).to_owned();
                            row.remove(from);
                            value
                        }
                    };
                    row.remove(name);
                    row.parsed.insert(name.clone(), value);
                }
            }
            Self::Decolorize => row.line = decolorized(&row.line),
        }
        true
    }
}

impl LineFilter {
    fn keeps(&self, line: &str) -> bool {
        let found = self.any.iter().any(|needle| match needle {
            Needle::Text(text) => line.contains(text.as_str()),
            Needle::Regex(regex) => regex.is_match(line),
            Needle::Pattern(pattern) => pattern.matches(line),
        });
        found == self.wanted
    }
}

impl LabelFilter {
    /// Whether the labels are so.
    pub(super) fn holds(&self, row: &Row) -> bool {
        match self {
            Self::And(left, right) => left.holds(row) && right.holds(row),
            Self::Or(left, right) => left.holds(row) || right.holds(row),
            Self::Matches(matcher) => matcher.holds(row),
            Self::Compares { name, unit, compare, value } => {
                unit.read(row.label(name)).is_some_and(|read| compare.holds(read, *value))
            }
        }
    }
}

impl Unit {
    /// What a text is worth.
    pub(super) fn read(self, text: &str) -> Option<f64> {
        match self {
            Self::Number => units::number(text),
            Self::Duration => units::duration(text),
            Self::Bytes => units::bytes(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::super::tree::Expr;
    use super::super::{Row, parse};

    fn kept(query: &str, row: &Row) -> Option<Row> {
        let Expr::Log(log) = parse(query).unwrap() else { panic!("{query}") };
        let mut row = row.clone();
        log.keeps(&mut row).then_some(row)
    }

    #[test]
    fn a_line_is_found_by_its_text_and_its_labels() {
        let row =
            row(r#"{"message":"GET /a?b=1 took 250ms from 10.0.0.1","service":"api","level":"error","status":500,
                "metadata":{"took":"250ms","size":"10KB","pod":"p-1"}}"#);
        for (query, found) in [
            (r#"{service_name="api"}"#, true),
            (r#"{service_name="ap"}"#, false),
            (r#"{service_name=~"ap"}"#, false),
            (r#"{service_name=~"ap."}"#, true),
            (r#"{service_name!~"web|db"}"#, true),
            (r#"{application=""}"#, true),
            (r#"{application!="x"}"#, true),
            (r#"{level="error"}"#, true),
            (r#"{detected_level="ERR"}"#, true),
            (r#"{level!="info"}"#, true),
            (r#"{level=~"error|warn"}"#, true),
            (r#"{pod="p-1"}"#, true),
            ("{} |= `took`", true),
            ("{} |= `Took`", false),
            ("{} |= `ook 25`", true),
            ("{} |= `x` or `took`", true),
            ("{} != `x` or `took`", false),
            ("{} != `x` or `y`", true),
            ("{} |~ `(?i)TOOK \\d+ms`", true),
            ("{} !~ `took`", false),
            ("{} |> `<_> took <_> from <_>`", true),
            ("{} |> `GET <_>`", true),
            ("{} |> `<_> took`", false),
            ("{} !> `<_> took <_>`", false),
            ("{} | status>=500 | status<501 | status==500 | status!=404", true),
            ("{} | status>500", false),
            ("{} | took>249ms | took<=0.25s | size>9KB", true),
            ("{} | nothing>1", false),
            ("{} | nothing!=1", false),
            ("{} | pod>1", false),
            (r#"{} | (status="404" or pod="p-1") and took!="""#, true),
            (r#"{} | status="404", pod="p-1""#, false),
            ("{} | drop pod | pod=\"\"", true),
            ("{} | json | __error__=\"JSONParserErr\"", true),
            ("{} | json | drop __error__ | __error__=\"\"", true),
            ("{} | pattern `<method> <path> took <ms>ms` | ms>200 | method=\"GET\"", true),
            ("{} | regexp `from (?P<ip>[0-9.]+)` | ip=\"10.0.0.1\"", true),
        ] {
            assert_eq!(kept(query, &row).is_some(), found, "{query}");
        }
    }

    #[test]
    fn labels_are_read_in_a_line() {
        let of_json =
            row(r#"{"message":"{\"a\":{\"b\":1,\"c\":[5,6]},\"d\":\"x y\",\"e\":true,\"f\":null,\"g-h\":1.50}"}"#);
        let found = kept("{} | json", &of_json).unwrap().parsed;
        let shown: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["a_b=1", "d=x y", "e=true", "g_h=1.50"]);
        let found = kept(r#"{} | json x="a.c[1]", y="a", z="nothing""#, &of_json).unwrap();
        assert_eq!((found.label("x"), found.label("y"), found.label("z")), ("6", r#"{"b":1,"c":[5,6]}"#, ""));

        let of_logfmt = row(r#"{"message":"ts=1 msg=\"a \\\"b\\\" c\" flag empty= status=500"}"#);
        let found = kept("{} | logfmt", &of_logfmt).unwrap().parsed;
        let shown: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["msg=a \"b\" c", "status=500", "ts=1"]);
        assert!(kept("{} | logfmt --keep-empty", &of_logfmt).unwrap().parsed.contains_key("flag"));
        let found = kept(r#"{} | logfmt s="status", t="nothing""#, &of_logfmt).unwrap();
        assert_eq!((found.label("s"), found.label("t"), found.label("ts")), ("500", "", ""));
        let broken = row(r#"{"message":"a=1 \"oops"}"#);
        assert_eq!(kept("{} | logfmt --strict", &broken).unwrap().label("__error__"), "LogfmtParserErr");
        assert_eq!(kept("{} | logfmt", &broken).unwrap().label("a"), "1");
    }

    #[test]
    fn what_a_query_makes_of_a_line_is_bounded() {
        let ten = row(r#"{"message":"0123456789"}"#);
        let twice = " | line_format `{{__line__}}{{__line__}}`".repeat(40);
        let made = kept(&format!("{{}}{twice}"), &ten).unwrap();
        assert!(made.line.len() <= super::MAX_LINE && made.label("__error__") == "TemplateFormatErr");
        let twice = " | label_format a=`x{{.a}}{{.a}}`".repeat(40);
        let made = kept(&format!("{{}}{twice}"), &ten).unwrap();
        assert!(made.label("a").len() <= super::MAX_LABEL && made.label("__error__") == "TemplateFormatErr");

        let (long, short) =
            ("k".repeat(500_000), (0..30_000).map(|n| format!("\"a{n}\":1")).collect::<Vec<_>>().join(","));
        let line = format!("{{\"{long}\":{{{short}}},{short},\"{long}x\":1}}");
        let nested = row(&serde_json::json!({ "message": line }).to_string());
        let found = kept("{} | json", &nested).unwrap().parsed;
        assert!(found.len() == 256 && found.keys().all(|name| name.len() <= 256), "{}", found.len());
    }

    #[test]
    fn lines_and_labels_are_rewritten() {
        let row = row(r#"{"message":"m\u001b[31mred\u001b[0m","service":"api","status":500,"pod":"p"}"#);
        let line = |query: &str| kept(query, &row).unwrap().line;
        assert_eq!(line("{} | decolorize"), "mred");
        assert_eq!(line("{} | line_format `{{.service_name}}: {{ .status }} {{.none}}!`"), "api: 500 !");
        assert_eq!(
            line("{} | label_format a=status, b=`x{{.pod}}` | line_format `{{.a}} {{.b}} {{.status}}`"),
            "500 xp "
        );
        let found = kept("{} | keep pod, status=\"404\"", &row).unwrap();
        assert_eq!((found.label("pod"), found.label("status"), found.label("service_name")), ("p", "", ""));
    }
}
