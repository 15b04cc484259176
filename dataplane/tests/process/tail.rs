//! The live tail: published while somebody watches, and only then.

use super::bench::{Bench, lines};
use anyhow::ensure;

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
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let shown: Vec<Entry> =
        redis::cmd("XRANGE").arg(name.tail_stream()).arg("-").arg("+").query_async(&mut cache).await?;
    ensure!(shown.len() == 1, "{} entries", shown.len());
    let (field, frame) = &shown[0].1[0];
    ensure!(field == "e");
    let text = String::from_utf8(zstd::decode_all(frame.as_slice())?)?;
    let events: Vec<serde_json::Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(events.len() == 2 && events[0]["message"] == "payment 0 declined", "{text}");
    ensure!(events[0]["tenant"] == name.as_str() && events[0]["attributes"]["n"] == 0, "{text}");
    processor.stop().await?;
    bench.retire().await
}
