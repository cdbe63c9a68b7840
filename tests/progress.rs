//! What `ftpulse status` tells of work that is not done: how much of its file an upload has sent,
//! and how many files of the spool have still to settle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::process::Command;

use ftpulse::lab::{Fault, Kind, LabServer};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};

/// More than all buffers between the service and the lab hold.
const SIZE: usize = 24 << 20;

fn shown(service: &Ftpulse) -> String {
    let url = format!("http://{}", service.http());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
    let output = command.args(["status", "--url", &url]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The words of the row that begins so.
fn row<'a>(table: &'a str, first: &str, second: &str) -> Vec<&'a str> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fits = |words: &Vec<&str>| words.first() == Some(&first) && words.get(1) == Some(&second);
    rows.into_iter().find(fits).expect(table)
}

#[test]
fn a_running_upload_shows_its_share_and_the_spool_what_is_settling() {
    let root = temp_dir();
    let half = Kind::StopReading {
        after: SIZE as u64 / 2,
    };
    let lab = LabServer::start(root.path(), Fault::new(half).first(1).until_thaw()).unwrap();
    let service = Settings::new()
        .quick()
        .key("timers.stall", "120s")
        .key("routes.main.uploaders", "1")
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.settle", "1h")
        .start();
    for name in ["young", "younger"] {
        fs::write(service.spool("main").join(name), "x").unwrap();
    }
    service.put("main", "big", &content(1, SIZE));
    let slot = || service.json("/api/status")["routes"][0]["slots"][0].clone();
    wait_until("half of it is sent", PATIENCE, || {
        slot()["bytes_sent"].as_u64() >= Some(SIZE as u64 / 2)
    });
    assert_eq!(slot()["file_bytes"], SIZE);
    wait_until("the settling files are told", PATIENCE, || {
        service.json("/api/status")["routes"][0]["settling"] == 2
    });
    let table = shown(&service);
    println!("{table}");
    let words = row(&table, "main", "0");
    let percent = words
        .iter()
        .find_map(|word| word.strip_suffix('%'))
        .expect(&table);
    let percent: u64 = percent.parse().unwrap();
    assert!((50..100).contains(&percent), "{table}");
    assert_eq!(words.last(), Some(&"big"));
    let destination = format!("{}@{}", lab.user(), lab.addr());
    let settling = table
        .lines()
        .next()
        .map(|_| row(&table, "main", &destination)[3].to_owned());
    assert_eq!(settling.as_deref(), Some("2"), "{table}");

    lab.thaw();
    service.wait_delivered("big");
    wait_until("the slot is idle", PATIENCE, || slot()["file"].is_null());
    let idle = shown(&service);
    assert!(
        slot()["file_bytes"].is_null() && !idle.contains('%'),
        "{idle}"
    );
}
