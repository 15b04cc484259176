//! What becomes of a body that nobody read to its end.
//!
//! hyper closes the connection of such a request after the answer, unless the rest is there already. A client that sends
//! its next request on it at that moment never learns whether somebody took that one. So a rest that is small is waited
//! for, for a moment, and where it does not come the answer says that it is the last.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::last;

/// Longest rest that is waited for: what a client sends at once with the head.
const REST: u64 = 64 * 1024;
/// Longest wait for it.
const MOMENT: Duration = Duration::from_millis(200);

/// Ends the connection of a request whose body does not end.
pub(super) async fn unread(request: Request, next: Next) -> Response {
    // A client that waits for a 100 must not be asked for a body that nobody wants.
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let rest = Rest::default();
    let request = request.map(|body| Body::new(Read { body, rest: rest.clone() }));
    let response = next.run(request).await;
    let left = rest.lock().unwrap_or_else(PoisonError::into_inner).take();
    let goes_on = match left {
        Some(body) => body.is_end_stream() || ends(body).await,
        None => false,
    };
    if goes_on { response } else { last(response) }
}

/// The body once its reader has left it.
type Rest = Arc<Mutex<Option<Body>>>;

/// Whether a body ends within a moment.
async fn ends(mut body: Body) -> bool {
    let mut left = REST;
    let reading = async {
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(length) else { return false };
            left = rest;
        }
        true
    };
    tokio::time::timeout(MOMENT, reading).await.unwrap_or(false)
}

struct Read {
    body: Body,
    rest: Rest,
}

impl Drop for Read {
    fn drop(&mut self) {
        let body = std::mem::replace(&mut self.body, Body::empty());
        if body.size_hint().lower() <= REST {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl HttpBody for Read {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::header::CONNECTION;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    /// A body that does not come.
    struct Never;

    impl HttpBody for Never {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_connection_goes_on_only_if_the_body_ends_soon() {
        let router = Router::new()
            .route("/read", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/unread", post(|| async { "refused" }))
            .layer(axum::middleware::from_fn(unread));
        let long = "x".repeat(REST as usize + 1);
        for (path, body, expect, is_last) in [
            ("/read", Some("x"), false, false),
            ("/read", Some("x"), true, false),
            ("/unread", Some(""), false, false),
            ("/unread", Some("x"), false, false),
            ("/unread", Some("x"), true, false),
            ("/unread", Some(long.as_str()), false, true),
            ("/unread", None, false, true),
        ] {
            let body_of = |text: &str| Body::from(text.to_owned());
            let mut request = Request::post(path).body(body.map_or_else(|| Body::new(Never), body_of)).unwrap();
            if expect {
                request.headers_mut().insert(EXPECT, "100-continue".parse().unwrap());
            }
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers().contains_key(CONNECTION), is_last, "{path} {body:?} {expect}");
        }
    }
}
