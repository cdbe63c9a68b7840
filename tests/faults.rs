//! For every fault of the lab, on the first attempt: the file is delivered in the end, whole and
//! once; deadlocks show as resets with an incident, timeouts as timeouts, and what is refused for
//! ever holds nobody else up. Prints the table of what was seen (`--nocapture`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::core::names::Cause;
use ftpulse::lab::{Event, Expected, Fault, Kind, LabServer, Named, Step};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir};

/// Large enough for every fault that strikes in mid-file, and for a window that closes.
const SIZE: usize = 8 << 20;

fn service_for(lab: &LabServer, uploaders: u32) -> Ftpulse {
    settings_for(lab, uploaders).start()
}

fn settings_for(lab: &LabServer, uploaders: u32) -> Settings {
    Settings::new()
        .quick()
        // A machine that runs six services at once may starve a worker for half a second.
        .key("heartbeat.misses", 9)
        .key("routes.main.uploaders", uploaders)
        .route_to("main", &lab.url("in"), lab.password())
}

/// The fault as it strikes here: the named ones last longer than a test should.
fn scripted(named: &Named) -> Fault {
    let kind = match named.kind {
        Kind::Trickle { after, .. } => Kind::Trickle {
            after,
            bytes_per_second: 4 << 20,
        },
        Kind::Late226(_) => Kind::Late226(Duration::from_secs(1)),
        other => other,
    };
    Fault::new(kind).first(1)
}

/// Runs one fault; answers its row of the table.
fn one(named: &Named) -> String {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), scripted(named)).unwrap();
    let mut events = lab.events();
    let mut settings = settings_for(&lab, 1);
    if named.cause == Some(Cause::PathDead) {
        // Two unanswered probes and ten beats take as long as the quick reply timer.
        settings = settings.key("timers.reply", "30s");
    }
    let service = settings.start();
    let bytes = content(7, SIZE);
    service.put("main", "file.bin", &bytes);
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some(), "it did not strike");
    let began = clock::mono();
    let healthy = matches!(named.expected, Expected::Success)
        || matches!(named.kind, Kind::WrongPasv | Kind::EpsvRefused);
    let over = if healthy {
        "file delivered"
    } else {
        let first = [
            "upload failed",
            "uploader reset",
            "the destination gives no session",
        ];
        let line = service.wait_any(&first);
        first.into_iter().find(|m| line["msg"] == **m).unwrap()
    };
    let found = clock::mono() - began;
    service.wait_delivered("file.bin");
    let delivered = clock::mono() - began;
    assert_eq!(fs::read(root.path().join("in/file.bin")).unwrap(), bytes);
    service.wait_spool_empty("main", PATIENCE);
    let seen = events.drain();
    let published = |e: &&Event| matches!(e, Event::Renamed { to, .. } if to == "/in/file.bin");
    assert_eq!(seen.iter().filter(published).count(), 1, "published once");
    let metrics = service.metrics();
    let resets = metrics.sum("ftpulse_uploader_resets_total", &[]);
    let timeouts = metrics.sum("ftpulse_timeouts_total", &[]);
    let incidents = service.json("/api/incidents").as_array().unwrap().len();
    let deadlocks = service.logged("deadlock found");
    let cause = deadlocks.first().and_then(|line| line["cause"].as_str());
    match named.expected {
        Expected::Deadlock => {
            assert_eq!((resets, timeouts), (1.0, 0.0));
            assert_eq!(incidents, 1);
            assert_eq!(cause, named.cause.map(Cause::as_str));
        }
        Expected::Timeout if !healthy => assert_eq!((resets, timeouts), (0.0, 1.0)),
        Expected::Timeout | Expected::Error | Expected::Success => {
            assert_eq!((resets, timeouts), (0.0, 0.0));
        }
    }
    format!(
        "{:24} {:34} {:6.2} {:10.2} {resets:6} {timeouts:8} {}",
        named.name,
        over,
        found.as_secs_f64(),
        delivered.as_secs_f64(),
        cause.unwrap_or("-"),
    )
}

#[test]
fn every_fault_ends_with_the_file_delivered_whole_and_once() {
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    // A few at a time: many services on two cores would starve each other's short timers.
    for some in Fault::names().chunks(6) {
        std::thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|named| (named.name, scope.spawn(|| one(named))))
                .collect();
            for (name, thread) in running {
                match thread.join() {
                    Ok(row) => rows.push(row),
                    Err(_) => failed.push(name),
                }
            }
        });
    }
    println!(
        "{:24} {:34} {:>6} {:>10} resets timeouts cause",
        "fault", "first seen as", "found", "delivered"
    );
    for row in rows {
        println!("{row}");
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_file_that_is_refused_for_ever_waits_while_all_others_flow() {
    for code in [550, 552, 553] {
        let root = temp_dir();
        let fault = Fault::new(Kind::Reply(Step::Stor, code)).matching("bad", u32::MAX);
        let lab = LabServer::start(root.path(), fault).unwrap();
        let service = service_for(&lab, 2);
        service.put("main", "bad.bin", b"never");
        for number in 0..20 {
            service.put("main", &format!("good-{number}.bin"), b"fine");
        }
        for number in 0..20 {
            service.wait_delivered(&format!("good-{number}.bin"));
        }
        service.wait_log("upload failed", |l| {
            l["file"] == "bad.bin" && l["attempt"] == 3
        });
        assert!(
            service.spool("main").join("bad.bin").exists(),
            "{code}: nothing is lost"
        );
        assert_eq!(
            service.metrics().sum("ftpulse_uploader_resets_total", &[]),
            0.0
        );
    }
}
