//! Places for connections, of which no peer takes more than its share.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shares::Shares;

/// The places of one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    most: usize,
    taken: Arc<Mutex<Shares<IpAddr>>>,
}

/// A place; given back when dropped.
pub(super) struct Place {
    places: Places,
    peer: IpAddr,
    /// Whether more than half of all places were taken when it was.
    pub(super) crowded: bool,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), taken: Arc::default() }
    }

    /// A place for a connection of `peer`, if there is one for it.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Place> {
        let peer = network(peer);
        let mut taken = self.lock();
        if !has_room(self.most, taken.all(), taken.of(&peer)) {
            return None;
        }
        taken.add(Some(&peer), 1);
        Some(Place { places: self.clone(), peer, crowded: taken.all() > self.most / 2 })
    }

    fn lock(&self) -> MutexGuard<'_, Shares<IpAddr>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(Some(&self.peer), 1);
    }
}

/// Whether a peer that has `own` of the `all` connections may open one more. It may have half of what the others
/// leave, so that there is always room for the next peer. A proxy is one peer.
fn has_room(most: usize, all: usize, own: usize) -> bool {
    let free = most.saturating_sub(all);
    free > 0 && own < (free + own).div_ceil(2)
}

/// Who counts as one peer: an IPv4 address, or an IPv6 network of 64 bits, of which anybody has many addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_half_of_what_the_others_leave() {
        for (most, all, own, expected) in [
            (1, 0, 0, true),
            (1, 1, 1, false),
            (2, 1, 1, false),
            (2, 1, 0, true),
            (4096, 2047, 2047, true),
            (4096, 2048, 2048, false),
            (4096, 2048, 0, true),
            (4096, 3071, 1023, true),
            (4096, 3072, 1024, false),
            (4096, 4095, 0, true),
            (4096, 4096, 0, false),
        ] {
            assert_eq!(has_room(most, all, own), expected, "{most} {all} {own}");
        }
    }

    #[test]
    fn a_place_is_given_back_and_a_network_is_one_peer() {
        let places = Places::new(4);
        let [a, b, other, v4, mapped] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:1::1", "192.0.2.1", "::ffff:192.0.2.1"]
                .map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(network(v4), network(mapped));
        let held: Vec<_> = [a, b, a].into_iter().filter_map(|peer| places.take(peer)).collect();
        assert_eq!(held.len(), 2, "half of four");
        let foreign = places.take(other);
        assert_eq!(foreign.as_ref().map(|place| place.crowded), Some(true));
        assert!(held.iter().all(|place| !place.crowded));
        drop((held, foreign));
        assert!(places.lock().is_empty());
    }
}
