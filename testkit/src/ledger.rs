//! The ledger: every batch that was answered with 202, compared with what each store holds.
//!
//! Nothing may be missing and nothing may be there twice. The comparison reads the stores
//! themselves, not the product's own answers.

use std::collections::BTreeMap;

use anyhow::ensure;
use uuid::Uuid;

use api::sent::Accepted;

pub mod held;
pub mod journal;
pub mod contents;
pub mod audit;

pub use held::Holdings;
pub use journal::Journal;

/// Events by batch.
pub type Counts = BTreeMap<Uuid, u64>;

/// Every batch that was accepted, with how many events.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    batches: Counts,
}

impl Ledger {
    /// Writes down a 202. The same batch may be answered twice: a resend under one Idempotency-Key.
    pub fn record(&mut self, accepted: &Accepted) {
        self.batches.insert(accepted.batch_id, accepted.accepted);
    }

    /// Takes over what another sender of the same tenant has written down.
    pub fn join(&mut self, other: Self) {
        self.batches.extend(other.batches);
    }

    /// Events accepted so far.
    pub fn events(&self) -> u64 {
        self.batches.values().sum()
    }

    /// Checks that `store` holds each batch's events once, and no others.
    pub fn matches(&self, store: &str, held: &Counts) -> anyhow::Result<()> {
        let differences = differences(&self.batches, held);
        ensure!(
            differences.is_empty(),
            "{store} holds {} of {} accepted events, {} batches differ: {}",
            held.values().sum::<u64>(),
            self.events(),
            differences.len(),
            differences.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }
}

/// What differs, a sentence for each batch.
fn differences(accepted: &Counts, held: &Counts) -> Vec<String> {
    let wrong = accepted.iter().filter_map(|(batch, events)| {
        let found = held.get(batch).copied().unwrap_or(0);
        (found != *events).then(|| format!("{batch}: {found} of {events}"))
    });
    let foreign = held.iter().filter(|(batch, _)| !accepted.contains_key(batch));
    wrong.chain(foreign.map(|(batch, events)| format!("{batch}: {events}, never accepted"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_a_doubled_and_a_foreign_batch_are_named() {
        let [whole, missing, doubled, foreign] = [1, 2, 3, 4].map(Uuid::from_u128);
        let accepted = Counts::from([(whole, 5), (missing, 5), (doubled, 5)]);
        let held = Counts::from([(whole, 5), (doubled, 10), (foreign, 1)]);
        let found = differences(&accepted, &held);
        assert_eq!(
            found,
            [format!("{missing}: 0 of 5"), format!("{doubled}: 10 of 5"), format!("{foreign}: 1, never accepted")]
        );
        assert!(differences(&accepted, &accepted).is_empty());
    }
}
