//! The folder in which a demo happens. A temporary one is made, and removed, by the demo; a given
//! one is only taken when it is new, empty or marked as a demo's own, and nothing in it is removed.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::stage;

/// Marks a folder as a demo's own.
const MARK: &str = ".ftpulse-demo";

/// The folder and what is in it.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
    temporary: bool,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong and the way out.
    pub reason: String,
    /// Whether the command line is at fault; nothing was touched then.
    pub usage: bool,
}

impl Place {
    /// The given folder, or a new temporary one.
    pub fn open(dir: Option<&Path>) -> Result<Self, Refusal> {
        let (dir, temporary) = match dir {
            Some(dir) => (given(dir)?, false),
            None => (temporary()?, true),
        };
        let place = Self { dir, temporary };
        let made = [
            place.spool(),
            place.staging(),
            place.server(),
            place.state(),
        ]
        .iter()
        .try_for_each(std::fs::create_dir_all)
        .and_then(|()| std::fs::write(place.dir.join(MARK), "a folder of `ftpulse demo`\n"));
        if let Err(e) = made {
            let dir = place.dir.display().to_string();
            // What was made of a temporary folder goes again; that it cannot is no better reason.
            let _ = place.clean_up();
            return Err(failed(format!("cannot write into {dir}: {e}")));
        }
        Ok(place)
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is removed at the end.
    pub fn temporary(&self) -> bool {
        self.temporary
    }

    /// Where files are dropped.
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// Where files are written before they are renamed into the spool.
    pub fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }

    /// What the FTP server serves.
    pub fn server(&self) -> PathBuf {
        self.dir.join("server")
    }

    /// The service's own state.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The CA of the FTP server, where that speaks TLS.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The service's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("service.log")
    }

    /// Removes a temporary folder; leaves any other as it is.
    ///
    /// # Errors
    /// What is left, and why.
    pub fn clean_up(&self) -> Result<(), String> {
        if !self.temporary {
            return Ok(());
        }
        stage::remove(&self.dir)
    }
}

fn failed(reason: String) -> Refusal {
    Refusal {
        reason,
        usage: false,
    }
}

fn temporary() -> Result<PathBuf, Refusal> {
    stage::temporary("demo").map_err(|reason| failed(format!("{reason}, or give --dir")))
}

fn given(dir: &Path) -> Result<PathBuf, Refusal> {
    let usage = |reason| Refusal {
        reason,
        usage: true,
    };
    let shown = dir.display();
    let taken = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some() && !dir.join(MARK).is_file(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(usage(format!("--dir {shown} cannot be used: {e}"))),
    };
    if taken {
        return Err(usage(format!(
            "--dir {shown} holds files that are not a demo's; nothing was touched. \
             Name a new or empty folder, or leave --dir out"
        )));
    }
    let absolute =
        std::path::absolute(dir).and_then(|dir| std::fs::create_dir_all(&dir).map(|()| dir));
    absolute.map_err(|e| usage(format!("--dir {shown} cannot be made: {e}")))
}
