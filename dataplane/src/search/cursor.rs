//! The cursor of a list: where the last page ended, opaque to the client, the same for every source.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::event::Micros;

/// First byte of a cursor. A new form gets a new number; an old cursor is then refused, not misread.
const VERSION: u8 = 1;
/// Version, time, id, checksum.
const LENGTH: usize = 1 + 8 + 16 + 4;

/// The last event of a page: the next page begins after it, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// When the event happened.
    pub time: Micros,
    /// Which event of that time.
    pub event_id: Uuid,
}

/// Why a text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this server gave out: begin again without it")]
pub struct InvalidCursor;

impl Cursor {
    /// The cursor as the client gets it.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.event_id.as_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor. The checksum finds what was cut or mistyped; a forged cursor only shows its
    /// sender another page of what he may read anyway.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; LENGTH] = bytes.try_into().map_err(|_| InvalidCursor)?;
        let (content, checksum) = bytes.split_at(LENGTH - 4);
        if content[0] != VERSION || crc32c::crc32c(content).to_be_bytes() != checksum {
            return Err(InvalidCursor);
        }
        let mut time = [0; 8];
        time.copy_from_slice(&content[1..9]);
        let mut event_id = [0; 16];
        event_id.copy_from_slice(&content[9..25]);
        let time = Micros::from_be_bytes(time);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1000).map_err(|_| InvalidCursor)?;
        Ok(Self { time, event_id: Uuid::from_bytes(event_id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor { time: 1_700_000_000_123_456, event_id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_cursor_reads_back() {
        for time in [0, -1, cursor().time] {
            let cursor = Cursor { time, ..cursor() };
            assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
    }

    #[test]
    fn what_we_did_not_give_out_is_refused() {
        let good = cursor().encode();
        let other_version = {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes[0] = 2;
            let end = bytes.len() - 4;
            let checksum = crc32c::crc32c(&bytes[..end]).to_be_bytes();
            bytes[end..].copy_from_slice(&checksum);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let impossible_time = Cursor { time: Micros::MAX, ..cursor() }.encode();
        for bad in ["", "x", "%%%", &good[1..], &good.replacen('A', "B", 1), &other_version, &impossible_time] {
            assert_eq!(Cursor::decode(bad), Err(InvalidCursor), "{bad}");
        }
    }
}
