//! One tenant's reading and the others'.

use futures::future::join_all;
use reqwest::Method;
use testkit::http::Door;

use crate::house::{CONNECTIONS, House};

#[tokio::test]
async fn a_tenant_whose_queries_hang_has_half_of_the_catalog_and_the_others_go_on() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, ..] = &house.seats[..] else { panic!("two tenants") };
    let door = Door::at(&search.url, &search.url)?;
    let (own_door, other_door) = (door.with_key(&own.key), door.with_key(&other.key));
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let mut lock = admin.begin().await?;
    let schema = own.tenant.name().database_schema();
    sqlx::query(&format!("LOCK TABLE {schema}.logs IN ACCESS EXCLUSIVE MODE")).execute(&mut *lock).await?;

    let crowd = join_all((0..16).map(|_| Door::refusal(own_door.request(Method::GET, "/api/logs"))));
    let others = async {
        for _ in 0..20 {
            let page = other_door.list("limit=1").await?;
            assert!(page.items.is_empty());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let (crowd, others) = tokio::join!(crowd, others);
    others?;
    let refused = |code: &str| crowd.iter().filter(|refusal| matches!(refusal, Ok((_, is)) if is == code)).count();
    let at_once = usize::try_from(CONNECTIONS / 2)?;
    assert_eq!((refused("query_timeout"), refused("too_many_queries")), (at_once, 16 - at_once), "{crowd:?}");
    lock.rollback().await?;
    let page = own_door.list("limit=1").await?;
    assert!(page.complete, "and so does it, afterwards");
    house.retire().await
}

#[tokio::test]
async fn a_client_that_leaves_gives_back_nothing_before_its_query_ends() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let own = &house.seats[0];
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let mut lock = admin.begin().await?;
    let schema = own.tenant.name().database_schema();
    sqlx::query(&format!("LOCK TABLE {schema}.logs IN ACCESS EXCLUSIVE MODE")).execute(&mut *lock).await?;
    for _ in 0..CONNECTIONS / 2 {
        let hasty = door.request(Method::GET, "/api/logs").timeout(std::time::Duration::from_millis(200));
        assert!(hasty.send().await.is_err_and(|error| error.is_timeout()));
    }
    let refusal = Door::refusal(door.request(Method::GET, "/api/logs")).await?;
    assert_eq!(refusal, (429, "too_many_queries".to_owned()));
    lock.rollback().await?;
    house.retire().await
}
