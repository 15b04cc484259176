//! The cursor of a list: where the last page ended, opaque to the client, the same for every source.

use api::parameters::Order;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use stages::time::Micros;

/// First byte of a cursor. A new form gets a new number; an old cursor is then refused, not misread.
const VERSION: u8 = 3;
/// Parameters that may change from page to page: a time may be said as an age, which moves. The order is no part of the
/// checksum, because a cursor says its own.
const FREE: [&str; 8] = ["cursor", "limit", "from", "to", "since", "order", "before", "after"];
/// Version, order, time, id, checksum.
const LENGTH: usize = 1 + 1 + 8 + 16 + 4;

/// The last event of a page: the next page begins after it, in the page's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// When the event happened.
    pub time: Micros,
    /// Which event of that time.
    pub event_id: Uuid,
}

/// The list that a cursor belongs to: a checksum of its route and of what was asked of it, and its order. The same on
/// every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    sum: u32,
    order: Order,
}

impl Asked {
    /// Of this route, with these parameters in whatever order.
    pub fn of(route: &str, pairs: &[(String, String)]) -> Self {
        let oldest = pairs.iter().any(|(name, value)| name == "order" && value == Order::Oldest.as_str());
        let mut pairs: Vec<_> = pairs.iter().filter(|(name, _)| !FREE.contains(&name.as_str())).collect();
        pairs.sort();
        let mut sum = crc32c::crc32c(route.as_bytes());
        for text in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            // The length sets apart what would read the same side by side.
            sum = crc32c::crc32c_append(sum, &(text.len() as u64).to_be_bytes());
            sum = crc32c::crc32c_append(sum, text.as_bytes());
        }
        Self { sum, order: if oldest { Order::Oldest } else { Order::Newest } }
    }

    /// The same list in this order.
    pub fn ordered(self, order: Order) -> Self {
        Self { order, ..self }
    }
}

/// Why a text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// Not ours, or of another list.
    #[error("the cursor is not one that this server gave out for this route and these filters: begin again without it")]
    Foreign,
    /// Of a list in the other order.
    #[error("the cursor is of the same list in the order `{0}`: say order={0}, or begin again without the cursor")]
    Order(Order),
    /// Of an earlier or later version.
    #[error("the cursor was given out by another version of LoggerHub: begin again without it")]
    Version,
}

impl Cursor {
    /// The cursor as the client gets it, for more of the same.
    pub fn encode(&self, asked: Asked) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.push(asked.order as u8);
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.event_id.as_bytes());
        bytes.extend(checksum(&bytes, asked));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor. The checksum finds what was cut, mistyped, or given out for something else; a forged cursor
    /// only shows its sender another page of what he may read anyway.
    pub fn decode(text: &str, asked: Asked) -> Result<Self, InvalidCursor> {
        match Self::decode_either(text, asked)? {
            (cursor, order) if order == asked.order => Ok(cursor),
            (_, order) => Err(InvalidCursor::Order(order)),
        }
    }

    /// Reads a cursor of either order, and says which.
    pub fn decode_either(text: &str, asked: Asked) -> Result<(Self, Order), InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor::Foreign)?;
        let is_of_version_2 = bytes.len() == LENGTH - 1 && bytes[0] == 2;
        let bytes: [u8; LENGTH] = match bytes.try_into() {
            Ok(bytes) => bytes,
            Err(_) if is_of_version_2 => return Err(InvalidCursor::Version),
            Err(_) => return Err(InvalidCursor::Foreign),
        };
        let (content, sent) = bytes.split_at(LENGTH - 4);
        if content[0] != VERSION {
            return Err(InvalidCursor::Version);
        }
        let order = match content[1] {
            byte if byte == Order::Newest as u8 => Order::Newest,
            byte if byte == Order::Oldest as u8 => Order::Oldest,
            _ => return Err(InvalidCursor::Foreign),
        };
        if checksum(content, asked) != sent {
            return Err(InvalidCursor::Foreign);
        }
        let mut time = [0; 8];
        time.copy_from_slice(&content[2..10]);
        let mut event_id = [0; 16];
        event_id.copy_from_slice(&content[10..26]);
        let time = Micros::from_be_bytes(time);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1000).map_err(|_| InvalidCursor::Foreign)?;
        Ok((Self { time, event_id: Uuid::from_bytes(event_id) }, order))
    }
}

fn checksum(content: &[u8], asked: Asked) -> [u8; 4] {
    crc32c::crc32c_append(asked.sum, content).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Asked = Asked { sum: 3, order: Order::Newest };

    fn cursor() -> Cursor {
        Cursor { time: 1_700_000_000_123_456, event_id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_cursor_reads_back() {
        for time in [0, -1, cursor().time] {
            let cursor = Cursor { time, ..cursor() };
            for order in [Order::Newest, Order::Oldest] {
                let asked = OTHER.ordered(order);
                assert_eq!(Cursor::decode(&cursor.encode(asked), asked), Ok(cursor));
                assert_eq!(Cursor::decode_either(&cursor.encode(asked), OTHER), Ok((cursor, order)));
            }
        }
    }

    #[test]
    fn a_cursor_knows_its_order() {
        let oldest = asked("search", &[("order", "oldest"), ("q", "a")]);
        let newest = asked("search", &[("q", "a"), ("order", "newest")]);
        assert_eq!(newest, asked("search", &[("q", "a")]), "newest first is what is not said");
        let told = Cursor::decode(&cursor().encode(oldest), newest).unwrap_err();
        assert_eq!(told, InvalidCursor::Order(Order::Oldest));
        assert!(told.to_string().contains("order=oldest"), "{told}");
        assert_eq!(Cursor::decode(&cursor().encode(newest), oldest), Err(InvalidCursor::Order(Order::Newest)));
    }

    fn asked(route: &str, pairs: &[(&str, &str)]) -> Asked {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked::of(route, &pairs)
    }

    #[test]
    fn a_cursor_is_for_its_route_and_filters() {
        let given = asked("search", &[("q", "a b"), ("level", "info"), ("limit", "5"), ("from", "-15m")]);
        let text = cursor().encode(given);
        for (name, asked, expected) in [
            ("the same", given, true),
            ("another limit", asked("search", &[("q", "a b"), ("level", "info"), ("limit", "6")]), true),
            ("another time", asked("search", &[("q", "a b"), ("level", "info"), ("since", "1h"), ("to", "now")]), true),
            ("in another order", asked("search", &[("level", "info"), ("q", "a b")]), true),
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
        let good = cursor().encode(OTHER);
        let with = |at: usize, byte: u8| {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes[at] = byte;
            let end = bytes.len() - 4;
            let checksum = checksum(&bytes[..end], OTHER);
            bytes[end..].copy_from_slice(&checksum);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        assert_eq!(with(0, VERSION), good);
        let impossible_time = Cursor { time: Micros::MAX, ..cursor() }.encode(OTHER);
        let (no_order, cut) = (with(1, 7), &good[1..]);
        for bad in ["", "x", "%%%", cut, &good.replacen("AAAA", "AABA", 1), &no_order, &impossible_time] {
            assert_eq!(Cursor::decode(bad, OTHER), Err(InvalidCursor::Foreign), "{bad}");
        }
        // As they were given out before they knew their order.
        let before = URL_SAFE_NO_PAD.encode([&[2; 1], &[0; 28][..]].concat());
        for other in [with(0, VERSION + 1), with(0, 1), before] {
            assert_eq!(Cursor::decode(&other, OTHER), Err(InvalidCursor::Version), "{other}");
        }
    }
}
