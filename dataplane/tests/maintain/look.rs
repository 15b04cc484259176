//! A look at many tenants finds what waits in each, and a broken one hides no other.

use super::bench::{Bench, lines, now};
use anyhow::ensure;
use dataplane::maintain::{Archived, Rooms, archive};
use dataplane::stores::catalog::Look;
use std::collections::HashMap;
use std::time::Duration;

/// More rows than any spool here has.
const ROWS: i64 = 1000;

/// A look at these tenants, by schema.
pub(super) async fn look(rooms: &Rooms, benches: &[&Bench]) -> anyhow::Result<HashMap<String, Look>> {
    let schemas: Vec<String> = benches.iter().map(|bench| bench.tenant.name().database_schema()).collect();
    Ok(rooms.catalog.look(&schemas, ROWS, Duration::from_secs(15)).await?)
}

#[tokio::test]
async fn a_look_finds_what_waits_of_each_tenant() -> anyhow::Result<()> {
    let (quiet, busy) = (Bench::new("quiet").await?, Bench::new("busy").await?);
    let rooms = busy.rooms().await?;
    let schema = |bench: &Bench| bench.tenant.name().database_schema();
    let looks = look(&rooms, &[&quiet, &busy]).await?;
    for bench in [&quiet, &busy] {
        let found = &looks[&schema(bench)];
        ensure!(found.spooled_since.is_none() && found.spooled_rows == 0 && found.last_usage.is_none(), "{found:?}");
        ensure!(!found.archiving && !found.unindexed && !found.to_redrive, "{found:?}");
    }

    let processor = busy.processor("p-0").await?;
    let mut sent = lines(20);
    sent[3] = "poison".into();
    busy.send(&sent).await?;
    busy.drained().await?;
    processor.stop().await?;
    let looks = look(&rooms, &[&quiet, &busy]).await?;
    let (found, frame) =
        (&looks[&schema(&busy)], busy.count("SELECT octet_length(frame)::bigint FROM {}.spool").await?);
    ensure!((found.spooled_rows, found.spooled_bytes) == (1, frame), "{found:?}");
    ensure!(found.spooled_since.is_some() && found.last_usage.is_some(), "{found:?}");
    ensure!(!found.unindexed && !found.to_redrive, "{found:?}");
    ensure!(looks[&schema(&quiet)].spooled_rows == 0, "one tenant's rows are no other's");

    // What is young is its processor's to index.
    busy.execute("UPDATE {}.batches SET indexed_at = NULL").await?;
    ensure!(!look(&rooms, &[&busy]).await?[&schema(&busy)].unindexed);
    busy.execute("UPDATE {}.batches SET stored_at = stored_at - interval '16 seconds'").await?;
    busy.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    let found = look(&rooms, &[&busy]).await?[&schema(&busy)].clone();
    ensure!(found.unindexed && found.to_redrive, "{found:?}");

    busy.execute("INSERT INTO {}.archiving (spool_ids) SELECT array_agg(spool_id) FROM {}.spool").await?;
    ensure!(look(&rooms, &[&busy]).await?[&schema(&busy)].archiving);
    let archived = archive(&rooms, &busy.tenant, Duration::from_secs(3600), now()).await?;
    ensure!(matches!(archived, Archived::Object { .. }), "what was begun is finished: {archived:?}");
    let found = look(&rooms, &[&busy]).await?[&schema(&busy)].clone();
    ensure!(!found.archiving && found.spooled_rows == 0, "{found:?}");
    quiet.retire().await?;
    busy.retire().await
}

#[tokio::test]
async fn a_schema_that_can_not_be_looked_into_is_missing() -> anyhow::Result<()> {
    let (whole, broken) = (Bench::new("whole").await?, Bench::new("broken").await?);
    let rooms = whole.rooms().await?;
    broken.execute("DROP TABLE {}.archiving").await?;
    let looks = look(&rooms, &[&whole, &broken]).await?;
    ensure!(looks.keys().eq([&whole.tenant.name().database_schema()]), "{looks:?}");
    let none = rooms.catalog.look(&["public".into(), "tenant_of_nobody".into()], ROWS, Duration::ZERO).await?;
    ensure!(none.is_empty(), "only tenants' schemas are looked into: {none:?}");
    broken.reprovision().await?;
    whole.retire().await?;
    broken.retire().await
}
