//! A full disk: of the journal, and of the FTP server. Nothing is lost, nothing is torn, the
//! service says what is wrong, and goes on by itself when there is room again.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no

mod support;
#[path = "support/small_disk.rs"]
mod small_disk;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use small_disk::{SmallDisk, inside, really_root};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::watcher::is_final_name;
use support::{PATIENCE, content, wait_until};

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect()
}

fn finals(folder: &Path) -> BTreeSet<String> {
    let all = names(folder).into_iter();
    all.filter(|name| is_final_name(name)).collect()
}

/// Every file was told as delivered, and none of them twice.
fn delivered_once(service: &Ftpulse, expected: usize) {
    let lines = service.logged("file delivered");
    let files: BTreeSet<_> = lines.iter().map(|l| l["file"].to_string()).collect();
    assert_eq!((lines.len(), files.len()), (expected, expected));
}

fn bytes(number: usize) -> Vec<u8> {
    content(number as u64, 100 + number)
}

fn reasons(service: &Ftpulse) -> Option<String> {
    let answer = service.get("/readyz");
    (answer.status == 503).then_some(answer.body)
}

#[test]
fn a_full_state_volume_stops_the_work_and_loses_nothing() {
    if !inside("a_full_state_volume_stops_the_work_and_loses_nothing") {
        return;
    }
    let server = Server::pyftpdlib(Opts::default());
    let settings = Settings::new().quick().route("main", &server, "in");
    let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
    let disk = SmallDisk::mount(Path::new(&state), 1 << 20);
    let mut service = settings.start();
    // The write-ahead log of so many files would not fit on this disk, if it only grew.
    let before = 150;
    for number in 0..before {
        service.put("main", &format!("{number}.bin"), &bytes(number));
    }
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(service.logged("the journal cannot be written").len(), 0);

    disk.fill();
    let mut put = before;
    let mut why = None;
    while why.is_none() {
        assert!(put < 20_000, "the journal can be written for ever");
        service.put("main", &format!("{put}.bin"), &bytes(put));
        put += 1;
        why = reasons(&service);
    }
    let why = why.unwrap();
    assert!(why.contains("the journal cannot be written"), "{why}");
    // What was in work comes to its end; whatever comes now is not begun.
    let slots = |service: &Ftpulse| service.json("/api/status")["routes"][0]["slots"].clone();
    let idle = |slots: &Value| {
        slots
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["file"].is_null())
    };
    wait_until("nothing is in work any more", PATIENCE, || {
        idle(&slots(&service))
    });
    let first_late = put;
    for number in first_late..first_late + 5 {
        service.put("main", &format!("{number}.bin"), &bytes(number));
    }
    put += 5;
    wait_until("the late files are known", PATIENCE, || {
        service.json("/api/status")["routes"][0]["waiting"].as_u64() >= Some(5)
    });
    assert!(idle(&slots(&service)));
    assert!(reasons(&service).is_some());
    // Nothing is lost: each file is in the spool, on the server, or in both.
    let mut known = finals(&server.path("in"));
    known.extend(finals(&service.spool("main")));
    assert_eq!(known.len(), put);

    disk.make_room();
    service.wait_spool_empty("main", PATIENCE);
    wait_until("it is ready", PATIENCE, || reasons(&service).is_none());
    let there = finals(&server.path("in"));
    assert_eq!(there.len(), put);
    for number in 0..put {
        let found = fs::read(server.path(format!("in/{number}.bin"))).unwrap();
        assert!(found == bytes(number), "{number}.bin differs");
    }
    assert_eq!(service.terminate(), Some(0));
    delivered_once(&service, put);
}

fn a_full_server(server: &Server) {
    let settings = Settings::new()
        .quick()
        .key("quarantine.hold", "1s")
        .route("main", server, "");
    let disk = SmallDisk::mount(&server.root, 2 << 20);
    let mut service = settings.start();
    let size = 300 << 10;
    let body = |number: usize| content(number as u64, size);
    service.put("main", "0.bin", &body(0));
    service.wait_spool_empty("main", PATIENCE);
    disk.fill();
    for number in 1..4 {
        service.put("main", &format!("{number}.bin"), &body(number));
    }
    for number in 1..4 {
        let name = format!("{number}.bin");
        service.wait_log("upload failed", |line| line["file"] == name);
    }
    assert_eq!(finals(&server.root), BTreeSet::from(["0.bin".to_owned()]));
    let waiting = finals(&service.spool("main"));
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    disk.make_room();
    service.wait_spool_empty("main", PATIENCE);
    for number in 0..4 {
        let found = fs::read(server.path(format!("{number}.bin"))).unwrap();
        assert!(found == body(number), "{number}.bin differs");
    }
    // What the failed attempts left goes too, or it would keep the disk full.
    wait_until("no temp name is left", PATIENCE, || {
        names(&server.root).len() == 4
    });
    assert_eq!(service.terminate(), Some(0));
    delivered_once(&service, 4);
}

#[test]
fn a_server_whose_disk_is_full_gets_everything_when_it_has_room_again() {
    if !inside("a_server_whose_disk_is_full_gets_everything_when_it_has_room_again") {
        return;
    }
    a_full_server(&Server::pyftpdlib(Opts::default()));
    if really_root() {
        a_full_server(&Server::pure_ftpd(Opts::default()));
    }
}

#[test]
fn a_start_on_a_full_state_volume_waits_for_room_and_loses_nothing() {
    if !inside("a_start_on_a_full_state_volume_waits_for_room_and_loses_nothing") {
        return;
    }
    let server = Server::pyftpdlib(Opts::default());
    let settings = Settings::new().quick().route("main", &server, "in");
    let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
    let journal = Path::new(&state).join("journal.db");
    let disk = SmallDisk::mount(Path::new(&state), 1 << 20);
    disk.fill();
    // The very first start has an id and a journal to make.
    let mut service = settings.launch();
    let said = service.wait_log("the state volume is full", |_| true);
    assert!(said["error"].to_string().contains(&state), "{said}");
    assert_eq!(service.terminate(), Some(0), "it can be stopped");
    disk.make_room();
    let mut service = service.restart_with("NO_COLOR", Some("1"));
    service.put("main", "0.bin", &bytes(0));
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(service.terminate(), Some(0));
    assert!(journal.exists() && !journal.with_extension("db-shm").exists());

    // A later one has nothing to write before there is work; and work it does not take.
    disk.fill();
    let mut service = service.restart_with("NO_COLOR", None);
    service.put("main", "1.bin", &bytes(1));
    service.wait_log("the journal cannot be written", |_| true);
    // A worker that could not write may be the first to say so; the journal says why.
    wait_until("it is not ready, for the full disk", PATIENCE, || {
        reasons(&service).is_some_and(|why| why.contains("full"))
    });
    assert!(service.spool("main").join("1.bin").exists());
    assert!(!finals(&server.path("in")).contains("1.bin"));
    disk.make_room();
    service.wait_spool_empty("main", PATIENCE);
    wait_until("it is ready", PATIENCE, || reasons(&service).is_none());
    // With room others can read the journal again.
    wait_until("the journal is shared", PATIENCE, || {
        journal.with_extension("db-shm").exists()
    });
    for number in 0..2 {
        let found = fs::read(server.path(format!("in/{number}.bin"))).unwrap();
        assert!(found == bytes(number), "{number}.bin differs");
    }
    assert_eq!(service.terminate(), Some(0));
    delivered_once(&service, 1);
}

#[test]
fn a_full_archive_keeps_delivered_files_in_the_spool_and_sends_none_twice() {
    if !inside("a_full_archive_keeps_delivered_files_in_the_spool_and_sends_none_twice") {
        return;
    }
    let server = Server::pyftpdlib(Opts::default());
    let settings = Settings::new().quick().route("main", &server, "in");
    let archive = settings.spool("main").with_file_name("archive");
    fs::create_dir_all(&archive).unwrap();
    let disk = SmallDisk::mount(&archive, 2 << 20);
    let service = settings
        .key("routes.main.after", "archive")
        .key("routes.main.archive", archive.display())
        .start();
    let body = |number: usize| content(number as u64, 200 << 10);
    let put = |service: &Ftpulse, number| {
        service.put("main", &format!("{number}.bin"), &body(number));
    };
    put(&service, 0);
    service.wait_spool_empty("main", PATIENCE);
    disk.fill();
    for number in 1..4 {
        put(&service, number);
    }
    for number in 1..4 {
        let name = format!("{number}.bin");
        service.wait_log("the delivered source cannot be finished", |line| {
            line["file"] == name && line["error"].to_string().contains("archive")
        });
    }
    let status = service.json("/api/status")["routes"][0].clone();
    wait_until("the status tells it", PATIENCE, || {
        let failure = service.json("/api/status")["routes"][0]["last_failure"].to_string();
        failure.contains("it is delivered, but: cannot archive")
    });
    assert_eq!(status["delivered"], 4, "{status}");
    delivered_once(&service, 4);
    let waiting = |service: &Ftpulse| finals(&service.spool("main")).len();
    // While it is tried, a file bears its private name for a moment.
    wait_until("all sources are at their names", PATIENCE, || {
        waiting(&service) == 3
    });

    // A later life knows that they are delivered, and only waits as well.
    let mut service = service.kill_and_restart();
    for number in 1..4 {
        let name = format!("{number}.bin");
        service.wait_log("the delivered source cannot be finished", |line| {
            line["file"] == name
        });
    }
    disk.make_room();
    service.wait_spool_empty("main", PATIENCE);
    wait_until("nothing hidden is left", PATIENCE, || {
        names(&service.spool("main")).is_empty()
    });
    assert_eq!(names(&archive).len(), 4, "whole files only");
    for number in 0..4 {
        let name = format!("{number}.bin");
        assert!(
            fs::read(archive.join(&name)).unwrap() == body(number),
            "{name}"
        );
        assert!(fs::read(server.path(format!("in/{name}"))).unwrap() == body(number));
    }
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(
        service.logged("file delivered").len(),
        0,
        "none was sent again"
    );
}
