//! Delivers a file straight under its final name (`publish = "direct"`).

use std::sync::Arc;

use slog::warn;

use super::job::{End, Upload, ensure, escape, open_source};
use crate::ftp::{Landed, Placed, Session, Setup, Trouble};
use crate::pulse::Attempt;

/// Sends it; `torn` is an earlier attempt whose part could not be taken away.
pub(super) fn deliver(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
    torn: Option<Arc<Attempt>>,
) -> Result<End, Trouble> {
    let sent = send(setup, session, upload, torn.as_deref());
    let attempt = &upload.attempt;
    let own = upload.doubts.iter().chain([attempt]);
    match &sent {
        Err(Trouble::Changed | Trouble::Vanished) => {
            // This version is never sent again. What comes next under this name replaces the part.
            for part in own.filter(|a| a.is_torn()) {
                warn!(setup.log, "a part of a file stays under its final name";
                    "file" => part.target().map(|name| escape(&name)),
                    "error" => "the source is not what it was, and the server does not let the part be deleted",
                    "next" => "a new version of the source replaces it; without one, take it away there");
                part.give_up();
            }
        }
        // From here on the fresh attempt tells of that name, and the journal has it.
        _ if attempt.target().is_some() && (attempt.is_torn() || sent.is_ok()) => {
            upload.doubts.iter().filter(|a| a.is_torn()).for_each(|a| {
                a.give_up();
            });
        }
        _ => {}
    }
    sent
}

fn send(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
    torn: Option<&Attempt>,
) -> Result<End, Trouble> {
    let (mut file, stamp) = open_source(setup, upload)?;
    let session = ensure(setup, session)?;
    session.may_be_marked(&upload.path)?;
    upload.attempt.note_source(stamp);
    let placed = session.store_directly(&mut file, stamp, &upload.attempt, &upload.path, torn)?;
    Ok(match placed {
        // Whether the source is still what was sent is asked before it is finished.
        Placed::As(name) => {
            let source = Some(stamp);
            End::Delivered(Landed { source, name }, stamp.size)
        }
        Placed::Skipped => End::Skipped(Some(stamp)),
    })
}
