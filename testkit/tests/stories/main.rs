//! Whole-system stories on a real cluster with LoggerHub installed, as users and operators live
//! them. Each has tenants of its own, and one that stops a store plays alone.

mod stage;
mod onboarding;
mod isolation;
mod network;
mod keys;
mod crash;
mod outage;
mod scaling;
mod deletion;
mod drift;
mod round_trip;
mod kubectl;
