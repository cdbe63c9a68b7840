//! Locks on byte ranges (`fcntl`), the other kind of advisory lock beside `flock`: neither sees
//! the other. Taken as a lock of the open file, not of the process: it ends with the descriptor
//! and with nothing else. Never waits.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Who has locked a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locker {
    /// Its process id; none where the lock is one of an open file, or of another machine.
    pub pid: Option<u32>,
}

/// Takes a shared lock on the whole file; held until the descriptor closes.
///
/// # Errors
/// `EAGAIN` or `EACCES` where somebody holds any part of it exclusively; what else `fcntl` says
/// where the file system has no such locks.
pub fn share_ranges(file: &File) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, libc::F_RDLCK).map(drop)
}

/// Takes an exclusive lock on the whole file, which has to be open for writing; held until the
/// descriptor closes.
///
/// # Errors
/// `EAGAIN` or `EACCES` where somebody holds any part of it; what else `fcntl` says where the file
/// system has no such locks.
pub fn own_ranges(file: &File) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, libc::F_WRLCK).map(drop)
}

/// Who holds a part of the file exclusively, the locks of this process left out.
///
/// # Errors
/// What `fcntl` says where the file system has no such locks.
pub fn exclusive_holder(file: &File) -> io::Result<Option<Locker>> {
    holder(file, libc::F_RDLCK)
}

/// Who holds a part of the file in any way, the locks of this process left out.
///
/// # Errors
/// What `fcntl` says where the file system has no such locks.
pub fn any_holder(file: &File) -> io::Result<Option<Locker>> {
    holder(file, libc::F_WRLCK)
}

/// Who stands in the way of a lock of that kind.
fn holder(file: &File, kind: libc::c_int) -> io::Result<Option<Locker>> {
    let found = control(file, libc::F_GETLK, kind)?;
    if libc::c_int::from(found.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let pid = u32::try_from(found.l_pid).ok().filter(|pid| *pid != 0);
    Ok(Some(Locker { pid }))
}

/// Asks for, or about, a lock of that kind on the whole file.
#[allow(unsafe_code, clippy::unnecessary_cast)]
fn control(file: &File, command: libc::c_int, kind: libc::c_int) -> io::Result<libc::flock> {
    // SAFETY: `flock` is a plain struct of integers: all zero is a value of it, and means the
    // whole file, counted from its start.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open for the whole call (borrowed from `file`), and both commands
    // take a pointer to one `flock`, which outlives the call.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if answer == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(lock)
    }
}
