//! The processor against real stores: what is queued is stored and indexed once, whatever happens.

#[path = "support/bench.rs"]
mod bench;
#[path = "process/once.rs"]
mod once;
#[path = "process/none.rs"]
mod none;
#[path = "process/marks.rs"]
mod marks;
#[path = "process/keys.rs"]
mod keys;
#[path = "process/poison.rs"]
mod poison;
#[path = "process/outage.rs"]
mod outage;
#[path = "process/spool.rs"]
mod spool;
#[path = "process/stages.rs"]
mod stages_of_a_pipeline;
#[path = "process/tail.rs"]
mod tail;
