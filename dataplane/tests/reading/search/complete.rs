//! What an answer says of itself when something is missing from it.

use api::event::{Listing, Source};
use crds::PipelineName;
use crds::names::{CONSUMER_GROUP, HELD_PIPELINES};
use opensearch::DeleteParts;
use opensearch::UpdateParts;
use opensearch::params::Refresh;
use runtime::stores::Connection;
use serde_json::json;
use testkit::http::Door;

use crate::house::{House, Seat, Served, Stored, now};

/// An answer: how many events, whether that is all, and what is said of it.
async fn told(search: &Served, seat: &Seat, path: &str) -> anyhow::Result<(usize, bool, String)> {
    let door = Door::at(&search.url, &search.url)?.with_key(&seat.key);
    let answer: Listing = door.request(reqwest::Method::GET, path).send().await?.error_for_status()?.json().await?;
    Ok((answer.items.len(), answer.complete, answer.notice.unwrap_or_default().into_owned()))
}

/// The messages of a page that is complete, and where they are from.
async fn found(search: &Served, seat: &Seat, query: &str) -> anyhow::Result<(Vec<String>, Source)> {
    let page = Door::at(&search.url, &search.url)?.with_key(&seat.key).search(query).await?;
    anyhow::ensure!(page.complete, "{query}: {:?}", page.notice);
    Ok((page.messages().into_iter().map(str::to_owned).collect(), page.source))
}

/// Stores and indexes one event, as if that had been an hour ago.
async fn long_indexed(house: &House, seat: &Seat, line: &str) -> anyhow::Result<Stored> {
    indexed_of_age(house, seat, line, 0).await
}

/// The same of one that was accepted so many seconds ago.
async fn indexed_of_age(house: &House, seat: &Seat, line: &str, seconds: i64) -> anyhow::Result<Stored> {
    let stored = house.store_accepted_at(seat, &[line.to_owned()], now() - seconds * 1_000_000).await?;
    house.index(seat, &stored).await?;
    let schema = seat.tenant.name().database_schema();
    let age = format!("UPDATE {schema}.batches SET indexed_at = now() - interval '1 hour'");
    sqlx::query(&age).execute(&house.stores.postgres(crds::names::PROCESSOR_DATABASE)?).await?;
    Ok(stored)
}

async fn lose(house: &House, stored: &Stored) -> anyhow::Result<()> {
    let client = house.stores.opensearch()?;
    for event in &stored.batch.events {
        let id = event.id.to_string();
        let delete = client.delete(DeleteParts::IndexId(&stored.index_name, &id)).refresh(Refresh::True);
        anyhow::ensure!(delete.send().await?.status_code().is_success());
    }
    Ok(())
}

#[tokio::test]
async fn a_search_finds_what_the_index_has_dropped_or_lost() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    // So far apart that each is looked for.
    let first = indexed_of_age(&house, own, r#"{"message":"needle one"}"#, 60).await?;
    let second = indexed_of_age(&house, own, r#"{"message":"needle two"}"#, 35).await?;
    let third = indexed_of_age(&house, own, r#"{"message":"needle three"}"#, 12).await?;
    // A door of its own each time: what the index holds is found out once in some seconds.
    let search = async || house.search().await;
    let all = ["needle three", "needle two", "needle one"].map(str::to_owned);
    let newest = |count: usize| all[..count].to_vec();
    assert_eq!(found(&search().await?, own, "q=needle").await?, (newest(3), Source::Index));

    // As an index that was dropped because it was cold; for how long it is kept now does not matter.
    lose(&house, &first).await?;
    assert_eq!(found(&search().await?, own, "q=needle").await?, (newest(3), Source::IndexAndScan));
    let since = format!("q=needle&from={}", dataplane::event::rfc3339(second.batch.accepted_at));
    assert_eq!(found(&search().await?, own, &since).await?, (newest(2), Source::Index));
    assert_eq!(found(&search().await?, own, "q=needle&limit=1").await?, (newest(1), Source::Index), "a full page");

    // As an index that was lost and is there again, empty.
    lose(&house, &third).await?;
    assert_eq!(found(&search().await?, own, &since).await?, (newest(2), Source::IndexAndScan));
    lose(&house, &second).await?;
    assert_eq!(found(&search().await?, own, "q=needle").await?, (newest(3), Source::IndexAndScan));
    assert_eq!(told(&search().await?, own, "/api/logs").await?, (3, true, String::new()));

    // What can't be found then is said.
    let stored = [&first, &second, &third];
    for stored in stored {
        let schema = own.tenant.name().database_schema();
        let gone = format!("DELETE FROM {schema}.spool WHERE raw_bytes = {}", stored.batch.raw_bytes);
        sqlx::query(&gone).execute(&house.stores.postgres(crds::names::PROCESSOR_DATABASE)?).await?;
    }
    let (found, complete, notice) = told(&search().await?, own, "/api/search?q=needle").await?;
    assert!(found == 0 && !complete && notice.contains("raw lines of some events are gone"), "{found} {notice}");
    house.retire().await
}

#[tokio::test]
async fn pages_of_index_and_lines_have_no_gap_and_no_duplicate() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    // Times that do not go with when they were accepted, and are the same for some.
    let line = |n: usize| {
        json!({"message": "needle", "timestamp": format!("2026-01-01T00:00:{:02}Z", n * 7 % 20)}).to_string()
    };
    let mut all = Vec::new();
    for part in 0..6 {
        let lines: Vec<String> = (part * 10..part * 10 + 10).map(|n| line(n) + "\n").collect();
        let age = 60 - 8 * part as i64;
        let stored = house.store_accepted_at(own, &lines, now() - age * 1_000_000).await?;
        let times = stored.batch.events.iter().map(|event| (event.time, event.id));
        all.extend(times);
        // Some wait for the index; some of the others are lost.
        if part % 2 == 0 {
            house.index(own, &stored).await?;
        }
        if part == 2 {
            lose(&house, &stored).await?;
        }
    }
    let schema = own.tenant.name().database_schema();
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let aged = format!(
        "UPDATE {schema}.batches SET stored_at = stored_at - interval '1 hour', indexed_at = indexed_at - interval '1 hour'"
    );
    sqlx::query(&aged).execute(&admin).await?;
    all.sort_unstable_by(|a, b| b.cmp(a));
    let search = house.search().await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let newest: Vec<_> = all.iter().map(|(_, id)| *id).collect();
    let oldest: Vec<_> = newest.iter().rev().copied().collect();
    for (limit, order, all) in
        [(1, "newest", &newest), (7, "newest", &newest), (60, "newest", &newest), (7, "oldest", &oldest)]
    {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = door.search(&format!("q=needle&limit={limit}&order={order}{cursor}")).await?;
            assert!(page.complete && page.items.len() <= limit, "{:?}", page.notice);
            ids.extend(page.items.iter().map(|item| item.id));
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(&ids, all, "{limit} a page, {order} first");
    }
    house.retire().await
}

#[tokio::test]
async fn a_search_reads_the_lines_of_events_that_are_indexed_in_part() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    let line = r#"{"message":"needle","service":"api","metadata":{"user":"ada"},"full_log":"needle in hay"}"#;
    let stored = long_indexed(&house, own, line).await?;
    let (client, id) = (house.stores.opensearch()?, stored.first_event().to_string());
    let update = client.update(UpdateParts::IndexId(&stored.index_name, &id)).refresh(Refresh::True);
    let script = json!({"source": "ctx._source.remove('full_log'); ctx._source.remove('metadata'); \
                                   ctx._source.remove('leaves'); ctx._source.index_error = 'too many leaves'"});
    let updated = update.body(json!({ "script": script })).send().await?;
    anyhow::ensure!(updated.status_code().is_success());
    let search = house.search().await?;
    for (query, expected, source) in [
        ("q=needle", 1, Source::IndexAndScan),
        ("q=hay", 1, Source::IndexAndScan),
        ("q=metadata.user:ada", 1, Source::IndexAndScan),
        ("q=-metadata.user:ada", 0, Source::IndexAndScan),
        ("q=service:api", 1, Source::Index),
        ("q=needle&from=2100-01-01T00:00:00Z", 0, Source::Index),
    ] {
        let (messages, from) = found(&search, own, query).await?;
        assert_eq!((messages.len(), from), (expected, source), "{query}");
    }
    house.retire().await
}

#[tokio::test]
async fn every_list_says_that_accepted_events_are_still_queued() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    long_indexed(&house, own, r#"{"message":"needle"}"#).await?;
    let (lane, name) = (own.tenant.lane(), own.tenant.name().as_str());
    let mut queue: Connection = house.stores.queue()?.connection()?;
    let add = async |queue: &mut Connection, age_ms: i64| {
        let id = format!("{}-1", now() / 1000 - age_ms);
        redis::cmd("DEL").arg(lane.stream()).query_async::<()>(queue).await?;
        redis::cmd("XADD").arg(lane.stream()).arg(id).arg("e").arg("x").query_async::<String>(queue).await
    };
    let paths = ["/api/logs", "/api/search?q=needle", "/api/logs?text=needle"];

    // What another tenant has in the same lane is nothing to this one.
    add(&mut queue, 60_000).await?;
    let search = house.search().await?;
    assert!(told(&search, own, paths[0]).await?.1);
    redis::cmd("HSET").arg(lane.tenant_bytes()).arg(name).arg(100).query_async::<()>(&mut queue).await?;
    for path in paths {
        let (found, complete, notice) = told(&search, own, path).await?;
        assert!(found == 1 && !complete && notice.contains("still in the queue"), "{path}: {notice}");
    }
    // What has just come and was taken is on its way, as always.
    add(&mut queue, 0).await?;
    let group = ["CREATE", &lane.stream(), CONSUMER_GROUP, "0"];
    redis::cmd("XGROUP").arg(&group).query_async::<()>(&mut queue).await?;
    let taken = ["GROUP", CONSUMER_GROUP, "a", "COUNT", "1", "STREAMS", &lane.stream(), ">"];
    redis::cmd("XREADGROUP").arg(&taken).query_async::<redis::Value>(&mut queue).await?;
    let search = house.search().await?;
    for path in &paths[..2] {
        assert_eq!(told(&search, own, path).await?, (1, true, String::new()), "{path}");
    }
    redis::cmd("DEL").arg(lane.stream()).arg(lane.tenant_bytes()).query_async::<()>(&mut queue).await?;
    house.retire().await
}

#[tokio::test]
async fn a_list_says_that_events_wait_for_a_pipeline_that_the_tenant_no_longer_names() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (own, other) = (&house.seats[0], &house.seats[1]);
    let gone: PipelineName = testkit::unique("gone").parse()?;
    let lane = gone.lane(own.tenant.name());
    let mut queue: Connection = house.stores.queue()?.connection()?;
    let waiting = [lane.tenant_bytes(), own.tenant.name().to_string(), "100".to_owned()];
    redis::cmd("HSET").arg(&waiting).query_async::<()>(&mut queue).await?;
    let search = house.search().await?;
    assert!(told(&search, own, "/api/logs").await?.1, "a lane that nobody says is held is read by somebody");
    redis::cmd("SADD").arg(HELD_PIPELINES).arg(gone.as_str()).query_async::<()>(&mut queue).await?;
    let search = house.search().await?;
    let (_, complete, notice) = told(&search, own, "/api/logs").await?;
    assert!(!complete && notice.contains("still in the queue"), "{notice}");
    assert!(told(&search, other, "/api/logs").await?.1, "what another tenant has there is nothing to this one");
    redis::cmd("SREM").arg(HELD_PIPELINES).arg(gone.as_str()).query_async::<()>(&mut queue).await?;
    redis::cmd("DEL").arg(lane.tenant_bytes()).query_async::<()>(&mut queue).await?;
    house.retire().await
}

#[tokio::test]
async fn a_text_in_the_list_says_how_far_it_looks() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    let line = json!({"message": format!("begin {} needle", "x".repeat(600))}).to_string();
    long_indexed(&house, own, &line).await?;
    let search = house.search().await?;
    let (found, complete, notice) = told(&search, own, "/api/logs?text=needle").await?;
    assert!(found == 0 && !complete && notice.contains("500 characters"), "{found} {notice}");
    assert_eq!(told(&search, own, "/api/logs?text=gin%20xx").await?.0, 1, "any part of a message, not a word of it");
    assert_eq!(told(&search, own, "/api/search?q=needle").await?, (1, true, String::new()));
    house.retire().await
}

#[tokio::test]
async fn times_that_nothing_can_have_are_no_reason_to_leave_the_index() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    long_indexed(&house, own, r#"{"message":"needle"}"#).await?;
    let search = house.search().await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    for (range, found) in [
        ("from=0001-01-01T00:00:00Z", 1),
        ("to=9999-12-31T23:59:59Z", 1),
        ("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", 1),
        ("from=9999-12-31T23:59:59Z", 0),
        ("to=0001-01-01T00:00:00Z", 0),
    ] {
        let page = door.search(&format!("q=needle&{range}")).await?;
        assert_eq!((page.source, page.complete, page.items.len()), (Source::Index, true, found), "{range}");
        assert_eq!(door.list(range).await?.items.len(), found, "{range}");
    }
    house.retire().await
}
