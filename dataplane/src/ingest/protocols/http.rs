//! What protocols over HTTP share: who a request is, its body, and what an answer says of quotas and refusals.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures::StreamExt;
use runtime::http::{after, refusal};

use super::holding::holding;
use crate::ingest::accept::{Arrival, Encoding, IdempotencyKey, Intake, Packed, Refusal};
use crate::ingest::limits::MAX_BYTES;

/// Bytes for which room is made before they are there: what most shippers send at most. Memory that is
/// not written to costs nothing, and a body that comes whole is not moved while it grows.
const EXPECTED: u64 = 1024 * 1024;

/// The way in, for protocols over HTTP. Cheap to clone.
#[derive(Clone)]
pub(in crate::ingest) struct Http {
    pub(in crate::ingest) intake: Intake,
    /// Time for a whole body to arrive.
    pub(in crate::ingest) body_timeout: Duration,
}

impl Http {
    /// Who sends this request.
    pub(super) fn arrive(&self, headers: &HeaderMap) -> Result<Arrival, Refusal> {
        self.intake.arrive(self.intake.registry().authenticate(headers))
    }

    /// The body of a request, unless it is foreseeable that it will be refused.
    pub(super) async fn read(&self, arrival: &mut Arrival, headers: &HeaderMap, body: Body) -> Result<Packed, Refusal> {
        self.intake.admit(arrival, least_length(headers))?;
        read(headers, body, self.body_timeout, |bytes| arrival.hold(bytes)).await
    }

    /// The answer, with what is left of the tenant's quotas. It holds the request's part of the budget until it is sent.
    pub(super) fn answer(&self, arrival: Option<Arrival>, mut response: Response) -> Response {
        let Some(arrival) = arrival else { return response };
        if let Some(left) = self.intake.quota_left(&arrival) {
            for (name, value) in [("ratelimit-policy", left.policy), ("ratelimit", left.limits)] {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().insert(name, value);
                }
            }
        }
        holding(arrival, response)
    }
}

/// A refusal as a response, as our own API says it. Other protocols take its status and say it in their words.
pub(super) fn refused(refused: &Refusal) -> Response {
    let response = refusal(refused.code(), refused.to_string());
    match refused.retry_after_seconds() {
        Some(seconds) => after(response, seconds),
        None => response,
    }
}

/// The client's name for this batch, if it gives one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey<'_>>, Refusal> {
    let mut sent = headers.get_all("idempotency-key").iter().map(HeaderValue::as_bytes);
    match (sent.next(), sent.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => IdempotencyKey::parse(key).map(Some),
        (Some(_), Some(_)) => Err(Refusal::InvalidIdempotencyKey),
    }
}

/// Reads a body: bounded as sent, bounded in time, and held while it grows.
pub(in crate::ingest) async fn read(
    headers: &HeaderMap,
    body: Body,
    timeout: Duration,
    hold: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Packed, Refusal> {
    let encoding = encoding(headers)?;
    let declared = declared_length(headers).unwrap_or(0);
    if declared > MAX_BYTES as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    match tokio::time::timeout(timeout, read_sent(body, declared.min(EXPECTED) as usize, hold)).await {
        Ok(sent) => Ok(Packed::new(encoding, sent?)),
        Err(_) => Err(Refusal::BodyTimeout { seconds: timeout.as_secs() }),
    }
}

/// How the body is packed. Several encodings, one over another, are refused: no shipper does that,
/// and it multiplies what a small body can become.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let mut sent = headers.get_all(CONTENT_ENCODING).iter();
    let encoding = match (sent.next(), sent.next()) {
        (None, _) => return Ok(Encoding::Identity),
        (Some(only), None) => only.to_str().map_err(|_| Refusal::UnsupportedEncoding)?,
        (Some(_), Some(_)) => return Err(Refusal::UnsupportedEncoding),
    };
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        _ => Err(Refusal::UnsupportedEncoding),
    }
}

/// The length that the header says, as sent.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Bytes that the body has at least, once unpacked: packed ones grow, so only a body that is
/// sent as it is tells more than one byte.
fn least_length(headers: &HeaderMap) -> u64 {
    match encoding(headers) {
        Ok(Encoding::Identity) => declared_length(headers).unwrap_or(1),
        Ok(Encoding::Gzip | Encoding::Zstd) | Err(_) => 1,
    }
}

/// The body as sent, of which so many bytes are expected.
async fn read_sent(
    body: Body,
    expected: usize,
    mut hold: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let mut stream = body.into_data_stream();
    let mut sent = Vec::with_capacity(expected);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Refusal::BodyIncomplete)?;
        if sent.len() + chunk.len() > MAX_BYTES {
            return Err(Refusal::BodyTooLarge);
        }
        hold(chunk.len())?;
        sent.extend_from_slice(&chunk);
    }
    Ok(sent)
}
