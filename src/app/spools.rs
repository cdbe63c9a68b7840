//! The local folders of all routes at the start: each is owned before anything else is done.

use std::sync::Arc;

use super::kept::KeptJournal;
use crate::actors::collector::RouteSpool;
use crate::config::Config;
use crate::spool::lock::{FolderLock, LockError};

/// Takes the locks, and out of the journal what each spool's thread has to know.
///
/// # Errors
/// Somebody else owns one, with the holder.
pub fn own(config: &Config, journal: &mut KeptJournal) -> Result<Vec<RouteSpool>, String> {
    let mut spools = Vec::new();
    for route in config.routes.values() {
        // A folder that is missing or unreadable is reported and waited for; one that somebody
        // else owns is a mistake that waiting does not mend.
        let lock = match FolderLock::acquire(&route.spool, "spool") {
            Ok(lock) => Some(lock),
            Err(e @ LockError::Held { .. }) => return Err(e.to_string()),
            Err(_) => None,
        };
        // What a route that downloads has kept is on the server: the daemon compares it.
        let here = route.get.is_none();
        let kept = here.then(|| journal.kept.remove(&route.name)).flatten();
        spools.push(RouteSpool {
            route: Arc::clone(route),
            lock,
            kept: kept.unwrap_or_default(),
            rows: None,
        });
    }
    Ok(spools)
}
