//! Secrets and the files that hold them: one source each, one trailing newline cut.
//! It refuses what is no regular file, so that no pipe or device can hold up the start,
//! never quotes a secret, and wipes what it was read into.

use super::Secret;
use super::fault::{Fault, Wrong};
use super::server::is_clean;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

// Far above any password or token; it keeps a wrong path from filling the memory.
const LENGTH_MAX: u64 = 64 * 1024;

/// What a secret looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line.
    Line,
    /// Lines, as PEM has them.
    Lines,
}

impl Form {
    /// That of a setting.
    pub fn of(name: &str) -> Self {
        match name.ends_with(".client_key") {
            true => Self::Lines,
            false => Self::Line,
        }
    }
}

/// Reads a secret from its file.
pub(super) fn from_file(
    path: &Path,
    form: Form,
    key: &str,
    origin: Option<&str>,
) -> Result<Secret, Fault> {
    read(path, form).map_err(|why| {
        let found = format!("the file {path:?}: {why}");
        let allowed = match form {
            Form::Line => "a readable file with the secret in its first line",
            Form::Lines => "a readable file with the key, in PEM",
        };
        Wrong::new(found, allowed, "put the secret there, or name another file").of(key, origin)
    })
}

/// The secret in a file; otherwise why there is none, without quoting it.
pub(super) fn read(path: &Path, form: Form) -> Result<Secret, String> {
    let bytes = bytes(path, LENGTH_MAX)?;
    let text = str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = match text.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => text,
    };
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if form == Form::Line && !is_clean(text) {
        return Err("it holds more than one line, or a NUL".into());
    }
    Ok(Secret::new(text))
}

/// The content of a regular file of up to `max` bytes; otherwise why there is none.
pub(super) fn bytes(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let facts = path.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is not a regular file".into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    // Room for all of it at once: growing would leave copies behind that nothing wipes.
    let room = facts.len().min(max) as usize + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(max + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > max {
        return Err(format!("it is longer than {max} bytes"));
    }
    Ok(bytes)
}
