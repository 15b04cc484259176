//! Who holds how much of something bounded, such as connections, or bytes in memory.

use std::collections::HashMap;
use std::hash::Hash;

/// What holders of this kind have of it now.
#[derive(Debug)]
pub struct Shares<K> {
    all: usize,
    holders: HashMap<K, usize>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { all: 0, holders: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// What all hold, and what nobody in particular does.
    pub fn all(&self) -> usize {
        self.all
    }

    /// What one holds.
    pub fn of(&self, holder: &K) -> usize {
        self.holders.get(holder).copied().unwrap_or_default()
    }

    /// Adds what is held, by one or by nobody in particular.
    pub fn add(&mut self, holder: Option<&K>, amount: usize) {
        self.all += amount;
        match holder.and_then(|holder| self.holders.get_mut(holder)) {
            Some(own) => *own += amount,
            None => drop(holder.map(|holder| self.holders.insert(holder.clone(), amount))),
        }
    }

    /// Takes off what is no longer held. A holder of nothing is forgotten.
    pub fn remove(&mut self, holder: Option<&K>, amount: usize) {
        self.all = self.all.saturating_sub(amount);
        let Some(holder) = holder else { return };
        let left = self.of(holder).saturating_sub(amount);
        match self.holders.get_mut(holder) {
            Some(own) if left > 0 => *own = left,
            _ => drop(self.holders.remove(holder)),
        }
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.holders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_nothing_is_forgotten() {
        let mut shares = Shares::default();
        shares.add(Some(&"acme"), 3);
        shares.add(Some(&"acme"), 4);
        shares.add(None, 5);
        assert_eq!((shares.all(), shares.of(&"acme")), (12, 7));
        shares.remove(Some(&"acme"), 3);
        shares.remove(None, 5);
        assert_eq!((shares.all(), shares.of(&"acme")), (4, 4));
        shares.remove(Some(&"acme"), 4);
        assert!(shares.is_empty());
    }
}
