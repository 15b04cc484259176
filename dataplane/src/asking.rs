//! Asks LoggerHub as a tenant does, over HTTP and with a key: what `smoke` and `canary` have in common.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::event::{Listing, Source};
use api::sent::Sent;
use api::{Refusal, routes};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::gateway::forward::Upstream;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest answer that is read: a page of one event is a thousandth of it.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest file that can be a key's.
const MAX_KEY: usize = 512;

/// What follows from one answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// That is it.
    Done(T),
    /// Not yet, and why.
    Again(String),
}

/// A word that is in no other event: letters only, so that no stage takes it for a number.
pub(crate) fn marker(prefix: &str) -> String {
    let letter = |byte: u8| [byte >> 4, byte & 15].map(|nibble| char::from(b'a' + nibble));
    prefix.chars().chain(Uuid::now_v7().into_bytes().into_iter().flat_map(letter)).collect()
}

/// The key as a header's value that no log shows.
pub(crate) fn bearer(text: &str) -> anyhow::Result<HeaderValue> {
    let key = text.trim();
    ensure!(!key.is_empty() && key.len() <= MAX_KEY, "holds no API key");
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).context("holds no API key")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Attempts until one is done or the time is over; then, what the last one said.
pub(crate) async fn until<T>(
    deadline: Instant,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<Step<T>>,
) -> anyhow::Result<Step<T>> {
    let mut last = "no answer came".to_owned();
    while let Ok(step) = timeout_at(deadline, attempt()).await {
        match step? {
            Step::Done(done) => return Ok(Step::Done(done)),
            Step::Again(why) => last = why,
        }
        sleep(PAUSE).await;
    }
    Ok(Step::Again(last))
}

/// The request that sends one event; sent again under the same key, it is the same event.
pub(crate) fn sending(event: &Sent, key: &str) -> anyhow::Result<Request> {
    let request = Request::post(routes::LOGS).header(CONTENT_TYPE, "application/json").header("idempotency-key", key);
    Ok(request.body(Body::from(serde_json::to_string(event)?))?)
}

/// A request that only reads.
pub(crate) fn getting(path: &str) -> anyhow::Result<Request> {
    Ok(Request::get(path).body(Body::empty())?)
}

/// Status and body. A role that can't be reached answers 503, as behind the gateway.
pub(crate) async fn ask(
    role: &Upstream,
    mut request: Request,
    key: &HeaderValue,
) -> anyhow::Result<(StatusCode, Bytes)> {
    request.headers_mut().insert(AUTHORIZATION, key.clone());
    let response = role.forward(request, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let status = response.status();
    Ok((status, to_bytes(response.into_body(), MAX_ANSWER).await.context("read the answer")?))
}

/// What follows from the answer to an event.
pub(crate) fn after_sending((status, body): (StatusCode, Bytes)) -> anyhow::Result<Step<()>> {
    if status.is_success() { Ok(Step::Done(())) } else { refused("ingest", status, &body) }
}

/// What follows from a page of events: whether the one with this word is among them, and by which store.
pub(crate) fn after_looking((status, body): (StatusCode, Bytes), marker: &str) -> anyhow::Result<Step<Source>> {
    if !status.is_success() {
        return refused("the gateway", status, &body);
    }
    let Ok(page) = serde_json::from_slice::<Listing>(&body) else {
        return Ok(Step::Again("search answers with no page of events".to_owned()));
    };
    let found = page.messages().iter().any(|message| message.contains(marker));
    let source = page.source;
    Ok(if found { Step::Done(source) } else { Step::Again(format!("{source} does not know the event")) })
}

/// A refusal that passes, or one that does not.
fn refused<T>(who: &str, status: StatusCode, body: &[u8]) -> anyhow::Result<Step<T>> {
    let said = match Refusal::read(body) {
        Some(Refusal { error }) => format!("{who} answers {status} ({}): {}", error.code, error.message),
        None => format!("{who} answers {status} (no code): no message"),
    };
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Step::Again(said));
    }
    bail!(said)
}

/// A page with events of these messages.
#[cfg(test)]
pub(crate) fn listing(source: Source, messages: &[&str]) -> Listing {
    let item = |message: &&str| api::event::Item {
        id: Uuid::nil(),
        timestamp: String::new(),
        accepted_at: String::new(),
        tenant: String::new(),
        service: String::new(),
        application: None,
        level: String::new(),
        message: (*message).to_owned(),
        language: None,
        batch_id: Uuid::nil(),
        raw_path: None,
        indexed: true,
        flags: Vec::new(),
    };
    let items = messages.iter().map(item).collect();
    Listing { items, next_cursor: None, source, complete: true, notice: None, scanned: None }
}

#[cfg(test)]
mod tests {
    use api::Code;

    use super::*;

    const KEY: &str = "lh_0000000000000000_secret";

    #[test]
    fn a_refusal_that_passes_is_asked_again_and_another_is_the_end() {
        for (status, again) in [(503, true), (500, true), (429, true), (401, false), (403, false), (404, false)] {
            let refusal = serde_json::to_string(&Refusal::new(Code::Internal, "why")).unwrap();
            let step = after_sending((StatusCode::from_u16(status).unwrap(), refusal.into()));
            assert_eq!(step.is_ok_and(|step| matches!(step, Step::Again(_))), again, "{status}");
        }
        assert_eq!(after_sending((StatusCode::ACCEPTED, Bytes::new())).unwrap(), Step::Done(()));
    }

    #[test]
    fn only_the_event_itself_is_found() {
        let page = |messages: &[&str]| serde_json::to_string(&listing(Source::Index, messages)).unwrap();
        let after = |body: String| after_looking((StatusCode::OK, body.into()), "smoke1").unwrap();
        assert_eq!(after(page(&["smoke1 of loggerhub smoke"])), Step::Done(Source::Index));
        for other in [page(&["smoke2 of loggerhub smoke"]), page(&[]), String::new()] {
            assert!(matches!(after(other.clone()), Step::Again(_)), "{other}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_sent() {
        assert_eq!(bearer(&format!("{KEY}\n")).unwrap(), format!("Bearer {KEY}"));
        for wrong in ["", " \n", "two\nlines", &"x".repeat(MAX_KEY + 1)] {
            assert!(bearer(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_marker_is_a_word_of_letters_and_no_other_is_like_it() {
        let (one, other) = (marker("canary"), marker("canary"));
        assert!(one.starts_with("canary") && one.chars().all(|c| c.is_ascii_lowercase()), "{one}");
        assert_ne!(one, other);
    }
}
