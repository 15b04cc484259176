//! What a tail has shown last, in its order: to find what a redelivery publishes again, and what a socket that comes back
//! has seen.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// The ids given out last.
#[derive(Debug)]
pub(super) struct Recent {
    /// How many of them are remembered.
    most: usize,
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Recent {
    /// Remembers so many ids.
    pub(super) fn of(most: usize) -> Self {
        Self { most, ids: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether this one was not given out lately. From now on it was.
    pub(super) fn is_new(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    /// What was given out up to this one, and it, in order; `None` if that is not known any more.
    pub(super) fn until(&self, id: Uuid) -> Option<Vec<Uuid>> {
        let at = self.ids.contains(&id).then(|| self.order.iter().rposition(|known| *known == id)).flatten()?;
        Some(self.order.iter().take(at + 1).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_and_memory_is_bounded() {
        const REMEMBERED: usize = 8_192;
        let mut recent = Recent::of(REMEMBERED);
        assert!(recent.is_new(Uuid::from_u128(0)));
        assert!(!recent.is_new(Uuid::from_u128(0)));
        for id in 1..=REMEMBERED as u128 {
            assert!(recent.is_new(Uuid::from_u128(id)));
        }
        assert_eq!(recent.ids.len(), REMEMBERED);
        assert!(recent.is_new(Uuid::from_u128(0)), "forgotten");
        assert!(!recent.is_new(Uuid::from_u128(2)));
    }

    #[test]
    fn what_was_shown_before_is_known_for_a_while() {
        let mut recent = Recent::of(8);
        let id = Uuid::from_u128;
        for n in [5, 3, 9] {
            recent.is_new(id(n));
        }
        assert_eq!(recent.until(id(3)), Some(vec![id(5), id(3)]));
        assert_eq!(recent.until(id(9)), Some(vec![id(5), id(3), id(9)]));
        assert_eq!(recent.until(id(1)), None);
    }
}
