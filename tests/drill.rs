//! `ftpulse drill` as a user runs it: every fault under short timers, what it says of settings
//! that would disturb healthy uploads, what it refuses, and that it leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::process::{Output, Stdio};

use ftpulse::lab::{Fault, Needs};
use rustix::process::Signal;
use serde_json::Value;
use support::process::{spawn, tied};
use support::service::variable;
use support::{PATIENCE, temp_dir, wait_until};

/// Short timers: each row takes seconds.
const QUICK: &[(&str, &str)] = &[
    // A machine that runs fifty rows at once may starve a worker for half a second.
    ("heartbeat.interval", "250ms"),
    ("heartbeat.misses", "5"),
    ("timers.reply", "4s"),
    ("timers.stall", "3s"),
    ("timers.disk", "3s"),
    ("timers.dns", "2s"),
    ("timers.data_connect", "1s"),
    ("timers.data_connect_interval", "100ms"),
    ("timers.tls", "4s"),
    ("timers.listen", "3s"),
    ("retry.first", "200ms"),
    ("retry.max", "1s"),
];

/// Runs a drill to its end with these settings; its temporary folder has to be empty then.
fn drill(settings: &[(&str, &str)], args: &[&str]) -> Output {
    let tmp = temp_dir();
    let mut command = tied(env!("CARGO_BIN_EXE_ftpulse"));
    command.arg("drill").args(args).env_clear();
    command.env("TMPDIR", tmp.path());
    for (key, value) in settings {
        command.env(variable(key), value);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "left");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn rows(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    report["rows"].as_array().unwrap().clone()
}

/// The whole matrix; every fault that can be met in this way has its row.
fn matrix(args: &[&str], met: &[Needs]) {
    let output = drill(QUICK, args);
    println!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    for named in Fault::names().iter().chain(Fault::others()) {
        let row = format!("{} ", named.name);
        let shown = table.lines().any(|line| line.starts_with(&row));
        assert_eq!(shown, met.contains(&named.needs), "{}", named.name);
    }
    for cause in [
        "zero_window",
        "path_dead",
        "silent_server",
        "no_data_connection",
        "disk",
        "dns",
        "lock",
        "cpu_loop",
    ] {
        assert!(table.contains(cause), "{cause}");
    }
    assert!(!table.contains("YES") && !table.contains("FAILED"));
}

#[test]
fn every_fault_is_found_named_and_survived_in_every_way() {
    matrix(&[], &[Needs::Nothing, Needs::Passive]);
    matrix(&["--tls"], &[Needs::Nothing, Needs::Passive, Needs::Tls]);
    matrix(&["--active"], &[Needs::Nothing, Needs::Active]);
    let all = [Needs::Nothing, Needs::Active, Needs::Tls];
    matrix(&["--active", "--tls"], &all);
}

#[test]
fn settings_that_disturb_a_healthy_upload_fail_their_row() {
    let settings = [QUICK, &[("heartbeat.vouchers", "none")]].concat();
    // An observer that the machine itself holds up excuses what it misses: then once more.
    let mut tries = (0..5).map(|_| drill(&settings, &["--fault", "late-226", "--json"]));
    let output = tries.find(|output| output.status.code() == Some(1));
    let output = output.expect("disturbed in one of five drills");
    let row = &rows(&output)[0];
    assert_eq!(row["found"], "deadlock", "{row}");
    assert_eq!(row["faults"][0], "a healthy upload was disturbed");
    assert!(row["delivered_after"].as_f64().is_some(), "{row}");
}

#[test]
fn under_a_lease_the_dead_path_is_found_by_its_end() {
    let lease = [
        ("heartbeat.policy", "lease"),
        ("heartbeat.lease", "5s"),
        ("heartbeat.lease_floor", "50ms"),
    ];
    let settings = [QUICK, &lease].concat();
    let output = drill(&settings, &["--fault", "path-dead-transfer", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let row = &rows(&output)[0];
    assert_eq!(row["cause"], "path_dead");
    let stuck = row["stuck"].as_f64().unwrap();
    // The count would have convicted after two.
    assert!((4.5..20.0).contains(&stuck), "{row}");
    assert_eq!(row["bound"].as_f64(), Some(2.0 + 5.25 + 1.0), "{row}");
}

#[test]
fn the_users_routes_are_left_alone() {
    let spool = temp_dir();
    std::fs::write(spool.path().join("mine.bin"), b"mine").unwrap();
    let path = spool.path().to_str().unwrap();
    let route = [
        ("routes.main.spool", path),
        ("routes.main.server", "ftp://user@192.0.2.1/in"),
        ("routes.main.password", "secret-Zq9"),
        ("quarantine.capacity", "2"),
    ];
    let settings = [QUICK, &route].concat();
    let output = drill(&settings, &["--fault", "stor-450"]);
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(!told.contains("secret-Zq9"));
    let left: Vec<_> = std::fs::read_dir(path).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing was made or taken");
}

#[test]
fn wrong_usage_and_wrong_settings_end_with_2() {
    let unknown = drill(QUICK, &["--fault", "stop-readin"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("did you mean \"stop-reading\"?"));
    let help = drill(QUICK, &["--fault", "help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("spinning-worker"));
    for (fault, args, way_out) in [
        ("no-handshake", None, "add --tls"),
        ("no-connect", Some("--tls"), "add --active"),
        ("epsv-refused", Some("--active"), "leave --active out"),
        ("stop-sending", None, "not drilled"),
    ] {
        let args: Vec<_> = ["--fault", fault].into_iter().chain(args).collect();
        let elsewhere = drill(QUICK, &args);
        assert_eq!(elsewhere.status.code(), Some(2));
        let told = text(&elsewhere.stderr);
        assert!(told.contains(way_out), "{told}");
    }
    let wrong = drill(&[("heartbeat.interval", "1")], &[]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("heartbeat.interval"));
}

#[test]
fn a_signal_ends_a_drill_and_its_folder() {
    let tmp = temp_dir();
    let mut command = tied(env!("CARGO_BIN_EXE_ftpulse"));
    command
        .args(["drill", "--fault", "silent-226"])
        .env_clear()
        .env("TMPDIR", tmp.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut process = spawn(command).unwrap();
    let folders = || std::fs::read_dir(tmp.path()).unwrap().flatten();
    wait_until("the server has the file", PATIENCE, || {
        let drill = folders()
            .next()
            .map(|f| f.path().join("silent-226/server/in"));
        drill.is_some_and(|folder| folder.exists())
    });
    process.signal(Signal::INT);
    assert_eq!(process.wait(PATIENCE).code(), Some(130));
    assert_eq!(folders().count(), 0, "left");
}
