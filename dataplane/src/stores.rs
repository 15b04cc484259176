//! The stores of the data plane: catalog and usage (PostgreSQL), index (OpenSearch), archive (S3).
//!
//! Each takes a [`Tenant`](crate::tenancy::Tenant) with every call, and each takes the same thing
//! twice without having it twice. They know nothing of HTTP; of the queue they know only the form
//! of an entry's header, which they keep beside the raw lines.

pub mod batch;
pub mod read;
pub mod raw;
pub mod catalog;
pub mod usage;
pub mod index;
pub mod archive;
#[cfg(test)]
pub(crate) mod fixtures;
