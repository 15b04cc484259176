//! Identity of batches and events, and the form in which events are shown.

mod shown;

pub use shown::{Shown, TIME_UNUSABLE, flag_names};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crds::TenantName;

/// Microseconds since 1970, UTC: the resolution of every time we keep.
pub type Micros = i64;

/// A new batch id: UUIDv7, ordered by time.
pub fn new_batch_id() -> Uuid {
    Uuid::now_v7()
}

/// The batch id of a client's `Idempotency-Key`: the same key of the same tenant is the same batch.
pub fn keyed_batch_id(tenant: &TenantName, idempotency_key: &[u8]) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(tenant.as_str().as_bytes());
    // No tenant name holds a zero byte, so no two pairs run together.
    hash.update([0]);
    hash.update(idempotency_key);
    Uuid::new_v8(first_16(&hash.finalize()))
}

/// The id of a batch that came under an `Idempotency-Key` that `first` has: told apart by its body
/// or by when it was accepted, so that a redelivery has the same id.
pub fn resend_batch_id(first: Uuid, apart: &[u8]) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(first.as_bytes());
    hash.update(apart);
    Uuid::new_v8(first_16(&hash.finalize()))
}

/// The id of the event at `position` of a batch: UUIDv7 of the acceptance time, its random part
/// derived, so that every redelivery gives the same id.
pub fn event_id(batch_id: Uuid, accepted_at: Micros, position: u32) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(batch_id.as_bytes());
    hash.update(position.to_be_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hash.finalize()[..10]);
    let millis = u64::try_from(accepted_at.max(0) / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// A time as PostgreSQL's client takes it. Beyond the years that have four digits it is 1970.
pub fn date_time(micros: Micros) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time as PostgreSQL's client gives it.
pub fn micros(time: OffsetDateTime) -> Micros {
    // Four-digit years are far inside an i64.
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// A time as it is shown: RFC 3339 with microseconds, in UTC. Written digit by digit: every event
/// has some, and formatting is slower by an order of magnitude.
pub fn rfc3339(micros: Micros) -> String {
    let time = date_time(micros);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, micro) = time.to_hms_micro();
    let mut text = String::with_capacity(27);
    // The clock is in the years 0 to 9999, as `date_time` has it.
    digits(&mut text, year.unsigned_abs(), 1000);
    for (separator, part) in [('-', u8::from(month)), ('-', day), ('T', hour), (':', minute), (':', second)] {
        text.push(separator);
        digits(&mut text, part.into(), 10);
    }
    text.push('.');
    digits(&mut text, micro, 100_000);
    text.push('Z');
    text
}

/// Writes the digits of `number` from the one that counts `place`s down to the units.
fn digits(text: &mut String, number: u32, mut place: u32) {
    while place > 0 {
        let digit = (number / place % 10) as u8;
        text.push(char::from(b'0' + digit));
        place /= 10;
    }
}

fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_the_same_each_time_and_its_time_is_acceptance() {
        let batch = Uuid::from_u128(7);
        let id = event_id(batch, 1_700_000_000_123_456, 5);
        assert_eq!(id, event_id(batch, 1_700_000_000_123_456, 5));
        assert_ne!(id, event_id(batch, 1_700_000_000_123_456, 6));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(u64::from_be_bytes(id.as_bytes()[..8].try_into().unwrap()) >> 16, 1_700_000_000_123);
    }

    #[test]
    fn a_time_is_shown_with_microseconds() {
        assert_eq!(rfc3339(1_767_323_045_000_120), "2026-01-02T03:04:05.000120Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(253_402_300_799_999_999), "9999-12-31T23:59:59.999999Z");
        assert_eq!(micros(date_time(1_767_323_045_000_120)), 1_767_323_045_000_120);
    }

    #[test]
    fn events_of_a_resend_never_have_the_ids_of_the_first() {
        let first = Uuid::from_u128(7);
        let resend = resend_batch_id(first, b"another body");
        assert_eq!(resend, resend_batch_id(first, b"another body"));
        assert_ne!(resend, resend_batch_id(first, b"a third"));
        // Accepted in the very same millisecond, at the same position.
        assert_ne!(event_id(first, 1_700_000_000_123_456, 0), event_id(resend, 1_700_000_000_123_456, 0));
    }

    #[test]
    fn an_idempotency_key_belongs_to_its_tenant() {
        let acme: TenantName = "acme".parse().unwrap();
        let globex: TenantName = "globex".parse().unwrap();
        assert_eq!(keyed_batch_id(&acme, b"k"), keyed_batch_id(&acme, b"k"));
        assert_ne!(keyed_batch_id(&acme, b"k"), keyed_batch_id(&globex, b"k"));
        assert_eq!(keyed_batch_id(&acme, b"k").get_version_num(), 8);
    }
}
