//! What happens when the final name exists on the server (`on_conflict`). The question is asked
//! right before RNFR; who else writes to that folder can still come between it and the RNTO, for
//! FTP has no rename that refuses to replace.

use std::sync::Arc;

use suppaftp::Status;

use super::publish::take_away;
use super::{Quirk, Session, Trouble};
use crate::config::{After, OnConflict, Route};
use crate::core::journey::Stage;
use crate::pulse::Attempt;

/// Other names that are tried at most where a name is taken.
pub(super) const NUMBERS: u32 = 10_000;

/// Whether a name is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No file has it.
    Absent,
    /// A file has it; its size, where the server tells it.
    There(Option<u64>),
}

/// Whether a file of `ours` bytes is not needed, since its name is there with `theirs`. A source
/// that would be deleted has to be there in its full size at least.
fn skips(route: &Route, ours: Option<u64>, theirs: Option<u64>) -> bool {
    route.after != After::Delete || (theirs.is_some() && theirs == ours)
}

impl Session {
    /// Looks whether a file of that name is there: by SIZE, else by MDTM, else by MLST.
    pub(super) fn look(&mut self, name: &str) -> Result<Found, Trouble> {
        let wire = &self.wire(name)?;
        let unknown = |code: u32| matches!(code, 500 | 502 | 504);
        if !self.quirks().has(Quirk::NoSize) {
            match self.step("SIZE", |client| client.size(wire)) {
                Ok(size) => return Ok(Found::There(Some(size as u64))),
                Err(Trouble::Refused { code: 550, .. }) => return Ok(Found::Absent),
                Err(Trouble::Refused { code, text, .. }) if unknown(code) => {
                    self.learn(Quirk::NoSize, &text);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        for (verb, told) in [
            ("MDTM", Status::File),
            ("MLST", Status::RequestedFileActionOk),
        ] {
            match self.command(verb, wire, &[told]) {
                Ok(_) => return Ok(Found::There(None)),
                Err(Trouble::Refused { code: 550, .. }) => return Ok(Found::Absent),
                Err(Trouble::Refused { code, .. }) if unknown(code) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Conflict(
            "the server cannot tell whether the final name exists (no SIZE, MDTM or MLST): \
             routes.NAME.on_conflict = \"overwrite\" is the only way there"
                .replace("NAME", &self.setup.route.name),
        ))
    }

    /// Before anything is sent: whether it need not be. `ours`: bytes of the source.
    ///
    /// # Errors
    /// The name is there and the route says `fail`, or the server does not tell.
    pub fn skips_at_once(&mut self, target: &str, ours: u64) -> Result<bool, Trouble> {
        match self.setup.route.publishing.on_conflict {
            OnConflict::Overwrite | OnConflict::Rename => Ok(false),
            OnConflict::Skip | OnConflict::Fail => match self.look(target)? {
                Found::Absent => Ok(false),
                Found::There(theirs) => self.judge(target, Some(ours), theirs).map(|()| true),
            },
        }
    }

    /// The name is there: `Ok` if the file is to be skipped.
    pub(super) fn judge(
        &self,
        target: &str,
        ours: Option<u64>,
        theirs: Option<u64>,
    ) -> Result<(), Trouble> {
        let route = &self.setup.route;
        let skip = route.publishing.on_conflict == OnConflict::Skip;
        if skip && skips(route, ours, theirs) {
            return Ok(());
        }
        let name = crate::log::escape(target);
        let why = match (skip, theirs) {
            (false, _) => "on_conflict = \"fail\"".to_owned(),
            (true, None) => "on_conflict = \"skip\", but its size is not known, and the source \
                             would be deleted"
                .to_owned(),
            (true, Some(theirs)) => format!(
                "on_conflict = \"skip\", but with {theirs} bytes, and the source, which would be \
                 deleted, has {}",
                ours.map_or_else(|| "others".into(), |ours| ours.to_string())
            ),
        };
        Err(Trouble::Conflict(format!(
            "the final name {name} exists on the server ({why}); take it away there, or this file \
             from the spool"
        )))
    }

    /// Takes a chain of renamed temps away whose file has the name of `standing`. First the journal
    /// has all of it, that one last: as long as it says `publishing` of one that is absent and of
    /// none that stands, the file would be taken for published.
    pub(super) fn withdraw_chain(
        &mut self,
        old: &[Arc<Attempt>],
        standing: &Arc<Attempt>,
    ) -> Result<(), Trouble> {
        let asked = |a: &&Arc<Attempt>| a.stage() == Stage::Publishing;
        let chain: Vec<_> = old.iter().filter(asked).collect();
        let others = chain.iter().filter(|a| !Arc::ptr_eq(a, standing));
        for attempt in others.chain([&standing]) {
            attempt.enter(Stage::Sending);
            if let Err(trouble) = Trouble::unless_journalled(&self.setup.handle, attempt) {
                chain.iter().for_each(|a| a.enter(Stage::Publishing));
                return Err(trouble);
            }
        }
        // Oldest first: a late rename leads from an older name to a newer one.
        for attempt in chain {
            take_away(self, &attempt.temp)?;
            attempt.give_up();
        }
        Ok(())
    }

    /// Takes a sent temp away that is not to be published after all. First the journal has that:
    /// a temp that is absent means a publication as long as it says `publishing`.
    pub(super) fn withdraw(&mut self, attempt: &Attempt) -> Result<(), Trouble> {
        attempt.enter(Stage::Sending);
        if let Err(trouble) = Trouble::unless_journalled(&self.setup.handle, attempt) {
            attempt.enter(Stage::Publishing);
            return Err(trouble);
        }
        if take_away(self, &attempt.temp)? {
            attempt.enter(Stage::Opened);
        }
        Ok(())
    }
}
