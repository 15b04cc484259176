//! The LoggerHub operator: gives each Tenant its place in every store and its keys, and runs and
//! scales the pods of each LogPipeline.

pub mod settings;
pub mod run;
pub mod election;
pub mod leader;
pub mod platform;
pub mod signing;
pub mod plans;
pub mod context;
pub mod health;
pub mod tenant;
pub mod pipeline;
pub mod scaler;
pub mod canary;
pub mod default_pipeline;
pub mod sweep;
pub mod provision;
pub mod kubernetes;
pub mod backoff;
pub mod metrics;
pub mod fail_points;
