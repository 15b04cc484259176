//! Texts with labels in them: `{{.service_name}}: {{ .status }}`.

use super::row::Row;

/// A template of texts and labels, without functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Label(String),
    /// `{{ __line__ }}`
    Line,
}

impl Template {
    /// Reads one; an error names what is not supported.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            parts.push(Part::Text(rest[..start].to_owned()));
            let end = rest[start..].find("}}").ok_or("a template's `{{` is not closed")?;
            let inside = rest[start + 2..start + end].trim();
            parts.push(match inside.strip_prefix('.') {
                Some(name) if is_name(name) => Part::Label(name.to_owned()),
                _ if inside == "__line__" => Part::Line,
                _ => return Err(format!("the template function `{inside}` is not supported by LoggerHub")),
            });
            rest = &rest[start + end + 2..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// With a line's labels; `None` if that were longer than `most` bytes. Each template can hold a line many times, and
    /// the next one what came of it.
    pub(super) fn fill(&self, row: &Row, most: usize) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            let part = match part {
                Part::Text(text) => text.as_str(),
                Part::Label(name) => row.label(name),
                Part::Line => &row.line,
            };
            if text.len() + part.len() > most {
                return None;
            }
            text.push_str(part);
        }
        Some(text)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
