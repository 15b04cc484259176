//! `search`: a tenant's events, newest first.

use crds::tenant::Scope;
use hyper::Method;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::args::{Global, Output, PageArgs, SearchArgs};
use crate::door::Door;
use crate::output::{self, table};

/// Finds and prints them.
pub async fn run(global: &Global, args: SearchArgs) -> anyhow::Result<()> {
    let door = Door::open(global, &args.api, &args.tenant, Scope::Query).await?;
    let page = door.request(Method::GET, &path(&args), None).await?;
    print(global.output, &page, &["TIME", "LEVEL", "SERVICE", "MESSAGE"], |event| {
        ["timestamp", "level", "service", "message"].map(|field| text(event, field)).to_vec()
    })
}

fn path(args: &SearchArgs) -> String {
    let query = args.query.join(" ");
    let mut pairs = page_pairs(&args.page);
    pairs.extend(args.service.iter().map(|service| ("service", service.clone())));
    pairs.extend(args.level.iter().map(|level| ("level", level.clone())));
    if query.is_empty() {
        return format!("/api/logs?{}", encoded(&pairs));
    }
    pairs.push(("q", query));
    format!("/api/search?{}", encoded(&pairs))
}

/// The parameters of a page.
pub(crate) fn page_pairs(page: &PageArgs) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("limit", page.limit.to_string())];
    let given = [("from", &page.from), ("to", &page.to), ("cursor", &page.cursor)];
    pairs.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    pairs
}

/// Parameters as they stand in a URL.
pub(crate) fn encoded(pairs: &[(&str, String)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// A field of an event or letter, as text.
pub(crate) fn text(item: &Value, field: &str) -> String {
    match &item[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Prints a page as the API gave it, or in columns; what a table can't say goes to standard error.
pub(crate) fn print(
    output: Output,
    page: &Value,
    header: &[&str],
    cells: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    if output == Output::Json {
        return output::json(page);
    }
    let rows: Vec<_> = page["items"].as_array().into_iter().flatten().map(cells).collect();
    if rows.is_empty() {
        eprintln!("nothing found");
    } else {
        output::text(&table(header, &rows))?;
    }
    if let Some(notice) = page["notice"].as_str() {
        eprintln!("note: {}", output::harmless(notice));
    }
    if let Some(cursor) = page["next_cursor"].as_str() {
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
        let rest = "limit=5&to=2026-01-31T12%3A00%3A00%2B01%3A00&service=a%26b&service=c";
        assert_eq!(path(&args(&[])), format!("/api/logs?{rest}"));
        assert_eq!(path(&args(&["payment", "\"no way\""])), format!("/api/search?{rest}&q=payment+%22no+way%22"));
    }
}
