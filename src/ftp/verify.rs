//! Compares what the server has with what was sent, before anything is published: its size, and its
//! hash where the route wants that or the file was put together from parts.

use std::fs::File;

use super::conflict::Found;
use super::{Quirk, Session, Trouble, hash};
use crate::config::Verify;
use crate::core::journey::Stage;
use crate::pulse::Attempt;
use crate::spool::Stamp;

/// What compares a sent file; the last argument tells whether it was resumed.
pub(super) type Compare = fn(&mut Session, &File, Stamp, &Attempt, bool) -> Result<(), Trouble>;

/// Compares the version that was sent with what stands under the name of the attempt's STOR.
pub(super) fn verify(
    session: &mut Session,
    file: &File,
    stamp: Stamp,
    attempt: &Attempt,
    resumed: bool,
) -> Result<(), Trouble> {
    let (name, _) = attempt.storing();
    let verified = size(session, &name, stamp.size, resumed)
        .and_then(|()| hash::verify(session, file, stamp, attempt, resumed));
    match verified {
        Err(Trouble::SizeDiffers { .. } | Trouble::HashDiffers { .. }) if attempt.is_torn() => {
            // Nothing is in doubt: it has to be sent again.
            attempt.enter(Stage::Storing);
            verified
        }
        Err(Trouble::Refused {
            code: code @ 500..=599,
            ..
        }) if attempt.is_torn() => match session.look(&name)? {
            // Whoever it is for was faster than our question: its 226 has been read.
            Found::Absent if code == 550 => Ok(()),
            // It is there, and what was asked for is not told.
            _ => {
                attempt.enter(Stage::Storing);
                verified
            }
        },
        verified => verified,
    }
}

/// Asks for the size of what the server has (RFC 3659 section 4): a 226 proves nothing. What was
/// put together from parts is always asked about.
fn size(session: &mut Session, temp: &str, sent: u64, resumed: bool) -> Result<(), Trouble> {
    let asked = session.setup.route.verify != Verify::None || resumed;
    if !asked || session.quirks().has(Quirk::NoSize) {
        return Ok(());
    }
    let name = session.wire(temp)?;
    match session.step("SIZE", |client| client.size(name)) {
        Ok(found) if found as u64 == sent => Ok(()),
        Ok(found) => Err(Trouble::SizeDiffers {
            sent,
            found: found as u64,
        }),
        Err(Trouble::Refused {
            code: 500 | 502 | 504,
            text,
            ..
        }) => {
            session.learn(Quirk::NoSize, &text);
            Ok(())
        }
        Err(trouble) => Err(trouble),
    }
}
