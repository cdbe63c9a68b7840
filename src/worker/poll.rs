//! Lists the remote folder of a route that downloads and tells what in it could be taken: names
//! that the route's rules take and that are safe here, each with its version. It decides nothing
//! about when a file is settled, and changes nothing on the server.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use slog::{debug, info};

use super::job::{Result as JobResult, ensure, escape};
use crate::clock::{self, Mono};
use crate::config::{After, Order, Route};
use crate::core::arrivals::{Arrival, Version, refused};
use crate::core::names::Phase;
use crate::ftp::{Entry, Kind, Session, Setup, Trouble};
use crate::spool::Stamp;
use crate::spool::inbox::Inbox;
use crate::spool::taking::Taking;

/// Files that one listing tells of at most, in the route's order; the rest comes when those are
/// taken. Twice what the daemon can know, so that those that wait there hide no others.
const FILES: usize = 40_000;
/// Folders below the remote one that are looked into, and how deep they may lie.
const FOLDERS: usize = 10_000;
const DEPTH: usize = 32;
/// Entries of the local folder that are looked at between two safe points.
const ENTRIES: u32 = 256;
/// Refused names that one listing tells of.
const REFUSED: usize = 1_000;
/// So many files in a row without an answer to MDTM: the server has none to give.
const UNANSWERED: u32 = 3;

/// A listing to be made.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The id in our temp names.
    pub agent: String,
    /// The first listing of this life: local temp files that an earlier one left are removed, but
    /// for these.
    pub tidy: Option<Vec<String>>,
    /// Files that were taken and stay on the server, each in its version.
    pub known: Arc<HashMap<Arc<str>, Stamp>>,
    /// The times that were asked for after an earlier listing.
    pub dates: Arc<Dates>,
}

/// Exact times of files whose listing has only rough ones, as long as that stays the same.
pub type Dates = HashMap<Arc<str>, Dated>;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// As it was listed.
    listed: Version,
    /// As it was asked for.
    exact: Version,
}

/// What a listing showed.
#[derive(Debug, Default)]
pub struct Polled {
    /// Files that are not known yet, in the route's order.
    pub files: Vec<Arrival>,
    /// When it began and ended.
    pub began: Mono,
    /// See there.
    pub ended: Mono,
    /// Names that must not become names here, as they came, each with the reason.
    pub refused: Vec<(Vec<u8>, &'static str)>,
    /// There are more of them.
    pub more: bool,
    /// Known files that it did not show; none if some folder could not be read.
    pub missing: Option<Vec<Arc<str>>>,
    /// Exact times, for the next one.
    pub dates: Dates,
}

/// A file of the listing before its time is known for sure.
struct Rough {
    path: Arc<str>,
    size: Option<u64>,
    modified: Option<i64>,
    exact: bool,
}

/// A pass through the folders.
struct Pass<'a> {
    poll: &'a Poll,
    taking: Taking,
    recursive: bool,
    /// The archive, where it lies below the remote folder.
    left_out: Option<String>,
    folders: Vec<String>,
    entered: usize,
    files: Vec<Rough>,
    present: HashSet<Arc<str>>,
    /// Entries of any kind.
    entries: u64,
    refused: Vec<(Vec<u8>, &'static str)>,
}

impl Poll {
    pub(super) fn run(
        self,
        setup: &Setup,
        session: &mut Option<Session>,
    ) -> Result<JobResult, Trouble> {
        if let Some(kept) = &self.tidy {
            self.remove_old_temps(setup, kept)?;
        }
        let standing = ensure(setup, session)?;
        let route = &setup.route;
        let taking = Taking::new(route)
            .map_err(|e| Trouble::Source(format!("a pattern of the route is none: {e}")))?;
        let mut pass = Pass {
            poll: &self,
            taking,
            recursive: route.recursive,
            left_out: archive_below(standing, route)?,
            folders: vec![String::new()],
            entered: 0,
            files: Vec::new(),
            present: HashSet::new(),
            refused: Vec::new(),
            entries: 0,
        };
        let began = clock::mono();
        let end = setup.timers.transfer_get.map(|bound| began + bound);
        let mut complete = true;
        while let Some(folder) = pass.folders.pop() {
            let left = end.map(|end| end.saturating_sub(clock::mono()));
            let listed = standing.entries_in(&folder, left, |entry| pass.entry(&folder, entry));
            match listed {
                // It went away, or is not for us; the others still are.
                Err(
                    trouble @ Trouble::Refused {
                        code: 450 | 550, ..
                    },
                ) if !folder.is_empty() => {
                    complete = false;
                    debug!(setup.log, "a remote folder cannot be listed";
                        "folder" => escape(&folder), "error" => escape(&trouble.to_string()),
                        "next" => "the others are; it is tried again at the next listing");
                }
                Err(trouble @ Trouble::Refused { .. }) => {
                    leave(session);
                    return Err(trouble);
                }
                listed => listed?,
            }
        }
        let ended = clock::mono();
        let missing = complete.then(|| {
            let known = self.known.keys();
            known
                .filter(|path| !pass.present.contains(*path))
                .cloned()
                .collect()
        });
        let (rough, refused) = (pass.files, pass.refused);
        let (mut files, dates) = self.date(standing, rough)?;
        if pass.entries == 0 && !stands_there(standing)? {
            leave(session);
        }
        let taken = |file: &Arrival| {
            let known = self.known.get(&file.path);
            known.is_some_and(|stamp| stamp.to_remote().agrees(&file.version))
        };
        files.retain(|file| !taken(file));
        sort(&mut files, route.order);
        let more = files.len() > FILES;
        files.truncate(FILES);
        Ok(JobResult::Polled(Box::new(Polled {
            files,
            more,
            began,
            ended,
            refused,
            missing,
            dates,
        })))
    }

    /// Nothing is in work yet, so whatever bears this agent's mark is left over.
    fn remove_old_temps(&self, setup: &Setup, kept: &[String]) -> Result<(), Trouble> {
        let handle = &setup.handle;
        handle.begin(Phase::LocalFile, None);
        let temps = &setup.route.publishing.temps;
        let mut seen = 0u32;
        // A large folder takes its time: each part of it is a file operation of its own.
        let goes_on = || {
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(ENTRIES) {
                handle.begin(Phase::LocalFile, None);
            }
            handle.check().is_ok()
        };
        let swept = Inbox::open(&setup.route.spool)
            .and_then(|inbox| inbox.sweep(|name| temps.is_of(name, &self.agent), kept, goes_on));
        setup.handle.check()?;
        match swept {
            Ok(0) => Ok(()),
            Ok(swept) => {
                info!(setup.log, "temp files of an earlier life removed"; "files" => swept,
                    "next" => "what they were parts of is downloaded again");
                Ok(())
            }
            Err(e) => Err(Trouble::Source(format!(
                "the local folder cannot be read: {e}"
            ))),
        }
    }

    /// The exact versions. Asks for the times that the listing has only roughly and that are not
    /// known from before.
    fn date(
        &self,
        session: &mut Session,
        rough: Vec<Rough>,
    ) -> Result<(Vec<Arrival>, Dates), Trouble> {
        let (mut files, mut dates) = (Vec::new(), Dates::new());
        let mut unanswered = 0;
        for Rough {
            path,
            size,
            modified,
            exact,
        } in rough
        {
            let Some(size) = size else {
                if let Some(version) = session.version_of(&path)? {
                    files.push(Arrival { path, version });
                }
                continue;
            };
            let listed = Version { size, modified };
            let before = self.dates.get(&path).filter(|dated| dated.listed == listed);
            let version = match before {
                _ if exact => listed,
                Some(dated) => dated.exact,
                None if unanswered >= UNANSWERED => listed,
                None => match session.modified_seconds(&path)? {
                    None => {
                        unanswered += 1;
                        listed
                    }
                    modified => {
                        unanswered = 0;
                        Version { size, modified }
                    }
                },
            };
            if !exact {
                let dated = Dated {
                    listed,
                    exact: version,
                };
                dates.insert(Arc::clone(&path), dated);
            }
            files.push(Arrival { path, version });
        }
        Ok((files, dates))
    }
}

impl Pass<'_> {
    fn entry(&mut self, folder: &str, entry: Entry) {
        self.entries += 1;
        if let Some(reason) = refused(&entry.name) {
            if self.refused.len() < REFUSED {
                self.refused.push((entry.name, reason));
            }
            return;
        }
        // Just seen to be UTF-8.
        let Ok(name) = String::from_utf8(entry.name) else {
            return;
        };
        let path = match folder {
            "" => name.clone(),
            folder => format!("{folder}/{name}"),
        };
        match entry.kind {
            Kind::Folder => {
                let deep = path.matches('/').count() >= DEPTH || self.entered >= FOLDERS;
                let out = self.left_out.as_deref() == Some(&*path);
                if self.recursive && !deep && !out && self.taking.enters(&path) {
                    self.entered += 1;
                    self.folders.push(path);
                }
            }
            Kind::File if self.taking.takes_in_entered(&path, &name) => {
                let path: Arc<str> = path.into();
                if !self.poll.known.is_empty() {
                    self.present.insert(Arc::clone(&path));
                }
                self.files.push(Rough {
                    path,
                    size: entry.size,
                    modified: entry.modified,
                    exact: entry.exact,
                });
            }
            Kind::File | Kind::Other => {}
        }
    }
}

/// A session stands in the folder that it entered, also when that was removed and made anew under
/// its feet: where nothing is shown it enters it once more. False where that cannot be done.
fn stands_there(session: &mut Session) -> Result<bool, Trouble> {
    let Some(home) = session.remote_folder()? else {
        return Ok(false);
    };
    match session.change_folder(&home) {
        Ok(()) => Ok(true),
        Err(Trouble::Refused { code, .. }) if code != 421 => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

/// The next listing is made by another session.
fn leave(session: &mut Option<Session>) {
    if let Some(session) = session.take() {
        session.discard();
    }
}

/// Where the archive on the server lies below the remote folder, if it does.
///
/// # Errors
/// It is the remote folder itself: what is archived would be taken again.
fn archive_below(session: &mut Session, route: &Route) -> Result<Option<String>, Trouble> {
    let After::Archive(archive) = &route.after else {
        return Ok(None);
    };
    let Some(home) = session.remote_folder()? else {
        return Ok(None);
    };
    match archive.strip_prefix(Path::new(&home)) {
        Ok(below) if below.as_os_str().is_empty() => Err(Trouble::Source(format!(
            "routes.{}.archive is the remote folder itself: name another one",
            route.name
        ))),
        Ok(below) => Ok(below.to_str().map(str::to_owned)),
        Err(_) => Ok(None),
    }
}

fn sort(files: &mut [Arrival], order: Order) {
    match order {
        Order::Oldest => files.sort_by(|a, b| {
            let key = |f: &Arrival| f.version.modified;
            key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
        }),
        Order::Newest => files.sort_by(|a, b| {
            let key = |f: &Arrival| f.version.modified;
            key(b).cmp(&key(a)).then_with(|| a.path.cmp(&b.path))
        }),
        Order::Name => files.sort_by(|a, b| a.path.cmp(&b.path)),
    }
}
