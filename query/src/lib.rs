//! A question about events, before any store is asked: pure, with no clock and no I/O.
//!
//! ```text
//!  URL ─► params ─► filters + parse ─┬─► expression ─┬─► to_index    a request to OpenSearch
//!                                    │               ├─► to_catalog  a WHERE clause
//!                                    │               ├─► needles     what must stand in a raw line
//!                                    │               └─► matches     one event in memory
//!                                    └─► stage ─► counting           what is made of the events that are found
//! ```
//! [`matches`] is the definition of what a query means; the stores' answers are held to it.

pub mod params;
pub mod filters;
pub mod cursor;
pub mod parse;
pub mod expression;
pub mod stage;
pub mod counting;
pub mod explain;
pub mod complete;
pub mod words;
pub mod leaves;
pub mod scalar;
pub mod matches;
pub mod shape;
pub mod needles;
pub mod to_index;
pub mod to_catalog;
pub mod logql;

pub use api::parameters::Order;
pub use cursor::{Asked, Cursor, InvalidCursor};
pub use explain::explain;
pub use expression::{Clause, Field, Pattern, Query};
pub use filters::{Filters, Page};
pub use needles::Needles;
pub use parse::{QueryError, parse, question};
pub use stage::Question;
