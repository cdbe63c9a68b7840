//! What one way of publishing, one destination or one folder leaves in doubt is met by another:
//! after a change of settings, a folder that is made anew, a server that lets some things be done
//! and others not. No file is lost by it, and none stays stuck.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Step, Subscriber};
use rustix::process::Signal;
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings, variable};
use support::{PATIENCE, content, temp_dir, wait_until};

/// The files of a folder with their bytes, temp names included.
fn folder(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_file()));
    files
        .filter_map(|e| Some((e.file_name().into_string().ok()?, fs::read(e.path()).ok()?)))
        .collect()
}

/// The one file of a folder.
fn only(path: &Path, name: &str, bytes: &[u8]) {
    let found = folder(path);
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, [name]);
    assert!(found[name] == bytes, "{name} is not what was sent");
}

fn struck(events: &mut Subscriber) {
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some());
}

fn to(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("timers.reply", "1s")
}

/// A server that has the folder already, as every server in use has.
fn other() -> (tempfile::TempDir, LabServer) {
    let root = temp_dir();
    fs::create_dir(root.path().join("in")).unwrap();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    (root, lab)
}

/// The file is in doubt at a server that a person gives up: at the next one its name is absent,
/// which proves nothing.
#[test]
fn what_is_in_doubt_at_one_server_is_sent_to_the_next() {
    for (way, step) in [("rename", Step::Rnto), ("direct", Step::Size)] {
        let root = temp_dir();
        let silent = Fault::new(Kind::NoReply(step)).always();
        let old = LabServer::start(root.path(), silent).unwrap();
        let (next_root, next) = other();
        let mut events = old.events();
        let service = to(&old).key("routes.main.publish", way).start();
        let bytes = content(1, 50_000);
        service.put("main", "x.csv", &bytes);
        struck(&mut events);
        let server = variable("routes.main.server");
        let service = service.restart_with(&server, Some(&next.url("in")));
        let line = service.wait_delivered("x.csv");
        assert_eq!(line["bytes_sent"], 50_000, "{way}");
        service.wait_spool_empty("main", PATIENCE);
        only(&next_root.path().join("in"), "x.csv", &bytes);
    }
}

/// A configuration file that leads the route to a server.
fn lead(file: &Path, lab: &LabServer, more: &str) {
    let text = format!(
        "[routes.main]\nserver = {:?}\npassword = {:?}\n{more}\n",
        lab.url("in"),
        lab.password()
    );
    let fresh = file.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, file).unwrap();
}

/// The same while the service runs, where what stands at the next server under that name is
/// somebody else's.
#[test]
fn a_part_at_one_server_is_no_part_at_the_next() {
    for step in [Step::Size, Step::Final] {
        let root = temp_dir();
        let silent = Fault::new(Kind::NoReply(step)).always();
        let old = LabServer::start(root.path(), silent).unwrap();
        let (next_root, next) = other();
        let theirs = next_root.path().join("in/x.csv");
        fs::write(&theirs, b"theirs").unwrap();
        let dir = temp_dir();
        let file = dir.path().join("ftpulse.toml");
        lead(&file, &old, "");
        let mut events = old.events();
        let service = to(&old)
            .without("routes.main.server")
            .without("routes.main.password")
            .key("routes.main.publish", "direct")
            .key("routes.main.on_conflict", "rename")
            .arg("--config")
            .arg(file.to_str().unwrap())
            .start();
        let bytes = content(2, 50_000);
        service.put("main", "x.csv", &bytes);
        struck(&mut events);
        lead(&file, &next, "");
        service.signal(Signal::HUP);
        service.wait_log("configuration reloaded", |_| true);
        service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        let found = folder(&next_root.path().join("in"));
        let stays = fs::read(theirs).unwrap() == b"theirs";
        assert!(stays, "{step:?}: another's file is gone");
        assert!(found.get("x-1.csv") == Some(&bytes), "{step:?}");
    }
}

/// Two files are in doubt, the folder goes, and the session that makes it anew is lost as well:
/// the next one finds the folder there, and the second file's temp absent.
#[test]
fn a_folder_that_another_session_made_anew_proves_nothing() {
    let root = temp_dir();
    let silent = Fault::new(Kind::NoReply(Step::Rnto)).first(3);
    let lab = LabServer::start(root.path(), silent).unwrap();
    let mut events = lab.events();
    let service = to(&lab)
        .key("routes.main.uploaders", "1")
        .key("retry.first", "2s")
        .key("retry.max", "2s")
        .start();
    let bytes = content(3, 50_000);
    service.put("main", "a.csv", &bytes);
    struck(&mut events);
    service.put("main", "b.csv", &bytes);
    struck(&mut events);
    fs::remove_dir_all(root.path().join("in")).unwrap();
    for name in ["a.csv", "b.csv"] {
        service.wait_delivered(name);
    }
    service.wait_spool_empty("main", PATIENCE);
    let found = folder(&root.path().join("in"));
    for name in ["a.csv", "b.csv"] {
        assert!(found.get(name) == Some(&bytes), "{name} is lost");
    }
    assert_eq!((found.len(), lab.counters().strikes), (2, 3));
}

/// A part that cannot be taken away, and a route that renames from now on: its own part is no
/// conflict, and the file comes over it.
#[test]
fn a_part_of_direct_days_is_replaced_by_the_whole_file() {
    for way in ["skip", "fail", "rename"] {
        let slow = ["anon_max_rate=1000000", "local_max_rate=1000000"];
        let opts = Opts::default().line("cmds_denied=DELE");
        let server = Server::vsftpd(opts.line(slow[0]).line(slow[1]));
        let service = Settings::new()
            .quick()
            .route("main", &server, "in")
            .key("routes.main.publish", "direct")
            .key("routes.main.after", "keep")
            .key("routes.main.on_conflict", way)
            .start();
        let bytes = content(4, 2_000_000);
        service.put("main", "x.csv", &bytes);
        let target = server.path("in/x.csv");
        wait_until("a part is there", PATIENCE, || {
            fs::metadata(&target).is_ok_and(|meta| meta.len() > 0)
        });
        let service = service.restart_with(&variable("routes.main.publish"), None);
        let part = fs::metadata(&target).unwrap().len();
        assert!(part < 2_000_000, "it was not caught in the middle");
        service.wait_delivered("x.csv");
        only(&server.path("in"), "x.csv", &bytes);
        assert_eq!(skipped(&service), 0.0, "{way}");
    }
}

fn skipped(service: &Ftpulse) -> f64 {
    let labels = [("route", "main"), ("outcome", "skipped")];
    service.metrics().sum("ftpulse_files_total", &labels)
}

/// A server that takes RNFR and refuses each RNTO: what is in doubt there goes straight to its
/// name once the route says so, in this life and over a kill.
#[test]
fn what_a_server_does_not_rename_is_sent_straight_when_the_route_says_so() {
    let server = Server::vsftpd(Opts::default().line("cmds_denied=RNTO"));
    let service = Settings::new().quick().route("main", &server, "in").start();
    let bytes = content(5, 50_000);
    service.put("main", "x.csv", &bytes);
    for attempt in [1, 2, 3] {
        let failed = |l: &serde_json::Value| l["attempt"] == attempt && l["in_doubt"] == true;
        service.wait_log("upload failed", failed);
    }
    let publish = variable("routes.main.publish");
    let service = service.restart_with(&publish, Some("direct"));
    service.wait_delivered("x.csv");
    service.wait_spool_empty("main", PATIENCE);
    only(&server.path("in"), "x.csv", &bytes);
}

/// Whoever waits for the marker takes it away at once: it is stored once all the same.
#[test]
fn a_marker_that_is_taken_at_once_is_stored_once() {
    for verify in ["size", "none"] {
        let server = Server::pyftpdlib(Opts::default().line(
            r#"
import os
def received(self, path):
    if path.endswith(".done"):
        os.remove(path)
handler.on_file_received = received
"#,
        ));
        let service = Settings::new()
            .quick()
            .route("main", &server, "in")
            .key("routes.main.verify", verify)
            .key("routes.main.remote_marker", "{name}.done")
            .start();
        let bytes = content(6, 50_000);
        service.put("main", "x.csv", &bytes);
        service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        only(&server.path("in"), "x.csv", &bytes);
        let failed = service.logged("the marker failed");
        assert!(failed.is_empty(), "{verify}: {failed:?}");
    }
}

/// A part that was to be resumed in the next life, and a file that is not sent there after all:
/// the part does not stay on the server.
#[test]
fn a_part_of_an_earlier_life_is_swept_when_its_file_is_skipped() {
    let root = temp_dir();
    let stop = Kind::StopReading { after: 3_000_000 };
    let lab = LabServer::start(root.path(), Fault::new(stop).first(1)).unwrap();
    let mut events = lab.events();
    let service = to(&lab)
        .key("routes.main.on_conflict", "skip")
        .key("routes.main.after", "keep")
        .key("routes.main.resume_over", "1MiB")
        .key("quarantine.hold", "1s")
        .start();
    service.put("main", "x.csv", &content(7, 9_000_000));
    struck(&mut events);
    let place = root.path().join("in");
    fs::write(place.join("x.csv"), b"theirs").unwrap();
    assert_eq!(folder(&place).len(), 2, "no part of it is there");
    let service = service.kill_and_restart();
    service.wait_log("file skipped", |l| l["file"] == "x.csv");
    wait_until("its part is taken away", PATIENCE, || {
        folder(&place).len() == 1
    });
    only(&place, "x.csv", b"theirs");
}

/// The limit of the old server's line goes with it: by it the file would take hours.
#[test]
fn a_route_that_moves_has_the_rate_limit_of_its_new_settings() {
    let (_old_root, old) = other();
    let (next_root, next) = other();
    let dir = temp_dir();
    let file = dir.path().join("ftpulse.toml");
    lead(&file, &old, "rate_limit = \"1KiB\"");
    let service = to(&old)
        .without("routes.main.server")
        .without("routes.main.password")
        .arg("--config")
        .arg(file.to_str().unwrap())
        .start();
    service.put("main", "small.csv", b"small");
    service.wait_delivered("small.csv");
    lead(&file, &next, "");
    service.signal(Signal::HUP);
    service.wait_log("route begins", |_| true);
    let bytes = content(8, 9_000_000);
    service.put("main", "x.csv", &bytes);
    service.wait_delivered("x.csv");
    only(&next_root.path().join("in"), "x.csv", &bytes);
}
