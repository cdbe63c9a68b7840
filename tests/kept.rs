//! Files that stay in their spool (`after = "keep"`) across restarts: none is sent again because
//! its volume came late, and the journal does not remember for ever what is gone.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use ftpulse::spool::journal::{Change, Journal, KeptRows, Store};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, wait_until};

fn keeping(server: &Server) -> Settings {
    Settings::new()
        .quick()
        .route("main", server, "in")
        .key("routes.main.after", "keep")
        .key("state.history", "1d")
}

fn journal(settings: &Settings) -> PathBuf {
    PathBuf::from(&settings.vars()["FTPULSE__STATE__DIR"]).join("journal.db")
}

/// What the journal has of kept files, and whether it notes them as missing.
fn rows(journal: &Path) -> Vec<(String, bool)> {
    let rows = KeptRows::new(journal, "main", Journal::none());
    let found = rows.after("", 100).ok().flatten().unwrap_or_default();
    found
        .iter()
        .map(|(p, gone)| (p.to_string(), *gone))
        .collect()
}

fn wait_rows(journal: &Path, what: &str, expected: &[(&str, bool)]) {
    wait_until(what, PATIENCE, || {
        let found = rows(journal);
        let found: Vec<_> = found.iter().map(|(p, gone)| (p.as_str(), *gone)).collect();
        found == expected
    });
}

fn deliver(service: &Ftpulse, names: &[&str]) {
    for name in names {
        service.put("main", name, name.as_bytes());
    }
    for name in names {
        service.wait_delivered(name);
    }
}

fn again(mut service: Ftpulse) -> Ftpulse {
    assert_eq!(service.terminate(), Some(0));
    service.restart_with("NO_COLOR", Some("1"))
}

#[test]
fn a_kept_file_that_is_gone_for_the_whole_history_is_forgotten_and_no_sooner() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = keeping(&server);
    let path = journal(&settings);
    let service = settings.start();
    deliver(&service, &["a", "b", "c"]);
    wait_rows(
        &path,
        "all stay",
        &[("a", false), ("b", false), ("c", false)],
    );
    let (b, away) = (
        service.spool("main").join("b"),
        service.spool("main").with_file_name("away"),
    );
    fs::rename(&b, &away).unwrap();
    let service = again(service);
    wait_rows(
        &path,
        "b is missing",
        &[("a", false), ("b", true), ("c", false)],
    );

    fs::rename(&away, &b).unwrap();
    let service = again(service);
    wait_rows(
        &path,
        "b is back",
        &[("a", false), ("b", false), ("c", false)],
    );
    deliver(&service, &["d"]);
    assert_eq!(
        service.logged("file delivered").len(),
        1,
        "b is known still"
    );

    fs::remove_file(&b).unwrap();
    let mut service = again(service);
    let others = [("a", false), ("c", false), ("d", false)];
    let all = [others[0], ("b", true), others[1], others[2]];
    wait_rows(&path, "b is missing again", &all);
    assert_eq!(service.terminate(), Some(0));
    let mut store = Store::open(&path).unwrap().store;
    let since = |gone| Change::Gone {
        route: "main".into(),
        paths: vec!["b".into()],
        gone,
    };
    let long_ago = ftpulse::clock::unix() - 2.0 * 86_400.0;
    store
        .apply([since(None), since(Some(long_ago))].iter())
        .unwrap();
    assert!(store.close());
    let service = service.restart_with("NO_COLOR", None);
    deliver(&service, &["e"]);
    let left = [others[0], others[1], others[2], ("e", false)];
    wait_rows(&path, "b is forgotten", &left);
}

#[test]
fn a_volume_that_is_mounted_after_the_start_has_none_of_its_files_sent_again() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = keeping(&server);
    let spool = settings.spool("main");
    let volume = spool.with_file_name("volume");
    let mut service = settings.start();
    deliver(&service, &["a", "b"]);
    assert_eq!(service.terminate(), Some(0));
    fs::rename(&spool, &volume).unwrap();
    fs::create_dir(&spool).unwrap();
    let service = service.restart_with("NO_COLOR", Some("1"));
    service.wait_log("spool scanned", |_| true);
    // It is mounted over the empty folder.
    fs::rename(&spool, spool.with_file_name("below")).unwrap();
    fs::rename(&volume, &spool).unwrap();
    deliver(&service, &["c"]);
    let delivered = service.logged("file delivered");
    assert_eq!(delivered.len(), 1, "{delivered:?}");
}

#[test]
fn a_journal_that_is_removed_has_nothing_sent_again_unasked() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = keeping(&server);
    let path = journal(&settings);
    let remove = |path: &Path| {
        fs::remove_file(path).unwrap();
        for beside in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(path.with_extension(beside));
        }
    };
    let mut service = settings.start();
    assert_eq!(Store::open(&path).unwrap().store.lost().unwrap(), None);
    deliver(&service, &["a"]);
    wait_rows(&path, "a stays", &[("a", false)]);
    assert_eq!(service.terminate(), Some(0));
    let waits = |service: &Ftpulse| {
        let suspended = service.json("/api/status")["routes"][0]["suspended"].to_string();
        assert!(suspended.contains("--accept-resend"), "{suspended}");
        assert!(suspended.contains("journal.db"), "{suspended}");
    };

    // While the service is stopped.
    remove(&path);
    let mut service = service.restart_with("NO_COLOR", Some("1"));
    waits(&service);
    service.signal(rustix::process::Signal::TERM);
    assert_eq!(service.wait_exit(PATIENCE).code(), Some(0));
    let service = service.kill_and_restart_as(&["run", "--accept-resend"]);
    service.wait_delivered("a");
    wait_rows(&path, "a stays again", &[("a", false)]);

    // And while it runs.
    let mut service = service.kill_and_restart_as(&["run"]);
    remove(&path);
    deliver(&service, &["b"]);
    service.wait_log("the journal's file was taken away", |_| true);
    wait_rows(&path, "the new one is written", &[("b", false)]);
    assert_eq!(service.logged("file delivered").len(), 1);
    assert_eq!(service.terminate(), Some(0));
    let service = service.restart_with("NO_COLOR", None);
    waits(&service);
    assert_eq!(service.logged("file delivered").len(), 0);
}
