//! A Tenant's API keys: look at their Secrets and rows → plan what becomes of each → register: write Secrets, and
//! make what is to work known.

pub mod decide;
pub mod brought;
pub mod rotation;
pub mod secrets;
pub mod look;
pub mod plan;
pub mod register;
pub mod events;
