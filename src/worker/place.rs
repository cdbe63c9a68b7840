//! The local side of a download: earlier attempts settled, the target locked, the temp file made or
//! gone on with, and the final name given. What is in the journal before each step makes the temp
//! name the evidence: it is gone if and only if the file was given its final name.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use slog::info;

use super::job::escape;
use super::lock::{Retries, hold};
use crate::config::{After, OnConflict, Route};
use crate::core::journey::{Stage, resume_at};
use crate::core::names::Phase;
use crate::core::naming::numbered;
use crate::failpoint;
use crate::ftp::{Setup, Trouble};
use crate::pulse::{Attempt, Stop};
use crate::spool::Stamp;
use crate::spool::inbox::{Inbox, Taken};

/// Other names that are tried at most where a name is taken.
const NUMBERS: u32 = 10_000;
/// Attempts in a row that may begin no later than the one before: then it begins at the start.
const IN_VAIN: u64 = 3;

/// How a file came to be here: its remote version, the bytes of this job, its name (none: skipped).
pub(super) type Here = (Stamp, u64, Option<String>);

/// An attempt that failed, and in which phase: what is tidied up after it is not what failed.
pub(super) struct Stopped {
    pub(super) trouble: Trouble,
    pub(super) phase: Option<Phase>,
}

impl From<Trouble> for Stopped {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            phase: None,
        }
    }
}

impl From<Stop> for Stopped {
    fn from(stop: Stop) -> Self {
        Trouble::from(stop).into()
    }
}

/// What is needed to work on the local side.
pub(super) struct Place<'a> {
    pub(super) setup: &'a Setup,
    pub(super) inbox: Inbox,
    pub(super) path: &'a str,
}

impl Place<'_> {
    pub(super) fn size_of(&self, rel: &str) -> Result<Option<u64>, Trouble> {
        self.setup.handle.begin(Phase::LocalFile, None);
        let size = self.inbox.size_of(rel);
        self.setup.handle.check()?;
        size.map_err(|taken| in_the_way(rel, &taken))
    }

    /// The exclusive lock on what is to be replaced.
    pub(super) fn hold(&self) -> Result<Option<File>, Trouble> {
        let setup = self.setup;
        if setup.route.publishing.on_conflict != OnConflict::Overwrite {
            return Ok(None);
        }
        let retries = Retries {
            count: setup.timers.write_lock_retries,
            pause: setup.timers.write_lock_interval,
        };
        hold(setup, ("the target", self.path), retries, || {
            setup.handle.begin(Phase::LocalFile, None);
            match self.inbox.lock(self.path) {
                Ok(held) => Ok(Ok(held)),
                Err(Taken::Locked(locked)) => Err(locked),
                Err(other) => Ok(Err(in_the_way(self.path, &other))),
            }
        })?
    }

    /// Settles an earlier attempt: it may have come to its end, or left a part that can be gone on
    /// with (`part`), or nothing but its temp file.
    pub(super) fn settle<'a>(
        &self,
        old: &'a Arc<Attempt>,
        wanted: Stamp,
        part: &mut Option<&'a Arc<Attempt>>,
    ) -> Result<Option<Here>, Trouble> {
        let handle = &self.setup.handle;
        let Some(version) = old.source() else {
            return self.leave(old).map(|()| None);
        };
        let here = |name| Ok(Some((Stamp::of_remote(version.to_remote()), 0, name)));
        let published = |old: &Attempt| here(old.target().or_else(|| Some(self.path.to_owned())));
        let of_this_folder = (version.dev, version.ino) == (wanted.dev, wanted.ino);
        match old.stage() {
            Stage::Published | Stage::Marked => published(old),
            Stage::Publishing | Stage::Replacing if of_this_folder => {
                handle.begin(Phase::LocalFile, None);
                let there = self.inbox.holds(&old.temp);
                handle.check()?;
                if there.map_err(|e| unreadable(&e))? {
                    return here(self.publish(old, version.size)?);
                }
                // It was renamed; whether that stands for good is not known.
                self.inbox.sync(&old.temp).map_err(|e| unreadable(&e))?;
                old.enter(Stage::Published);
                published(old)
            }
            Stage::Publishing | Stage::Replacing => {
                old.enter(Stage::Sending);
                self.leave(old).map(|()| None)
            }
            Stage::Sending if version == wanted && wanted.size > self.setup.route.resume_over => {
                match part.replace(old) {
                    Some(older) => self.leave(older).map(|()| None),
                    None => Ok(None),
                }
            }
            Stage::Opened | Stage::Sending | Stage::Storing | Stage::Stored => {
                self.leave(old).map(|()| None)
            }
        }
    }

    /// An attempt whose part is of no use: its own worker, if it still lives, cannot publish it any
    /// more, then its temp goes.
    fn leave(&self, old: &Attempt) -> Result<(), Trouble> {
        if old.stage() != Stage::Opened && !old.give_up() {
            return Err(Trouble::InDoubt);
        }
        self.discard(&old.temp)
    }

    fn discard(&self, temp: &str) -> Result<(), Trouble> {
        self.setup.handle.begin(Phase::LocalFile, None);
        let gone = self.inbox.discard(temp);
        self.setup.handle.check()?;
        gone.map_err(|e| Trouble::Source(format!("a temp file cannot be removed: {e}")))
    }

    /// The temp file of `attempt`, with what `part` has of it; where the rest begins.
    pub(super) fn open(
        &self,
        attempt: &Attempt,
        wanted: Stamp,
        part: Option<&Arc<Attempt>>,
    ) -> Result<(File, u64), Trouble> {
        let handle = &self.setup.handle;
        attempt.note_source(wanted);
        attempt.enter(Stage::Sending);
        if wanted.size > self.setup.route.resume_over {
            // A later life goes on with it.
            Trouble::unless_noted(handle, attempt, Stage::Opened)?;
        }
        if let Some(old) = part {
            if !old.take_over() {
                return Err(Trouble::InDoubt);
            }
            if let Some(resumed) = self.go_on(attempt, old, wanted.size)? {
                return Ok(resumed);
            }
        }
        handle.begin(Phase::LocalFile, None);
        let made = self.inbox.begin(&attempt.temp);
        handle.check()?;
        made.map(|file| (file, 0)).map_err(|e| {
            attempt.enter(Stage::Opened);
            Trouble::Source(format!("the temp file cannot be made: {e}"))
        })
    }

    fn go_on(
        &self,
        attempt: &Attempt,
        old: &Attempt,
        size: u64,
    ) -> Result<Option<(File, u64)>, Trouble> {
        let handle = &self.setup.handle;
        handle.begin(Phase::LocalFile, None);
        let resumed = self.inbox.go_on(&old.temp, &attempt.temp).and_then(|part| {
            let Some(mut part) = part else {
                return Ok(None);
            };
            let from = resume_at(part.metadata()?.len(), size);
            let from = match attempt.begin_at(from, old) {
                in_vain if in_vain >= IN_VAIN => 0,
                _ => from,
            };
            part.set_len(from)?;
            part.seek(SeekFrom::End(0))?;
            Ok(Some((part, from)))
        });
        handle.check()?;
        let resumed =
            resumed.map_err(|e| Trouble::Source(format!("a part cannot be used: {e}")))?;
        // Its temp is the new one's now, or was none.
        old.enter(Stage::Opened);
        if let Some((_, from)) = &resumed {
            info!(self.setup.log, "download resumed"; "file" => escape(self.path),
                "from" => from, "bytes" => size, "next" => "the rest is received");
        }
        Ok(resumed)
    }

    /// The end of an attempt that failed: a part that can be gone on with stays under its temp
    /// name, anything else goes.
    pub(super) fn give_up(
        &self,
        attempt: &Attempt,
        file: &File,
        size: u64,
        trouble: Trouble,
    ) -> Stopped {
        let handle = &self.setup.handle;
        let stopped = Stopped {
            phase: Some(handle.phase()),
            trouble,
        };
        if stopped.trouble == Trouble::Ended {
            // The successor has it.
            return stopped;
        }
        handle.begin(Phase::LocalFile, None);
        let large = size > self.setup.route.resume_over;
        let some = file.metadata().is_ok_and(|found| found.len() > 0);
        let broken_off = matches!(
            stopped.trouble,
            Trouble::Timeout(_)
                | Trouble::Lost { .. }
                | Trouble::Refused {
                    code: 400..=499,
                    ..
                }
        );
        let stays = large && some && broken_off;
        if !stays && self.inbox.discard(&attempt.temp).is_ok() && handle.check().is_ok() {
            attempt.enter(Stage::Opened);
        }
        stopped
    }

    /// Gives a whole, synced temp file its final name. None where the route skips it.
    pub(super) fn publish(&self, attempt: &Attempt, size: u64) -> Result<Option<String>, Trouble> {
        let handle = &self.setup.handle;
        let conflict = self.setup.route.publishing.on_conflict;
        for n in 0..NUMBERS {
            let name = match conflict {
                OnConflict::Rename => numbered(self.path, n),
                _ => self.path.to_owned(),
            };
            match (conflict, self.size_of(&name)?) {
                (OnConflict::Overwrite, _) | (_, None) => {}
                (OnConflict::Rename, Some(_)) => continue,
                (OnConflict::Skip | OnConflict::Fail, Some(theirs)) => {
                    let judged = judge(&self.setup.route, self.path, size, theirs);
                    self.discard(&attempt.temp)?;
                    attempt.enter(Stage::Opened);
                    return judged.map(|()| None);
                }
            }
            // Nobody else chooses names here: this one is only noted.
            attempt.aim(&name);
            if !attempt.begin_publishing() {
                return Err(Trouble::Ended);
            }
            Trouble::unless_noted(handle, attempt, Stage::Sending)?;
            handle.begin(Phase::LocalFile, None);
            handle.check()?;
            let replace = conflict == OnConflict::Overwrite;
            match self.inbox.place(&attempt.temp, &name, replace) {
                Ok(true) => {
                    failpoint::at("placed");
                    attempt.enter(Stage::Published);
                    return Ok(Some(name));
                }
                Ok(false) => {}
                Err(e) => {
                    let why = format!("the file cannot be given its final name: {e}");
                    return Err(Trouble::Source(why));
                }
            }
        }
        Err(Trouble::Source("no free name is left for the file".into()))
    }
}

/// A name that is there: `Ok` if the file is to be skipped. One that would be deleted on the server
/// has to be here in its full size at least.
pub(super) fn judge(route: &Route, name: &str, ours: u64, theirs: u64) -> Result<(), Trouble> {
    let skip = route.publishing.on_conflict == OnConflict::Skip;
    if skip && (route.after != After::Delete || ours == theirs) {
        return Ok(());
    }
    let name = escape(name);
    let why = match skip {
        true => format!(
            "the final name {name} exists with {theirs} bytes, the remote file has {ours}: it is \
             neither downloaded nor deleted (on_conflict = \"skip\")"
        ),
        false => format!("the final name {name} exists (on_conflict = \"fail\")"),
    };
    Err(Trouble::Source(why))
}

fn in_the_way(rel: &str, taken: &Taken) -> Trouble {
    let name = escape(rel);
    Trouble::Source(match taken {
        Taken::Locked(locked) => format!("the target {name} is {locked}"),
        Taken::NotRegular => {
            format!("what stands under the final name {name} is no regular file")
        }
        Taken::Io(error) => format!("the final name {name} cannot be looked at: {error}"),
    })
}

fn unreadable(error: &std::io::Error) -> Trouble {
    Trouble::Source(format!("the local folder cannot be read: {error}"))
}
