//! `rate_limit`: the uploaders of a route share it, and waiting for it is no fault.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;

use ftpulse::clock;
use ftpulse::lab::{Fault, Kind, LabServer, Script};
use support::service::Settings;
use support::{PATIENCE, content, temp_dir};

/// Sends so many files of this size under a limit. The bytes may exceed what the limit gives in
/// the time by the burst alone; nobody is convicted, no attempt fails.
fn at_most(limit: &str, rate: u64, burst: u64, uploaders: u64, files: u64, size: usize) {
    let there = temp_dir();
    let lab = LabServer::start(there.path(), Script::healthy()).unwrap();
    let service = Settings::new()
        .quick()
        // A busy machine may starve a worker for a second.
        .key("heartbeat.interval", "500ms")
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.uploaders", uploaders)
        .key("routes.main.rate_limit", limit)
        .start();
    let began = clock::mono();
    for number in 0..files {
        service.put("main", &format!("f{number}"), &content(number, size));
    }
    let metrics = service.wait_metrics("all are delivered", |m| {
        m.sum("ftpulse_files_total", &[("outcome", "delivered")]) >= files as f64
    });
    let took = (clock::mono() - began).as_secs_f64();
    let bytes = files * size as u64;
    println!("{bytes} bytes in {took:.2} s under a limit of {limit}");
    assert!(
        bytes as f64 <= rate as f64 * took + burst as f64,
        "{bytes} bytes in {took} s"
    );
    service.wait_spool_empty("main", PATIENCE);
    for number in 0..files {
        let arrived = fs::read(there.path().join("in").join(format!("f{number}"))).unwrap();
        assert!(arrived == content(number, size), "f{number}");
    }
    let attempts = |result| metrics.sum("ftpulse_upload_attempts_total", &[("result", result)]);
    assert_eq!(attempts("ok"), files as f64, "attempts that went well");
    for result in ["error", "timeout", "reset"] {
        assert_eq!(attempts(result), 0.0, "{result}");
    }
    assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &[]), 0.0);
}

#[test]
fn all_uploaders_of_a_route_share_its_limit() {
    at_most("200KiB", 200 << 10, 20 << 10, 3, 4, 200 << 10);
}

/// Each of eight waits some 4 s for its next piece, which is longer than `timers.stall` and than
/// any detection here.
#[test]
fn whoever_waits_long_for_the_bucket_is_not_convicted() {
    at_most("1KiB", 1 << 10, 1 << 10, 8, 8, 2 << 10);
}

/// A peer that takes nothing any more is found under a limit as well.
#[test]
fn a_limit_hides_neither_a_dead_path_nor_a_peer_that_stops_reading() {
    let after = 64 << 10;
    for (kind, cause) in [
        (Kind::DeadPath { after }, "path_dead"),
        (Kind::StopReading { after }, "zero_window"),
    ] {
        let there = temp_dir();
        let fault = Fault::new(kind).matching("file.bin", 1);
        let lab = LabServer::start(there.path(), fault).unwrap();
        let service = Settings::new()
            .quick()
            .key("heartbeat.interval", "500ms")
            .route_to("main", &lab.url("in"), lab.password())
            .key("routes.main.rate_limit", "512KiB")
            .start();
        service.put("main", "file.bin", &content(1, 1 << 20));
        service.wait_delivered("file.bin");
        let found = service.wait_log("deadlock found", |_| true);
        assert_eq!(found["cause"], cause, "{found}");
    }
}
