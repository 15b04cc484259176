//! Pages, one after the other, while events keep coming.

use std::collections::BTreeSet;

use anyhow::Context;
use api::event::Listing;
use reqwest::Method;
use testkit::http::Door;
use uuid::Uuid;

use crate::house::{House, Seat};

const EVENTS: usize = 90;

/// Many of the same time, so that the id has to decide between them.
fn lines(from: usize, hour: usize) -> Vec<String> {
    let line = |n: usize| {
        format!(
            r#"{{"timestamp":"2026-01-01T{hour:02}:00:{:02}Z","service":"s{}","message":"page {n}"}}"#,
            n % 4,
            n % 2
        )
    };
    (from..from + EVENTS).map(|n| line(n) + "\n").collect()
}

/// Walks through all pages and stores newer events between them; gives back every id in order.
async fn walk(
    house: &House,
    own: &Seat,
    doors: [&Door; 2],
    read: impl AsyncFn(&Door, &str) -> anyhow::Result<Listing>,
) -> anyhow::Result<Vec<Uuid>> {
    let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        // Both doors take the same cursor: with and without the index.
        let page = read(doors[pages % 2], &cursor).await?;
        ids.extend(page.items.iter().map(|item| item.id));
        let Some(next) = page.next_cursor else { return Ok(ids) };
        cursor = format!("&cursor={next}");
        if pages < 3 {
            let newer = house.store(own, &lines(1000 + pages * EVENTS, 5)).await?;
            house.index(own, &newer).await?;
        }
        pages += 1;
    }
}

#[tokio::test]
async fn pages_have_no_gap_and_no_duplicate_while_events_are_stored() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let own = &house.seats[0];
    let stored = house.store(own, &lines(0, 1)).await?;
    house.index(own, &stored).await?;
    let with = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let without = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let all: BTreeSet<Uuid> = stored.batch.events.iter().map(|event| event.id).collect();

    let until = "to=2026-01-01T02:00:00Z";
    let list = async |door: &Door, cursor: &str| door.list(&format!("limit=7&{until}{cursor}")).await;
    let search = async |door: &Door, cursor: &str| door.search(&format!("q=page&limit=7&{until}{cursor}")).await;
    for (name, ids) in [
        ("list", walk(&house, own, [&with, &with], list).await?),
        ("search", walk(&house, own, [&with, &with], search).await?),
        ("search, the index away every other page", walk(&house, own, [&with, &without], search).await?),
    ] {
        assert_eq!(ids.len(), EVENTS, "{name}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all, "{name}");
    }

    // Each line in four has its own second. Of equal times, what was sent last comes first.
    let sent: Vec<Uuid> = stored.batch.events.iter().map(|event| event.id).collect();
    let newest_first: Vec<_> =
        (0..4).rev().flat_map(|second| sent.iter().skip(second).step_by(4).rev().copied()).collect();
    for (name, page) in [
        ("list", with.list(&format!("limit=90&{until}")).await?),
        ("search", with.search(&format!("q=page&limit=90&{until}")).await?),
        ("search without the index", without.search(&format!("q=page&limit=90&{until}")).await?),
    ] {
        let ids: Vec<_> = page.items.iter().map(|item| item.id).collect();
        assert_eq!(ids, newest_first, "{name}");
    }

    // Oldest first is the exact opposite, page by page, whatever store answers.
    let oldest_first: Vec<_> = newest_first.iter().rev().copied().collect();
    let list = async |door: &Door, cursor: &str| door.list(&format!("order=oldest&limit=7&{until}{cursor}")).await;
    let search =
        async |door: &Door, cursor: &str| door.search(&format!("q=page&order=oldest&limit=7&{until}{cursor}")).await;
    for (name, ids) in [
        ("list", walk(&house, own, [&with, &with], list).await?),
        ("search", walk(&house, own, [&with, &with], search).await?),
        ("search, the index away every other page", walk(&house, own, [&with, &without], search).await?),
    ] {
        assert_eq!(ids, oldest_first, "{name}");
    }
    let cursor = with.list(&format!("order=oldest&limit=7&{until}")).await?.next_cursor.context("more pages")?;
    let other = with.request(Method::GET, &format!("/api/logs?{until}&cursor={cursor}"));
    assert_eq!(Door::refusal(other).await?, (400, "invalid_cursor".to_owned()), "a cursor knows its order");

    // Newer events come while the unbounded list is walked: all older ones still come, once.
    let unbounded = async |door: &Door, cursor: &str| door.list(&format!("limit=50{cursor}")).await;
    let ids = walk(&house, own, [&with, &with], unbounded).await?;
    let seen: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(seen.len(), ids.len(), "no duplicate");
    assert!(all.is_subset(&seen), "no gap");

    let page =
        with.list("service=s1&level=info,warn&limit=500&from=2026-01-01T01:00:02Z&to=2026-01-01T01:00:03Z").await?;
    assert_eq!(page.items.len(), 0, "even seconds have the even service");
    let page = with.list("service=s0&limit=500&from=2026-01-01T01:00:02Z&to=2026-01-01T01:00:03Z").await?;
    assert_eq!(page.items.len(), (0..EVENTS).filter(|n| n % 4 == 2).count());
    let page = with.list("text=PAGE%2017&to=2026-01-01T02:00:00Z").await?;
    assert_eq!(page.messages(), ["page 17"]);
    house.retire().await
}
