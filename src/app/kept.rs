//! The journal at the start of the service: opened, or set aside where it cannot be read, and what
//! it knows of an earlier life.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use slog::{Logger, error};

use crate::config::Config;
use crate::spool::Stamp;
use crate::spool::journal::{Opened, Store, Unfinished};

/// An open journal and what it knows.
pub struct KeptJournal {
    /// The journal.
    pub store: Store,
    /// Its file.
    pub path: PathBuf,
    /// Files that were not finished.
    pub unfinished: Vec<Unfinished>,
    /// Delivered files that stay in their spool, by route.
    pub kept: BTreeMap<String, Vec<(Arc<str>, Stamp)>>,
}

impl KeptJournal {
    /// Opens the journal of the state folder.
    ///
    /// # Errors
    /// A sentence with the way out.
    pub fn open(config: &Config, log: &Logger) -> Result<Self, String> {
        let path = config.state_dir.join("journal.db");
        let Opened { store, set_aside } = Store::open(&path).map_err(|e| e.to_string())?;
        if let Some((place, why)) = set_aside {
            error!(log, "the journal cannot be read"; "path" => path.display().to_string(),
                "error" => why, "set_aside" => place.display().to_string(),
                "next" => "a new one begins; what the spools hold is sent, some of it perhaps again");
        }
        let unread = |e| format!("the journal {} cannot be read: {e}", path.display());
        let unfinished = store.unfinished().map_err(unread)?;
        let mut kept: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for (of, stamp) in store.kept().map_err(unread)? {
            kept.entry(of.route).or_default().push((of.path, stamp));
        }
        Ok(Self {
            unfinished,
            kept: kept.into_iter().map(|(r, k)| (r.to_string(), k)).collect(),
            store,
            path,
        })
    }
}
