//! The spool: what is taken, when it is settled, and what becomes of a delivered source.

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
