//! What is no file to send is left alone: symlinks, FIFOs, sockets, devices, what may not be
//! read, names that a protocol line cannot carry. Each is said once, nothing stops for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use ftpulse::lab::{LabServer, Script};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::process::tied;
use support::recipes::UNPRIVILEGED;
use support::servers::is_root;
use support::service::{Ftpulse, Settings, variable};
use support::{PATIENCE, content, temp_dir, wait_until};

/// Starts the service as a user for whom rights mean something: root may read everything.
fn start_unprivileged(settings: Settings) -> Ftpulse {
    if !is_root() {
        return settings.start();
    }
    let nobody = Some(UNPRIVILEGED);
    for key in ["state.dir", "routes.main.spool"] {
        chown(&settings.vars()[&variable(key)], nobody, nobody).unwrap();
    }
    // The change of user clears the death signal: it is set again.
    let id = UNPRIVILEGED.to_string();
    let mut command = tied("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--clear-groups",
            "--reuid",
            &id,
            "--regid",
            &id,
            "--",
        ])
        .arg(env!("CARGO_BIN_EXE_ftpulse"))
        .arg("run")
        .env_clear()
        .envs(settings.vars());
    let mut service = settings.launch_by(command);
    service.wait_listening();
    service
}

fn node(path: &Path, kind: FileType, device: u64) -> bool {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device).is_ok()
}

fn told(service: &Ftpulse) -> Vec<(String, String)> {
    let lines = service.logged("left alone in the spool");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    lines
        .iter()
        .map(|line| (text(&line["file"]), text(&line["cause"])))
        .collect()
}

#[test]
fn what_is_no_file_to_send_is_left_alone_and_said_once() {
    let (root, outside) = (temp_dir(), temp_dir());
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let settings = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password());
    let spool = settings.spool("main");
    fs::write(outside.path().join("secret"), "the secret").unwrap();
    fs::create_dir(outside.path().join("folder")).unwrap();
    fs::write(outside.path().join("folder/secret"), "the secret").unwrap();

    // There before the start.
    let mut alone = BTreeSet::new();
    symlink(outside.path().join("secret"), spool.join("link")).unwrap();
    symlink(outside.path().join("folder"), spool.join("linked-folder")).unwrap();
    symlink("nowhere", spool.join("dangling")).unwrap();
    symlink("loop", spool.join("loop")).unwrap();
    alone.extend(["link", "linked-folder", "dangling", "loop"]);
    assert!(node(&spool.join("fifo"), FileType::Fifo, 0));
    alone.insert("fifo");
    let _socket = std::os::unix::net::UnixListener::bind(spool.join("socket")).unwrap();
    alone.insert("socket");
    // Only root may make one: /dev/zero's, whose reading would never end.
    if node(
        &spool.join("zero"),
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 5),
    ) {
        alone.insert("zero");
    }
    fs::write(spool.join("locked"), "locked").unwrap();
    fs::set_permissions(spool.join("locked"), Permissions::from_mode(0o0)).unwrap();
    alone.insert("locked");
    fs::create_dir(spool.join("locked-folder")).unwrap();
    fs::write(spool.join("locked-folder/file"), "in it").unwrap();
    fs::set_permissions(spool.join("locked-folder"), Permissions::from_mode(0o0)).unwrap();
    alone.insert("locked-folder");
    // May be listed, but nothing in it may be touched.
    fs::create_dir(spool.join("listed")).unwrap();
    fs::write(spool.join("listed/file"), "in it").unwrap();
    fs::set_permissions(spool.join("listed"), Permissions::from_mode(0o444)).unwrap();
    alone.insert("listed/file");
    fs::write(spool.join("line\nbreak"), "x").unwrap();
    fs::write(spool.join(OsStr::from_bytes(b"latin-\xfc")), "x").unwrap();
    for unsaid in [".hidden", "work.tmp", "work.part"] {
        fs::write(spool.join(unsaid), "x").unwrap();
    }
    fs::write(spool.join("before"), content(1, 5000)).unwrap();

    let service = start_unprivileged(settings);
    service.wait_delivered("before");
    service.put("main", "after", &content(2, 5000));
    service.wait_delivered("after");

    // They come again: nothing new is said. What is put in later has been looked at last.
    for again in ["fifo", "link"] {
        fs::remove_file(spool.join(again)).unwrap();
    }
    assert!(node(&spool.join("fifo"), FileType::Fifo, 0));
    symlink(outside.path().join("secret"), spool.join("link")).unwrap();
    assert!(node(&spool.join("late-fifo"), FileType::Fifo, 0));
    alone.insert("late-fifo");
    service.wait_log("left alone in the spool", |line| {
        line["file"] == "late-fifo"
    });
    service.put("main", "last", &content(3, 5000));
    service.wait_delivered("last");

    let said = told(&service);
    for name in &alone {
        let times = said.iter().filter(|(file, _)| file == name).count();
        assert_eq!(times, 1, "{name} is said once: {said:?}");
    }
    for part in ["line\\nbreak", "latin-"] {
        let times = said
            .iter()
            .filter(|(file, _)| file.starts_with(part))
            .count();
        assert_eq!(times, 1, "{part} is said once: {said:?}");
    }
    for unsaid in [".hidden", "work.tmp", "work.part"] {
        assert!(said.iter().all(|(file, _)| file != unsaid), "{said:?}");
        assert!(spool.join(unsaid).exists());
    }
    let mut sent: Vec<_> = fs::read_dir(root.path().join("in"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    sent.sort();
    assert_eq!(sent, ["after", "before", "last"]);
    for name in &alone {
        assert!(
            fs::symlink_metadata(spool.join(name)).is_ok(),
            "{name} is still there"
        );
    }
    assert_eq!(
        fs::read(outside.path().join("secret")).unwrap(),
        b"the secret"
    );
    assert_eq!(
        service.metrics().sum("ftpulse_uploader_resets_total", &[]),
        0.0
    );
    for (file, cause) in &said {
        println!("{file:24} {cause}");
    }

    // What may be read now is sent now.
    fs::set_permissions(spool.join("locked"), Permissions::from_mode(0o644)).unwrap();
    service.wait_delivered("locked");
    fs::set_permissions(spool.join("locked-folder"), Permissions::from_mode(0o777)).unwrap();
    service.wait_delivered("locked-folder/file");
}

#[test]
fn a_spool_that_may_not_be_read_is_told_and_served_once_it_may() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let settings = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password());
    let spool = settings.spool("main");
    fs::write(spool.join("file"), content(1, 5000)).unwrap();
    fs::set_permissions(&spool, Permissions::from_mode(0o0)).unwrap();
    let service = start_unprivileged(settings);
    wait_until("the spool is told as a problem", PATIENCE, || {
        let ready = service.get("/readyz");
        ready.status == 503 && ready.body.contains("main")
    });
    println!("{}", service.get("/readyz").body);
    assert_eq!(service.get("/healthz").status, 200);
    fs::set_permissions(&spool, Permissions::from_mode(0o755)).unwrap();
    service.wait_delivered("file");
    wait_until("the service is ready", PATIENCE, || {
        service.get("/readyz").status == 200
    });
}
