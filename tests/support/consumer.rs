//! A partner's import: it takes each final name away as soon as it appears and notes whether the
//! file was whole. Files are named `NUMBER.bin`, and what is in each follows from its number.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::watcher::is_final_name;

/// Size of a file by its number: 0 B to 8 MiB, most of them small.
pub fn size(number: usize) -> usize {
    match number % 40 {
        0 => 0,
        7 => 8 << 20,
        21 => 1 << 20,
        n => n * 1_733,
    }
}

/// The consumer of one folder, until it is dropped.
pub struct Consumer {
    over: Arc<AtomicBool>,
    taken: Arc<Mutex<BTreeMap<String, Vec<bool>>>>,
    thread: Option<JoinHandle<()>>,
}

/// What was wrong with what came.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrongs {
    /// Names that were seen with another content.
    pub torn: Vec<String>,
    /// Names that came more than once.
    pub twice: Vec<String>,
}

impl Consumer {
    /// Begins to take from `folder`; `content` tells what a number's file holds.
    pub fn start(folder: PathBuf, content: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let taken: Arc<Mutex<BTreeMap<String, Vec<bool>>>> = Arc::default();
        let (ended, list) = (Arc::clone(&over), Arc::clone(&taken));
        let thread = std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    let name = entry.file_name().into_string().unwrap();
                    if !is_final_name(&name) {
                        continue;
                    }
                    let found = fs::read(entry.path()).unwrap();
                    fs::remove_file(entry.path()).unwrap();
                    let number: usize = name.strip_suffix(".bin").unwrap().parse().unwrap();
                    let whole = found == content(number);
                    list.lock().unwrap().entry(name).or_default().push(whole);
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        Self {
            over,
            taken,
            thread: Some(thread),
        }
    }

    /// How many files have come.
    pub fn files(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// What was wrong so far.
    pub fn wrongs(&self) -> Wrongs {
        let taken = self.taken.lock().unwrap();
        let names = |is_so: fn(&[bool]) -> bool| {
            let those = taken.iter().filter(|(_, seen)| is_so(seen));
            those.map(|(name, _)| name.clone()).collect()
        };
        Wrongs {
            torn: names(|seen| seen.contains(&false)),
            twice: names(|seen| seen.len() > 1),
        }
    }
}

impl Drop for Consumer {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the consumer failed");
        }
    }
}

/// Moments that look random and are the same in each run.
pub struct Moments(u64);

impl Moments {
    /// The first of the row.
    pub fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    /// The next one, below `bound` milliseconds.
    pub fn next(&mut self, bound: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % bound)
    }
}
