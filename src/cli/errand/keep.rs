//! What a one-shot command remembers of uploads that are not finished, so that a later one can go
//! on with them: a journal for each remote folder, below the user's state folder. One process at a
//! time owns one; a journal that knows nothing any more is taken away.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread::Thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::log::chain;
use crate::spool::journal::{Done, Drawer, Journal, KnownAttempt, Store, journal, lower_outlived};
use crate::spool::lock::FolderLock;

/// How long the end waits for the disk to take what was written last.
const FLUSH: Duration = Duration::from_secs(2);

/// An open journal.
pub struct Keep {
    /// Where changes are put.
    pub journal: Journal,
    /// What an earlier command left, by final name.
    pub known: HashMap<Arc<str>, Vec<KnownAttempt>>,
    writer: Thread,
    closing: Arc<AtomicBool>,
    closed: Receiver<()>,
}

impl Keep {
    /// Opens the journal of a remote folder.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn open(place: &str) -> Result<Self, String> {
        let folder = folder_of(place)?;
        let lock = own(&folder)?;
        let opened = Store::open(&folder.join("journal.db")).map_err(|e| chain(&e))?;
        let unread = |e| format!("the journal in {} cannot be read: {e}", folder.display());
        let unfinished = opened.store.unfinished().map_err(unread)?;
        let known = unfinished.into_iter().map(|mut file| {
            lower_outlived(&mut file.attempts);
            (file.of.path, file.attempts)
        });
        let known = known.filter(|(_, attempts)| !attempts.is_empty()).collect();
        let (journal, drawer) = journal();
        let closing = Arc::new(AtomicBool::new(false));
        let (tell, closed) = channel();
        let writer = Writer {
            store: opened.store,
            drawer,
            closing: Arc::clone(&closing),
            lock,
        };
        let writer = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                writer.run();
                let _ = tell.send(());
            })
            .map_err(|e| format!("starting the journal's thread failed: {e}"))?;
        let writer = writer.thread().clone();
        let ringing = writer.clone();
        journal.on_ring(move || ringing.unpark());
        Ok(Self {
            journal,
            known,
            writer,
            closing,
            closed,
        })
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.closing.store(true, SeqCst);
        self.writer.unpark();
        // A disk that hangs does not hold the command; what is not written is more doubtful.
        let _ = self.closed.recv_timeout(FLUSH);
    }
}

struct Writer {
    store: Store,
    drawer: Drawer,
    closing: Arc<AtomicBool>,
    lock: FolderLock,
}

impl Writer {
    fn run(mut self) {
        loop {
            let batch = self.drawer.draw();
            if !batch.is_empty() {
                let changes = batch.iter().map(|entry| &entry.change);
                let stands = self.store.apply(changes).is_ok();
                for entry in batch {
                    if let Done::Ticket(ticket) = entry.done {
                        ticket.settle(stands);
                    }
                }
            } else if self.closing.load(SeqCst) {
                break;
            } else {
                std::thread::park();
            }
        }
        let empty = self.store.unfinished().is_ok_and(|known| known.is_empty());
        let closed = self.store.close();
        if empty && closed {
            // It knows nothing; whatever is left of it does no harm.
            let _ = std::fs::remove_dir_all(self.lock.path());
        }
    }
}

/// The folder of the journal of a remote folder, made as needed.
fn folder_of(place: &str) -> Result<PathBuf, String> {
    let digest = Sha256::digest(place.as_bytes());
    let name: String = digest[..12].iter().map(|b| format!("{b:02x}")).collect();
    let folder = state_folder(|name| std::env::var_os(name).map(PathBuf::from))?;
    make_private(&folder)?;
    Ok(folder.join(name))
}

/// Where this user's state is (XDG base directories).
fn state_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, String> {
    // A relative one is to be ignored.
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or("there is no state folder: neither XDG_STATE_HOME nor HOME names one")?;
    Ok(base.join("ftpulse"))
}

/// A folder that nobody else can write to.
fn make_private(folder: &Path) -> Result<(), String> {
    let fail =
        |e: std::io::Error| format!("the state folder {} cannot be used: {e}", folder.display());
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(fail)?;
    let facts = folder.metadata().map_err(fail)?;
    let ours = facts.uid() == rustix::process::geteuid().as_raw();
    if !ours || facts.mode() & 0o022 != 0 {
        return Err(format!(
            "the state folder {} can be written to by others: have it yours alone (chmod 700)",
            folder.display()
        ));
    }
    Ok(())
}

/// Owns the folder. One that its last owner has just taken away is made anew.
fn own(folder: &Path) -> Result<FolderLock, String> {
    for _ in 0..3 {
        make_private(folder)?;
        let lock = FolderLock::acquire(folder, "the state folder of this destination")
            .map_err(|e| chain(&e))?;
        if lock.is_current().unwrap_or(false) {
            return Ok(lock);
        }
    }
    Err(format!(
        "the state folder {} comes and goes",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_the_users_and_absolute() {
        let of = |state: Option<&str>, home: Option<&str>| {
            state_folder(|name| {
                let told = if name == "HOME" { home } else { state };
                told.map(PathBuf::from)
            })
        };
        assert_eq!(of(Some("/s"), Some("/h")), Ok("/s/ftpulse".into()));
        let at_home = Ok("/h/.local/state/ftpulse".into());
        assert_eq!(of(None, Some("/h")), at_home);
        assert_eq!(of(Some("s"), Some("/h")), at_home);
        assert!(of(None, None).is_err() && of(Some(""), Some("")).is_err());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        make_private(&folder).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o770)).unwrap();
        assert!(make_private(&folder).unwrap_err().contains("chmod 700"));
    }
}
