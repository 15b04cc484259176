//! The receipt of an accepted batch: an opaque text that its tenant can show to learn the batch's
//! state before it is stored. Authenticated, so that nobody can make one up.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crds::TenantName;
use crds::apikey::Pepper;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use super::Peppers;
use crate::event::Micros;

/// Longest receipt that is looked at: a 40-character tenant and a pepper id stay well below.
const MAX_LENGTH: usize = 512;
/// Bytes kept of the HMAC: 128 bits can't be guessed online.
const TAG_LENGTH: usize = 16;
/// Sets these HMACs apart from any other made under the same pepper.
const PURPOSE: &[u8] = b"loggerhub receipt v1\0";

/// What ingest promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose batch it is.
    pub tenant: TenantName,
    /// The batch.
    pub batch_id: Uuid,
    /// When it was accepted.
    pub accepted_at: Micros,
    /// Its events, those for the dead letters included.
    pub events: u32,
}

#[derive(Serialize, Deserialize)]
struct Signed<'a> {
    pepper_id: &'a str,
    receipt: Receipt,
}

impl Peppers {
    /// The receipt as text.
    pub fn sign(&self, receipt: &Receipt) -> String {
        let signed = Signed { pepper_id: &self.newest().id, receipt: receipt.clone() };
        // Postcard of these fields into a growing buffer has nothing that could fail.
        let mut bytes = postcard::to_stdvec(&signed).unwrap_or_default();
        let tag = tag(self.newest(), &bytes);
        bytes.extend_from_slice(&tag.finalize().into_bytes()[..TAG_LENGTH]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a receipt back; `None` unless we made it.
    pub fn read_receipt(&self, text: &str) -> Option<Receipt> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, sent) = bytes.split_last_chunk::<TAG_LENGTH>()?;
        let signed: Signed<'_> = postcard::from_bytes(body).ok()?;
        tag(self.get(signed.pepper_id)?, body).verify_truncated_left(sent).ok()?;
        Some(signed.receipt)
    }
}

fn tag(pepper: &Pepper, body: &[u8]) -> Hmac<Sha256> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&pepper.bytes) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.update(PURPOSE);
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peppers(byte: u8) -> Peppers {
        Peppers::new([Pepper { id: "p1".into(), bytes: vec![byte; 32] }]).unwrap()
    }

    #[test]
    fn a_receipt_reads_back_only_as_it_was_made() {
        let receipt = Receipt {
            tenant: "acme".parse().unwrap(),
            batch_id: Uuid::from_u128(7),
            accepted_at: 1_700_000_000_000_000,
            events: 3,
        };
        let text = peppers(1).sign(&receipt);
        assert_eq!(peppers(1).read_receipt(&text), Some(receipt));
        assert_eq!(peppers(2).read_receipt(&text), None, "another pepper");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(peppers(1).read_receipt(&String::from_utf8(changed).unwrap()), None, "byte {at}");
        }
        for bad in ["", "A", "ü", &"A".repeat(5000)] {
            assert_eq!(peppers(1).read_receipt(bad), None, "{bad}");
        }
    }
}
