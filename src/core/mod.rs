//! Decisions and names: plain code without I/O, clock, actors or log.
pub mod names;
