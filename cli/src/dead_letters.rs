//! `dead-letters`: lines that could not be events; to read, to try again, to give up.

use anyhow::{Context, bail, ensure};
use crds::TenantName;
use crds::tenant::Scope;
use hyper::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::{ApiArgs, DeadLettersCommand, Global, LettersArgs, LettersFilter, Output};
use crate::door::Door;
use crate::output;
use crate::search::{encoded, page_pairs, print, text};

/// Most requests of one redrive or purge; each takes up to 10,000 letters.
const REQUESTS: usize = 1_000;

/// Does what is asked for.
pub async fn run(global: &Global, command: DeadLettersCommand) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List { tenant, of, page, api } => {
            let mut pairs = page_pairs(&page);
            pairs.extend(filter_pairs(&of));
            let path = format!("/api/dead-letters?{}", encoded(&pairs));
            let page = read(global, &api, &tenant).await?.request(Method::GET, &path, None).await?;
            let now = OffsetDateTime::now_utc();
            print(global.output, &page, &["ID", "CODE", "PIPELINE", "ATTEMPTS", "AGE", "REASON"], |letter| {
                cells(letter, now)
            })
        }
        DeadLettersCommand::Show { tenant, id, api } => {
            let letter = read(global, &api, &tenant).await?.request(Method::GET, &path_of(&id)?, None).await?;
            output::json(&letter)
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
    let (method, path, body) = request(change, &args)?;
    let door = Door::open(global, &args.api, &args.tenant, Scope::Admin).await?;
    let counted = if change == Change::Redrive { "marked" } else { "purged" };
    let mut count = 0;
    for _ in 0..REQUESTS {
        let answer = door.request(method.clone(), &path, body.as_ref()).await;
        let answer = answer.with_context(|| format!("after {count} were {counted}"))?;
        count += answer[counted].as_u64().unwrap_or_default();
        if answer["more"] != true {
            return match global.output {
                Output::Json => output::json(&json!({counted: count})),
                Output::Table => output::text(&format!("{count} {counted}\n")),
            };
        }
    }
    bail!("{count} {counted}, and there are more: ask again")
}

fn request(change: Change, args: &LettersArgs) -> anyhow::Result<(Method, String, Option<Value>)> {
    let mut pairs = filter_pairs(&args.of);
    let span = [("from", &args.from), ("to", &args.to)];
    pairs.extend(span.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    ensure!(args.id.is_some() || args.all || !pairs.is_empty(), "name one by its id, filter them, or say --all");
    let base = match &args.id {
        Some(id) => path_of(id)?,
        None => "/api/dead-letters".to_owned(),
    };
    if change == Change::Redrive {
        let filter = json!({"code": args.of.code, "pipeline": args.of.pipeline, "batch": args.of.batch,
            "from": args.from, "to": args.to});
        let body = if args.all { json!({"all": true}) } else { json!({"filter": given(filter)}) };
        return Ok((Method::POST, format!("{base}/redrive"), args.id.is_none().then_some(body)));
    }
    if args.all {
        pairs.push(("all", "true".to_owned()));
    }
    let query = if args.id.is_some() { String::new() } else { format!("?{}", encoded(&pairs)) };
    Ok((Method::DELETE, format!("{base}{query}"), None))
}

/// Without what was not asked for.
fn given(filter: Value) -> Value {
    let fields = filter.as_object().cloned().unwrap_or_default();
    fields.into_iter().filter(|(_, value)| !value.is_null() && *value != json!([])).collect()
}

fn path_of(id: &str) -> anyhow::Result<String> {
    let known = !id.is_empty() && id.len() <= 64 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    ensure!(known, "that is no id of a dead letter: see `dead-letters list`");
    Ok(format!("/api/dead-letters/{id}"))
}

fn filter_pairs(of: &LettersFilter) -> Vec<(&'static str, String)> {
    let codes = of.code.iter().map(|code| ("code", code.clone()));
    let pipelines = of.pipeline.iter().map(|pipeline| ("pipeline", pipeline.clone()));
    codes.chain(pipelines).chain(of.batch.iter().map(|batch| ("batch", batch.clone()))).collect()
}

fn cells(letter: &Value, now: OffsetDateTime) -> Vec<String> {
    let created = OffsetDateTime::parse(letter["created_at"].as_str().unwrap_or_default(), &Rfc3339);
    let age = created.map(|at| output::age((now - at).whole_seconds())).unwrap_or_default();
    let [id, code, pipeline, attempts, reason] =
        ["id", "code", "pipeline", "attempts", "reason"].map(|field| text(letter, field));
    vec![id, code, pipeline, attempts, age, reason]
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
            asked.map(|(method, path, body)| format!("{method} {path} {}", body.unwrap_or_default()))
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
        let letter = json!({"id": "0198", "code": "refused", "pipeline": "default", "attempts": 2,
            "created_at": "2026-01-01T00:00:00.5Z", "reason": "too long"});
        assert_eq!(cells(&letter, datetime!(2026-01-01 00:05 UTC)).join("|"), "0198|refused|default|2|4m|too long");
    }
}
