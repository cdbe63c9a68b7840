//! Healthy but slow is not stuck: with the default heartbeat and timers a slow, late or paused
//! peer, a busy machine and a suspended service cost no reset and no timeout, and every file
//! arrives on its first attempt. FTPULSE_SOAK=1 runs the full lengths (over two minutes).
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
use ftpulse::lab::{Event, Fault, Kind, LabServer};
use rustix::process::Signal;
use support::http::Metrics;
use support::process::{spawn, tied};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};

fn soak() -> bool {
    std::env::var_os("FTPULSE_SOAK").is_some()
}

/// The full length where it is asked for, else one that is still over the detection time
/// of the default settings (10 s).
fn long_or(full: u64, short: u64) -> Duration {
    Duration::from_secs(if soak() { full } else { short })
}

/// Lets time go by, which is what these tests are about.
fn let_pass(time: Duration) {
    let end = clock::mono() + time;
    wait_until("the time is over", time + PATIENCE, || clock::mono() >= end);
}

fn assert_first_attempt(metrics: &Metrics, route: &str, files: f64) {
    let sum = |name: &str, label: (&str, &str)| metrics.sum(name, &[("route", route), label]);
    let all = |name: &str| metrics.sum(name, &[("route", route)]);
    assert_eq!(all("ftpulse_uploader_resets_total"), 0.0, "{route}: resets");
    assert_eq!(all("ftpulse_timeouts_total"), 0.0, "{route}: timeouts");
    assert_eq!(
        all("ftpulse_upload_attempts_total"),
        files,
        "{route}: attempts"
    );
    assert_eq!(
        sum("ftpulse_upload_attempts_total", ("result", "ok")),
        files,
        "{route}: ok"
    );
    assert_eq!(
        sum("ftpulse_files_total", ("outcome", "delivered")),
        files,
        "{route}: files"
    );
}

#[test]
fn slow_late_and_paused_peers_are_no_fault() {
    const KIB: u64 = 1024;
    let trickling = long_or(120, 25);
    let late = long_or(40, 15);
    let paused = Duration::from_secs(20);
    let trickle = |rate: u64| {
        let kind = Kind::Trickle {
            after: 0,
            bytes_per_second: rate as u32,
        };
        (
            Fault::new(kind),
            rate * trickling.as_secs(),
            trickling - Duration::from_secs(2),
        )
    };
    let peers = [
        ("fast_trickle", trickle(64 * KIB)),
        ("slow_trickle", trickle(8 * KIB)),
        (
            "late_final",
            (Fault::new(Kind::Late226(late)), 64 * KIB, late),
        ),
        (
            "closed_window",
            (
                Fault::new(Kind::StopReading { after: 64 * KIB }).ends_after(paused),
                8192 * KIB,
                paused,
            ),
        ),
    ];
    let labs = peers.map(|(route, (fault, size, least))| {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), fault).unwrap();
        (route, lab, root, content(size, size as usize), least)
    });
    let settings = labs
        .iter()
        .fold(Settings::new(), |settings, (route, lab, ..)| {
            settings.route_to(route, &lab.url("in"), lab.password())
        });
    let service = settings.start();
    for (route, _, _, bytes, _) in &labs {
        service.put(route, "file.bin", bytes);
    }
    for (route, lab, root, bytes, least) in &labs {
        let bound = trickling * 2 + PATIENCE;
        let line = service.wait_log_within(bound, "file delivered", |line| line["route"] == *route);
        let took = line["seconds"].as_f64().unwrap();
        println!("{route:14} {} bytes in {took:.1} s", bytes.len());
        assert!(
            took >= least.as_secs_f64(),
            "{route}: the fault was not in the way"
        );
        assert_eq!(
            &fs::read(root.path().join("in/file.bin")).unwrap(),
            bytes,
            "{route}"
        );
        assert_eq!(
            (lab.counters().strikes, lab.counters().stor_count),
            (1, 1),
            "{route}"
        );
        assert_first_attempt(&service.metrics(), route, 1.0);
    }
    let missed = service
        .metrics()
        .sum("ftpulse_beats_total", &[("result", "missed")]);
    println!("missed beats: {missed}");
}

fn service_to(lab: &LabServer) -> Ftpulse {
    Settings::new()
        .route_to("main", &lab.url("in"), lab.password())
        .start()
}

#[test]
fn a_machine_that_is_busy_with_other_work_costs_no_reset() {
    let root = temp_dir();
    let lab = LabServer::start(
        root.path(),
        Fault::new(Kind::Trickle {
            after: 0,
            bytes_per_second: 512 * 1024,
        })
        .first(10),
    )
    .unwrap();
    let service = service_to(&lab);
    let cores = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<_> = (0..cores * 2)
        .map(|_| {
            let mut command = tied("sh");
            command.args(["-c", "while :; do :; done"]);
            spawn(command).unwrap()
        })
        .collect();
    let bytes = content(3, 1 << 20);
    for number in 0..50 {
        service.put("main", &format!("{number}.bin"), &bytes);
    }
    service.wait_metrics("50 files are delivered", |metrics| {
        metrics.sum("ftpulse_files_total", &[("outcome", "delivered")]) >= 50.0
    });
    drop(busy);
    assert_first_attempt(&service.metrics(), "main", 50.0);
    assert_eq!(lab.counters().stor_count, 50);
    for number in 0..50 {
        assert_eq!(
            fs::read(root.path().join(format!("in/{number}.bin"))).unwrap(),
            bytes
        );
    }
}

#[test]
fn a_service_that_was_suspended_in_mid_transfer_goes_on_where_it_stood() {
    let root = temp_dir();
    let rate = 256 * 1024;
    let fault = Fault::new(Kind::Trickle {
        after: 0,
        bytes_per_second: rate,
    });
    let lab = LabServer::start(root.path(), fault).unwrap();
    let mut events = lab.events();
    let service = service_to(&lab);
    // Enough for the transfer to outlast the suspension with what the sockets buffer.
    let bytes = content(4, 8 << 20);
    service.put("main", "file.bin", &bytes);
    assert!(
        events
            .wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE)
            .is_some()
    );
    service.wait_metrics("a beat in mid-transfer", |metrics| {
        metrics.sum("ftpulse_beats_total", &[]) >= 4.0
    });
    service.signal(Signal::STOP);
    let_pass(long_or(30, 14));
    assert_eq!(lab.counters().stored, 0, "still in mid-transfer");
    service.signal(Signal::CONT);
    service.wait_log_within(PATIENCE * 2, "file delivered", |line| {
        line["file"] == "file.bin"
    });
    assert_eq!(fs::read(root.path().join("in/file.bin")).unwrap(), bytes);
    assert_eq!(lab.counters().stor_count, 1);
    assert_first_attempt(&service.metrics(), "main", 1.0);
}

#[test]
fn a_reply_that_came_while_the_service_was_suspended_is_no_timeout() {
    let root = temp_dir();
    let late = Duration::from_secs(3);
    let lab = LabServer::start(root.path(), Fault::new(Kind::Late226(late))).unwrap();
    let mut events = lab.events();
    // Shorter than the suspension: the service wakes up beyond its bound.
    let service = Settings::new()
        .key("timers.reply", "6s")
        .route_to("main", &lab.url("in"), lab.password())
        .start();
    service.put("main", "file.bin", b"its 226 comes late");
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some());
    service.signal(Signal::STOP);
    let_pass(Duration::from_secs(12));
    service.signal(Signal::CONT);
    service.wait_delivered("file.bin");
    assert_eq!(lab.counters().stor_count, 1);
    assert_first_attempt(&service.metrics(), "main", 1.0);
}
