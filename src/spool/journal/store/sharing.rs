//! Who may read the journal beside its writer. On a full volume it goes without the memory that
//! connections share, and nobody else can read it; that ends when there is room again.

use std::path::Path;

use super::Store;
use super::aside::Bad;
use crate::core::assist::Items;

impl Store {
    /// On a full volume without the memory that connections share, it goes without: it is ours
    /// alone then, and a start has nothing to write.
    pub(super) fn try_open(path: &Path, steps: &Items) -> Result<Self, Bad> {
        match Self::open_as(path, "normal", steps) {
            Err(Bad::FullForSharing(_)) => Ok(Self {
                alone: true,
                ..Self::open_as(path, "exclusive", steps)?
            }),
            opened => opened,
        }
    }

    /// Whether nobody else can read it, since there was no room to share it.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Opened anew, so that others can read it where there is room for that by now. None: it
    /// cannot be opened, or another file stands at its name; all that was written is on the disk.
    pub fn share(self) -> Option<Self> {
        let (path, file) = (self.path.clone(), self.file);
        // What cannot be brought home now is, by whoever opens it next.
        self.close();
        let new = Self::try_open(&path, &Items::default()).ok();
        new.filter(|new| new.file == file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{key, version};
    use super::*;
    use crate::spool::journal::{Change, KeptRows};

    #[test]
    fn a_journal_without_room_to_share_it_is_read_by_nobody_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let keep = |n| Change::Finished {
            of: key(0, n),
            kept: Some(version(1)),
        };
        let mut store = Store::open(&path).unwrap().store;
        assert!(!store.is_alone());
        store.apply([&keep(0)].into_iter()).unwrap();
        assert!(store.close());
        let mut store = Store {
            alone: true,
            ..Store::open_as(&path, "exclusive", &Items::default())
                .ok()
                .unwrap()
        };
        store.apply([&keep(1)].into_iter()).unwrap();
        let rows = KeptRows::new(&path, "r0", crate::spool::journal::journal().0);
        assert_eq!(rows.after("", 9).unwrap(), None);

        let mut store = store.share().unwrap();
        assert!(!store.is_alone());
        store.apply([&keep(2)].into_iter()).unwrap();
        assert_eq!(rows.after("", 9).unwrap().unwrap().len(), 3);

        // Another file at its name is not taken for it.
        std::fs::rename(&path, path.with_extension("away")).unwrap();
        assert!(store.share().is_none());
    }
}
