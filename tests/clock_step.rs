//! Somebody sets the wall clock by an hour, forward and back, while uploads wait for a reply, for
//! their retry and in the quarantine, and while a file settles: every bound keeps its length, no
//! worker is convicted for it, and what the incident tells stays true.
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
use ftpulse::clock::{self, Mono};
use ftpulse::core::names::{AttemptResult, Cause, Phase, ReleaseReason};
use ftpulse::lab::{Event, Fault, Kind, LabServer, Step};
use ftpulse::pulse::Sabotage;
use inside::Inside;
use support::service::Settings;
use support::{PATIENCE, content, temp_dir, wait_until};

const HOUR_MS: i64 = 3_600_000;
/// Far less than an hour, far more than a busy machine adds to a bound of seconds.
const SOON: Duration = Duration::from_secs(30);

/// How long it takes from now until the condition holds; at least `least`.
fn takes(what: &str, began: Mono, least: Duration, holds: impl FnMut() -> bool) {
    wait_until(what, PATIENCE, holds);
    let took = clock::mono() - began;
    println!("{what}: after {took:.1?}");
    assert!(took >= least && took < SOON, "{what}: {took:?}");
}

/// The clock is set right after the fault has struck; what follows keeps its length.
fn one(by_ms: i64) {
    let root = temp_dir();
    let lab = LabServer::start(
        root.path(),
        ftpulse::lab::Script::of([
            Fault::new(Kind::NoReply(Step::Final)).matching("silent", 1),
            Fault::new(Kind::StopReading { after: 16 * 1024 }).matching("wedged", 1),
        ]),
    )
    .unwrap();
    let mut events = lab.events();
    let settings = Settings::new()
        .key("heartbeat.interval", "200ms")
        .key("timers.reply", "3s")
        .key("timers.stall", "2s")
        .key("retry.first", "2s")
        .key("retry.jitter", "0")
        .key("quarantine.hold", "3s")
        .route_to("main", &lab.url("in"), lab.password());
    let settle = settings.spool("main");
    let service = Inside::start(settings, &Sabotage::default());
    let mut strike = |part: &str| {
        let struck = |e: &Event| matches!(e, Event::Struck { path, .. } if path.contains(part));
        assert!(events.wait_for(struck, PATIENCE).is_some(), "{part}");
        clock::mono()
    };
    service.put("main", "silent.bin", b"waits for its 226");
    service.put("main", "wedged.bin", &content(3, 512 * 1024));
    let (silent, wedged) = (strike("silent"), strike("wedged"));
    clock::step_wall(by_ms);
    let metrics = &service.metrics;
    takes(
        "the reply timer",
        silent,
        Duration::from_millis(2900),
        || metrics.timeouts("main", Phase::FinalReply).get() == 1,
    );
    takes("the stall timer", wedged, Duration::from_secs(2), || {
        metrics.uploader_resets("main", Cause::ZeroWindow).get() == 1
    });
    // Written in place, so that it has to settle: its time stamp is the kernel's, an hour away.
    let (began, copied) = (clock::mono(), b"copied into the spool");
    std::fs::write(settle.join("copied.bin"), copied).unwrap();
    takes("settling and two retries", began, Duration::ZERO, || {
        service.delivered("main") == 3
    });
    takes("the hold", wedged, Duration::from_secs(5), || {
        metrics.quarantine_releases(ReleaseReason::Hold).get() == 1
    });
    for result in [AttemptResult::Timeout, AttemptResult::Reset] {
        assert_eq!(metrics.upload_attempts("main", result).get(), 1, "{result}");
    }
    let incident = &service.incidents()[0];
    let time = |key: &str| incident[key].as_f64().unwrap();
    let recovery = time("recovered_at") - time("detected_at");
    let silence = time("detected_at") - time("last_sign_of_life");
    assert!((2.0..30.0).contains(&recovery), "{incident}");
    assert!((0.0..30.0).contains(&silence), "{incident}");
    assert_eq!(service.end(), End::Done);
}

#[test]
fn a_wall_clock_that_is_set_changes_no_bound() {
    // One after the other: the clock is the process's.
    one(HOUR_MS);
    one(-2 * HOUR_MS);
}
