//! Decisions only: plain values in, plain values out. No I/O, no clock, no threads, no actors;
//! time is a parameter. Every file is tested with random histories beside its code.

pub mod arrivals;
pub mod assist;
pub mod backlog;
pub mod bucket;
pub mod claim;
pub mod evidence;
pub mod heartbeat;
pub mod journey;
pub mod lease;
pub mod names;
pub mod naming;
pub mod restart;
pub mod retry;
pub mod ring;
pub mod seats;
pub mod stall;
pub mod timers;
pub mod vouch;
pub mod watch;

/// Monotonic time as decisions see it: how long the caller's clock has run.
pub type Mono = std::time::Duration;
