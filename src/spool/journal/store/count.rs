//! SQLite's own steps, counted: the one sign that a long check or a long read of the journal gets
//! on, since a single call of ours does all of it.

use std::path::Path;

use rusqlite::Connection;

use super::aside::{Bad, OpenError};
use super::{Opened, Store};
use crate::core::assist::Items;

/// So many instructions of SQLite's machine are a step: some hundred rows, or a page of a check.
const STEP: i32 = 1_000;

impl Store {
    /// As [`Store::open`], with the steps counted there until [`Store::count_no_longer`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_counting(path: &Path, steps: &Items) -> Result<Opened, OpenError> {
        match Self::try_open(path, steps) {
            Ok(store) => Ok(Opened {
                store,
                set_aside: None,
            }),
            Err(Bad::Unreadable(why)) => Self::begin_anew(path, why),
            Err(bad) => Err(OpenError::new(path, bad)),
        }
    }

    /// Nothing of it is counted any more: what its writer does says nothing of a start.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn count_no_longer(&mut self) -> Result<(), rusqlite::Error> {
        let none = None::<fn() -> bool>;
        self.connection.progress_handler(0, none)
    }
}

/// Counts the steps of this connection from now on.
pub(super) fn steps(connection: &mut Connection, steps: &Items) -> Result<(), rusqlite::Error> {
    let steps = steps.clone();
    connection.progress_handler(
        STEP,
        Some(move || {
            steps.count();
            false
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{key, version};
    use super::*;
    use crate::spool::journal::{Change, Key};

    #[test]
    fn a_long_check_and_a_long_read_are_seen_to_get_on_and_nothing_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let mut store = Store::open(&path).unwrap().store;
        let kept = |n: u32| Change::Finished {
            of: Key {
                path: format!("file-{n}").into(),
                ..key(0, 0)
            },
            kept: Some(version(1)),
        };
        let changes: Vec<_> = (0..20_000).map(kept).collect();
        store.apply(changes.iter()).unwrap();
        assert!(store.close());

        let counted = Items::default();
        let mut store = Store::open_counting(&path, &counted).unwrap().store;
        let checked = counted.so_far();
        assert!(checked > 10, "{checked} steps of the check");
        assert_eq!(store.kept().unwrap().len(), 20_000);
        let read = counted.so_far() - checked;
        assert!(read > 100, "{read} steps of the read");

        store.count_no_longer().unwrap();
        store.apply(changes.iter()).unwrap();
        assert_eq!(
            counted.so_far(),
            checked + read,
            "the writer is not counted"
        );
    }
}
