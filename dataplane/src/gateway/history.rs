//! What was stored before a tail is live: read from the role search with the watcher's own key.
//!
//! The tail is in place before the first look, so what is stored later comes by it. What comes both ways is shown once;
//! see [`super::socket`].

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use api::routes::STORED;
use api::tail::Stored;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::extract::ws::Utf8Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use runtime::http::refusal;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::Instrument;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::forward::Upstream;
use super::frames::frame;
use super::tail::{SourceState, Subscription};

/// Events that are shown of the past: more than a reconnect misses, and less than an export is for.
const SHOWN: usize = 10_000;
/// Looks at the stores: with a query that finds nothing, some million lines.
const LOOKS: usize = 500;
/// Longest answer of search: it looks at 4 MiB of lines at once, or at one line, and escapes what it shows.
const ANSWER: usize = 32 * 1024 * 1024;
/// Longest wait for the tail to be in place.
const IN_PLACE: Duration = Duration::from_secs(3);
/// How often search is asked before the past is given up, and how long between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// Headers that say who asks.
const WHO: [&str; 6] = ["authorization", "x-api-key", "x-scope-orgid", "x-tenant", "traceparent", "tracestate"];

/// Said where there is more.
const TOO_MUCH: &str = "more was stored in between than a tail shows; GET /api/export has all of it";
/// Said where it can't be read.
const UNREADABLE: &str = "what was stored in between can't be read now, or not all of it; GET /api/export has it later";

/// The past, as it is read.
pub(super) struct History {
    /// Some more of it; closed at its end.
    pub(super) steps: mpsc::Receiver<Step>,
}

/// Something to show of the past.
pub(super) enum Step {
    /// Events and their frames.
    Events(Vec<(Uuid, Utf8Bytes)>),
    /// Not all of it is shown.
    Cut(&'static str),
}

/// Whom to ask, as whom, and for what.
pub(super) struct Asking {
    pub(super) search: Upstream,
    pub(super) headers: HeaderMap,
    pub(super) peer: SocketAddr,
    /// The tail's own parameters.
    pub(super) pairs: Vec<(String, String)>,
}

/// Begins with what was stored after an event. What search refuses is refused.
pub(super) async fn begin(asking: Asking, after: Uuid, tail: &mut Subscription) -> Result<History, Response> {
    // Without Redis there is no live part, and the past is shown all the same.
    if timeout(IN_PLACE, tail.source.wait_for(|state| *state != SourceState::Starting)).await.is_err() {
        tracing::debug!("show what was stored before the tail is in place");
    }
    let known = tail.shown_until(after).unwrap_or_default();
    let oldest = known.first().map(|id| ("oldest".to_owned(), id.to_string()));
    let first: Vec<_> = [("after".to_owned(), after.to_string())].into_iter().chain(oldest).collect();
    let mut past = Past { asking, known: known.into_iter().collect(), left: SHOWN, is_cut: false };
    let begun = past.look(&first).await?;
    let (sender, steps) = mpsc::channel(1);
    tokio::spawn(past.run(begun, sender).in_current_span());
    Ok(History { steps })
}

struct Past {
    asking: Asking,
    /// What was shown before.
    known: HashSet<Uuid>,
    /// How many more events are shown, and whether there were more.
    left: usize,
    is_cut: bool,
}

/// One look: events, and where to go on.
type Look = (Vec<(Uuid, Utf8Bytes)>, Option<String>);

impl Past {
    /// Shows what there is, until it is all, or too much, or nobody watches.
    async fn run(mut self, first: Look, out: mpsc::Sender<Step>) {
        let (mut events, mut next) = first;
        for look in 0.. {
            if !events.is_empty() && out.send(Step::Events(events)).await.is_err() {
                return;
            }
            let place = match next {
                None if !self.is_cut => return,
                place => place.unwrap_or_default(),
            };
            let found = if self.is_cut || self.left == 0 || look == LOOKS {
                Err(TOO_MUCH)
            } else {
                self.look_patiently(&place).await.map_err(|()| UNREADABLE)
            };
            match found {
                Ok(found) => (events, next) = found,
                Err(why) => {
                    if out.send(Step::Cut(why)).await.is_err() {
                        tracing::debug!("nobody watches any more");
                    }
                    return;
                }
            }
        }
    }

    async fn look_patiently(&mut self, place: &str) -> Result<Look, ()> {
        let from = [("next".to_owned(), place.to_owned())];
        for _ in 1..TRIES {
            match self.look(&from).await {
                Ok(found) => return Ok(found),
                Err(refused) => tracing::debug!(status = %refused.status(), "search refuses what was stored"),
            }
            sleep(PAUSE).await;
        }
        self.look(&from).await.map_err(|_| ())
    }

    async fn look(&mut self, from: &[(String, String)]) -> Result<Look, Response> {
        let Asking { search, headers, peer, pairs } = &self.asking;
        let own = pairs.iter().filter(|(name, _)| name != "after");
        let query = Serializer::new(String::new()).extend_pairs(own.chain(from)).finish();
        let mut request = Request::get(format!("{STORED}?{query}")).body(Body::empty()).map_err(|error| {
            tracing::error!(%error, "ask for what was stored");
            unreadable()
        })?;
        for name in WHO {
            for value in headers.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        let answer = search.forward(request, *peer).await;
        if answer.status() != StatusCode::OK {
            return Err(answer);
        }
        let body = to_bytes(answer.into_body(), ANSWER).await.map_err(|_| unreadable())?;
        let stored: Stored<&RawValue> = serde_json::from_slice(&body).map_err(|error| {
            tracing::error!(%error, "read what was stored");
            unreadable()
        })?;
        let mut events = Vec::new();
        for event in stored.events {
            #[derive(Deserialize)]
            struct Named {
                id: Uuid,
            }
            let Ok(Named { id }) = serde_json::from_str(event.get()) else { continue };
            if self.known.contains(&id) {
                continue;
            }
            if self.left == 0 {
                self.is_cut = true;
                break;
            }
            self.left -= 1;
            events.push((id, frame(event.get())));
        }
        Ok((events, stored.next))
    }
}

fn unreadable() -> Response {
    refusal(api::Code::UpstreamFailed, UNREADABLE).into_response()
}
