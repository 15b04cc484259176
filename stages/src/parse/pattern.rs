//! A regular expression of the user's, its named groups being fields.

use regex::Regex;

use super::Parsed;
use crate::json::{Map, Value};
use crate::patterns::{Problem, compile};

/// The expression, which must name at least one group.
pub(super) fn compiled(place: &str, pattern: &str) -> Result<Regex, Problem> {
    let regex = compile(place, pattern)?;
    if regex.capture_names().flatten().next().is_none() {
        let message = format!("{place}: no group has a name, so no field can be read: write (?<name>…)");
        return Err(Problem { code: "no_named_group", message });
    }
    Ok(regex)
}

/// The named groups that took part and are not empty.
pub(super) fn read(regex: &Regex, text: &str) -> Option<Parsed> {
    let captures = regex.captures(text)?;
    let mut fields = Map::new();
    let mut message = None;
    for name in regex.capture_names().flatten() {
        match captures.name(name).map(|found| found.as_str()) {
            None | Some("") => {}
            Some(text) if name == "message" => message = Some(text.to_owned()),
            Some(text) => {
                fields.insert(name.to_owned(), Value::String(text.to_owned()));
            }
        }
    }
    Some(Parsed { fields, message, ..Parsed::default() })
}
