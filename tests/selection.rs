//! What is taken from a spool, in which order, and what becomes of a source that was delivered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use ftpulse::clock;
use ftpulse::lab::{Event, LabServer, Script};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};

struct Scene {
    root: tempfile::TempDir,
    lab: LabServer,
}

impl Scene {
    fn new() -> Self {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
        Self { root, lab }
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .quick()
            .route_to("main", &self.lab.url("in"), self.lab.password())
    }

    fn remote(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("in").join(name)
    }

    fn renames(&self) -> u64 {
        self.lab.counters().rename_count
    }
}

fn dated(path: &Path, bytes: &[u8], age: Duration) {
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs_f64(clock::unix()) - age)
        .unwrap();
}

/// The names in the order of their publishing, by one uploader.
fn published(order: &str) -> Vec<String> {
    let scene = Scene::new();
    let settings = scene
        .settings()
        .key("routes.main.settle", "0s")
        .key("routes.main.uploaders", "1")
        .key("routes.main.order", order);
    // Neither the order of their making nor of their names is that of their ages.
    for i in [3_u64, 0, 4, 1, 2] {
        let age = Duration::from_secs(1000 + (i * 7 % 5) * 100);
        dated(
            &settings.spool("main").join(format!("f{i}")),
            &content(i, 100),
            age,
        );
    }
    let mut events = scene.lab.events();
    let service = settings.start();
    service.wait_spool_empty("main", PATIENCE);
    let renamed = events.drain().into_iter().filter_map(|event| match event {
        Event::Renamed { to, .. } => Some(to.trim_start_matches("/in/").to_owned()),
        _ => None,
    });
    renamed.collect()
}

#[test]
fn files_go_out_in_the_order_of_the_route() {
    // Ages: f0 1000, f1 1200, f2 1400, f3 1100, f4 1300.
    assert_eq!(published("oldest"), ["f2", "f4", "f1", "f3", "f0"]);
    assert_eq!(published("newest"), ["f0", "f3", "f1", "f4", "f2"]);
    assert_eq!(published("name"), ["f0", "f1", "f2", "f3", "f4"]);
}

/// Puts these in; answers what arrived once all of `expected` and a later file have.
fn taken(settings: Settings, scene: &Scene, names: &[&str], expected: &[&str]) -> Vec<String> {
    let service = settings.start();
    for name in names {
        service.put("main", name, b"x");
    }
    for name in expected {
        service.wait_delivered(name);
    }
    // It has to settle, as those above did: what was put in before it has been decided on.
    fs::write(service.spool("main").join("zz-last.csv"), b"x").unwrap();
    service.wait_delivered("zz-last.csv");
    let arrived = names.iter().filter(|name| scene.remote(name).exists());
    arrived.map(|name| (*name).to_owned()).collect()
}

#[test]
fn include_exclude_and_recursive_choose_what_is_taken() {
    let names = [
        "a.csv",
        "b.txt",
        "sub/c.csv",
        "sub/d.txt",
        "sub/deep/e.csv",
        "skip-f.csv",
        "raw/g.csv",
    ];
    let scene = Scene::new();
    let settings = scene
        .settings()
        .key("routes.main.include", "*.csv,sub/*.txt")
        .key("routes.main.exclude", "skip-*,raw/**");
    let expected = ["a.csv", "sub/c.csv", "sub/d.txt", "sub/deep/e.csv"];
    assert_eq!(taken(settings, &scene, &names, &expected), expected);

    let scene = Scene::new();
    let settings = scene.settings().key("routes.main.recursive", "false");
    let expected = ["a.csv", "b.txt", "skip-f.csv"];
    assert_eq!(taken(settings, &scene, &names, &expected), expected);
}

/// Makes the service look at a file again without changing it, and waits until it has.
fn look_again(service: &Ftpulse, path: &Path, nth: u32) {
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let marker = format!("marker {nth}");
    service.put("main", &marker, b"behind it");
    service.wait_delivered(&marker);
}

#[test]
fn a_kept_source_is_sent_again_only_when_it_has_changed() {
    let scene = Scene::new();
    let service = scene.settings().key("routes.main.after", "keep").start();
    let path = service.put("main", "kept.bin", b"first");
    service.wait_delivered("kept.bin");
    look_again(&service, &path, 1);
    // Taken away and put back by rename, as a backup would: the same version still.
    fs::rename(&path, path.with_extension("tmp")).unwrap();
    fs::rename(path.with_extension("tmp"), &path).unwrap();
    look_again(&service, &path, 2);
    let times = |service: &Ftpulse| {
        let lines = service.logged("file delivered");
        lines
            .iter()
            .filter(|line| line["file"] == "kept.bin")
            .count()
    };
    assert_eq!(
        (times(&service), scene.renames()),
        (1, 3),
        "unchanged: sent once"
    );
    assert_eq!(fs::read(&path).unwrap(), b"first");

    for (nth, text) in [(3, "second"), (4, "third!")] {
        if nth == 3 {
            service.put("main", "kept.bin", text.as_bytes());
        } else {
            fs::write(&path, text).unwrap();
        }
        wait_until("the new version is there", PATIENCE, || {
            fs::read(scene.remote("kept.bin")).unwrap() == text.as_bytes()
        });
        look_again(&service, &path, nth);
    }
    assert_eq!(times(&service), 3);
    assert_eq!(fs::read(&path).unwrap(), b"third!");
}

#[test]
fn a_delivered_source_moves_to_the_archive() {
    for inside in [true, false] {
        let scene = Scene::new();
        let settings = scene.settings();
        let elsewhere = temp_dir();
        let archive = match inside {
            true => settings.spool("main").join("done"),
            false => elsewhere.path().join("done"),
        };
        fs::create_dir(&archive).unwrap();
        let settings = settings
            .key("routes.main.after", "archive")
            .key("routes.main.archive", archive.display());
        let service = settings.start();
        let files = [("plain.bin", 1), ("sub/folder/ x.bin", 2), ("empty", 0)];
        for (name, seed) in files {
            service.put("main", name, &content(seed, 10_000 * seed as usize));
        }
        for (name, seed) in files {
            service.wait_delivered(name);
            let bytes = content(seed, 10_000 * seed as usize);
            assert_eq!(fs::read(scene.remote(name)).unwrap(), bytes);
            wait_until("it is archived", PATIENCE, || archive.join(name).exists());
            assert_eq!(fs::read(archive.join(name)).unwrap(), bytes);
            assert!(!service.spool("main").join(name).exists());
        }
        // A second one of the same name replaces nothing in the archive.
        service.put("main", "plain.bin", b"later");
        let copies = || {
            let found = fs::read_dir(&archive).unwrap().flatten();
            found
                .filter(|e| e.file_name().to_string_lossy().starts_with("plain"))
                .count()
        };
        wait_until("both are archived", PATIENCE, || copies() == 2);
        assert_eq!(
            fs::read(archive.join("plain.bin")).unwrap(),
            content(1, 10_000)
        );
        // The archive itself is never sent.
        service.put("main", "last", b"x");
        service.wait_delivered("last");
        assert_eq!(scene.renames(), 5);
    }
}

#[test]
fn a_session_is_kept_between_files() {
    let scene = Scene::new();
    let service = scene.settings().key("routes.main.uploaders", "1").start();
    for i in 0..50 {
        service.put("main", &format!("sub/{i}"), &content(i, 3000));
    }
    service.wait_spool_empty("main", PATIENCE);
    let counters = scene.lab.counters();
    assert_eq!(
        (counters.logins, counters.sessions, counters.stored),
        (1, 1, 50)
    );
}

#[test]
fn a_server_without_epsv_is_asked_for_it_once_a_session() {
    use ftpulse::lab::{Fault, Kind};
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Fault::new(Kind::EpsvRefused).always()).unwrap();
    let mut events = lab.events();
    let service = Settings::new()
        .quick()
        .key("routes.main.uploaders", "1")
        .route_to("main", &lab.url("in"), lab.password())
        .start();
    for i in 0..20 {
        service.put("main", &format!("{i}"), &content(i, 3000));
    }
    service.wait_spool_empty("main", PATIENCE);
    for i in 0..20 {
        assert_eq!(
            fs::read(root.path().join(format!("in/{i}"))).unwrap(),
            content(i, 3000)
        );
    }
    let seen = events.drain();
    let asked = |wanted: &str| {
        let of = |event: &&Event| matches!(event, Event::Command { verb, .. } if verb == wanted);
        seen.iter().filter(of).count()
    };
    assert_eq!(
        (asked("PASS"), asked("EPSV"), asked("PASV"), asked("STOR")),
        (1, 1, 20, 20)
    );
}
