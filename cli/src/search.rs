//! `search`: a tenant's events, page by page, and then as they are stored.

use std::collections::HashSet;

use api::event::{Item, Listing};
use api::parameters::{self, EventChoice, List, MAX_LIMIT, Ordered, Paging, Search, Span};
use api::routes;
use crds::tenant::Scope;
use hyper::Method;
use serde::Serialize;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use crate::args::{EventArgs, Global, Order, Output, PageArgs, SearchArgs, TimeArgs};
use crate::door::{Answer, Door};
use crate::output::{self, table};
use crate::{export, tail};

/// Finds and prints them.
pub async fn run(global: &Global, args: SearchArgs) -> anyhow::Result<()> {
    if args.follow {
        return tail::follow(global, args).await;
    }
    if matches!(global.output, Output::Ndjson | Output::Csv | Output::Text) {
        return export::some(global, args).await;
    }
    let door = Door::open(global, &args.api, &args.tenant, Scope::Query).await?;
    let mut paging = Paging { limit: Some(args.limit.min(MAX_LIMIT)), cursor: args.time.cursor.clone() };
    let mut page = request(&door, &args, &paging).await?;
    let (mut all, mut notice) = (std::mem::take(&mut page.value.items), page.value.notice.take());
    let is_one_page = args.limit <= MAX_LIMIT;
    // A page may have fewer events than were asked for, and others after it.
    while let Some(next) = page.value.next_cursor.clone().filter(|_| !is_one_page)
        && let left @ 1.. = args.limit - u32::try_from(all.len()).unwrap_or(args.limit).min(args.limit)
    {
        paging = Paging { limit: Some(left.min(MAX_LIMIT)), cursor: Some(next) };
        page = request(&door, &args, &paging).await?;
        all.append(&mut page.value.items);
        notice = notice.or(page.value.notice.take());
    }
    if global.output == Output::Json {
        let listing = page.value;
        return match is_one_page {
            // As it came: with fields of a later version.
            true => output::json(&page.json),
            false => output::json(&Listing { items: all, complete: notice.is_none(), notice, ..listing }),
        };
    }
    let rows = all.into_iter().map(|event| vec![event.timestamp, event.level, event.service, event.message]).collect();
    let header = &["TIME", "LEVEL", "SERVICE", "MESSAGE"];
    show(Shown { header, rows, notice: notice.as_deref(), next_cursor: page.value.next_cursor })
}

/// The newest events, the oldest of them first.
pub(crate) async fn newest(door: &Door, args: &SearchArgs) -> anyhow::Result<(Vec<Item>, HashSet<Uuid>)> {
    let paging = Paging { limit: Some(args.limit.min(MAX_LIMIT)), cursor: None };
    let Listing { mut items, notice, .. } = request(door, args, &paging).await?.value;
    if let Some(notice) = notice {
        eprintln!("note: {}", output::harmless(&notice));
    }
    items.reverse();
    let ids = items.iter().map(|item| item.id).collect();
    Ok((items, ids))
}

async fn request(door: &Door, args: &SearchArgs, paging: &Paging) -> anyhow::Result<Answer<Listing>> {
    door.request(Method::GET, &path(args, paging), None).await
}

fn path(args: &SearchArgs, paging: &Paging) -> String {
    let (paging, ordered, span) = (paging.clone(), ordered(&args.time), span_of(&args.time));
    let events = choice(&args.events);
    match query(&args.events) {
        None => with_query(routes::LIST, &List { paging, ordered, span, events, text: None }),
        Some(q) => with_query(routes::SEARCH, &Search { q, paging, ordered, span, events }),
    }
}

/// The words of a query.
pub(crate) fn query(events: &EventArgs) -> Option<String> {
    Some(events.query.join(" ")).filter(|query| !query.is_empty())
}

/// Which events besides.
pub(crate) fn choice(events: &EventArgs) -> EventChoice {
    EventChoice { service: events.service.clone(), level: events.level.clone() }
}

/// In which order; what is not said is not sent.
pub(crate) fn ordered(time: &TimeArgs) -> Ordered {
    let order = match time.order {
        Order::Newest => None,
        Order::Oldest => Some(parameters::Order::Oldest),
    };
    Ordered { order }
}

/// Which time.
pub(crate) fn span_of(time: &TimeArgs) -> Span {
    span(time.from.as_deref(), time.to.as_deref())
}

/// Which page.
pub(crate) fn paging(page: &PageArgs) -> Paging {
    Paging { limit: Some(page.limit), cursor: page.cursor.clone() }
}

/// Which time.
pub(crate) fn span(from: Option<&str>, to: Option<&str>) -> Span {
    Span { from: from.map(str::to_owned), since: None, to: to.map(str::to_owned) }
}

/// A path with parameters.
pub(crate) fn with_query(path: &str, parameters: &impl Serialize) -> String {
    let query = Serializer::new(String::new()).extend_pairs(parameters::pairs(parameters)).finish();
    format!("{path}?{query}")
}

/// What of a page is shown as a table.
pub(crate) struct Shown<'a> {
    pub(crate) header: &'a [&'a str],
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) notice: Option<&'a str>,
    pub(crate) next_cursor: Option<String>,
}

/// Prints a page as the API gave it, or in columns.
pub(crate) fn print(output: Output, page: &stages::Value, shown: Shown<'_>) -> anyhow::Result<()> {
    if output == Output::Json {
        return output::json(page);
    }
    show(shown)
}

/// Prints columns; what a table can't say goes to standard error.
fn show(shown: Shown<'_>) -> anyhow::Result<()> {
    if shown.rows.is_empty() {
        eprintln!("nothing found");
    } else {
        output::text(&table(shown.header, &shown.rows))?;
    }
    if let Some(notice) = shown.notice {
        eprintln!("note: {}", output::harmless(notice));
    }
    if let Some(cursor) = shown.next_cursor {
        eprintln!("there are more: --cursor {cursor}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_searched_for_and_no_query_is_a_list() {
        let args = |query: &[&str], order| SearchArgs {
            tenant: "acme".parse().unwrap(),
            events: EventArgs {
                query: query.iter().map(|word| (*word).to_owned()).collect(),
                service: vec!["a&b".to_owned(), "c".to_owned()],
                level: vec![],
            },
            time: TimeArgs { to: Some("2026-01-31T12:00:00+01:00".to_owned()), order, ..TimeArgs::default() },
            limit: 5,
            follow: false,
            api: Default::default(),
        };
        let paging = Paging { limit: Some(5), cursor: None };
        let rest = "service=a%26b&service=c&to=2026-01-31T12%3A00%3A00%2B01%3A00";
        assert_eq!(path(&args(&[], Order::Newest), &paging), format!("/api/logs?limit=5&{rest}"));
        let found = format!("/api/search?limit=5&order=oldest&q=payment+%22no+way%22&{rest}");
        assert_eq!(path(&args(&["payment", "\"no way\""], Order::Oldest), &paging), found);
    }
}
