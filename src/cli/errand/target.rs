//! Local targets of one-shot commands: where a file goes that a person names, and a text that is
//! written whole: under a temp name, synced, renamed, with an exclusive lock on what it replaces
//! (S2: GETINFO).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::core::arrivals::refused;
use crate::core::naming::Pattern;
use crate::log::escape;
use crate::spool::inbox::{Inbox, Taken};
use crate::token;

/// A local file: its folder and its name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The folder.
    pub folder: PathBuf,
    /// The name.
    pub name: String,
}

impl Target {
    /// What a person named: a folder that is there, or a path that ends with /, takes `own` as the
    /// name below it.
    ///
    /// # Errors
    /// It names no file.
    pub fn of(file: &Path, own: Option<&str>) -> Result<Self, String> {
        let shown = escape(&file.to_string_lossy()).into_owned();
        let as_folder = file.as_os_str().as_encoded_bytes().ends_with(b"/") || file.is_dir();
        let (folder, name) = match (as_folder, own) {
            (true, Some(own)) => (file, own),
            (true, None) => return Err(format!("{shown} is a folder: name a file")),
            (false, _) => {
                let name = file.file_name().and_then(std::ffi::OsStr::to_str);
                let name = name.ok_or_else(|| format!("{shown} is no name of a file"))?;
                (file.parent().unwrap_or(Path::new("")), name)
            }
        };
        if let Some(why) = refused(name.as_bytes()) {
            return Err(format!("{} is no name of a file here: {why}", escape(name)));
        }
        let here = Path::new(".");
        let folder = if folder.as_os_str().is_empty() {
            here
        } else {
            folder
        };
        Ok(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// How often a lock on what is replaced is asked for again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Times after the first.
    pub count: u32,
    /// Pause before each.
    pub pause: Duration,
}

/// Writes the text to the target, whole or not at all. `seen` counts the steps.
///
/// # Errors
/// Why not, in words.
pub fn write_whole(
    target: &Target,
    text: &[u8],
    retries: Retries,
    seen: &AtomicU64,
) -> Result<(), String> {
    let Target { folder, name } = target;
    let told = |e: std::io::Error| format!("{} cannot be written: {e}", escape(name));
    let inbox = Inbox::open(folder).map_err(told)?;
    let mut left = retries.count;
    let _held = loop {
        match inbox.lock(name) {
            Ok(held) => break held,
            Err(Taken::Locked(_)) if left > 0 => left -= 1,
            Err(Taken::Locked(locked)) => return Err(format!("{} is {locked}", escape(name))),
            Err(Taken::NotRegular) => {
                return Err(format!("{} is there and no regular file", escape(name)));
            }
            Err(Taken::Io(error)) => return Err(told(error)),
        }
        std::thread::park_timeout(retries.pause);
        seen.fetch_add(1, SeqCst);
    };
    let temp = Pattern::default().temp(name, "list", &token::new());
    let written = inbox.begin(&temp).and_then(|mut file| {
        for piece in text.chunks(1 << 20) {
            file.write_all(piece)?;
            seen.fetch_add(1, SeqCst);
        }
        file.sync_all()?;
        inbox.place(&temp, name, true)
    });
    if let Err(error) = written {
        // The first error is the one to tell.
        let _ = inbox.discard(&temp);
        return Err(told(error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Retries = Retries {
        count: 0,
        pause: Duration::ZERO,
    };

    #[test]
    fn a_target_is_a_file_or_takes_its_own_name_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let of = |file: &Path, own| {
            Target::of(file, own).map(|t| (t.folder.display().to_string(), t.name))
        };
        let here = dir.path().display().to_string();
        let named = |folder: &str, name: &str| Ok((folder.to_owned(), name.to_owned()));
        assert_eq!(of(dir.path(), Some("own")), named(&here, "own"));
        assert_eq!(of(&dir.path().join("x"), Some("own")), named(&here, "x"));
        assert_eq!(of(Path::new("x"), None), named(".", "x"));
        assert_eq!(of(Path::new("new/"), Some("own")), named("new/", "own"));
        assert!(of(dir.path(), None).is_err() && of(Path::new(".."), None).is_err());
        for hostile in ["..", "a/b", "a\\b", ""] {
            assert!(of(dir.path(), Some(hostile)).is_err(), "{hostile}");
        }
    }

    #[test]
    fn a_text_is_written_whole_unless_its_target_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::of(&dir.path().join("list"), None).unwrap();
        let seen = AtomicU64::new(0);
        write_whole(&target, b"one", NONE, &seen).unwrap();
        let path = dir.path().join("list");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let reader = std::fs::File::open(&path).unwrap();
        assert!(crate::sys::file::lock_shared(&reader).unwrap());
        let refused = write_whole(&target, b"two", NONE, &seen).unwrap_err();
        assert!(refused.contains("locked by pid"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
