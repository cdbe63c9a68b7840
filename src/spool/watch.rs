//! inotify, by the crate `notify`: tells one route's thread what moved, and drops what tells
//! nothing (opens, single writes, dot names) before it wakes anybody. Each folder is watched by
//! itself and before it is read, so that no file falls between the two. Never waits for the
//! route's thread: a full channel or a kernel overflow becomes one flag, "scan again".

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something was renamed to it.
    MovedIn,
    /// Something was made, closed after writing, or changed its rights there.
    Seen,
    /// What stood there was removed or renamed away.
    Gone,
}

/// What the watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FsEvent {
    /// Something below the spool, by its path below it.
    Below(Kind, PathBuf),
    /// Something about the spool folder itself, or a folder that leads to it.
    Root,
}

/// The way to a route's thread, for those who must not wait.
#[derive(Debug, Clone)]
pub struct Inlet {
    /// What happened; bounded.
    pub events: SyncSender<FsEvent>,
    /// Wakes the thread; one place, as one wake is enough.
    pub wake: SyncSender<()>,
    /// Something was lost: only a scan can tell.
    pub lost: Arc<AtomicBool>,
}

impl Inlet {
    fn send(&self, event: FsEvent) {
        if self.events.try_send(event).is_err() {
            self.lost.store(true, Ordering::Release);
        }
        let _ = self.wake.try_send(());
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

/// Why something is not watched.
#[derive(Debug)]
pub enum WatchError {
    /// The machine's inotify limits are used up.
    Limit(String),
    /// It is not there, or may not be watched; not worth a word, the scan tells of it.
    Other,
}

impl From<notify::Error> for WatchError {
    fn from(error: notify::Error) -> Self {
        let limit = match &error.kind {
            ErrorKind::MaxFilesWatch => Some("fs.inotify.max_user_watches"),
            ErrorKind::Io(io) => match io.raw_os_error() {
                Some(libc::EMFILE) => Some("fs.inotify.max_user_instances"),
                Some(libc::ENFILE | libc::ENOMEM | libc::ENOSPC) => Some("a limit of the machine"),
                _ => None,
            },
            _ => None,
        };
        limit.map_or(Self::Other, |limit| Self::Limit(limit.to_owned()))
    }
}

/// The watch of one spool folder, or of the way to a missing one.
#[derive(Debug)]
pub struct Watch {
    notify: RecommendedWatcher,
    /// The spool folder, symlinks resolved: as events name it.
    root: PathBuf,
    /// Hashes of the folders that are watched. Bounded by the kernel's limit on watches.
    watched: HashSet<u64>,
    hasher: RandomState,
}

impl Watch {
    /// Watches the folders that hold the spool folder, for its removal and return; the spool
    /// itself follows by [`Watch::add`].
    ///
    /// # Errors
    /// Where the machine has no inotify left.
    pub fn new(spool: &Path, inlet: Inlet) -> Result<Self, WatchError> {
        let configured = std::path::absolute(spool).map_err(notify::Error::io)?;
        let root = spool.canonicalize().unwrap_or_else(|_| configured.clone());
        let filter = Filter {
            root: root.clone(),
            configured: configured.clone(),
        };
        let config = Config::default().with_follow_symlinks(false);
        let notify = RecommendedWatcher::new(handler(filter, inlet), config)?;
        let mut watch = Self {
            notify,
            root,
            watched: HashSet::new(),
            hasher: RandomState::new(),
        };
        let mut holders: Vec<&Path> = [watch.root.parent(), configured.parent()]
            .into_iter()
            .flatten()
            .collect();
        holders.dedup();
        for holder in holders.into_iter().map(Path::to_owned).collect::<Vec<_>>() {
            // The nearest one that is there; that it may not be watched costs only time.
            let _ = holder.ancestors().find(|path| watch.watch(path).is_ok());
        }
        Ok(watch)
    }

    /// Watches a folder below the spool (empty: the spool), unless it is watched already.
    ///
    /// # Errors
    /// [`WatchError::Limit`] where the kernel allows no more.
    pub fn add(&mut self, rel: &str) -> Result<(), WatchError> {
        let key = self.hasher.hash_one(rel);
        if self.watched.contains(&key) {
            return Ok(());
        }
        let path = if rel.is_empty() {
            self.root.clone()
        } else {
            self.root.join(rel)
        };
        self.watch(&path)?;
        self.watched.insert(key);
        Ok(())
    }

    /// Whether this folder is watched.
    pub fn has(&self, rel: &str) -> bool {
        self.watched.contains(&self.hasher.hash_one(rel))
    }

    /// A name is gone: if it was a watched folder, all below it is unwatched by now, so every
    /// folder is watched anew by the next scan (which costs nothing where it still is).
    pub fn forget(&mut self, rel: &str) {
        if self.has(rel) {
            self.watched.clear();
        }
    }

    fn watch(&mut self, path: &Path) -> Result<(), WatchError> {
        Ok(self.notify.watch(path, RecursiveMode::NonRecursive)?)
    }
}

/// Translates and sieves what the kernel tells; runs on notify's thread.
struct Filter {
    root: PathBuf,
    configured: PathBuf,
}

fn handler(
    filter: Filter,
    inlet: Inlet,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    move |result| match result {
        Ok(event) if event.need_rescan() => inlet.lose(),
        Ok(event) => {
            if let Some(event) = filter.translate(event) {
                inlet.send(event);
            }
        }
        Err(_) => inlet.lose(),
    }
}

impl Filter {
    fn translate(&self, event: notify::Event) -> Option<FsEvent> {
        let kind = match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Kind::MovedIn,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
                Kind::Gone
            }
            EventKind::Create(_)
            | EventKind::Modify(ModifyKind::Metadata(_))
            | EventKind::Access(AccessKind::Close(AccessMode::Write)) => Kind::Seen,
            // Opens; single writes (the look when the file comes due sees them); the second
            // telling of a rename.
            _ => return None,
        };
        let path = event.paths.into_iter().next()?;
        let told = match path.strip_prefix(&self.root) {
            Ok(rel) if rel.as_os_str().is_empty() => FsEvent::Root,
            Ok(rel) if is_hidden(rel) => return None,
            Ok(rel) => FsEvent::Below(kind, rel.to_owned()),
            Err(_) if self.root.starts_with(&path) => FsEvent::Root,
            Err(_) if self.configured.starts_with(&path) => FsEvent::Root,
            Err(_) => return None,
        };
        Some(told)
    }
}

/// Whether a part of the path is a dot name: never taken, and among them are our own.
fn is_hidden(rel: &Path) -> bool {
    rel.components()
        .any(|part| part.as_os_str().as_bytes().starts_with(b"."))
}
