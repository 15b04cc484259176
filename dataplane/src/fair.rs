//! Fairness between tenants: turns, places of work, and shares of what is bounded.

pub(crate) mod share;
pub(crate) mod turns;
pub(crate) mod workers;
