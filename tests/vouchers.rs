//! Local work that takes long is no fault: with the default settings a worker that computes for a
//! minute in the phase `hash`, and one whose disk takes its time, are vouched for, and their files
//! arrive on the first attempt. FTPULSE_SOAK=1 runs the full lengths.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
#[path = "support/inside.rs"]
mod inside;

use std::time::Duration;

use ftpulse::app::End;
use ftpulse::clock;
use ftpulse::core::names::{AttemptResult, Beat, Cause, Phase};
use ftpulse::lab::{LabServer, Script};
use ftpulse::pulse::{Point, Sabotage, WorkerHandle};
use inside::Inside;
use support::service::Settings;
use support::{PATIENCE, temp_dir, wait_until};

/// The full length where it is asked for, else one that is still over the detection time of the
/// default settings (10 s).
fn long_or(full: u64) -> Duration {
    let soak = std::env::var_os("FTPULSE_SOAK").is_some();
    Duration::from_secs(if soak { full } else { 14 })
}

/// The worker does `work` for `time` before it opens the source; its file arrives nevertheless.
fn arrives_at_first(
    time: Duration,
    work: impl Fn(&WorkerHandle, Duration) + Send + Sync + 'static,
) {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let sabotage = Sabotage::default();
    sabotage.arm_worker(Point::Source, "main", move |worker| work(worker, time));
    let settings = Settings::new().route_to("main", &lab.url("in"), lab.password());
    let service = Inside::start(settings, &sabotage);
    let began = clock::mono();
    service.put("main", "file.bin", b"late, but it comes");
    wait_until("the file is delivered", time + PATIENCE, || {
        service.delivered("main") == 1
    });
    assert!(clock::mono() - began >= time, "the work was not in the way");
    let metrics = &service.metrics;
    let resets: u64 = Cause::ALL
        .iter()
        .map(|cause| metrics.uploader_resets("main", *cause).get())
        .sum();
    let beats = |beat| metrics.beats("main", beat).get();
    println!(
        "vouched {}, missed {}",
        beats(Beat::Vouched),
        beats(Beat::Missed)
    );
    assert_eq!(resets, 0);
    assert!(beats(Beat::Vouched) >= 5, "nobody had to vouch");
    assert_eq!(metrics.upload_attempts("main", AttemptResult::Ok).get(), 1);
    assert_eq!(lab.counters().stor_count, 1);
    assert_eq!(service.end(), End::Done);
}

#[test]
fn a_worker_that_computes_a_hash_for_a_minute_is_no_fault() {
    arrives_at_first(long_or(60), |worker, time| {
        worker.begin(Phase::Hash, None);
        let end = clock::mono() + time;
        while clock::mono() < end {
            std::hint::spin_loop();
        }
    });
}

#[test]
fn a_disk_that_takes_its_time_is_no_fault() {
    arrives_at_first(long_or(25), |_, time| {
        let end = clock::mono() + time;
        while clock::mono() < end {
            std::thread::park_timeout(end.saturating_sub(clock::mono()));
        }
    });
}
