//! What the journal keeps only for a time: deliveries, incidents, failures of files that never
//! came again, kept files that are gone, old temp names. Dropped in small steps: a step is one short transaction, so that neither the log
//! grows nor whoever waits for the journal is kept waiting, however much is over its time.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, kept, sweeps};
use crate::clock;

/// Incidents with their whole story, as JSON; AUTOINCREMENT remembers the last number for ever.
pub(super) const SCHEMA: &str = "
    CREATE TABLE incident (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        body TEXT NOT NULL
    );
";

/// Records of each kind that are dropped in one step.
const STEP: i64 = 1000;
/// Incidents kept, however young they are: as many as the service shows.
pub const INCIDENTS: usize = 1000;

/// Failures are remembered for so much longer, seconds: what is waited for may be away for weeks,
/// and since when a file fails must not be forgotten meanwhile.
const LONG_PAST: f64 = 30.0 * 86_400.0;
/// So long old temp names are remembered, seconds.
const SWEEPS: f64 = 86_400.0;

impl Store {
    /// Drops a step's worth of what is older than that Unix time; true if there may be more. Files
    /// that are kept, in doubt or not finished stay known.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn expire(&mut self, before: f64) -> Result<bool, rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        let deliveries = transaction
            .prepare_cached(
                "DELETE FROM delivery WHERE id IN
                 (SELECT id FROM delivery WHERE at < ?1 ORDER BY at LIMIT ?2)",
            )?
            .execute(params![before, STEP])?;
        let incidents = transaction
            .prepare_cached(
                "DELETE FROM incident WHERE id IN (SELECT id FROM incident WHERE at < ?1
                 OR id <= (SELECT max(id) FROM incident) - ?2 LIMIT ?3)",
            )?
            .execute(params![before, INCIDENTS as i64, STEP])?;
        // One that only failed, and whose next attempt is long past: it never came again.
        let failures = transaction
            .prepare_cached(
                "DELETE FROM file WHERE id IN (SELECT id FROM file WHERE next < ?1
                 AND dev IS NULL
                 AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.file = file.id) LIMIT ?2)",
            )?
            .execute(params![before - LONG_PAST, STEP])?;
        let gone = kept::forget(&transaction, before, STEP)?;
        let sweeps = sweeps::forget(&transaction, clock::unix() - SWEEPS, STEP)?;
        transaction.commit()?;
        let most = deliveries.max(incidents).max(failures).max(gone);
        let most = most.max(sweeps);
        Ok(most as i64 == STEP)
    }

    /// The newest incidents since that Unix time, oldest first, and the last number ever given.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn incidents(&self, since: f64) -> Result<(Vec<String>, u64), rusqlite::Error> {
        let mut query = self
            .connection
            .prepare("SELECT body FROM incident WHERE at >= ?1 ORDER BY id DESC LIMIT ?2")?;
        let rows = query.query_map(params![since, INCIDENTS as i64], |row| row.get(0))?;
        let mut bodies: Vec<String> = rows.collect::<Result<_, _>>()?;
        bodies.reverse();
        let last = "SELECT seq FROM sqlite_sequence WHERE name = 'incident'";
        let last: Option<i64> = self
            .connection
            .query_row(last, [], |row| row.get(0))
            .optional()?;
        Ok((bodies, last.unwrap_or(0).max(0).cast_unsigned()))
    }
}

/// Writes an incident, or its newer state.
pub(super) fn write_incident(
    connection: &Connection,
    id: u64,
    at: f64,
    body: &str,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO incident (id, at, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET at = ?2, body = ?3",
        )?
        .execute(params![id.cast_signed(), at, body])?;
    Ok(())
}

/// Whether what every later step rests on is sound; else what is wrong. The deliveries are left
/// out: they may be gigabytes, nothing is decided by them, and damage in them shows when the next
/// one is written.
pub(super) fn check(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let mut query = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'delivery'")?;
    let names: Vec<String> = query
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for name in names {
        let found: String = connection.query_row(
            "SELECT quick_check FROM pragma_quick_check(?1)",
            params![name],
            |row| row.get(0),
        )?;
        if found != "ok" {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::tests::count;
    use super::*;

    /// FTPULSE_JOURNAL_ROWS=10000000 shows what a long history costs.
    #[test]
    #[allow(clippy::print_stdout)]
    fn a_long_history_is_dropped_in_steps_and_its_log_stays_small() {
        let rows = std::env::var("FTPULSE_JOURNAL_ROWS").map_or(20_000, |n| n.parse().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let store = Store::open(&path).unwrap().store;
        store
            .connection
            .execute(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
                 INSERT INTO delivery (route, path, at, dev, ino, size, mtime_ns)
                 SELECT 'main', 'some/folder/file-' || n || '.csv', n, 1, n, n, n FROM n",
                params![rows],
            )
            .unwrap();
        assert!(store.close());
        let size = std::fs::metadata(&path).unwrap().len();
        let begun = crate::clock::mono();
        let mut store = Store::open(&path).unwrap().store;
        let opened = crate::clock::mono() - begun;
        let log = path.with_file_name("journal.db-wal");
        let (mut steps, mut longest) = (0, std::time::Duration::ZERO);
        loop {
            let begun = crate::clock::mono();
            let more = store.expire(rows as f64 - 1.0).unwrap();
            longest = longest.max(crate::clock::mono() - begun);
            assert!(std::fs::metadata(&log).unwrap().len() <= 4 << 20);
            if !more {
                break;
            }
            steps += 1;
        }
        println!(
            "{rows} deliveries: {} MiB, opened in {opened:.1?}, dropped in {steps} steps, the longest \
             {longest:.1?}",
            size >> 20
        );
        assert_eq!(count(&store, "delivery"), 2);
        assert_eq!(steps, (rows - 2) / 1000);
    }
}
