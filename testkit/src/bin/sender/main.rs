//! `loggerhub-sender`: follows log files, or makes events up, and sends them to LoggerHub.
//!
//! ```text
//!  file, stdin ─► lines ─┐
//!  generator ────────────┴─► bounded channel ─► batches ─► POST /logs, again until it is answered
//! ```
//! Every batch has an Idempotency-Key of its own: sent twice, it is stored once.

mod deliver;
mod event;
mod follow;
mod generate;
mod lines;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use deliver::{Delivery, Sent};
use follow::Source;

/// Events between the sources and the batch: with lines of at most 256 KiB some 64 MiB at worst.
const CHANNEL: usize = 256;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(10);
/// Time for what is held to be sent once the sender is to stop.
const FLUSH: Duration = Duration::from_secs(10);

/// Sends log lines to LoggerHub.
#[derive(Parser)]
#[command(name = "loggerhub-sender", version)]
struct Settings {
    /// Where to send to: the gateway or ingest, with or without `/logs`.
    #[arg(long)]
    url: String,
    /// File that holds the API key.
    #[arg(long)]
    key_file: PathBuf,
    /// A service and the file that it logs to; `-` is standard input. May stand several times.
    #[arg(long = "service", value_name = "NAME=PATH")]
    services: Vec<Source>,
    /// Stay when a file ends, also when it is rotated or begins anew.
    #[arg(long)]
    follow: bool,
    /// Begin a followed file at its start, not at its end.
    #[arg(long)]
    from_start: bool,
    /// Most events in a request.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Longest time that an event waits for its batch to fill.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    linger_ms: u64,
    /// Make up this many events and send them.
    #[arg(long, value_name = "COUNT")]
    generate: Option<u64>,
    /// Most events made up in a second.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    ensure!(
        settings.generate.is_some() || !settings.services.is_empty(),
        "give --service NAME=PATH or --generate COUNT"
    );
    let stop = runtime::shutdown::on_signal()?;
    let key = std::fs::read_to_string(&settings.key_file)
        .with_context(|| format!("read the key in {}", settings.key_file.display()))?;
    let give_up = CancellationToken::new();
    let delivery = Delivery::new(&settings.url, key.trim(), give_up.clone())?;

    let (events, mut waiting) = mpsc::channel(CHANNEL);
    let begin = if settings.follow && !settings.from_start { follow::Begin::AtEnd } else { follow::Begin::AtStart };
    for source in settings.services {
        follow::start(source, begin, settings.follow, events.clone(), stop.clone());
    }
    if let Some(count) = settings.generate {
        tokio::spawn(generate::run(count, settings.rate, events.clone(), stop.clone()));
    }
    // The channel ends with the last source.
    drop(events);

    let (batch, linger) = (settings.batch as usize, Duration::from_millis(settings.linger_ms));
    tokio::spawn(async move {
        stop.cancelled().await;
        tokio::time::sleep(FLUSH).await;
        give_up.cancel();
    });
    let sent = delivery.sent();
    let progress = tokio::spawn(async move {
        let mut tick = tokio::time::interval(PROGRESS);
        tick.tick().await;
        loop {
            tick.tick().await;
            eprintln!("{}", *sent.borrow());
        }
    });
    let sent: Sent = delivery.run(&mut waiting, batch, linger).await;
    progress.abort();
    eprintln!("{sent}");
    ensure!(sent.unsent == 0, "stopped with {} events unsent", sent.unsent);
    Ok(())
}
