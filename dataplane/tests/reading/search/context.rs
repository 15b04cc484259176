//! What happened around one event.

use anyhow::ensure;
use api::context::Context;
use api::event::Source;
use reqwest::Method;
use testkit::http::Door;
use uuid::Uuid;

use crate::house::House;

const EVENTS: usize = 60;

/// Of two services in turns, many of the same time, and of three pods.
fn lines() -> Vec<String> {
    let line = |n: usize| {
        format!(
            r#"{{"timestamp":"2026-01-01T01:00:{:02}Z","service":"s{}","message":"line {n}","metadata":{{"pod":"p-{}"}}}}"#,
            n / 20,
            n % 2,
            n % 3,
        ) + "\n"
    };
    (0..EVENTS).map(line).collect()
}

async fn context(door: &Door, id: Uuid, query: &str) -> anyhow::Result<Context> {
    let response = door.request(Method::GET, &format!("/api/logs/{id}/context?{query}")).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{status} {text}");
    Ok(serde_json::from_str(&text)?)
}

fn messages(context: &Context) -> Vec<&str> {
    let all = context.before.iter().chain([&context.event]).chain(&context.after);
    all.map(|item| item.message.as_str()).collect()
}

#[tokio::test]
async fn an_event_stands_between_its_neighbours_and_each_side_goes_on() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let stored = house.store(own, &lines()).await?;
    house.index(own, &stored).await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let id = |n: usize| stored.batch.events[n].id;
    let expected = |all: &mut dyn Iterator<Item = usize>| all.map(|n| format!("line {n}")).collect::<Vec<_>>();

    let any = context(&door, id(30), "before=3&after=2&same=none").await?;
    assert_eq!(messages(&any), expected(&mut (27..=32)));
    assert_eq!((any.same.clone(), any.source, any.complete), (None, Source::Catalog, true), "{any:?}");
    let of_service = context(&door, id(30), "before=3&after=2").await?;
    assert_eq!(messages(&of_service), expected(&mut (24..=34).step_by(2)));
    assert_eq!(of_service.same.as_ref().map(|same| (&*same.field, &*same.values[0])), Some(("service", "s0")));
    let of_pod = context(&door, id(30), "before=3&after=2&same=metadata.pod").await?;
    assert_eq!(messages(&of_pod), expected(&mut (21..=36).step_by(3)));
    assert_eq!((of_pod.source, of_pod.complete), (Source::Index, true), "{of_pod:?}");

    // Both sides to their ends, by cursors.
    for (same, step) in [("none", 1), ("service", 2), ("pod", 3)] {
        let first = context(&door, id(30), &format!("before=4&after=4&same={same}")).await?;
        let (mut before, mut after) = (first.before, first.after);
        let (mut earlier, mut later) = (first.earlier_cursor, first.later_cursor);
        while let Some(cursor) = earlier {
            let page = context(&door, id(30), &format!("before=7&same={same}&cursor={cursor}")).await?;
            assert!(page.after.is_empty() && page.later_cursor.is_none(), "one direction");
            before.splice(0..0, page.before);
            earlier = page.earlier_cursor;
        }
        while let Some(cursor) = later {
            let page = context(&door, id(30), &format!("after=7&same={same}&cursor={cursor}")).await?;
            assert!(page.before.is_empty() && page.earlier_cursor.is_none(), "one direction");
            after.extend(page.after);
            later = page.later_cursor;
        }
        let found: Vec<_> = before.iter().chain([&first.event]).chain(&after).map(|item| item.id).collect();
        let all: Vec<_> = (0..EVENTS).filter(|n| n % step == 30 % step).map(id).collect();
        assert_eq!(found, all, "{same}");
    }
    let ends = context(&door, id(0), "before=250&after=0&same=none").await?;
    assert!(ends.before.is_empty() && ends.after.is_empty() && ends.earlier_cursor.is_none(), "{ends:?}");

    let cursor = any.earlier_cursor.unwrap_or_default();
    let foreign = Door::at(&search.url, &search.url)?.with_key(&other.key);
    for (door, id, query, refusal) in [
        (&door, Uuid::now_v7(), String::new(), (404, "not_found")),
        (&foreign, id(30), String::new(), (404, "not_found")),
        (&door, id(30), "same=metadata.host".to_owned(), (400, "invalid_parameter")),
        (&door, id(30), "same=application".to_owned(), (400, "invalid_parameter")),
        (&door, id(30), "before=251".to_owned(), (400, "invalid_parameter")),
        (&door, id(31), format!("same=none&cursor={cursor}"), (400, "invalid_cursor")),
        (&door, id(30), format!("same=service&cursor={cursor}"), (400, "invalid_cursor")),
    ] {
        let request = door.request(Method::GET, &format!("/api/logs/{id}/context?{query}"));
        assert_eq!(Door::refusal(request).await?, (refusal.0, refusal.1.to_owned()), "{query}");
    }
    house.retire().await
}
