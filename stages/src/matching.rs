//! Which events a stage concerns.

use crds::stage::{FieldMatch, Match};
use regex::Regex;

use crate::line::{Line, Path};
use crate::patterns::{Problem, compile};
use crate::{UNKNOWN_SERVICE, level};

/// A compiled [`Match`].
#[derive(Debug)]
pub(crate) struct Matcher {
    service: Path,
    services: Vec<String>,
    level: Path,
    levels: Vec<String>,
    fields: Vec<(Path, Condition)>,
}

#[derive(Debug)]
enum Condition {
    Equals(String),
    Matches(Regex),
    Exists(bool),
}

impl Matcher {
    pub(crate) fn compile(spec: &Match) -> Result<Self, Problem> {
        let mut fields = Vec::with_capacity(spec.fields.len());
        for (at, field) in spec.fields.iter().enumerate() {
            fields.push((Path::new(&field.name), Condition::compile(at, field)?));
        }
        let levels = spec.levels.iter().map(|name| level::normalize(name)).collect();
        let (service, level) = (Path::new("service"), Path::new("level"));
        Ok(Self { service, services: spec.services.clone(), level, levels, fields })
    }

    pub(crate) fn holds(&self, line: &Line) -> bool {
        self.holds_for_service(line) && self.holds_for_level(line) && self.fields.iter().all(|(p, c)| c.holds(line, p))
    }

    fn holds_for_service(&self, line: &Line) -> bool {
        if self.services.is_empty() {
            return true;
        }
        let service = line.text(&self.service);
        let service = service.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(UNKNOWN_SERVICE);
        self.services.iter().any(|wanted| wanted == service)
    }

    fn holds_for_level(&self, line: &Line) -> bool {
        if self.levels.is_empty() {
            return true;
        }
        let level = line.text(&self.level).map_or_else(|| level::DEFAULT.to_owned(), level::normalize);
        self.levels.contains(&level)
    }
}

impl Condition {
    fn compile(at: usize, field: &FieldMatch) -> Result<Self, Problem> {
        match (&field.equals, &field.matches, field.exists) {
            (Some(text), None, None) => Ok(Self::Equals(text.clone())),
            (None, Some(pattern), None) => Ok(Self::Matches(compile(&format!("match.fields[{at}].matches"), pattern)?)),
            (None, None, Some(exists)) => Ok(Self::Exists(exists)),
            _ => Err(Problem {
                code: "invalid_match",
                message: format!("match.fields[{at}]: give exactly one of equals, matches, exists"),
            }),
        }
    }

    fn holds(&self, line: &Line, path: &Path) -> bool {
        match self {
            Self::Exists(exists) => line.get(path).is_some() == *exists,
            Self::Equals(wanted) => line.text(path).is_some_and(|text| text == wanted),
            Self::Matches(regex) => line.text(path).is_some_and(|text| regex.is_match(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_is_given_must_hold() {
        let line = Line::read(br#"{"source":"edge","lvl":"warning","message":"GET /healthz","n":5}"#).unwrap();
        for (spec, expected) in [
            (json!({"services": ["edge"]}), true),
            (json!({"services": ["checkout", "edge"]}), true),
            (json!({"services": ["checkout"]}), false),
            (json!({"levels": ["WARN"]}), true),
            (json!({"levels": ["debug", "4"]}), true),
            (json!({"levels": ["error"]}), false),
            (json!({"services": ["edge"], "levels": ["error"]}), false),
            (json!({"fields": [{"name": "n", "equals": "5"}]}), true),
            (json!({"fields": [{"name": "message", "matches": "^GET /health"}]}), true),
            (json!({"fields": [{"name": "message", "matches": "^POST"}]}), false),
            (json!({"fields": [{"name": "user", "exists": false}, {"name": "n", "exists": true}]}), true),
            (json!({"fields": [{"name": "user", "exists": true}]}), false),
        ] {
            let matcher = Matcher::compile(&serde_json::from_value(spec.clone()).unwrap()).unwrap();
            assert_eq!(matcher.holds(&line), expected, "{spec}");
        }
        let nameless = Line::read(b"{}").unwrap();
        let spec = json!({"services": ["unknown"], "levels": ["info"]});
        let matcher = Matcher::compile(&serde_json::from_value(spec).unwrap()).unwrap();
        assert!(matcher.holds(&nameless), "what an event without them is stored with");
    }
}
