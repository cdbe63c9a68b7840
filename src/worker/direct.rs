//! Delivers a file straight under its final name (`publish = "direct"`).

use std::sync::Arc;

use slog::warn;

use super::job::{End, Upload, ensure, escape, open_source};
use crate::core::names::Phase;
use crate::ftp::{self, Landed, Placed, Session, Settled, Setup, Trouble};
use crate::pulse::Attempt;

/// Sends it; `torn` is an earlier attempt whose part could not be taken away.
pub(super) fn deliver(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
    torn: Option<Arc<Attempt>>,
) -> Result<End, Trouble> {
    let sent = send(setup, session, upload, torn.as_deref());
    let fresh = &upload.attempt;
    let parts = || upload.doubts.iter().filter(|a| a.is_torn());
    match &sent {
        Err(Trouble::Changed | Trouble::Vanished) => leave_parts(setup, &upload.doubts),
        // From here on the fresh attempt tells of that name, and the journal has it.
        _ if sent.is_ok() || fresh.is_torn() => parts().for_each(|part| {
            part.give_up();
        }),
        _ => {}
    }
    sent
}

/// Resolves earlier attempts that stored straight under a final name.
pub(super) fn settle(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
) -> Result<Settled, Trouble> {
    if upload.doubts.iter().all(|a| !a.is_torn()) {
        return Ok(Settled::Torn(None));
    }
    let open = |version| {
        setup.handle.begin(Phase::LocalFile, None);
        let (file, stamp) = upload.open(setup).ok()?;
        (stamp == version).then_some(file)
    };
    ftp::settle(ensure(setup, session)?, &upload.doubts, open)
}

/// Nothing is stored over what could not be taken away: this version does not come again.
pub(super) fn leave_parts(setup: &Setup, doubts: &[Arc<Attempt>]) {
    for part in doubts.iter().filter(|a| a.is_torn()) {
        warn!(setup.log, "a part of a file stays under its final name";
            "file" => part.target().map(|name| escape(&name)),
            "error" => "its source is not what it was, and the server did not let the part be deleted",
            "next" => "a new version of the source replaces it; without one, take it away there");
        part.give_up();
    }
}

fn send(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
    torn: Option<&Attempt>,
) -> Result<End, Trouble> {
    let (mut file, stamp) = open_source(setup, upload)?;
    let session = ensure(setup, session)?;
    session.may_be_marked(&upload.target)?;
    upload.attempt.note_source(stamp);
    let placed = session.store_directly(&mut file, stamp, &upload.attempt, &upload.target, torn)?;
    Ok(match placed {
        // Whether the source is still what was sent is asked before it is finished.
        Placed::As(name) => {
            let source = Some(stamp);
            End::Delivered(Landed { source, name }, stamp.size)
        }
        Placed::Skipped => End::Skipped(Some(stamp)),
    })
}
