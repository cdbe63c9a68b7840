//! One walk through a spool folder, in one go or in parts: it goes on where it stood, so a spool is
//! read once however many parts that takes. Follows no symlink, opens no file, keeps the best of
//! what a part finds in a bounded heap and only counts the rest, so a million files cost the memory
//! of `places`. Its descriptors are bounded by the depth. What is done with the finds, and what is
//! said about the things left alone, is the business of its `Eyes`.

use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Dir, DirEntry, FileType};
use rustix::io::Errno;

use super::source::facts_of;
use super::taking::{Taking, always_left_out, check_name};
use super::waiting::{Rank, rank_key};
use super::{Facts, Stamp, finish};
use crate::config::Order;
use crate::sys::file;

/// Folders within folders that are looked into: each level holds one descriptor open, and real
/// trees are a tenth as deep.
const DEPTH_MAX: usize = 64;

/// Private names of an earlier life handed back by one scan; a kill leaves one for each route.
const LEFTOVERS_MAX: usize = 1_000;

/// Sums over files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub files: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
    /// The oldest modification time among them, nanoseconds since the Unix epoch.
    pub oldest_ns: Option<i64>,
}

impl Totals {
    /// Adds one file.
    pub fn add(&mut self, stamp: &Stamp) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(stamp.size);
        let mtime = stamp.mtime_ns;
        self.oldest_ns = Some(self.oldest_ns.map_or(mtime, |oldest| oldest.min(mtime)));
    }
}

impl Totals {
    /// Adds the sums over other files.
    pub fn merge(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.oldest_ns = match (self.oldest_ns, other.oldest_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Takes one file off; which is the oldest of the others is not known.
    pub fn subtract(&mut self, stamp: &Stamp) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(stamp.size);
        if self.files == 0 {
            *self = Self::default();
        }
    }
}

/// What a scan asks and tells on its way.
pub trait Eyes {
    /// A folder is about to be read: the time to watch it, so that nothing falls between.
    fn entering(&mut self, rel: &str);
    /// Whether this file is news; others are neither kept nor counted.
    fn wants(&mut self, rel: &str, facts: &Facts) -> bool;
    /// Something is left alone, for this reason.
    fn left_alone(&mut self, rel: &[u8], reason: &str);
}

/// What to walk through and how much to keep.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    /// Which names are taken.
    pub taking: &'a Taking,
    /// Which files are the best.
    pub order: Order,
    /// How many of them are kept.
    pub places: usize,
    /// Ends the walk early.
    pub stop: &'a AtomicBool,
}

/// Where a part of a walk ends.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// After so many entries of folders.
    pub entries: usize,
    /// After so many wanted files.
    pub files: usize,
}

impl Part {
    /// All that is left.
    pub const ALL: Self = Self {
        entries: usize::MAX,
        files: usize::MAX,
    };
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Finds {
    /// The best files, in order.
    pub files: Vec<(String, Facts)>,
    /// The sums over the wanted files that were not kept.
    pub rest: Totals,
    /// Private names that an earlier life left behind.
    pub leftovers: Vec<String>,
    /// Entries that were read.
    pub entries: usize,
    /// Whether every folder was read to its end, or as far as this part goes.
    pub complete: bool,
}

impl Scan<'_> {
    /// Walks through the folder `start` below the open spool folder (empty: the spool itself).
    ///
    /// # Errors
    /// Where `start` itself cannot be opened; troubles below it are told to the eyes.
    pub fn run(&self, root: &OwnedFd, start: &str, eyes: &mut impl Eyes) -> io::Result<Finds> {
        let mut walk = Walk::open(root, start, eyes)?;
        Ok(walk.go_on(self, Part::ALL, eyes))
    }
}

struct Level {
    dir: Dir,
    /// Length of this folder's path within `Walk::path`.
    path_len: usize,
}

/// A walk and where it stands. What comes while it rests, into folders that it has been through, is
/// not seen by it.
pub struct Walk {
    /// The path in hand; grown and cut in place, so that a file costs no allocation.
    path: String,
    levels: Vec<Level>,
    /// Depth of the start below the spool.
    depth: usize,
}

impl Walk {
    /// Stands at the beginning of the folder `start` below the open spool folder.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(root: &OwnedFd, start: &str, eyes: &mut impl Eyes) -> io::Result<Self> {
        eyes.entering(start);
        let dir = Dir::new(file::open_dir_beneath(root, start)?)?;
        let depth = if start.is_empty() {
            0
        } else {
            start.split('/').count()
        };
        Ok(Self {
            path: start.to_owned(),
            levels: vec![Level {
                dir,
                path_len: start.len(),
            }],
            depth,
        })
    }

    /// Whether everything was read.
    pub fn ended(&self) -> bool {
        self.levels.is_empty()
    }

    /// Reads a part of what is left.
    pub fn go_on(&mut self, scan: &Scan<'_>, part: Part, eyes: &mut impl Eyes) -> Finds {
        let mut step = Step {
            scan: *scan,
            eyes,
            walk: self,
            best: BinaryHeap::new(),
            finds: Finds {
                complete: true,
                ..Finds::default()
            },
        };
        while step.within(part) && step.step() {}
        let mut finds = step.finds;
        let best = step.best.into_sorted_vec();
        finds.files = best
            .into_iter()
            .map(|ranked| (ranked.rank.path, ranked.facts))
            .collect();
        finds
    }
}

/// A part of a walk under way.
struct Step<'a, E> {
    scan: Scan<'a>,
    eyes: &'a mut E,
    walk: &'a mut Walk,
    best: BinaryHeap<Ranked>,
    finds: Finds,
}

/// The heap's greatest is the worst file kept: the one that goes first for a better one.
struct Ranked {
    rank: Rank,
    facts: Facts,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl<E: Eyes> Step<'_, E> {
    fn within(&self, part: Part) -> bool {
        let found = self.best.len() as u64 + self.finds.rest.files;
        self.finds.entries < part.entries && found < part.files as u64
    }

    /// Handles one entry; false at the end.
    fn step(&mut self) -> bool {
        if self.scan.stop.load(Ordering::Relaxed) {
            self.finds.complete = false;
            return false;
        }
        let Some(level) = self.walk.levels.last_mut() else {
            return false;
        };
        self.walk.path.truncate(level.path_len);
        match level.dir.read() {
            None => {
                self.walk.levels.pop();
            }
            Some(Ok(entry)) => {
                self.finds.entries += 1;
                self.entry(&entry);
            }
            Some(Err(error)) => {
                self.finds.complete = false;
                let reason = format!("the folder cannot be read to its end: {error}");
                self.eyes.left_alone(self.walk.path.as_bytes(), &reason);
                self.walk.levels.pop();
            }
        }
        true
    }

    fn entry(&mut self, entry: &DirEntry) {
        let bytes = entry.file_name().to_bytes();
        if bytes.starts_with(b".") {
            return self.hidden(bytes);
        }
        let name = match check_name(bytes) {
            Ok(name) => name,
            Err(reason) => return self.eyes.left_alone(&join(&self.walk.path, bytes), reason),
        };
        if always_left_out(name) {
            return;
        }
        if !self.walk.path.is_empty() {
            self.walk.path.push('/');
        }
        self.walk.path.push_str(name);
        match entry.file_type() {
            FileType::RegularFile | FileType::Unknown => self.look(name),
            FileType::Directory => self.enter(name),
            other => self.other(name, other),
        }
    }

    /// Dot names are never taken; only those that are our own are noted.
    fn hidden(&mut self, bytes: &[u8]) {
        let private = str::from_utf8(bytes).is_ok_and(finish::is_private);
        if private && self.finds.leftovers.len() < LEFTOVERS_MAX {
            let path = join(&self.walk.path, bytes);
            self.finds
                .leftovers
                .push(String::from_utf8_lossy(&path).into_owned());
        }
    }

    fn look(&mut self, name: &str) {
        let Some(Ok(dir)) = self.walk.levels.last().map(|level| level.dir.fd()) else {
            return;
        };
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // What vanishes between the listing and the look is no news.
            Err(Errno::NOENT) => return,
            Err(error) => {
                self.finds.complete = false;
                // Such as a folder that may be listed but not passed.
                if self.scan.taking.takes_in_entered(&self.walk.path, name) {
                    let reason = format!("it cannot be looked at: {}", io::Error::from(error));
                    self.eyes.left_alone(self.walk.path.as_bytes(), &reason);
                }
                return;
            }
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(name, facts_of(&stat)),
            FileType::Directory => self.enter(name),
            other => self.other(name, other),
        }
    }

    fn file(&mut self, name: &str, facts: Facts) {
        let Scan {
            taking,
            order,
            places,
            ..
        } = self.scan;
        if !taking.takes_in_entered(&self.walk.path, name)
            || !self.eyes.wants(&self.walk.path, &facts)
        {
            return;
        }
        if self.best.len() >= places {
            let key = rank_key(order, &facts);
            if self
                .best
                .peek()
                .is_none_or(|worst| !worst.rank.is_after(key, &self.walk.path))
            {
                return self.finds.rest.add(&facts.stamp);
            }
            if let Some(worst) = self.best.pop() {
                self.finds.rest.add(&worst.facts.stamp);
            }
        }
        self.best.push(Ranked {
            rank: Rank::new(order, self.walk.path.clone(), &facts),
            facts,
        });
    }

    fn enter(&mut self, name: &str) {
        if !self.scan.taking.enters(&self.walk.path) {
            return;
        }
        if self.walk.depth + self.walk.levels.len() >= DEPTH_MAX {
            let reason = format!("folders are looked into only {DEPTH_MAX} deep");
            return self.eyes.left_alone(self.walk.path.as_bytes(), &reason);
        }
        self.eyes.entering(&self.walk.path);
        let Some(Ok(parent)) = self.walk.levels.last().map(|level| level.dir.fd()) else {
            return;
        };
        match file::open_dir_beneath(parent, name).and_then(|fd| Ok(Dir::new(fd)?)) {
            Ok(dir) => self.walk.levels.push(Level {
                dir,
                path_len: self.walk.path.len(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.finds.complete = false;
                let reason = format!("the folder cannot be read: {error}");
                self.eyes.left_alone(self.walk.path.as_bytes(), &reason);
            }
        }
    }

    fn other(&mut self, name: &str, kind: FileType) {
        if self.scan.taking.takes_in_entered(&self.walk.path, name) {
            self.eyes
                .left_alone(self.walk.path.as_bytes(), what_it_is(kind));
        }
    }
}

/// What an entry is that is no file and no folder, for people.
pub fn what_it_is(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "it is a symlink; symlinks are never followed",
        FileType::Fifo => "it is a FIFO, not a regular file",
        FileType::Socket => "it is a socket, not a regular file",
        FileType::CharacterDevice | FileType::BlockDevice => "it is a device, not a regular file",
        _ => "it is not a regular file",
    }
}

fn join(folder: &str, name: &[u8]) -> Vec<u8> {
    let mut path = folder.as_bytes().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
