//! That an earlier journal was set aside or taken away, kept in the new one: what it knew of files that were
//! delivered and stay is lost, and a restart must not forget that.

use std::path::Path;

use rusqlite::{Connection, params};

use super::Store;

/// The file beside the journal with this installation's id, made after the journal.
pub const AGENT: &str = "agent";

/// The table.
pub(super) const SCHEMA: &str = "CREATE TABLE lost (place TEXT NOT NULL);";

/// Why a route that keeps its files must not send; `place` is where the lost journal is.
pub fn why_no_resend(place: &str) -> String {
    format!(
        "it keeps its files, and the journal that knew which of them were delivered is lost \
         ({place}); to send all of them again, start once with `ftpulse run --accept-resend`; to \
         avoid that, stop the service, put a sound journal back, and start it"
    )
}

impl Store {
    /// Whether its file still stands at its name: what is written to one that was removed is lost.
    pub fn is_in_place(&self) -> bool {
        file_at(&self.path) == self.file
    }

    /// Where the journal is whose knowledge of kept files is lost and not given up yet.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn lost(&self) -> Result<Option<String>, rusqlite::Error> {
        let mut query = self
            .connection
            .prepare("SELECT place FROM lost ORDER BY rowid DESC")?;
        query.query_map([], |row| row.get(0))?.next().transpose()
    }

    /// What it knew is given up: kept files are sent again.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn give_up_lost(&mut self) -> Result<(), rusqlite::Error> {
        self.connection.execute("DELETE FROM lost", []).map(drop)
    }
}

/// Device and inode of what stands there.
pub(super) fn file_at(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Notes in a new journal that there was another one, in the transaction that makes it: whoever
/// dies between setting the old one aside and here meets this again.
pub(super) fn note(connection: &Connection, journal: &Path) -> Result<(), rusqlite::Error> {
    let newest = (1..)
        .map(|n| super::aside::place(journal, n))
        .take_while(|place| place.exists())
        .last();
    let place = match newest {
        Some(place) => place.to_string_lossy().into_owned(),
        // Made after the first journal: who has it had one.
        None if journal.with_file_name(AGENT).exists() => {
            format!("{} was missing", journal.display())
        }
        None => return Ok(()),
    };
    connection.execute("INSERT INTO lost (place) VALUES (?1)", params![place])?;
    Ok(())
}
