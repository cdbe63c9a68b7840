//! `ftpulse`: the FTP upload service that cannot stay stuck.
//! The modules stand in the order of their dependencies: each may use only those above it,
//! and siblings within a line do not use each other (held by `tests/tidy.rs`).

pub mod core;
pub mod clock;
pub mod report;
pub mod sys;
pub mod config;
pub mod log;
pub mod metrics;
pub mod spool;
pub mod token;
pub mod pulse;
pub mod ftp;
pub mod worker;
pub mod actors;
pub mod http;
#[cfg(feature = "lab")]
pub mod lab;
pub mod app;
pub mod cli;
