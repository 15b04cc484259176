//! `tail`: a tenant's events as they are stored.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::bail;
use crds::tenant::Scope;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::args::{Global, Output, TailArgs};
use crate::door::Door;
use crate::output;
use crate::search::{encoded, text};

/// Silence after which a connection is given up: the gateway pings every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Tries to connect again, each after a longer pause, before it is given up: a rollout of the
/// gateway takes less than a minute.
const TRIES: u32 = 6;

/// Prints events until it is stopped. A connection that ends is opened again, to another pod if need be.
pub async fn run(global: &Global, args: TailArgs) -> anyhow::Result<()> {
    let mut pairs: Vec<(&str, String)> = args.service.iter().map(|service| ("service", service.clone())).collect();
    pairs.extend(args.level.iter().map(|level| ("level", level.clone())));
    let path = format!("/ws/logs?{}", encoded(&pairs));
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
                if code == 4401 {
                    // Another try would be refused for the same reason.
                    *failed = TRIES + 1;
                }
                bail!("closed by the server: {code} {reason}")
            }
            Ok(Some(Ok(_))) => {}
        }
    }
}

/// A frame's event as it came: a number keeps all its digits.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
}

fn as_json(frame: &str) -> anyhow::Result<String> {
    let Event { event } = serde_json::from_str(frame)?;
    Ok(format!("{}\n", event.get()))
}

fn show(form: Output, sent: &str) -> anyhow::Result<()> {
    let frame: Value = serde_json::from_str(sent)?;
    match (frame["type"].as_str(), form) {
        (Some("event"), Output::Json) => output::text(&as_json(sent)?),
        (Some("event"), Output::Table) => output::text(&line(&frame["event"])),
        (Some("dropped"), _) => {
            eprintln!("{} events were left out: this reader is too slow", frame["count"]);
            Ok(())
        }
        (Some("notice"), _) => {
            eprintln!("note: {}", output::harmless(&text(&frame, "message")));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn line(event: &Value) -> String {
    let [time, level, service, message] =
        ["timestamp", "level", "service", "message"].map(|field| output::harmless(&text(event, field)));
    format!("{time} {level:<5} {service} {message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_as_json_keeps_its_digits() {
        let frame = r#"{"type":"event","event":{"id":"x","metadata":{"wei":12345678901234567890123,"p":1.10}}}"#;
        let expected = r#"{"id":"x","metadata":{"wei":12345678901234567890123,"p":1.10}}"#;
        assert_eq!(as_json(frame).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn an_event_is_one_harmless_line() {
        let event = json!({"timestamp": "2026-01-01T00:00:00.000001Z", "level": "INFO", "service": "shop",
            "message": "two\nlines\u{1b}[2J", "id": "x"});
        assert_eq!(line(&event), "2026-01-01T00:00:00.000001Z INFO  shop two lines [2J\n");
    }
}
