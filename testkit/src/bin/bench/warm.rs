//! Brings the stores to the state of servers that have run for a while, once in a run.
//!
//! - OpenSearch indexes until the JVM has compiled what it will compile: cold, a document costs it three
//!   times as much.
//! - PostgreSQL's log goes round once. A new server makes each file of it, 16 MiB of zeros, before it writes
//!   there; from the first checkpoint that the log's size asks for, it takes the old ones again.

use std::time::Duration;

use anyhow::ensure;
use testkit::{Tenant, eventually};

use crate::bed::{Bed, indices};
use crate::control::{self, Ids};
use crate::load::saturate;

/// Longest time for [`Bed::warm_documents`]: some minute where nothing else runs.
const DOCUMENTS: Duration = Duration::from_secs(300);
/// Longest time until PostgreSQL has made a checkpoint: some five seconds.
const CHECKPOINT: Duration = Duration::from_secs(120);
/// Writes 64 MiB that mean nothing to PostgreSQL's log.
const LOG: &str =
    "SELECT count(pg_logical_emit_message(false, 'warm', repeat(' ', 1048576))) FROM generate_series(1, 64)";
/// Where the last checkpoint that is complete begins.
const COMPLETED: &str = "SELECT redo_lsn::text FROM pg_control_checkpoint()";

pub(crate) async fn up(bed: &Bed) -> anyhow::Result<()> {
    let both = async || {
        opensearch(bed).await?;
        postgres(bed).await
    };
    bed.warmed.get_or_try_init(both).await?;
    Ok(())
}

async fn opensearch(bed: &Bed) -> anyhow::Result<()> {
    let tenant = Tenant::named("warm").dedicated().provision(&bed.stores).await?;
    let running = saturate(&control::target(bed, &tenant, Ids::Own)?, None);
    let warm = eventually("OpenSearch is warm", DOCUMENTS, async || {
        let events = running.tally.events();
        ensure!(events >= bed.warm_documents, "{events} of {} documents", bed.warm_documents);
        Ok(())
    })
    .await;
    running.end().await;
    match warm {
        Ok(()) => eprintln!("  OpenSearch is warm: {} documents", bed.searchable(&indices(&tenant)).await?),
        Err(error) => eprintln!("  OpenSearch is NOT warm: {error:#}"),
    }
    tenant.retire().await
}

async fn postgres(bed: &Bed) -> anyhow::Result<()> {
    let completed = async || sqlx::query_scalar::<_, String>(COMPLETED).fetch_one(&bed.catalog).await;
    let before = completed().await?;
    let warm = eventually("PostgreSQL's log has gone round", CHECKPOINT, async || {
        sqlx::query(LOG).execute(&bed.catalog).await?;
        ensure!(completed().await? != before, "no checkpoint since {before}");
        Ok(())
    })
    .await;
    match warm {
        Ok(()) => eprintln!("  PostgreSQL is warm: its log has gone round"),
        Err(error) => eprintln!("  PostgreSQL is NOT warm: {error:#}"),
    }
    Ok(())
}
