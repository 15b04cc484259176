//! The role search with the rights that are shipped for it and no more.

use api::event::Source;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use runtime::settings::OpenSearchSettings;
use testkit::RoleProxy;
use testkit::http::Door;
use testkit::s3_policy::{denied, sees_only, shipped};

use super::detail::{archive, lines};
use crate::house::{House, closed_port};

/// What names of tenants' buckets begin with here.
const BUCKETS: &str = "lh-test-";

#[tokio::test]
async fn search_reads_with_its_role_of_opensearch_and_its_policy() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    let proxy = RoleProxy::start(&house.stores.opensearch, "loggerhub_search").await?;
    let s3 = house.stores.s3_by(shipped::SEARCH, BUCKETS).await?;
    let url = format!("http://{}", closed_port().await?).parse()?;
    let nowhere = OpenSearchSettings { url, opensearch_credentials: None };
    let with = house.search_by(&proxy.settings(), s3.clone()).await?;
    let without = house.search_by(&nowhere, s3.clone()).await?;
    let with = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let without = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let stored = house.store(own, &lines()).await?;
    house.index(own, &stored).await?;
    archive(&house, own, &stored).await?;

    let id = stored.first_event();
    let found = with.search("q=short").await?;
    assert_eq!((found.source, found.items.len()), (Source::Index, 1));
    assert_eq!(with.detail(id).await?.source, Source::Index);
    assert_eq!(without.detail(id).await?.source, Source::Archive);
    assert!(proxy.refused().is_empty(), "{:#?}", proxy.refused());
    assert_eq!(proxy.passed().into_iter().collect::<Vec<_>>(), ["POST /{index}/_search"]);

    // An index by its own name, all indices, and a write.
    let client = runtime::stores::opensearch(&proxy.settings(), &house.stores.tls)?;
    let index = &stored.index_name;
    for (method, path) in [
        (Method::Post, format!("/{index}/_search")),
        (Method::Get, "/_search".to_owned()),
        (Method::Post, format!("/{index}/_doc")),
        (Method::Delete, format!("/{index}")),
    ] {
        let answer = client.send(method, &path, HeaderMap::new(), None::<&()>, Some("{}"), None).await?;
        assert_eq!(answer.status_code().as_u16(), 403, "{path}");
    }
    assert_eq!(proxy.refused().len(), 4, "{:#?}", proxy.refused());

    let location = &own.tenant.registered().archive;
    let bucket = &location.bucket;
    let put = |key: &str| s3.put_object().bucket(bucket).key(key).body(b"x".to_vec().into()).send();
    denied("write a log", put("logs/x").await)?;
    denied("delete a log", s3.delete_object().bucket(bucket).key("logs/test.lhz").send().await)?;
    denied("read beside the logs", s3.get_object().bucket(bucket).key("others/x").send().await)?;
    denied("list the bucket", s3.list_objects_v2().bucket(bucket).send().await)?;
    denied("delete the bucket", s3.delete_bucket().bucket(bucket).send().await)?;
    sees_only(&s3, BUCKETS).await?;
    house.retire().await
}
