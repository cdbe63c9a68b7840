//! What demo and drill share: a folder that goes again, contents that follow from a name, and the
//! answer to a fault that nobody knows.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{EXIT_USAGE, show};
use crate::lab::Expected;
use crate::log;

/// A fault as it is offered to a person.
pub struct Offer {
    /// Its name.
    pub name: &'static str,
    /// What the service sees of it.
    pub expected: Expected,
    /// One line.
    pub about: &'static str,
}

/// Answers `--fault help`, and names that are none, with the list of all; the latter is wrong
/// usage.
pub fn list_faults(command: &str, name: &str, offers: &[Offer]) -> ExitCode {
    let mut text = String::new();
    if name != "help" {
        let shown = log::escape(name).into_owned();
        text.push_str(&format!("ftpulse: no fault is called {shown:?}"));
        let near = offers
            .iter()
            .map(|o| (strsim::jaro_winkler(o.name, name), o.name))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.8);
        if let Some((_, near)) = near {
            text.push_str(&format!("; did you mean {near:?}?"));
        }
        text.push_str("\n\n");
    }
    text.push_str(&format!(
        "The faults of `ftpulse {command}`, and what the service sees of each:\n\n"
    ));
    for offer in offers {
        let (name, expected) = (offer.name, offer.expected);
        text.push_str(&format!("  {name:22} {expected:9} {}\n", offer.about));
    }
    text.push_str(&format!(
        "\nExample: ftpulse {command} --fault silent-226\n"
    ));
    if name == "help" {
        return show(&text);
    }
    // Nobody reads an output that is gone; the exit code still tells.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(EXIT_USAGE)
}

/// Removes a folder in which others may still write for a moment: their last files can come while
/// it is being removed.
///
/// # Errors
/// What is left, and why.
pub fn remove(dir: &Path) -> Result<(), String> {
    const TRIES: u32 = 5;
    let mut tries = 0;
    loop {
        tries += 1;
        match std::fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if tries < TRIES && e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(e) => return Err(format!("cannot remove {}: {e}", dir.display())),
        }
    }
}

/// A new folder that only this user may enter; whoever asked for it removes it.
///
/// # Errors
/// A sentence with the way out.
pub fn temporary(what: &str) -> Result<PathBuf, String> {
    let made = tempfile::Builder::new()
        .prefix(&format!("ftpulse-{what}-"))
        .tempdir()
        .map(tempfile::TempDir::keep)
        .and_then(std::path::absolute);
    made.map_err(|e| {
        let dir = std::env::temp_dir();
        format!(
            "cannot make a folder in {}: {e}; set TMPDIR to another place",
            dir.display()
        )
    })
}

/// Bytes that look random and follow from the name: a shift of one of them shows.
pub fn content(name: &str, bytes: u64) -> Vec<u8> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut state = seed | 1;
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}
