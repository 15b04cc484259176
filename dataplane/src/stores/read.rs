//! What people read: a tenant's rows and dead letters from the catalog, and what a search finds in the index. Always
//! with the rights of the tenant's reader, and bounded in time: a read that takes too long is given up, a write is not.

mod breaker;
mod candidates;
mod catalog;
mod counts;
mod document;
mod index;
mod letters;
mod places;
mod requests;
mod said;
mod usage;
mod stored;

pub use candidates::{Among, BatchAt, Candidate, Candidates, Step};
pub use catalog::{Catalog, CatalogError, Found, Probe, Row, StoredBatch};
pub use counts::{Sample, largest};
pub use document::Document;
pub use index::{Asked, Fault, Group, Grouped, Hits, Index, IndexError, Leaf};
pub use letters::Letter;
pub use said::Said;
pub use stored::StoredAt;
