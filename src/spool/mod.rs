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

/// The version of an open file.
pub fn stamp_of(file: &std::fs::File) -> std::io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata()?;
    Ok(Stamp {
        dev: meta.dev(),
        ino: meta.ino(),
        size: meta.size(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    })
}
