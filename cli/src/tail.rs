//! `tail`: a tenant's events as they are stored.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::bail;
use api::event::Item;
use api::tail::{Ending, Frame, TailEvent};
use api::{Code, parameters, routes};
use crds::TenantName;
use crds::tenant::Scope;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::args::{ApiArgs, EventArgs, Global, Output, SearchArgs, TailArgs};
use crate::door::Door;
use crate::output;
use crate::search::{choice, newest, query, with_query};

/// Silence after which a connection is given up: the gateway pings every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Tries to connect again, each after a longer pause, before it is given up: a rollout of the
/// gateway takes less than a minute.
const TRIES: u32 = 6;

/// Prints events until it is stopped. A connection that ends is opened again, to another pod if need be, and goes on
/// after the last event that came.
pub async fn run(global: &Global, args: TailArgs) -> anyhow::Result<()> {
    Following {
        global,
        api: &args.api,
        tenant: &args.tenant,
        events: &args.events,
        newest: None,
        seen: Seen::default(),
    }
    .run()
    .await
}

/// Prints the newest events, and then those that are stored.
pub(crate) async fn follow(global: &Global, args: SearchArgs) -> anyhow::Result<()> {
    let (api, tenant, events) = (&args.api, &args.tenant, &args.events);
    Following { global, api, tenant, events, newest: Some(&args), seen: Seen::default() }.run().await
}

struct Following<'a> {
    global: &'a Global,
    api: &'a ApiArgs,
    tenant: &'a TenantName,
    events: &'a EventArgs,
    /// What to print once the tail is in place, so that nothing is missed between the two.
    newest: Option<&'a SearchArgs>,
    seen: Seen,
}

/// What was printed.
#[derive(Default)]
struct Seen {
    /// The last event of the tail.
    last: Option<Uuid>,
    /// Those that were found before.
    found: HashSet<Uuid>,
}

impl Following<'_> {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut failed = 0;
        loop {
            let watched = match Door::open(self.global, self.api, self.tenant, Scope::Query).await {
                Ok(door) => self.watch(&door, &mut failed).await,
                Err(error) => Err(error),
            };
            match watched {
                // Before anything was heard it is a refusal, and no interruption.
                Err(error) if failed == 0 || failed > TRIES || output::is_closed_pipe(&error) => return Err(error),
                Err(error) => {
                    if error.to_string().starts_with(Code::NotFound.as_str()) {
                        self.seen.last = None;
                    }
                    let missed = if self.seen.last.is_none() { ": events may be missing" } else { "" };
                    eprintln!("the live tail was interrupted ({error:#}); connecting again{missed}");
                }
            }
            sleep(Duration::from_secs(1 << (failed - 1).min(4))).await;
            failed += 1;
        }
    }

    fn path(&self) -> String {
        let (q, events) = (query(self.events), choice(self.events));
        with_query(routes::TAIL, &parameters::Tail { q, after: self.seen.last, events })
    }

    /// Prints until the connection ends. Sets `failed` to 1, the number of the next try, once it stands.
    async fn watch(&mut self, door: &Door, failed: &mut u32) -> anyhow::Result<Infallible> {
        let mut socket = door.socket(&self.path()).await?;
        loop {
            match timeout(SILENCE, socket.next()).await {
                Err(_) => bail!("nothing was heard for {} s", SILENCE.as_secs()),
                Ok(None) => bail!("the connection ended"),
                Ok(Some(Err(error))) => bail!("{error}"),
                Ok(Some(Ok(Message::Text(frame)))) => {
                    *failed = 1;
                    self.frame(door, &frame).await?;
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

    async fn frame(&mut self, door: &Door, sent: &str) -> anyhow::Result<()> {
        // An event as it came: as JSON, a number keeps all its digits.
        match Frame::<&RawValue>::read(sent)? {
            Some(Frame::Event { event }) => {
                #[derive(Deserialize)]
                struct Named {
                    id: Uuid,
                }
                let Named { id } = serde_json::from_str(event.get())?;
                self.seen.last = Some(id);
                if self.seen.found.remove(&id) {
                    return Ok(());
                }
                output::text(&shown(self.global.output, event)?)
            }
            Some(Frame::Dropped { count }) => {
                eprintln!("{count} events were left out: this reader is too slow");
                Ok(())
            }
            Some(Frame::Notice { message, .. }) => {
                eprintln!("note: {}", output::harmless(&message));
                Ok(())
            }
            Some(Frame::Ready) => match self.newest.take() {
                Some(args) => {
                    let (items, found) = newest(door, args).await?;
                    self.seen.found = found;
                    items.iter().try_for_each(|item| output::text(&of_list(self.global.output, item)?))
                }
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

fn is_json(form: Output) -> bool {
    matches!(form, Output::Json | Output::Ndjson)
}

fn shown(form: Output, event: &RawValue) -> anyhow::Result<String> {
    if is_json(form) {
        return Ok(format!("{event}\n"));
    }
    let TailEvent { timestamp, level, service, message, full_log, .. } = serde_json::from_str(event.get())?;
    let text = full_log.filter(|_| form == Output::Text).unwrap_or(message);
    Ok(line([&timestamp, &level, &service, &text]))
}

/// An event of a list, which has the beginning of its text.
fn of_list(form: Output, item: &Item) -> anyhow::Result<String> {
    if is_json(form) {
        return Ok(format!("{}\n", serde_json::to_string(item)?));
    }
    Ok(line([&item.timestamp, &item.level, &item.service, &item.message]))
}

fn line(parts: [&str; 4]) -> String {
    let [time, level, service, text] = parts.map(output::harmless);
    format!("{time} {level:<5} {service} {text}\n")
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
        let event = serde_json::value::to_raw_value(&event).unwrap();
        assert_eq!(shown(Output::Table, &event).unwrap(), "2026-01-01T00:00:00.000001Z INFO  shop two lines [2J\n");
    }
}
