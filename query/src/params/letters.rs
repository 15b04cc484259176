//! Parameters of the dead letters' routes: which letters, as a query string or as a JSON body.

use api::letter::Redrive;
use api::parameters::{Choices, DEFAULT_LIMIT, LetterFilter, MAX_IDS};
use uuid::Uuid;

use super::moment::Limit;
use super::{InvalidParams, choices, once, read_limit, read_span, read_time, say_known, unknown};
use crate::cursor::{Asked, Cursor};
use stages::time::Micros;

const FILTERS: &str = "code, pipeline, batch, from, to, since";

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
pub fn page(pairs: &[(String, String)], now: Micros) -> Result<LetterPage, InvalidParams> {
    let asked = Asked::of("dead-letters", pairs);
    let mut page = LetterPage { asked, ..LetterPage::default() };
    let mut limit = None;
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => once(&mut limit, name, read_limit(value)?)?,
            "cursor" => once(&mut page.after, name, Cursor::decode(value, asked)?)?,
            _ => read_filter(&mut page.filters, name, value, now, &format!("limit, cursor, {FILTERS}"))?,
        }
    }
    page.limit = limit.unwrap_or(DEFAULT_LIMIT);
    Ok(page)
}

/// Parameters of `DELETE /api/dead-letters`. Whoever means all must say so.
pub fn purge(pairs: &[(String, String)], now: Micros) -> Result<Chosen, InvalidParams> {
    let mut filters = LetterFilters::default();
    let mut all = None;
    for (name, value) in pairs {
        match (name.as_str(), value.as_str()) {
            ("all", "true") => once(&mut all, name, ())?,
            ("all", _) => return Err(InvalidParams::of(name, "can only be `true`")),
            _ => read_filter(&mut filters, name, value, now, &format!("all, {FILTERS}"))?,
        }
    }
    match (all, filters == LetterFilters::default()) {
        (None, true) => Err(InvalidParams::of("all", format!("is needed unless there is a filter: {FILTERS}"))),
        (Some(()), false) => Err(InvalidParams::of("all", "and a filter exclude each other")),
        _ => Ok(Chosen::Matching(filters)),
    }
}

/// Reads the body of `POST /api/dead-letters/redrive`.
pub fn redrive(body: &[u8], now: Micros) -> Result<Chosen, InvalidParams> {
    match serde_json::from_slice(body).map_err(|error| InvalidParams::of("body", error.to_string()))? {
        Redrive::Ids(ids) if (1..=MAX_IDS).contains(&ids.len()) => Ok(Chosen::Ids(ids)),
        Redrive::Ids(_) => Err(InvalidParams::of("ids", format!("holds 1 to {MAX_IDS} ids"))),
        Redrive::All(true) => Ok(Chosen::Matching(LetterFilters::default())),
        Redrive::All(false) => Err(InvalidParams::of("all", "can only be `true`")),
        Redrive::Filter(filter) if filter == LetterFilter::default() => {
            Err(InvalidParams::of("filter", format!("holds one of {FILTERS}")))
        }
        Redrive::Filter(LetterFilter { code, pipeline, batch, from, to }) => {
            let mut filters = LetterFilters { batch, ..LetterFilters::default() };
            chosen(&mut filters.codes, "code", code.as_ref())?;
            chosen(&mut filters.pipelines, "pipeline", pipeline.as_ref())?;
            filters.from = from.map(|from| read_time("from", &from, Limit::Lower, now)).transpose()?;
            filters.to = to.map(|to| read_time("to", &to, Limit::Upper, now)).transpose()?;
            Ok(Chosen::Matching(filters))
        }
    }
}

fn chosen(into: &mut Vec<String>, name: &str, from: Option<&Choices>) -> Result<(), InvalidParams> {
    match from.map(Choices::texts) {
        None => Ok(()),
        Some([]) => Err(InvalidParams::of(name, "is a text or a list of texts")),
        Some(texts) => texts.iter().try_for_each(|text| choices(into, name, text)),
    }
}

fn read_filter(
    filters: &mut LetterFilters,
    name: &str,
    value: &str,
    now: Micros,
    known: &str,
) -> Result<(), InvalidParams> {
    match name {
        "code" => choices(&mut filters.codes, name, value),
        "pipeline" => choices(&mut filters.pipelines, name, value),
        "batch" => {
            let id = value.parse().map_err(|_| InvalidParams::of(name, "is the id of a batch"))?;
            once(&mut filters.batch, name, id)
        }
        "from" | "since" | "to" => read_span(&mut filters.from, &mut filters.to, name, value, now),
        _ => Err(say_known(unknown(name), known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_769_862_896_000_000;

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
        assert_eq!(page(&sent, NOW), Ok(LetterPage { filters: filters.clone(), asked, after: None, limit: 50 }));
        assert_eq!(purge(&sent, NOW), Ok(Chosen::Matching(filters.clone())));
        let body = format!(
            r#"{{"filter":{{"code":["invalid_json","refused"],"pipeline":"default","batch":"{batch}","from":"1970-01-01T00:00:01Z"}}}}"#
        );
        assert_eq!(redrive(body.as_bytes(), NOW), Ok(Chosen::Matching(filters)));
    }

    #[test]
    fn whoever_means_all_says_so() {
        let all = Chosen::Matching(LetterFilters::default());
        assert_eq!(purge(&pairs(&[("all", "true")]), NOW), Ok(all.clone()));
        assert_eq!(redrive(br#"{"all":true}"#, NOW), Ok(all));
        for wrong in [&[][..], &[("all", "yes")], &[("all", "true"), ("code", "refused")], &[("limit", "5")]] {
            assert!(purge(&pairs(wrong), NOW).is_err(), "{wrong:?}");
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
            r#"{"filter":{"code":[],"pipeline":"default"}}"#,
            r#"{"filter":{"code":"refused","to":null}}"#,
            r#"{"filter":{"tenant":"other"}}"#,
            r#"{"all":true,"ids":["00000000-0000-0000-0000-000000000000"]}"#,
            r#"{"everything":true}"#,
        ] {
            assert!(redrive(wrong.as_bytes(), NOW).is_err(), "{wrong}");
        }
        let many =
            format!(r#"{{"ids":[{}]}}"#, vec![r#""00000000-0000-0000-0000-000000000000""#; MAX_IDS + 1].join(","));
        assert!(redrive(many.as_bytes(), NOW).is_err());
    }
}
