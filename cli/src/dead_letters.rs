//! `dead-letters`: lines that could not be events; to read, to try again, to give up.

use anyhow::{Context, bail, ensure};
use api::letter::{DeadLetter, Letters, Marked, Purged, Redrive, WholeLetter};
use api::parameters::{Choices, LetterChoice, LetterFilter, ListLetters, Purge};
use api::routes;
use crds::TenantName;
use crds::tenant::Scope;
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::{ApiArgs, DeadLettersCommand, Global, LettersArgs, LettersFilter, Output};
use crate::door::Door;
use crate::output;
use crate::search::{Shown, paging, print, span, with_query};

/// Most requests of one redrive or purge; each takes up to 10,000 letters.
const REQUESTS: usize = 1_000;

/// Does what is asked for.
pub async fn run(global: &Global, command: DeadLettersCommand) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List { tenant, of, page, api } => {
            let letters = choice(&of, page.from.as_deref(), page.to.as_deref());
            let path = with_query(routes::LETTERS, &ListLetters { paging: paging(&page), letters });
            let page = read(global, &api, &tenant).await?.request::<Letters>(Method::GET, &path, None).await?;
            let now = OffsetDateTime::now_utc();
            let rows = page.value.items.iter().map(|letter| cells(letter, now)).collect();
            let header = &["ID", "CODE", "PIPELINE", "ATTEMPTS", "AGE", "REASON"];
            print(global.output, &page.json, Shown { header, rows, notice: None, next_cursor: page.value.next_cursor })
        }
        DeadLettersCommand::Show { tenant, id, api } => {
            let door = read(global, &api, &tenant).await?;
            let letter = door.request::<WholeLetter>(Method::GET, &path_of(&id)?, None).await?;
            output::json(&letter.json)
        }
        DeadLettersCommand::Redrive(args) => change(global, Change::Redrive, args).await,
        DeadLettersCommand::Purge(args) => change(global, Change::Purge, args).await,
    }
}

async fn read(global: &Global, api: &ApiArgs, tenant: &TenantName) -> anyhow::Result<Door> {
    Door::open(global, api, tenant, Scope::Query).await
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Redrive,
    Purge,
}

/// Asks until no more match, and prints how many it were.
async fn change(global: &Global, change: Change, args: LettersArgs) -> anyhow::Result<()> {
    let request = request(change, &args)?;
    let door = Door::open(global, &args.api, &args.tenant, Scope::Admin).await?;
    let counted = if change == Change::Redrive { "marked" } else { "purged" };
    let mut count = 0;
    for _ in 0..REQUESTS {
        let changed = match change {
            Change::Redrive => ask(&door, &request).await.map(|Marked { marked, more }| (marked, more)),
            Change::Purge => ask(&door, &request).await.map(|Purged { purged, more }| (purged, more)),
        };
        let (changed, more) = changed.with_context(|| format!("after {count} were {counted}"))?;
        count += changed;
        if !more {
            return match global.output {
                Output::Json => output::json(&json!({counted: count})),
                _ => output::text(&format!("{count} {counted}\n")),
            };
        }
    }
    bail!("{count} {counted}, and there are more: ask again")
}

async fn ask<T: DeserializeOwned>(door: &Door, (method, path, body): &Asked) -> anyhow::Result<T> {
    Ok(door.request(method.clone(), path, body.as_ref()).await?.value)
}

type Asked = (Method, String, Option<Redrive>);

fn request(change: Change, args: &LettersArgs) -> anyhow::Result<Asked> {
    let LetterChoice { code, pipeline, batch, span } = choice(&args.of, args.from.as_deref(), args.to.as_deref());
    let any = |texts: Vec<String>| (!texts.is_empty()).then_some(Choices::Any(texts));
    let filter = LetterFilter { code: any(code), pipeline: any(pipeline), batch, from: span.from, to: span.to };
    let all = args.id.is_none() && filter == LetterFilter::default();
    ensure!(!all || args.all, "name one by its id, filter them, or say --all");
    Ok(match (change, &args.id) {
        (Change::Redrive, Some(id)) => (Method::POST, format!("{}/redrive", path_of(id)?), None),
        (Change::Purge, Some(id)) => (Method::DELETE, path_of(id)?, None),
        (Change::Redrive, None) => {
            let chosen = if args.all { Redrive::All(true) } else { Redrive::Filter(filter) };
            (Method::POST, routes::REDRIVE.to_owned(), Some(chosen))
        }
        (Change::Purge, None) => {
            let letters = choice(&args.of, args.from.as_deref(), args.to.as_deref());
            let purge = Purge { all: args.all.then_some(true), letters };
            (Method::DELETE, with_query(routes::LETTERS, &purge), None)
        }
    })
}

fn path_of(id: &str) -> anyhow::Result<String> {
    let known = !id.is_empty() && id.len() <= 64 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    ensure!(known, "that is no id of a dead letter: see `dead-letters list`");
    Ok(routes::LETTER.replace("{id}", id))
}

fn choice(of: &LettersFilter, from: Option<&str>, to: Option<&str>) -> LetterChoice {
    LetterChoice { code: of.code.clone(), pipeline: of.pipeline.clone(), batch: of.batch, span: span(from, to) }
}

fn cells(letter: &DeadLetter, now: OffsetDateTime) -> Vec<String> {
    let created = OffsetDateTime::parse(&letter.created_at, &Rfc3339);
    let age = created.map(|at| output::age((now - at).whole_seconds())).unwrap_or_default();
    let DeadLetter { id, code, pipeline, attempts, reason, .. } = letter;
    vec![id.to_string(), code.clone(), pipeline.clone(), attempts.to_string(), age, reason.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_change_names_one_those_that_match_or_all() {
        let args = |id: Option<&str>, code: &[&str], from: Option<&str>, all: bool| LettersArgs {
            tenant: "acme".parse().unwrap(),
            id: id.map(str::to_owned),
            of: LettersFilter { code: code.iter().map(|code| (*code).to_owned()).collect(), ..Default::default() },
            from: from.map(str::to_owned),
            to: None,
            all,
            api: ApiArgs::default(),
        };
        let asked = |change, args: &LettersArgs| {
            let asked = request(change, args).ok();
            asked.map(|(method, path, body)| format!("{method} {path} {}", serde_json::to_string(&body).unwrap()))
        };
        let (one, all) = (args(Some("0198-a"), &[], None, false), args(None, &[], None, true));
        let some = args(None, &["refused"], Some("2026-01-01T00:00:00Z"), false);
        for (change, args, expected) in [
            (Change::Redrive, &one, Some("POST /api/dead-letters/0198-a/redrive null")),
            (Change::Purge, &one, Some("DELETE /api/dead-letters/0198-a null")),
            (Change::Redrive, &all, Some(r#"POST /api/dead-letters/redrive {"all":true}"#)),
            (Change::Purge, &all, Some("DELETE /api/dead-letters?all=true null")),
            (
                Change::Redrive,
                &some,
                Some(r#"POST /api/dead-letters/redrive {"filter":{"code":["refused"],"from":"2026-01-01T00:00:00Z"}}"#),
            ),
            (Change::Purge, &some, Some("DELETE /api/dead-letters?code=refused&from=2026-01-01T00%3A00%3A00Z null")),
            (Change::Purge, &args(None, &[], None, false), None),
            (Change::Purge, &args(Some("../logs"), &[], None, false), None),
        ] {
            assert_eq!(asked(change, args).as_deref(), expected);
        }
    }

    #[test]
    fn a_letter_is_a_row() {
        let letter = DeadLetter {
            id: uuid::Uuid::from_u128(0x198),
            batch_id: None,
            code: "refused".into(),
            reason: "too long".into(),
            pipeline: "default".into(),
            pipeline_generation: 1,
            accepted_at: None,
            created_at: "2026-01-01T00:00:00.5Z".into(),
            attempts: 2,
            retried_at: None,
            redrive_requested_at: None,
            redrivable: true,
            raw_bytes: 1,
            raw_path: None,
        };
        let row = "00000000-0000-0000-0000-000000000198|refused|default|2|4m|too long";
        assert_eq!(cells(&letter, datetime!(2026-01-01 00:05 UTC)).join("|"), row);
    }
}
