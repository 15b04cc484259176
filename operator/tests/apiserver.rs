//! The operator in this process, against a real API server and real stores. Each test runs an
//! operator of its own: its installation, its namespace and its objects, which no other looks at.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "apiserver/operator.rs"]
mod operator_under_test;
#[path = "apiserver/tenants.rs"]
mod tenants;
#[path = "apiserver/signing.rs"]
mod signing;
#[path = "apiserver/keys.rs"]
mod keys;
#[path = "apiserver/deletion.rs"]
mod deletion;
#[path = "apiserver/pipelines.rs"]
mod pipelines;
#[path = "apiserver/default_pipeline.rs"]
mod default_pipeline;
#[path = "apiserver/rights.rs"]
mod rights;
#[path = "apiserver/canary.rs"]
mod canary;
#[path = "apiserver/traces.rs"]
mod traces;
#[path = "apiserver/audit.rs"]
mod audit;
#[path = "apiserver/program.rs"]
mod program;
#[path = "apiserver/leader.rs"]
mod leader;
#[path = "apiserver/metrics.rs"]
mod metrics;
#[path = "apiserver/crash.rs"]
mod crash;
