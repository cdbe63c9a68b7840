//! Dead letters: a file that fails for longer than `retry.give_up_after` is moved aside, whole, with
//! its story beside it; time while its destination is down does not count, over a restart its age
//! goes on, and nothing that may have been published is given up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::path::PathBuf;

use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Step};
use serde_json::Value;
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, temp_dir, wait_until};

/// Refuses every file whose path holds that text, for ever.
fn refuses(text: &str) -> Fault {
    Fault::new(Kind::Reply(Step::Stor, 550)).matching(text, u32::MAX)
}

fn settings(lab: &LabServer, give_up_after: &str) -> Settings {
    Settings::new()
        .quick()
        .key("retry.max", "200ms")
        .key("retry.give_up_after", give_up_after)
        .route_to("main", &lab.url("in"), lab.password())
}

fn folder(service: &Ftpulse) -> PathBuf {
    service.spool("main").join(".dead-letter")
}

fn story(service: &Ftpulse, name: &str) -> Value {
    let text = fs::read_to_string(folder(service).join(format!("{name}.why.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn wait_dead(service: &Ftpulse, name: &str) -> Value {
    service.wait_log("file dead-lettered", |l| l["file"] == name)
}

fn gauge(service: &Ftpulse, expected: f64) {
    service.wait_metrics("dead letters are counted", |m| {
        m.get("ftpulse_dead_letters", &[("route", "main")]) == Some(expected)
    });
}

#[test]
fn a_file_that_is_refused_for_too_long_goes_aside_with_its_story_and_others_flow() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), refuses("bad")).unwrap();
    let service = settings(&lab, "2s").start();
    gauge(&service, 0.0);
    service.put("main", "sub/bad.bin", b"first");
    for number in 0..10 {
        service.put("main", &format!("good-{number}"), b"fine");
    }
    for number in 0..10 {
        service.wait_delivered(&format!("good-{number}"));
    }
    let line = wait_dead(&service, "sub/bad.bin");
    println!("{line:#}");
    let place = folder(&service).join("sub/bad.bin");
    assert_eq!(line["place"], place.to_str().unwrap());
    assert_eq!(fs::read(&place).unwrap(), b"first");
    assert!(!service.spool("main").join("sub/bad.bin").exists());
    let why = story(&service, "sub/bad.bin");
    println!("{why:#}");
    assert_eq!(why["route"], "main");
    assert_eq!(why["file"], "sub/bad.bin");
    assert_eq!(why["size"], 5);
    assert!(why["last_error"].as_str().unwrap().contains("550"), "{why}");
    assert!(why["attempts"].as_u64().unwrap() >= 5, "{why}");
    let time = |key: &str| why[key].as_f64().unwrap();
    assert!(time("failing_seconds") >= 2.0, "{why}");
    assert!(time("gave_up_at") - time("first_failed_at") >= 1.9, "{why}");
    let dead = [("route", "main"), ("outcome", "dead_letter")];
    assert_eq!(service.metrics().sum("ftpulse_files_total", &dead), 1.0);
    gauge(&service, 1.0);
    // The same name again: beside the first, not over it.
    service.put("main", "sub/bad.bin", b"second");
    service.wait_metrics("two are given up", |m| {
        m.sum("ftpulse_files_total", &dead) == 2.0
    });
    assert_eq!(fs::read(&place).unwrap(), b"first");
    let second = folder(&service).join("sub/bad.bin.1");
    assert_eq!(fs::read(&second).unwrap(), b"second");
    assert_eq!(story(&service, "sub/bad.bin.1")["file"], "sub/bad.bin");
    gauge(&service, 2.0);
}

#[test]
fn time_while_the_destination_is_down_does_not_count() {
    let mut server = Server::pyftpdlib(Opts::default());
    // A folder stands where the file is to be: its rename is refused.
    fs::create_dir_all(server.root.join("in/bad")).unwrap();
    let service = Settings::new()
        .quick()
        .key("retry.max", "200ms")
        .key("retry.give_up_after", "4s")
        .key("timers.control_connect_attempts", "1")
        .route("main", &server, "in")
        .start();
    service.put("main", "bad", b"refused");
    service.wait_log("upload failed", |l| l["file"] == "bad");
    server.stop();
    let failed = |service: &Ftpulse| service.logged("the destination gives no session");
    service.wait_log("the destination gives no session", |_| true);
    // Far longer than it may fail.
    let end = ftpulse::clock::mono() + std::time::Duration::from_secs(7);
    wait_until("the destination was down for long", PATIENCE, || {
        ftpulse::clock::mono() >= end && failed(&service).len() > 5
    });
    assert!(service.logged("file dead-lettered").is_empty());
    server.start_again();
    let line = wait_dead(&service, "bad");
    let why = story(&service, "bad");
    println!("{line:#}\n{why:#}");
    let time = |key: &str| why[key].as_f64().unwrap();
    let (whole, counted) = (
        time("gave_up_at") - time("first_failed_at"),
        time("failing_seconds"),
    );
    assert!(
        counted >= 4.0 && whole >= counted + 5.0,
        "{whole}, {counted}"
    );
}

#[test]
fn the_age_of_a_failing_file_goes_on_after_a_kill() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), refuses("bad")).unwrap();
    let service = settings(&lab, "6s").start();
    service.put("main", "bad", b"refused");
    let line = service.wait_log("upload failed", |l| l["attempt"].as_u64() >= Some(15));
    let before = line["attempt"].as_u64().unwrap();
    let service = service.kill_and_restart();
    let line = service.wait_log("upload failed", |l| l["file"] == "bad");
    assert!(line["attempt"].as_u64().unwrap() >= before, "{line}");
    wait_dead(&service, "bad");
    let why = story(&service, "bad");
    println!("{why:#}");
    let time = |key: &str| why[key].as_f64().unwrap();
    let own = service.json("/api/status")["started_at"].as_f64().unwrap();
    assert!(time("first_failed_at") < own, "{why}");
    assert!(why["attempts"].as_u64().unwrap() > before);
    assert!(
        time("failing_seconds") - (time("gave_up_at") - own) > 0.5,
        "{why}"
    );
    // Nothing of it is left in the journal: the next life has nothing to do.
    let service = service.kill_and_restart();
    gauge(&service, 1.0);
    assert!(service.logged("upload failed").is_empty());
}

#[test]
fn a_file_that_may_have_been_published_is_never_given_up() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    // Its rename is done and never answered; then nobody can ask for long.
    lab.add_fault(Fault::new(Kind::RntoDoneNoReply));
    let (mut events, mut all) = (lab.events(), lab.events());
    let service = settings(&lab, "1s").key("timers.reply", "2s").start();
    service.put("main", "once", b"once");
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some());
    lab.add_fault(Fault::new(Kind::Garbage(Step::Rnfr)).matching("once", 12));
    service.wait_delivered("once");
    let failures = service.logged("upload failed");
    let late = failures
        .iter()
        .filter(|l| l["next"].as_str().unwrap().contains("given up"));
    assert!(late.count() > 0, "it failed for longer than it may");
    println!("{} failures", service.logged("upload failed").len());
    assert!(service.logged("file dead-lettered").is_empty());
    assert_eq!(fs::read(root.path().join("in/once")).unwrap(), b"once");
    let seen = all.drain();
    let published = |e: &&Event| matches!(e, Event::Renamed { to, .. } if to == "/in/once");
    assert_eq!(seen.iter().filter(published).count(), 1, "published once");
    service.wait_spool_empty("main", PATIENCE);
}

#[test]
fn a_folder_that_takes_no_dead_letters_costs_nothing_but_a_line() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), refuses("bad")).unwrap();
    let settings = settings(&lab, "1s");
    let blocked = settings.spool("main").join(".dead-letter");
    fs::write(&blocked, b"a file, no folder").unwrap();
    let service = settings.start();
    service.put("main", "bad", b"kept");
    service.wait_log("a file cannot be put among the dead letters", |_| true);
    wait_until("it stands in the spool", PATIENCE, || {
        fs::read(service.spool("main").join("bad")).is_ok_and(|b| b == b"kept")
    });
    fs::remove_file(&blocked).unwrap();
    wait_dead(&service, "bad");
    assert_eq!(fs::read(folder(&service).join("bad")).unwrap(), b"kept");
    gauge(&service, 1.0);
    // A person takes it away: the next scan sees it.
    service.put("main", "bad-2", b"x");
    wait_dead(&service, "bad-2");
    gauge(&service, 2.0);
}
