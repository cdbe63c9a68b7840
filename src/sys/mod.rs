//! All that is Linux: sockets' inside view, the fence, thread facts, files beneath a root.
//! The only place with `unsafe`; every block says why it is sound.
#![allow(unsafe_code)]

pub mod fence;
pub mod file;
pub mod lock;
pub mod socket;
pub mod thread;
