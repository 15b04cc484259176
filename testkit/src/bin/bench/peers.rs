//! Other systems on the same lines, where the environment names one: turn by turn with LoggerHub, on
//! the same machine, in the same run.
//!
//! What is counted is what they answer with success. VictoriaLogs answers from memory, so a crash
//! loses what it had not written yet; LoggerHub's rate beside it is of events that are searchable in
//! the end and were on disk before they were answered. The table says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::Tenant;
use url::Url;

use crate::bed::{Bed, copy, indices};
use crate::control;
use crate::corpus::{Fresh, TIME_MARK, TRACE_MARK, Texts};
use crate::load::{Source, Target, Verdict, saturate};
use crate::meter::Stage;
use crate::report::{Figure, Report, rounded};
use crate::roles::Mode;
use crate::searchable::{BACKLOG, CONNECTIONS, EVENTS, Path, Phase, flow};
use crate::warm;
use crate::wire;

const WARM: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(15);
const ROUNDS: usize = 2;

/// Addresses of peers, and the ids of their processes where CPU is to be counted.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct PeerSettings {
    /// Base URL of a VictoriaLogs, started with `-retentionPeriod=10y`.
    #[arg(long, env = "PEER_VICTORIALOGS_URL")]
    victorialogs_url: Option<Url>,
    #[arg(long, env = "PEER_VICTORIALOGS_PID")]
    victorialogs_pid: Option<u32>,
    /// Base URL of a Loki.
    #[arg(long, env = "PEER_LOKI_URL")]
    loki_url: Option<Url>,
    #[arg(long, env = "PEER_LOKI_PID")]
    loki_pid: Option<u32>,
    /// Base URL of another OpenSearch; each event is a document there by dynamic mapping.
    #[arg(long, env = "PEER_OPENSEARCH_URL")]
    opensearch_url: Option<Url>,
    #[arg(long, env = "PEER_OPENSEARCH_PID")]
    opensearch_pid: Option<u32>,
}

/// One peer.
struct Peer {
    name: &'static str,
    target: Target,
    pid: Option<u32>,
    acknowledges: &'static str,
}

/// How a peer takes events.
struct Form {
    path: &'static str,
    before: &'static str,
    after: &'static str,
    texts: Texts,
    verdict: Verdict,
}

impl PeerSettings {
    pub(crate) fn any(&self) -> bool {
        self.victorialogs_url.is_some() || self.loki_url.is_some() || self.opensearch_url.is_some()
    }

    fn peers(&self, bed: &Bed) -> anyhow::Result<Vec<Peer>> {
        let mut peers = Vec::new();
        if let Some(url) = &self.victorialogs_url {
            let target = target(bed, url, victorialogs(&bed.lines))?;
            peers.push(Peer { name: "victorialogs", target, pid: self.victorialogs_pid, acknowledges: "from memory" });
        }
        if let Some(url) = &self.loki_url {
            let target = target(bed, url, loki(&bed.lines)?)?;
            peers.push(Peer { name: "loki", target, pid: self.loki_pid, acknowledges: "as its WAL is set" });
        }
        if let Some(url) = &self.opensearch_url {
            let target = target(bed, url, opensearch(&bed.lines))?;
            peers.push(Peer { name: "opensearch", target, pid: self.opensearch_pid, acknowledges: "after an fsync" });
        }
        Ok(peers)
    }
}

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, settings: &PeerSettings) -> anyhow::Result<()> {
    let peers = settings.peers(bed)?;
    warm::up(bed).await?;
    let tenant = Tenant::named("peers").dedicated().provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let ours = bed.logs(path.ingest.address, &tenant.key, EVENTS, CONNECTIONS);
    let mut own: Option<Phase> = None;
    let mut theirs: Vec<Option<Phase>> = peers.iter().map(|_| None).collect();
    for _ in 0..ROUNDS {
        let watched = bed.watch(path.roles());
        let stored = async || bed.stored(&tenant).await;
        let phase = flow(bed, &watched, &ours, BACKLOG, MEASURE, &indices(&tenant), stored).await?;
        own = Some(own.map_or(phase.clone(), |before| before.plus(&phase)));
        bed.quiet().await;
        for (peer, so_far) in peers.iter().zip(&mut theirs) {
            let phase = one(bed, peer).await.with_context(|| format!("measure {}", peer.name))?;
            *so_far = Some(so_far.take().map_or(phase.clone(), |before| before.plus(&phase)));
        }
    }
    let own = own.context("no round")?;
    for (peer, phase) in peers.iter().zip(theirs.into_iter().flatten()) {
        let cpu = peer.pid.map(|_| phase.micros(Stage::Peer));
        let detail = json!({
            "acknowledges": peer.acknowledges,
            "ours_acknowledges": "after an fsync; counted when searchable",
            "events_per_request": EVENTS,
            "cpu_us_per_event": cpu,
            "ours_cpu_us_per_event": rounded(own.usage.stages.values().sum::<f64>() * 1e6 / own.events.max(1) as f64),
        });
        let name = format!("peer_{}_events_per_second", peer.name);
        let figure = Figure::new(&name, phase.rate(), "events/s", &phase.usage).with(detail);
        // The ratio of interest is ours by theirs.
        let (control, ratio) = (Some(rounded(own.rate())), Some(rounded(own.rate() / phase.rate())));
        report.add(Figure { control, ratio, ..figure });
    }
    path.stop().await?;
    tenant.retire().await
}

async fn one(bed: &Bed, peer: &Peer) -> anyhow::Result<Phase> {
    let watched = peer.pid.map_or_else(|| bed.servers.clone(), |pid| bed.servers.with(Stage::Peer, pid));
    let running = saturate(&peer.target, None);
    tokio::time::sleep(WARM).await;
    let (events, begun) = (running.tally.events(), watched.read()?);
    tokio::time::sleep(MEASURE).await;
    let (events, usage) = (running.tally.events() - events, begun.until(&watched.read()?));
    let tally = running.end().await;
    ensure!(events > 0, "nothing was taken: {tally}");
    Ok(Phase { events, usage })
}

fn target(bed: &Bed, base: &Url, form: Form) -> anyhow::Result<Target> {
    let host = base.host_str().context("a peer's URL without a host")?;
    let address = format!("{host}:{}", base.port_or_known_default().context("a peer's URL without a port")?);
    let address: SocketAddr = address.parse().with_context(|| format!("{address}: give an IP address and a port"))?;
    let (random, next, verdict) = (Arc::clone(&bed.random), AtomicUsize::new(0), form.verdict);
    let source: Source = Arc::new(move |request: &mut Vec<u8>| {
        let first = next.fetch_add(EVENTS, Ordering::Relaxed);
        let at = wire::begin(request, form.path, "content-type: application/json\r\n");
        request.extend_from_slice(form.before.as_bytes());
        copy(&form.texts, first, EVENTS, &random, request);
        // Items of an array end in a comma, and the last one's goes.
        if request.ends_with(b",") {
            request.pop();
        }
        request.extend_from_slice(form.after.as_bytes());
        wire::end(request, at);
        EVENTS as u64
    });
    Ok(Target { address, source, verdict, connections: CONNECTIONS })
}

/// The lines as they are.
fn victorialogs(lines: &Texts) -> Form {
    let path = "/insert/jsonline?_stream_fields=service,host&_msg_field=message&_time_field=timestamp";
    Form { path, before: "", after: "", texts: rendered(lines, |line| line.to_owned() + "\n"), verdict: ok }
}

/// The lines as they are, as log lines of one stream: the form in which Loki has least to do.
fn loki(lines: &Texts) -> anyhow::Result<Form> {
    let texts = rendered(lines, |line| format!("[\"{}\",{}],", crate::corpus::NANOS_MARK, json!(line)));
    ensure!(texts.len() == lines.len(), "a line was lost");
    let before = r#"{"streams":[{"stream":{"service_name":"bench"},"values":["#;
    Ok(Form { path: "/loki/api/v1/push", before, after: "]}]}", texts, verdict: ok })
}

/// The lines as documents, by dynamic mapping and with ids of OpenSearch's own.
fn opensearch(lines: &Texts) -> Form {
    let texts = rendered(lines, |line| format!("{{\"create\":{{}}}}\n{line}\n"));
    let path = "/loggerhub-bench-peer/_bulk?filter_path=errors,items.*.error";
    Form { path, before: "", after: "", texts, verdict: control::indexed }
}

fn rendered(lines: &Texts, render: impl Fn(&str) -> String) -> Texts {
    let mut texts = Texts::default();
    for at in 0..lines.len() {
        let line = String::from_utf8_lossy(lines.get(at).trim_ascii_end()).into_owned();
        let marks = [(TIME_MARK, Fresh::Time), (TRACE_MARK, Fresh::Trace), (crate::corpus::NANOS_MARK, Fresh::Nanos)];
        texts.push(render(&line).as_bytes(), &marks);
    }
    texts
}

fn ok(answer: &wire::Answer<'_>) -> bool {
    (200..300).contains(&answer.status)
}
