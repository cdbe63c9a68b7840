//! The journal's writer meets what it must not die of: it panics once, it panics every time, its
//! file is damaged under it. Nothing is lost, it is said, and the service goes on by itself or
//! ends with 70 to be started again. Needs the feature `failpoints` (`tests/run` gives it).
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no
#![cfg(feature = "failpoints")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, wait_until};

fn settings(server: &Server) -> Settings {
    Settings::new().quick().route("main", server, "in")
}

fn state(settings: &Settings) -> PathBuf {
    settings.vars()["FTPULSE__STATE__DIR"].clone().into()
}

fn bytes(number: usize) -> Vec<u8> {
    content(number as u64, 1000 + number)
}

fn put(service: &Ftpulse, number: usize) {
    service.put("main", &format!("{number}.bin"), &bytes(number));
}

/// All of them are there, whole, and each was told as delivered once.
fn all_there(service: &Ftpulse, server: &Server, numbers: impl Iterator<Item = usize> + Clone) {
    for number in numbers.clone() {
        let there = fs::read(server.path(format!("in/{number}.bin"))).unwrap();
        assert!(there == bytes(number), "{number}.bin differs");
    }
    let lines = service.logged("file delivered");
    let files: BTreeSet<_> = lines.iter().map(|l| l["file"].to_string()).collect();
    let expected = numbers.count();
    assert_eq!((lines.len(), files.len()), (expected, expected));
}

/// What SQLite keeps beside a journal that is open.
fn logs(state: &Path) -> Vec<PathBuf> {
    let beside = ["journal.db-wal", "journal.db-shm"].map(|name| state.join(name));
    beside.into_iter().filter(|path| path.exists()).collect()
}

#[test]
fn a_writer_that_panics_opens_the_journal_anew_and_nothing_is_lost() {
    let server = Server::pyftpdlib(Opts::default());
    for point in ["commit-due", "committed"] {
        let settings = settings(&server);
        let state = state(&settings);
        let panics = format!("{point}=3*off->2*panic->off");
        let mut service = settings.env("FAILPOINTS", panics).start();
        for number in 0..6 {
            put(&service, number);
        }
        service.wait_spool_empty("main", PATIENCE);
        wait_until("it is ready again", PATIENCE, || {
            service.get("/readyz").status == 200
        });
        assert_eq!(service.logged("the journal's writer panicked").len(), 2);
        all_there(&service, &server, 0..6);
        assert!(!logs(&state).is_empty(), "it is open");
        assert_eq!(service.terminate(), Some(0));
        assert_eq!(logs(&state), Vec::<PathBuf>::new(), "a clean end closes it");
        assert_eq!(service.logged("a part of the service is gone").len(), 0);
    }
}

#[test]
fn a_writer_that_panics_every_time_ends_the_process_to_be_restarted() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = settings(&server).env("FAILPOINTS", "commit-due=panic");
    let mut service = settings.start();
    put(&service, 0);
    assert_eq!(service.wait_exit(PATIENCE).code(), Some(70));
    let said = service.logged("a part of the service is gone");
    assert_eq!(said.len(), 1);
    assert!(said[0]["error"].to_string().contains("journal"), "{said:?}");
    assert!(service.spool("main").join("0.bin").exists());
    assert!(!server.path("in/0.bin").exists(), "not sent unwritten");
    let mut service = service.restart_with("FAILPOINTS", None);
    service.wait_spool_empty("main", PATIENCE);
    all_there(&service, &server, 0..1);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_journal_that_is_damaged_in_mid_life_is_set_aside_and_a_new_one_begins() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = settings(&server);
    let state = state(&settings);
    let journal = state.join("journal.db");
    let mut service = settings.start();
    put(&service, 0);
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(service.terminate(), Some(0));
    let mut service = service.restart_with("FAILPOINTS", Some("commit-due=5*off->1*panic->off"));
    let length = fs::metadata(&journal).unwrap().len();
    fs::write(&journal, vec![b'n'; length as usize]).unwrap();
    let mut next = 1;
    while service.logged("the journal's writer panicked").is_empty() {
        assert!(next < 100, "it never panics");
        put(&service, next);
        next += 1;
        service.wait_spool_empty("main", PATIENCE);
    }
    let said = service.wait_log("the journal cannot be read any more", |_| true);
    let aside = PathBuf::from(said["set_aside"].as_str().expect("a place"));
    assert!(aside.exists(), "{aside:?}");
    put(&service, next);
    service.wait_spool_empty("main", PATIENCE);
    all_there(&service, &server, 1..next + 1);
    assert_eq!(service.terminate(), Some(0));
    // What the panic left unnoted is settled by the next life; the new journal is sound.
    let mut service = service.restart_with("FAILPOINTS", None);
    wait_until("nothing is taken up any more", PATIENCE, || {
        let status = &service.json("/api/status")["routes"][0];
        status["waiting"] == 0 && status["backing_off"] == 0
    });
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(service.logged("file delivered").len(), 0);
    let opened = ftpulse::spool::journal::Store::open(&journal).unwrap();
    assert!(opened.set_aside.is_none());
    assert!(opened.store.unfinished().unwrap().is_empty());
}
