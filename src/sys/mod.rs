//! All that is Linux: sockets' inside view, the fence, thread facts, files beneath a root, processes
//! and what they tell their guard.
//! The only place with `unsafe`; every block says why it is sound.
#![allow(unsafe_code)]

pub mod fence;
pub mod file;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod process;
pub mod socket;
pub mod thread;
