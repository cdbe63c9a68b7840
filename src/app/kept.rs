//! The journal at the start of the service: opened, or set aside where it cannot be read, and what
//! it knows of an earlier life.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use slog::{Logger, error, info, warn};

use super::origin::NotHad;
use crate::clock;
use crate::config::{After, Config, Route};
use crate::core::assist::Items;
use crate::report::Incident;
use crate::spool::Stamp;
use crate::spool::journal::{OldName, Opened, Store, Unfinished, why_no_resend};

/// An open journal and what it knows.
pub struct KeptJournal {
    /// The journal.
    pub store: Store,
    /// Its file.
    pub path: PathBuf,
    /// Files that were not finished.
    pub unfinished: Vec<Unfinished>,
    /// Temp names that are to be taken away once more.
    pub sweeps: Vec<OldName>,
    /// Delivered files that stay in their spool, by route.
    pub kept: BTreeMap<String, Vec<(Arc<str>, Stamp)>>,
    /// Why routes that keep their files must not send: the journal that knew which of them were
    /// delivered is lost.
    pub no_resend: Option<String>,
    /// Incidents that are not forgotten yet, oldest first, and the last number that one got.
    pub incidents: (Vec<Incident>, u64),
}

impl KeptJournal {
    /// Opens the journal of the state folder; its steps are counted there.
    ///
    /// # Errors
    /// A sentence with the way out.
    pub fn open(config: &Config, steps: &Items, log: &Logger) -> Result<Self, NotHad> {
        let path = config.state_dir.join("journal.db");
        let Opened {
            mut store,
            set_aside,
        } = Store::open_counting(&path, steps).map_err(|e| match e.is_full() {
            true => NotHad::Full(e.to_string()),
            false => NotHad::Refused(e.to_string()),
        })?;
        if let Some((place, why)) = set_aside {
            error!(log, "the journal cannot be read"; "path" => path.display().to_string(),
                "error" => why, "set_aside" => place.display().to_string(),
                "next" => "a new one begins; what the spools hold is sent, some of it perhaps again");
        }
        let unread = |e| {
            let path = path.display();
            NotHad::Refused(format!("the journal {path} cannot be read: {e}"))
        };
        let no_resend = no_resend(&mut store, config, log).map_err(unread)?;
        let unfinished = store.unfinished().map_err(unread)?;
        let since = clock::unix() - config.history.as_secs_f64();
        let (incidents, last) = store.incidents(since).map_err(unread)?;
        // One of a form that this version does not know is not worth a start that fails.
        let incidents = incidents
            .iter()
            .filter_map(|body| serde_json::from_str(body).ok())
            .collect();
        let mut kept: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for (of, stamp) in store.kept().map_err(unread)? {
            kept.entry(of.route).or_default().push((of.path, stamp));
        }
        let sweeps = store.sweeps().map_err(unread)?;
        store.count_no_longer().map_err(unread)?;
        Ok(Self {
            unfinished,
            sweeps,
            kept: kept.into_iter().map(|(r, k)| (r.to_string(), k)).collect(),
            store,
            path,
            no_resend,
            incidents: (incidents, last),
        })
    }
}

/// A spool whose files stay looks the same before and after their delivery: without the journal
/// all of them would be sent again, perhaps years of them. A person has to want that.
fn no_resend(
    store: &mut Store,
    config: &Config,
    log: &Logger,
) -> Result<Option<String>, rusqlite::Error> {
    let Some(place) = store.lost()? else {
        return Ok(None);
    };
    let keeps = |r: &&Arc<Route>| matches!(r.after, After::Keep);
    let routes: Vec<_> = config.routes.values().filter(keeps).collect();
    let names: Vec<_> = routes.iter().map(|r| r.name.as_str()).collect();
    let names = names.join(", ");
    if routes.is_empty() || config.accept_resend {
        store.give_up_lost()?;
        if !routes.is_empty() {
            info!(log, "kept files are sent again, as was asked for"; "routes" => names,
                "set_aside" => place, "next" => "the new journal remembers them from now on");
        }
        return Ok(None);
    }
    warn!(log, "routes that keep their files wait: which were delivered is not known any more";
        "routes" => names, "set_aside" => &place,
        "next" => "nothing of them is sent before a start with --accept-resend");
    Ok(Some(why_no_resend(&place)))
}
