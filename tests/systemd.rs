//! `ftpulse run` as a unit of a real systemd: up only when it says so, asked for more time, status,
//! reload, killed and restarted when it freezes or its loop is wedged, a wrong configuration left
//! alone, drained at the end. Needs root (else it is skipped); FTPULSE_TEST_SKIP_SYSTEMD=1 skips it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
#[path = "support/booted.rs"]
mod booted;

use std::fs;
use std::path::Path;

use booted::{Root, Systemd};
use ftpulse::clock;
use ftpulse::lab::{LabServer, Script};
use support::process::send;
use support::{PATIENCE, temp_dir, wait_until};

/// What is of this test: its own place, and bounds that a test can wait for.
const DROP_IN: &str = "
[Unit]
DefaultDependencies=no
[Service]
ExecStart=
ExecStart=/srv/ftpulse run --config /srv/ftpulse.toml
WatchdogSec=3s
RestartSec=2s
TimeoutStartSec=3s
ReadWritePaths=/srv/spool
StandardError=append:/srv/log
ProtectHome=no
LoadCredential=main.password:/srv/password
Environment=FTPULSE__ROUTES__MAIN__PASSWORD_FILE=%d/main.password
";

/// A state volume without room, and a spool that the service may write to.
const PREPARE: &str = "
mkdir -p /var/lib/ftpulse /srv/spool
mount -t tmpfs -o size=1m,mode=750,uid=64123,gid=64123 tmpfs /var/lib/ftpulse
dd if=/dev/zero of=/var/lib/ftpulse/ballast bs=4k 2>/dev/null || true
chown 64123:64123 /srv/spool
chmod 755 /srv
";

fn config(lab: &LabServer, retry: &str) -> String {
    format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\n[retry]\nfirst = \"{retry}\"\n\
         [watchdog]\npulse_interval = \"300ms\"\n\
         [routes.main]\nspool = \"/srv/spool\"\nserver = \"{}\"\nsettle = \"200ms\"\n",
        lab.url("in")
    )
}

fn unit() -> String {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/systemd/ftpulse.service"
    );
    fs::read_to_string(file).unwrap()
}

fn main_pid(systemd: &Systemd) -> u32 {
    let inside = systemd.property("MainPID");
    // Its number out here: the last of a line of NSpid is the one in there.
    let mut found = None;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let numbers: Vec<_> = of("NSpid:")
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        if numbers.len() == 2 && numbers[1] == inside && of("Name:").unwrap().trim() == "ftpulse" {
            found = Some(numbers[0].parse().unwrap());
        }
    }
    found.unwrap_or_else(|| panic!("no process for MainPID {inside}"))
}

/// A file is put into the spool and arrives.
fn delivers(systemd: &Systemd, remote: &Path, name: &str) {
    let spool = systemd.path("/srv/spool");
    fs::write(spool.join(name), name).unwrap();
    std::os::unix::fs::chown(spool.join(name), Some(64123), Some(64123)).unwrap();
    wait_until("the file arrives", PATIENCE, || {
        fs::read_to_string(remote.join("in").join(name)).is_ok_and(|text| text == name)
    });
}

#[test]
fn a_real_systemd_starts_watches_restarts_and_stops_it() {
    if std::env::var_os("FTPULSE_TEST_SKIP_SYSTEMD").is_some_and(|value| !value.is_empty()) {
        println!("not run: FTPULSE_TEST_SKIP_SYSTEMD is set");
        return;
    }
    if let Some(why) = booted::impossible() {
        println!("skipped: no systemd can be booted here: {why}");
        return;
    }
    let remote = temp_dir();
    let lab = LabServer::start(remote.path(), Script::healthy()).unwrap();
    let root = Root::new();
    root.unit("ftpulse.service", &unit());
    root.unit("ftpulse.service.d/test.conf", DROP_IN);
    root.file("password", lab.password());
    root.file("prepare", PREPARE);
    root.file("ftpulse.toml", &config(&lab, "100ms"));
    let systemd = root.boot();

    // It is up when it says so: not before there is room, and not killed for it either.
    let (ok, said) = systemd.systemctl(&["start", "--no-block", "ftpulse"]);
    assert!(ok, "{said}");
    let began = clock::mono();
    systemd.wait_property("StatusText", |text| text.contains("waits for room"));
    wait_until("TimeoutStartSec is over twice", PATIENCE, || {
        clock::mono() > began + 2 * std::time::Duration::from_secs(3)
    });
    assert_eq!(systemd.property("ActiveState"), "activating");
    assert_eq!(systemd.property("NRestarts"), "0");
    fs::remove_file(systemd.path("/var/lib/ftpulse/ballast")).unwrap();
    systemd.wait_property("ActiveState", |state| state == "active");
    assert_eq!(systemd.property("SubState"), "running");
    assert!(systemd.said().contains("listening"));
    println!(
        "active (running) {:.1?} after the start",
        clock::mono() - began
    );
    systemd.wait_property("StatusText", |text| {
        text == "1 route, 0 waiting, 0 in work, quarantine 0 of 16"
    });
    delivers(&systemd, remote.path(), "first");
    hardened(main_pid(&systemd));

    reloads(&systemd, &lab);

    // Frozen: the watchdog's time is over, it is killed and started again.
    let before = main_pid(&systemd);
    let frozen = clock::mono();
    send(before, rustix::process::Signal::STOP);
    systemd.wait_property("Result", |result| result == "watchdog");
    println!(
        "frozen: told and killed after {:.1?}",
        clock::mono() - frozen
    );
    systemd.wait_property("NRestarts", |n| n == "1");
    systemd.wait_property("SubState", |state| state == "running");
    assert_ne!(main_pid(&systemd), before);
    delivers(&systemd, remote.path(), "second");

    // Drained at the end.
    let from = systemd.said().len();
    let (ok, said) = systemd.systemctl(&["stop", "ftpulse"]);
    assert!(ok, "{said}");
    assert_eq!(systemd.property("ActiveState"), "inactive");
    assert_eq!(systemd.property("Result"), "success");
    assert_eq!(systemd.property("ExecMainStatus"), "0");
    systemd.wait_said(from, "drained");

    // A wrong configuration is not tried again.
    fs::write(systemd.path("/srv/ftpulse.toml"), "nonsense = 1\n").unwrap();
    let (ok, _) = systemd.systemctl(&["start", "ftpulse"]);
    assert!(!ok);
    assert_eq!(systemd.property("ActiveState"), "failed");
    assert_eq!(systemd.property("ExecMainStatus"), "2");
    assert_eq!(systemd.property("NRestarts"), "0");
    broken(&systemd, &lab);
}

/// The unit's hardening is not only written down: systemd has carried it out.
fn hardened(pid: u32) {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "Umask:\t0027",
    ] {
        assert!(status.lines().any(|l| l == line), "{line} in\n{status}");
    }
    let users = read("uid_map");
    assert_eq!(users.lines().count(), 2, "root and itself alone: {users}");
    let mounts = read("mountinfo");
    let root = mounts.lines().find(|l| l.split(' ').nth(4) == Some("/"));
    assert!(root.unwrap().split(' ').nth(5).unwrap().starts_with("ro"));
}

fn reloads(systemd: &Systemd, lab: &LabServer) {
    let pid = main_pid(systemd);
    let reload = |text: &str| {
        fs::write(systemd.path("/srv/ftpulse.toml"), text).unwrap();
        let from = systemd.said().len();
        let (ok, said) = systemd.systemctl(&["reload", "ftpulse"]);
        assert!(ok, "{said}");
        from
    };
    let from = reload("nonsense = 1\n");
    systemd.wait_said(from, "configuration not reloaded");
    systemd.wait_property("StatusText", |text| {
        text.ends_with("; the last reload was refused")
    });
    let from = reload(&config(lab, "200ms"));
    systemd.wait_said(from, "configuration reloaded");
    systemd.wait_property("StatusText", |text| {
        text == "1 route, 0 waiting, 0 in work, quarantine 0 of 16"
    });
    assert_eq!(systemd.property("SubState"), "running");
    assert_eq!(main_pid(systemd), pid);
}

/// A wedged loop is a fault although the process runs.
#[cfg(feature = "failpoints")]
fn broken(systemd: &Systemd, lab: &LabServer) {
    fs::write(systemd.path("/srv/ftpulse.toml"), config(lab, "100ms")).unwrap();
    let set = [
        "set-environment",
        "FAILPOINTS=daemon-ticks=20*off->sleep(600000)",
    ];
    assert!(systemd.systemctl(&set).0);
    let (ok, said) = systemd.systemctl(&["start", "ftpulse"]);
    assert!(ok, "{said}");
    systemd.wait_property("Result", |result| result == "watchdog");
    assert!(systemd.systemctl(&["unset-environment", "FAILPOINTS"]).0);
    systemd.wait_property("NRestarts", |n| n != "0");
    systemd.wait_property("SubState", |state| state == "running");
    assert!(systemd.systemctl(&["stop", "ftpulse"]).0);
}

#[cfg(not(feature = "failpoints"))]
fn broken(_: &Systemd, _: &LabServer) {}
