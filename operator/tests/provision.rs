//! Provisioning against real stores: twice is once, drift is repaired, what is not ours is left
//! alone, and what was removed stays removed. Each test has a tenant of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "support/stores.rs"]
mod stores;
#[path = "provision/ensure.rs"]
mod ensure;
#[path = "provision/drift.rs"]
mod drift;
#[path = "provision/lost.rs"]
mod lost;
#[path = "provision/privileges.rs"]
mod privileges;
#[path = "provision/upgrade.rs"]
mod upgrade;
#[path = "provision/ownership.rs"]
mod ownership;
#[path = "provision/retire.rs"]
mod retire;
