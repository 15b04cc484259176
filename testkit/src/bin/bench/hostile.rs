//! What a tenant notices of a hostile one at the same front door. Its accepts and lists are measured alone, and beside
//! each way to do harm that a key, or none, allows: never more than its own share should be taken by it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use testkit::Tenant;
use testkit::http::raw::{packed, socket_from};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bed::{Bed, headers};
use crate::load::{Source, Target, keep_rate};
use crate::meter::Usage;
use crate::report::{Figure, Report, rounded};
use crate::roles::{Mode, Role};
use crate::searchable::Path;
use crate::warm;

/// Seconds before each measurement, and of it.
const WARM: Duration = Duration::from_secs(3);
const MEASURE: Duration = Duration::from_secs(20);
/// Events a second of the good tenant, and of each of its requests.
const RATE: f64 = 1_000.0;
const EVENTS: usize = 50;
/// Lists a second that it reads.
const LISTS: f64 = 10.0;
const CONNECTIONS: usize = 32;
/// Quota of the hostile tenant, in events a second.
const QUOTA: u64 = 1_000;
const GREED: f64 = 10.0;
/// Longest body that ingest unpacks.
const UNPACKED: usize = 20 * 1024 * 1024;
/// Pause after a connection that was closed: opening them costs this machine as much as refusing them.
const PAUSE: Duration = Duration::from_millis(20);

/// A way to do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// Nothing: what the others are compared with.
    None,
    /// Small bodies of one long string, whose refusal could be long.
    ErrorBodies,
    /// Small bodies that unpack to more than is taken.
    Bombs,
    /// Large bodies that come a byte at a time.
    SlowUploads,
    /// Large answers that are taken a few bytes at a time.
    SlowReaders,
    /// Connections of many addresses that say nothing, without a key.
    IdleConnections,
    /// Queries that find nothing and look at much.
    DearQueries,
    /// As many live tails as there may be, that read nothing, while the tenant sends all it may.
    TailFlood,
    /// Ten times its quota.
    Greed,
}

impl Harm {
    const ALL: [Self; 8] = [
        Self::ErrorBodies,
        Self::Bombs,
        Self::SlowUploads,
        Self::SlowReaders,
        Self::IdleConnections,
        Self::DearQueries,
        Self::TailFlood,
        Self::Greed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::None => "alone",
            Self::ErrorBodies => "error_bodies",
            Self::Bombs => "bombs",
            Self::SlowUploads => "slow_uploads",
            Self::SlowReaders => "slow_readers",
            Self::IdleConnections => "idle_connections",
            Self::DearQueries => "dear_queries",
            Self::TailFlood => "tail_flood",
            Self::Greed => "ten_times_quota",
        }
    }

    /// How many do it at once.
    fn at_once(self) -> usize {
        match self {
            Self::None => 0,
            Self::ErrorBodies | Self::Bombs => 8,
            Self::DearQueries => 16,
            Self::TailFlood => 100,
            Self::SlowReaders => 200,
            Self::SlowUploads => 500,
            Self::IdleConnections => 5_000,
            Self::Greed => CONNECTIONS,
        }
    }
}

/// Whom it is done to, by whom.
struct Victim {
    door: SocketAddr,
    key: String,
    string: Vec<u8>,
    bomb: Vec<u8>,
}

/// What the good tenant's requests took.
struct Noticed {
    accept_p99_ms: f64,
    list_p99_ms: f64,
    failed: u64,
    usage: Usage,
}

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report) -> anyhow::Result<()> {
    warm::up(bed).await?;
    let good = Tenant::named("good").dedicated().provision(&bed.stores).await?;
    let hostile = Tenant::named("hostile").dedicated().limited(QUOTA).provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let search = bed.roles.search().await?;
    let gateway = bed.roles.gateway(&path.ingest, &search).await?;
    let roles = [&path.ingest, &path.process, &path.maintain, &search, &gateway];
    let victim = Arc::new(Victim {
        door: gateway.address,
        key: hostile.key.clone(),
        string: packed(b"[\"", 0x7f, UNPACKED as u64 - 8, b"\"]")?,
        bomb: packed(b"{", b' ', 50 * UNPACKED as u64, b"}")?,
    });

    let alone = measure(bed, roles, &good, &victim, Harm::None).await?;
    let mut ways = serde_json::Map::new();
    let (mut accept, mut list, mut usage) = (0.0_f64, 0.0_f64, alone.usage.clone());
    for harm in Harm::ALL {
        let beside = measure(bed, roles, &good, &victim, harm).await?;
        let times = (beside.accept_p99_ms / alone.accept_p99_ms, beside.list_p99_ms / alone.list_p99_ms);
        (accept, list, usage) = (accept.max(times.0), list.max(times.1), usage.plus(&beside.usage));
        ways.insert(
            harm.name().to_owned(),
            json!({
                "accept_p99_ms": rounded(beside.accept_p99_ms), "accept_times": rounded(times.0),
                "list_p99_ms": rounded(beside.list_p99_ms), "list_times": rounded(times.1), "failed": beside.failed,
            }),
        );
    }
    let mut memory = serde_json::Map::new();
    for role in roles {
        // One that ended and came again would have another id, and this would fail.
        memory.insert(role.stage.name().to_owned(), rounded(role.peak_rss_mb()?).into());
    }
    let detail = json!({
        "alone_accept_p99_ms": rounded(alone.accept_p99_ms), "alone_list_p99_ms": rounded(alone.list_p99_ms),
        "ways": ways, "peak_rss_mb": memory,
    });
    report.add(Figure::new("hostile_accept_p99_times", accept, "times", &usage).with(detail));
    report.add(Figure::new("hostile_list_p99_times", list, "times", &usage));
    gateway.stop().await?;
    search.stop().await?;
    path.stop().await?;
    good.retire().await?;
    hostile.retire().await
}

/// The good tenant's figures while this is done.
async fn measure(
    bed: &Arc<Bed>,
    roles: [&Role; 5],
    good: &Tenant,
    victim: &Arc<Victim>,
    harm: Harm,
) -> anyhow::Result<Noticed> {
    bed.quiet().await;
    let watched = bed.watch(roles);
    let accepts = keep_rate(&bed.logs(victim.door, &good.key, EVENTS, CONNECTIONS), RATE / EVENTS as f64);
    let lists = keep_rate(&list(victim.door, &good.key), LISTS);
    let mut doing = JoinSet::new();
    for number in 0..harm.at_once() {
        doing.spawn(do_harm(harm, Arc::clone(victim), number));
    }
    let greedy = (harm == Harm::Greed).then(|| {
        keep_rate(&bed.logs(victim.door, &victim.key, EVENTS, CONNECTIONS), GREED * QUOTA as f64 / EVENTS as f64)
    });
    let flood = (harm == Harm::TailFlood)
        .then(|| keep_rate(&bed.logs(victim.door, &victim.key, EVENTS, 4), 0.9 * QUOTA as f64 / EVENTS as f64));
    tokio::time::sleep(WARM).await;
    accepts.tally.forget_latencies();
    lists.tally.forget_latencies();
    let begun = watched.read()?;
    tokio::time::sleep(MEASURE).await;
    let usage = begun.until(&watched.read()?);
    let (accept_p99_ms, list_p99_ms) = (accepts.tally.percentile_ms(99.0), lists.tally.percentile_ms(99.0));
    let failed = [accepts.end().await, lists.end().await]
        .iter()
        .flat_map(|tally| [&tally.refused, &tally.failed].map(|count| count.load(Ordering::Relaxed)))
        .sum();
    doing.shutdown().await;
    for running in [greedy, flood].into_iter().flatten() {
        running.end().await;
    }
    bed.drained().await?;
    eprintln!("  {}: accept {accept_p99_ms:.1} ms, list {list_p99_ms:.1} ms, {failed} failed", harm.name());
    ensure!(accept_p99_ms > 0.0 && list_p99_ms > 0.0, "nothing was answered beside {}", harm.name());
    Ok(Noticed { accept_p99_ms, list_p99_ms, failed, usage })
}

/// Lists of the tenant's newest events.
fn list(door: SocketAddr, key: &str) -> Target {
    let request = get("/api/logs?limit=20", key);
    let source: Source = Arc::new(move |out: &mut Vec<u8>| {
        out.clear();
        out.extend_from_slice(request.as_bytes());
        0
    });
    Target { address: door, source, verdict: |answer| answer.status == 200, connections: 8 }
}

fn get(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n")
}

/// Does it until it is told to stop, whatever is answered.
async fn do_harm(harm: Harm, victim: Arc<Victim>, number: usize) {
    loop {
        // What breaks is begun anew.
        once(harm, &victim, number).await.ok();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(harm: Harm, victim: &Victim, number: usize) -> anyhow::Result<()> {
    let mut socket = connect(victim.door, number).await?;
    match harm {
        Harm::None | Harm::Greed => std::future::pending().await,
        Harm::ErrorBodies => post(&mut socket, &victim.key, &victim.string).await,
        Harm::Bombs => post(&mut socket, &victim.key, &victim.bomb).await,
        Harm::SlowUploads => {
            socket.write_all(head(&victim.key, "", UNPACKED).as_bytes()).await?;
            loop {
                socket.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Harm::SlowReaders => {
            socket.write_all(get("/api/logs?limit=500", &victim.key).as_bytes()).await?;
            let mut some = [0; 64];
            while socket.read(&mut some).await? > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Harm::IdleConnections => {
            // It ends when it is closed.
            hear(&mut socket, 1).await?;
            Ok(())
        }
        Harm::DearQueries => {
            let path = match number % 3 {
                0 => format!("/api/logs?text=qzx{number}"),
                1 => "/api/search?q=a-u*".to_owned(),
                _ => (0..16).fold("/api/search?limit=500&q=".to_owned(), |mut query, word| {
                    write!(query, "{}a{word:02}*", if word == 0 { "" } else { "+OR+" }).unwrap_or_default();
                    query
                }),
            };
            socket.write_all(get(&path, &victim.key).as_bytes()).await?;
            hear(&mut socket, 4096).await?;
            Ok(())
        }
        Harm::TailFlood => {
            let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                           sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let key = &victim.key;
            let request =
                format!("GET /ws/logs HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n{upgrade}\r\n");
            socket.write_all(request.as_bytes()).await?;
            hear(&mut socket, 256).await?;
            // Longer than a client that reads nothing is borne with.
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
    }
}

async fn post(socket: &mut TcpStream, key: &str, body: &[u8]) -> anyhow::Result<()> {
    socket.write_all(head(key, "content-encoding: zstd\r\n", body.len()).as_bytes()).await?;
    socket.write_all(body).await?;
    hear(socket, 4096).await
}

/// Reads some of what is answered.
async fn hear(socket: &mut TcpStream, most: usize) -> anyhow::Result<()> {
    ensure!(socket.read(&mut vec![0; most]).await? > 0, "it was closed");
    Ok(())
}

fn head(key: &str, further: &str, length: usize) -> String {
    let headers = headers(key).replace("application/x-ndjson", "application/json");
    format!("POST /logs HTTP/1.1\r\nhost: bench\r\n{headers}{further}content-length: {length}\r\n\r\n")
}

/// A connection from one of a hundred addresses that are not the good tenant's.
async fn connect(door: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let socket = socket_from(Ipv4Addr::new(127, 0, 2, (number % 100) as u8 + 1))?;
    // Little is on its way to a client that reads slowly.
    socket.set_recv_buffer_size(4096)?;
    Ok(socket.connect(door).await?)
}
