//! How fast raw lines are searched in the archive while OpenSearch is away, page by page to the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use api::event::{Listing, Source};
use serde_json::json;
use testkit::{Tenant, eventually};

use crate::bed::{Bed, gate};
use crate::load::saturate;
use crate::meter::Watched;
use crate::report::{Figure, Report, rounded};
use crate::roles::{Mode, Role};
use crate::searchable::{BACKLOG, CONNECTIONS, EVENTS, Path};

/// Longest wait until events are accepted, for each million, and until they are archived.
const FILL: Duration = Duration::from_secs(300);
const ARCHIVED: Duration = Duration::from_secs(180);
/// Longest wait for one page: it reads for 2.5 s.
const PAGE: Duration = Duration::from_secs(20);
/// What is asked for: how often it stands in the lines, and the query.
const QUERIES: [(&str, &str); 5] = [
    ("absent", "zqxjkvabsent"),
    ("absent_phrase", "\"payment method zqxjkv\""),
    ("absent_value", "@host:node-999"),
    ("common_words_apart", "\"order customer\""),
    ("no_needle", "-@host:*"),
];

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, events: u64) -> anyhow::Result<()> {
    let tenant = Tenant::named("scan").dedicated().provision(&bed.stores).await?;
    let accepted = fill(bed, &tenant, events).await?;
    let search = bed.roles.search_without_index().await?;
    let watched = bed.watch([&search]);
    let mut cases = Vec::new();
    let mut first = None;
    for (name, query) in QUERIES {
        // The first time warms the stores up.
        let warm = whole(&search, &tenant, query, &watched).await?;
        let again = whole(&search, &tenant, query, &watched).await?;
        for scan in [&warm, &again] {
            ensure!(scan.events == accepted, "{query} looked at {} of {accepted} events", scan.events);
            ensure!(scan.found == 0, "{query} found {}", scan.found);
        }
        eprintln!("  {name}: {:.0} MB/s ({:.0} at first), {} pages", again.rate(), warm.rate(), again.pages);
        cases.push(json!({
            "query": query, "mb_per_second": rounded(again.rate()), "mb_per_second_at_first": rounded(warm.rate()),
            "pages": again.pages, "seconds": rounded(again.usage.wall.as_secs_f64()),
            "cpu_us_per_event": again.usage.per_event(again.events).into_iter()
                .map(|(stage, micros)| (stage.name().to_owned(), json!(rounded(micros)))).collect::<serde_json::Map<_, _>>(),
        }));
        first.get_or_insert(again);
    }
    let Some(scan) = first else { return Ok(()) };
    let (began, common) = (Instant::now(), page(&search, &tenant, "order", "").await?);
    let common_ms = began.elapsed().as_secs_f64() * 1e3;
    ensure!(common.items.len() == 50 && common.complete, "a common word: {:?}", common.notice);
    let detail = json!({
        "events": accepted, "raw_mb": rounded(scan.bytes as f64 / 1e6), "queries": cases,
        "common_word_page_ms": rounded(common_ms), "search_rss_mb": search.peak_rss_mb()?,
    });
    report.add(Figure::new("scan_mb_per_second", scan.rate(), "MB/s", &scan.usage).with(detail));
    report.add_stages("scan", &scan.usage, scan.events);
    search.stop().await?;
    tenant.retire().await
}

/// Stores and archives events. Gives back how many.
async fn fill(bed: &Arc<Bed>, tenant: &Tenant, events: u64) -> anyhow::Result<u64> {
    let path = Path::start(bed, Mode::Batched).await?;
    let gate = gate(BACKLOG);
    let guard = bed.guard(&gate);
    let running = saturate(&bed.logs(path.ingest.address, &tenant.key, EVENTS, CONNECTIONS), Some(gate));
    let filled = eventually("enough events are accepted", FILL.mul_f64(events as f64 / 1e6 + 1.0), async || {
        let accepted = running.tally.events();
        ensure!(accepted >= events, "{accepted} of {events} events");
        Ok(())
    });
    let filled = filled.await;
    let accepted = running.end().await.events();
    guard.abort();
    filled?;
    bed.drained().await?;
    eventually("everything is archived", ARCHIVED, async || {
        let waiting = bed.number(tenant, "SELECT count(*) FROM {schema}.spool").await?;
        ensure!(waiting == 0, "{waiting} rows are in the spool");
        Ok(())
    })
    .await?;
    path.stop().await?;
    let stored = bed.stored(tenant).await?;
    ensure!(stored == accepted, "the catalog holds {stored} of {accepted} events");
    // As autovacuum does it in time.
    let schema = tenant.desired.name().database_schema();
    sqlx::query(&format!("VACUUM ANALYZE \"{schema}\".logs")).execute(&bed.catalog).await?;
    Ok(accepted)
}

/// All pages of a query.
struct Whole {
    pages: u64,
    found: usize,
    events: u64,
    bytes: u64,
    usage: crate::meter::Usage,
}

impl Whole {
    /// Millions of bytes of raw lines a second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.usage.wall.as_secs_f64()
    }
}

async fn whole(search: &Role, tenant: &Tenant, query: &str, watched: &Watched) -> anyhow::Result<Whole> {
    let begun = watched.read()?;
    let (mut pages, mut found, mut events, mut bytes, mut cursor) = (0, 0, 0, 0, String::new());
    loop {
        let page = page(search, tenant, query, &cursor).await?;
        ensure!(page.source == Source::Scan, "{} answered", page.source);
        let scanned = page.scanned.unwrap_or(api::event::Scanned { events: 0, bytes: 0, until: None });
        (pages, found) = (pages + 1, found + page.items.len());
        (events, bytes) = (events + scanned.events, bytes + scanned.bytes);
        match page.next_cursor {
            Some(next) => cursor = next,
            None => break,
        }
    }
    Ok(Whole { pages, found, events, bytes, usage: begun.until(&watched.read()?) })
}

async fn page(search: &Role, tenant: &Tenant, query: &str, cursor: &str) -> anyhow::Result<Listing> {
    let client = reqwest::Client::builder().no_proxy().timeout(PAGE).build()?;
    let mut asked = vec![("q", query)];
    if !cursor.is_empty() {
        asked.push(("cursor", cursor));
    }
    let url = format!("http://{}/api/search", search.address);
    // A tenant that asks all the time has to wait in between.
    loop {
        let answer = client.get(&url).bearer_auth(&tenant.key).query(&asked).send().await?;
        if answer.status().as_u16() != 429 {
            return Ok(answer.error_for_status()?.json().await?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
