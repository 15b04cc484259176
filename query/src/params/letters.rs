//! Parameters of the dead letters' routes: which letters, as a query string or as a JSON body.

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{DEFAULT_LIMIT, InvalidParams, choices, once, read_limit, read_time, say_known, unknown};
use crate::cursor::{Asked, Cursor};
use stages::time::Micros;

/// Ids that one request may name: some 40 KB of body.
const MAX_IDS: usize = 1000;

const FILTERS: &str = "code, pipeline, batch, from, to";

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterPage {
    /// Which letters.
    pub filters: LetterFilters,
    /// What its cursors belong to.
    pub asked: Asked,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Most letters to answer with.
    pub limit: u32,
}

/// Which dead letters; an empty choice means any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterFilters {
    /// Any of these codes.
    pub codes: Vec<String>,
    /// Any of these pipelines.
    pub pipelines: Vec<String>,
    /// Of this batch.
    pub batch: Option<Uuid>,
    /// Kept at this time or after.
    pub from: Option<Micros>,
    /// Kept before this time.
    pub to: Option<Micros>,
}

/// The dead letters that something is to be done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// These.
    Ids(Vec<Uuid>),
    /// All that match; without a filter, all.
    Matching(LetterFilters),
}

/// Parameters of `GET /api/dead-letters`.
pub fn page(pairs: &[(String, String)]) -> Result<LetterPage, InvalidParams> {
    let asked = Asked::of("dead-letters", pairs);
    let mut page = LetterPage { asked, ..LetterPage::default() };
    let mut limit = None;
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => once(&mut limit, name, read_limit(value)?)?,
            "cursor" => once(&mut page.after, name, Cursor::decode(value, asked)?)?,
            _ => read_filter(&mut page.filters, name, value, &format!("limit, cursor, {FILTERS}"))?,
        }
    }
    page.limit = limit.unwrap_or(DEFAULT_LIMIT);
    Ok(page)
}

/// Parameters of `DELETE /api/dead-letters`. Whoever means all must say so.
pub fn purge(pairs: &[(String, String)]) -> Result<Chosen, InvalidParams> {
    let mut filters = LetterFilters::default();
    let mut all = None;
    for (name, value) in pairs {
        match (name.as_str(), value.as_str()) {
            ("all", "true") => once(&mut all, name, ())?,
            ("all", _) => return Err(InvalidParams::of(name, "can only be `true`")),
            _ => read_filter(&mut filters, name, value, &format!("all, {FILTERS}"))?,
        }
    }
    match (all, filters == LetterFilters::default()) {
        (None, true) => Err(InvalidParams::of("all", format!("is needed unless there is a filter: {FILTERS}"))),
        (Some(()), false) => Err(InvalidParams::of("all", "and a filter exclude each other")),
        _ => Ok(Chosen::Matching(filters)),
    }
}

/// The body of `POST /api/dead-letters/redrive`: one of its fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    ids: Option<Vec<Uuid>>,
    filter: Option<Map<String, Value>>,
    all: Option<bool>,
}

/// Reads the body of `POST /api/dead-letters/redrive`.
pub fn redrive(body: &[u8]) -> Result<Chosen, InvalidParams> {
    let body: Body = serde_json::from_slice(body).map_err(|error| InvalidParams::of("body", error.to_string()))?;
    match (body.ids, body.filter, body.all) {
        (Some(ids), None, None) if (1..=MAX_IDS).contains(&ids.len()) => Ok(Chosen::Ids(ids)),
        (Some(_), None, None) => Err(InvalidParams::of("ids", format!("holds 1 to {MAX_IDS} ids"))),
        (None, None, Some(true)) => Ok(Chosen::Matching(LetterFilters::default())),
        (None, Some(filter), None) if !filter.is_empty() => {
            let mut filters = LetterFilters::default();
            for (name, value) in &filter {
                for value in texts(name, value)? {
                    read_filter(&mut filters, name, value, FILTERS)?;
                }
            }
            Ok(Chosen::Matching(filters))
        }
        _ => Err(InvalidParams::of("body", r#"is one of {"ids": […]}, {"filter": {…}} and {"all": true}"#)),
    }
}

fn texts<'a>(name: &str, value: &'a Value) -> Result<Vec<&'a str>, InvalidParams> {
    let texts = match value {
        Value::String(text) => Some(vec![text.as_str()]),
        Value::Array(values) if !values.is_empty() => values.iter().map(Value::as_str).collect(),
        _ => None,
    };
    texts.ok_or_else(|| InvalidParams::of(name, "is a text or a list of texts"))
}

fn read_filter(filters: &mut LetterFilters, name: &str, value: &str, known: &str) -> Result<(), InvalidParams> {
    match name {
        "code" => choices(&mut filters.codes, name, value),
        "pipeline" => choices(&mut filters.pipelines, name, value),
        "batch" => {
            let id = value.parse().map_err(|_| InvalidParams::of(name, "is the id of a batch"))?;
            once(&mut filters.batch, name, id)
        }
        "from" => once(&mut filters.from, name, read_time(name, value)?),
        "to" => once(&mut filters.to, name, read_time(name, value)?),
        _ => Err(say_known(unknown(name), known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn filters_have_their_places() {
        let batch = Uuid::from_u128(7);
        let filters = LetterFilters {
            codes: vec!["invalid_json".into(), "refused".into()],
            pipelines: vec!["default".into()],
            batch: Some(batch),
            from: Some(1_000_000),
            to: None,
        };
        let sent = pairs(&[
            ("code", "invalid_json,refused"),
            ("pipeline", "default"),
            ("batch", &batch.to_string()),
            ("from", "1970-01-01T00:00:01Z"),
        ]);
        let asked = Asked::of("dead-letters", &sent);
        assert_eq!(page(&sent), Ok(LetterPage { filters: filters.clone(), asked, after: None, limit: 50 }));
        assert_eq!(purge(&sent), Ok(Chosen::Matching(filters.clone())));
        let body = format!(
            r#"{{"filter":{{"code":["invalid_json","refused"],"pipeline":"default","batch":"{batch}","from":"1970-01-01T00:00:01Z"}}}}"#
        );
        assert_eq!(redrive(body.as_bytes()), Ok(Chosen::Matching(filters)));
    }

    #[test]
    fn whoever_means_all_says_so() {
        let all = Chosen::Matching(LetterFilters::default());
        assert_eq!(purge(&pairs(&[("all", "true")])), Ok(all.clone()));
        assert_eq!(redrive(br#"{"all":true}"#), Ok(all));
        for wrong in [&[][..], &[("all", "yes")], &[("all", "true"), ("code", "refused")], &[("limit", "5")]] {
            assert!(purge(&pairs(wrong)).is_err(), "{wrong:?}");
        }
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"all":false}"#,
            r#"{"ids":[]}"#,
            r#"{"ids":["x"]}"#,
            r#"{"filter":{}}"#,
            r#"{"filter":{"code":7}}"#,
            r#"{"filter":{"tenant":"other"}}"#,
            r#"{"all":true,"ids":["00000000-0000-0000-0000-000000000000"]}"#,
            r#"{"everything":true}"#,
        ] {
            assert!(redrive(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let many =
            format!(r#"{{"ids":[{}]}}"#, vec![r#""00000000-0000-0000-0000-000000000000""#; MAX_IDS + 1].join(","));
        assert!(redrive(many.as_bytes()).is_err());
    }
}
