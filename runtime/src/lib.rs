//! What every LoggerHub process needs: settings, clients for its stores, logs, traces, HTTP, metrics, and
//! a way to stop. The operator and each role of the data plane start with these rooms.

pub mod settings;
pub mod stores;
pub mod logging;
pub mod traces;
pub mod audit;
pub mod http;
pub mod headers;
pub mod metrics;
pub mod shares;
pub mod shutdown;
pub mod fail_points;
