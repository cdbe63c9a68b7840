//! Delivered files that stay in their spool: which version, and since when one is missing there.
//! Only a file that was missing as long as the history is forgotten: a volume that is not mounted
//! for a while must not have all its files sent again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, params};

use super::{Store, key, stamp};
use crate::spool::Stamp;
use crate::spool::journal::{Change, Done, Journal, Key};

/// The column, and the way to those that are to be forgotten.
pub(super) const SCHEMA: &str = "
    ALTER TABLE kept ADD COLUMN gone REAL;
    CREATE INDEX kept_gone ON kept (gone) WHERE gone IS NOT NULL;
";

impl Store {
    /// Every delivered file that stays in its spool.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn kept(&self) -> Result<Vec<(Key, Stamp)>, rusqlite::Error> {
        let mut query = self
            .connection
            .prepare("SELECT route, path, dev, ino, size, mtime_ns FROM kept")?;
        let rows = query.query_map([], |row| Ok((key(row, 0)?, stamp(row, 2)?)))?;
        let known = rows.filter_map(|row| match row {
            Ok((of, Some(stamp))) => Some(Ok((of, stamp))),
            Ok((_, None)) => None,
            Err(error) => Some(Err(error)),
        });
        known.collect()
    }
}

/// Notes since when files are missing; none: they are there (again).
pub(super) fn mark(
    connection: &Connection,
    route: &str,
    paths: &[Arc<str>],
    gone: Option<f64>,
) -> Result<(), rusqlite::Error> {
    let mut update = connection.prepare_cached(
        "UPDATE kept SET gone = ?3 WHERE route = ?1 AND path = ?2
         AND (gone IS NULL) = (?3 IS NOT NULL)",
    )?;
    for path in paths {
        update.execute(params![route, &**path, gone])?;
    }
    Ok(())
}

/// Forgets such as are missing since before that Unix time, so many at most; tells how many.
pub(super) fn forget(
    connection: &Connection,
    before: f64,
    most: i64,
) -> Result<usize, rusqlite::Error> {
    connection
        .prepare_cached(
            "DELETE FROM kept WHERE (route, path) IN
             (SELECT route, path FROM kept WHERE gone < ?1 LIMIT ?2)",
        )?
        .execute(params![before, most])
}

/// Paths, and whether each is noted as missing.
pub type KeptPage = Vec<(Arc<str>, bool)>;

/// What the journal has of one route's kept files, as the spool's own thread reads it beside the
/// writer: a spool of a million files is compared in steps, and nobody else waits for its disk.
#[derive(Clone)]
pub struct KeptRows {
    path: PathBuf,
    route: Arc<str>,
    journal: Journal,
}

impl KeptRows {
    /// Those of `route` in the journal at `path`; what is found out goes into `journal`.
    pub fn new(path: &Path, route: &str, journal: Journal) -> Self {
        Self {
            path: path.to_owned(),
            route: route.into(),
            journal,
        }
    }

    /// So many paths at most, in their order and after that one, and whether each is noted as
    /// missing; none while the journal is its writer's alone, which nobody waits for here.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn after(&self, path: &str, most: usize) -> Result<Option<KeptPage>, rusqlite::Error> {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        match self.read(path, most) {
            Err(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(DatabaseBusy | DatabaseLocked)
                ) =>
            {
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    fn read(&self, path: &str, most: usize) -> Result<KeptPage, rusqlite::Error> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        // Unset it would be five seconds, in which the spool's thread does nothing else.
        connection.busy_timeout(std::time::Duration::ZERO)?;
        let mut query = connection.prepare(
            "SELECT path, gone IS NOT NULL FROM kept WHERE route = ?1 AND path > ?2
             ORDER BY path LIMIT ?3",
        )?;
        let rows = query.query_map(params![&*self.route, path, most as i64], |row| {
            Ok((row.get::<_, String>(0)?.into(), row.get(1)?))
        })?;
        rows.collect()
    }

    /// Notes which files are missing since that Unix time, or are back; false if there is no room
    /// for it now.
    pub fn note(&self, paths: Vec<Arc<str>>, gone: Option<f64>) -> bool {
        let route = Arc::clone(&self.route);
        let change = Change::Gone { route, paths, gone };
        self.journal.put(change, Done::Nobody)
    }
}

impl std::fmt::Debug for KeptRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kept files of {}", self.route)
    }
}
