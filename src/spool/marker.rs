//! The marker beside a file (`ready_suffix`): the producer's word that the file is whole. Says
//! where it is looked for and whether it stands there, and takes it away once its file is
//! delivered. Promises that only the marker that released the delivered version is removed: one
//! that a producer has written anew meanwhile stays, for the version that it announces.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::AtFlags;

use super::Stamp;
use super::finish::hide;
use super::source::facts_of;
use crate::config::Route;
use crate::sys::file;

/// The path of the marker of `rel`, if this route waits for markers.
pub(super) fn path_of(route: &Route, rel: &str) -> Option<String> {
    let suffix = route.ready_suffix.as_ref()?;
    Some(format!("{rel}{suffix}"))
}

/// Whether the file of this path may be taken: its route wants no marker, or the marker is there.
///
/// # Errors
/// Where the spool folder cannot be opened.
pub fn releases(route: &Route, rel: &str) -> io::Result<bool> {
    let Some(marker) = path_of(route, rel) else {
        return Ok(true);
    };
    let root = file::open_root_for_passing(&route.spool)?;
    Ok(look(&root, &marker).is_some())
}

/// The marker at this path beneath an open folder; none unless it is a regular file.
pub(super) fn look(root: impl AsFd, marker: &str) -> Option<Stamp> {
    let stat = file::stat_beneath(root, marker).ok()?;
    file::is_regular(&stat).then(|| facts_of(&stat).stamp)
}

/// Removes the marker `name` from its folder if it is still the one expected. Renamed first, then
/// looked at: between a look and a removal a producer could put another one there.
///
/// # Errors
/// It stands there still (no rights): its file must not be removed before it.
pub(super) fn take_away(dir: &OwnedFd, name: &str, expected: Stamp) -> io::Result<()> {
    let private = hide(name)?;
    match file::rename_noreplace(dir, name, dir, &private) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let found = rustix::fs::statat(dir, &*private, AtFlags::SYMLINK_NOFOLLOW);
    if !found.is_ok_and(|stat| file::is_regular(&stat) && facts_of(&stat).stamp == expected) {
        match file::rename_noreplace(dir, &private, dir, name) {
            // A still newer one says what it said: one is enough.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
    Ok(rustix::fs::unlinkat(dir, &*private, AtFlags::empty())?)
}

/// The version that stands at `rel`'s marker now, looked up by the spool's path.
pub(super) fn now(spool: &Path, marker: &str) -> io::Result<Option<Stamp>> {
    Ok(look(file::open_root_for_passing(spool)?, marker))
}
