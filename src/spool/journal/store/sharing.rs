//! Who may read the journal beside its writer. On a full volume it goes without the memory that
//! connections share, and nobody else can read it; that ends when there is room again.

use std::path::Path;

use super::Store;
use super::aside::Bad;

impl Store {
    /// On a full volume without the memory that connections share, it goes without: it is ours
    /// alone then, and a start has nothing to write.
    pub(super) fn try_open(path: &Path) -> Result<Self, Bad> {
        match Self::open_as(path, "normal") {
            Err(Bad::FullForSharing(_)) => Ok(Self {
                alone: true,
                ..Self::open_as(path, "exclusive")?
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
        Self::try_open(&path).ok().filter(|new| new.file == file)
    }
}
