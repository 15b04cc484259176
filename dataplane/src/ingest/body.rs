//! Reads a body: bounded as sent, bounded as decompressed, bounded in time, and paid for from the
//! budget while it grows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::refusal::Refusal;
use crate::queue::Claim;
use crate::queue::entry::MAX_RAW_BYTES;

/// Longest body, as sent and as decompressed: Logstash sends up to 20 MiB at once, and an entry of
/// the queue holds one body.
pub(super) const MAX_BYTES: usize = MAX_RAW_BYTES;
/// Longest wait for a whole body: 20 MiB at 700 KiB/s.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
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
pub(super) async fn read(headers: &HeaderMap, body: Body, claim: &mut Claim) -> Result<Vec<u8>, Refusal> {
    let encoding = Encoding::of(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BYTES as u64) {
        return Err(Refusal::BodyTooLarge);
    }
    match tokio::time::timeout(TIMEOUT, read_encoded(encoding, body, claim)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::BodyTimeout),
    }
}

async fn read_encoded(encoding: Encoding, body: Body, claim: &mut Claim) -> Result<Vec<u8>, Refusal> {
    let sent = Sent::default();
    let stream = StreamReader::new(sent.watch(body.into_data_stream()));
    let read = match encoding {
        Encoding::Identity => read_all(stream, claim, Refusal::BodyTooLarge).await,
        Encoding::Gzip => {
            let mut decoder = GzipDecoder::new(stream);
            decoder.multiple_members(true);
            read_all(decoder, claim, Refusal::DecompressedTooLarge).await
        }
        Encoding::Zstd => {
            let decoder = ZstdDecoder::with_params(stream, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)]);
            read_all(decoder, claim, Refusal::DecompressedTooLarge).await
        }
    };
    match read {
        // What the decoder makes of a body that broke off or is too long is not its own fault.
        Err(Refusal::NotAsEncoded) if sent.too_long.load(Ordering::Relaxed) => Err(Refusal::BodyTooLarge),
        Err(Refusal::NotAsEncoded) if sent.broken.load(Ordering::Relaxed) => Err(Refusal::BodyIncomplete),
        read => read,
    }
}

async fn read_all(mut from: impl AsyncRead + Unpin, claim: &mut Claim, too_large: Refusal) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    loop {
        body.reserve(CHUNK);
        let before = body.len();
        if from.read_buf(&mut body).await.map_err(|_| Refusal::NotAsEncoded)? == 0 {
            return Ok(body);
        }
        if body.len() > MAX_BYTES {
            return Err(too_large);
        }
        claim.grow(COST * (body.len() - before))?;
    }
}

/// What became of the body as sent, beneath the decoder.
#[derive(Default, Clone)]
struct Sent {
    too_long: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

impl Sent {
    /// The same stream, ending in an error where it gets too long.
    fn watch<E>(
        &self,
        stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> impl Stream<Item = io::Result<Bytes>> + Unpin {
        let Self { too_long, broken } = self.clone();
        let mut total = 0;
        stream.map(move |chunk| {
            let chunk = chunk.map_err(|_| {
                broken.store(true, Ordering::Relaxed);
                io::Error::from(io::ErrorKind::UnexpectedEof)
            })?;
            total += chunk.len();
            if total > MAX_BYTES {
                too_long.store(true, Ordering::Relaxed);
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            Ok(chunk)
        })
    }
}
