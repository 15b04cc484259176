//! What queries find, in the index, in the lines and in rows alone; and what is said of them.

use api::Refusal;
use api::event::Source;
use api::explain::Explanation;
use reqwest::Method;
use testkit::http::Door;

use super::detail::archive;
use crate::house::House;

/// Each message is one word longer than what tells it apart.
fn lines() -> Vec<String> {
    [
        r#"{"service":"api","level":"error","message":"alpha connection reset by peer","metadata":{"user":{"id":42}},"host":"web-1"}"#,
        r#"{"service":"api","level":"info","message":"beta Connection closed","application":"shop"}"#,
        r#"{"service":"web","level":"warning","message":"gamma timeout 100%","full_log":"deep stack trace\nat hidden.Line"}"#,
        r#"{"service":"my service","level":"info","message":"delta reset of the connection","language":"java"}"#,
    ]
    .map(|line| format!("{line}\n"))
    .to_vec()
}

/// The first words of what a query finds, in the order of the alphabet.
async fn found(door: &Door, query: &str, from: (Source, bool)) -> anyhow::Result<String> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let page = door.search(&format!("q={encoded}")).await?;
    assert_eq!((page.source, page.complete), from, "{query}: {:?}", page.notice);
    let mut words: Vec<_> = page.messages().iter().filter_map(|message| message.split(' ').next()).collect();
    words.sort_unstable();
    Ok(words.join(" "))
}

#[tokio::test]
async fn a_query_finds_what_it_says_with_and_without_the_index_and_what_it_can_without_lines() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let rows_alone = house.search_without_index_and_archive().await?;
    let own = &house.seats[0];
    let stored = house.store(own, &lines()).await?;
    house.index(own, &stored).await?;
    archive(&house, own, &stored).await?;
    let with = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let without = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let rows_alone = Door::at(&rows_alone.url, &rows_alone.url)?.with_key(&own.key);

    for (query, expected, of_rows) in [
        ("connection", "alpha beta delta", "alpha beta delta"),
        ("CONNECTION reset", "alpha delta", "alpha delta"),
        ("\"connection reset\"", "alpha", "alpha"),
        // What is not in a message may be in the rest of the event, which a row does not hold.
        ("connection -reset", "beta", ""),
        // A word is a word, not a part of one.
        ("reset tion", "", ""),
        ("closed OR timeout", "beta gamma", "beta gamma"),
        ("connection (closed OR peer)", "alpha beta", "alpha beta"),
        ("timeou*", "gamma", "gamma"),
        ("level:warn", "gamma", "gamma"),
        ("service:api level:error", "alpha", "alpha"),
        ("service:\"my service\"", "delta", "delta"),
        ("service:ap*", "alpha beta", "alpha beta"),
        ("-application:shop", "alpha delta gamma", "alpha delta gamma"),
        ("language:java", "delta", "delta"),
        ("nothing", "", ""),
        ("level:error or level:warn", "alpha gamma", "alpha gamma"),
        ("level:error,warn", "alpha gamma", "alpha gamma"),
        ("level:>=warn", "alpha gamma", "alpha gamma"),
        ("!timeout", "alpha beta delta", ""),
        ("user.id:>41", "alpha", ""),
        ("metadata.user.id:>=43", "", ""),
        ("@host:*b-1", "alpha", ""),
        ("-host:*", "beta delta gamma", ""),
        ("connection - reset", "alpha delta", "alpha delta"),
        // Where a row can't know, it neither finds nor excludes.
        ("stack", "gamma", ""),
        ("\"deep stack trace\"", "gamma", ""),
        ("metadata.user.id:42", "alpha", ""),
        ("-metadata.user.id:42", "beta delta gamma", ""),
        ("attributes.host:web*", "alpha", ""),
        // What stores take for patterns of their own.
        ("\"100%\"", "gamma", "gamma"),
        ("\"c_nnection\"", "", ""),
        ("\"con%tion\"", "", ""),
    ] {
        let asks_lines = query::parse(query)?.asks_for_the_whole();
        let scan = (if asks_lines { Source::Scan } else { Source::Catalog }, true);
        let rows = (Source::Catalog, !asks_lines);
        assert_eq!(found(&with, query, (Source::Index, true)).await?, expected, "{query} in the index");
        assert_eq!(found(&without, query, scan).await?, expected, "{query} in the lines");
        assert_eq!(found(&rows_alone, query, rows).await?, of_rows, "{query} in the rows");
    }

    for (path, code) in [
        ("/api/search?q=%28", (400, "invalid_query")),
        ("/api/search?q=tenant%3Aother", (400, "invalid_query")),
        ("/api/search", (400, "invalid_parameter")),
        ("/api/logs?tenant=other", (400, "invalid_parameter")),
        ("/api/logs?cursor=x", (400, "invalid_cursor")),
        ("/api/logs/nonsense", (404, "not_found")),
        ("/api/nonsense", (404, "not_found")),
    ] {
        let refusal = Door::refusal(with.request(reqwest::Method::GET, path)).await?;
        assert_eq!(refusal, (code.0, code.1.to_owned()), "{path}");
    }
    house.retire().await
}

#[tokio::test]
async fn what_waits_for_the_index_is_found_in_its_lines() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let own = &house.seats[0];
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let stored = house.store(own, &["{\"message\":\"late\"}".to_owned()]).await?;
    let schema = own.tenant.name().database_schema();
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let age = format!("UPDATE {schema}.batches SET stored_at = now() - interval '1 minute'");
    sqlx::query(&age).execute(&admin).await?;

    let page = door.search("q=late").await?;
    assert_eq!((page.items.len(), page.complete, page.source), (1, true, Source::IndexAndScan));
    assert_eq!(page.scanned.map(|scanned| (scanned.events, scanned.bytes)), Some((1, 18)));
    assert_eq!(door.search("q=never").await?.items.len(), 0);
    house.index(own, &stored).await?;
    let page = door.search("q=late").await?;
    assert_eq!((page.items.len(), page.complete, page.source, page.scanned), (1, true, Source::Index, None));
    house.retire().await
}

#[tokio::test]
async fn a_query_is_explained_or_refused_with_its_place_and_what_may_be_meant() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&house.seats[0].key);
    let ask = async |path: &str, q: &str| door.request(Method::GET, path).query(&[("q", q)]).send().await;

    let said: Explanation = ask("/api/explain", "level:>=warn a or b").await?.error_for_status()?.json().await?;
    assert!(said.text.contains("level is WARN or ERROR or FATAL"), "{}", said.text);
    assert_eq!(said.hints.iter().map(|hint| hint.query.as_str()).collect::<Vec<_>>(), ["level:>=warn a OR b"]);
    assert_eq!(said.tokens.len(), 5);

    for path in ["/api/search", "/api/explain"] {
        let response = ask(path, "first (second").await?;
        assert_eq!(response.status(), 400, "{path}");
        let Refusal { error } = response.json().await?;
        assert_eq!((error.code.as_str(), error.position, error.length), ("invalid_query", Some(6), Some(1)), "{path}");
        assert_eq!(error.repairs, ["first (second)"], "{path}");
    }
    house.retire().await
}
