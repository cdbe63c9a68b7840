//! Upload straight under the final name (`publish = "direct"`), for servers that refuse to rename.
//! What that gives up: whoever looks there sees a file grow, and a torn one after a failure, until
//! it is sent again; a stopped server that goes on later can write to the name once more, or delete
//! what it takes for its failed upload; and what is in doubt can only be told by its size. What is kept: a part is never counted as delivered,
//! and what was stored (226) and not verified is sent again if it is there in another size.

use std::fs::File;
use std::sync::Arc;

use slog::info;

use super::conflict::{Found, NUMBERS};
use super::publish::{Landed, Placed, take_away};
use super::{Session, Trouble, hash, transfer};
use crate::config::{OnConflict, Verify};
use crate::core::journey::{Remedy, Stage};
use crate::core::naming;
use crate::failpoint;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::Stamp;

/// What became of the attempts that stored straight under a final name.
pub enum Settled {
    /// It stands there.
    Delivered(Landed),
    /// No attempt counts; this one's part could not be taken away and has to be stored over.
    Torn(Option<Arc<Attempt>>),
}

/// Resolves old attempts that stored under their final name. A part is taken away first, if the
/// server lets us: what an old session still writes goes to a file without a name then.
/// `open` gives the source, if it still stands in that version.
pub fn settle(
    session: &mut Session,
    old: &[Arc<Attempt>],
    open: impl Fn(Stamp) -> Option<File>,
) -> Result<Settled, Trouble> {
    let of = |remedy| move |a: &&Arc<Attempt>| a.stage().remedy() == remedy;
    for attempt in old.iter().filter(of(Remedy::AskSize)) {
        let (Some(name), Some(source)) = (attempt.target(), attempt.source()) else {
            continue;
        };
        // One that is gone was taken by whoever it was for: sent again it could go round for ever.
        let found = session.look(&name)?;
        let whole = match found {
            Found::Absent => true,
            Found::There(size) => {
                size == Some(source.size) && is_proven(session, &name, source, &open)?
            }
        };
        if whole {
            attempt.enter(Stage::Published);
            let source = Some(source);
            return Ok(Settled::Delivered(Landed { source, name }));
        }
        attempt.enter(Stage::Storing);
    }
    let mut torn = None;
    for attempt in old.iter().filter(|a| a.is_torn()) {
        let Some(name) = attempt.target() else {
            continue;
        };
        if take_away(session, &name)? {
            attempt.give_up();
        } else {
            torn = Some(Arc::clone(attempt));
        }
    }
    if let Some(torn) = &torn {
        info!(session.setup.log, "a part cannot be taken away";
            "file" => torn.target().map(|name| escape(&name).into_owned()),
            "next" => "the file is stored over it");
    }
    Ok(Settled::Torn(torn))
}

/// Whether what stands there in the right size is right as far as the route asks.
fn is_proven(
    session: &mut Session,
    name: &str,
    source: Stamp,
    open: impl Fn(Stamp) -> Option<File>,
) -> Result<bool, Trouble> {
    if session.setup.route.verify != Verify::Hash {
        return Ok(true);
    }
    let Some(file) = open(source) else {
        return Ok(false);
    };
    match hash::compare(session, &file, source, name) {
        Ok(()) => Ok(true),
        Err(trouble @ Trouble::Refused { code: 421, .. }) => Err(trouble),
        Err(
            Trouble::HashDiffers { .. }
            | Trouble::NoHash(_)
            | Trouble::Changed
            | Trouble::Refused { .. },
        ) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

impl Session {
    /// Sends `file` straight under its final name, or does what the route says where that exists.
    /// Over the part of `torn` it is stored without a question: that is our own.
    pub fn store_directly(
        &mut self,
        file: &mut File,
        stamp: Stamp,
        attempt: &Attempt,
        target: &str,
        torn: Option<&Attempt>,
    ) -> Result<Placed, Trouble> {
        match torn {
            Some(torn) => attempt.aim_like(torn),
            None if !self.aim(attempt, target, stamp.size)? => return Ok(Placed::Skipped),
            None => {}
        }
        let (name, _) = attempt.storing();
        self.unmark(&name)?;
        transfer::send(self, file, stamp, attempt, 0)?;
        self.keep_time(&name, Some(stamp))?;
        attempt.enter(Stage::Published);
        failpoint::at("published");
        self.look_after(&name)?;
        Ok(Placed::As(name))
    }

    /// Chooses the final name; false if the file is to be skipped.
    fn aim(&mut self, attempt: &Attempt, target: &str, size: u64) -> Result<bool, Trouble> {
        if self.setup.route.publishing.on_conflict != OnConflict::Rename {
            return Ok(!self.skips_at_once(target, size)? && attempt.aim(target));
        }
        for number in 0..NUMBERS {
            let name = naming::numbered(target, number);
            if attempt.aim(&name) && self.look(&name)? == Found::Absent {
                return Ok(true);
            }
        }
        Err(Trouble::Conflict(format!(
            "{NUMBERS} other names for {} exist on the server",
            escape(target)
        )))
    }
}
