//! The process dies at every transition of a file's journey, in turn, while a producer puts a new
//! version of the same final name into the spool again and again: the next life ends with the
//! newest version under that name, no version comes after a newer one, nothing torn is seen.
//! Prints the table of transitions. Needs the feature `failpoints` (`tests/run` gives it).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "failpoints")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use ftpulse::spool::journal::Store;
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, wait_until};

/// More than one chunk of a transfer, so that a file can end in the middle.
const SIZE: usize = 1 << 20;
/// Scenarios at once: each is a service of its own, and mostly waits.
const AT_ONCE: usize = 4;

/// One row: where the first life dies, and where the second one, which finds a doubt.
struct Row {
    first: &'static str,
    second: Option<&'static str>,
    after: &'static str,
    /// The server refuses to rename over a file.
    keeps_old: bool,
}

const fn row(first: &'static str) -> Row {
    let (second, after) = (None, "delete");
    Row {
        first,
        second,
        after,
        keeps_old: false,
    }
}

const fn twice(first: &'static str, second: &'static str) -> Row {
    let second = Some(second);
    Row {
        first,
        second,
        after: "delete",
        keeps_old: false,
    }
}

/// A version stands there already, and the server refuses to rename over it.
const fn over(first: &'static str, second: Option<&'static str>) -> Row {
    Row {
        first,
        second,
        after: "delete",
        keeps_old: true,
    }
}

const fn kept(first: &'static str, after: &'static str) -> Row {
    let second = None;
    Row {
        first,
        second,
        after,
        keeps_old: false,
    }
}

const ROWS: &[Row] = &[
    row("sending-decided"),
    row("sending-stands"),
    row("stor-accepted"),
    row("bytes-moved"),
    row("all-moved"),
    row("stored"),
    row("verified"),
    row("publishing-decided"),
    row("publishing-stands"),
    row("rnfr-accepted"),
    row("rnto-accepted"),
    row("published"),
    row("delivery-reported"),
    row("delivery-stands"),
    row("source-hidden"),
    row("source-compared"),
    row("marker-removed"),
    row("source-removed"),
    row("source-finished"),
    row("commit-due"),
    row("committed"),
    twice("bytes-moved", "taken-away"),
    twice("stored", "sending-stands"),
    twice("publishing-stands", "publishing-stands"),
    twice("publishing-stands", "renamed-anew"),
    twice("rnfr-accepted", "rnto-accepted"),
    twice("rnto-accepted", "delivery-stands"),
    twice("source-hidden", "source-hidden"),
    twice("source-removed", "committed"),
    kept("delivery-stands", "keep"),
    kept("source-finished", "keep"),
    kept("source-hidden", "archive"),
    kept("source-removed", "archive"),
    over("publishing-stands", None),
    over("overwrite-refused", None),
    over("old-deleted", None),
    over("rnfr-accepted", None),
    over("rnto-accepted", None),
    over("published", None),
    over("overwrite-refused", Some("old-deleted")),
    over("overwrite-refused", Some("renamed-anew")),
    over("old-deleted", Some("rnfr-accepted")),
    over("old-deleted", Some("renamed-anew")),
    over("old-deleted", Some("rnto-accepted")),
];

/// Makes pyftpdlib refuse to rename over a file.
const KEEPS_OLD: &str = "import os
def rnto(self, path):
    if os.path.exists(path):
        self.respond('553 A file of this name exists.')
    else:
        FTPHandler.ftp_RNTO(self, path)
handler.ftp_RNTO = rnto";

/// Version `n` of the file: its number stands in every block.
fn version(n: u64) -> Vec<u8> {
    let mut bytes = content(n, SIZE);
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// The version that these bytes are, if they are whole.
fn version_of(bytes: &[u8]) -> Option<u64> {
    let n = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    (n < 10_000 && bytes == version(n)).then_some(n)
}

/// Reads a final name as fast as it can and notes what stood there, by inode.
struct Reader<'a> {
    name: PathBuf,
    over: &'a AtomicBool,
    seen: &'a Mutex<Vec<Option<u64>>>,
}

impl Reader<'_> {
    fn run(&self) {
        use std::os::unix::fs::MetadataExt;
        let mut last = None;
        while !self.over.load(SeqCst) {
            if let Ok(meta) = fs::metadata(&self.name) {
                let id = (meta.ino(), meta.mtime_nsec(), meta.size());
                if last != Some(id)
                    && let Ok(bytes) = fs::read(&self.name)
                {
                    last = Some(id);
                    self.seen.lock().unwrap().push(version_of(&bytes));
                }
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// What came of a row.
struct Told {
    seen: Vec<Option<u64>>,
    stood: String,
    versions: u64,
}

fn crash(settings: Settings, point: &str) -> Settings {
    settings.env("FAILPOINTS", format!("{point}=return"))
}

/// What the journal knows of the file after a crash.
fn stands(state: &Path) -> String {
    let store = Store::open(&state.join("journal.db")).unwrap();
    assert!(store.set_aside.is_none(), "the journal is sound");
    let files = store.store.unfinished().unwrap();
    let said = files.iter().map(|file| {
        let stages = file.attempts.iter().map(|a| format!("{:?}", a.stage));
        let delivered = file.delivered.map(|_| "delivered".to_owned());
        let told: Vec<_> = stages.chain(delivered).collect();
        told.join("+")
    });
    let said: Vec<_> = said.filter(|s| !s.is_empty()).collect();
    if said.is_empty() {
        "nothing".into()
    } else {
        said.join(", ")
    }
}

fn play(row: &Row, server: &Server, number: usize) -> Told {
    let folder = format!("in{number}");
    let settings = || {
        Settings::new()
            .key("retry.first", "50ms")
            .key("retry.max", "300ms")
            .key("quarantine.hold", "1s")
            .key("routes.main.after", row.after)
            .route("main", server, &folder)
    };
    let mut settings = settings();
    if row.after == "archive" {
        let archive = settings.spool("main").with_file_name("archive");
        fs::create_dir_all(&archive).unwrap();
        settings = settings.key("routes.main.archive", archive.display());
    }
    let state = PathBuf::from(settings.vars()["FTPULSE__STATE__DIR"].clone());
    let final_name = server.root.join(&folder).join("same.bin");
    let (over, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let seen = &seen;
    let mut put = 0;
    if row.keeps_old {
        put += 1;
        fs::create_dir(final_name.parent().unwrap()).unwrap();
        fs::write(&final_name, version(put)).unwrap();
    }
    let stood_before = put;
    let mut produce = |service: &Ftpulse| {
        put += 1;
        service.put("main", "same.bin", &version(put));
    };
    std::thread::scope(|scope| {
        let reader = Reader {
            name: final_name,
            over: &over,
            seen,
        };
        scope.spawn(move || reader.run());
        let over = Over(&over);

        let mut service = crash(settings, row.first).start();
        produce(&service);
        died(&mut service, row.first);
        let stood = stands(&state);
        // The producer does not wait for us.
        produce(&service);
        if let Some(second) = row.second {
            service = service.relaunch_with("FAILPOINTS", &format!("{second}=return"));
            died(&mut service, second);
            produce(&service);
        }
        service = service.restart_with("FAILPOINTS", None);
        let newest = |n: u64| move || seen.lock().unwrap().last() == Some(&Some(n));
        let arrives = |n: u64| {
            let what = format!("version {n} stands there after {}", row.first);
            wait_until(&what, PATIENCE, newest(n));
        };
        produce(&service);
        wait_until("a version of this life arrives", PATIENCE, || {
            seen.lock().unwrap().len() as u64 > stood_before
        });
        produce(&service);
        let last = stood_before + if row.second.is_some() { 5 } else { 4 };
        arrives(last);
        if row.after == "keep" {
            service.wait_metrics("all is quiet", |m| {
                m.sum("ftpulse_files_total", &[("outcome", "delivered")]) >= 1.0
            });
        } else {
            service.wait_spool_empty("main", PATIENCE);
        }
        assert_eq!(service.terminate(), Some(0));
        drop(over);
        let seen = seen.lock().unwrap().clone();
        assert_eq!(stands(&state), "nothing", "{}", row.first);
        Told {
            seen,
            stood,
            versions: last,
        }
    })
}

/// Ends the reader, however the row ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn died(service: &mut Ftpulse, point: &str) {
    use std::os::unix::process::ExitStatusExt;
    let status = service.wait_exit(PATIENCE);
    assert_eq!(status.signal(), Some(libc::SIGABRT), "at {point}: {status}");
}

#[test]
fn wherever_the_process_dies_the_newest_version_stands_there_in_the_end() {
    let server = Server::vsftpd(Opts::default());
    let keeping = Server::pyftpdlib(Opts::default().line(KEEPS_OLD));
    let next = AtomicUsize::new(0);
    let told = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    let Some(row) = ROWS.get(number) else { return };
                    let server = if row.keeps_old { &keeping } else { &server };
                    let played = play(row, server, number);
                    told.lock().unwrap().insert(number, played);
                }
            });
        }
    });
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), ROWS.len(), "every row was played to its end");
    println!(
        "{:<20} {:<18} {:<8} {:<24} VERSIONS SEEN",
        "DIES AT", "THEN AT", "AFTER", "JOURNAL AFTER THE CRASH"
    );
    for (row, told) in ROWS.iter().zip(told.values()) {
        let seen: Vec<_> = told.seen.iter().map(|v| v.unwrap_or(0)).collect();
        println!(
            "{:<20} {:<18} {:<8} {:<24} {seen:?} of {}",
            row.first,
            row.second.unwrap_or("-"),
            row.after,
            told.stood,
            told.versions
        );
        assert!(!seen.contains(&0), "{}: something torn was seen", row.first);
        let rising = seen.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(rising, "{}: {seen:?}", row.first);
    }
}
