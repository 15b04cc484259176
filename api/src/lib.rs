//! The words of the API: its routes, the codes of its refusals, and everything that is sent and answered as JSON.
//!
//! Servers and clients of this workspace both speak it from here. It knows no HTTP library, no store and no runtime.
//! Three files are made from it, and a test says when one is stale (`make generate` writes them):
//!
//! ```text
//!  routes, codes, types ─► openapi ─┬─► api/openapi.json ─► GET /openapi.json, SDKs, schemathesis
//!                                   └─► api/types.ts       for TypeScript
//!                       ─► page ────► the tables of docs/api.md
//! ```

pub mod routes;
pub mod code;
pub mod refusal;
pub mod parameters;
pub mod sent;
pub mod event;
pub mod context;
pub mod export;
pub mod explain;
pub mod answer;
pub mod batch;
pub mod letter;
pub mod tail;
pub mod loki;
pub mod queue;
pub mod usage;
pub mod openapi;
pub mod page;
pub mod typescript;

pub use code::{Code, Retry};
pub use refusal::Refusal;
pub use routes::{Method, ROUTES, Role, Route};

/// The OpenAPI document as it is committed and served.
pub const OPENAPI: &str = include_str!("../openapi.json");
