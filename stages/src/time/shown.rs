//! Times as they are kept and shown.

use time::OffsetDateTime;

/// Microseconds since 1970, UTC: the resolution of every time we keep.
pub type Micros = i64;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_with_microseconds() {
        assert_eq!(rfc3339(1_767_323_045_000_120), "2026-01-02T03:04:05.000120Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(253_402_300_799_999_999), "9999-12-31T23:59:59.999999Z");
        assert_eq!(micros(date_time(1_767_323_045_000_120)), 1_767_323_045_000_120);
    }
}
