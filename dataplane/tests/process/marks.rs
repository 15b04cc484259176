//! Notes that the index has batches: of many flushes together, and each as if it were by itself.

use super::bench::{Bench, header, lines, now};
use anyhow::ensure;
use dataplane::event::new_batch_id;
use dataplane::tenancy::{Peppers, Registry};

#[tokio::test]
async fn a_tenant_whose_batches_cannot_be_marked_keeps_no_other_from_it() -> anyhow::Result<()> {
    let bench = Bench::new("marked").await?;
    let neighbour = testkit::Tenant::named("unmarked").on_pipeline(&bench.pipeline).provision(&bench.stores).await?;
    let registry = Registry::fixed([neighbour.registered.clone()], Peppers::none());
    let other = registry.tenant(neighbour.desired.name()).expect("it was given");
    let (schema, role) = (other.name().database_schema(), other.name().database_role());
    bench.execute(&format!("REVOKE UPDATE ON {schema}.batches FROM {role}")).await?;
    for _ in 0..5 {
        bench.send(&lines(10)).await?;
        bench.send_to(&other, &header(new_batch_id(), now(), &lines(10)), &lines(10)).await?;
    }
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(50).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE indexed_at IS NULL").await? == 0);
    ensure!(bench.count(&format!("SELECT count(*) FROM {schema}.batches WHERE indexed_at IS NULL")).await? == 5);
    processor.stop().await?;
    neighbour.retire().await?;
    bench.retire().await
}
