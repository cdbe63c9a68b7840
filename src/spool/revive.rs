//! Dead letters on their way back into the spool, where they are taken like new files. Nothing is
//! replaced there, nothing is reached outside of the two folders, no symlink is followed; each file
//! gets a sentence that says what became of it. A crash in between leaves a file in one of the two
//! folders, at worst with a story beside it that tells of nothing any more.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::dead::{self, Kind, WHY, told};
use super::marker;
use super::source::facts_of;
use super::stow::Store;
use super::taking::Taking;
use crate::config::Route;
use crate::failpoint;
use crate::log::escape;
use crate::report::{RetriedFile, Retry};
use crate::sys::file;

/// Names of dead letters that a refusal tells.
const TOLD_MAX: usize = 10;
/// The way out for a file without a story, when all are sent again.
const ASIDE: &str = "it has no story: a newer file had taken its place when it was put here, and \
                     would be replaced by it; if it shall be sent all the same, name it";

/// Sends dead letters again: those named, or all. Also tells the paths below the spool that stand
/// there now. What is left when `enough` says so is told as left.
///
/// # Errors
/// A sentence: the dead letters cannot be read.
pub fn revive(
    route: &Route,
    taking: &Taking,
    named: &[String],
    enough: &dyn Fn() -> bool,
) -> Result<(Retry, Vec<String>), String> {
    let (mut known, mut orphans) = (Vec::new(), Vec::new());
    dead::each(&route.dead_letter, &mut |kind, path| match kind {
        Kind::Letter => known.push(path.to_owned()),
        Kind::Orphan => orphans.push(path.to_owned()),
    })
    .map_err(|error| {
        let folder = route.dead_letter.display();
        format!("the dead letters in {folder} cannot be read: {error}")
    })?;
    known.sort_by(|a, b| by_number(a).cmp(&by_number(b)));
    let all = named.is_empty();
    let wanted: Vec<&str> = match all {
        true => known.iter().map(String::as_str).collect(),
        false => named.iter().map(|n| below(&route.dead_letter, n)).collect(),
    };
    let mut answer = Retry {
        route: route.name.clone(),
        files: Vec::new(),
        left: 0,
    };
    // Whether named or not: they are on their way already.
    for path in &orphans {
        end_of(route, taking, path);
    }
    let there: HashSet<&str> = known.iter().map(String::as_str).collect();
    let mut back = Vec::new();
    for (done, path) in wanted.iter().enumerate() {
        if done > 0 && enough() {
            answer.left = (wanted.len() - done) as u64;
            break;
        }
        let result = match there.contains(path) {
            true => one(route, taking, path, all),
            false => Err(unknown(&known)),
        };
        let (sent, says) = match result {
            Ok(Back { place, marked }) => {
                let place_told = escape(&place).into_owned();
                back.push(place);
                match marked {
                    Ok(()) => (true, format!("it is in the spool again as {place_told}")),
                    Err(error) => (
                        false,
                        format!(
                            "it is in the spool again as {place_told}, but its marker cannot be \
                             made: {error}; make it, and the file is sent"
                        ),
                    ),
                }
            }
            Err(why) => (false, why),
        };
        answer.files.push(RetriedFile {
            file: escape(path).into_owned(),
            sent,
            says,
        });
    }
    Ok((answer, back))
}

/// The log and people name a dead letter by its whole path.
fn below<'a>(folder: &Path, named: &'a str) -> &'a str {
    let inner = Path::new(named).strip_prefix(folder);
    inner.ok().and_then(Path::to_str).unwrap_or(named)
}

/// Letters of one name in the order in which they came to be, so that the newest is sent last.
fn by_number(path: &str) -> (&str, u32) {
    let parts = path.rsplit_once('.');
    let number = parts.and_then(|(name, end)| Some((name, end.parse().ok()?)));
    number.unwrap_or((path, 0))
}

fn unknown(known: &[String]) -> String {
    let told: Vec<_> = known
        .iter()
        .take(TOLD_MAX)
        .map(|name| escape(name))
        .collect();
    match known.len() {
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

/// A letter that is in the spool again.
struct Back {
    /// Its path there.
    place: String,
    /// Whether its marker stands beside it, where the route waits for one.
    marked: io::Result<()>,
}

/// Moves one letter back.
fn one(route: &Route, taking: &Taking, path: &str, all: bool) -> Result<Back, String> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let cannot = |error: io::Error| format!("it cannot be moved: {error}; it stays here");
    let root = file::open_root_for_passing(&route.dead_letter).map_err(cannot)?;
    let from = file::pass_dir_beneath(&root, folders).map_err(cannot)?;
    let why = format!("{name}{WHY}");
    let place = match told(&from, &why) {
        Some(told) if all && told.route != route.name => {
            let of = escape(&told.route);
            return Err(format!(
                "it is of route {of}, as its story tells; name it to send it here"
            ));
        }
        None if all => return Err(ASIDE.into()),
        Some(told) => told.place,
        None => path.to_owned(),
    };
    if !taking.takes(&place) {
        return Err(format!(
            "the route does not take a file named {} (include, exclude, recursive); it stays here",
            escape(&place)
        ));
    }
    let store = Store::open(&route.spool, &route.spool)
        .map_err(|error| format!("the spool cannot be used: {error}"))?;
    let (folders, last) = place.rsplit_once('/').unwrap_or(("", &place));
    let to = file::make_dirs_beneath(store.dir(), folders).map_err(cannot)?;
    match store.move_to(&from, name, &to, last) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(format!(
                "the spool has a file {} already, which is not replaced; it stays here \
                 (try again when that one is gone)",
                escape(&place)
            ));
        }
        Err(error) => return Err(cannot(error)),
    }
    failpoint::at("letter-back");
    // After its file: a marker without one would release what a producer begins to write.
    let marked = mark(route, &to, last);
    failpoint::at("marker-back");
    // Last, so that it tells what an interrupted one is about. One that cannot go is only in the
    // way.
    let _ = rustix::fs::unlinkat(&from, &*why, AtFlags::empty());
    Ok(Back { place, marked })
}

/// Ends what a killed process had begun: the letter of this story stands in the spool already, in
/// the very version, perhaps without its marker. Any other story without a letter is a person's.
fn end_of(route: &Route, taking: &Taking, path: &str) -> Option<()> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let root = file::open_root_for_passing(&route.dead_letter).ok()?;
    let from = file::pass_dir_beneath(&root, folders).ok()?;
    let why = format!("{name}{WHY}");
    let told = told(&from, &why).filter(|t| t.route == route.name && taking.takes(&t.place))?;
    let spool = file::open_root_for_passing(&route.spool).ok()?;
    let stat = file::stat_beneath(&spool, &told.place).ok()?;
    if !file::is_regular(&stat) || !told.is_of(facts_of(&stat).stamp) {
        return None;
    }
    let (folders, last) = told.place.rsplit_once('/').unwrap_or(("", &told.place));
    mark(route, &file::pass_dir_beneath(&spool, folders).ok()?, last).ok()?;
    rustix::fs::unlinkat(&from, &*why, AtFlags::empty()).ok()
}

/// Makes the marker of a file, where the route waits for one.
fn mark(route: &Route, dir: &OwnedFd, name: &str) -> io::Result<()> {
    let Some(marker) = marker::path_of(route, name) else {
        return Ok(());
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, &*marker, flags, Mode::from_raw_mode(0o640)) {
        Ok(_) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_one_name_go_in_the_order_in_which_they_came() {
        let mut names = ["b", "a.csv.10", "a.csv", "a.csv.2", "a.csv.1"];
        names.sort_by(|a, b| by_number(a).cmp(&by_number(b)));
        assert_eq!(names, ["a.csv", "a.csv.1", "a.csv.2", "a.csv.10", "b"]);
        assert_eq!(below(Path::new("/d/.dead"), "/d/.dead/sub/x"), "sub/x");
        assert_eq!(below(Path::new("/d/.dead"), "sub/x"), "sub/x");
    }
}
