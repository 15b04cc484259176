//! Clocks that differ between the roles, and step back and forth while they run; and clocks that are wrong by days.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use super::{STRIKE, Struck};
use crate::chaos::house::{House, Lives};
use crate::eventually;

/// What makes a program see another time; from Debian's package `faketime`.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];
/// How long each role lives with one clock.
const LIFE: Duration = Duration::from_secs(3);

fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|path| Path::new(path).exists())
}

/// What makes a program see a time that differs by so much.
fn at(offset: &str) -> Vec<(String, String)> {
    let Some(library) = library() else { return Vec::new() };
    // Only the time of day is false: timers go on as they do when a clock is set.
    [("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Right at first, then days ahead, then right.
pub(super) fn lives_of_days() -> Lives {
    vec![("ingest-1", vec![Vec::new(), at("+3d")]), ("maintain-0", vec![Vec::new(), at("+40d")])]
}

/// Ends the roles' first lives. By its own clock maintain would delete all that the house has, in its first pass; and
/// what ingest accepted could not be stored for days.
pub(super) async fn days(house: &House) -> anyhow::Result<Struck> {
    ensure!(library().is_some(), "libfaketime is not installed: `apt-get install faketime`");
    let mut struck = Struck::default();
    for (name, _) in lives_of_days() {
        house.child(name)?.signal("KILL").await?;
    }
    tokio::time::sleep(4 * LIFE).await;
    let ready = house.ready().await;
    struck.note(ready.is_err(), "an ingest that is three days ahead is not ready".to_owned());
    for (name, _) in lives_of_days() {
        house.child(name)?.signal("KILL").await?;
    }
    house.ready().await?;
    Ok(struck)
}

/// An hour ahead, then an hour behind, then right; each role begins elsewhere.
pub(super) fn lives() -> Lives {
    vec![
        ("ingest-0", vec![at("+1h"), at("-1h")]),
        ("ingest-1", vec![at("-1h"), at("+1h")]),
        ("process-0", vec![at("+1h"), at("-1h")]),
        ("maintain-0", vec![at("-1h"), at("+1h")]),
    ]
}

/// Ends each role's first lives, and makes sure that the clocks were false.
pub(super) async fn steps(house: &House) -> anyhow::Result<Struck> {
    ensure!(library().is_some(), "libfaketime is not installed: `apt-get install faketime`");
    for _ in 0..2 {
        tokio::time::sleep(LIFE).await;
        for (name, _) in lives() {
            house.child(name)?.signal("KILL").await?;
        }
    }
    let pool = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let schema = house.tenants[0].desired.name().database_schema();
    let minutes = eventually("batches are accepted two hours apart", STRIKE, || async {
        let sql = format!(
            "SELECT coalesce(extract(epoch FROM max(accepted_at) - min(accepted_at)) / 60, 0)::bigint FROM {schema}.batches"
        );
        let minutes: i64 = sqlx::query_scalar(&sql).fetch_one(&pool).await?;
        ensure!(minutes >= 119, "{minutes} minutes apart");
        Ok(minutes)
    })
    .await?;
    Ok(Struck { seen: vec![format!("acceptance {minutes} minutes apart")], ..Struck::default() })
}
