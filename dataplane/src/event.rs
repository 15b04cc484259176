//! Identity of batches and events, and the form in which events are shown.

mod shown;

pub use shown::{TIME_OF_ACCEPTANCE, flag_names, shown};
pub use stages::time::{Micros, date_time, micros, rfc3339};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crds::TenantName;

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

/// The ids of a batch's events: UUIDv7 of the acceptance time. Their random part is derived from the
/// batch's id, so that every redelivery gives the same, and counts up by position: events of equal
/// times keep the order they were sent in, and neighbours share a prefix, which is what makes them
/// cheap to index.
#[derive(Debug, Clone, Copy)]
pub struct EventIds {
    millis: u128,
    /// The random part of the first.
    random: u128,
}

impl EventIds {
    /// Of the batch that was accepted at this time.
    pub fn new(batch_id: Uuid, accepted_at: Micros) -> Self {
        let random = u128::from_be_bytes(first_16(&Sha256::digest(batch_id.as_bytes())));
        let millis = u64::try_from(accepted_at.max(0) / 1000).unwrap_or(0);
        Self { millis: u128::from(millis), random }
    }

    /// Of the event at this position.
    pub fn at(&self, position: u32) -> Uuid {
        /// A UUIDv7 has 74 random bits: 12 between version and variant, and 62 after them.
        const LOW: u32 = 62;
        let random = self.random.wrapping_add(u128::from(position));
        let (high, low) = (random >> LOW & 0xfff, random & ((1 << LOW) - 1));
        Uuid::from_u128(self.millis << 80 | 0x7 << 76 | high << 64 | 0b10 << LOW | low)
    }
}

/// The id of the event at `position` of a batch; see [`EventIds`].
pub fn event_id(batch_id: Uuid, accepted_at: Micros, position: u32) -> Uuid {
    EventIds::new(batch_id, accepted_at).at(position)
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
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(u64::from_be_bytes(id.as_bytes()[..8].try_into().unwrap()) >> 16, 1_700_000_000_123);
    }

    #[test]
    fn ids_of_a_batch_count_up_and_never_leave_their_millisecond() {
        for random in [0, (1 << 62) - 2, (1 << 74) - 2, u128::MAX - 1] {
            let ids = EventIds { millis: 1_700_000_000_123, random };
            let all: Vec<Uuid> = (0..4).map(|position| ids.at(position)).collect();
            let millis = |id: &Uuid| id.get_timestamp().map(|time| time.to_unix());
            assert!(all.iter().all(|id| millis(id) == Some((1_700_000_000, 123_000_000))), "{all:?}");
            assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{all:?}");
        }
        let ids = EventIds::new(Uuid::from_u128(7), 1_700_000_000_123_456);
        assert!((0..10_000).map(|position| ids.at(position)).is_sorted());
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
