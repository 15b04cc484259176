//! Dead letters: listed, read as they were sent, marked, purged.

use dataplane::queue::entry::Undecodable;
use dataplane::stores::catalog::{Catalog, Provenance};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::Door;

use crate::house::{House, Seat};

async fn ask(door: &Door, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<(u16, Value)> {
    let request = door.request(method, path);
    let response = if let Some(body) = body { request.json(&body) } else { request }.send().await?;
    let (status, answer) = (response.status().as_u16(), response.json::<Value>().await?);
    Ok((status, if answer["error"].is_null() { answer } else { answer["error"]["code"].clone() }))
}

async fn execute(house: &House, seat: &Seat, statement: &str) -> anyhow::Result<()> {
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let statement = statement.replace("{}", &seat.tenant.name().database_schema());
    sqlx::raw_sql(&statement).execute(&admin).await?;
    Ok(())
}

/// Ids of a list's items.
fn ids(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_filtered_and_paged() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let own = &house.seats[0];
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let lines: Vec<String> = (0..7).map(|n| format!("broken {n}")).chain([r#"{"message":"good"}"#.into()]).collect();
    let first = house.store(own, &lines).await?;
    let second = house.store(own, &lines[..2]).await?;
    execute(
        &house,
        own,
        &format!(
        "UPDATE {{}}.dead_letters SET code = 'refused', pipeline = 'fast', created_at = created_at - interval '1 hour'
         WHERE event_id = '{}'", first.batch.dead_letters[0].id),
    )
    .await?;

    let (_, all) = ask(&door, Method::GET, "/api/dead-letters", None).await?;
    assert_eq!((ids(&all).len(), &all["source"], &all["complete"]), (9, &json!("catalog"), &json!(true)));
    let oldest = first.batch.dead_letters[0].id.to_string();
    assert_eq!(ids(&all)[8], oldest, "newest first");
    let letter = &all["items"][0];
    assert_eq!(
        (&letter["code"], &letter["pipeline"], &letter["attempts"], &letter["redrivable"]),
        (&json!("invalid_json"), &json!("default"), &json!(1), &json!(true)),
        "{letter}"
    );
    assert!(letter["created_at"].is_string() && letter["accepted_at"].is_string() && letter["reason"].is_string());

    let mut paged: Vec<String> = Vec::new();
    let mut path = "/api/dead-letters?limit=4".to_owned();
    loop {
        let (_, page) = ask(&door, Method::GET, &path, None).await?;
        paged.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/dead-letters?limit=4&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, ids(&all), "page by page");

    let now = "2026-01-01T00:00:00Z";
    for (query, found) in [
        ("code=refused".to_owned(), 1),
        ("code=refused,invalid_json".to_owned(), 9),
        ("code=nonsense".to_owned(), 0),
        ("pipeline=fast".to_owned(), 1),
        ("pipeline=default&code=refused".to_owned(), 0),
        (format!("batch={}", second.batch.batch_id), 2),
        (format!("from={now}"), 9),
        (format!("to={now}"), 0),
    ] {
        let (_, page) = ask(&door, Method::GET, &format!("/api/dead-letters?{query}"), None).await?;
        assert_eq!(ids(&page).len(), found, "{query}");
    }
    for (query, code) in
        [("limit=0", "invalid_parameter"), ("cursor=x", "invalid_cursor"), ("q=x", "invalid_parameter")]
    {
        assert_eq!(ask(&door, Method::GET, &format!("/api/dead-letters?{query}"), None).await?, (400, json!(code)));
    }
    house.retire().await
}

#[tokio::test]
async fn a_dead_letter_shows_the_bytes_that_were_sent() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let own = &house.seats[0];
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let admin = door.with_key(&own.admin);
    let long = format!("long {}", "ü".repeat(600_000));
    let stored = house.store(own, &["né broken".to_owned(), long.clone()]).await?;
    let path = |n: usize| format!("/api/dead-letters/{}", stored.batch.dead_letters[n].id);
    let (status, letter) = ask(&door, Method::GET, &path(0), None).await?;
    assert_eq!(status, 200);
    assert_eq!(
        (&letter["raw"], &letter["encoding"], &letter["source"], &letter["complete"]),
        (&json!("né broken"), &json!("utf-8"), &json!("spool"), &json!(true))
    );
    let (_, letter) = ask(&door, Method::GET, &path(1), None).await?;
    assert_eq!((&letter["complete"], &letter["raw_bytes"]), (&json!(false), &json!(long.len())), "1 MiB is shown");

    // What could not be read at all is shown as it lay in the queue; it has no line to try again.
    let undecodable = Undecodable {
        reason: "no version",
        tenant: Some(own.tenant.name().clone()),
        fields: vec![(b"p".to_vec(), vec![0xff, 0xfe])],
    };
    let from = Provenance { pipeline: "default".into(), generation: 1 };
    Catalog::new(house.pool.clone()).keep_undecodable(&own.tenant, "1-0", &undecodable, &from).await?;
    let (_, page) = ask(&door, Method::GET, "/api/dead-letters?code=undecodable", None).await?;
    let path = format!("/api/dead-letters/{}", ids(&page)[0]);
    let (_, letter) = ask(&door, Method::GET, &path, None).await?;
    assert_eq!(
        (&letter["encoding"], &letter["complete"], &letter["batch_id"]),
        (&json!("base64"), &json!(true), &Value::Null)
    );
    let (redrive, one) = (format!("{path}/redrive"), Some(json!({"ids": [ids(&page)[0]]})));
    assert_eq!(ask(&admin, Method::POST, &redrive, None).await?, (409, json!("not_redrivable")));
    let marked = ask(&admin, Method::POST, "/api/dead-letters/redrive", one).await?;
    assert_eq!(marked, (202, json!({"marked": 0, "more": false})));
    for (method, path) in [
        (Method::GET, "/api/dead-letters/nonsense"),
        (Method::GET, "/api/dead-letters/00000000-0000-0000-0000-000000000000"),
    ] {
        assert_eq!(ask(&door, method, path, None).await?, (404, json!("not_found")));
    }
    house.retire().await
}

#[tokio::test]
async fn letters_are_marked_and_purged_by_id_by_filter_or_all() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let own = &house.seats[0];
    let reader = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let admin = reader.with_key(&own.admin);
    let lines: Vec<String> = (0..6).map(|n| format!("broken {n}")).collect();
    let stored = house.store(own, &lines).await?;
    let id = |n: usize| stored.batch.dead_letters[n].id.to_string();
    let marked = |n: u64| (202, json!({"marked": n, "more": false}));
    let purged = |n: u64| (200, json!({"purged": n, "more": false}));
    let redrive = async |body: Value| ask(&admin, Method::POST, "/api/dead-letters/redrive", Some(body)).await;

    assert_eq!(ask(&admin, Method::POST, &format!("/api/dead-letters/{}/redrive", id(0)), None).await?, marked(1));
    assert_eq!(redrive(json!({"ids": [id(0), id(1)]})).await?, marked(1), "one waits already");
    assert_eq!(redrive(json!({"filter": {"code": "refused"}})).await?, marked(0));
    assert_eq!(redrive(json!({"filter": {"batch": stored.batch.batch_id}})).await?, marked(4));
    assert_eq!(redrive(json!({"all": true})).await?, marked(0));
    let (_, letter) = ask(&reader, Method::GET, &format!("/api/dead-letters/{}", id(3)), None).await?;
    assert!(letter["redrive_requested_at"].is_string(), "{letter}");
    for wrong in [json!({}), json!({"all": false}), json!({"ids": []}), json!({"tenant": "x"})] {
        assert_eq!(redrive(wrong.clone()).await?, (400, json!("invalid_parameter")), "{wrong}");
    }
    let long = Some(json!({"ids": vec![id(0); 3000]}));
    assert_eq!(ask(&admin, Method::POST, "/api/dead-letters/redrive", long).await?, (413, json!("body_too_large")));

    let one = format!("/api/dead-letters/{}", id(0));
    assert_eq!(ask(&admin, Method::DELETE, &one, None).await?, purged(1));
    for (method, path) in [(Method::DELETE, one.clone()), (Method::POST, format!("{one}/redrive"))] {
        assert_eq!(ask(&admin, method, &path, None).await?, (404, json!("not_found")), "it is purged");
    }
    assert_eq!(ask(&reader, Method::GET, &one, None).await?, (404, json!("not_found")));
    assert_eq!(ask(&admin, Method::DELETE, "/api/dead-letters", None).await?, (400, json!("invalid_parameter")));
    assert_eq!(ask(&admin, Method::DELETE, "/api/dead-letters?code=refused", None).await?, purged(0));
    assert_eq!(ask(&admin, Method::DELETE, "/api/dead-letters?all=true", None).await?, purged(5));
    assert!(ids(&ask(&reader, Method::GET, "/api/dead-letters", None).await?.1).is_empty());

    // A schema of the version before has no place for any of this: the client is told to wait.
    execute(&house, own, "ALTER TABLE {}.dead_letters DROP COLUMN purged_at").await?;
    assert_eq!(ask(&reader, Method::GET, "/api/dead-letters", None).await?, (503, json!("schema_upgrading")));
    house.retire().await
}
