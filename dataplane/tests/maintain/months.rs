//! Four months in a minute: after each day the stores hold exactly what retention says.
//!
//! Two tenants send every few days, stored as on that day, and `maintain` does its steps by that
//! day's clock. What should be there follows from the days alone. The months are the last ones:
//! what is kept by PostgreSQL's clock is never deleted, so no day may come after today.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bench::{Bench, SOON, header, lines, now};
use anyhow::{Context, ensure};
use dataplane::event::{Micros, date_time, new_batch_id};
use dataplane::maintain::{Archived, Rooms, SeriesLimits, archive, expire, maintain_series, partitions, roll_up};
use dataplane::queue::entry::Header;
use dataplane::stores::batch::{Frame, Treatment, map};
use dataplane::stores::catalog::Provenance;
use testkit::eventually;

const DAY: Micros = 24 * 3_600_000_000;
/// More than twice the longer retention.
const DAYS: i64 = 125;
/// 2020-01-01, where partitions are counted from.
const ORIGIN: Micros = 1_577_836_800_000_000;
/// Events and dead letters of each batch.
const LINES: (usize, usize) = (4, 1);
const NEVER: SeriesLimits = SeriesLimits { bytes: u64::MAX, documents: u64::MAX };

/// A tenant, and what should be left of what it sent.
struct Life {
    bench: Bench,
    rooms: Rooms,
    hot_days: i64,
    total_days: i64,
    /// Days on which it sent, of those whose rows are to be there.
    kept: BTreeSet<i64>,
    /// Days on which it sent, of the last three.
    keyed: BTreeSet<i64>,
    /// The days whose events are in each of its indices; the last is written to.
    indices: Vec<Vec<i64>>,
    sent: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_early_and_nothing_kept_late() -> anyhow::Result<()> {
    let (short, long) = tokio::join!(live("short", 3, 10, 4), live("long", 30, 60, 7));
    short?;
    long
}

async fn live(prefix: &str, hot_days: i32, total_days: i32, every: i64) -> anyhow::Result<()> {
    let bench = Bench::kept(prefix, hot_days, total_days).await?;
    let rooms = bench.rooms().await?;
    let first_noon = now() / DAY * DAY - DAYS * DAY + DAY / 2;
    // As if it had been made on that day.
    let leaves = "DO $$ DECLARE leaf text; BEGIN
                      FOR leaf IN SELECT name FROM {}.partitions LOOP EXECUTE format('DROP TABLE {}.%I', leaf); END LOOP;
                  END $$";
    bench.execute(leaves).await?;
    let mut life = Life {
        bench,
        rooms,
        hot_days: hot_days.into(),
        total_days: total_days.into(),
        kept: BTreeSet::new(),
        keyed: BTreeSet::new(),
        indices: vec![Vec::new()],
        sent: 0,
    };
    for day in 0..DAYS {
        let noon = first_noon + day * DAY;
        partitions(&life.rooms, &life.bench.tenant, noon).await?;
        if day % every == 0 {
            life.send(day, noon).await.with_context(|| format!("{prefix}: send on day {day}"))?;
        }
        life.maintain(noon).await.with_context(|| format!("{prefix}: maintain on day {day}"))?;
        life.expect(day, first_noon);
        life.check(noon).await.with_context(|| format!("{prefix}: after day {day}"))?;
    }
    ensure!(life.kept.len() as i64 <= (life.total_days + 8) / every + 1, "it forgot most of what it was sent");
    life.bench.retire().await
}

impl Life {
    /// Stores and indexes a batch as a processor would have on that day.
    async fn send(&mut self, day: i64, noon: Micros) -> anyhow::Result<()> {
        let mut lines = lines(LINES.0 + LINES.1);
        lines[2] = "poison".into();
        let mut batch = header(new_batch_id(), noon, &lines);
        batch.body_hash = Some([1; 32]);
        let (header, raw) = (Header { batches: vec![batch] }, lines.concat().into_bytes());
        let mut frames = [Frame {
            header: postcard::to_stdvec(&header)?,
            payload: zstd::bulk::compress(&raw, 1)?,
            raw_bytes: raw.len() as u64,
            batches: map(&header, &raw, Treatment::Process),
        }];
        let (catalog, tenant) = (&self.rooms.catalog, &self.bench.tenant);
        let from = Provenance { pipeline: "default".into(), generation: 1 };
        let stored = catalog.store(tenant, &mut frames, &from).await?;
        let batch = &frames[0].batches[0];
        let index = stored.batches[&batch.batch_id].index_name.clone();
        // On a busy machine a request may take longer than it may.
        eventually("the events are indexed", SOON, async || {
            Ok(self.rooms.index.create(tenant, &[(batch, index.as_str())]).await?)
        })
        .await?;
        catalog.mark_indexed(tenant, &[batch.batch_id]).await?;
        // These are stamped by PostgreSQL's clock, which knows nothing of ours.
        for table in ["idempotency", "dead_letters"] {
            let moved = format!(
                "UPDATE {{}}.{table} SET created_at = '{}' WHERE batch_id = '{}'",
                date_time(noon),
                batch.batch_id
            );
            self.bench.execute(&moved).await?;
        }
        self.bench.execute(&format!("UPDATE {{}}.spool SET created_at = '{}'", date_time(noon))).await?;
        self.kept.insert(day);
        self.keyed.insert(day);
        if let Some(written) = self.indices.last_mut() {
            written.push(day);
        }
        self.sent += 1;
        Ok(())
    }

    async fn maintain(&self, noon: Micros) -> anyhow::Result<()> {
        let tenant = &self.bench.tenant;
        while let Archived::Object { .. } = archive(&self.rooms, tenant, Duration::ZERO, noon).await? {}
        roll_up(&self.rooms, tenant).await?;
        expire(&self.rooms, tenant, noon).await?;
        // A shard of an index that has just been made may not answer yet: the next pass asks again.
        eventually("the indices are looked after", SOON, async || {
            maintain_series(&self.rooms, &tenant.registered().index_series, NEVER, noon).await?;
            Ok(())
        })
        .await
    }

    /// What should be left after `today`.
    fn expect(&mut self, today: i64, first_noon: Micros) {
        // Rows go with their partition, and all else with the rows.
        let width = ((self.total_days + 7) / 8).max(1) * DAY;
        let oldest = first_noon + (today - self.total_days) * DAY;
        self.kept.retain(|day| {
            let at = first_noon + day * DAY - ORIGIN;
            ORIGIN + (at / width + 1) * width > oldest
        });
        self.keyed.retain(|day| today - day <= 3);
        // An index ends after an eighth of its events' time, and goes when its newest are cold.
        let longest = (self.hot_days / 8).max(1);
        if self.indices.last().and_then(|days| days.first()).is_some_and(|first| today - first >= longest) {
            self.indices.push(Vec::new());
        }
        let written = self.indices.pop().unwrap_or_default();
        self.indices.retain(|days| days.last().is_some_and(|newest| today - newest <= self.hot_days));
        self.indices.push(written);
        // The model itself keeps the promise: nothing that is hot is gone, and what is cold goes
        // when the youngest of its index does.
        for day in self.kept.iter().filter(|day| today - **day <= self.hot_days) {
            assert!(self.indices.iter().flatten().any(|indexed| indexed == day), "day {day} is hot on {today}");
        }
        for day in self.indices.iter().flatten() {
            assert!(today - day <= self.hot_days + longest, "day {day} is cold on {today}");
        }
    }

    async fn check(&self, noon: Micros) -> anyhow::Result<()> {
        let kept = self.kept.len() as i64;
        let found: (i64, i64, i64, i64, i64, i64, i64) = {
            let counts = "SELECT (SELECT count(*) FROM {}.logs), (SELECT count(*) FROM {}.batches),
                (SELECT count(*) FROM {}.objects), (SELECT count(*) FROM {}.usage_ledger),
                (SELECT count(*) FROM {}.dead_letters), (SELECT count(*) FROM {}.idempotency),
                (SELECT count(*) FROM {}.spool)";
            let counts = counts.replace("{}", &self.bench.tenant.name().database_schema());
            sqlx::query_as(&counts).fetch_one(&self.bench.admin).await?
        };
        let expected = (kept * LINES.0 as i64, kept, kept, kept, kept * LINES.1 as i64, self.keyed.len() as i64, 0);
        ensure!(
            found == expected,
            "logs, batches, objects, ledger, dead letters, keys, spool: {found:?}, not {expected:?}"
        );
        let objects = self.rooms.archive.objects(&self.bench.tenant).await?.len() as i64;
        ensure!(objects == kept, "{objects} objects in the archive, not {kept}");
        let (events, _) = self.bench.used().await?;
        ensure!(events == self.sent * LINES.0 as i64, "{events} events billed");
        let documents = self.bench.documents().await?;
        let indexed = self.indices.iter().flatten().count() * LINES.0;
        ensure!(documents == indexed as i64, "{documents} documents, not {indexed}: {:?}", self.indices);
        let series = &self.bench.tenant.registered().index_series;
        let indices = self.rooms.index.of_series(series).await?.len();
        ensure!(indices == self.indices.len(), "{indices} indices, not {}", self.indices.len());

        let width = self
            .bench
            .count(
                "SELECT public.partition_days(total_days)::bigint FROM public.tenant_schemas WHERE schema_name = '{}'",
            )
            .await?;
        let ahead = format!(
            "SELECT count(*) FROM {{}}.partitions WHERE begins <= '{0}' AND ends > '{0}'",
            date_time(noon + width * DAY)
        );
        ensure!(self.bench.count(&ahead).await? == 1, "no partition ahead");
        let live = self.bench.count("SELECT count(*) FROM pg_inherits WHERE inhparent = '{}.logs'::regclass").await?;
        ensure!((2..=13).contains(&live), "{live} partitions");
        Ok(())
    }
}
