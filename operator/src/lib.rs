//! The LoggerHub operator: gives each Tenant its place in every store and its keys, and runs and
//! scales the pods of each LogPipeline.

pub mod provision;
