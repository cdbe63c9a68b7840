//! Files that fail, as the journal keeps them: how often, since when, in which version.

use rusqlite::{Row, Transaction, params};

use super::{Failing, columns, stamp};

/// What the schema needs for it.
pub const MIGRATION: &str = "
    ALTER TABLE file ADD COLUMN failed_first REAL;
    ALTER TABLE file ADD COLUMN failed_seconds REAL;
    ALTER TABLE file ADD COLUMN failed_dev INTEGER;
    ALTER TABLE file ADD COLUMN failed_ino INTEGER;
    ALTER TABLE file ADD COLUMN failed_size INTEGER;
    ALTER TABLE file ADD COLUMN failed_mtime_ns INTEGER;
";
/// The columns that [`read`] takes.
pub const COLUMNS: &str =
    "failed_dev, failed_ino, failed_size, failed_mtime_ns, failed_first, failed_seconds";

/// Reads them from that column on.
pub fn read(row: &Row<'_>, at: usize) -> Result<Option<Failing>, rusqlite::Error> {
    let (version, first, seconds) = (stamp(row, at)?, row.get(at + 4)?, row.get(at + 5)?);
    Ok(match (version, first, seconds) {
        (Some(version), Some(first), Some(seconds)) => Some(Failing {
            version,
            first,
            seconds,
        }),
        _ => None,
    })
}

/// Writes a failure.
pub fn write(
    t: &Transaction<'_>,
    file: i64,
    (failures, next, error): (u32, f64, &str),
    failing: &Failing,
) -> Result<(), rusqlite::Error> {
    let (dev, ino, size, mtime) = columns(Some(failing.version));
    let (first, seconds) = (failing.first, failing.seconds);
    t.prepare_cached(
        "UPDATE file SET failures = ?2, next = ?3, error = ?4, failed_first = ?5,
             failed_seconds = ?6, failed_dev = ?7, failed_ino = ?8, failed_size = ?9,
             failed_mtime_ns = ?10 WHERE id = ?1",
    )?
    .execute(params![
        file, failures, next, error, first, seconds, dev, ino, size, mtime
    ])?;
    Ok(())
}
