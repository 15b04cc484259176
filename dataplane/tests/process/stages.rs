//! A pipeline with stages against real stores: what is stored, what is dropped and counted, and that what
//! is redacted is found nowhere.

use super::bench::{Bench, Processor, SOON, header, lines, now};
use anyhow::ensure;
use dataplane::event::new_batch_id;
use dataplane::maintain::{self, VerifyOptions};
use dataplane::process::Stages;
use dataplane::queue::entry::Rejection;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::eventually;

/// A number that payment providers publish for tests.
const CARD: &str = "4111 1111 1111 1111";
const SECRETS: [&str; 3] = [CARD, "ada@example.com", "hunter2"];

fn stages(stages: Value) -> Stages {
    Stages(serde_json::from_value(stages).expect("they are stages"))
}

fn redacting() -> Stages {
    stages(json!([
        {"name": "read", "parse": {"format": "Auto"}},
        {"name": "debug", "match": {"levels": ["debug"]}, "drop": {}},
        {"name": "personal", "redact": {"detectors": ["CardNumber", "Email"]}},
        {"name": "order", "redact": {"patterns": [{"name": "password", "regex": "hunter[0-9]"}]}},
        {"name": "region", "enrich": {"set": {"region": "eu-1"}}},
    ]))
}

/// Seven lines: four events, two that are dropped, one dead letter.
fn sent() -> Vec<String> {
    vec![
        format!(r#"{{"service":"checkout","message":"paid with {CARD}","by":"ada@example.com"}}"#),
        r#"{"level":"debug","message":"ada@example.com"}"#.into(),
        json!({"message": "<34>Jan  2 03:04:01 db-1 su[9]: hunter2 for ada@example.com"}).to_string(),
        format!("broken {CARD}"),
        json!({"log": format!(r#"{{"level":"debug","msg":"{CARD}"}}"#)}).to_string(),
        format!(r#"{{"message":"{CARD}","message":"sent twice"}}"#),
        format!(r#"{{"message":"{}"}}"#, "long ada@example.com ".repeat(400)),
    ]
}

/// Everything that the stores hold of the tenant, as text.
async fn everything(bench: &Bench) -> anyhow::Result<String> {
    let schema = bench.tenant.name().database_schema();
    let mut all = String::new();
    for table in ["logs", "batches", "dead_letters", "idempotency", "usage_ledger", "objects"] {
        let rows = format!("SELECT coalesce(string_agg(t::text, E'\n'), '') FROM {schema}.{table} t");
        let rows: String = sqlx::query_scalar(&rows).fetch_one(&bench.admin).await?;
        all.push_str(&rows);
    }
    let spool: Vec<Vec<u8>> =
        sqlx::query_scalar(&format!("SELECT frame FROM {schema}.spool")).fetch_all(&bench.admin).await?;
    for frame in spool {
        all.push_str(&String::from_utf8_lossy(&zstd::decode_all(frame.as_slice())?));
    }
    let rooms = bench.rooms().await?;
    for (key, bytes) in rooms.archive.objects(&bench.tenant).await? {
        let footer = rooms.archive.footer(&bench.tenant, &key, bytes).await?;
        let frames = footer.places();
        let length = frames.raw_starts.last().copied().unwrap_or(0).unsigned_abs();
        let raw = rooms.archive.read(&bench.tenant, &key, &frames, 0, length).await?;
        all.push_str(&String::from_utf8_lossy(&raw));
    }
    let alias = bench.tenant.name().index_alias();
    let client = bench.stores.opensearch()?;
    let search = client.search(opensearch::SearchParts::Index(&[&alias])).size(1000).send().await?;
    all.push_str(&testkit::stores::whole(search).await?.to_string());
    Ok(all)
}

#[tokio::test]
async fn what_is_redacted_is_in_no_store_and_what_is_dropped_is_counted() -> anyhow::Result<()> {
    let bench = Bench::new("staged").await?;
    let mut settings = bench.settings("p-0").await?;
    settings.stages = redacting();
    let processor = Processor::start(settings).await?;
    let lines = sent();
    let mut header = header(new_batch_id(), now(), &lines);
    header.events[3].rejected = Some(Rejection::InvalidJson);
    bench.send_as(&header, &lines).await?;
    bench.drained().await?;
    bench.holds(4).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'invalid_json'").await? == 1);
    let counts = "SELECT count(*) FROM {}.batches WHERE events = 4 AND dead_letters = 1 AND dropped = 2";
    ensure!(bench.count(counts).await? == 1, "the receipt counts what was dropped");
    ensure!(bench.count("SELECT count(*) FROM {}.logs WHERE service = 'su' AND level = 'FATAL'").await? == 1);

    let spooled = everything(&bench).await?;
    let rooms = bench.rooms().await?;
    maintain::archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 0, "archived");
    let archived = everything(&bench).await?;
    for (place, all) in [("spool", spooled), ("archive", archived)] {
        for there in ["[card]", "[email]", "[password]", "eu-1", "sent twice", "broken"] {
            ensure!(all.contains(there), "{there} is not there, {place}");
        }
        for secret in SECRETS {
            ensure!(!all.contains(secret), "{secret} is still there, {place}");
        }
    }

    let options = VerifyOptions { span: (i64::MIN, now()), max_differences: 10 };
    let report = maintain::verify(&rooms, &bench.tenant, options, now()).await?;
    ensure!(report.is_clean(), "{report}");
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_rebuild_has_the_events_that_the_stages_made_and_no_other() -> anyhow::Result<()> {
    let bench = Bench::new("restage").await?;
    let mut settings = bench.settings("p-0").await?;
    settings.stages = redacting();
    let processor = Processor::start(settings).await?;
    bench.send(&[sent()[0].clone(), sent()[1].clone(), sent()[2].clone()]).await?;
    let dropped = bench.send(&[sent()[1].clone(), sent()[4].clone()]).await?;
    bench.drained().await?;
    bench.holds(2).await?;
    processor.stop().await?;
    let rooms = bench.rooms().await?;
    maintain::archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    let rows = "SELECT count(*) FROM {}.logs";
    let ids = format!(
        "SELECT string_agg(event_id::text || message, ',' ORDER BY event_id) FROM {}.logs",
        bench.tenant.name().database_schema()
    );
    let before: String = sqlx::query_scalar(&ids).fetch_one(&bench.admin).await?;

    bench.execute("TRUNCATE {}.logs, {}.batches, {}.objects, {}.usage_ledger, {}.dead_letters CASCADE").await?;
    ensure!(bench.count(rows).await? == 0);
    maintain::rebuild(&rooms, &bench.tenant, true, now()).await?;
    let after: String = sqlx::query_scalar(&ids).fetch_one(&bench.admin).await?;
    ensure!(before == after, "{before}\n{after}");
    let whole = format!(
        "SELECT count(*) FROM {{}}.batches WHERE batch_id = '{}' AND events = 0 AND dropped = 2",
        dropped.batch_id
    );
    ensure!(bench.count(&whole).await? == 1, "a batch of which nothing is left is known as that");
    bench.retire().await
}

#[tokio::test]
async fn a_redelivery_under_other_stages_stores_and_indexes_nothing_else() -> anyhow::Result<()> {
    let bench = Bench::new("regen").await?;
    let mut settings = bench.settings("p-0").await?;
    settings.stages = redacting();
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let first = Processor::start(settings).await?;
    bench.send(&sent()[..3]).await?;
    eventually("the flush is stored", SOON, async || {
        ensure!(bench.count("SELECT count(*) FROM {}.logs").await? == 2);
        Ok(())
    })
    .await?;
    first.kill();
    ensure!(bench.backlog().await? > 0, "it was not acknowledged");
    // The next generation has no stages: by itself it would index the lines as sent.
    let mut settings = bench.settings("p-1").await?;
    settings.pipeline_generation = 2;
    let second = Processor::start(settings).await?;
    bench.drained().await?;
    bench.indexed(&bench.rooms().await?).await?;
    bench.holds(2).await?;
    let all = everything(&bench).await?;
    ensure!(SECRETS.iter().all(|secret| !all.contains(secret)), "{all}");
    second.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_sample_keeps_the_same_events_whoever_decides() -> anyhow::Result<()> {
    let bench = Bench::new("sample").await?;
    let mut settings = bench.settings("p-0").await?;
    settings.stages = stages(json!([{"name": "some", "sample": {"keepOneIn": 4}}]));
    let pipeline = stages::Pipeline::compile(&settings.stages.0)?;
    let processor = Processor::start(settings).await?;
    let lines = lines(1000);
    let header = bench.send(&lines).await?;
    bench.drained().await?;
    let kept = (0..).zip(&lines).filter(|(position, line)| {
        let id = dataplane::event::event_id(header.batch_id, header.accepted_at, *position).as_u128();
        matches!(pipeline.rewrite(line.as_bytes(), header.accepted_at, id), stages::Rewritten::Line(_))
    });
    bench.holds(kept.count() as i64).await?;
    processor.stop().await?;
    bench.retire().await
}
