//! Parameters of `GET /api/export`.

use api::parameters::{Format, MAX_EXPORT};
use stages::time::Micros;
use uuid::Uuid;

use super::{InvalidParams, once, page, unknown};
use crate::Page;
use crate::parse::parse;

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Which events, and in which order. Its limit is of no meaning.
    pub page: Page,
    /// In which form.
    pub format: Format,
    /// Most events.
    pub limit: u64,
    /// The event after which to go on, where there is no cursor.
    pub after: Option<Uuid>,
    /// Whether the cells of a CSV stay as they are, whatever a spreadsheet makes of them.
    pub raw: bool,
}

/// Reads the parameters. In another form, or with another limit, a cursor goes on as well.
pub fn export(pairs: &[(String, String)], now: Micros) -> Result<Export, InvalidParams> {
    const OWN: [&str; 4] = ["format", "limit", "after", "raw"];
    let (own, of_page): (Vec<_>, Vec<_>) = pairs.iter().cloned().partition(|(name, _)| OWN.contains(&name.as_str()));
    let known = "q, format, limit, after, raw, cursor, order, service, level, from, to, since";
    let page = page("export", &of_page, now, known, |page, name, value| match name {
        "q" => once(&mut page.query, name, parse(value)?),
        _ => Err(unknown(name)),
    })?;
    let (mut format, mut limit, mut after, mut raw) = (None, None, None, None);
    for (name, value) in &own {
        match name.as_str() {
            "format" => once(&mut format, name, read_format(value)?)?,
            "limit" => once(&mut limit, name, read_limit(value)?)?,
            "after" => {
                let id = value.parse().map_err(|_| InvalidParams::of(name, "is the id of an event"))?;
                once(&mut after, name, id)?;
            }
            _ => once(&mut raw, name, read_flag(name, value)?)?,
        }
    }
    if after.is_some() && page.after.is_some() {
        return Err(InvalidParams::of("after", "and `cursor` exclude each other"));
    }
    Ok(Export {
        page,
        format: format.unwrap_or_default(),
        limit: limit.unwrap_or(MAX_EXPORT),
        after,
        raw: raw.unwrap_or_default(),
    })
}

fn read_format(value: &str) -> Result<Format, InvalidParams> {
    let format = Format::ALL.into_iter().find(|format| format.as_str() == value);
    format.ok_or_else(|| InvalidParams::of("format", "is ndjson, csv or text"))
}

fn read_limit(value: &str) -> Result<u64, InvalidParams> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_EXPORT).contains(limit));
    limit.ok_or_else(|| InvalidParams::of("limit", format!("is a number from 1 to {MAX_EXPORT}")))
}

fn read_flag(name: &str, value: &str) -> Result<bool, InvalidParams> {
    value.parse().map_err(|_| InvalidParams::of(name, "is true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cursor, Order};

    fn read(pairs: &[(&str, &str)]) -> Result<Export, InvalidParams> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        export(&pairs, 1_769_862_896_000_000)
    }

    #[test]
    fn everything_is_exported_as_lines_of_json_unless_it_is_said_otherwise() {
        let all = read(&[]).unwrap();
        assert_eq!((all.format, all.limit, all.raw, all.page.query), (Format::Ndjson, MAX_EXPORT, false, None));
        let some = read(&[("q", "refused"), ("format", "csv"), ("limit", "7"), ("raw", "true"), ("order", "oldest")]);
        let some = some.unwrap();
        assert_eq!((some.format, some.limit, some.raw, some.page.order), (Format::Csv, 7, true, Order::Oldest));
        assert!(some.page.query.is_some());
        let cursor = Cursor { time: 5, event_id: Uuid::from_u128(6) };
        let text = cursor.encode(some.page.asked);
        let more = read(&[("order", "oldest"), ("q", "refused"), ("cursor", &text), ("format", "text")]).unwrap();
        assert_eq!(more.page.after, Some(cursor), "in another form");
    }

    #[test]
    fn what_can_not_be_exported_is_refused_by_name() {
        let id = Uuid::from_u128(6).to_string();
        let cursor = Cursor { time: 5, event_id: Uuid::from_u128(6) }.encode(read(&[]).unwrap().page.asked);
        for pairs in [
            &[("format", "xml")][..],
            &[("limit", "0")],
            &[("limit", "1000001")],
            &[("after", "x")],
            &[("raw", "yes")],
            &[("format", "csv"), ("format", "csv")],
            &[("after", &id), ("cursor", &cursor)],
            &[("text", "x")],
            &[("q", "(")],
        ] {
            assert!(read(pairs).is_err(), "{pairs:?}");
        }
    }
}
