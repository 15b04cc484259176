//! The generator: requests as fast as they are answered (closed loop, for ceilings), or at fixed
//! times whatever the answers do (open loop, for latencies).
//!
//! An open loop measures from the time at which a request was meant to be sent. So a server that
//! stalls is charged for every request that had to wait meanwhile, not only for the one in flight
//! (coordinated omission).

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::wire::{Answer, Connection};

/// Time between two looks of the open loop at its plan: how late a request may leave.
const TICK: Duration = Duration::from_micros(200);
/// Pause after a refusal (429, 503), or a failure: what a polite client does, shorter.
const BACK_OFF: Duration = Duration::from_millis(20);
/// Pause of a connection while the backlog is at its bound.
const GATE_PAUSE: Duration = Duration::from_millis(2);
/// Longest latency told apart; what takes longer counts as this.
const LONGEST: Duration = Duration::from_secs(60);

/// What is sent: each call writes the next whole request and gives back its events.
pub(crate) type Source = Arc<dyn Fn(&mut Vec<u8>) -> u64 + Send + Sync>;
/// Whether an answer is a success.
pub(crate) type Verdict = fn(&Answer<'_>) -> bool;

/// The bound that keeps a backlog from growing without end: nothing is sent while `waiting` is
/// above `most`. Whoever knows what waits writes it here.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) waiting: AtomicI64,
    pub(crate) most: i64,
}

/// Where and what to send.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) source: Source,
    pub(crate) verdict: Verdict,
    pub(crate) connections: usize,
}

/// What was answered so far.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Events of requests that succeeded.
    pub(crate) events: AtomicU64,
    /// Requests that succeeded.
    pub(crate) requests: AtomicU64,
    /// Requests answered otherwise.
    pub(crate) refused: AtomicU64,
    /// Connections that broke.
    pub(crate) failed: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Tally {
    fn new() -> Self {
        // Microseconds, to three digits.
        let mut latencies = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3)
            .unwrap_or_else(|error| unreachable!("constant bounds: {error}"));
        latencies.auto(false);
        Self {
            events: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latencies: Mutex::new(latencies),
        }
    }

    /// The latencies of successes since the last [`Self::forget_latencies`].
    pub(crate) fn latencies(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to measure latencies anew, after a warm-up.
    pub(crate) fn forget_latencies(&self) {
        self.latencies().reset();
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Milliseconds that this share of the successes, in percent, took at most.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        self.latencies().value_at_percentile(percent) as f64 / 1000.0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (requests, refused, failed) = (of(&self.requests), of(&self.refused), of(&self.failed));
        write!(f, "{requests} requests succeeded, {refused} were refused, {failed} connections broke")
    }
}

/// A load under way; it ends with [`Running::end`].
pub(crate) struct Running {
    pub(crate) tally: Arc<Tally>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    /// Sends no more, and waits for what is in flight.
    pub(crate) async fn end(mut self) -> Arc<Tally> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.tally
    }
}

/// Closed loop: each connection sends its next request once the last is answered.
pub(crate) fn saturate(target: &Target, gate: Option<Arc<Gate>>) -> Running {
    run(target, move |stop| {
        let gate = gate.clone();
        async move {
            while !stop.is_cancelled() {
                match &gate {
                    Some(gate) if gate.waiting.load(Ordering::Relaxed) >= gate.most => {
                        tokio::time::sleep(GATE_PAUSE).await;
                    }
                    _ => return Some(Instant::now()),
                }
            }
            None
        }
    })
}

/// Open loop: `rate` requests a second at even distances.
pub(crate) fn keep_rate(target: &Target, rate: f64) -> Running {
    let due = Arc::new(Semaphore::new(0));
    let taken = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let (until, permits) = (CancellationToken::new(), Arc::clone(&due));
    let ticking = until.clone();
    // A thread of its own: tokio's clock is too coarse, and this one must not wait for anybody.
    std::thread::spawn(move || {
        let mut given = 0_u64;
        while !ticking.is_cancelled() {
            // The first is meant for the beginning.
            let planned = (begun.elapsed().as_secs_f64() * rate) as u64 + 1;
            permits.add_permits((planned - given) as usize);
            given = planned;
            std::thread::sleep(TICK);
        }
        permits.close();
    });
    let running = run(target, move |stop| {
        let (due, taken) = (Arc::clone(&due), Arc::clone(&taken));
        async move {
            let permit = tokio::select! {
                permit = due.acquire() => permit.ok()?,
                () = stop.cancelled() => return None,
            };
            permit.forget();
            let number = taken.fetch_add(1, Ordering::Relaxed);
            Some(begun + Duration::from_secs_f64(number as f64 / rate))
        }
    });
    let stop = running.stop.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        until.cancel();
    });
    running
}

/// Runs the connections; `next` waits until one may send, and says from when its latency counts.
fn run<N, F>(target: &Target, next: N) -> Running
where
    N: Fn(CancellationToken) -> F + Clone + Send + 'static,
    F: Future<Output = Option<Instant>> + Send + 'static,
{
    let (tally, stop) = (Arc::new(Tally::new()), CancellationToken::new());
    let mut tasks = JoinSet::new();
    for _ in 0..target.connections {
        let (target, tally, stop, next) = (target.clone(), Arc::clone(&tally), stop.clone(), next.clone());
        tasks.spawn(async move {
            let mut request = Vec::new();
            let mut connection = None;
            while let Some(meant) = next(stop.clone()).await {
                let events = (target.source)(&mut request);
                match send(&target, &mut connection, &request).await {
                    Ok(true) => {
                        let micros = meant.elapsed().as_micros() as u64;
                        tally.latencies().saturating_record(micros.max(1));
                        tally.events.fetch_add(events, Ordering::Relaxed);
                        tally.requests.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(false) => {
                        tally.refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(BACK_OFF).await;
                    }
                    Err(_) => {
                        connection = None;
                        tally.failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
        });
    }
    Running { tally, stop, tasks }
}

async fn send(target: &Target, connection: &mut Option<Connection>, request: &[u8]) -> anyhow::Result<bool> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::open(target.address).await?),
    };
    let answer = connection.exchange(request).await?;
    Ok((target.verdict)(&answer))
}
