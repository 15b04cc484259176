//! Reads a body: bounded as sent, bounded as decompressed, bounded in time, and paid for from the
//! budget while it grows.

use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::refusal::Refusal;
use crate::queue::Claim;
use crate::queue::entry::MAX_RAW_BYTES;

/// Longest body, as sent and as decompressed: Logstash sends up to 20 MiB at once, and an entry of
/// the queue holds one body.
pub(super) const MAX_BYTES: usize = MAX_RAW_BYTES;
/// Bytes for which room is made before they are there: what most shippers send at most. Memory that is
/// not written to costs nothing, and a body that comes whole is not moved while it grows.
const EXPECTED: u64 = 1024 * 1024;
/// Bytes taken from the decoder at once.
const CHUNK: usize = 64 * 1024;
/// Largest zstd window, as a power of two: the 8 MiB that RFC 9659 allows in HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;
/// What a byte of a body costs while it is in flight: itself, and its copy in the batch.
const COST: usize = 2;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Reads the headers. Several encodings, one over another, are refused: no shipper does that,
    /// and it multiplies what a small body can become.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut sent = headers.get_all(CONTENT_ENCODING).iter();
        let encoding = match (sent.next(), sent.next()) {
            (None, _) => return Ok(Self::Identity),
            (Some(only), None) => only.to_str().map_err(|_| Refusal::UnsupportedEncoding)?,
            (Some(_), Some(_)) => return Err(Refusal::UnsupportedEncoding),
        };
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Refusal::UnsupportedEncoding),
        }
    }
}

/// The body, decompressed.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    timeout: Duration,
    claim: &mut Claim,
) -> Result<Vec<u8>, Refusal> {
    let encoding = Encoding::of(headers)?;
    let declared = declared_length(headers).unwrap_or(0);
    if declared > MAX_BYTES as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let sent = match tokio::time::timeout(timeout, read_sent(body, declared.min(EXPECTED) as usize, claim)).await {
        Ok(sent) => sent?,
        Err(_) => return Err(Refusal::BodyTimeout { seconds: timeout.as_secs() }),
    };
    match encoding {
        Encoding::Identity => Ok(sent),
        Encoding::Gzip => {
            let mut decoder = GzipDecoder::new(sent.as_slice());
            decoder.multiple_members(true);
            decode(decoder, claim).await
        }
        Encoding::Zstd => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            decode(ZstdDecoder::with_params(sent.as_slice(), &window), claim).await
        }
    }
}

/// The length that the header says, as sent.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Bytes that the body has at least, once decompressed: compressed ones grow, so only a body that is
/// sent as it is tells more than one byte.
pub(super) fn least_length(headers: &HeaderMap) -> u64 {
    match Encoding::of(headers) {
        Ok(Encoding::Identity) => declared_length(headers).unwrap_or(1),
        _ => 1,
    }
}

/// The body as sent, of which so many bytes are expected.
async fn read_sent(body: Body, expected: usize, claim: &mut Claim) -> Result<Vec<u8>, Refusal> {
    let mut stream = body.into_data_stream();
    let mut sent = Vec::with_capacity(expected);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Refusal::BodyIncomplete)?;
        if sent.len() + chunk.len() > MAX_BYTES {
            return Err(Refusal::BodyTooLarge);
        }
        claim.grow(COST * chunk.len())?;
        sent.extend_from_slice(&chunk);
    }
    Ok(sent)
}

/// What a decoder makes of bytes that are all there. It never waits, so there are at most as many
/// decoders, each with a window of up to 8 MiB, as threads: a body that arrives slowly holds none.
async fn decode(mut decoder: impl AsyncRead + Unpin, claim: &mut Claim) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    loop {
        body.reserve(CHUNK);
        let before = body.len();
        if decoder.read_buf(&mut body).await.map_err(|_| Refusal::NotAsEncoded)? == 0 {
            return Ok(body);
        }
        if body.len() > MAX_BYTES {
            return Err(Refusal::DecompressedTooLarge);
        }
        claim.grow(COST * (body.len() - before))?;
    }
}
