//! A journal that cannot be used: what is refused and what is set aside, and where to.

use std::fmt;
use std::path::{Path, PathBuf};

/// The journal cannot be used.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    why: String,
    full: bool,
}

impl OpenError {
    pub(super) fn new(path: &Path, bad: Bad) -> Self {
        let (full, why) = match bad {
            Bad::Unreadable(why) | Bad::Refused(why) => (false, why),
            Bad::Full(why) | Bad::FullForSharing(why) => (true, why),
        };
        let path = path.to_owned();
        Self { path, why, full }
    }

    /// Whether its volume has no room: that may pass.
    pub fn is_full(&self) -> bool {
        self.full
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if self.full {
            return write!(
                f,
                "the journal {path} cannot be opened: its volume is full ({}); make room there",
                self.why
            );
        }
        write!(
            f,
            "the journal {path} cannot be used: {}; give this user the right to it, or set \
             state.dir to another folder",
            self.why
        )
    }
}

impl std::error::Error for OpenError {}

/// Why a file is no journal that can be used.
pub(super) enum Bad {
    /// It is set aside.
    Unreadable(String),
    /// It must stay as it is.
    Refused(String),
    /// There is no room for it.
    Full(String),
    /// There is none for the memory that connections share, a file beside it.
    FullForSharing(String),
}

/// SQLITE_IOERR_SHMSIZE.
const NO_SHARED_MEMORY: i32 = 4874;

impl From<rusqlite::Error> for Bad {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Unreadable(error.to_string()),
            Some(DiskFull) => Self::Full(error.to_string()),
            _ if extended == Some(NO_SHARED_MEMORY) => Self::FullForSharing(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// The name of the `n`th journal that was set aside.
pub(super) fn place(journal: &Path, n: u32) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(format!(".unreadable-{n}"));
    PathBuf::from(name)
}

/// Renames an unreadable journal, and what SQLite keeps beside it, to names that are free.
pub(super) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let free = (1..)
        .map(|n| place(path, n))
        .find(|place| !place.exists())
        .unwrap_or_else(|| with(".unreadable"));
    std::fs::rename(path, &free)?;
    for ending in ["-wal", "-shm"] {
        let mut place = free.as_os_str().to_owned();
        place.push(ending);
        match std::fs::rename(with(ending), place) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(free)
}
