//! `ftpulse`: the FTP upload service that cannot stay stuck.
//! The modules stand in the order of their dependencies: each may use only those of the groups
//! above its own, and those of one group do not use each other (held by `tests/tidy.rs`).

pub mod clock;
pub mod failpoint;
pub mod core;
pub mod report;

pub mod sys;

pub mod config;

pub mod log;
pub mod metrics;
pub mod token;

pub mod spool;

pub mod pulse;

pub mod ftp;

pub mod worker;

pub mod actors;

pub mod http;
#[cfg(feature = "lab")]
pub mod lab;
pub mod watchdog;

pub mod app;

pub mod cli;
