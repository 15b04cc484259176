//! A search of the raw lines: page by page, within the time that a request has, and no longer than its client waits.

use std::time::Duration;

use api::event::Source;
use reqwest::Method;
use serde_json::json;
use testkit::http::Door;
use uuid::Uuid;

use crate::house::{CONNECTIONS, House, nowhere};

/// Events of one batch, and batches: more than a scan begins with.
const EVENTS: usize = 1_500;
const BATCHES: usize = 4;

/// Every hundredth has the needle, in its text alone.
fn lines(batch: usize) -> Vec<String> {
    let line = |n: usize| {
        let needle = if n.is_multiple_of(100) { "needle" } else { "hay" };
        let time = format!("2026-01-01T0{batch}:{:02}:{:02}Z", n / 60 % 60, n % 60);
        json!({"message": "m", "full_log": format!("m\n{needle} {n}"), "timestamp": time}).to_string() + "\n"
    };
    (0..EVENTS).map(line).collect()
}

#[tokio::test]
async fn a_scan_whose_time_is_over_goes_on_with_its_cursor() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    let mut events = Vec::new();
    for batch in 0..BATCHES {
        let stored = house.store(own, &lines(batch)).await?;
        events.extend(stored.batch.events);
    }
    events.sort_unstable_by_key(|event| std::cmp::Reverse((event.time, event.id)));
    let has_needle = |event: &&dataplane::stores::batch::BatchEvent| {
        event.event.full_log.as_deref().is_some_and(|text| text.contains("needle"))
    };
    let expected: Vec<Uuid> = events.iter().filter(has_needle).map(|event| event.id).collect();
    assert_eq!(expected.len(), BATCHES * EVENTS / 100);

    let mut reader = house.reader(&nowhere().await?, house.stores.s3()?).await?;
    let patient = house.search_from(reader.clone()).await?;
    reader.patience = Duration::ZERO;
    let hasty = house.search_from(reader).await?;
    let patient = Door::at(&patient.url, &patient.url)?.with_key(&own.key);
    let hasty = Door::at(&hasty.url, &hasty.url)?.with_key(&own.key);

    let page = patient.search("q=needle&limit=500").await?;
    let found: Vec<Uuid> = page.items.iter().map(|item| item.id).collect();
    assert_eq!((found, page.complete, page.source), (expected.clone(), true, Source::Scan), "{:?}", page.notice);
    let scanned = page.scanned.expect("a scan says what it read");
    assert_eq!((scanned.events, scanned.until), ((BATCHES * EVENTS) as u64, None));
    assert!(scanned.bytes > 100 * scanned.events / 2, "{} bytes", scanned.bytes);

    let oldest_first: Vec<Uuid> = expected.iter().rev().copied().collect();
    for (query, expected, ends_early) in [
        ("q=needle&limit=500", &expected[..], true),
        ("q=needle&limit=500&order=oldest", &oldest_first, true),
        ("q=needle&limit=30", &expected, true),
        ("q=needle&limit=4", &expected, false),
        ("q=never", &[], true),
    ] {
        let (mut found, mut cursor, mut early, mut looked_at) = (Vec::new(), String::new(), 0, 0);
        loop {
            let page = hasty.search(&format!("{query}{cursor}")).await?;
            found.extend(page.items.iter().map(|item| item.id));
            let scanned = page.scanned.expect("a scan");
            looked_at += scanned.events;
            if let Some(until) = &scanned.until {
                let notice = page.notice.unwrap_or_default();
                assert!(!page.complete && notice.contains(until.as_str()) && page.next_cursor.is_some(), "{notice}");
                early += 1;
            }
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, expected, "{query}");
        assert_eq!(early > 0, ends_early, "{query}");
        assert!(looked_at >= (BATCHES * EVENTS) as u64, "{query}: {looked_at} looked at");
    }
    house.retire().await
}

#[tokio::test]
async fn rare_values_of_rows_are_walked_to_and_need_no_line() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    for batch in 0..2 {
        house.store(own, &lines(batch)).await?;
    }
    let old = json!({"message": "old one", "service": "rare", "timestamp": "2025-01-01T00:00:00Z"}).to_string();
    house.store(own, &[old]).await?;
    // No line can be read.
    let schema = own.tenant.name().database_schema();
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    sqlx::query(&format!("DELETE FROM {schema}.spool")).execute(&admin).await?;
    let search = house.search_without_index().await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let page = door.search("q=service:rare").await?;
    assert_eq!((page.messages(), page.complete, page.source), (vec!["old one"], true, Source::Catalog));
    let page = door.search("q=*&service=rare").await?;
    assert_eq!((page.messages(), page.complete), (vec!["old one"], true));
    // Of a line that is gone it is not known what stands in it, unless its row says enough.
    let page = door.search("q=service:rare%20old").await?;
    assert_eq!((page.items.len(), page.complete, page.source), (0, false, Source::Scan));
    assert!(page.notice.is_some_and(|notice| notice.contains("lines of some events are gone")));
    let page = door.search("q=service:other%20old").await?;
    assert_eq!((page.items.len(), page.complete), (0, true));
    house.retire().await
}

#[tokio::test]
async fn a_scan_ends_when_its_client_leaves() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search_without_index().await?;
    let own = &house.seats[0];
    house.store(own, &lines(0)).await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let mut lock = admin.begin().await?;
    let schema = own.tenant.name().database_schema();
    sqlx::query(&format!("LOCK TABLE {schema}.spool IN ACCESS EXCLUSIVE MODE")).execute(&mut *lock).await?;
    for _ in 0..2 * CONNECTIONS {
        let hasty = door.request(Method::GET, "/api/search?q=needle").timeout(Duration::from_millis(300));
        assert!(hasty.send().await.is_err_and(|error| error.is_timeout()));
    }
    // Their turns are given back long before the statements that they wait for end.
    assert_eq!(door.list("limit=1").await?.items.len(), 1);
    lock.rollback().await?;
    house.retire().await
}
