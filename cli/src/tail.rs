//! `tail`: a tenant's events as they are stored.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::bail;
use api::parameters::EventChoice;
use api::routes;
use api::tail::{Ending, Frame, TailEvent};
use crds::tenant::Scope;
use futures::StreamExt;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::args::{Global, Output, TailArgs};
use crate::door::Door;
use crate::output;
use crate::search::with_query;

/// Silence after which a connection is given up: the gateway pings every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Tries to connect again, each after a longer pause, before it is given up: a rollout of the
/// gateway takes less than a minute.
const TRIES: u32 = 6;

/// Prints events until it is stopped. A connection that ends is opened again, to another pod if need be.
pub async fn run(global: &Global, args: TailArgs) -> anyhow::Result<()> {
    let path = with_query(routes::TAIL, &EventChoice { service: args.service.clone(), level: args.level.clone() });
    let mut failed = 0;
    loop {
        let watched = match Door::open(global, &args.api, &args.tenant, Scope::Query).await {
            Ok(door) => watch(&door, &path, global.output, &mut failed).await,
            Err(error) => Err(error),
        };
        match watched {
            // Before anything was heard it is a refusal, and no interruption.
            Err(error) if failed == 0 || failed > TRIES || output::is_closed_pipe(&error) => return Err(error),
            Err(error) => {
                eprintln!("the live tail was interrupted ({error:#}); connecting again: events may be missing")
            }
        }
        sleep(Duration::from_secs(1 << (failed - 1).min(4))).await;
        failed += 1;
    }
}

/// Prints until the connection ends. Sets `failed` to 1, the number of the next try, once it stands.
async fn watch(door: &Door, path: &str, form: Output, failed: &mut u32) -> anyhow::Result<Infallible> {
    let mut socket = door.socket(path).await?;
    loop {
        match timeout(SILENCE, socket.next()).await {
            Err(_) => bail!("nothing was heard for {} s", SILENCE.as_secs()),
            Ok(None) => bail!("the connection ended"),
            Ok(Some(Err(error))) => bail!("{error}"),
            Ok(Some(Ok(Message::Text(frame)))) => {
                *failed = 1;
                show(form, &frame)?;
            }
            Ok(Some(Ok(Message::Close(close)))) => {
                let (code, reason) =
                    close.map(|close| (u16::from(close.code), close.reason.to_string())).unwrap_or_default();
                if code == Ending::KeyRefused.code() {
                    // Another try would be refused for the same reason.
                    *failed = TRIES + 1;
                }
                bail!("closed by the server: {code} {reason}")
            }
            Ok(Some(Ok(_))) => {}
        }
    }
}

fn show(form: Output, sent: &str) -> anyhow::Result<()> {
    // An event as it came: as JSON, a number keeps all its digits.
    match Frame::<&RawValue>::read(sent)? {
        Some(Frame::Event { event }) => output::text(&match form {
            Output::Json => format!("{event}\n"),
            Output::Table => line(&serde_json::from_str(event.get())?),
        }),
        Some(Frame::Dropped { count }) => {
            eprintln!("{count} events were left out: this reader is too slow");
            Ok(())
        }
        Some(Frame::Notice { message, .. }) => {
            eprintln!("note: {}", output::harmless(&message));
            Ok(())
        }
        Some(Frame::Ready) | None => Ok(()),
    }
}

fn line(event: &TailEvent<'_>) -> String {
    let TailEvent { timestamp, level, service, message, .. } = event;
    let [time, level, service, message] = [timestamp, &**level, service, message].map(output::harmless);
    format!("{time} {level:<5} {service} {message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        let event = TailEvent {
            id: uuid::Uuid::nil(),
            timestamp: "2026-01-01T00:00:00.000001Z".into(),
            accepted_at: String::new(),
            tenant: "acme".into(),
            service: "shop".into(),
            application: None,
            level: "INFO".into(),
            message: "two\nlines\u{1b}[2J".into(),
            full_log: None,
            language: None,
            metadata: None,
            attributes: None,
            batch_id: uuid::Uuid::nil(),
            raw_path: None,
            indexed: false,
            flags: Vec::new(),
        };
        assert_eq!(line(&event), "2026-01-01T00:00:00.000001Z INFO  shop two lines [2J\n");
    }
}
