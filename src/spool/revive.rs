//! Dead letters on their way back into the spool, where they are taken like new files. Nothing is
//! replaced there, nothing is reached outside of the two folders, no symlink is followed; each file
//! gets a sentence that says what became of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;

use super::dead::{self, WHY, exists};
use super::stow::Store;
use crate::config::Route;
use crate::log::escape;
use crate::report::{RetriedFile, Retry};
use crate::sys::file;

/// Files sent again at one request; the rest is told as left.
const FILES_MAX: usize = 10_000;
/// Names of dead letters that a refusal tells.
const TOLD_MAX: usize = 10;
/// A story is some hundred bytes and two names.
const STORY_MAX: u64 = 64 * 1024;

/// Sends dead letters again: those named, or all. Also tells the paths below the spool that stand
/// there now.
pub fn revive(route: &Route, named: &[String]) -> (Retry, Vec<String>) {
    let mut all = Vec::new();
    let mut problem = dead::each(&route.dead_letter, &mut |path| all.push(path.to_owned())).err();
    all.sort();
    let wanted: &[String] = if named.is_empty() { &all } else { named };
    let mut answer = Retry {
        route: route.name.clone(),
        files: Vec::new(),
        left: wanted.len().saturating_sub(FILES_MAX) as u64,
    };
    let mut back = Vec::new();
    for path in wanted.iter().take(FILES_MAX) {
        let done = match problem.take() {
            Some(error) => Err(format!("the dead letters cannot be read: {error}")),
            None if all.binary_search(path).is_err() => Err(unknown(&all)),
            None => one(route, path),
        };
        let (sent, says) = match done {
            Ok(place) => {
                let says = format!("it is in the spool again as {}", escape(&place));
                back.push(place);
                (true, says)
            }
            Err(why) => (false, why),
        };
        answer.files.push(RetriedFile {
            file: escape(path).into_owned(),
            sent,
            says,
        });
    }
    (answer, back)
}

fn unknown(all: &[String]) -> String {
    let told: Vec<_> = all.iter().take(TOLD_MAX).map(|name| escape(name)).collect();
    match all.len() {
        0 => "there is no such dead letter; there is none at all".into(),
        n if n > TOLD_MAX => format!(
            "there is no such dead letter; there are {n}, such as {}",
            told.join(", ")
        ),
        _ => format!(
            "there is no such dead letter; there are: {}",
            told.join(", ")
        ),
    }
}

/// Moves one letter back; tells its path below the spool.
fn one(route: &Route, path: &str) -> Result<String, String> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let cannot = |error: io::Error| format!("it cannot be moved: {error}");
    let root = file::open_root_for_passing(&route.dead_letter).map_err(cannot)?;
    let from = file::pass_dir_beneath(&root, folders).map_err(cannot)?;
    let why = format!("{name}{WHY}");
    let place = first_name(&from, &why).unwrap_or_else(|| path.to_owned());
    let store = Store::open(&route.spool, &route.spool)
        .map_err(|error| format!("the spool cannot be used: {error}"))?;
    let (folders, last) = place.rsplit_once('/').unwrap_or(("", &place));
    let to = file::make_dirs_beneath(store.dir(), folders).map_err(cannot)?;
    match store.move_to(&from, name, &to, last) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(format!(
                "the spool has a file {} already, which is not replaced; it stays a dead letter",
                escape(&place)
            ));
        }
        Err(error) => return Err(cannot(error)),
    }
    // Without its file a story tells of nothing; one that cannot go is only in the way.
    let _ = rustix::fs::unlinkat(&from, &*why, AtFlags::empty());
    Ok(place)
}

/// The name that the file had in the spool, as its story tells: a letter may have got a number.
fn first_name(from: &OwnedFd, why: &str) -> Option<String> {
    if !exists(from, why).ok()? {
        return None;
    }
    let mut text = String::new();
    let story = File::from(file::open_file_beneath(from, why).ok()?);
    story.take(STORY_MAX).read_to_string(&mut text).ok()?;
    let story: serde_json::Value = serde_json::from_str(&text).ok()?;
    let place = story.get("file")?.as_str()?;
    // Who can write to the spool can write a story as well: it names a file of the spool, or none.
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    place.split('/').all(plain).then(|| place.to_owned())
}
