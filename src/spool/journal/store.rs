//! The journal in SQLite (WAL, every commit synced): schema, migration, one transaction a batch,
//! and what is read back at the start. A file that is no journal, or is damaged, is set aside under
//! another name and never overwritten; one of a newer version is refused.

mod aside;
mod attempts;
mod count;
mod failing;
mod history;
mod kept;
mod lost;
mod sharing;
mod sweeps;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

pub use aside::OpenError;
use aside::{Bad, set_aside};
pub use history::INCIDENTS;
pub use kept::KeptRows;
pub use lost::{AGENT, why_no_resend};
pub use sweeps::attempts_in;

use super::{Change, Failing, Key, KnownAttempt, Unfinished};
use crate::core::assist::Items;
use crate::core::journey::Stage;
use crate::spool::Stamp;

/// "ftpl": whose file it is.
const APPLICATION: i32 = 0x6674_706c;
/// One entry takes the schema from its number to the next.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        route TEXT NOT NULL,
        path TEXT NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        next REAL NOT NULL DEFAULT 0,
        error TEXT,
        dev INTEGER, ino INTEGER, size INTEGER, mtime_ns INTEGER,
        UNIQUE (route, path)
    );
    CREATE TABLE attempt (
        id INTEGER PRIMARY KEY,
        file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE,
        temp TEXT NOT NULL,
        stage INTEGER NOT NULL,
        dev INTEGER, ino INTEGER, size INTEGER, mtime_ns INTEGER,
        UNIQUE (file, temp)
    );
    CREATE TABLE delivery (
        id INTEGER PRIMARY KEY,
        route TEXT NOT NULL,
        path TEXT NOT NULL,
        at REAL NOT NULL,
        dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL
    );
    CREATE INDEX delivery_at ON delivery (at);
    CREATE TABLE kept (
        route TEXT NOT NULL,
        path TEXT NOT NULL,
        dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        PRIMARY KEY (route, path)
    ) WITHOUT ROWID;
",
    lost::SCHEMA,
    failing::MIGRATION,
    history::SCHEMA,
    kept::SCHEMA,
    attempts::SCHEMA,
    attempts::PLACE,
    sweeps::SCHEMA,
];

/// Pages of the write-ahead log after which they are brought home: it stays near 256 KiB, so that
/// a small state volume is not filled by the log of changes that need next to nothing themselves.
const CHECKPOINT: u32 = 64;
/// What is left of the log's file after a batch that needed more, bytes.
const LOG: u32 = 512 << 10;

/// An open journal.
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Device and inode.
    file: Option<(u64, u64)>,
    /// Nobody else can read it.
    alone: bool,
}

/// A journal and what became of an unreadable one in its place.
pub struct Opened {
    /// The journal.
    pub store: Store,
    /// Where the unreadable one was put, and what was wrong with it.
    pub set_aside: Option<(PathBuf, String)>,
}

impl Store {
    /// Opens the journal of a state folder, or makes it.
    ///
    /// # Errors
    /// It can neither be used nor set aside.
    pub fn open(path: &Path) -> Result<Opened, OpenError> {
        Self::open_counting(path, &Items::default())
    }

    /// Sets a damaged journal aside and begins a new one. `why` says what is wrong with it.
    ///
    /// # Errors
    /// The one cannot be set aside, or the other not be made.
    pub fn begin_anew(path: &Path, why: String) -> Result<Opened, OpenError> {
        let stuck = |e| Bad::Refused(format!("{why}, and it cannot be put aside either: {e}"));
        let opened = set_aside(path).map_err(stuck).and_then(|place| {
            let store = Self::try_open(path, &Items::default())?;
            Ok((store, place))
        });
        let (store, place) = opened.map_err(|bad| OpenError::new(path, bad))?;
        Ok(Opened {
            store,
            set_aside: Some((place, why)),
        })
    }

    fn open_as(path: &Path, locking: &str, steps: &Items) -> Result<Self, Bad> {
        let mut connection = Connection::open(path)?;
        count::steps(&mut connection, steps)?;
        connection.pragma_update(None, "locking_mode", locking)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        let number = |name: &str| connection.pragma_query_value(None, name, |r| r.get::<_, i32>(0));
        let (application, version) = (number("application_id")?, number("user_version")?);
        let newest = MIGRATIONS.len() as i32;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        if application != APPLICATION && (tables > 0 || version != 0) {
            return Err(Bad::Unreadable("it is another program's".into()));
        }
        if version > newest {
            return Err(Bad::Refused(format!(
                "it is of version {version}, made by a newer ftpulse (this one knows {newest})"
            )));
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A machine that loses its power right after a STOR must know of it.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
        connection.pragma_update(None, "journal_size_limit", LOG)?;
        if let Some(wrong) = history::check(&connection)? {
            return Err(Bad::Unreadable(wrong));
        }
        let mut store = Self {
            connection,
            path: path.to_owned(),
            file: lost::file_at(path),
            alone: false,
        };
        store.migrate(version, path)?;
        Ok(store)
    }

    fn migrate(&mut self, from: i32, path: &Path) -> Result<(), Bad> {
        if from == MIGRATIONS.len() as i32 {
            // A start on a full disk has to write nothing.
            return Ok(());
        }
        let change = self.connection.transaction()?;
        for step in MIGRATIONS.iter().skip(from.max(0) as usize) {
            change.execute_batch(step)?;
        }
        if from == 0 {
            lost::note(&change, path)?;
        }
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.pragma_update(None, "user_version", MIGRATIONS.len() as i32)?;
        Ok(change.commit()?)
    }

    /// Writes changes in one transaction: all of them, or none. Where the disk has no room for
    /// them its log is brought home and cut, and they are tried once more.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn apply<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c Change> + Clone,
    ) -> Result<(), rusqlite::Error> {
        use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
        match self.write_all(changes.clone()) {
            Err(error) if matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure)) => {
                // Where even that has no room the first error is the one to tell.
                if self.cut_log() {
                    self.write_all(changes)
                } else {
                    Err(error)
                }
            }
            done => done,
        }
    }

    /// Closes the file and, where there is room for it, brings its log home; false if something
    /// of that failed. All that was written stands in either case.
    pub fn close(self) -> bool {
        self.connection.close().is_ok()
    }

    /// Brings the log home and cuts its file; false if that cannot be done now.
    fn cut_log(&self) -> bool {
        let busy = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                row.get::<_, i64>(0)
            });
        busy.is_ok_and(|busy| busy == 0)
    }

    fn write_all<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        let mut probed = false;
        for change in changes {
            probed |= *change == Change::Probe;
            write(&transaction, change)?;
        }
        if probed {
            // A write that the disk has to take, and that leaves nothing.
            transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i32)?;
        }
        transaction.commit()
    }

    /// Every file that is not finished.
    ///
    /// # Errors
    /// What SQLite or the disk says.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, rusqlite::Error> {
        let mut attempts: HashMap<i64, Vec<KnownAttempt>> = HashMap::new();
        let mut query = self.connection.prepare(
            "SELECT file, temp, stage, dev, ino, size, mtime_ns, target, place FROM attempt
             ORDER BY id",
        )?;
        let rows = query.query_map([], |row| {
            let attempt = KnownAttempt {
                temp: row.get(1)?,
                stage: Stage::from_u8(row.get(2)?),
                sent: stamp(row, 3)?,
                target: row.get(7)?,
                place: row.get::<_, Option<String>>(8)?.map(Arc::from),
            };
            Ok((row.get(0)?, attempt))
        })?;
        for row in rows {
            let (file, attempt) = row?;
            attempts.entry(file).or_default().push(attempt);
        }
        let mut query = self.connection.prepare(&format!(
            "SELECT id, route, path, failures, next, dev, ino, size, mtime_ns, {} FROM file
             ORDER BY id",
            failing::COLUMNS
        ))?;
        let rows = query.query_map([], |row| {
            let id: i64 = row.get(0)?;
            let counts = (row.get(3)?, row.get(4)?);
            let failing = failing::read(row, 9)?;
            Ok((id, key(row, 1)?, counts, failing, stamp(row, 5)?))
        })?;
        rows.map(|row| {
            let (id, of, (failures, next), failing, delivered) = row?;
            Ok(Unfinished {
                of,
                failures,
                failing,
                next,
                delivered,
                attempts: attempts.remove(&id).unwrap_or_default(),
            })
        })
        .collect()
    }
}

fn key(row: &Row<'_>, at: usize) -> Result<Key, rusqlite::Error> {
    Ok(Key {
        route: row.get::<_, String>(at)?.into(),
        path: row.get::<_, String>(at + 1)?.into(),
    })
}

/// Four columns; SQLite's integers are signed, and hold the same bits.
fn stamp(row: &Row<'_>, at: usize) -> Result<Option<Stamp>, rusqlite::Error> {
    let Some(dev) = row.get::<_, Option<i64>>(at)? else {
        return Ok(None);
    };
    Ok(Some(Stamp {
        dev: dev.cast_unsigned(),
        ino: row.get::<_, i64>(at + 1)?.cast_unsigned(),
        size: row.get::<_, i64>(at + 2)?.cast_unsigned(),
        mtime_ns: row.get(at + 3)?,
    }))
}

type Columns = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

fn columns(stamp: Option<Stamp>) -> Columns {
    let Some(s) = stamp else {
        return (None, None, None, None);
    };
    let signed = |n: u64| Some(n.cast_signed());
    (
        signed(s.dev),
        signed(s.ino),
        signed(s.size),
        Some(s.mtime_ns),
    )
}

fn file_of(t: &Transaction<'_>, of: &Key) -> Result<Option<i64>, rusqlite::Error> {
    t.prepare_cached("SELECT id FROM file WHERE route = ?1 AND path = ?2")?
        .query_row(params![&*of.route, &*of.path], |row| row.get(0))
        .optional()
}

fn made_file_of(t: &Transaction<'_>, of: &Key) -> Result<i64, rusqlite::Error> {
    if let Some(id) = file_of(t, of)? {
        return Ok(id);
    }
    t.prepare_cached("INSERT INTO file (route, path) VALUES (?1, ?2)")?
        .insert(params![&*of.route, &*of.path])
}

fn write(t: &Transaction<'_>, change: &Change) -> Result<(), rusqlite::Error> {
    match change {
        Change::Attempt {
            of,
            temp,
            stage: Stage::Opened,
            ..
        } => {
            if let Some(file) = file_of(t, of)? {
                t.prepare_cached("DELETE FROM attempt WHERE file = ?1 AND temp = ?2")?
                    .execute(params![file, temp])?;
                // Nothing is known of a file without attempts, failures or a delivery.
                t.prepare_cached(
                    "DELETE FROM file WHERE id = ?1 AND failures = 0 AND dev IS NULL
                     AND NOT EXISTS (SELECT 1 FROM attempt WHERE file = ?1)",
                )?
                .execute(params![file])?;
            }
        }
        Change::Attempt {
            of,
            temp,
            stage,
            sent,
            target,
            place,
        } => {
            let file = made_file_of(t, of)?;
            let (dev, ino, size, mtime) = columns(*sent);
            // A newer version is on its way: the end of the older one was not noted.
            t.prepare_cached(
                "UPDATE file SET dev = NULL, ino = NULL, size = NULL, mtime_ns = NULL
                 WHERE id = ?1 AND ?2 IS NOT NULL AND dev IS NOT NULL
                 AND (dev, ino, size, mtime_ns) IS NOT (?2, ?3, ?4, ?5)",
            )?
            .execute(params![file, dev, ino, size, mtime])?;
            let names = (target.as_deref(), place.as_deref());
            attempts::write(t, file, (temp, *stage), *sent, names)?;
        }
        Change::Waiting {
            of,
            failures,
            next,
            error,
            failing,
        } => {
            let file = made_file_of(t, of)?;
            failing::write(t, file, (*failures, *next, error), failing)?;
        }
        Change::Delivered { of, sent, at, name } => {
            let file = made_file_of(t, of)?;
            let (dev, ino, size, mtime) = columns(Some(*sent));
            t.prepare_cached(
                "UPDATE file SET failures = 0, next = 0, error = NULL, failed_first = NULL,
                     dev = ?2, ino = ?3, size = ?4, mtime_ns = ?5 WHERE id = ?1",
            )?
            .execute(params![file, dev, ino, size, mtime])?;
            t.prepare_cached("DELETE FROM attempt WHERE file = ?1")?
                .execute(params![file])?;
            t.prepare_cached(
                "INSERT INTO delivery (route, path, at, dev, ino, size, mtime_ns, name)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                &*of.route, &*of.path, at, dev, ino, size, mtime, name
            ])?;
        }
        Change::Finished { of, kept } => {
            forget(t, of)?;
            let (dev, ino, size, mtime) = columns(*kept);
            if kept.is_some() {
                t.prepare_cached(
                    "INSERT OR REPLACE INTO kept (route, path, dev, ino, size, mtime_ns)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![&*of.route, &*of.path, dev, ino, size, mtime])?;
            } else {
                t.prepare_cached("DELETE FROM kept WHERE route = ?1 AND path = ?2")?
                    .execute(params![&*of.route, &*of.path])?;
            }
        }
        Change::Forgotten { of } => forget(t, of)?,
        Change::Remade { route } => attempts::remade(t, route)?,
        Change::Gone { route, paths, gone } => kept::mark(t, route, paths, *gone)?,
        Change::Sweep { route, temp, at } => sweeps::write(t, route, temp, *at)?,
        Change::Incident { id, at, body } => history::write_incident(t, *id, *at, body)?,
        Change::Probe => {}
    }
    Ok(())
}

fn forget(t: &Transaction<'_>, of: &Key) -> Result<(), rusqlite::Error> {
    t.prepare_cached("DELETE FROM file WHERE route = ?1 AND path = ?2")?
        .execute(params![&*of.route, &*of.path])?;
    Ok(())
}

#[cfg(test)]
mod tests;
