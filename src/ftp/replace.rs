//! Over a final name that exists, on servers that refuse to rename over a file. The order never
//! loses both: the new file is whole and verified under its temp name, and the journal says
//! `publishing`, before the old one is deleted; then it is renamed. Wherever that ends, the temp's
//! own name tells whether it was published, as always (`publish::resolve`): a DELE of the final
//! name does not touch the temp.
//!
//! What the fence cannot end is a DELE that a stopped server has read and not executed: executed
//! late it would take the new file away. So the journal says `replacing` before it is sent, and as
//! long as the server may still come to one that was not answered (`quarantine.hold`) the file is
//! not published: it stays in doubt, whole under its temp name. Whether the old one stands does not
//! matter: that it is gone may be a consumer's doing.

use slog::info;

use super::conflict::Found;
use super::{Quirk, Session, Trouble};
use crate::clock;
use crate::config::OnConflict;
use crate::failpoint;
use crate::log::escape;
use crate::pulse::Attempt;

impl Session {
    /// Renames the temp of `attempt` to a final name; `own`: what stands there may go, whatever the
    /// route says.
    pub(super) fn rename_over(
        &mut self,
        attempt: &Attempt,
        target: &str,
        own: bool,
    ) -> Result<(), Trouble> {
        if attempt.may_delete_late(clock::mono(), self.setup.hold) {
            info!(self.setup.log, "a DELE of the final name was not answered";
                "file" => escape(target).into_owned(),
                "next" => "the server may still execute it: the file waits under its temp name");
            return Err(Trouble::InDoubt);
        }
        let may_go = own || self.setup.route.publishing.on_conflict == OnConflict::Overwrite;
        let known = may_go && self.setup.quirks.has(Quirk::NoOverwrite);
        if known && self.look(target)? != Found::Absent {
            // If it may not be deleted, RNTO tells what is the matter.
            self.clear(attempt, target)?;
        }
        let refused = match self.rename(&attempt.temp, target) {
            Err(
                trouble @ Trouble::Refused {
                    verb: "RNTO",
                    code: 500..=599,
                    ..
                },
            ) if may_go && !known => trouble,
            done => return done,
        };
        failpoint::at("overwrite-refused");
        // RNTO is refused for other reasons, too.
        if !self.stands(&attempt.temp) || !self.stands(target) || !self.clear(attempt, target)? {
            return Err(refused);
        }
        self.rename(&attempt.temp, target)?;
        self.learn(Quirk::NoOverwrite, &refused.to_string());
        Ok(())
    }

    /// Deletes what stands under the final name; false if the server refuses that.
    fn clear(&mut self, attempt: &Attempt, target: &str) -> Result<bool, Trouble> {
        let name = self.wire(target)?;
        attempt.note_deleting(Some(clock::mono()));
        Trouble::unless_journalled(&self.setup.handle, attempt)
            .inspect_err(|_| attempt.note_deleting(None))?;
        let deleted = self.step("DELE", |client| client.rm(name));
        if matches!(deleted, Ok(()) | Err(Trouble::Refused { .. })) {
            attempt.note_deleting(None);
        }
        match deleted {
            Ok(()) => {
                failpoint::at("old-deleted");
                Ok(true)
            }
            Err(Trouble::Refused { code, .. }) if code != 421 => {
                // Nothing follows that would tell the next life, which would wait for the DELE.
                Trouble::unless_journalled(&self.setup.handle, attempt)?;
                Ok(false)
            }
            Err(trouble) => Err(trouble),
        }
    }
}
