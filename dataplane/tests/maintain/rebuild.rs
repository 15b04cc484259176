//! A tenant made again: from a dump of PostgreSQL, and from the archive alone.

use std::process::Stdio;
use std::time::Duration;

use super::bench::{Bench, header, lines, now};
use anyhow::{Context, ensure};
use dataplane::event::keyed_batch_id;
use dataplane::maintain::{Error, Rooms, VerifyOptions, archive, rebuild, roll_up, verify};
use secrecy::ExposeSecret;
use tokio::process::Command;

const ALL: VerifyOptions = VerifyOptions { span: (i64::MIN, i64::MAX), max_differences: 20 };

/// What an event's row says, and its batch's: everything but what only the processor knew.
const ROWS: &str = "SELECT string_agg(t::text, '\n' ORDER BY t::text) FROM (
    SELECT l.*, b.accepted_at, b.key_id, b.events, b.dead_letters, b.raw_bytes, o.key
    FROM {}.logs l JOIN {}.batches b USING (batch_id) JOIN {}.objects o USING (object_id)) AS t";
const DEAD: &str = "SELECT string_agg(t::text, '\n' ORDER BY t::text) FROM (
    SELECT event_id, batch_id, raw_offset, raw_length, code, error FROM {}.dead_letters) AS t";
const KEYS: &str = "SELECT string_agg(t::text, '\n') FROM (SELECT batch_id, body_hash FROM {}.idempotency) AS t";

async fn text(bench: &Bench, statement: &str) -> anyhow::Result<Option<String>> {
    let statement = statement.replace("{}", &bench.tenant.name().database_schema());
    Ok(sqlx::query_scalar(&statement).fetch_one(&bench.admin).await?)
}

/// A tenant with archived batches: one with a client's key, one with a dead letter.
async fn archived(prefix: &str) -> anyhow::Result<(Bench, Rooms)> {
    let bench = Bench::new(prefix).await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    let mut with_poison = lines(50);
    with_poison[3] = "poison".into();
    bench.send(&with_poison).await?;
    bench.drained().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    let lines = lines(2500);
    let mut keyed = header(keyed_batch_id(bench.tenant.name(), b"order-1"), now(), &lines);
    keyed.body_hash = Some([7; 32]);
    bench.send_as(&keyed, &lines).await?;
    bench.drained().await?;
    processor.stop().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.indexed(&rooms).await?;
    roll_up(&rooms, &bench.tenant).await?;
    Ok((bench, rooms))
}

async fn agrees(bench: &Bench, rooms: &Rooms) -> anyhow::Result<()> {
    let report = verify(rooms, &bench.tenant, ALL, now()).await?;
    ensure!(report.is_clean() && report.waiting_batches == 0, "{report}");
    ensure!((report.batches, report.events, report.dead_letters, report.documents) == (2, 2549, 1, 2549), "{report}");
    Ok(())
}

#[tokio::test]
async fn everything_but_the_archive_is_lost_and_comes_back() -> anyhow::Result<()> {
    let (bench, rooms) = archived("rebuild").await?;
    agrees(&bench, &rooms).await?;
    let (rows, dead, keys) = (text(&bench, ROWS).await?, text(&bench, DEAD).await?, text(&bench, KEYS).await?);
    ensure!(rows.is_some() && dead.is_some() && keys.is_some());
    let used = bench.used().await?;
    let refused = rebuild(&rooms, &bench.tenant, false, now()).await;
    ensure!(matches!(refused, Err(Error::NotEmpty)), "{refused:?}");

    for index_is_lost in [true, false] {
        bench.execute("DROP SCHEMA {} CASCADE").await?;
        bench.forget_series().await?;
        if index_is_lost {
            for index in rooms.index.of_series(&bench.tenant.registered().index_series).await? {
                rooms.index.drop_index(&index.name).await?;
            }
        }
        bench.reprovision().await?;
        let rebuilt = rebuild(&rooms, &bench.tenant, false, now()).await?;
        ensure!((rebuilt.objects, rebuilt.batches) == (2, 2) && rebuilt.unreadable.is_empty(), "{rebuilt:?}");
        // What was accepted a moment ago is left to a processor, and then to maintain.
        bench.indexed(&rooms).await?;
        agrees(&bench, &rooms).await?;
        ensure!(text(&bench, ROWS).await? == rows, "the same rows");
        ensure!(text(&bench, DEAD).await? == dead, "the same dead letters");
        ensure!(text(&bench, KEYS).await? == keys, "the same keys");
        ensure!(roll_up(&rooms, &bench.tenant).await? == 0 && bench.used().await? == used, "billed once");
    }

    // Again is the same as once, and goes on where it was left.
    let again = rebuild(&rooms, &bench.tenant, true, now()).await?;
    ensure!((again.objects, again.batches) == (0, 0), "{again:?}");
    bench.execute("DELETE FROM {}.logs WHERE raw_offset > 100000").await?;
    bench.execute("DELETE FROM {}.batches WHERE events > 100").await?;
    ensure!(rebuild(&rooms, &bench.tenant, true, now()).await?.batches == 1);
    ensure!(text(&bench, ROWS).await? == rows);
    ensure!(bench.used().await? == used);

    // A client that sends its batch again after all this has it stored once, and what comes now is billed.
    let processor = bench.processor("p-1").await?;
    let lines = lines(2500);
    let mut keyed = header(keyed_batch_id(bench.tenant.name(), b"order-1"), now(), &lines);
    keyed.body_hash = Some([7; 32]);
    bench.send_as(&keyed, &lines).await?;
    bench.send(&lines[..10]).await?;
    bench.drained().await?;
    processor.stop().await?;
    ensure!(roll_up(&rooms, &bench.tenant).await? == 10);
    bench.retire().await
}

#[tokio::test]
async fn a_lost_schema_comes_back_from_a_dump() -> anyhow::Result<()> {
    let (bench, rooms) = archived("dump").await?;
    let processor = bench.processor("p-1").await?;
    bench.send(&lines(40)).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.indexed(&rooms).await?;
    let before = verify(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(before.is_clean() && before.batches == 3, "{before}");

    let schema = bench.tenant.name().database_schema();
    let dump = postgres(&bench, "pg_dump", &["--format=custom", "--schema", &schema], None).await?;
    bench.execute("DROP SCHEMA {} CASCADE").await?;
    ensure!(verify(&rooms, &bench.tenant, ALL, now()).await.is_err(), "there is no schema");
    postgres(&bench, "pg_restore", &["--exit-on-error", "--single-transaction"], Some(dump)).await?;
    let after = verify(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(after.is_clean() && after.batches == 3 && after.documents == before.documents, "{after}");

    // Life goes on: what comes now is stored, and the roll-up counts it once.
    let processor = bench.processor("p-2").await?;
    bench.send(&lines(5)).await?;
    bench.drained().await?;
    processor.stop().await?;
    ensure!(roll_up(&rooms, &bench.tenant).await? == 45);
    ensure!(verify(&rooms, &bench.tenant, ALL, now()).await?.is_clean());
    bench.retire().await
}

/// Runs one of PostgreSQL's own programs on the processor database, and gives back what it prints.
async fn postgres(bench: &Bench, program: &str, arguments: &[&str], input: Option<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    let settings = &bench.stores.postgres;
    let credential = |name| runtime::settings::credential(&settings.credentials, name);
    let mut command = Command::new(format!("/usr/lib/postgresql/15/bin/{program}"));
    command
        .env("PGPASSWORD", credential("password")?.expose_secret())
        .args(["--host", &settings.host, "--port", &settings.port.to_string()])
        .args(["--username", credential("username")?.expose_secret(), "--dbname", crds::names::PROCESSOR_DATABASE])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    let mut stdin = child.stdin.take().context("its standard input")?;
    let write = async {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, &input.unwrap_or_default()).await?;
        drop(stdin);
        anyhow::Ok(())
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    written?;
    Ok(output.stdout)
}
