//! The one way to open a source: beneath its spool, no symlink, nothing but a regular file.
//! Opens the spool afresh each time, so a folder that was removed and made again is the new one.
//! Promises that a `Vanished` speaks of the file, never of the whole spool.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::Stat;

use super::{Facts, Stamp};
use crate::sys::file;

/// Why a source cannot be opened.
#[derive(Debug)]
pub enum SourceError {
    /// It is not there any more.
    Vanished,
    /// It is something else now: a symlink, a folder, a FIFO, a device.
    NotRegular,
    /// The service may not read it.
    Denied,
    /// Anything else; the spool folder itself missing is among it.
    Io(io::Error),
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vanished => "the file is not there any more",
            Self::NotRegular => "not a regular file (a symlink, folder, FIFO or device)",
            Self::Denied => "the service may not read the file; give its user the right to",
            Self::Io(_) => "the file cannot be opened",
        })
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Self::Vanished,
            Some(libc::ELOOP | libc::EXDEV | libc::ENXIO | libc::EISDIR) => Self::NotRegular,
            Some(libc::EACCES | libc::EPERM) => Self::Denied,
            _ => Self::Io(error),
        }
    }
}

/// Opens the source `rel` beneath the spool and tells which version was opened.
///
/// # Errors
/// [`SourceError`]; a missing spool folder is `Io`, so that nobody forgets its files over it.
pub fn open_source(spool_root: &Path, rel: &str) -> Result<(File, Stamp), SourceError> {
    let root = file::open_root_for_passing(spool_root).map_err(SourceError::Io)?;
    let (file, facts) = open_in(&root, rel)?;
    Ok((file, facts.stamp))
}

/// As [`open_source`], in a spool folder that is open already.
pub(super) fn open_in(
    root: impl std::os::fd::AsFd,
    rel: &str,
) -> Result<(File, Facts), SourceError> {
    let fd = file::open_file_beneath(root, rel)?;
    let stat = rustix::fs::fstat(&fd).map_err(io::Error::from)?;
    if !file::is_regular(&stat) {
        return Err(SourceError::NotRegular);
    }
    Ok((File::from(fd), facts_of(&stat)))
}

/// The version of an open file.
///
/// # Errors
/// What `fstat` says.
pub fn stamp_of(file: &File) -> io::Result<Stamp> {
    Ok(facts_of(&rustix::fs::fstat(file)?).stamp)
}

/// The version that stands at `rel` now; none if it is gone or no regular file any more.
///
/// # Errors
/// Where that cannot be found out, a missing spool folder included.
pub fn stamp_at(spool_root: &Path, rel: &str) -> io::Result<Option<Stamp>> {
    let root = file::open_root_for_passing(spool_root)?;
    match file::stat_beneath(&root, rel).map_err(SourceError::from) {
        Ok(stat) if file::is_regular(&stat) => Ok(Some(facts_of(&stat).stamp)),
        Ok(_) | Err(SourceError::Vanished | SourceError::NotRegular) => Ok(None),
        Err(SourceError::Denied) => Err(io::ErrorKind::PermissionDenied.into()),
        Err(SourceError::Io(error)) => Err(error),
    }
}

/// Translates the kernel's facts. The casts differ by machine: fields are signed, unsigned or
/// narrower there, their values are not.
#[allow(clippy::unnecessary_cast)]
pub(super) fn facts_of(stat: &Stat) -> Facts {
    let stamp = Stamp {
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    };
    Facts {
        stamp,
        ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
