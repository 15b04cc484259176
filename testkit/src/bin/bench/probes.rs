//! Single events that are looked for in every place where they are to appear.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use api::sent::Accepted;
use api::tail::TailEvent;
use hdrhistogram::Histogram;
use opensearch::http::Method;
use serde_json::json;
use testkit::Tenant;
use testkit::http::{Door, LiveTail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::bed::{Bed, headers};
use crate::roles::Role;
use crate::wire::{self, Connection};

/// Time between two probes, and between two looks at the catalog and at the index. Each probe may
/// cost the processor a flush, so there are few.
const EVERY: Duration = Duration::from_millis(40);
const LOOK_CATALOG: Duration = Duration::from_millis(5);
const LOOK_INDEX: Duration = Duration::from_millis(50);
/// Longest wait for the last probes to appear.
const LAST: Duration = Duration::from_secs(20);
/// Longest delay told apart.
const LONGEST_MICROS: u64 = 60_000_000;

/// Delays in microseconds.
pub(crate) struct Delays {
    pub(crate) sent: u64,
    pub(crate) catalog: Histogram<u64>,
    pub(crate) live: Histogram<u64>,
    pub(crate) searchable: Histogram<u64>,
}

/// Sends and looks for probes of one tenant.
pub(crate) struct Probes {
    bed: Arc<Bed>,
    ingest: SocketAddr,
    gateway: SocketAddr,
    key: String,
    schema: String,
    alias: String,
    seen: Mutex<Seen>,
}

struct Seen {
    sent: u64,
    all_sent: bool,
    /// Accepted, and not yet in the catalog.
    uncommitted: Vec<Uuid>,
    /// In the catalog, and not yet found: event ids with their acceptance.
    unfound: HashMap<Uuid, i64>,
    delays: Delays,
}

impl Probes {
    pub(crate) fn new(bed: &Arc<Bed>, tenant: &Tenant, ingest: &Role, gateway: &Role) -> Self {
        let name = tenant.desired.name();
        let delays = Delays { sent: 0, catalog: histogram(), live: histogram(), searchable: histogram() };
        let seen = Seen { sent: 0, all_sent: false, uncommitted: Vec::new(), unfound: HashMap::new(), delays };
        Self {
            bed: Arc::clone(bed),
            ingest: ingest.address,
            gateway: gateway.address,
            key: tenant.key.clone(),
            schema: name.database_schema(),
            alias: name.index_alias(),
            seen: Mutex::new(seen),
        }
    }

    /// Sends probes for as long as told, and waits until each is seen everywhere.
    pub(crate) async fn measure(self, during: Duration) -> anyhow::Result<Delays> {
        let door = Door::at(&format!("http://{}", self.gateway), &format!("http://{}", self.ingest))?;
        let tail = door.with_key(&self.key).watch_for("service=probe").await?;
        tokio::try_join!(self.send(during), self.look_in_catalog(), self.look_in_index(), self.look_live(tail))?;
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut delays = Delays { sent: seen.sent, ..seen.delays };
        for (place, histogram) in
            [("catalog", &mut delays.catalog), ("live tail", &mut delays.live), ("index", &mut delays.searchable)]
        {
            // What did not come while we looked for it counts as the longest delay.
            let missing = delays.sent.saturating_sub(histogram.len());
            if missing > 0 {
                eprintln!("  {missing} of {} probes did not come to the {place} in time", delays.sent);
                histogram.saturating_record_n(LONGEST_MICROS, missing);
            }
        }
        Ok(delays)
    }

    async fn send(&self, during: Duration) -> anyhow::Result<()> {
        let (mut connection, mut request) = (Connection::open(self.ingest).await?, Vec::new());
        let mut tick = tokio::time::interval(EVERY);
        let until = Instant::now() + during;
        while Instant::now() < until {
            tick.tick().await;
            let at = wire::begin(&mut request, "/logs", &headers(&self.key));
            let line = json!({"service": "probe", "level": "INFO", "message": "a probe on its way", "number": self.lock().sent});
            serde_json::to_writer(&mut request, &line)?;
            wire::end(&mut request, at);
            let answer = connection.exchange(&request).await?;
            ensure!(answer.status == 202, "a probe was answered with {}", answer.status);
            let accepted: Accepted = serde_json::from_slice(answer.body)?;
            let mut seen = self.lock();
            seen.sent += 1;
            seen.uncommitted.push(accepted.batch_id);
        }
        self.lock().all_sent = true;
        Ok(())
    }

    async fn look_in_catalog(&self) -> anyhow::Result<()> {
        let sql = format!("SELECT batch_id, accepted_at FROM \"{}\".batches WHERE batch_id = ANY($1)", self.schema);
        let mut deadline = None;
        loop {
            let wanted = self.lock().uncommitted.clone();
            if !wanted.is_empty() {
                let rows: Vec<(Uuid, OffsetDateTime)> =
                    sqlx::query_as(&sql).bind(&wanted).fetch_all(&self.bed.catalog).await?;
                let now = now();
                let mut seen = self.lock();
                for (batch, accepted_at) in rows {
                    let accepted_at = dataplane::event::micros(accepted_at);
                    seen.uncommitted.retain(|wanted| *wanted != batch);
                    seen.unfound.insert(dataplane::event::event_id(batch, accepted_at, 0), accepted_at);
                    record(&mut seen.delays.catalog, now - accepted_at);
                }
            }
            if self.over(&mut deadline, |seen| seen.uncommitted.is_empty()) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_CATALOG).await;
        }
    }

    async fn look_in_index(&self) -> anyhow::Result<()> {
        let mut deadline = None;
        loop {
            let wanted: Vec<Uuid> = self.lock().unfound.keys().copied().collect();
            if !wanted.is_empty() {
                let body =
                    json!({"size": wanted.len().min(10_000), "_source": false, "query": {"ids": {"values": wanted}}});
                let path = format!("/{}/_search?filter_path=hits.hits._id", self.alias);
                let answer = self.bed.search_json(Method::Post, &path, Some(body)).await?;
                let now = now();
                let mut seen = self.lock();
                for hit in answer["hits"]["hits"].as_array().into_iter().flatten() {
                    let id: Uuid = hit["_id"].as_str().context("a hit without an id")?.parse()?;
                    if let Some(accepted_at) = seen.unfound.remove(&id) {
                        record(&mut seen.delays.searchable, now - accepted_at);
                    }
                }
            }
            if self.over(&mut deadline, |seen| seen.uncommitted.is_empty() && seen.unfound.is_empty()) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_INDEX).await;
        }
    }

    async fn look_live(&self, mut tail: LiveTail) -> anyhow::Result<()> {
        let mut deadline = None;
        loop {
            // Without a probe for a second the last one has come, or never will.
            if let Ok(event) = tail.event("a probe", Duration::from_secs(1), |_| true).await {
                let now = now();
                record(&mut self.lock().delays.live, now - accepted_at(&event)?);
            }
            if self.over(&mut deadline, |seen| seen.delays.live.len() >= seen.sent) {
                return Ok(());
            }
        }
    }

    /// Whether there is nothing more to look for, or it has been looked for long enough.
    fn over(&self, deadline: &mut Option<Instant>, nothing_left: impl Fn(&Seen) -> bool) -> bool {
        let seen = self.lock();
        if !seen.all_sent {
            return false;
        }
        nothing_left(&seen) || Instant::now() > *deadline.get_or_insert(Instant::now() + LAST)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accepted_at(event: &TailEvent<'_>) -> anyhow::Result<i64> {
    Ok(dataplane::event::micros(OffsetDateTime::parse(&event.accepted_at, &Rfc3339)?))
}

fn record(histogram: &mut Histogram<u64>, micros: i64) {
    histogram.saturating_record(u64::try_from(micros).unwrap_or(0).max(1));
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 3).unwrap_or_else(|error| unreachable!("constant bounds: {error}"))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
