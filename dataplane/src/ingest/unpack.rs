//! Unpacks what a request brings: bounded, and paid for from the budget while it grows.
//!
//! Packed bytes may have several gzip members or zstd frames, as RFC 1952 and RFC 8878 have it. What
//! is cut off, or is followed by bytes of no form, is refused whole: nothing of it is dropped silently.

use std::io::{Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::limits::{BYTE_COST, MAX_BYTES};
use super::refusal::Refusal;
use crate::queue::Claim;

/// Bytes taken from the decoder at once.
const CHUNK: usize = 64 * 1024;
/// Largest zstd window, as a power of two: the 8 MiB that RFC 9659 allows in HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// As gzip.
    Gzip,
    /// As zstd.
    Zstd,
}

/// Bytes as they were sent.
#[derive(Debug)]
pub struct Packed {
    encoding: Encoding,
    sent: Vec<u8>,
}

impl Packed {
    /// What was sent, packed so.
    pub fn new(encoding: Encoding, sent: Vec<u8>) -> Self {
        Self { encoding, sent }
    }

    /// Whether it becomes more bytes than were sent.
    pub(super) fn is_packed(&self) -> bool {
        self.encoding != Encoding::Identity
    }

    /// Its bytes as sent.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// The same on its way to being unpacked.
    pub(super) fn unpacking(self) -> Result<Unpacking, Refusal> {
        let rest: Box<dyn Read + Send> = match self.encoding {
            Encoding::Identity => return Ok(Unpacking { body: self.sent, rest: None }),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(Cursor::new(self.sent))),
            Encoding::Zstd => {
                let decoder = zstd::Decoder::with_buffer(Cursor::new(self.sent));
                let mut decoder = decoder.map_err(|_| Refusal::NotAsEncoded)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| Refusal::NotAsEncoded)?;
                Box::new(decoder)
            }
        };
        Ok(Unpacking { body: Vec::new(), rest: Some(rest) })
    }
}

/// A body on its way to being unpacked.
pub(super) struct Unpacking {
    /// What is unpacked so far.
    body: Vec<u8>,
    /// Where the rest comes from; `None` once that is all.
    rest: Option<Box<dyn Read + Send>>,
}

impl Unpacking {
    /// Unpacks until the body is whole or longer than `most`; says whether it is whole.
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
                _ => claim.grow(BYTE_COST * (self.body.len() - before))?,
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
