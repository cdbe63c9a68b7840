//! `ftpulse`: the FTP upload service that cannot stay stuck.
//! The modules stand in the order of their dependencies: each may use only those above it,
//! and siblings within a line do not use each other (held by `tests/tidy.rs`).

pub mod clock;
pub mod config;
#[cfg(feature = "lab")]
pub mod lab;
pub mod report;
pub mod spool;
