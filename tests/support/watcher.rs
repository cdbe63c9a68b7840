//! Watches a server's folder while a test runs and records every moment at which a final name
//! shows anything but a whole allowed file. Two witnesses: a scan that reads and hashes each
//! visible final name whenever it changed, and inotify, which tells a name that was opened for
//! writing (instead of renamed into place) even between two scans, and counts the renames.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use sha2::{Digest, Sha256};

type Hash = [u8; 32];
type IsFinal = Box<dyn Fn(&str) -> bool + Send>;

/// Names that uploads use before they publish: a leading dot, `.part` or `.tmp` at the end.
pub fn is_final_name(name: &str) -> bool {
    !(name.starts_with('.') || name.ends_with(".part") || name.ends_with(".tmp"))
}

/// SHA-256 of a content.
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

#[derive(Default)]
struct Shared {
    /// Whole contents by path below the folder.
    allowed: HashMap<String, HashSet<Hash>>,
    violations: BTreeSet<String>,
    renamed_in: BTreeMap<String, usize>,
    seen: BTreeSet<String>,
    overflowed: bool,
}

/// The watch over one folder; see the module.
pub struct Watcher {
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching; `is_final` gets a file's name without its folders.
    pub fn start(folder: &Path, is_final: impl Fn(&str) -> bool + Send + 'static) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut eye = Eye {
            folder: folder.to_owned(),
            is_final: Box::new(is_final),
            shared: Arc::clone(&shared),
            inotify: inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
                .unwrap(),
            watched: HashMap::new(),
            hashed: HashMap::new(),
        };
        eye.scan(); // the folder is watched when this returns
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || {
                while !stopping.load(Ordering::SeqCst) {
                    eye.wait();
                    eye.read_events();
                    eye.scan();
                }
                eye.read_events();
                eye.scan();
            });
        Self {
            shared,
            stop,
            thread: Some(thread.unwrap()),
        }
    }

    /// Allows a whole content under a path below the folder. Say so before it is sent.
    pub fn allow(&self, name: &str, content: &[u8]) {
        self.allow_hash(name, sha256(content));
    }

    /// The same by hash.
    pub fn allow_hash(&self, name: &str, hash: Hash) {
        self.shared
            .lock()
            .unwrap()
            .allowed
            .entry(name.into())
            .or_default()
            .insert(hash);
    }

    /// How often a file was renamed to that name, in folders that existed before the rename by
    /// more than a moment.
    pub fn deliveries(&self, name: &str) -> usize {
        let shared = self.shared.lock().unwrap();
        assert!(
            !shared.overflowed,
            "inotify dropped events: deliveries cannot be counted"
        );
        shared.renamed_in.get(name).copied().unwrap_or(0)
    }

    /// Final names seen so far.
    pub fn seen(&self) -> BTreeSet<String> {
        self.shared.lock().unwrap().seen.clone()
    }

    /// What was wrong so far, one line each.
    pub fn violations(&self) -> Vec<String> {
        self.shared
            .lock()
            .unwrap()
            .violations
            .iter()
            .cloned()
            .collect()
    }

    /// Stops after a last look and panics if anything was ever wrong.
    pub fn assert_clean(mut self) -> BTreeSet<String> {
        self.end();
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "torn files were visible:\n{}",
            violations.join("\n")
        );
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the watcher's thread panicked"
            );
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// What tells whether a file may have changed since it was hashed.
type Stamp = (u64, u64, i64, i64, i64, i64);

fn stamp(meta: &fs::Metadata) -> Stamp {
    let (m, c) = (
        (meta.mtime(), meta.mtime_nsec()),
        (meta.ctime(), meta.ctime_nsec()),
    );
    (meta.ino(), meta.len(), m.0, m.1, c.0, c.1)
}

struct Eye {
    folder: PathBuf,
    is_final: IsFinal,
    shared: Arc<Mutex<Shared>>,
    inotify: OwnedFd,
    watched: HashMap<PathBuf, i32>,
    hashed: HashMap<String, Stamp>,
}

impl Eye {
    fn wait(&self) {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        let _ = poll(
            &mut [PollFd::new(&self.inotify, PollFlags::IN)],
            Some(&tick),
        );
    }

    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder)
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }

    fn read_events(&mut self) {
        use inotify::ReadFlags as Is;
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let is = event.events();
            let mut shared = self.shared.lock().unwrap();
            if is.contains(Is::QUEUE_OVERFLOW) {
                shared.overflowed = true;
            }
            let file = event
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let folder = self.watched.iter().find(|(_, wd)| **wd == event.wd());
            let (Some(file), Some((folder, _))) = (file, folder) else {
                continue;
            };
            if is.contains(Is::ISDIR) || !(self.is_final)(&file) {
                continue;
            }
            let name = self.name_of(&folder.join(&file));
            if is.contains(Is::MOVED_TO) {
                *shared.renamed_in.entry(name.clone()).or_default() += 1;
            }
            if is.intersects(Is::CREATE | Is::MODIFY) {
                shared
                    .violations
                    .insert(format!("{name}: written under its final name"));
            }
        }
    }

    fn scan(&mut self) {
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            if !self.watched.contains_key(&folder) {
                use inotify::WatchFlags as On;
                let on = On::CREATE | On::MODIFY | On::MOVED_TO;
                if let Ok(wd) = inotify::add_watch(&self.inotify, &folder, on) {
                    self.watched.insert(folder.clone(), wd);
                }
            }
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind)
                        if kind.is_file()
                            && (self.is_final)(&entry.file_name().to_string_lossy()) =>
                    {
                        self.look_at(&entry.path());
                    }
                    _ => {}
                }
            }
        }
    }

    fn look_at(&mut self, path: &Path) {
        let name = self.name_of(path);
        // Opened once, so that stamp and content belong to the same file; gone is no fault.
        let Ok(mut file) = fs::File::open(path) else {
            return;
        };
        let before = stamp(&file.metadata().unwrap());
        if self.hashed.get(&name) == Some(&before) {
            return;
        }
        let mut hash = Sha256::new();
        let (mut length, mut chunk) = (0, vec![0; 256 * 1024]);
        loop {
            let read = std::io::Read::read(&mut file, &mut chunk).unwrap();
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
            length += read;
        }
        let hash: Hash = hash.finalize().into();
        let mut shared = self.shared.lock().unwrap();
        if !shared
            .allowed
            .get(&name)
            .is_some_and(|whole| whole.contains(&hash))
        {
            shared
                .violations
                .insert(format!("{name}: {length} bytes that are no allowed file"));
        }
        shared.seen.insert(name.clone());
        // Changed while it was read: look again, the clock of the stamps may be coarse.
        if stamp(&file.metadata().unwrap()) == before {
            self.hashed.insert(name, before);
        }
    }
}
