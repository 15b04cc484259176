//! The cursor of a list: where the last page ended, opaque to the client, the same for every source.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use stages::time::Micros;

/// First byte of a cursor. A new form gets a new number; an old cursor is then refused, not misread.
const VERSION: u8 = 2;
/// Parameters that may change from page to page: `kubectl loggerhub` says `from` as an age, which moves.
const FREE: [&str; 4] = ["cursor", "limit", "from", "to"];
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

/// The list that a cursor belongs to, as a checksum of its route and of what was asked of it. The same on every
/// replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked(u32);

impl Asked {
    /// Of this route, with these parameters in whatever order.
    pub fn of(route: &str, pairs: &[(String, String)]) -> Self {
        let mut pairs: Vec<_> = pairs.iter().filter(|(name, _)| !FREE.contains(&name.as_str())).collect();
        pairs.sort();
        let mut sum = crc32c::crc32c(route.as_bytes());
        for text in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            // The length sets apart what would read the same side by side.
            sum = crc32c::crc32c_append(sum, &(text.len() as u64).to_be_bytes());
            sum = crc32c::crc32c_append(sum, text.as_bytes());
        }
        Self(sum)
    }
}

/// Why a text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this server gave out for this route and these filters: begin again without it")]
pub struct InvalidCursor;

impl Cursor {
    /// The cursor as the client gets it, for more of the same.
    pub fn encode(&self, asked: Asked) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.event_id.as_bytes());
        bytes.extend(checksum(&bytes, asked));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor. The checksum finds what was cut, mistyped, or given out for something else; a forged cursor
    /// only shows its sender another page of what he may read anyway.
    pub fn decode(text: &str, asked: Asked) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; LENGTH] = bytes.try_into().map_err(|_| InvalidCursor)?;
        let (content, sent) = bytes.split_at(LENGTH - 4);
        if content[0] != VERSION || checksum(content, asked) != sent {
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

fn checksum(content: &[u8], asked: Asked) -> [u8; 4] {
    crc32c::crc32c_append(asked.0, content).to_be_bytes()
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
            assert_eq!(Cursor::decode(&cursor.encode(Asked(3)), Asked(3)), Ok(cursor));
        }
    }

    fn asked(route: &str, pairs: &[(&str, &str)]) -> Asked {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked::of(route, &pairs)
    }

    #[test]
    fn a_cursor_is_for_its_route_and_filters() {
        let given = asked("search", &[("q", "a b"), ("level", "info"), ("limit", "5"), ("from", "15 minutes ago")]);
        let text = cursor().encode(given);
        for (name, asked, expected) in [
            ("the same", given, true),
            ("another limit", asked("search", &[("q", "a b"), ("level", "info"), ("limit", "6")]), true),
            ("another time", asked("search", &[("q", "a b"), ("level", "info"), ("from", "1"), ("to", "2")]), true),
            ("another order", asked("search", &[("level", "info"), ("q", "a b")]), true),
            ("another route", asked("logs", &[("q", "a b"), ("level", "info")]), false),
            ("another query", asked("search", &[("q", "a"), ("level", "info")]), false),
            ("another level", asked("search", &[("q", "a b"), ("level", "warn")]), false),
            ("no level", asked("search", &[("q", "a b")]), false),
            ("one more", asked("search", &[("q", "a b"), ("level", "info"), ("service", "s")]), false),
            ("cut elsewhere", asked("search", &[("q", "a"), (" b", "level"), ("info", "")]), false),
        ] {
            assert_eq!(Cursor::decode(&text, asked).is_ok(), expected, "{name}");
        }
    }

    #[test]
    fn what_we_did_not_give_out_is_refused() {
        let good = cursor().encode(Asked(3));
        let of_version = |version: u8| {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes[0] = version;
            let end = bytes.len() - 4;
            let checksum = checksum(&bytes[..end], Asked(3));
            bytes[end..].copy_from_slice(&checksum);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        assert_eq!(of_version(VERSION), good);
        // As it was given out before cursors belonged to a list.
        let before = "AQAGCiQYICJAAAAAAAAAAAAAAAAAAAAAB_AlqGU";
        let impossible_time = Cursor { time: Micros::MAX, ..cursor() }.encode(Asked(3));
        let (next, cut) = (of_version(VERSION + 1), &good[1..]);
        for bad in ["", "x", "%%%", cut, &good.replacen('A', "B", 1), &next, &of_version(1), before, &impossible_time] {
            assert_eq!(Cursor::decode(bad, Asked(3)), Err(InvalidCursor), "{bad}");
        }
    }
}
