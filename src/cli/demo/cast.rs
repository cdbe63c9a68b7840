//! The files of a demo: what was dropped, what came of it. Contents follow from the name, so a
//! file is compared with what was dropped, not with a copy that could have suffered the same.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::place::Place;
use crate::cli::stage::content;
use crate::clock::{Mono, mono};

/// One dropped file.
#[derive(Debug, Clone, Copy)]
pub struct Dropped {
    /// Its size.
    pub bytes: u64,
    /// When it was dropped.
    pub at: Mono,
    /// Whether an earlier demo in this folder had left a file of this name on the server.
    pub stale: bool,
    /// When the service told of its delivery.
    pub delivered: Option<Mono>,
}

/// What stands under a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Exactly what was dropped.
    Whole,
    /// Something else.
    Torn,
    /// Nothing.
    Absent,
}

/// All files of a demo.
pub struct Cast {
    place: Place,
    files: BTreeMap<String, Dropped>,
}

impl Cast {
    /// No file yet.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            files: BTreeMap::new(),
        }
    }

    /// Puts a whole file into the spool at once, as a careful producer does: by rename.
    pub fn drop(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let staged = self.place.staging().join(name);
        std::fs::write(&staged, content(name, bytes))?;
        // Before the rename: it can be delivered before this returns.
        let file = Dropped {
            bytes,
            at: mono(),
            stale: self.server_path(name).exists(),
            delivered: None,
        };
        self.files.insert(name.to_owned(), file);
        std::fs::rename(&staged, self.place.spool().join(name))
    }

    /// Notes that the service has told of a delivery. None: no file of the demo.
    pub fn delivered(&mut self, name: &str) -> Option<Dropped> {
        let file = self.files.get_mut(name)?;
        file.delivered = Some(mono());
        Some(*file)
    }

    /// A file of the demo.
    pub fn get(&self, name: &str) -> Option<&Dropped> {
        self.files.get(name)
    }

    /// All files.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Dropped)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// Whether all of these have been delivered.
    pub fn through(&self, names: &[&str]) -> bool {
        names
            .iter()
            .all(|name| self.files.get(*name).is_some_and(|f| f.delivered.is_some()))
    }

    /// What stands under the name on the server.
    pub fn on_server(&self, name: &str) -> Found {
        self.compare(&self.server_path(name), name)
    }

    /// What stands under the name in the spool.
    pub fn in_spool(&self, name: &str) -> Found {
        self.compare(&self.place.spool().join(name), name)
    }

    fn server_path(&self, name: &str) -> PathBuf {
        self.place.server().join("incoming").join(name)
    }

    fn compare(&self, path: &Path, name: &str) -> Found {
        let Some(file) = self.files.get(name) else {
            return Found::Absent;
        };
        match std::fs::read(path) {
            Ok(bytes) if bytes == content(name, file.bytes) => Found::Whole,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Found::Absent,
            Ok(_) | Err(_) => Found::Torn,
        }
    }
}
