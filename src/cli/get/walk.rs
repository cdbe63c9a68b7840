//! Finds all files below a remote folder. Listed names are foreign: those that could lead out of
//! the local folder are refused, and a server that lists without end is left.

use slog::Logger;

use super::fetch::Remote;
use crate::cli::errand::crew::{Crew, Done};
use crate::cli::errand::tries::{End, What, tries};
use crate::core::arrivals::{Version, refused};
use crate::ftp::{Entry, Kind};
use crate::log::escape_bytes;
use crate::worker::{Answer, Ask, JobResult, Work};

/// Files and folders that are taken at most, and how deep they may lie.
const FILES: usize = 1_000_000;
const FOLDERS: usize = 100_000;
const DEPTH: usize = 64;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, in the order of their names in each folder.
    pub files: Vec<Remote>,
    /// What cannot be taken, and why.
    pub refused: Vec<(String, String)>,
    /// What is neither file nor folder.
    pub left_out: Vec<String>,
    /// Folders that could not be listed, which was told.
    pub unread: usize,
}

/// Looks into the remote folder and all below it.
pub fn walk(crew: &mut Crew, attempts: u32, log: &Logger) -> End<Found> {
    let (mut found, mut entered) = (Found::default(), 0);
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let what = What {
            deed: "listing",
            shown: if folder.is_empty() {
                "the remote folder"
            } else {
                &folder
            },
        };
        let listed = tries(crew, attempts, what, log, |crew| {
            let work = Work::Ask(Ask::Folder(folder.clone()));
            match crew.run(work, |signalled| signalled, |_| {}) {
                Done::Told(JobResult::Answered(Answer::Folder(entries))) => Ok(entries),
                done => Err(crew.miss(done)),
            }
        });
        let mut entries = match listed {
            End::Done(entries) => entries,
            End::Failed if !folder.is_empty() => {
                found.unread += 1;
                continue;
            }
            End::Failed => return End::Failed,
            End::Unreachable => return End::Unreachable,
            End::Stopped => return End::Stopped,
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // The last one is looked into first.
        for entry in entries.into_iter().rev() {
            if let Some(below) = found.entry(&folder, entry) {
                entered += 1;
                let deep = below.matches('/').count() >= DEPTH || entered > FOLDERS;
                if deep {
                    found.refuse(&below, "folders lie too deep, or are too many");
                } else {
                    folders.push(below);
                }
            }
        }
    }
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    End::Done(found)
}

impl Found {
    fn refuse(&mut self, shown: &str, why: &str) {
        self.refused.push((shown.to_owned(), why.to_owned()));
    }

    /// Takes an entry of that folder; a folder to look into.
    fn entry(&mut self, folder: &str, entry: Entry) -> Option<String> {
        let below = |name: &str| match folder {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        };
        if let Some(why) = refused(&entry.name) {
            self.refuse(&below(&escape_bytes(&entry.name)), why);
            return None;
        }
        let Ok(name) = String::from_utf8(entry.name) else {
            return None;
        };
        let path = below(&name);
        match entry.kind {
            Kind::Folder => return Some(path),
            Kind::Other => self.left_out.push(path),
            Kind::File if self.files.len() >= FILES => self.refuse(&path, "files are too many"),
            Kind::File => {
                let exact = entry.size.filter(|_| entry.exact);
                let version = exact.map(|size| Version {
                    size,
                    modified: entry.modified,
                });
                self.files.push(Remote {
                    version,
                    ..Remote::new(path.as_str(), path.as_str())
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_and_the_others_are_taken() {
        let mut found = Found::default();
        let entry = |name: &[u8], kind| Entry {
            name: name.to_vec(),
            kind,
            size: Some(1),
            modified: Some(5),
            exact: true,
        };
        let mut take = |name: &[u8], kind| found.entry("in", entry(name, kind));
        for hostile in [
            &b".."[..],
            b"../x",
            b"a/b",
            b"a\\b",
            b"nul\0",
            b"line\n",
            b"\xff",
        ] {
            assert_eq!(take(hostile, Kind::File), None);
            assert_eq!(take(hostile, Kind::Folder), None);
        }
        assert_eq!(take(b"sub", Kind::Folder).as_deref(), Some("in/sub"));
        take(b".hidden", Kind::File);
        take(b"link", Kind::Other);
        assert_eq!(found.refused.len(), 14);
        assert_eq!(found.left_out, ["in/link"]);
        let paths: Vec<&str> = found.files.iter().map(|file| &*file.path).collect();
        assert_eq!(paths, ["in/.hidden"]);
    }
}
