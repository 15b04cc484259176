//! Regular expressions that users write: linear-time, bounded, and refused with the place of the
//! mistake.

use regex::{Regex, RegexBuilder};

/// Bytes of one compiled expression: a Unicode class repeated some hundred times. With
/// [`MAX_PATTERNS`](crate::MAX_PATTERNS) of them, a processor's stages stay below 64 MiB.
const SIZE_LIMIT: usize = 1024 * 1024;
/// Nested groups: the parser recurses that deep.
const NEST_LIMIT: u32 = 50;

/// What is wrong with a part of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Stable, for programs.
    pub(crate) code: &'static str,
    /// For people: where it is, and what to do.
    pub(crate) message: String,
}

/// The compiled expression; `place` is where it stands in the stage.
pub(crate) fn compile(place: &str, pattern: &str) -> Result<Regex, Problem> {
    let mut parser = regex_syntax::ParserBuilder::new().nest_limit(NEST_LIMIT).build();
    if let Err(error) = parser.parse(pattern) {
        return Err(Problem { code: "invalid_regex", message: format!("{place}: {}", syntax(pattern, &error)) });
    }
    RegexBuilder::new(pattern).nest_limit(NEST_LIMIT).size_limit(SIZE_LIMIT).build().map_err(|_| Problem {
        code: "regex_too_large",
        message: format!("{place}: compiled, it takes more than {SIZE_LIMIT} bytes: shorten its repetitions"),
    })
}

/// The mistake in one line, with the character at which it begins.
fn syntax(pattern: &str, error: &regex_syntax::Error) -> String {
    let (offset, kind) = match error {
        regex_syntax::Error::Parse(error) => (error.span().start.offset, error.kind().to_string()),
        regex_syntax::Error::Translate(error) => (error.span().start.offset, error.kind().to_string()),
        _ => (0, "not a regular expression".to_owned()),
    };
    let character = pattern.get(..offset).unwrap_or_default().chars().count() + 1;
    format!("at character {character}: {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_expression_says_what_is_wrong_and_where() {
        let nested = format!("{}a{}", "(".repeat(60), ")".repeat(60));
        for (pattern, code, said) in [
            (r"^(\d+", "invalid_regex", "parse.pattern: at character 2: unclosed group"),
            (r"é(a", "invalid_regex", "at character 2: unclosed group"),
            (r"a(?=b)", "invalid_regex", "look-around"),
            (r"(a)\1", "invalid_regex", "backreferences"),
            (r"[z-a]", "invalid_regex", "invalid character class range"),
            (nested.as_str(), "invalid_regex", "nest"),
            (r"(\w{100}){100}", "regex_too_large", "shorten its repetitions"),
        ] {
            let problem = compile("parse.pattern", pattern).unwrap_err();
            assert!(problem.code == code && problem.message.contains(said), "{pattern}: {problem:?}");
        }
        assert!(compile("p", r"^(?<user>\w+) \S+$").is_ok());
    }
}
