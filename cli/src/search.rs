//! `search`: a tenant's events, newest first.

use api::event::Listing;
use api::parameters::{self, EventChoice, List, Ordered, Paging, Search, Span};
use api::routes;
use crds::tenant::Scope;
use hyper::Method;
use serde::Serialize;
use url::form_urlencoded::Serializer;

use crate::args::{Global, Output, PageArgs, SearchArgs};
use crate::door::Door;
use crate::output::{self, table};

/// Finds and prints them.
pub async fn run(global: &Global, args: SearchArgs) -> anyhow::Result<()> {
    let door = Door::open(global, &args.api, &args.tenant, Scope::Query).await?;
    let page = door.request::<Listing>(Method::GET, &path(&args), None).await?;
    let Listing { items, next_cursor, notice, .. } = page.value;
    let rows =
        items.into_iter().map(|event| vec![event.timestamp, event.level, event.service, event.message]).collect();
    let header = &["TIME", "LEVEL", "SERVICE", "MESSAGE"];
    print(global.output, &page.json, Shown { header, rows, notice: notice.as_deref(), next_cursor })
}

fn path(args: &SearchArgs) -> String {
    let q = args.query.join(" ");
    let (paging, span) = (paging(&args.page), span(args.page.from.as_deref(), args.page.to.as_deref()));
    let events = EventChoice { service: args.service.clone(), level: args.level.clone() };
    if q.is_empty() {
        return with_query(routes::LIST, &List { paging, ordered: Ordered::default(), span, events, text: None });
    }
    with_query(routes::SEARCH, &Search { q, paging, ordered: Ordered::default(), span, events })
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

/// Prints a page as the API gave it, or in columns; what a table can't say goes to standard error.
pub(crate) fn print(output: Output, page: &stages::Value, shown: Shown<'_>) -> anyhow::Result<()> {
    if output == Output::Json {
        return output::json(page);
    }
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
        let args = |query: &[&str]| SearchArgs {
            tenant: "acme".parse().unwrap(),
            query: query.iter().map(|word| (*word).to_owned()).collect(),
            service: vec!["a&b".to_owned(), "c".to_owned()],
            level: vec![],
            page: PageArgs { limit: 5, to: Some("2026-01-31T12:00:00+01:00".to_owned()), ..PageArgs::default() },
            api: Default::default(),
        };
        let rest = "service=a%26b&service=c&to=2026-01-31T12%3A00%3A00%2B01%3A00";
        assert_eq!(path(&args(&[])), format!("/api/logs?limit=5&{rest}"));
        let found = format!("/api/search?limit=5&q=payment+%22no+way%22&{rest}");
        assert_eq!(path(&args(&["payment", "\"no way\""])), found);
    }
}
