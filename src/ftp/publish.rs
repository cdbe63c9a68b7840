//! The steps that make a sent file visible, and those that take an old attempt's temp name away
//! before anything else happens to that final name (the remote fence).
//! RNFR and RNTO are sent one by one, each with its own bound: nothing may wait unread behind
//! another command in a stopped server's buffer.

use std::sync::Arc;

use slog::warn;
use suppaftp::Status;

use super::conflict::{Found, NUMBERS};
use super::spelling::is_risky;
use super::{Quirk, Session, Trouble};
use crate::config::OnConflict;
use crate::core::journey::{Answer, Next, Remedy, Stage, asked};
use crate::core::naming;
use crate::failpoint;
use crate::pulse::Attempt;
use crate::spool::Stamp;

/// What became of an attempt in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Nothing of it is left that could become visible.
    Gone,
    /// It stands under a final name.
    Delivered(Landed),
    /// It is whole on the server, but its name was taken: it was withdrawn (`skip`).
    Skipped(Option<Stamp>),
    /// The server's answers leave it open: try again later.
    Open,
}

/// What stands under a final name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// The version that was sent, where it is known.
    pub source: Option<Stamp>,
    /// The final name below the remote folder.
    pub name: String,
}

/// What came of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It stands under this name.
    As(String),
    /// The name was taken and the route skips it: nothing of it is left.
    Skipped,
}

impl Session {
    /// Gives the sent and verified temp its final name, or what the route says where that exists.
    /// Over the part of `torn` it is put without a question: that is our own.
    pub fn publish(
        &mut self,
        attempt: &Attempt,
        target: &str,
        torn: Option<&Attempt>,
    ) -> Result<Placed, Trouble> {
        self.keep_time(&attempt.temp, attempt.source())?;
        if let Some((torn, name)) = torn.and_then(|torn| Some((torn, torn.target()?))) {
            attempt.aim_like(torn);
            self.begin_publishing(attempt)?;
            self.publish_as(attempt, &name, true)?;
            return Ok(Placed::As(name));
        }
        let placed = self.publish_free(attempt, target);
        if matches!(placed, Err(Trouble::Conflict(_))) && attempt.stage() == Stage::Publishing {
            // No RNFR was sent: it may be given up.
            attempt.note_refused();
        }
        placed
    }

    fn publish_free(&mut self, attempt: &Attempt, target: &str) -> Result<Placed, Trouble> {
        let on_conflict = self.setup.route.publishing.on_conflict;
        for number in 0..NUMBERS {
            let name = naming::numbered(target, number);
            // Looked for before the journal is asked to write each number that is taken.
            let taken = number > 0 && self.look(&name)? != Found::Absent;
            if taken || !attempt.aim(&name) {
                continue;
            }
            self.begin_publishing(attempt)?;
            if on_conflict != OnConflict::Overwrite
                && let Found::There(size) = self.look(&name)?
            {
                if on_conflict == OnConflict::Rename {
                    continue;
                }
                let ours = attempt.source().map(|stamp| stamp.size);
                let judged = self.judge(&name, ours, size);
                self.withdraw(attempt)?;
                return judged.map(|()| Placed::Skipped);
            }
            self.publish_as(attempt, &name, false)?;
            return Ok(Placed::As(name));
        }
        Err(Trouble::Conflict(format!(
            "{NUMBERS} other names for {} exist on the server",
            crate::log::escape(target)
        )))
    }

    /// From here on the temp's absence means that it was published.
    fn begin_publishing(&mut self, attempt: &Attempt) -> Result<(), Trouble> {
        let before = attempt.stage();
        if !attempt.begin_publishing() {
            return Err(Trouble::Ended);
        }
        // Where no RNFR is sent, what has the file of an older attempt stays as it was: the journal
        // may still know that one, and its name is absent.
        Trouble::unless_noted(&self.setup.handle, attempt, before)
    }

    /// Renames the temp to a final name (RFC 959 section 4.1.3); `own`: what stands there is ours.
    fn publish_as(&mut self, attempt: &Attempt, target: &str, own: bool) -> Result<(), Trouble> {
        let renamed = self.rename_over(attempt, target, own);
        match &renamed {
            Ok(()) => {
                attempt.enter(Stage::Published);
                failpoint::at("published");
            }
            // A clear no before any RNTO: not published, and no question about the temp can ever
            // be taken to mean that it was (a server that forbids renames says 550 to all).
            Err(Trouble::Refused {
                verb: "RNFR", code, ..
            }) if *code != 421 => {
                attempt.enter(Stage::Sending);
            }
            // It stays in doubt, so that a successor publishes what is there instead of sending it
            // again; but a file that fails so for too long may be given up.
            Err(Trouble::Refused {
                verb: "RNTO",
                code: 500..=599,
                ..
            }) => {
                if self.stands(&attempt.temp) {
                    attempt.note_refused();
                }
            }
            Err(_) => {}
        }
        renamed?;
        self.look_after(target)
    }

    /// Says so where the server has put another name in the place of one that it does not like
    /// (pure-ftpd makes "x_" of "x "). It is delivered all the same: sent again it would only
    /// come to the same end.
    pub(super) fn look_after(&mut self, target: &str) -> Result<(), Trouble> {
        if is_risky(target) && !self.quirks().has(Quirk::NoSize) && self.absent(target)? {
            warn!(self.setup.log, "the server has the file under another name";
                "file" => crate::log::escape(target).into_owned(),
                "cause" => "it does not take spaces at the ends of a name",
                "next" => "it counts as delivered; choose names without such spaces");
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), Trouble> {
        let (from, to) = (self.wire(from)?, self.wire(to)?);
        self.command("RNFR", &from, &[Status::RequestFilePending])?;
        failpoint::at("rnfr-accepted");
        self.command(
            "RNTO",
            &to,
            &[Status::RequestedFileActionOk, Status::CommandOk],
        )?;
        failpoint::at("rnto-accepted");
        Ok(())
    }

    /// Whether the name is there for sure; without a clear answer it is not.
    pub(super) fn stands(&mut self, name: &str) -> bool {
        let Ok(name) = self.wire(name) else {
            return false;
        };
        if self.broken {
            return false;
        }
        let no_size = self.quirks().has(Quirk::NoSize);
        for verb in ["SIZE", "MDTM", "MLST"]
            .into_iter()
            .skip(usize::from(no_size))
        {
            match self.command(verb, &name, &[Status::File, Status::RequestedFileActionOk]) {
                Ok(_) => return true,
                Err(Trouble::Refused { code, .. }) if code != 421 => {}
                Err(_) => {
                    // The refusal of RNTO is what is told; only the session is over.
                    self.broken = true;
                    return false;
                }
            }
        }
        false
    }

    /// Whether the name is not there. Asked by SIZE, or by MDTM where there is no SIZE: the
    /// questions that every server answers the same way. RNFR or DELE has been refused before.
    pub(super) fn absent(&mut self, name: &str) -> Result<bool, Trouble> {
        let name = &self.wire(name)?;
        if !self.quirks().has(Quirk::NoSize) {
            match self.command("SIZE", name, &[Status::File]) {
                Err(Trouble::Refused {
                    code: 500 | 502 | 504,
                    text,
                    ..
                }) => self.learn_no_size(&text)?,
                answer => return told_absent(answer),
            }
        }
        told_absent(self.command("MDTM", name, &[Status::File]))
    }
}

fn told_absent(answer: Result<Status, Trouble>) -> Result<bool, Trouble> {
    match answer {
        Ok(_) => Ok(false),
        Err(Trouble::Refused { code, .. }) if code != 421 => Ok(code == 550),
        Err(trouble) => Err(trouble),
    }
}

/// Takes a temp name away: true when it is gone for sure.
pub fn take_away(session: &mut Session, temp: &str) -> Result<bool, Trouble> {
    let name = session.wire(temp)?;
    match session.step("DELE", |client| client.rm(name)) {
        Ok(()) => {
            failpoint::at("taken-away");
            Ok(true)
        }
        Err(Trouble::Refused {
            code: 421,
            text,
            verb,
        }) => Err(Trouble::Refused {
            code: 421,
            text,
            verb,
        }),
        Err(Trouble::Refused { .. }) => session.absent(temp),
        Err(trouble) => Err(trouble),
    }
}

/// Resolves all old attempts of a file before any further work on its final name. What turns out
/// not to be published yet is published under the name of `fresh`, so that a late RNTO of the old
/// session finds nothing.
///
/// Attempts of stage `Publishing` are one chain: each next one is the renamed one before, so the
/// file was published only if none of their names is there. They are asked oldest first: a rename
/// that a stopped server executes late leads from an older name to a newer one, so a name whose
/// elders are all gone stays gone once it is. Asked the other way round, the file could slip from
/// the name asked second to the one asked first.
///
/// Attempts that hold a part of the version to `keep` are left alone: they are to be resumed.
pub fn resolve(
    session: &mut Session,
    old: &[Arc<Attempt>],
    fresh: &Attempt,
    target: &str,
    keep: Option<Stamp>,
) -> Result<Resolved, Trouble> {
    if let Some(done) = published(old) {
        return Ok(Resolved::Delivered(landed(done, target)));
    }
    // Whichever session made the remote folder anew.
    old.iter().for_each(|attempt| attempt.turn_back());
    for attempt in old
        .iter()
        .filter(|a| a.stage().remedy() == Remedy::TakeAway)
        .filter(|a| !keep.is_some_and(|version| a.holds_part_of(version)))
    {
        // Given up before it is taken away: no RNFR of it was sent and none can be any more, so
        // its temp can do no harm; one that cannot be taken away now is left to the sweep.
        if !attempt.give_up() {
            return Ok(Resolved::Open);
        }
        take_away(session, &attempt.temp)?;
    }
    let mut resolved = Resolved::Gone;
    for attempt in old.iter().filter(|a| a.stage().remedy() == Remedy::Ask) {
        match asked(ask(session, attempt, fresh)?) {
            Next::PublishFresh => {
                // Renamed, so the whole chain is gone for good: the doubt is all in `fresh` now.
                old.iter()
                    .filter(|a| a.stage().remedy() == Remedy::Ask)
                    .for_each(|a| a.enter(Stage::Opened));
                let torn = old.iter().find(|a| a.is_torn());
                return Ok(match session.publish(fresh, target, torn.map(|a| &**a))? {
                    Placed::As(name) => Resolved::Delivered(Landed {
                        source: fresh.source(),
                        name,
                    }),
                    Placed::Skipped => Resolved::Skipped(fresh.source()),
                });
            }
            // The newest one that had chosen a name is the one that was published: its elders
            // were renamed to it before it chose.
            Next::Delivered => match &mut resolved {
                Resolved::Delivered(known) if attempt.target().is_none() => {
                    known.source = attempt.source().or(known.source);
                }
                resolved => *resolved = Resolved::Delivered(landed(attempt, target)),
            },
            Next::Later
                if session.setup.route.publishing.direct && session.stands(&attempt.temp) =>
            {
                // Such a server takes no RNTO at all, and nothing was published: the whole chain
                // is in that one name. It is sent straight instead.
                session.withdraw_chain(old, attempt)?;
                return Ok(Resolved::Gone);
            }
            Next::Later => return Ok(Resolved::Open),
        }
    }
    if matches!(resolved, Resolved::Delivered(_)) {
        // Known from here on: what is left to do does not depend on asking again.
        old.iter()
            .filter(|a| a.stage().remedy() == Remedy::Ask)
            .for_each(|a| a.enter(Stage::Published));
    }
    Ok(resolved)
}

/// The attempt that was published: of several that one publication settled, the one that had
/// chosen a name last.
pub fn published(attempts: &[Arc<Attempt>]) -> Option<&Arc<Attempt>> {
    let done = || {
        let newest = attempts.iter().rev();
        newest.filter(|a| a.stage().remedy() == Remedy::Delivered)
    };
    done()
        .find(|a| a.target().is_some())
        .or_else(|| done().next())
}

/// Where an attempt that was published stands.
pub fn landed(attempt: &Attempt, target: &str) -> Landed {
    Landed {
        source: attempt.source(),
        name: attempt.target().unwrap_or_else(|| target.to_owned()),
    }
}

/// Renames the temp of `old` to that of `fresh`. From before the rename on, `fresh` is in doubt.
fn ask(session: &mut Session, old: &Attempt, fresh: &Attempt) -> Result<Answer, Trouble> {
    if let Some(stamp) = old.source() {
        fresh.note_source(stamp);
    }
    fresh.enter(Stage::Publishing);
    Trouble::unless_noted(&session.setup.handle, fresh, Stage::Opened)?;
    match session.rename(&old.temp, &fresh.temp) {
        Ok(()) => {
            failpoint::at("renamed-anew");
            Ok(Answer::Renamed)
        }
        Err(Trouble::Refused { verb, code, .. }) if code != 421 => {
            fresh.enter(Stage::Opened);
            let absent = verb == "RNFR" && code == 550 && session.absent(&old.temp)?;
            Ok(if absent {
                Answer::Absent
            } else {
                Answer::Unclear
            })
        }
        Err(trouble) => Err(trouble),
    }
}
