//! Whole-system stories on a real cluster with LoggerHub installed, as users and operators live
//! them. They stop stores and kill pods, so one runs at a time; each has tenants of its own.

mod stage;
mod onboarding;
mod isolation;
mod keys;
mod crash;
mod outage;
mod scaling;
mod deletion;
mod drift;
mod round_trip;
mod kubectl;
