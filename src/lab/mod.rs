//! The lab: a real FTP server over real loopback sockets whose faults are scripted.
//! It owns its listener, one thread a session and the files below its root; it speaks correct
//! FTP (passive and active, plain and TLS) while no fault holds, and each fault strikes exactly
//! where and as often as its script says. It refuses to listen anywhere but on loopback, to leave
//! its root, and to leave a thread behind when it is dropped.

mod commands;
mod data;
mod deaf;
mod download;
mod events;
mod fault;
mod fs;
mod listing;
mod names;
mod opening;
mod passive;
mod paths;
mod quirk;
mod reply;
mod script;
mod secure;
mod server;
mod session;
mod step;
mod stream;
mod tls;
mod transfer;
mod wait;

pub use events::{Counters, Event, Subscriber, TransferEnd};
pub use fault::{Fault, Holds, Kind, Until};
pub use names::{Expected, Named, Needs, UnknownFault};
pub use quirk::Quirk;
pub use script::Script;
pub use server::LabServer;
pub use step::Step;
pub use tls::{Certificate, Identity, Tls, Versions};
