//! One socket of a live tail, from its first frame to its last.

use std::collections::HashSet;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use api::tail::{Ending, NoticeCode};
use axum::extract::ws::{Message, Utf8Bytes};
use futures::{Sink, SinkExt, Stream, StreamExt};
use query::params::tail::Tail;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::filter::shows;
use super::frames::{close, dropped, notice, ready};
use super::history::{History, Step};
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
/// Bytes of frames that wait while the past is shown. The frames are shared by all sockets.
const HELD: usize = 16 * 1024 * 1024;
/// How long after the past what it had may come again by the tail: much longer than a processor takes from storing to
/// publishing.
const OVERLAP: Duration = Duration::from_secs(60);

/// Shows a tail on a socket until one side ends it: first the past, if any is asked for, then what is stored.
/// `admitted` says whether the key is still good.
pub(super) async fn run<E>(
    (mut sink, mut client): (impl Sink<Message> + Unpin, impl Stream<Item = Result<Message, E>> + Unpin),
    mut tail: Subscription,
    shown: Tail,
    mut history: Option<History>,
    admitted: impl Fn() -> bool,
    stop: CancellationToken,
) {
    let mut view = View::new(shown);
    let mut held = Held::default();
    let mut check = interval(CHECK_EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    tail.source.mark_changed();
    let ending = loop {
        let messages = tokio::select! {
            // Ready, it says, is what it is after the past.
            changed = tail.source.changed(), if history.is_none() => match changed {
                Ok(()) => view.source(*tail.source.borrow_and_update()),
                Err(_) => break Some(Ending::Stopping),
            },
            step = next(&mut history) => match step {
                Some(Step::Events(events)) => view.past(events),
                Some(Step::Cut(why)) => vec![notice(NoticeCode::HistoryCut, why)],
                None => {
                    history = None;
                    view.caught_up(std::mem::take(&mut held))
                }
            },
            entry = tail.entries.recv() => match entry {
                Ok(entry) if history.is_some() => {
                    held.push(entry);
                    continue;
                }
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
                view.forget_the_past();
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
                // While the past is sent, what is stored now waits.
                entry = tail.entries.recv(), if history.is_some() => match entry {
                    Ok(entry) => held.push(entry),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break Some(Some(Ending::Stopping)),
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

/// The next step of the past; never, if there is none.
async fn next(history: &mut Option<History>) -> Option<Step> {
    match history {
        Some(history) => history.steps.recv().await,
        None => pending().await,
    }
}

/// What is stored while the past is shown. What has no room is told as dropped: its number is missing.
#[derive(Default)]
struct Held {
    entries: Vec<TailEntry>,
    bytes: usize,
}

impl Held {
    fn push(&mut self, entry: TailEntry) {
        self.bytes += entry.events.iter().map(|event| event.frame.len()).sum::<usize>();
        if self.bytes <= HELD || self.entries.is_empty() {
            self.entries.push(entry);
        }
    }
}

/// What a socket has been shown, and what it is to be shown next.
struct View {
    shown: Tail,
    /// Number of the next event, once one has been shown.
    expected: Option<u64>,
    was_live: bool,
    /// What was shown of the past, with the event that it began after, and since when that is over.
    past: HashSet<Uuid>,
    over_since: Option<Instant>,
}

impl View {
    fn new(shown: Tail) -> Self {
        let past = shown.after.into_iter().collect();
        Self { shown, expected: None, was_live: false, past, over_since: None }
    }

    fn past(&mut self, events: Vec<(Uuid, Utf8Bytes)>) -> Vec<Message> {
        let new = events.into_iter().filter(|(id, _)| self.past.insert(*id));
        new.map(|(_, frame)| Message::Text(frame)).collect()
    }

    fn caught_up(&mut self, held: Held) -> Vec<Message> {
        self.over_since = Some(Instant::now());
        held.entries.iter().flat_map(|entry| self.entry(entry)).collect()
    }

    fn forget_the_past(&mut self) {
        if self.over_since.is_some_and(|since| since.elapsed() > OVERLAP) {
            self.past = HashSet::new();
        }
    }

    fn entry(&mut self, entry: &TailEntry) -> Vec<Message> {
        let lost = self.expected.map_or(0, |expected| entry.first.saturating_sub(expected));
        self.expected = Some(entry.first + entry.events.len() as u64 + entry.left_out);
        let mut messages = Vec::new();
        if lost > 0 {
            messages.push(dropped(lost));
        }
        let new = entry.events.iter().filter(|event| !self.past.contains(&event.id) && shows(&self.shown, event));
        messages.extend(new.map(|event| Message::Text(event.frame.clone())));
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
        let event = |service: &&str| {
            let frame = format!("frame of {service}").into();
            TailEvent::new(uuid::Uuid::from_u128(first.into()), (*service).to_owned(), "INFO".to_owned(), frame)
        };
        TailEntry { first, events: services.iter().map(event).collect(), left_out: 0 }
    }

    fn texts(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.to_text().unwrap()).collect()
    }

    fn view(services: &[&str]) -> View {
        let mut shown = Tail::default();
        shown.filters.services = services.iter().map(|service| (*service).to_owned()).collect();
        View::new(shown)
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
    fn what_the_past_had_is_not_shown_again() {
        let mut view = view(&[]);
        let past = |id| (Uuid::from_u128(id), format!("past {id}").into());
        assert_eq!(texts(&view.past(vec![past(7), past(8), past(7)])), ["past 7", "past 8"]);
        let mut held = Held::default();
        held.push(entry(7, &["api"]));
        held.push(entry(8, &["web"]));
        held.push(entry(9, &["new"]));
        assert_eq!(texts(&view.caught_up(held)), ["frame of new"]);
        assert_eq!(texts(&view.entry(&entry(8, &["api"]))), [""; 0], "published late");
    }

    #[test]
    fn what_has_no_room_beside_the_past_is_told() {
        let mut held = Held::default();
        let large = || {
            let frame = "x".repeat(HELD / 2 + 1).into();
            TailEvent::new(Uuid::nil(), String::new(), String::new(), frame)
        };
        for first in 0..4 {
            held.push(TailEntry { first, events: [large()].into(), left_out: 0 });
        }
        let mut view = view(&[]);
        assert_eq!(view.caught_up(held).len(), 1);
        assert_eq!(texts(&view.entry(&entry(4, &["api"]))), [r#"{"count":3,"type":"dropped"}"#, "frame of api"]);
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
