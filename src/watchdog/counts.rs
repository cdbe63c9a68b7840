//! How often the program was started again and why: kept in a small file in `state.dir`, so that
//! the service can show it on /metrics in its next life. Nothing here may hold the guard: the file
//! is written by a thread that is waited for only briefly, and a file that cannot be read or written
//! is told and left.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::core::names::RestartReason;

/// The file of the service's own watchdog in `state.dir`.
pub const FILE: &str = "watchdog.json";

/// How long a start or a restart waits for the file. A disk that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

const SLOW: &str = "the disk does not answer";

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    restarts: BTreeMap<RestartReason, u64>,
    /// Messages of processes that are not the program's.
    pub strangers: u64,
}

impl Counts {
    /// Restarts for this reason.
    pub fn of(&self, reason: RestartReason) -> u64 {
        self.restarts.get(&reason).copied().unwrap_or(0)
    }

    /// One more.
    pub fn add(&mut self, reason: RestartReason) {
        *self.restarts.entry(reason).or_default() += 1;
    }

    /// Reads the file; a missing one is all zeroes.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn read(path: &Path) -> Result<Self, String> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(&bytes).ok_or_else(|| "it holds no counts".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let told = value.get("restarts")?.as_object()?;
        let count = |reason: &RestartReason| told.get(reason.as_str())?.as_u64();
        let all = RestartReason::ALL.iter();
        let strangers = value.get("strangers").and_then(Value::as_u64);
        Some(Self {
            restarts: all.filter_map(|r| Some((*r, count(r)?))).collect(),
            strangers: strangers.unwrap_or(0),
        })
    }

    fn text(&self) -> String {
        let all = RestartReason::ALL.iter();
        let restarts: Map<String, Value> = all
            .map(|reason| (reason.as_str().to_owned(), self.of(*reason).into()))
            .collect();
        let mut whole = Map::new();
        whole.insert("restarts".into(), restarts.into());
        whole.insert("strangers".into(), self.strangers.into());
        format!("{}\n", Value::Object(whole))
    }
}

/// Where the counts are kept.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    /// A write that has not come back yet.
    writing: Option<std::sync::mpsc::Receiver<io::Result<()>>>,
}

impl Book {
    /// Keeps them in this file.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            writing: None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads them; those of a file that comes late or not at all are not waited for.
    ///
    /// # Errors
    /// Why not, in words; also where the disk takes longer than a second.
    pub fn read(&self) -> Result<Counts, String> {
        let (told, answer) = channel();
        let path = self.path.clone();
        let read = move || {
            // Nobody may be waiting any more.
            let _ = told.send(Counts::read(&path));
        };
        let helper = std::thread::Builder::new().name("counts".to_owned());
        helper.spawn(read).map_err(|error| error.to_string())?;
        match answer.recv_timeout(PATIENCE) {
            Ok(counts) => counts,
            Err(RecvTimeoutError::Disconnected) => Err("its thread has ended".to_owned()),
            Err(RecvTimeoutError::Timeout) => Err(SLOW.to_owned()),
        }
    }

    /// Writes them: all of it or nothing (a temporary file, synced, renamed).
    ///
    /// # Errors
    /// Why not, in words; also where the disk takes longer than a second.
    pub fn write(&mut self, counts: &Counts) -> Result<(), String> {
        if let Some(before) = self.writing.take()
            && matches!(before.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty))
        {
            self.writing = Some(before);
            return Err(SLOW.to_owned());
        }
        let (told, answer) = channel();
        let (path, text) = (self.path.clone(), counts.text());
        let write = move || {
            // Nobody may be waiting any more.
            let _ = told.send(replace(&path, &text));
        };
        let helper = std::thread::Builder::new().name("counts".to_owned());
        helper.spawn(write).map_err(|error| error.to_string())?;
        match answer.recv_timeout(PATIENCE) {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(RecvTimeoutError::Disconnected) => Err("its thread has ended".to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                self.writing = Some(answer);
                Err(SLOW.to_owned())
            }
        }
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temp = path.with_extension("json.new");
    let mut file = File::create(&temp)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temp, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Book::new(folder.path().join(FILE));
        let mut counts = Counts::read(book.path()).unwrap();
        assert_eq!(counts, Counts::default());
        counts.add(RestartReason::NoPulse);
        counts.add(RestartReason::NoPulse);
        counts.strangers = 7;
        book.write(&counts).unwrap();
        let read = Counts::read(book.path()).unwrap();
        assert_eq!((read.of(RestartReason::NoPulse), read.strangers), (2, 7));
        assert_eq!(read.of(RestartReason::Exit), 0);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_never_answers_holds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::new(folder.path().join(FILE));
        // Whoever opens a FIFO to read waits until somebody opens it to write.
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, book.path(), kind, mode, 0).unwrap();
        assert_eq!(book.read(), Err(SLOW.to_owned()));
        drop(File::options().write(true).open(book.path()).unwrap());
    }

    #[test]
    fn a_file_that_holds_something_else_and_one_that_cannot_be_written_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for other in ["", "{}", "[]", "{\"restarts\": 3}", "\u{0}"] {
            fs::write(&path, other).unwrap();
            assert!(Counts::read(&path).is_err(), "{other:?}");
        }
        // A later version may know more reasons; ours are there all the same.
        fs::write(&path, "{\"restarts\": {\"exit\": 3, \"later\": 1}}").unwrap();
        assert_eq!(Counts::read(&path).unwrap().of(RestartReason::Exit), 3);
        let mut book = Book::new(folder.path().join("none").join(FILE));
        assert!(book.write(&Counts::default()).is_err());
        assert!(Counts::read(folder.path()).is_err(), "a folder");
    }
}
