//! Incidents outlive the service: `ftpulse incidents` tells them after a clean end and after a
//! kill, numbers go on, the file of an earlier life recovers in the next one, and what is older
//! than `state.history` is forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
mod wedge_common;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use ftpulse::lab::LabServer;
use ftpulse::spool::journal::{Change, Store};
use serde_json::Value;
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};
use wedge_common::{SIZE, incidents, wait_incident, wedge};

fn settings(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.uploaders", "1")
        .key("timers.stall", "1s")
        .key("shutdown.grace", "1s")
}

fn journal(settings: &Settings) -> PathBuf {
    PathBuf::from(&settings.vars()["FTPULSE__STATE__DIR"]).join("journal.db")
}

/// What `ftpulse incidents` prints.
fn told(service: &Ftpulse, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ftpulse"))
        .arg("incidents")
        .args(["--url", &format!("http://{}", service.http())])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An incident without what the end of its life does to it.
fn lasting(mut incident: Value) -> Value {
    incident.as_object_mut().unwrap().remove("quarantine");
    incident
}

#[test]
fn incidents_are_told_after_a_restart_and_their_numbers_go_on() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), wedge("first.bin")).unwrap();
    let mut service = settings(&lab).start();
    service.put("main", "first.bin", &content(3, SIZE));
    let first = wait_incident(&service, "the incident is recovered from", |i| {
        i["recovered_at"].is_f64()
    });
    assert_eq!(first["id"], 1);
    assert_eq!(service.terminate(), Some(0));

    let service = service.restart_with("NO_COLOR", Some("1"));
    let again = incidents(&service);
    assert_eq!(again.len(), 1);
    assert_eq!(lasting(again[0].clone()), lasting(first));
    // A clean end lets go of what the quarantine held, and that is told too.
    assert_eq!(again[0]["quarantine"]["reason"], "shutdown");
    assert!(again[0]["quarantine"]["released"].is_f64());
    let list = told(&service, &[]);
    assert!(
        list.contains("zero_window") && list.contains("first.bin"),
        "{list}"
    );
    let story = told(&service, &["1"]);
    assert!(story.contains("zero_window: the peer lives"), "{story}");

    lab.set_faults(vec![wedge("second.bin")]);
    service.put("main", "second.bin", &content(4, SIZE));
    let second = wait_incident(&service, "the next one", |i| i["file"] == "second.bin");
    assert_eq!(second["id"], 2);
    assert_eq!(incidents(&service).len(), 2);
}

#[test]
fn a_file_that_was_stuck_before_a_kill_recovers_in_the_next_life() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), wedge("file.bin").always()).unwrap();
    let settings = settings(&lab);
    let path = journal(&settings);
    let service = settings.start();
    service.put("main", "file.bin", &content(5, SIZE));
    // What another program reads of it is what a kill leaves.
    wait_until("an incident stands in the journal", PATIENCE, || {
        let store = Store::open(&path).unwrap().store;
        !store.incidents(0.0).unwrap().0.is_empty()
    });
    let service = {
        let restarted = service.kill_and_restart();
        lab.set_faults(vec![]);
        restarted
    };
    let before = incidents(&service);
    assert!(!before.is_empty());
    let newest = before.last().unwrap()["id"].clone();
    let recovered = wait_incident(&service, "it recovers in this life", |i| {
        i["id"].as_u64() >= newest.as_u64() && i["recovered_at"].is_f64()
    });
    assert_eq!(recovered["file"], "file.bin");
    let held = before.iter().filter(|i| !i["quarantine"].is_null());
    for incident in held.filter(|i| i["id"].as_u64() < newest.as_u64()) {
        assert_eq!(incident["quarantine"]["reason"], "shutdown", "{incident}");
    }
    service.wait_spool_empty("main", PATIENCE);
}

#[test]
fn an_incident_older_than_the_history_is_forgotten() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let settings = settings(&lab).key("state.history", "1d");
    let path = journal(&settings);
    let now = ftpulse::clock::unix();
    let old = |id: u64, days: f64| Change::Incident {
        id,
        at: now - days * 86_400.0,
        body: serde_json::to_string(&ftpulse::report::Incident {
            id,
            detected_at: now - days * 86_400.0,
            ..Default::default()
        })
        .unwrap(),
    };
    let mut store = Store::open(&path).unwrap().store;
    store.apply([old(6, 2.0), old(7, 0.5)].iter()).unwrap();
    assert!(store.close());
    let service = settings.start();
    let ids: Vec<_> = incidents(&service)
        .iter()
        .map(|i| i["id"].clone())
        .collect();
    assert_eq!(ids, [7]);
    service.put("main", "file.bin", b"something to write");
    service.wait_spool_empty("main", PATIENCE);
    wait_until("it is gone from the journal too", PATIENCE, || {
        let store = Store::open(&path).unwrap().store;
        store.incidents(0.0).unwrap().0.len() == 1
    });
}
