//! What `put` has to send: each source with its final name below the remote folder, found before
//! anything is sent. Symlinks that a person names are followed, those in a folder are not; what is
//! no file, or cannot be looked at, is told and left out.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::log::escape_bytes;
use crate::spool::{self, Stamp};
use crate::token;

/// Below which all sources lie: they are opened as a spool's are, by their real paths.
pub const ROOT: &str = "/";

/// Where a URL points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The remote folder.
    pub folder: String,
    /// The name in it; none where the URL names a folder.
    pub name: Option<String>,
}

impl Place {
    /// Of a URL and its decoded path.
    pub fn of(url: &str, path: &str) -> Self {
        if path.is_empty() || path == "/" || url.ends_with('/') {
            return Self {
                folder: path.into(),
                name: None,
            };
        }
        let (folder, name) = match path.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((folder, name)) => (folder, name),
            None => ("", path),
        };
        Self {
            folder: folder.into(),
            name: Some(name.into()),
        }
    }
}

impl Place {
    /// Both in one: the path that the URL has.
    pub fn path(&self) -> String {
        match &self.name {
            None => self.folder.clone(),
            Some(name) if self.folder.is_empty() => name.clone(),
            Some(name) => format!("{}/{name}", self.folder.trim_end_matches('/')),
        }
    }
}

/// A file to send.
#[derive(Debug, Clone)]
pub struct Item {
    /// How a person knows it; foreign text: escape it.
    pub shown: String,
    /// Its path below [`ROOT`].
    pub path: Arc<str>,
    /// The file itself, where it has no name.
    pub nameless: Option<Arc<File>>,
    /// Its final name below the remote folder.
    pub target: Arc<str>,
    /// Its version.
    pub stamp: Stamp,
}

/// What is to be sent, and what is not.
#[derive(Debug, Default)]
pub struct Plan {
    /// The files, in their order.
    pub items: Vec<Item>,
    /// Sources that cannot be sent, and why.
    pub failed: Vec<(String, String)>,
    /// What is left out of the folders, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// Looks at all sources; `seen` counts on. The error is one of usage.
pub fn plan(
    sources: &[OsString],
    place: &Place,
    recursive: bool,
    seen: &AtomicU64,
) -> Result<Plan, String> {
    if place.name.is_some() && sources.len() > 1 {
        return Err("several files need a folder to go to: end the URL with /".into());
    }
    let mut plan = Plan::default();
    for source in sources {
        if source == "-" {
            plan.standard_input(place, seen)?;
        } else {
            plan.source(Path::new(source), place, recursive, seen)?;
        }
    }
    let mut targets = HashSet::new();
    match plan
        .items
        .iter()
        .find(|item| !targets.insert(&*item.target))
    {
        Some(twice) => Err(format!(
            "two files would go to the same name, {:?}: send them one by one",
            twice.target
        )),
        None => Ok(plan),
    }
}

impl Plan {
    fn source(
        &mut self,
        source: &Path,
        place: &Place,
        recursive: bool,
        seen: &AtomicU64,
    ) -> Result<(), String> {
        let shown = escape_bytes(source.as_os_str().as_encoded_bytes()).into_owned();
        let found = std::fs::canonicalize(source);
        let found = found.and_then(|real| real.metadata().map(|facts| (real, facts)));
        let (real, facts) = match found {
            Ok(found) => found,
            Err(error) => {
                self.failed.push((shown, error.to_string()));
                return Ok(());
            }
        };
        // As it was named: the file that a symlink leads to may be called otherwise.
        let own = source.file_name().or_else(|| real.file_name());
        let target = match (&place.name, own.and_then(OsStr::to_str)) {
            (Some(name), _) => name.clone(),
            (None, Some(own)) => own.to_owned(),
            (None, None) => {
                self.failed
                    .push((shown, "it has no name that is text".into()));
                return Ok(());
            }
        };
        if facts.is_file() {
            self.file(shown, &real, target);
        } else if !facts.is_dir() {
            self.failed.push((shown, "it is no regular file".into()));
        } else if !recursive {
            return Err(format!(
                "{shown} is a folder: with -r folders are sent, too"
            ));
        } else {
            self.folder(&shown, &real, &target, seen);
        }
        Ok(())
    }

    fn file(&mut self, shown: String, real: &Path, target: String) {
        let Some(path) = real.strip_prefix(ROOT).ok().and_then(Path::to_str) else {
            self.failed
                .push((shown, "its path is no UTF-8 text".into()));
            return;
        };
        match spool::stamp_at(Path::new(ROOT), path) {
            Ok(Some(stamp)) => self.items.push(Item {
                shown,
                path: path.into(),
                nameless: None,
                target: target.into(),
                stamp,
            }),
            Ok(None) => self.failed.push((shown, "it is gone".into())),
            Err(error) => self.failed.push((shown, error.to_string())),
        }
    }

    fn folder(&mut self, shown: &str, real: &Path, target: &str, seen: &AtomicU64) {
        let entries = std::fs::read_dir(real).and_then(|all| all.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.failed.push((shown.to_owned(), error.to_string()));
                return;
            }
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            seen.fetch_add(1, SeqCst);
            let name = entry.file_name();
            let shown = format!("{shown}/{}", escape_bytes(name.as_encoded_bytes()));
            let (Some(name), kind) = (name.to_str(), entry.file_type()) else {
                self.failed
                    .push((shown, "its name is no UTF-8 text".into()));
                continue;
            };
            let below = format!("{target}/{name}");
            match kind {
                Ok(kind) if kind.is_file() => self.file(shown, &entry.path(), below),
                Ok(kind) if kind.is_dir() => self.folder(&shown, &entry.path(), &below, seen),
                Ok(kind) if kind.is_symlink() => self.left_out.push((shown, "a symlink")),
                Ok(_) => self.left_out.push((shown, "no regular file")),
                Err(error) => self.failed.push((shown, error.to_string())),
            }
        }
    }

    /// Standard input is read to its end first: only then it is known what has to arrive, and an
    /// attempt that fails can be made again.
    fn standard_input(&mut self, place: &Place, seen: &AtomicU64) -> Result<(), String> {
        let Some(name) = &place.name else {
            return Err(
                "standard input has no name: end the URL with the name it is to have".into(),
            );
        };
        let shown = "standard input".to_owned();
        match spool_input(io::stdin().lock(), &std::env::temp_dir(), seen) {
            Ok((file, stamp)) => self.items.push(Item {
                shown,
                path: name.as_str().into(),
                nameless: Some(Arc::new(file)),
                target: name.as_str().into(),
                stamp,
            }),
            Err(error) => self.failed.push((shown, error.to_string())),
        }
        Ok(())
    }
}

/// Reads all of it into a file without a name.
fn spool_input(
    mut input: impl io::Read,
    folder: &Path,
    seen: &AtomicU64,
) -> io::Result<(File, Stamp)> {
    let path = folder.join(format!(".ftpulse-{}", token::new()));
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        io::Write::write_all(&mut file, &buffer[..count])?;
        seen.fetch_add(1, SeqCst);
    }
    let stamp = spool::stamp_of(&file)?;
    Ok((file, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(sources: &[&Path], url: &str, path: &str, recursive: bool) -> Result<Plan, String> {
        let sources: Vec<_> = sources.iter().map(|s| s.as_os_str().to_owned()).collect();
        plan(
            &sources,
            &Place::of(url, path),
            recursive,
            &AtomicU64::new(0),
        )
    }

    fn targets(plan: &Plan) -> Vec<&str> {
        plan.items.iter().map(|item| &*item.target).collect()
    }

    #[test]
    fn a_url_names_a_folder_or_a_file_in_one() {
        for (url, path, folder, name) in [
            ("ftp://h", "", "", None),
            ("ftp://h/", "", "", None),
            ("ftp://h/%2F", "/", "/", None),
            ("ftp://h/in/", "in", "in", None),
            ("ftp://h/x", "x", "", Some("x")),
            ("ftp://h/in/x", "in/x", "in", Some("x")),
            ("ftp://h/%2Fx", "/x", "/", Some("x")),
            ("ftp://h/%2Fa/b/x", "/a/b/x", "/a/b", Some("x")),
        ] {
            let place = Place::of(url, path);
            assert_eq!(
                (&*place.folder, place.name.as_deref()),
                (folder, name),
                "{url}"
            );
            assert_eq!(place.path(), path, "{url}");
        }
    }

    #[test]
    fn each_source_gets_its_name_and_what_is_no_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("f/sub")).unwrap();
        for name in ["one", "f/b", "f/sub/a", "f/.hidden"] {
            std::fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("one"), at("f/link")).unwrap();
        let (one, link, folder) = (at("one"), at("link"), at("f"));

        let renamed = planned(&[&one], "u/new", "new", false).unwrap();
        assert_eq!(targets(&renamed), ["new"]);
        let both = planned(&[&one, &link, &at("none")], "u/in/", "in", false).unwrap();
        assert_eq!(targets(&both), ["one", "link"]);
        assert_eq!(both.items[0].stamp, both.items[1].stamp);
        assert_eq!(both.failed.len(), 1);

        let below = ["f/.hidden", "f/b", "f/sub/a"];
        let kept = planned(&[&folder], "u/in/", "in", true).unwrap();
        assert_eq!(targets(&kept), below);
        assert_eq!(kept.left_out.len(), 1);
        let named = planned(&[&folder], "u/in/g", "in/g", true).unwrap();
        assert_eq!(
            targets(&named),
            below.map(|name| name.replacen('f', "g", 1))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("one");
        std::fs::write(&one, "1").unwrap();
        let refused =
            |sources: &[&Path], url, path| planned(sources, url, path, false).unwrap_err();
        assert!(refused(&[&one, &one], "u/x", "x").contains("end the URL with /"));
        assert!(refused(&[&one, &one], "u/x/", "x").contains("same name"));
        assert!(refused(&[dir.path()], "u/x/", "x").contains("-r"));
        assert!(refused(&[Path::new("-")], "u/x/", "x").contains("no name"));
    }

    #[test]
    fn an_input_that_breaks_is_no_file() {
        struct Broken(bool);
        impl io::Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                buffer[0] = 1;
                Ok(1)
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let seen = AtomicU64::new(0);
        assert!(spool_input(Broken(false), dir.path(), &seen).is_err());
        let (file, stamp) = spool_input(&b"abc"[..], dir.path(), &seen).unwrap();
        assert_eq!((stamp.size, seen.load(SeqCst)), (3, 2));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(file);
    }
}
