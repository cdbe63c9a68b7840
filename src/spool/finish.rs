//! What becomes of a delivered source. It is renamed to a private name, compared with what was
//! sent, and only then deleted or archived; so nothing that a producer does meanwhile is lost:
//! a different file is put back without replacing, or set aside where its place is taken.
//! Promises: no byte that was not sent is ever deleted; an error leaves the source at its name.
//!
//! Where a marker released the source (`ready_suffix`), the order is: the source is hidden and
//! compared, its marker removed, the source removed. So a marker of a delivered version never
//! outlives it, to release the next version too early; and the marker of a newer version, which
//! stands at the name by then, is not taken for its predecessor's. A kill between these steps is
//! healed by the journal, which says "delivered" before the first of them: the same call is made
//! again and finds the source at its name or (`left_behind`) under its private one. Without a
//! journal a source that has lost its marker is not taken any more: it is not sent twice either.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::source::{facts_of, open_in};
use super::stow::{PRIVATE_PREFIX, Store, private_name};
use super::{SourceError, Stamp, marker, stamp_at};
use crate::config::{After, Route};
use crate::failpoint;
use crate::sys::file::{self, Writers};

/// The end of a private name that holds the whole name of the source.
const WHOLE: &str = ".sent";
/// The end of one whose source's name is so long that it had to be cut to fit.
const CUT: &str = ".cut";
/// `.ftpulse-`, 16 digits and a dot come before the source's own name.
const HEAD_LEN: usize = PRIVATE_PREFIX.len() + 17;
/// What is left of 255 bytes for the source's own name.
const INNER_MAX: usize = 255 - HEAD_LEN - WHOLE.len();

/// Whether this name is one that a source bears while it is being finished.
pub fn is_private(name: &str) -> bool {
    name.starts_with(PRIVATE_PREFIX) && unhide(name).is_some_and(|(inner, _)| !inner.is_empty())
}

/// A fresh private name for a source. It carries the source's name, so that a later life can
/// put it back.
pub(super) fn hide(name: &str) -> io::Result<String> {
    let mut cut = name.len().min(INNER_MAX);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    let end = if cut == name.len() { WHOLE } else { CUT };
    private_name(&format!(".{}{end}", &name[..cut]))
}

/// The source's name within a private one, and whether it is whole.
fn unhide(private: &str) -> Option<(&str, bool)> {
    let inner = private.get(HEAD_LEN..)?;
    let whole = inner.strip_suffix(WHOLE).map(|name| (name, true));
    whole.or_else(|| inner.strip_suffix(CUT).map(|name| (name, false)))
}

/// What became of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It is deleted.
    Deleted,
    /// It is in the archive, here.
    Archived(PathBuf),
    /// It stays, unchanged.
    Kept,
    /// It is not what was sent (or is open for writing); it is at its name and to be sent again.
    Changed,
    /// It was not what was sent, and a newer file has its name: it is among the dead letters,
    /// here; the newer one will be sent.
    SetAside(PathBuf),
    /// It was gone already.
    Vanished,
    /// It could not be delivered: it is among the dead letters, here, with its story.
    Buried(PathBuf),
}

/// Why a source could not be finished. Unless `stranded_at` says otherwise it stands at its
/// name, and the same call may be made again.
#[derive(Debug)]
pub struct FinishError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
    /// The private name it still bears; put back by the next scan that can.
    pub stranded_at: Option<String>,
}

impl fmt::Display for FinishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {:?}", self.doing, self.path)?;
        if let Some(name) = &self.stranded_at {
            write!(
                f,
                "; it is now named {name:?} and will be put back by a later scan"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for FinishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What is known of a delivered source besides its version.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Its marker as it stood when the source was offered; none where that is not known.
    pub marker: Option<Stamp>,
    /// It was delivered in an earlier life, which may have hidden it and not come to the end.
    pub earlier: bool,
}

/// Does with a delivered source what the route says, if it is still the version that was sent.
///
/// # Errors
/// [`FinishError`]: no rights, a full archive, a missing spool folder.
pub fn finish(
    route: &Route,
    rel: &str,
    sent: Stamp,
    known: Known,
) -> Result<Finished, FinishError> {
    if route.after == After::Keep {
        return compare_only(route, rel, sent);
    }
    let fail = |source| failed("look at", route.spool.join(rel), source);
    let at_name = match known.earlier {
        true => stamp_at(&route.spool, rel).map_err(fail)?,
        false => Some(sent),
    };
    // The marker is read before the source is hidden: one that comes later is not this version's.
    let marker = match (marker::path_of(route, rel), known.marker) {
        (Some(path), None) => marker::now(&route.spool, &path).map_err(fail)?,
        (_, known) => known,
    };
    let (held, marker) = match at_name {
        Some(stamp) if stamp == sent => (Held::take(route, rel)?, marker),
        _ => match Held::left_behind(route, rel, sent)? {
            // What has its name by now is newer, and so may the marker be.
            Some(held) => (Some(held), marker.filter(|_| at_name.is_none())),
            None => (Held::take(route, rel)?, marker),
        },
    };
    let Some(held) = held else {
        unmark_vanished(route, rel, known.marker).map_err(fail)?;
        return Ok(Finished::Vanished);
    };
    failpoint::at("source-hidden");
    if !held.is_still(sent) {
        return held.put_back();
    }
    failpoint::at("source-compared");
    if let Err(source) = held.unmark(marker) {
        return held.give_up("remove the marker of", source);
    }
    failpoint::at("marker-removed");
    let (doing, done) = match &route.after {
        After::Archive(folder) => ("archive", held.stow(folder).map(Finished::Archived)),
        After::Delete | After::Keep => ("delete", held.delete().map(|()| Finished::Deleted)),
    };
    failpoint::at("source-removed");
    done.or_else(|source| held.give_up(doing, source))
}

fn compare_only(route: &Route, rel: &str, sent: Stamp) -> Result<Finished, FinishError> {
    match stamp_at(&route.spool, rel) {
        Ok(Some(stamp)) if stamp == sent => Ok(Finished::Kept),
        Ok(Some(_)) => Ok(Finished::Changed),
        Ok(None) => Ok(Finished::Vanished),
        Err(source) => Err(failed("look at", route.spool.join(rel), source)),
    }
}

/// The marker of a source that somebody else removed has nothing to release any more.
pub(super) fn unmark_vanished(route: &Route, rel: &str, marker: Option<Stamp>) -> io::Result<()> {
    match (folder_of(route, rel)?, marker) {
        (Some((dir, name)), Some(expected)) => {
            let name = marker::path_of(route, name);
            name.map_or(Ok(()), |name| marker::take_away(&dir, &name, expected))
        }
        _ => Ok(()),
    }
}

pub(super) fn failed(doing: &'static str, path: PathBuf, source: io::Error) -> FinishError {
    FinishError {
        doing,
        path,
        source,
        stranded_at: None,
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
    )
}

/// The folder of a source as a place to name things in, and its name there; none if that folder
/// is gone. The spool missing altogether may come back (a volume) with the file in it: an error.
fn folder_of<'a>(route: &Route, rel: &'a str) -> io::Result<Option<(OwnedFd, &'a str)>> {
    let (folders, name) = rel.rsplit_once('/').unwrap_or(("", rel));
    let root = file::open_root_for_passing(&route.spool)?;
    match file::pass_dir_beneath(&root, folders) {
        Err(error) if gone(&error) => Ok(None),
        other => Ok(Some((other?, name))),
    }
}

/// A source under its private name.
pub(super) struct Held<'a> {
    route: &'a Route,
    rel: &'a str,
    name: &'a str,
    pub(super) private: String,
    pub(super) dir: OwnedFd,
}

impl<'a> Held<'a> {
    /// Renames the source to a private name in its own folder; none if it is gone.
    pub(super) fn take(route: &'a Route, rel: &'a str) -> Result<Option<Self>, FinishError> {
        let fail = |source| failed("take away", route.spool.join(rel), source);
        let Some((dir, name)) = folder_of(route, rel).map_err(fail)? else {
            return Ok(None);
        };
        let private = hide(name).map_err(fail)?;
        match file::rename_noreplace(&dir, name, &dir, &private) {
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(fail(error)),
            Ok(()) => Ok(Some(Self {
                route,
                rel,
                name,
                private,
                dir,
            })),
        }
    }

    /// The source as an earlier life had hidden it, which was killed before the end of this.
    fn left_behind(
        route: &'a Route,
        rel: &'a str,
        sent: Stamp,
    ) -> Result<Option<Self>, FinishError> {
        let fail = |source| failed("look for", route.spool.join(rel), source);
        let Some((dir, name)) = folder_of(route, rel).map_err(fail)? else {
            return Ok(None);
        };
        let listed = file::open_dir_beneath(&dir, "").map_err(fail)?;
        for entry in rustix::fs::Dir::new(listed).map_err(|e| fail(e.into()))? {
            let entry = entry.map_err(|e| fail(e.into()))?;
            let Some(private) = entry.file_name().to_str().ok().filter(|n| is_private(n)) else {
                continue;
            };
            let of_it = unhide(private).is_some_and(|(inner, whole)| match whole {
                true => inner == name,
                false => name.starts_with(inner),
            });
            let stat = rustix::fs::statat(&dir, private, AtFlags::SYMLINK_NOFOLLOW);
            if of_it && stat.is_ok_and(|stat| facts_of(&stat).stamp == sent) {
                let private = private.to_owned();
                return Ok(Some(Self {
                    route,
                    rel,
                    name,
                    private,
                    dir,
                }));
            }
        }
        Ok(None)
    }

    /// Takes away the marker that released it, if it is still that one.
    fn unmark(&self, marker: Option<Stamp>) -> io::Result<()> {
        match (marker::path_of(self.route, self.name), marker) {
            (Some(name), Some(expected)) => marker::take_away(&self.dir, &name, expected),
            _ => Ok(()),
        }
    }

    /// Whether it is the version that was sent and nobody can change it any more. Who opened it
    /// under its name may still write to it; under its private name nobody new finds it.
    pub(super) fn is_still(&self, sent: Stamp) -> bool {
        match open_in(&self.dir, &self.private) {
            Ok((file, _)) if file::writers(&file) == Writers::Some => false,
            // Looked at again after the question: what was written before it counts.
            Ok((file, _)) => {
                rustix::fs::fstat(&file).is_ok_and(|stat| facts_of(&stat).stamp == sent)
            }
            // It was read once, but may not be any more: its facts are still told.
            Err(SourceError::Denied) => {
                let stat = rustix::fs::statat(&self.dir, &*self.private, AtFlags::SYMLINK_NOFOLLOW);
                stat.is_ok_and(|stat| file::is_regular(&stat) && facts_of(&stat).stamp == sent)
            }
            Err(_) => false,
        }
    }

    fn delete(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &self.dir,
            &*self.private,
            AtFlags::empty(),
        )?)
    }

    fn stow(&self, folder: &Path) -> io::Result<PathBuf> {
        Store::open(&self.route.spool, folder)?.take(&self.dir, &self.private, self.rel)
    }

    /// Gives it its name back, or sets it aside where a newer file has the name.
    pub(super) fn put_back(&self) -> Result<Finished, FinishError> {
        match file::rename_noreplace(&self.dir, &self.private, &self.dir, self.name) {
            Ok(()) => Ok(Finished::Changed),
            // Somebody removed it under its private name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Finished::Vanished),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let aside = self.stow(&self.route.dead_letter).map(Finished::SetAside);
                aside.map_err(|source| self.stranded("set aside among the dead letters", source))
            }
            Err(error) => Err(self.stranded("give its name back to", error)),
        }
    }

    /// It could not be removed: it gets its name back, so that the call can be made again.
    fn give_up(&self, doing: &'static str, source: io::Error) -> Result<Finished, FinishError> {
        match self.put_back()? {
            Finished::Changed => Err(failed(doing, self.route.spool.join(self.rel), source)),
            other => Ok(other),
        }
    }

    fn stranded(&self, doing: &'static str, source: io::Error) -> FinishError {
        let stranded_at = Some(self.private.clone());
        FinishError {
            doing,
            path: self.route.spool.join(self.rel),
            source,
            stranded_at,
        }
    }
}

/// What became of a private name that an earlier life left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// It stands at its name again, this path below the spool, and is sent again.
    PutBack(String),
    /// Its name is taken by a newer file, or was too long to be kept: among the dead letters.
    SetAside(PathBuf),
}

/// Puts a source back that an earlier life had hidden and not finished. It was delivered then,
/// very likely; it is sent again rather than lost.
///
/// # Errors
/// Where it can be neither put back nor set aside; it stays and a later scan brings it again.
pub fn put_back_leftover(root: &OwnedFd, route: &Route, rel: &str) -> io::Result<Leftover> {
    let (folders, private) = rel.rsplit_once('/').unwrap_or(("", rel));
    let (name, whole) = unhide(private).ok_or(io::ErrorKind::InvalidInput)?;
    let path = if folders.is_empty() {
        name.to_owned()
    } else {
        format!("{folders}/{name}")
    };
    let dir = file::pass_dir_beneath(root, folders)?;
    if whole {
        match file::rename_noreplace(&dir, private, &dir, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| Leftover::PutBack(path)),
        }
    }
    let store = Store::open(&route.spool, &route.dead_letter)?;
    Ok(Leftover::SetAside(store.take(&dir, private, &path)?))
}

/// Removes half copies that a kill during a move between devices left in the archive, among the
/// dead letters or (on their way back) in the spool. Tells how many there were.
///
/// # Errors
/// Where one of them cannot be read.
pub fn sweep_halves(route: &Route) -> io::Result<usize> {
    let archive = match &route.after {
        After::Archive(folder) => Some(folder),
        After::Delete | After::Keep => None,
    };
    let ours = [Some(&route.spool), Some(&route.dead_letter), archive];
    let mut swept = 0;
    for folder in ours.into_iter().flatten().filter(|f| f.is_dir()) {
        swept += Store::open(&route.spool, folder)?.sweep()?;
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_name_carries_the_sources_name_and_fits() {
        for name in ["a.csv", "x", &"n".repeat(INNER_MAX)] {
            let private = hide(name).unwrap();
            assert!(is_private(&private) && private.len() <= 255);
            assert_eq!(unhide(&private), Some((name, true)));
        }
        let long = "ü".repeat(127);
        let private = hide(&long).unwrap();
        assert!(is_private(&private) && private.len() <= 255);
        assert!(unhide(&private).is_some_and(|(name, whole)| long.starts_with(name) && !whole));
        for other in [
            ".ftpulse-0123456789abcdef.sent",
            ".hidden",
            "a.sent",
            ".ftpulse.part",
        ] {
            assert!(!is_private(other), "{other}");
        }
    }
}
