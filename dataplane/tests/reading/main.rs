//! The roles search and gateway against real stores.

mod house;
mod search;
mod gateway;
mod loki;
mod contract;
mod smoke;
mod canary;
mod traces;
