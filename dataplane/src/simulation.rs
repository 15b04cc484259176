//! The protocol of ingest, queue, process and maintain under thousands of schedules.
//!
//! ```text
//!  clients ─► ingest ─► queue ─► processors ─► catalog ─► index ─► acknowledge
//!                                                 └─ maintain ─► archive, late index, rollover
//! ```
//! Every actor is a list of steps, and each step is one call of a store. Between any two steps a seed
//! decides who goes next, who dies, who is paused beyond the time after which its entries are
//! claimed, and whether a call was done, was done with its answer lost, or was not done at all.
//! After each step every answered batch must be in the queue or in the catalog; at the end, when
//! faults have stopped, it must be in every store once.
//!
//! Grouping, the choice of an object's spool rows and all ids are the real functions. The stores are
//! models that promise what the real ones promise and no more: an entry that was answered is kept, a
//! transaction is whole, a document is made once for an id inside one index. So this shows that the
//! order of steps is right, not that Redis or PostgreSQL is; the tests against real servers are for
//! that. [`Defect`] puts known mistakes into the steps, and the tests demand that each is found.

mod actors;
mod check;
mod stores;
mod world;

use world::World;

/// A mistake that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// Ingest answers before the queue has the batch.
    AnswerFirst,
    /// A processor acknowledges before the catalog has the batch.
    AcknowledgeFirst,
    /// The index is the one that is written to at delivery, not the one in the batch's row.
    IndexOfDelivery,
    /// A resend's events are indexed under its own ids.
    IndexResends,
    /// Usage is written for each delivery.
    BillDeliveries,
    /// The spool is emptied before the object is there.
    StampFirst,
    /// The next object is made of whatever the spool holds by then.
    ForgetPlan,
}

/// Runs one seed; what was violated, if anything.
fn run(seed: u64, defect: Defect) -> Result<(), String> {
    World::new(seed, defect).run().map_err(|violation| format!("seed {seed}: {violation}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure names its seed: `run(seed, Defect::None)` repeats it.
    #[test]
    fn no_schedule_loses_or_doubles_an_accepted_event() {
        for seed in 0..10_000 {
            run(seed, Defect::None).unwrap();
        }
    }

    #[test]
    fn every_known_mistake_is_found() {
        for defect in [
            Defect::AnswerFirst,
            Defect::AcknowledgeFirst,
            Defect::IndexOfDelivery,
            Defect::IndexResends,
            Defect::BillDeliveries,
            Defect::StampFirst,
            Defect::ForgetPlan,
        ] {
            let found = (0..2_000).find_map(|seed| run(seed, defect).err());
            assert!(found.is_some(), "no seed finds {defect:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_run_each_time() {
        let first = (0..500).find_map(|seed| run(seed, Defect::AcknowledgeFirst).err());
        let second = (0..500).find_map(|seed| run(seed, Defect::AcknowledgeFirst).err());
        assert!(first.is_some());
        assert_eq!(first, second);
    }
}
