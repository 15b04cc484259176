//! A query that the index fails at is that query's matter: nobody else is answered without it.

use std::time::Duration;

use api::event::Source;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use reqwest::Method;
use runtime::settings::OpenSearchSettings;
use serde_json::{Value, json};
use testkit::http::Door;

use crate::house::{House, Served};

/// More than OpenSearch makes clauses of.
const WORDS: usize = 1500;

#[tokio::test]
async fn a_prefix_of_too_many_words_is_answered_and_changes_nothing_for_others() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, ..] = &house.seats[..] else { panic!("two tenants") };
    let words: String = (0..WORDS).map(|n| format!("u{n:05}x ")).collect();
    let many = json!({"message": "first secret", "full_log": words}).to_string();
    let stored = house.store(own, &[many]).await?;
    house.index(own, &stored).await?;
    let lines = ["a-uncle", "uncle of a", "another secret"].map(|text| json!({ "message": text }).to_string() + "\n");
    let stored = house.store(other, &lines).await?;
    house.index(other, &stored).await?;
    let door = Door::at(&search.url, &search.url)?;
    let (own, other) = (door.with_key(&own.key), door.with_key(&other.key));

    let page = other.search("q=a-u*").await?;
    assert_eq!((page.source, page.complete), (Source::Index, false));
    assert_eq!(page.messages(), ["uncle of a", "a-uncle"], "its words are there, not side by side");
    let page = other.search("q=a-unc*").await?;
    assert_eq!((page.complete, page.messages()), (true, vec!["a-uncle"]), "few words are looked at where they stand");
    let refusal = Door::refusal(other.request(Method::GET, "/api/search?q=secret%20-a-u*")).await?;
    assert_eq!(refusal, (400, "query_too_broad".to_owned()));
    for door in [&own, &other] {
        let page = door.search("q=secret").await?;
        assert_eq!((page.source, page.complete, page.items.len()), (Source::Index, true, 1));
    }
    house.retire().await
}

/// Answers of an OpenSearch that holds nothing.
fn nothing() -> Value {
    json!({"timed_out": false, "_shards": {"failed": 0}, "hits": {"hits": []}})
}

/// An OpenSearch that fails at queries for the words `broken`, as it is told, and `slow`.
async fn failing(at: (u16, &'static str)) -> anyhow::Result<Served> {
    async fn search(State((status, cause)): State<(u16, &'static str)>, body: String) -> Response {
        if body.contains("broken") {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
            return (status, Json(json!({"error": {"type": cause}, "status": status.as_u16()}))).into_response();
        }
        if body.contains("slow") {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Json(nothing()).into_response()
    }
    Served::start(Router::new().route("/{index}/_search", post(search)).with_state(at)).await
}

#[tokio::test]
async fn what_the_index_refuses_or_is_slow_at_is_not_asked_of_the_catalog() -> anyhow::Result<()> {
    let house = House::new().await?;
    let [own, other, ..] = &house.seats[..] else { panic!("two tenants") };
    for (status, cause, expected) in [
        (500, "too_many_clauses", Some((400, "query_too_broad"))),
        (500, "query_shard_exception", Some((400, "invalid_query"))),
        (400, "parsing_exception", Some((400, "invalid_query"))),
        (429, "rejected_execution_exception", Some((503, "overloaded"))),
        (403, "security_exception", Some((503, "store_unavailable"))),
        (500, "null_pointer_exception", Some((503, "store_unavailable"))),
        // No index, or none that answers: that is not the query's fault.
        (404, "index_not_found_exception", None),
        (503, "no_shard_available_action_exception", None),
    ] {
        let index = failing((status, cause)).await?;
        let search =
            house.search_with(&OpenSearchSettings { url: index.url.parse()?, opensearch_credentials: None }).await?;
        let door = Door::at(&search.url, &search.url)?;
        let (own, other) = (door.with_key(&own.key), door.with_key(&other.key));
        match expected {
            Some((status, code)) => {
                let refusal = Door::refusal(own.request(Method::GET, "/api/search?q=broken")).await?;
                assert_eq!(refusal, (status, code.to_owned()), "{cause}");
            }
            None => assert_eq!(own.search("q=broken").await?.source, Source::Scan, "{cause}"),
        }
        for door in [&own, &other] {
            assert_eq!(door.search("q=fine").await?.source, Source::Index, "{cause}");
        }
    }

    let index = failing((500, "")).await?;
    let search =
        house.search_with(&OpenSearchSettings { url: index.url.parse()?, opensearch_credentials: None }).await?;
    let door = Door::at(&search.url, &search.url)?;
    let (own, other) = (door.with_key(&own.key), door.with_key(&other.key));
    let slow = own.request(Method::GET, "/api/search?q=slow");
    let (refusal, meanwhile) = tokio::join!(Door::refusal(slow), other.search("q=fine"));
    assert_eq!(refusal?, (503, "query_timeout".to_owned()));
    assert_eq!(meanwhile?.source, Source::Index);
    for door in [&own, &other] {
        assert_eq!(door.search("q=fine").await?.source, Source::Index, "the index answers, so it is asked");
    }
    house.retire().await
}
