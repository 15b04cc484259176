//! An answer that holds its request's part of the budget until it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::ingest::accept::Arrival;

/// The response, whose body gives the request's part of the budget back when the connection is done with it.
pub(super) fn holding(arrival: Arrival, response: Response) -> Response {
    response.map(|body| Body::new(Holding { body, _arrival: arrival }))
}

struct Holding {
    body: Body,
    _arrival: Arrival,
}

impl HttpBody for Holding {
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
