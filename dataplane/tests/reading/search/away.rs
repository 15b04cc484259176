//! An index that takes connections and never answers.

use api::event::Source;
use runtime::settings::OpenSearchSettings;
use testkit::Mute;
use testkit::http::Door;

use crate::house::House;

#[tokio::test]
async fn an_index_that_hangs_is_asked_once_and_then_left_alone() -> anyhow::Result<()> {
    let mute = Mute::start().await?;
    let house = House::new().await?;
    let own = &house.seats[0];
    house.store(own, &["{\"message\":\"alpha\"}\n".to_owned()]).await?;
    let search = house.search_with(&OpenSearchSettings { url: mute.url.clone(), opensearch_credentials: None }).await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    const QUERIES: usize = 20;
    for _ in 0..QUERIES {
        let page = door.search("q=alpha").await?;
        assert_eq!((page.source, page.complete, page.messages().len()), (Source::Scan, true, 1));
    }
    // One that found out, and on a slow machine a few that looked whether it is back.
    let asked = mute.connections();
    assert!((1..QUERIES / 2).contains(&asked), "{asked} of {QUERIES} queries waited for the index");
    house.retire().await
}
