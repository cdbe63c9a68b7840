//! Secrets and the files that hold them: one source each, one trailing newline cut.
//! It refuses what is no regular file, so that no pipe or device can hold up the start,
//! and never quotes a secret.

use super::fault::{Fault, Wrong};
use super::server::is_clean;
use std::fs::File;
use std::io::Read;
use std::path::Path;

// Far above any password or token; it keeps a wrong path from filling the memory.
const LENGTH_MAX: u64 = 64 * 1024;

/// Reads a secret from its file.
pub(super) fn from_file(path: &Path, key: &str, origin: Option<&str>) -> Result<String, Fault> {
    read(path).map_err(|why| {
        let found = format!("the file {path:?}: {why}");
        let allowed = "a readable file with the secret in its first line";
        Wrong::new(found, allowed, "put the secret there, or name another file").of(key, origin)
    })
}

/// The secret in a file; otherwise why there is none, without quoting it.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let facts = path.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(LENGTH_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LENGTH_MAX {
        return Err(format!("it is longer than {LENGTH_MAX} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if !is_clean(&text) {
        return Err("it holds more than one line, or a NUL".into());
    }
    Ok(text)
}
