//! Old temp names that are to be taken away once more: a restart must not leave them to the server.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::Store;
use crate::spool::journal::OldName;

/// The table of them.
pub(super) const SCHEMA: &str = "
    CREATE TABLE sweep (
        route TEXT NOT NULL,
        temp TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (route, temp)
    ) WITHOUT ROWID;
    CREATE INDEX sweep_at ON sweep (at);
";

impl Store {
    /// Every temp name that is to be taken away once more, oldest first.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn sweeps(&self) -> Result<Vec<OldName>, rusqlite::Error> {
        let mut query = self
            .connection
            .prepare("SELECT route, temp FROM sweep ORDER BY at, route, temp")?;
        let rows = query.query_map([], |row| {
            Ok(OldName {
                route: row.get::<_, String>(0)?.into(),
                temp: row.get(1)?,
            })
        })?;
        rows.collect()
    }
}

/// The temp names, without their folders, of every attempt in the journal at `path`: in work, in
/// doubt or to be resumed, also those of routes that are not there now. Read beside the writer.
///
/// # Errors
/// What SQLite or the disk says.
pub fn attempts_in(path: &Path) -> Result<HashSet<String>, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // No worker waits here for a journal that is its writer's alone: it looks another day.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    let mut query = connection.prepare("SELECT temp FROM attempt")?;
    let rows = query.query_map([], |row| {
        let temp: String = row.get(0)?;
        let name = temp.rsplit_once('/').map(|(_, name)| name.to_owned());
        Ok(name.unwrap_or(temp))
    })?;
    rows.collect()
}

/// Notes one since that Unix time, or that it is none any more. One that is known keeps its time:
/// what can never be taken away must not be remembered for ever.
pub(super) fn write(
    connection: &Connection,
    route: &str,
    temp: &str,
    at: Option<f64>,
) -> Result<(), rusqlite::Error> {
    match at {
        Some(at) => connection
            .prepare_cached("INSERT OR IGNORE INTO sweep (route, temp, at) VALUES (?1, ?2, ?3)")?
            .execute(params![route, temp, at])?,
        None => connection
            .prepare_cached("DELETE FROM sweep WHERE route = ?1 AND temp = ?2")?
            .execute(params![route, temp])?,
    };
    Ok(())
}

/// Forgets such as are noted since before that Unix time, so many at most; tells how many.
pub(super) fn forget(
    connection: &Connection,
    before: f64,
    most: i64,
) -> Result<usize, rusqlite::Error> {
    connection
        .prepare_cached(
            "DELETE FROM sweep WHERE (route, temp) IN
             (SELECT route, temp FROM sweep WHERE at < ?1 LIMIT ?2)",
        )?
        .execute(params![before, most])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::spool::journal::Change;

    fn change(route: &str, temp: &str, at: Option<f64>) -> Change {
        let (route, temp) = (route.into(), temp.into());
        Change::Sweep { route, temp, at }
    }

    fn known(store: &Store) -> Vec<(String, String)> {
        let known = store.sweeps().unwrap().into_iter();
        known.map(|old| (old.route.to_string(), old.temp)).collect()
    }

    #[test]
    fn old_names_survive_until_they_are_swept_or_a_day_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let mut store = Store::open(&path).unwrap().store;
        let now = clock::unix();
        let changes = [
            change("a", "young", Some(now)),
            change("a", "old", Some(now - 90_000.0)),
            // Noted again: it keeps its time.
            change("a", "old", Some(now)),
            change("b", "young", Some(now - 10.0)),
            change("b", "swept", Some(now)),
            change("b", "swept", None),
        ];
        store.apply(changes.iter()).unwrap();
        assert!(store.close());
        let mut store = Store::open(&path).unwrap().store;
        let of = |route: &str, temp: &str| (route.to_owned(), temp.to_owned());
        let young = [of("b", "young"), of("a", "young")];
        assert_eq!(known(&store)[0], of("a", "old"));
        assert_eq!(known(&store)[1..], young);
        assert!(!store.expire(0.0).unwrap());
        assert_eq!(known(&store), young);
    }
}
