//! Reads a body: bounded as sent, bounded as decompressed, bounded in time, and paid for from the
//! budget while it grows.
//!
//! A compressed body may have several gzip members or zstd frames, as RFC 1952 and RFC 8878 have it. One
//! that is cut off, or that bytes of no form follow, is refused whole: nothing of it is dropped silently.

use std::io::{Cursor, Read};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use flate2::bufread::MultiGzDecoder;
use futures::StreamExt;

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

/// The body, of which a compressed one is still to be decompressed.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    timeout: Duration,
    claim: &mut Claim,
) -> Result<Decoding, Refusal> {
    let encoding = Encoding::of(headers)?;
    let declared = declared_length(headers).unwrap_or(0);
    if declared > MAX_BYTES as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let sent = match tokio::time::timeout(timeout, read_sent(body, declared.min(EXPECTED) as usize, claim)).await {
        Ok(sent) => sent?,
        Err(_) => return Err(Refusal::BodyTimeout { seconds: timeout.as_secs() }),
    };
    Decoding::of(encoding, sent)
}

/// A body on its way to being decompressed.
pub(super) struct Decoding {
    /// What is decompressed so far.
    body: Vec<u8>,
    /// Where the rest comes from; `None` once that is all.
    rest: Option<Box<dyn Read + Send>>,
}

impl Decoding {
    fn of(encoding: Encoding, sent: Vec<u8>) -> Result<Self, Refusal> {
        let rest: Box<dyn Read + Send> = match encoding {
            Encoding::Identity => return Ok(Self { body: sent, rest: None }),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(Cursor::new(sent))),
            Encoding::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(Cursor::new(sent)).map_err(|_| Refusal::NotAsEncoded)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| Refusal::NotAsEncoded)?;
                Box::new(decoder)
            }
        };
        Ok(Self { body: Vec::new(), rest: Some(rest) })
    }

    /// Decompresses until the body is whole or longer than `most`; says whether it is whole.
    pub(super) fn go_on(&mut self, most: usize, claim: &mut Claim) -> Result<bool, Refusal> {
        while let Some(rest) = &mut self.rest {
            if self.body.len() > most {
                return Ok(false);
            }
            let before = self.body.len();
            let read = rest.by_ref().take(CHUNK as u64).read_to_end(&mut self.body);
            match read.map_err(|_| Refusal::NotAsEncoded)? {
                // The decoder, and its window of up to 8 MiB, is not needed any more.
                0 => self.rest = None,
                _ if self.body.len() > MAX_BYTES => return Err(Refusal::DecompressedTooLarge),
                _ => claim.grow(COST * (self.body.len() - before))?,
            }
        }
        Ok(true)
    }

    /// Bytes that are there so far.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// The whole body.
    pub(super) fn whole(&mut self, claim: &mut Claim) -> Result<&[u8], Refusal> {
        self.go_on(usize::MAX, claim)?;
        Ok(&self.body)
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
