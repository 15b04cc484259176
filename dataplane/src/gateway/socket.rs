//! One socket of a live tail, from its first frame to its last.

use std::pin::pin;
use std::time::Duration;

use api::tail::{Ending, NoticeCode};
use axum::extract::ws::Message;
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::filter::Filter;
use super::frames::{close, dropped, notice, ready};
use super::tail::{SourceState, Subscription, TailEntry};

/// How often a socket is pinged and its key checked again: a revoked key ends its tails within the
/// five seconds that hold for every request.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// Silence after which a client is given up: ten pings unanswered.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// Longest wait for a client to read. Until then it only loses events.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a client to take the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Shows a tail on a socket until one side ends it. `admitted` says whether the key is still good.
pub(super) async fn run<S, E>(
    socket: S,
    mut tail: Subscription,
    filter: Filter,
    admitted: impl Fn() -> bool,
    stop: CancellationToken,
) where
    S: Stream<Item = Result<Message, E>> + Sink<Message>,
{
    let (mut sink, mut client) = socket.split();
    let mut view = View { filter, expected: None, was_live: false };
    let mut check = interval(CHECK_EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    tail.source.mark_changed();
    let ending = loop {
        let messages = tokio::select! {
            changed = tail.source.changed() => match changed {
                Ok(()) => view.source(*tail.source.borrow_and_update()),
                Err(_) => break Some(Ending::Stopping),
            },
            entry = tail.entries.recv() => match entry {
                Ok(entry) => view.entry(&entry),
                // The next entry's number says how many events are lost.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => break Some(Ending::Stopping),
            },
            message = client.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
            },
            _ = check.tick() => {
                if !admitted() {
                    break Some(Ending::KeyRefused);
                }
                if heard.elapsed() > IDLE_AFTER {
                    break Some(Ending::Idle);
                }
                vec![Message::Ping(axum::body::Bytes::new())]
            }
            () = stop.cancelled() => break Some(Ending::Stopping),
        };
        let sending = async {
            for message in messages {
                sink.feed(message).await?;
            }
            sink.flush().await
        };
        let mut sending = pin!(timeout(SEND_TIMEOUT, sending));
        // A client that reads slowly is heard all the same, and a revoked key is not shown the rest.
        let ended = loop {
            tokio::select! {
                sent = &mut sending => match sent {
                    Ok(Ok(())) => {
                        heard = Instant::now();
                        break None;
                    }
                    Ok(Err(_)) => break Some(None),
                    Err(_) => break Some(Some(Ending::TooSlow)),
                },
                message = client.next() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break Some(None),
                    Some(Ok(_)) => heard = Instant::now(),
                },
                _ = check.tick() => if !admitted() {
                    break Some(Some(Ending::KeyRefused));
                },
                () = stop.cancelled() => break Some(Some(Ending::Stopping)),
            }
        };
        if let Some(ending) = ended {
            break ending;
        }
    };
    let farewell = async {
        if let Some(ending) = ending {
            sink.send(close(ending)).await?;
        }
        sink.close().await
    };
    if !matches!(timeout(CLOSE_TIMEOUT, farewell).await, Ok(Ok(()))) {
        tracing::debug!("a client didn't take its close frame");
    }
}

/// What a socket has been shown, and what it is to be shown next.
struct View {
    filter: Filter,
    /// Number of the next event, once one has been shown.
    expected: Option<u64>,
    was_live: bool,
}

impl View {
    fn entry(&mut self, entry: &TailEntry) -> Vec<Message> {
        let lost = self.expected.map_or(0, |expected| entry.first.saturating_sub(expected));
        self.expected = Some(entry.first + entry.events.len() as u64 + entry.left_out);
        let mut messages = Vec::new();
        if lost > 0 {
            messages.push(dropped(lost));
        }
        let shown = entry.events.iter().filter(|event| self.filter.shows(event));
        messages.extend(shown.map(|event| Message::Text(event.frame.clone())));
        if entry.left_out > 0 {
            messages.push(dropped(entry.left_out));
        }
        messages
    }

    fn source(&mut self, state: SourceState) -> Vec<Message> {
        match state {
            SourceState::Starting => Vec::new(),
            SourceState::Live if !self.was_live => {
                self.was_live = true;
                vec![ready()]
            }
            SourceState::Live => {
                vec![notice(NoticeCode::TailResumed, "the live tail goes on; events between may be missing")]
            }
            SourceState::Interrupted => {
                vec![notice(NoticeCode::TailInterrupted, "the live tail is interrupted; it goes on by itself")]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::TailEvent;
    use super::*;

    fn entry(first: u64, services: &[&str]) -> TailEntry {
        let event = |service: &&str| TailEvent {
            id: uuid::Uuid::nil(),
            service: (*service).to_owned(),
            level: "INFO".to_owned(),
            frame: format!("frame of {service}").into(),
        };
        TailEntry { first, events: services.iter().map(event).collect(), left_out: 0 }
    }

    fn texts(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.to_text().unwrap()).collect()
    }

    fn view(services: &[&str]) -> View {
        let services = services.iter().map(|service| (*service).to_owned()).collect();
        View { filter: Filter { services, levels: Vec::new() }, expected: None, was_live: false }
    }

    #[test]
    fn a_gap_in_the_numbers_is_told_before_what_follows_it() {
        let mut view = view(&["api"]);
        assert_eq!(texts(&view.entry(&entry(7, &["api", "web"]))), ["frame of api"], "a late start loses nothing");
        assert_eq!(texts(&view.entry(&entry(9, &["web"]))), [""; 0]);
        let messages = view.entry(&entry(15, &["api"]));
        assert_eq!(texts(&messages), [r#"{"count":5,"type":"dropped"}"#, "frame of api"]);
    }

    #[test]
    fn what_the_processor_left_out_is_told_once() {
        let mut view = view(&[]);
        let first = TailEntry { left_out: 3, ..entry(0, &["api"]) };
        assert_eq!(texts(&view.entry(&first)), ["frame of api", r#"{"count":3,"type":"dropped"}"#]);
        assert_eq!(texts(&view.entry(&entry(4, &["web"]))), ["frame of web"]);
    }

    #[test]
    fn the_source_is_ready_once_and_then_only_noticed() {
        let mut view = view(&[]);
        for (state, said) in [
            (SourceState::Starting, ""),
            (SourceState::Interrupted, "tail_interrupted"),
            (SourceState::Live, "ready"),
            (SourceState::Interrupted, "tail_interrupted"),
            (SourceState::Live, "tail_resumed"),
        ] {
            let messages = view.source(state);
            let text = texts(&messages).concat();
            assert!(text.contains(said) && text.is_empty() == said.is_empty(), "{state:?}: {text}");
        }
    }
}
