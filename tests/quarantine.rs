//! The quarantine: a bounded FIFO of stranded pairs. Who is released, when, in which order and
//! why; what the server sees of it (a reset, never a clean end); and that metrics, log and
//! incidents tell the same story.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
mod wedge_common;

use std::fs;
use std::time::Duration;

use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Subscriber, TransferEnd};
use serde_json::Value;
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};
use wedge_common::*;

/// A service whose wedges are found half a second after the peer has stopped.
fn settings() -> Settings {
    Settings::new()
        .quick()
        .key("heartbeat.interval", "200ms")
        .key("timers.stall", "300ms")
        .key("quarantine.capacity", "4")
        .key("quarantine.per_destination", "4")
}

fn route(settings: Settings, name: &str, lab: &LabServer) -> Settings {
    settings
        .route_to(name, &lab.url("in"), lab.password())
        .key(&format!("routes.{name}.uploaders"), "1")
}

/// Wedges the first attempt of a file and waits until it is delivered by the next uploader;
/// answers the session that is wedged.
fn wedge_once(service: &Ftpulse, lab: &LabServer, events: &mut Subscriber, file: &str) -> u64 {
    lab.add_fault(wedge(file));
    let (route, _) = file.split_once('-').unwrap();
    let bytes = content(9, SIZE);
    service.put(route, file, &bytes);
    let struck = |e: &Event| matches!(e, Event::Struck { path, .. } if path.contains(file));
    let struck = events.wait_for(struck, PATIENCE).expect("it strikes");
    service.wait_delivered(file);
    assert_eq!(fs::read(lab.root().join("in").join(file)).unwrap(), bytes);
    struck.session()
}

/// The end, however it came, of a data connection that was wedged; a session may have sent whole
/// files before.
fn ends_wedged(event: &Event, session: u64) -> bool {
    let part = |bytes: u64| (READ..SIZE as u64).contains(&bytes);
    matches!(event, Event::DataEnded { session: s, bytes, .. } if *s == session && part(*bytes))
}

/// The server saw the data connection of that session end by a reset.
fn assert_reset(events: &mut Subscriber, session: u64) {
    let ended = events
        .wait_for(|e| ends_wedged(e, session), PATIENCE)
        .expect("the data connection ends");
    let by_reset = matches!(
        ended,
        Event::DataEnded {
            how: TransferEnd::Reset,
            ..
        }
    );
    assert!(by_reset, "{ended:?}");
}

/// The server has not seen the data connection of that session end.
fn assert_open(events: &mut Subscriber, session: u64) {
    let ended = events.wait_for(|e| ends_wedged(e, session), Duration::ZERO);
    assert_eq!(ended, None);
}

fn released(service: &Ftpulse, id: u64, reason: &str) -> Value {
    let incident = wait_incident(service, "the incident tells of the release", |i| {
        i["id"] == id && i["quarantine"]["released"].is_f64()
    });
    let stay = &incident["quarantine"];
    assert_eq!(stay["reason"], reason, "{incident:#}");
    assert!(stay["entered"].as_f64() <= stay["released"].as_f64());
    assert!(
        stay["peer"].as_str().unwrap().contains("data "),
        "{incident:#}"
    );
    wait_until("its sockets are closed", PATIENCE, || {
        is_gone(service.pid(), &incident)
    });
    incident
}

fn held(service: &Ftpulse) -> Vec<u64> {
    let status = service.json("/api/status");
    let pairs = status["quarantine"]["pairs"].as_array().unwrap().clone();
    pairs
        .iter()
        .map(|pair| pair["incident"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_full_quarantine_releases_the_earliest_pairs_in_their_order_by_a_reset() {
    let roots = [temp_dir(), temp_dir(), temp_dir()];
    let labs = roots
        .each_ref()
        .map(|root| LabServer::start(root.path(), Script::healthy()).unwrap());
    let mut events = labs.each_ref().map(LabServer::events);
    let names = ["a", "b", "c"];
    let all = names
        .iter()
        .zip(&labs)
        .fold(settings(), |s, (name, lab)| route(s, name, lab));
    let service = all.key("quarantine.capacity", "3").start();
    let pid = service.pid();
    let mut sessions = Vec::new();
    for (turn, file) in ["a-1", "b-1", "c-1", "a-2", "b-2"].iter().enumerate() {
        let lab = turn % 3;
        sessions.push(wedge_once(&service, &labs[lab], &mut events[lab], file));
    }
    let metrics = service.wait_metrics("two pairs are released", |m| releases(m, "full") == 2.0);
    assert_eq!(
        metrics.sum("ftpulse_quarantine_releases_total", &[]),
        2.0,
        "for no other reason"
    );
    assert_eq!(metrics.get("ftpulse_quarantine_capacity", &[]), Some(3.0));
    assert_eq!(metrics.get("ftpulse_quarantine_pairs", &[]), Some(3.0));
    let bytes = metrics.get("ftpulse_quarantine_send_bytes", &[]).unwrap();
    assert!(
        bytes > 0.0 && bytes < 3.0 * SIZE as f64,
        "{bytes} bytes held"
    );
    assert_eq!(
        metrics.sum("ftpulse_uploader_resets_total", &[("cause", "zero_window")]),
        5.0
    );
    let story: Vec<_> = stays(&service);
    for stay in &story {
        println!("{stay:?}");
    }
    let shown: Vec<_> = story
        .iter()
        .map(|(what, id, reason)| (what.as_str(), *id, reason.as_str()))
        .collect();
    let (put, out) = ("sockets quarantined", "sockets released");
    let expected = [
        (put, 1, ""),
        (put, 2, ""),
        (put, 3, ""),
        (put, 4, ""),
        (out, 1, "full"),
        (put, 5, ""),
        (out, 2, "full"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(held(&service), [3, 4, 5]);
    let files: Vec<_> = incidents(&service)
        .iter()
        .map(|i| i["file"].clone())
        .collect();
    assert_eq!(files, ["a-1", "b-1", "c-1", "a-2", "b-2"]);
    released(&service, 1, "full");
    released(&service, 2, "full");
    for incident in &incidents(&service)[2..] {
        assert!(is_held(pid, incident), "{incident:#}");
        assert!(incident["quarantine"]["released"].is_null());
    }
    assert_reset(&mut events[0], sessions[0]);
    assert_reset(&mut events[1], sessions[1]);
    for (lab, turn) in [(2, 2), (0, 3), (1, 4)] {
        assert_open(&mut events[lab], sessions[turn]);
    }
}

#[test]
fn a_destination_holds_no_more_pairs_than_it_may() {
    let roots = [temp_dir(), temp_dir()];
    let labs = roots
        .each_ref()
        .map(|root| LabServer::start(root.path(), Script::healthy()).unwrap());
    let mut events = labs.each_ref().map(LabServer::events);
    let service = route(route(settings(), "a", &labs[0]), "b", &labs[1])
        .key("quarantine.per_destination", "1")
        .start();
    let other = wedge_once(&service, &labs[1], &mut events[1], "b-1");
    let first = wedge_once(&service, &labs[0], &mut events[0], "a-1");
    let second = wedge_once(&service, &labs[0], &mut events[0], "a-2");
    released(&service, 2, "seats");
    assert_reset(&mut events[0], first);
    assert_open(&mut events[0], second);
    assert_open(&mut events[1], other);
    assert_eq!(held(&service), [1, 3], "the other destination's stays");
    assert_eq!(releases(&service.metrics(), "seats"), 1.0);
}

#[test]
fn a_destination_without_a_seat_gets_its_oldest_pair_back() {
    let root = temp_dir();
    let seats = Fault::new(Kind::Seats { max: 1 }).always();
    let lab = LabServer::start(root.path(), seats).unwrap();
    let mut events = lab.events();
    let service = route(settings(), "a", &lab).start();
    let session = wedge_once(&service, &lab, &mut events, "a-1");
    service.wait_log("the destination has no seat for us", |_| true);
    released(&service, 1, "seats");
    assert_reset(&mut events, session);
    let metrics = service.metrics();
    assert_eq!(releases(&metrics, "seats"), 1.0);
    assert_eq!(metrics.get("ftpulse_quarantine_pairs", &[]), Some(0.0));
}

#[test]
fn a_login_that_is_refused_after_a_success_gives_the_oldest_pair_back() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut events = lab.events();
    let service = route(settings(), "a", &lab).start();
    service.put("a", "a-0", b"a success");
    service.wait_delivered("a-0");
    // The session of that file is kept: the next login is the one after the wedge.
    lab.add_fault(Fault::new(Kind::LoginRefused));
    let session = wedge_once(&service, &lab, &mut events, "a-1");
    released(&service, 1, "seats");
    assert_reset(&mut events, session);
    assert_eq!(releases(&service.metrics(), "seats"), 1.0);
}

#[test]
fn unsent_bytes_beyond_the_bound_release_the_oldest_pair() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut events = lab.events();
    let service = route(settings(), "a", &lab)
        .key("quarantine.max_send_bytes", "200KiB")
        .start();
    let first = wedge_once(&service, &lab, &mut events, "a-1");
    let gauge = |service: &Ftpulse| {
        let metrics = service.metrics();
        metrics.get("ftpulse_quarantine_send_bytes", &[]).unwrap()
    };
    let one = gauge(&service);
    println!("one pair holds {one} bytes");
    assert!(one > 100.0 * 1024.0 && one < 200.0 * 1024.0, "{one}");
    assert_eq!(held(&service), [1]);
    let second = wedge_once(&service, &lab, &mut events, "a-2");
    released(&service, 1, "memory");
    assert_reset(&mut events, first);
    assert_open(&mut events, second);
    assert_eq!(held(&service), [2]);
    assert_eq!(releases(&service.metrics(), "memory"), 1.0);
    assert!(gauge(&service) < 200.0 * 1024.0);
}

#[test]
fn a_pair_that_was_held_long_enough_is_released_and_its_incident_is_whole() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut events = lab.events();
    let service = route(settings(), "a", &lab)
        .key("quarantine.hold", "2s")
        .start();
    let session = wedge_once(&service, &lab, &mut events, "a-1");
    assert!(is_held(service.pid(), &incidents(&service)[0]));
    let incident = released(&service, 1, "hold");
    assert_reset(&mut events, session);
    let metrics = service.wait_metrics("it is counted", |m| releases(m, "hold") == 1.0);
    assert_eq!(metrics.get("ftpulse_quarantine_pairs", &[]), Some(0.0));
    assert_eq!(metrics.get("ftpulse_quarantine_send_bytes", &[]), Some(0.0));
    let stay = &incident["quarantine"];
    let seconds = stay["released"].as_f64().unwrap() - stay["entered"].as_f64().unwrap();
    println!("held for {seconds:.3} s\n{incident:#}");
    assert!(seconds >= 1.9, "{seconds}");
    let number = |key: &str| {
        incident[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key}: {incident:#}"))
    };
    assert_eq!(incident["route"], "a");
    assert_eq!((number("slot"), number("epoch")), (0.0, 1.0));
    assert_eq!(incident["file"], "a-1");
    assert_eq!(incident["phase"], "transfer");
    assert_eq!(incident["cause"], "zero_window");
    assert!(number("last_sign_of_life") < number("detected_at"));
    assert!(number("detected_at") < number("recovered_at"));
    let (sent, acked) = (number("bytes_sent"), number("bytes_acked"));
    assert!(acked >= READ as f64, "what the peer has read was acked");
    assert!(
        acked <= sent && sent <= SIZE as f64,
        "acked {acked}, sent {sent}"
    );
    for socket in ["control", "data"] {
        let socket = &incident[socket];
        assert_eq!(socket["state"], "ESTAB");
        for key in [
            "unsent",
            "unacked",
            "retransmits",
            "probes",
            "rtt",
            "last_data_received_ago",
        ] {
            assert!(socket[key].is_number(), "{key}: {socket:#}");
        }
        assert!(socket["local"].is_string() && socket["peer"].is_string());
    }
    assert!(incident["data"]["unsent"].as_u64().unwrap() > 0);
    let thread = &incident["thread"];
    assert_eq!(thread["state"], "S");
    assert!(thread["syscall"].is_i64() && thread["cpu_seconds"].is_f64());
    assert!(thread["wait_channel"].is_string());
    let same = service.json("/api/incidents/1");
    assert_eq!(same, incident);
}

#[test]
fn the_end_of_the_service_releases_every_pair_oldest_first_by_a_reset() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut events = lab.events();
    let mut service = route(settings(), "a", &lab).start();
    let sessions = ["a-1", "a-2", "a-3"].map(|file| wedge_once(&service, &lab, &mut events, file));
    assert_eq!(held(&service), [1, 2, 3]);
    for session in sessions {
        assert_open(&mut events, session);
    }
    assert_eq!(service.terminate(), Some(0));
    let out: Vec<_> = stays(&service)
        .into_iter()
        .filter(|(what, ..)| what == "sockets released")
        .map(|(_, id, reason)| (id, reason))
        .collect();
    let reason = || "shutdown".to_owned();
    assert_eq!(out, [(1, reason()), (2, reason()), (3, reason())]);
    for session in sessions {
        assert_reset(&mut events, session);
    }
}
