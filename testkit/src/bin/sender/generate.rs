//! Events that nobody logged: as many as asked for, at most so many a second.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::event::{Event, timestamp};

/// Events made between two looks at the clock.
const AT_ONCE: u64 = 100;
const SERVICES: [&str; 4] = ["checkout", "payments", "catalogue", "mail"];

/// Makes events up until there are `count`, or `stop`. `metadata.run` is the same for all of them,
/// so that they can be counted afterwards.
pub(crate) async fn run(count: u64, rate: Option<u64>, events: mpsc::Sender<Event>, stop: CancellationToken) {
    let run = uuid::Uuid::now_v7().to_string();
    eprintln!("metadata.run of the generated events is {run}");
    let begun = Instant::now();
    for number in 0..count {
        if number % AT_ONCE == 0 {
            if stop.is_cancelled() {
                return;
            }
            if let Some(rate) = rate {
                sleep_until(begun + Duration::from_secs_f64(number as f64 / rate as f64)).await;
            }
        }
        // The delivery takes events as long as there is a sender.
        if events.send(event(number, &run)).await.is_err() {
            return;
        }
    }
}

fn event(number: u64, run: &str) -> Event {
    let service = SERVICES[(number % SERVICES.len() as u64) as usize];
    let took_ms = number.wrapping_mul(2_654_435_761) % 900;
    let (level, outcome) = match took_ms {
        0..800 => ("INFO", "done"),
        800..880 => ("WARN", "slow"),
        _ => ("ERROR", "timeout"),
    };
    Event {
        timestamp: timestamp(OffsetDateTime::now_utc()),
        service: service.to_owned(),
        level,
        message: format!("request {number} to /items/{} {outcome} after {took_ms} ms", number % 997),
        full_log: None,
        metadata: Some(json!({"run": run, "number": number})),
    }
}
