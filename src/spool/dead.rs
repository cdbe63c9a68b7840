//! Dead letters: files that could not be delivered for too long. Each keeps its path below the
//! spool, in the route's folder for them, and has its story beside it (`NAME.why.json`), which
//! stands there, synced, before the file comes. Nothing is ever replaced: a taken name gets a
//! number. A crash in between leaves the file at its name in the spool, or puts it back there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::finish::{FinishError, Finished, Held, failed};
use super::stow::{PRIVATE_PREFIX, Store, numbered, private_name};
use super::{Clock, Stamp};
use crate::clock::Mono;
use crate::config::Route;
use crate::failpoint;
use crate::sys::file;

/// The end of a story's name.
pub const WHY: &str = ".why.json";
/// Bytes of a dead letter's name, so that its story's is a name too.
const NAME_MAX: usize = 255 - WHY.len();
/// A story is some hundred bytes and two names.
const STORY_MAX: u64 = 64 * 1024;
/// Numbers tried for a name that is taken.
const NUMBERS: u32 = 10_000;
/// Between two counts passes so many times what one takes.
const PAUSE_COUNTS: u32 = 20;
/// Folders within folders that are looked into, as in the spool.
const DEPTH_MAX: usize = 64;

/// Moves a source to the dead letters, with its story, if it is still the version that failed.
///
/// # Errors
/// No rights, no space, a missing folder: the source stands at its name, or is put back.
pub fn bury(route: &Route, rel: &str, sent: Stamp, story: &str) -> Result<Finished, FinishError> {
    let Some(held) = Held::take(route, rel)? else {
        return Ok(Finished::Vanished);
    };
    failpoint::at("letter-hidden");
    if !held.is_still(sent) {
        return held.put_back();
    }
    let doing = |source| failed("put among the dead letters", route.spool.join(rel), source);
    let store = match Store::open(&route.spool, &route.dead_letter) {
        Ok(store) => store,
        Err(source) => return held.put_back().and(Err(doing(source))),
    };
    match lay(&store, &held, rel, sent, story) {
        Ok(name) => {
            let folders = rel.rsplit_once('/').map_or("", |(folders, _)| folders);
            let place = route.dead_letter.join(folders).join(name);
            Ok(Finished::Buried(place))
        }
        Err(source) => held.put_back().and(Err(doing(source))),
    }
}

/// The story first, then the file; tells the name that they got.
fn lay(store: &Store, held: &Held<'_>, rel: &str, sent: Stamp, story: &str) -> io::Result<String> {
    let (folders, last) = rel.rsplit_once('/').unwrap_or(("", rel));
    let to = file::make_dirs_beneath(store.dir(), folders)?;
    for number in 0..NUMBERS {
        let name = numbered(last, number, NAME_MAX);
        let why = format!("{name}{WHY}");
        if exists(&to, &name)? {
            continue;
        }
        if told(&to, &why).is_some_and(|t| t.place == rel && t.is_of(sent)) {
            // It told of this very version, which a killed process did not bring here any more.
            rustix::fs::unlinkat(&to, &*why, AtFlags::empty())?;
        }
        match tell(&to, &why, story) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        failpoint::at("story-told");
        match store.move_to(held.dir.as_fd(), &held.private, &to, &name) {
            Ok(()) => {
                failpoint::at("letter-laid");
                return Ok(name);
            }
            Err(error) => {
                // Without its file a story tells of nothing.
                let _ = rustix::fs::unlinkat(&to, &*why, AtFlags::empty());
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(error);
                }
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn exists(dir: &OwnedFd, name: &str) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes a story: whole and synced before it has its name.
fn tell(to: &OwnedFd, why: &str, story: &str) -> io::Result<()> {
    let temp = private_name(".part")?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o640);
    let mut file = File::from(rustix::fs::openat(to, &*temp, flags, mode)?);
    let written = file
        .write_all(story.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| file::rename_noreplace(to, &temp, to, why));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(to, &*temp, AtFlags::empty());
    }
    written
}

/// How many dead letters there are. A person may take some away, so they are counted now and then;
/// in between it is reckoned: a count at each of a thousand new ones would read a million names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// So many.
    pub(super) letters: u64,
    count_at: Mono,
}

impl Tally {
    /// Counts them, unless the last count took so long that it is too early; reads names only.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn count(&mut self, folder: &Path, clock: Clock) -> io::Result<()> {
        let now = || (clock.now)().mono;
        let began = now();
        if began < self.count_at {
            return Ok(());
        }
        let mut letters = 0;
        let counted = each(folder, &mut |kind, _| {
            letters += u64::from(kind == Kind::Letter);
        });
        let ended = now();
        self.count_at = ended + ended.saturating_sub(began) * PAUSE_COUNTS;
        counted.map(|()| self.letters = letters)
    }
}

/// What stands in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A dead letter.
    Letter,
    /// A story whose letter is not there (any more).
    Orphan,
}

/// Calls for each dead letter with its path below the folder, in no order; and for each story
/// without one, with the path that its letter would have.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn each(folder: &Path, tell: &mut dyn FnMut(Kind, &str)) -> io::Result<()> {
    match file::open_root(folder) {
        Ok(root) => walk(&root, "", 0, tell),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn walk(
    root: &OwnedFd,
    rel: &str,
    depth: usize,
    tell: &mut dyn FnMut(Kind, &str),
) -> io::Result<()> {
    let dir = file::open_dir_beneath(root, rel)?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name == "." || name == ".." || name.starts_with(PRIVATE_PREFIX) {
            continue;
        }
        let path = if rel.is_empty() {
            name.to_owned()
        } else {
            format!("{rel}/{name}")
        };
        let kind = match entry.file_type() {
            FileType::Unknown => rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode)),
            kind => kind,
        };
        match kind {
            // A source may have such a name itself; then it has a story of its own.
            FileType::RegularFile => match name.strip_suffix(WHY) {
                Some(letter) if !exists(&dir, &format!("{name}{WHY}"))? => {
                    if !exists(&dir, letter)? {
                        tell(Kind::Orphan, path.strip_suffix(WHY).unwrap_or(&path));
                    }
                }
                _ => tell(Kind::Letter, &path),
            },
            FileType::Directory if depth < DEPTH_MAX => walk(root, &path, depth + 1, tell)?,
            _ => {}
        }
    }
    Ok(())
}

/// What a story tells.
pub(super) struct Told {
    /// The route.
    pub(super) route: String,
    /// Path below the spool.
    pub(super) place: String,
    size: Option<u64>,
    modified: Option<f64>,
}

impl Told {
    /// Whether it is about this version.
    pub(super) fn is_of(&self, stamp: Stamp) -> bool {
        let modified = stamp.mtime_ns as f64 / 1e9;
        let same = |told: f64| (told - modified).abs() < 1e-5;
        self.size == Some(stamp.size) && self.modified.is_some_and(same)
    }
}

/// The route and the name that the file had in the spool, as its story tells: a letter may have got
/// a number, and routes may share the folder.
pub(super) fn told(from: &OwnedFd, why: &str) -> Option<Told> {
    if !exists(from, why).ok()? {
        return None;
    }
    let mut text = String::new();
    let story = File::from(file::open_file_beneath(from, why).ok()?);
    story.take(STORY_MAX).read_to_string(&mut text).ok()?;
    let story: serde_json::Value = serde_json::from_str(&text).ok()?;
    let text = |key: &str| story.get(key)?.as_str().map(str::to_owned);
    let told = Told {
        route: text("route")?,
        place: text("file")?,
        size: story.get("size").and_then(serde_json::Value::as_u64),
        modified: story.get("modified_at").and_then(serde_json::Value::as_f64),
    };
    // Who can write to the spool can write a story as well: it names a file of the spool, or none.
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    told.place.split('/').all(plain).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_are_no_letters_but_a_letter_may_be_named_like_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sub")).unwrap();
        for name in [
            "a",
            "a.why.json",
            "b.why.json",
            "b.why.json.why.json",
            "sub/c",
            "d.why.json",
            ".ftpulse-x",
        ] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let mut found = Vec::new();
        let mut orphans = Vec::new();
        each(dir.path(), &mut |kind, path| match kind {
            Kind::Letter => found.push(path.to_owned()),
            Kind::Orphan => orphans.push(path.to_owned()),
        })
        .unwrap();
        found.sort();
        assert_eq!(found, ["a", "b.why.json", "sub/c"]);
        assert_eq!(orphans, ["d"]);
        let mut none = |_: Kind, _: &str| panic!("nothing is there");
        each(&dir.path().join("none"), &mut none).unwrap();
    }
}
