//! A live tail as server-sent events: what a socket would be sent, as text that `curl -N` shows.

use std::convert::Infallible;
use std::pin::Pin;

use api::tail::Ending;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures::{Sink, SinkExt, Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::{PollSendError, PollSender};
use uuid::Uuid;

use super::frames::BEFORE_EVENT;

/// Texts that wait for the client; each is an event at most.
const WAITING: usize = 16;

/// Where a socket's messages go.
pub(super) type Out = Pin<Box<dyn Sink<Message, Error = PollSendError<Bytes>> + Send>>;
/// What a client says: nothing, until it leaves.
pub(super) type Client = Pin<Box<dyn Stream<Item = Result<Message, ()>> + Send>>;

/// A response, and the two ends of a socket for the task that fills it.
pub(super) fn open() -> (Response, Out, Client) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<Bytes, Infallible>(bytes), receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy of nginx's kind would gather them.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    let leaving = sender.clone();
    let client = stream::once(async move {
        leaving.closed().await;
        Err(())
    });
    let out = PollSender::new(sender).with(|message| async move { Ok(text(&message).into()) });
    (response, Box::pin(out), Box::pin(client))
}

/// A message as it is sent.
fn text(message: &Message) -> String {
    match message {
        Message::Text(frame) => of_frame(frame),
        // A comment: it shows whether the client is still there.
        Message::Ping(_) => ":\n\n".to_owned(),
        Message::Close(close) => of_close(close.as_ref()),
        Message::Pong(_) | Message::Binary(_) => String::new(),
    }
}

fn of_frame(frame: &str) -> String {
    #[derive(Deserialize)]
    struct Typed<'a> {
        r#type: &'a str,
    }
    #[derive(Deserialize)]
    struct Named {
        id: Uuid,
    }
    let event = frame.strip_prefix(BEFORE_EVENT).and_then(|rest| rest.strip_suffix('}'));
    match event {
        Some(event) => match serde_json::from_str(event) {
            Ok(Named { id }) => format!("id: {id}\ndata: {event}\n\n"),
            Err(_) => format!("data: {event}\n\n"),
        },
        None => match serde_json::from_str(frame) {
            Ok(Typed { r#type }) => format!("event: {type}\ndata: {frame}\n\n"),
            Err(_) => String::new(),
        },
    }
}

fn of_close(close: Option<&CloseFrame>) -> String {
    let (code, reason) = match close {
        Some(close) => (close.code, close.reason.as_str()),
        None => (Ending::Stopping.code(), Ending::Stopping.reason()),
    };
    format!("event: end\ndata: {}\n\n", json!({"code": code, "reason": reason}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::frames;

    #[test]
    fn a_message_is_an_event_with_its_id_or_has_a_name() {
        let id = Uuid::from_u128(7);
        let event = format!(r#"{{"id":"{id}","message":"a\nb"}}"#);
        for (message, expected) in [
            (Message::Text(frames::frame(&event)), format!("id: {id}\ndata: {event}\n\n")),
            (frames::ready(), "event: ready\ndata: {\"type\":\"ready\"}\n\n".to_owned()),
            (frames::dropped(5), "event: dropped\ndata: {\"count\":5,\"type\":\"dropped\"}\n\n".to_owned()),
            (Message::Ping(Bytes::new()), ":\n\n".to_owned()),
            (
                frames::close(Ending::TooSlow),
                "event: end\ndata: {\"code\":4429,\"reason\":\"too_slow\"}\n\n".to_owned(),
            ),
        ] {
            assert_eq!(text(&message), expected);
        }
    }
}
