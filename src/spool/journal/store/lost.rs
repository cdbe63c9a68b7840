//! That an earlier journal was set aside, kept in the new one: what it knew of files that were
//! delivered and stay is lost, and a restart must not forget that.

use std::path::Path;

use rusqlite::{Connection, params};

use super::Store;

/// The table.
pub(super) const SCHEMA: &str = "CREATE TABLE lost (place TEXT NOT NULL);";

impl Store {
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

/// Notes in a new journal that there was another one, in the transaction that makes it: whoever
/// dies between setting the old one aside and here meets this again.
pub(super) fn note(connection: &Connection, journal: &Path) -> Result<(), rusqlite::Error> {
    let newest = (1..)
        .map(|n| super::aside::place(journal, n))
        .take_while(|place| place.exists())
        .last();
    if let Some(place) = newest {
        let place = place.to_string_lossy();
        connection.execute("INSERT INTO lost (place) VALUES (?1)", params![place])?;
    }
    Ok(())
}
