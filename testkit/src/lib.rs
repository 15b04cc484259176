//! What LoggerHub's tests stand on: real servers found through the environment, tenants that are
//! provisioned for one test and retired after it, the cluster, the HTTP doors, and a ledger that
//! compares every accepted event with what the stores hold.
//!
//! A test that lacks a server fails and says which variable to set; it is never skipped.

pub mod environment;
pub mod wait;
pub mod stores;
pub mod s3_policy;
pub mod opensearch_role;
pub mod tenant;
pub mod cluster;
pub mod api_server;
pub mod postgres_server;
pub mod operator_ground;
pub mod operator_process;
pub mod scaler;
pub mod http;
pub mod collector;
pub mod helm;
pub mod ledger;
pub mod chaos;
pub mod processes;
pub mod ports;
pub mod mute;

pub use api_server::ApiServer;
pub use cluster::Cluster;
pub use ledger::Ledger;
pub use mute::Mute;
pub use opensearch_role::RoleProxy;
pub use operator_process::{OperatorProcess, OperatorProgram};
pub use ports::free_address;
pub use postgres_server::PostgresServer;
pub use stores::Stores;
pub use tenant::Tenant;
pub use wait::{eventually, holds};

/// A name that no other test uses: `prefix`, a dash, and eight random characters. Short enough for
/// a tenant's or a pipeline's name.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}
