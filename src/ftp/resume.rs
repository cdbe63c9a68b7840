//! Goes on with a large file where an earlier attempt of the same version stopped. Renaming that
//! attempt's temp to the fresh one's is the remote fence: what the old session still has to say
//! about the old name finds nothing. It promises nothing about the bytes that it finds; it only
//! tells where the rest begins.
//!
//! What the old session can still do to the bytes: the server may have its file open yet, and
//! write on what had reached it. That is harmless: it is the same version of the source, in order,
//! at the same positions, and never longer; a truncation by its STOR came before the first byte.
//! What is not harmless is a server that cuts the file late, when it notices that the old
//! transfer failed. Therefore the pair is reset before (the daemon sees to that), and SIZE is
//! asked after the 226, last before the rename. SIZE sees a cut after our last byte. It cannot see
//! one between our first byte and our last: what we wrote behind the cut makes the file as long as
//! before, with a hole in it. Only a hash tells that, so whatever was resumed is compared by hash
//! where the server can (`hash`), whatever `verify` says.

use std::sync::Arc;

use slog::info;

use super::publish::take_away;
use super::{Quirk, Session, Trouble};
use crate::core::journey::{Stage, resume_at};
use crate::pulse::Attempt;
use crate::spool::Stamp;

/// Attempts in a row that may begin no later than the one before: a server that fails whatever is
/// resumed gets the file from the start then.
const IN_VAIN: u64 = 3;

/// The version that is resumed rather than sent again: some attempt left a part of it, and nothing
/// may have been published yet.
pub fn resumable(old: &[Arc<Attempt>], version: Stamp, over: u64) -> Option<Stamp> {
    let open = |a: &Arc<Attempt>| {
        matches!(
            a.stage(),
            Stage::Publishing | Stage::Published | Stage::Marked | Stage::Stored
        )
    };
    let some = || old.iter().any(|a| a.holds_part_of(version));
    (version.size > over && !old.iter().any(open) && some()).then_some(version)
}

/// Takes the newest part that the server still has to the temp name of `fresh`, and the others
/// away. Answers the byte at which the rest begins; 0: from the start.
pub fn take_up(
    session: &mut Session,
    old: &[Arc<Attempt>],
    fresh: &Attempt,
    version: Stamp,
) -> Result<u64, Trouble> {
    let mut found = None;
    let quirks = session.quirks();
    let can = !quirks.has(Quirk::NoSize) && !quirks.has(Quirk::NoRest);
    for old in old.iter().rev().filter(|a| a.holds_part_of(version)) {
        if found.is_none() && can && take_over(session, old, fresh, version)? {
            found = Some(old);
        } else {
            leave(session, old)?;
        }
    }
    let Some(old) = found else {
        return Ok(0);
    };
    let why = match ask_size(session, fresh)? {
        Err(why) => why,
        Ok(size) => match resume_at(size, version.size) {
            0 if size > version.size => "the server has more than there is to send",
            0 => "the server has too little of it",
            from if fresh.begin_at(from, old) >= IN_VAIN => {
                "it was resumed several times without getting further"
            }
            from => return Ok(from),
        },
    };
    from_the_start(session, fresh, why)?;
    Ok(0)
}

/// Gives up all parts of a version that is not there any more.
pub fn leave_all(session: &mut Session, old: &[Arc<Attempt>]) -> Result<(), Trouble> {
    old.iter()
        .filter(|a| a.stage() == Stage::Sending)
        .try_for_each(|old| leave(session, old))
}

/// Takes the part away that `attempt` was to go on with: it is sent from the start.
pub(super) fn from_the_start(
    session: &mut Session,
    attempt: &Attempt,
    why: &str,
) -> Result<(), Trouble> {
    tell(session, attempt, why);
    attempt.begin_anew();
    if take_away(session, &attempt.temp)? {
        attempt.enter(Stage::Opened);
    }
    Ok(())
}

/// Given up before it is taken away, as in `resolve`; what is left is the sweep's.
fn leave(session: &mut Session, old: &Attempt) -> Result<(), Trouble> {
    if !old.give_up() {
        return Err(Trouble::InDoubt);
    }
    take_away(session, &old.temp).map(drop)
}

/// Renames the temp of `old` to that of `fresh`; false where the server does not. From before the
/// rename on `fresh` is in doubt, and `old` until the rename is answered: wherever this ends, one
/// of the two names is the part, and both are known.
fn take_over(
    session: &mut Session,
    old: &Attempt,
    fresh: &Attempt,
    version: Stamp,
) -> Result<bool, Trouble> {
    if !old.take_over() {
        return Err(Trouble::InDoubt);
    }
    fresh.note_source(version);
    fresh.enter(Stage::Sending);
    Trouble::unless_noted(&session.setup.handle, fresh, Stage::Opened)?;
    match session.rename(&old.temp, &fresh.temp) {
        Ok(()) => {
            old.enter(Stage::Opened);
            // A 250 that came with the end of the session: both are known, the rest can wait.
            Trouble::unless_stopped(&session.setup.handle, true)
        }
        Err(trouble @ Trouble::Refused { code, .. }) if code != 421 => {
            fresh.enter(Stage::Opened);
            tell(session, fresh, &trouble.to_string());
            Ok(false)
        }
        Err(trouble) => Err(trouble),
    }
}

fn tell(session: &Session, attempt: &Attempt, why: &str) {
    info!(session.setup.log, "not resumed"; "cause" => crate::log::escape(why).into_owned(),
        "file" => crate::log::escape(attempt.path()).into_owned(),
        "next" => "this part is taken away");
}

fn ask_size(session: &mut Session, fresh: &Attempt) -> Result<Result<u64, &'static str>, Trouble> {
    let name = session.wire(&fresh.temp)?;
    match session.step("SIZE", |client| client.size(name)) {
        Ok(size) => Ok(Ok(size as u64)),
        Err(Trouble::Refused { code, .. }) if code != 421 => {
            Ok(Err("the server does not tell how much it has"))
        }
        Err(trouble) => Err(trouble),
    }
}
