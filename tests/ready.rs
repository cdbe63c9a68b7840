//! `ready_suffix`: a file is taken when its marker stands beside it, whichever came first, and not
//! before; the marker is never sent and goes with its source. Whatever the moment at which the
//! process is killed: nothing is sent twice, and no marker outlives its file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod spool_common;
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ftpulse::clock;
use ftpulse::config::{After, Route};
use ftpulse::lab::{Fault, Kind, LabServer, Script, Step};
use ftpulse::spool::finish::{Finished, Known, finish};
use ftpulse::spool::{Stamp, stamp_at};
use ftpulse::sys::file::open_root;
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, count_of, temp_dir, wait_until};

struct Scene {
    root: tempfile::TempDir,
    lab: LabServer,
}

impl Scene {
    fn new(script: impl Into<Script>) -> Self {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), script).unwrap();
        Self { root, lab }
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .quick()
            .route_to("main", &self.lab.url("in"), self.lab.password())
            // Longer than any test: what goes out has not waited for it.
            .key("routes.main.settle", "1h")
            .key("routes.main.ready_suffix", ".ready")
    }

    fn there(&self, name: &str) -> PathBuf {
        self.root.path().join("in").join(name)
    }

    fn names(&self) -> Vec<String> {
        let found = fs::read_dir(self.root.path().join("in")).into_iter();
        let names = found.flatten().flatten().map(|e| e.file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Written in place, as producers do that make a marker.
fn write(service: &Ftpulse, name: &str, bytes: &[u8]) {
    let path = service.spool("main").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn left(folder: &Path) -> Vec<String> {
    let found = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = found
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|name| name != ".dead-letter")
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_taken_when_its_marker_appears_and_both_are_gone_after_the_delivery() {
    let scene = Scene::new(Script::healthy());
    let settings = scene.settings();
    let spool = settings.spool("main");
    // Before the start: whole pairs, a file and a marker that are alone, a marker of another kind.
    for name in [
        "before",
        "before.ready",
        "unready",
        "lonely.ready",
        "linked",
    ] {
        fs::write(spool.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("before.ready", spool.join("linked.ready")).unwrap();
    let service = settings.start();
    service.wait_delivered("before");
    write(&service, "after", b"1");
    write(&service, "sub/after", b"2");
    write(&service, "marker first.ready", b"");
    service.put("main", "renamed in", b"3");
    for name in [
        "sub/after.ready",
        "after.ready",
        "marker first",
        "renamed in.ready",
    ] {
        write(&service, name, b"");
    }
    for name in ["after", "sub/after", "marker first", "renamed in"] {
        service.wait_delivered(name);
    }
    // A user's own doing: who makes the file later has it taken at once.
    write(&service, "lonely", b"4");
    service.wait_delivered("lonely");
    let rest = ["linked", "linked.ready", "sub", "unready"];
    wait_until("the sources and their markers are gone", PATIENCE, || {
        left(&spool) == rest && left(&spool.join("sub")).is_empty()
    });
    let sent = [
        "after",
        "before",
        "lonely",
        "marker first",
        "renamed in",
        "sub",
    ];
    assert_eq!(scene.names(), sent);
    assert_eq!(scene.lab.counters().rename_count, 6);
    // What waits for its marker is not waiting for us.
    service.wait_metrics("nothing is left to send", |m| {
        m.sum("ftpulse_spool_files", &[]) == 0.0
    });
}

#[test]
fn a_marked_file_waits_while_it_is_open_for_writing() {
    let scene = Scene::new(Script::healthy());
    let service = scene.settings().start();
    let spool = service.spool("main");
    let mut open = File::create(spool.join("open")).unwrap();
    open.write_all(b"first ").unwrap();
    write(&service, "open.ready", b"");
    write(&service, "other", b"x");
    write(&service, "other.ready", b"");
    service.wait_delivered("other");
    assert!(!scene.there("open").exists());
    open.write_all(b"second").unwrap();
    drop(open);
    service.wait_delivered("open");
    assert_eq!(fs::read(scene.there("open")).unwrap(), b"first second");
}

#[test]
fn a_marker_taken_back_before_the_upload_holds_the_file_back() {
    // The only slot stands still in another upload meanwhile.
    let scene = Scene::new(Fault::new(Kind::NoReply(Step::Final)).first(1).until_thaw());
    let settings = scene.settings().key("timers.reply", "120s");
    let service = settings.key("routes.main.uploaders", "1").start();
    let mut events = scene.lab.events();
    write(&service, "first", b"1");
    write(&service, "first.ready", b"");
    let struck = |event: &ftpulse::lab::Event| matches!(event, ftpulse::lab::Event::Struck { .. });
    events.wait_for(struck, PATIENCE).expect("it stands still");
    write(&service, "second", b"2");
    write(&service, "second.ready", b"");
    wait_until("the second is known", PATIENCE, || {
        service.json("/api/status")["routes"][0]["waiting"] == 1
    });
    fs::remove_file(service.spool("main").join("second.ready")).unwrap();
    scene.lab.thaw();
    service.wait_delivered("first");
    service.wait_log("the source is not what it was", |line| {
        line["file"] == "second"
    });
    assert!(!scene.there("second").exists());
    write(&service, "second", b"2, whole");
    write(&service, "second.ready", b"");
    service.wait_delivered("second");
    assert_eq!(fs::read(scene.there("second")).unwrap(), b"2, whole");
}

#[test]
fn an_archived_source_loses_its_marker_and_a_kept_one_keeps_it() {
    for after in ["archive", "keep"] {
        let scene = Scene::new(Script::healthy());
        let settings = scene.settings().key("routes.main.after", after);
        let spool = settings.spool("main");
        let settings = match after {
            "archive" => settings.key("routes.main.archive", spool.join("done").display()),
            _ => settings,
        };
        let service = settings.start();
        write(&service, "file", b"x");
        write(&service, "file.ready", b"");
        service.wait_delivered("file");
        let expected: &[&str] = match after {
            "archive" => &["done"],
            _ => &["file", "file.ready"],
        };
        wait_until("the source is finished", PATIENCE, || {
            left(&spool) == expected
        });
        if after == "archive" {
            assert_eq!(left(&spool.join("done")), ["file"]);
        }
        // Its marker says that what is written over it is whole as well.
        write(&service, "file", b"a new version");
        write(&service, "file.ready", b"");
        wait_until("the new version is there", PATIENCE, || {
            fs::read(scene.there("file")).unwrap() == b"a new version"
        });
    }
}

// --- the end of a source, step by step ---

fn marked(dir: &Path) -> Route {
    Route {
        ready_suffix: Some(".ready".into()),
        ..spool_common::route(dir)
    }
}

fn put(route: &Route, text: &str) -> Stamp {
    fs::write(route.spool.join("f"), text).unwrap();
    stamp_at(&route.spool, "f").unwrap().unwrap()
}

fn marker(route: &Route) -> Stamp {
    fs::write(route.spool.join("f.ready"), "").unwrap();
    stamp_at(&route.spool, "f.ready").unwrap().unwrap()
}

#[test]
fn a_marker_that_was_made_anew_is_its_next_versions_and_stays() {
    let dir = temp_dir();
    let route = marked(dir.path());
    let sent = put(&route, "one");
    let old = marker(&route);
    let known = Known {
        marker: Some(old),
        earlier: false,
    };
    // The marker first, the file later: the old version's end falls between the two.
    fs::write(route.spool.join("other"), "").unwrap();
    fs::rename(route.spool.join("other"), route.spool.join("f.ready")).unwrap();
    assert_eq!(finish(&route, "f", sent, known).unwrap(), Finished::Deleted);
    assert_eq!(left(&route.spool), ["f.ready"]);

    // A newer file at the name: neither it nor the marker is touched.
    let sent = put(&route, "two");
    let known = Known {
        marker: stamp_at(&route.spool, "f.ready").unwrap(),
        earlier: false,
    };
    put(&route, "three!");
    assert_eq!(finish(&route, "f", sent, known).unwrap(), Finished::Changed);
    assert_eq!(left(&route.spool), ["f", "f.ready"]);

    // Somebody took the file: its marker has nothing to release any more.
    let sent = stamp_at(&route.spool, "f").unwrap().unwrap();
    fs::remove_file(route.spool.join("f")).unwrap();
    assert_eq!(
        finish(&route, "f", sent, known).unwrap(),
        Finished::Vanished
    );
    assert!(left(&route.spool).is_empty());
}

#[test]
fn a_kill_between_the_steps_of_the_end_is_healed_by_the_next_life() {
    let dir = temp_dir();
    let later = Known {
        marker: None,
        earlier: true,
    };
    let hidden = ".ftpulse-0123456789abcdef.f.sent";
    for archive in [false, true] {
        let mut route = marked(dir.path());
        if archive {
            route.after = After::Archive(dir.path().join("done"));
        }
        let done = |finished: &Finished| match finished {
            Finished::Archived(_) => archive,
            other => !archive && *other == Finished::Deleted,
        };
        let end = |sent| finish(&route, "f", sent, later).unwrap();
        // Hidden, the marker there still; hidden, without it.
        for with_marker in [true, false] {
            let sent = put(&route, "one");
            if with_marker {
                marker(&route);
            }
            fs::rename(route.spool.join("f"), route.spool.join(hidden)).unwrap();
            let finished = end(sent);
            assert!(done(&finished), "{finished:?}");
            assert!(left(&route.spool).is_empty(), "{:?}", left(&route.spool));
        }
        // The same, and a newer version has come with its marker: both stay.
        let sent = put(&route, "one");
        fs::rename(route.spool.join("f"), route.spool.join(hidden)).unwrap();
        put(&route, "two two");
        marker(&route);
        let finished = end(sent);
        assert!(done(&finished), "{finished:?}");
        assert_eq!(left(&route.spool), ["f", "f.ready"]);
        // Put back by a scan before its end was asked for, with the marker lost.
        fs::remove_file(route.spool.join("f.ready")).unwrap();
        let sent = put(&route, "three");
        let finished = end(sent);
        assert!(done(&finished), "{finished:?}");
        assert!(left(&route.spool).is_empty());
    }
    assert!(open_root(dir.path()).is_ok());
}

#[test]
fn a_process_killed_again_and_again_sends_nothing_twice_and_leaves_no_marker() {
    let kills = count_of("FTPULSE_KILLS", 15);
    let scene = Scene::new(Script::healthy());
    let watcher = Watcher::start(scene.root.path(), is_final_name);
    let mut service = scene.settings().key("log.level", "info").start();
    let spool = service.spool("main");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut put = 0;
    for _ in 0..kills {
        for _ in 0..20 {
            let (name, bytes) = (format!("{put}"), content(put, 2_000));
            watcher.allow(&format!("in/{name}"), &bytes);
            // Either order of appearance.
            let marker = format!("{name}.ready");
            match put % 2 {
                0 => (
                    write(&service, &name, &bytes),
                    write(&service, &marker, b""),
                ),
                _ => (
                    write(&service, &marker, b""),
                    drop(service.put("main", &name, &bytes)),
                ),
            };
            put += 1;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let end = clock::mono() + Duration::from_millis(random % 250);
        wait_until("the moment has come", PATIENCE, || clock::mono() >= end);
        service = service.kill_and_restart();
    }
    wait_until("all is delivered and gone", PATIENCE * 2, || {
        left(&spool).is_empty()
    });
    for number in 0..put {
        let name = format!("in/{number}");
        wait_until("the watcher saw it", PATIENCE, || {
            watcher.deliveries(&name) > 0
        });
        assert_eq!(watcher.deliveries(&name), 1, "{name}");
    }
    let renamed = scene.lab.counters().rename_count;
    println!("{kills} kills, {put} files with their markers, {renamed} renames on the server");
    watcher.assert_clean();
    assert_eq!(service.terminate(), Some(0));
}
