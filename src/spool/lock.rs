//! One process owns a folder (a spool, the state): an exclusive `flock` on the folder itself,
//! held for the life of the value and gone with the process, however it ends. Writes nothing,
//! so a read-only spool can be owned too. Promises to name the holder where the kernel does.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use crate::sys::file;

/// The ownership of a folder.
#[derive(Debug)]
pub struct FolderLock {
    fd: OwnedFd,
    identity: (u64, u64),
    path: PathBuf,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command line, where it may be read.
    pub command: Option<String>,
}

/// Why a folder cannot be owned.
#[derive(Debug)]
pub enum LockError {
    /// Another process (or another route of this one) owns it.
    Held {
        /// What the folder is to the service.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// Who; unknown where it lives in another container or is hidden from us.
        holder: Option<Holder>,
    },
    /// It cannot be opened or locked.
    Io {
        /// What the folder is to the service.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { what, path, holder } => {
                write!(f, "{what} {path:?} is in use by ")?;
                match holder {
                    Some(Holder {
                        pid,
                        command: Some(command),
                    }) => {
                        write!(f, "process {pid} ({command:?})")?;
                    }
                    Some(Holder { pid, command: None }) => write!(f, "process {pid}")?,
                    None => f.write_str("another process (not visible from here)")?,
                }
                f.write_str("; stop that one, or configure another folder")
            }
            Self::Io { what, path, .. } => write!(f, "{what} {path:?} cannot be opened"),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Held { .. } => None,
        }
    }
}

impl FolderLock {
    /// Takes the folder, or tells who has it. `what` names it for people: "spool folder".
    ///
    /// # Errors
    /// [`LockError`]; nothing is waited for.
    pub fn acquire(path: &Path, what: &'static str) -> Result<Self, LockError> {
        let fail = |source| LockError::Io {
            what,
            path: path.to_owned(),
            source,
        };
        let fd = file::open_root(path).map_err(fail)?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| fail(errno.into()))?;
        if file::lock_exclusive(&fd).map_err(fail)? {
            return Ok(Self {
                fd,
                identity: identity(&stat),
                path: path.to_owned(),
            });
        }
        Err(LockError::Held {
            what,
            path: path.to_owned(),
            holder: flock_holder(&stat),
        })
    }

    /// Its path, as it was asked for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, open for reading.
    pub fn folder(&self) -> &OwnedFd {
        &self.fd
    }

    /// Device and inode of the folder that is owned.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether its path still leads to the folder that is owned.
    ///
    /// # Errors
    /// Where the path leads to no folder that can be opened.
    pub fn is_current(&self) -> io::Result<bool> {
        let fd = file::open_root_for_passing(&self.path)?;
        Ok(identity(&rustix::fs::fstat(&fd)?) == self.identity)
    }
}

#[allow(clippy::unnecessary_cast)]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// How often the list of locks is read: while others come and go, a reading can miss some.
const READINGS: usize = 5;

/// Who holds an exclusive `flock` on this file or folder, where the kernel tells.
pub(super) fn flock_holder(stat: &Stat) -> Option<Holder> {
    (0..READINGS).find_map(|_| listed_holder(stat))
}

/// Looks the lock up in /proc/locks: `1: FLOCK ADVISORY WRITE 1234 fe:00:567 0 EOF`.
fn listed_holder(stat: &Stat) -> Option<Holder> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let (dev, ino) = identity(stat);
    let place = format!(
        "{:02x}:{:02x}:{ino}",
        rustix::fs::major(dev),
        rustix::fs::minor(dev)
    );
    // On some file systems (btrfs, overlay) the device differs from what `stat` tells: then
    // an inode that only one line names is believed.
    let ends = format!(":{ino}");
    let flocks = || {
        locks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| {
                words.get(1) == Some(&"FLOCK") && words.len() > 5 && words[5].ends_with(&ends)
            })
    };
    let exact = flocks().find(|words| words[5] == place);
    let only = || flocks().next().filter(|_| flocks().count() == 1);
    let pid = exact.or_else(only)?[4]
        .parse()
        .ok()
        .filter(|pid| *pid != 0)?;
    Some(Holder {
        pid,
        command: command_line(pid),
    })
}

fn command_line(pid: u32) -> Option<String> {
    /// Characters of a command line that are told: enough to recognise it.
    const MAX: usize = 200;
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .collect();
    let text = String::from_utf8_lossy(&words.join(&b' '))
        .chars()
        .take(MAX)
        .collect::<String>();
    Some(text).filter(|text| !text.is_empty())
}
