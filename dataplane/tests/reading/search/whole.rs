//! Many events whole: the raw lines of a page, wherever they are, in the order of the page.

use dataplane::search::{Reader, WholeEvent};
use query::Page;
use serde_json::json;

use super::detail::archive;
use crate::house::{House, Seat};

const EVENTS: usize = 300;

fn lines(prefix: &str) -> Vec<String> {
    (0..EVENTS)
        .map(|n| json!({"message": format!("{prefix} {n}"), "n": n, "text": "long ".repeat(n)}).to_string() + "\n")
        .collect()
}

/// A page of everything, whole.
async fn whole(reader: &Reader, own: &Seat, limit: u32) -> anyhow::Result<Vec<WholeEvent>> {
    let page = Page { limit, ..Page::default() };
    let rows = reader.catalog.page(&own.tenant, &page).await?;
    Ok(reader.whole(&own.tenant, rows).await?)
}

/// Whether each event's line says the same as its row, and where a line is missing.
fn told(events: &[WholeEvent]) -> Vec<(String, bool)> {
    let told = |event: &WholeEvent| {
        let said = event.event.as_ref();
        (event.row.item.message.clone(), said.is_some_and(|said| said.message == event.row.item.message))
    };
    events.iter().map(told).collect()
}

#[tokio::test]
async fn the_lines_of_a_page_are_read_together_from_the_spool_and_the_archive() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    let reader = house.reader(&house.stores.opensearch, house.stores.s3()?).await?;
    assert!(reader.whole(&own.tenant, Vec::new()).await?.is_empty());
    let old = house.store(own, &lines("old")).await?;
    archive(&house, own, &old).await?;
    for prefix in ["new", "newer"] {
        house.store(own, &lines(prefix)).await?;
    }

    let all = whole(&reader, own, 3 * EVENTS as u32).await?;
    let expected: Vec<_> = ["newer", "new", "old"]
        .into_iter()
        .flat_map(|prefix| (0..EVENTS).rev().map(move |n| (format!("{prefix} {n}"), true)))
        .collect();
    assert_eq!(told(&all), expected);
    let attributes = all[7].event.as_ref().and_then(|event| event.attributes.as_ref());
    assert_eq!(json!(attributes), json!({"n": EVENTS - 8, "text": "long ".repeat(EVENTS - 8)}));

    // Archived after the rows were read.
    let other = &house.seats[1];
    let stored = house.store(other, &lines("moved")).await?;
    let rows = reader.catalog.page(&other.tenant, &Page { limit: 10, ..Page::default() }).await?;
    archive(&house, other, &stored).await?;
    let moved = reader.whole(&other.tenant, rows).await?;
    assert!(moved.len() == 11 && told(&moved).iter().all(|(_, read)| *read), "{moved:?}");

    // Gone from the spool.
    let page = Page { limit: 3 * EVENTS as u32, ..Page::default() };
    let rows = reader.catalog.page(&own.tenant, &page).await?;
    let schema = own.tenant.name().database_schema();
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let newest = format!("DELETE FROM {schema}.spool WHERE spool_id = (SELECT max(spool_id) FROM {schema}.spool)");
    sqlx::query(&newest).execute(&admin).await?;
    let some = told(&reader.whole(&own.tenant, rows).await?);
    let gone = |(message, read): &(String, bool)| message.starts_with("newer ") != *read;
    assert!(some.len() == 3 * EVENTS && some.iter().all(gone), "only what is gone is not read");

    // Gone from the archive.
    let location = &own.tenant.registered().archive;
    let key = format!("{}logs/test.lhz", location.prefix);
    house.stores.s3()?.delete_object().bucket(&location.bucket).key(key).send().await?;
    let some = told(&whole(&reader, own, 3 * EVENTS as u32).await?);
    let there = |(message, read): &(String, bool)| message.starts_with("new ") == *read;
    assert!(some.iter().all(there), "{some:?}");
    house.retire().await
}
