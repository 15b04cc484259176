//! What must stand in a raw line for a query to find its event: most lines are told apart by it before they are read.
//!
//! It errs on one side only: of a line that it turns away, [`matches`](crate::matches) is false. So it looks for no more
//! than runs of ASCII letters and digits that the query asks for: these stand in a line as they stand in its texts,
//! whatever is escaped around them, unless they are escaped themselves, and then the line is read.

use regex::bytes::{Regex, RegexBuilder};

use crate::expression::{Clause, Field, Pattern, Query};
use crate::leaves::word;
use crate::words::{lower_case, words};

/// Longest run that is looked for: a longer one tells no more.
const LONGEST: usize = 32;
/// Most runs of which one has to be there.
const MOST: usize = 64;
/// Most that has to be there: a line that has so much is likely to be found.
const MOST_NEEDLES: usize = 4;

/// Letters beyond ASCII whose lower case is in it, in UTF-8: KELVIN SIGN, and I with a dot above.
const KELVIN: &str = r"\xE2\x84\xAA";
const DOTTED_I: &str = r"\xC4\xB0";
/// Letters and digits of ASCII, and the two above, escaped.
const ESCAPED: &str = r"\\u(?:00(?:3[0-9]|[46][1-9A-F]|[57][0-9A])|212A|0130)";

/// What must stand in a line.
#[derive(Debug, Clone)]
pub struct Needles {
    all_of: Vec<Regex>,
}

/// Runs of which one has to be there.
type Choice = Vec<String>;

impl Needles {
    /// Of a query. `None`: it may find any line.
    pub fn of(query: &Query) -> Option<Self> {
        let all_of = chosen(query).iter().map(expression).collect::<Option<Vec<_>>>()?;
        (!all_of.is_empty()).then_some(Self { all_of })
    }

    /// Whether the query may find the event of this line.
    pub fn may_be_in(&self, line: &[u8]) -> bool {
        self.all_of.iter().all(|needle| needle.is_match(line))
    }
}

/// One of these runs in any case, or something that may be a part of one, escaped.
fn expression(choice: &Choice) -> Option<Regex> {
    let letter = |c: char| match c {
        'k' => format!("(?:k|{KELVIN})"),
        'i' => format!("(?:i|{DOTTED_I})"),
        c => c.to_string(),
    };
    let runs: Vec<String> = choice.iter().map(|run| run.chars().map(letter).collect()).collect();
    let expression = format!("{}|{ESCAPED}", runs.join("|"));
    RegexBuilder::new(&expression).unicode(false).case_insensitive(true).build().ok()
}

/// What is looked for, the rarest first: what is long is rare.
fn chosen(query: &Query) -> Vec<Choice> {
    let mut all = choices(query);
    all.sort_by(|a, b| length(b).cmp(&length(a)).then_with(|| a.cmp(b)));
    all.dedup();
    all.truncate(MOST_NEEDLES);
    all
}

fn length(choice: &Choice) -> usize {
    choice.iter().map(String::len).min().unwrap_or(0)
}

/// In every line that the query finds there is one run of each of these.
fn choices(query: &Query) -> Vec<Choice> {
    match query {
        Query::And(parts) => parts.iter().flat_map(choices).collect(),
        Query::Or(parts) => any_of(&parts.iter().map(choices).collect::<Vec<_>>()),
        Query::Not(_) => Vec::new(),
        Query::Clause(clause) => of_clause(clause),
    }
}

/// What all of the parts ask for; else of each of them the rarest.
fn any_of(parts: &[Vec<Choice>]) -> Vec<Choice> {
    let Some((first, others)) = parts.split_first() else { return Vec::new() };
    let common = first.iter().filter(|choice| others.iter().all(|part| part.contains(choice)));
    let common: Vec<Choice> = common.cloned().collect();
    if !common.is_empty() {
        return common;
    }
    let rarest = parts.iter().map(|choices| choices.iter().max_by_key(|choice| length(choice)).cloned());
    let mut runs = rarest.collect::<Option<Vec<Choice>>>().unwrap_or_default().concat();
    runs.sort();
    runs.dedup();
    if runs.is_empty() || runs.len() > MOST { Vec::new() } else { vec![runs] }
}

fn of_clause(clause: &Clause) -> Vec<Choice> {
    let Clause { field, pattern } = clause;
    let each = |runs: Vec<String>| runs.into_iter().map(|run| vec![run]).collect::<Vec<Choice>>();
    // Either of the paths: what is in both of them is in the line.
    match field.paths().first() {
        // The catalog knows the other fields, and their values are not what was sent.
        None if *field != Field::Text => Vec::new(),
        None => each(of_text(pattern)),
        Some(path) => match clause.as_text() {
            None => each(of_leaf(path, pattern)),
            Some(text) => any_of(&[each(of_leaf(path, pattern)), each(of_text(&text))]),
        },
    }
}

/// Runs of the words that a text must have. A word's characters stand side by side in a text; what stands between two
/// words, nobody knows.
fn of_text(pattern: &Pattern) -> Vec<String> {
    let words = match pattern {
        Pattern::Prefix(prefix) if pattern.is_one_word() => vec![lower_case(prefix)],
        Pattern::Phrase(text) | Pattern::Prefix(text) => words(text),
        Pattern::Wildcard(_) | Pattern::Exists | Pattern::Range(_) => Vec::new(),
    };
    words.iter().flat_map(|word| runs(word)).collect()
}

/// Runs of a leaf's names, and of its value.
fn of_leaf(path: &str, pattern: &Pattern) -> Vec<String> {
    // What is in front of the first dot is our name for where it is.
    let names = path.split_once('.').map_or(path, |(_, names)| names);
    let value = match pattern {
        // Of a long word only the beginning is compared.
        Pattern::Phrase(text) | Pattern::Prefix(text) => {
            word(path, text).get(path.len()..).unwrap_or_default().to_owned()
        }
        Pattern::Wildcard(text) => text.clone(),
        Pattern::Exists | Pattern::Range(_) => String::new(),
    };
    runs(names).chain(runs(&value)).collect()
}

/// Runs of ASCII letters and digits, or their beginnings, in lower case.
fn runs(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
    runs.map(|run| run[..run.len().min(LONGEST)].to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matches::Subject;
    use crate::parse::parse;

    #[test]
    fn what_must_be_there_is_looked_for_the_longest_first() {
        for (query, expected) in [
            ("timeout", "timeout"),
            ("connect reset", "connect reset"),
            ("\"reset by Peer\"", "reset peer by"),
            ("user_id", "user id"),
            ("GRÖSSEN", "ssen gr"),
            ("timeou*", "timeou"),
            ("aaa OR bb", "aaa|bb"),
            ("aaa bbbb OR cc", "bbbb|cc"),
            ("aaa OR -bb", ""),
            ("-aaa", ""),
            ("aaa -bbbb", "aaa"),
            ("世界", ""),
            ("service:api", ""),
            ("service:api OR timeout", ""),
            ("service:api timeout", "timeout"),
            ("@trace:abc-defg", "trace defg abc"),
            ("trace_id:abcdef", "abcdef trace id"),
            ("trace_id:ab", "trace ab id"),
            ("id:abc", "abc id"),
            ("(aaa bbbb) OR (aaa cc)", "aaa"),
            ("metadata.status:>=500", "status"),
            ("@user.id:*", "user id"),
            ("@host:*web-1*", "host web 1"),
            ("one two three four five sixes", "sixes three five four"),
            ("*", ""),
        ] {
            let found: Vec<String> = chosen(&parse(query).unwrap()).iter().map(|choice| choice.join("|")).collect();
            assert_eq!(found.join(" "), expected, "{query}");
        }
        assert_eq!(chosen(&parse(&"x".repeat(600)).unwrap()), [["x".repeat(LONGEST)]]);
    }

    #[test]
    fn only_these_characters_are_taken_for_letters_of_ascii() {
        for c in (0x80..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let as_word = words(&c.to_string()).concat() + &lower_case(&c.to_string());
            let like_ascii = as_word.chars().any(|c| c.is_ascii_alphanumeric());
            assert_eq!(like_ascii, matches!(c, '\u{212a}' | '\u{130}'), "{c:?} {as_word}");
        }
    }

    #[test]
    fn a_run_is_found_however_it_is_written() {
        let needles = Needles::of(&parse("kiki").unwrap()).unwrap();
        for (line, expected) in [
            ("kiki", true),
            ("a KiKi b", true),
            ("\u{212a}\u{130}\u{212a}I", true),
            (r"k\u0069ki", true),
            (r"\u004bIKI", true),
            (r"\u212a\u0130", true),
            (r"kik\u00e9", false),
            (r"kik\n", false),
            ("kik", false),
        ] {
            assert_eq!(needles.may_be_in(line.as_bytes()), expected, "{line}");
        }
        for c in (0..0x250).chain(0x2100..0x2150).filter_map(char::from_u32) {
            let line = format!(r#"{{"message":"\u{:04x}"}}"#, u32::from(c));
            let is_meant = c.is_ascii_alphanumeric() || matches!(c, '\u{212a}' | '\u{130}');
            assert_eq!(needles.may_be_in(line.as_bytes()), is_meant, "{line}");
        }
    }

    /// A small generator of numbers, the same each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end
        }

        fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
            from[self.below(from.len())]
        }
    }

    const TEXTS: &[&str] = &[
        "Connection",
        "reset",
        "user_id",
        "it's",
        "3,000",
        "42",
        "größe",
        "GRÖSSE",
        "世界",
        "a=b",
        "\u{212a}elvin",
        "kelvin",
        "İstanbul",
        "istanbul",
        "x\ny",
        "q\"uote",
        "back\\slash",
        "\u{1b}[31mred\u{1b}[0m",
        "ｆｕｌｌ",
        "a\u{ad}b",
        "/api/v1",
        "\u{7f}",
    ];
    const NAMES: &[&str] = &["status", "user.id", "größe", "a\nb", "message", "log", "k"];

    /// A JSON text, its letters escaped at will.
    fn written(text: &str, random: &mut Random) -> String {
        let how = random.below(4);
        let mut out = String::from("\"");
        for c in text.chars() {
            let escaped = match how {
                0 => !c.is_ascii(),
                1 => random.below(3) == 0,
                _ => false,
            };
            match c {
                _ if escaped => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04X}")),
                '"' | '\\' => out.extend(['\\', c]),
                '\n' if how == 2 => out += "\\n",
                '/' if how == 2 => out += "\\/",
                c if c < ' ' => out += &format!("\\u{:04x}", u32::from(c)),
                c => out.push(c),
            }
        }
        out + "\""
    }

    fn line(random: &mut Random) -> String {
        let text = |random: &mut Random| {
            let words: Vec<_> = (0..1 + random.below(4)).map(|_| random.of(TEXTS)).collect();
            written(&words.join(random.of(&[" ", "", "-", "\n"])), random)
        };
        let space = random.of(&["", " "]);
        let mut members = vec![format!("\"message\":{space}{}", text(random))];
        if random.below(2) == 0 {
            members.push(format!("\"full_log\":{}", text(random)));
        }
        if random.below(3) == 0 {
            members[0] = format!("\"message\":{{\"b\":{space}[1,{space}{}],\"a\":{}}}", text(random), text(random));
        }
        for _ in 0..random.below(3) {
            let name = random.of(NAMES);
            let (name, value) = (written(name, random), text(random));
            members.push(match random.below(3) {
                0 => format!("\"metadata\":{{{name}:{value}}}"),
                1 => format!("{name}:{}", random.of(&["42", "1.5e3", "true", "null"])),
                _ => format!("{name}:{value}"),
            });
        }
        format!("{{{}}}", members.join(&format!(",{space}")))
    }

    fn query(random: &mut Random) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let one = |random: &mut Random| match random.below(6) {
            0 => quoted(random.of(TEXTS)),
            1 => quoted(&format!("{} {}", random.of(TEXTS), random.of(TEXTS))),
            2 => format!("@{}:{}", random.of(&["status", "user.id", "größe", "k"]), quoted(random.of(TEXTS))),
            3 => format!("{}:{}", random.of(&["status", "user.id", "log"]), quoted(random.of(TEXTS))),
            4 => {
                random.of(&["conn*", "kel*", "ist*", "@status:*", "@user.id:>=4", "@k:*e*", "@status:con*"]).to_owned()
            }
            _ => random.of(&["42", "kelvin", "istanbul", "größe", "red", "slash"]).to_owned(),
        };
        match random.below(4) {
            0 => format!("{} {}", one(random), one(random)),
            1 => format!("({} OR {})", one(random), one(random)),
            2 => format!("{} -({})", one(random), one(random)),
            _ => one(random),
        }
    }

    #[test]
    fn no_line_that_a_query_finds_is_turned_away() {
        let mut random = Random(7);
        let (mut found, mut turned_away) = (0, 0);
        let lines: Vec<String> = (0..400).map(|_| line(&mut random)).collect();
        for _ in 0..400 {
            let text = query(&mut random);
            let Ok(query) = parse(&text) else { continue };
            let Some(needles) = Needles::of(&query) else { continue };
            for line in &lines {
                let event = stages::event(line.as_bytes(), 0).unwrap_or_else(|error| panic!("{line}: {error}"));
                let (matches, may) = (Subject::new(&event, 0).matches(&query), needles.may_be_in(line.as_bytes()));
                assert!(may || !matches, "`{text}` finds {line}");
                found += usize::from(matches);
                turned_away += usize::from(!may);
            }
        }
        assert!(found > 2_000 && turned_away > 30_000, "{found} found, {turned_away} turned away");
    }
}
