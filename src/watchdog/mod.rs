//! Ring 2, both sides of the sd_notify protocol (S4, S5; sd_notify(3)): the guard that starts,
//! watches, kills and restarts one program, and what the service itself sends to whoever watches it.

mod child;
pub mod counts;
pub mod guard;
mod message;
pub mod service;
mod tell;
mod upwards;
