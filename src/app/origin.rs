//! What a service has from earlier lives: its id and its journal. A state volume without room is
//! said and waited for: whoever makes room need not start anything.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use slog::{Logger, error, info};

use super::kept::KeptJournal;
use crate::config::Config;
use crate::core::assist::Items;
use crate::spool::journal::AGENT;
use crate::token;
use crate::watchdog::service::Watched;

/// How often a full volume is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why it cannot be had.
pub enum NotHad {
    /// The volume has no room for it: that may pass.
    Full(String),
    /// A person has to do something.
    Refused(String),
}

/// See the module.
pub struct Origin {
    /// This installation's id in temp names.
    pub agent: String,
    /// The journal.
    pub journal: KeptJournal,
}

impl Origin {
    fn take_up(config: &Config, steps: &Items, log: &Logger) -> Result<Self, NotHad> {
        // In this order: an id without a journal tells that the journal was taken away.
        let journal = KeptJournal::open(config, steps, log)?;
        let agent = agent_id(&config.state_dir)?;
        Ok(Self { agent, journal })
    }

    /// Takes it up, as soon as the volume has room; none if `stop` comes before that.
    ///
    /// # Errors
    /// A sentence with the way out.
    pub async fn wait_for(
        config: &Config,
        log: &Logger,
        watched: &Watched,
        mut stop: impl Future<Output = ()> + Unpin,
    ) -> Result<Option<Self>, String> {
        let mut waited = false;
        loop {
            match Self::take_up(config, &watched.counters().journal, log) {
                Err(NotHad::Refused(why)) => return Err(why),
                Err(NotHad::Full(why)) => {
                    if !waited {
                        error!(log, "the state volume is full";
                            "path" => config.state_dir.display().to_string(), "error" => why,
                            "next" => "the start goes on when there is room; it is tried every second");
                    }
                    // A restart would only meet the same volume.
                    watched.waits(Some("room on the volume of state.dir, which is full"));
                }
                Ok(origin) => {
                    if waited {
                        watched.waits(None);
                        info!(log, "the state volume has room again"; "next" => "the start goes on");
                    }
                    return Ok(Some(origin));
                }
            }
            waited = true;
            tokio::select! {
                () = &mut stop => return Ok(None),
                () = actix_rt::time::sleep(AGAIN) => {}
            }
        }
    }
}

/// This installation's id in temp names: kept in the state folder, made at the first start.
fn agent_id(state: &Path) -> Result<String, NotHad> {
    use std::io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
    let path = state.join(AGENT);
    let fail = |what: &str, e: std::io::Error| {
        let said = format!("cannot {what} {}: {e}", path.display());
        match e.kind() {
            StorageFull | QuotaExceeded => NotHad::Full(said),
            _ => NotHad::Refused(format!(
                "{said}; give this user the right to, or set state.dir"
            )),
        }
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.trim();
            let sound = id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit());
            if sound {
                return Ok(id.to_owned());
            }
            Err(NotHad::Refused(format!(
                "{} holds no agent id (8 hexadecimal digits); move it away and a new one \
                is made",
                path.display()
            )))
        }
        Err(e) if e.kind() == NotFound => {
            let id = token::new()[..8].to_owned();
            let fresh = state.join("agent.new");
            // On disk before it has its name: a name without a content would stop every start.
            let written = File::create(&fresh).and_then(|mut file| {
                file.write_all(id.as_bytes())?;
                file.sync_all()
            });
            written.map_err(|e| fail("write", e))?;
            std::fs::rename(&fresh, &path).map_err(|e| fail("write", e))?;
            Ok(id)
        }
        Err(e) => Err(fail("read", e)),
    }
}
