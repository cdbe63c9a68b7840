//! Attempts, as the journal keeps them: how far each came, in which version, under which name.

use rusqlite::{Transaction, params};

use super::columns;
use crate::core::journey::Stage;
use crate::spool::Stamp;

/// What the schema needs for names that were chosen.
pub const SCHEMA: &str = "
    ALTER TABLE attempt ADD COLUMN target TEXT;
    ALTER TABLE delivery ADD COLUMN name TEXT;
";

/// What it needs for attempts whose route goes to another place meanwhile.
pub const PLACE: &str = "ALTER TABLE attempt ADD COLUMN place TEXT;";

/// Writes one, by its temp name and stage.
pub fn write(
    t: &Transaction<'_>,
    file: i64,
    (temp, stage): (&str, Stage),
    sent: Option<Stamp>,
    (target, place): (Option<&str>, Option<&str>),
) -> Result<(), rusqlite::Error> {
    let ((dev, ino, size, mtime), stage) = (columns(sent), stage as u8);
    t.prepare_cached(
        "INSERT INTO attempt (file, temp, stage, dev, ino, size, mtime_ns, target, place)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (file, temp) DO UPDATE SET stage = ?3,
             dev = coalesce(?4, dev), ino = coalesce(?5, ino),
             size = coalesce(?6, size), mtime_ns = coalesce(?7, mtime_ns),
             target = coalesce(?8, target), place = coalesce(?9, place)",
    )?
    .execute(params![
        file, temp, stage, dev, ino, size, mtime, target, place
    ])?;
    Ok(())
}

/// The remote folder of a route is made anew: what is absent there proves nothing.
pub fn remade(t: &Transaction<'_>, route: &str) -> Result<(), rusqlite::Error> {
    for (doubtful, sent_again) in [
        (Stage::Publishing, Stage::Sending),
        (Stage::Replacing, Stage::Sending),
        (Stage::Stored, Stage::Storing),
    ] {
        t.prepare_cached(
            "UPDATE attempt SET stage = ?2 WHERE stage = ?1
             AND file IN (SELECT id FROM file WHERE route = ?3)",
        )?
        .execute(params![doubtful as u8, sent_again as u8, route])?;
    }
    Ok(())
}
