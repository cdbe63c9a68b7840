//! The journal is lost. A route that keeps its files must not send them all again before a person
//! wants it: not now, not after a restart. Routes that delete theirs go on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no

mod support;

use std::fs;
use std::path::Path;

use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, wait_until};

fn not_ready(service: &Ftpulse, place: &Path) {
    wait_until("it says that a route waits", PATIENCE, || {
        service.get("/readyz").status == 503
    });
    let said = service.get("/readyz").body;
    for part in ["route keep", place.to_str().unwrap(), "--accept-resend"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("route main"), "{said}");
    let warned = "routes that keep their files wait: which were delivered is not known any more";
    assert_eq!(service.logged(warned).len(), 1);
}

/// It knows of so many files, and has none of them in work.
fn waits_with(service: &Ftpulse, files: u64) {
    let keep = || service.json("/api/status")["routes"][0].clone();
    wait_until("its files are known", PATIENCE, || {
        keep()["waiting"].as_u64() == Some(files)
    });
    let keep = keep();
    assert_eq!(keep["name"], "keep");
    assert_eq!(keep["delivered"], 0);
    let why = keep["suspended"].as_str().unwrap();
    assert!(why.contains("--accept-resend"), "{why}");
    let slots = keep["slots"].as_array().unwrap();
    assert!(slots.iter().all(|slot| slot["file"].is_null()), "{slots:?}");
}

#[test]
fn a_lost_journal_sends_kept_files_again_only_when_a_person_wants_it() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = Settings::new()
        .quick()
        .route("keep", &server, "kept")
        .key("routes.keep.after", "keep")
        .route("main", &server, "in");
    let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
    let journal = Path::new(&state).join("journal.db");
    // A first start has no journal, and nothing to wait for.
    let mut service = settings.start();
    for name in ["1", "2"] {
        service.put("keep", name, b"stays");
        service.wait_delivered(name);
    }
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.terminate(), Some(0));

    fs::write(&journal, b"no database at all".repeat(300)).unwrap();
    // Its log would bring every page back that it still holds.
    let log = Path::new(&state).join("journal.db-wal");
    if log.exists() {
        fs::remove_file(log).unwrap();
    }
    let place = Path::new(&state).join("journal.db.unreadable-1");
    let service = service.kill_and_restart();
    assert!(place.exists());
    not_ready(&service, &place);
    service.put("main", "other", b"goes");
    service.wait_delivered("other");
    waits_with(&service, 2);
    // New ones wait as well: which are new is not known.
    service.put("keep", "3", b"stays");
    waits_with(&service, 3);

    let service = service.kill_and_restart();
    not_ready(&service, &place);
    waits_with(&service, 3);

    let service = service.kill_and_restart_as(&["run", "--accept-resend"]);
    for name in ["1", "2", "3"] {
        service.wait_delivered(name);
        assert_eq!(fs::read(server.path("kept").join(name)).unwrap(), b"stays");
    }
    assert_eq!(service.get("/readyz").status, 200);

    // It was wanted once; from here on the new journal knows them.
    let mut service = service;
    assert_eq!(service.terminate(), Some(0));
    let service = service.kill_and_restart();
    service.put("keep", "4", b"stays");
    service.wait_delivered("4");
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.logged("file delivered").len(), 1);
}

#[test]
fn a_process_that_died_before_its_new_journal_stood_waits_all_the_same() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = Settings::new()
        .quick()
        .route("keep", &server, "kept")
        .key("routes.keep.after", "keep");
    let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
    // The old one is set aside already; the new one is not there yet.
    let place = Path::new(&state).join("journal.db.unreadable-1");
    fs::write(&place, b"no database at all").unwrap();
    let service = settings.start();
    not_ready(&service, &place);
    service.put("keep", "1", b"stays");
    waits_with(&service, 1);
}
