//! The spool: what is taken, when it is settled, and what becomes of a delivered source.

pub mod dead;
pub mod finish;
mod folder;
pub mod inbox;
pub mod journal;
pub mod lock;
pub mod locked;
pub mod marker;
mod memory;
pub mod revive;
pub mod said;
pub mod scan;
pub mod settle;
pub mod source;
mod still;
mod stow;
pub mod taking;
pub mod waiting;
pub mod watch;
pub mod work;

pub use source::{SourceError, open_source, stamp_at, stamp_of};

/// Identity and version of a file: what is compared before anything irreversible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
}

/// A file that may be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Path below the spool, `/` between its parts, UTF-8.
    pub path: String,
    /// The version that was found settled.
    pub stamp: Stamp,
}

/// What is known of a file: its version, and when anything about it last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Identity and version.
    pub stamp: Stamp,
    /// Time of the last change of content, name or rights, nanoseconds since the Unix epoch.
    pub ctime_ns: i64,
}

/// The clocks a decision needs, read once: how long, and what the file system's times mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time.
    pub mono: crate::clock::Mono,
    /// Wall clock, nanoseconds since the Unix epoch.
    pub unix_ns: i64,
}

/// Where the time comes from; a parameter, so that tests can turn the clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Reads both clocks.
    pub now: fn() -> Now,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self { now: system_now }
    }
}

fn system_now() -> Now {
    // A float holds nanoseconds of today to within a microsecond: ample for settling.
    Now {
        mono: crate::clock::mono(),
        unix_ns: (crate::clock::unix() * 1e9) as i64,
    }
}
