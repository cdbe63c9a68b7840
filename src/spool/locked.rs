//! The shared lock on a source, and the exclusive one on the target of a download: whoever is in
//! the way (by `flock` or by `fcntl`) is still at work, and named where the kernel tells. Both
//! kinds are taken, so that whoever asks first waits for the end of the transfer. Where a file
//! system has no locks there are none to heed.

use std::fmt;
use std::fs::File;
use std::io;

use super::lock::flock_holder;
use crate::sys::{file, lock};

/// A file that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// By which of the two calls.
    pub by: &'static str,
    /// Who; unknown where it lives in another container, on another machine, or where the lock
    /// is one of an open file.
    pub holder: Option<Holder>,
}

/// A process that holds a lock. Its command line is not told: it may hold a secret of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its program, where it may be read.
    pub name: Option<String>,
}

impl Holder {
    fn of(pid: u32) -> Self {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Self {
            pid,
            name: name.map(|name| name.trim_end().to_owned()),
        }
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(Holder {
                pid,
                name: Some(name),
            }) => write!(f, "locked by pid {pid} ({name})")?,
            Some(Holder { pid, name: None }) => write!(f, "locked by pid {pid}")?,
            None => f.write_str("locked by another process (not visible from here)")?,
        }
        write!(f, ", with {}", self.by)
    }
}

/// Takes the shared locks without waiting; they end with the descriptor.
///
/// # Errors
/// [`Locked`], with the holder.
pub fn share(source: &File) -> Result<(), Locked> {
    if matches!(file::lock_shared(source), Ok(false)) {
        return Err(by_flock(source));
    }
    match lock::share_ranges(source) {
        Err(error) if is_taken(&error) => Err(by_fcntl(lock::exclusive_holder(source))),
        // No such locks on this file system: nobody can hold one.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes the exclusive locks without waiting; they end with the descriptor. A file that is open for
/// reading only gets the one of `flock`.
///
/// # Errors
/// [`Locked`], with the holder.
pub fn own(target: &File) -> Result<(), Locked> {
    if matches!(file::lock_exclusive(target), Ok(false)) {
        return Err(by_flock(target));
    }
    match lock::own_ranges(target) {
        Err(error) if is_taken(&error) => Err(by_fcntl(lock::any_holder(target))),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn by_flock(file: &File) -> Locked {
    let stat = rustix::fs::fstat(file);
    let holder = stat.ok().and_then(|stat| flock_holder(&stat));
    Locked {
        by: "flock",
        holder: holder.map(|holder| Holder::of(holder.pid)),
    }
}

fn by_fcntl(found: io::Result<Option<lock::Locker>>) -> Locked {
    let holder = found.ok().flatten().and_then(|locker| locker.pid);
    Locked {
        by: "fcntl",
        holder: holder.map(Holder::of),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}
