//! The live tail: published while somebody watches, and only then.

use std::time::Instant;

use anyhow::{Context, ensure};
use runtime::stores::Connection;
use testkit::chaos::proxy::{Mode, Proxy};

use super::bench::{Bench, Processor, SOON, lines};

/// Entries of the tenant's tail, each with its fields.
async fn shown(bench: &Bench, cache: &mut Connection) -> anyhow::Result<Vec<Vec<(String, Vec<u8>)>>> {
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let stream = bench.tenant.name().tail_stream();
    let entries: Vec<Entry> = redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(cache).await?;
    Ok(entries.into_iter().map(|(_id, fields)| fields).collect())
}

#[tokio::test]
async fn what_is_stored_is_shown_to_whoever_watches() -> anyhow::Result<()> {
    let bench = Bench::new("tail").await?;
    let processor = bench.processor("p-0").await?;
    let mut cache = bench.stores.cache()?.connection()?;
    let name = bench.tenant.name();
    bench.send(&lines(3)).await?;
    bench.drained().await?;
    let unwatched: u64 = redis::cmd("XLEN").arg(name.tail_stream()).query_async(&mut cache).await?;
    ensure!(unwatched == 0, "nobody watched");

    let () = redis::cmd("SET").arg(name.tail_lease()).arg(1).arg("EX").arg(60).query_async(&mut cache).await?;
    bench.send(&lines(2)).await?;
    bench.drained().await?;
    let kept: i64 = redis::cmd("TTL").arg(name.tail_stream()).query_async(&mut cache).await?;
    ensure!((1..=60).contains(&kept), "lines stay in the cache for {kept} s");
    let shown = shown(&bench, &mut cache).await?;
    ensure!(shown.len() == 1, "{} entries", shown.len());
    let (field, frame) = &shown[0][0];
    ensure!(field == "e");
    let text = String::from_utf8(zstd::decode_all(frame.as_slice())?)?;
    let events: Vec<serde_json::Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(events.len() == 2 && events[0]["message"] == "payment 0 declined", "{text}");
    ensure!(events[0]["tenant"] == name.as_str() && events[0]["attributes"]["n"] == 0, "{text}");
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn who_watches_is_told_how_much_was_left_out_while_redis_did_not_answer() -> anyhow::Result<()> {
    let bench = Bench::new("tailgap").await?;
    let address = bench.stores.cache.cache_url.strip_prefix("redis://").context("another kind of URL")?;
    let proxy = Proxy::start(address.to_owned()).await?;
    let mut settings = bench.settings("p-0").await?;
    settings.cache.cache_url = format!("redis://{}", proxy.address);
    let processor = Processor::start(settings).await?;
    let mut cache = bench.stores.cache()?.connection()?;
    let lease = bench.tenant.name().tail_lease();
    let () = redis::cmd("SET").arg(lease).arg(1).arg("EX").arg(600).query_async(&mut cache).await?;
    bench.send(&lines(2)).await?;
    bench.drained().await?;
    proxy.set(Mode::Stall);
    bench.send(&lines(3)).await?;
    bench.send(&lines(4)).await?;
    bench.drained().await?;
    proxy.set(Mode::Pass);
    // What comes in the pause after a failure is left out too.
    let mut sent = 9;
    let until = Instant::now() + SOON;
    let fields = loop {
        bench.send(&lines(1)).await?;
        sent += 1;
        bench.drained().await?;
        if let Some(next) = shown(&bench, &mut cache).await?.into_iter().nth(1) {
            break next;
        }
        ensure!(Instant::now() < until, "the tail does not go on");
    };
    let left_out = fields.iter().find(|(name, _)| name == "d").context("nothing is said of what is left out")?;
    let left_out: usize = String::from_utf8(left_out.1.clone())?.parse()?;
    ensure!(left_out == sent - 2 - 1, "{left_out} of {sent} are said to be left out");
    processor.stop().await?;
    bench.retire().await
}
