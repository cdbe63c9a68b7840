//! A wedged upload: what its end leaves behind (an open pair, no thread, a fresh uploader), and
//! when the verdict falls: (N + 2) intervals without a voucher, that much after `timers.stall`
//! with one; and how often a file that always wedges is tried.
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

use ftpulse::clock;
use ftpulse::lab::{Event, Fault, Kind, LabServer, Script};
use serde_json::Value;
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};
use wedge_common::*;

const INTERVAL: Duration = Duration::from_millis(100);
/// Seconds between two looks of a test that is let run: 5 ms and what a look takes.
const LOOK: f64 = 0.05;

fn settings(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.uploaders", "1")
}

#[test]
fn a_stranded_pair_stays_open_while_a_fresh_uploader_delivers_and_the_old_thread_is_gone() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), wedge("file.bin")).unwrap();
    let mut events = lab.events();
    let service = settings(&lab).key("timers.stall", "300ms").start();
    let pid = service.pid();
    let worker = || threads(pid).into_iter().find(|t| t.name == "up-main-0");
    let others: Vec<_> = threads(pid).into_iter().filter(|t| !t.works()).collect();
    assert!(others.len() > 3, "the daemon and its arbiters");
    let least = others.iter().map(|t| t.nice).max().unwrap();
    let first = support::wait_for(
        "the worker's nice value is above all others'",
        PATIENCE,
        || worker().filter(|t| t.nice > least),
    );
    println!("worker {first:?}, all others {others:?}");

    let bytes = content(3, SIZE);
    service.put("main", "file.bin", &bytes);
    let verdict = service.wait_log("deadlock found", |_| true);
    service.wait_delivered("file.bin");
    let incident = wait_incident(&service, "the incident is recovered from", |i| {
        i["recovered_at"].is_f64()
    });
    println!("{incident:#}");
    for socket in ["control", "data"] {
        let held = connection(pid, &incident[socket]);
        println!("{socket}: {held:?} (state 1 is ESTABLISHED)");
    }
    assert!(is_held(pid, &incident), "open, untouched, ours");
    assert_eq!(verdict["epoch"], 1);
    wait_until("the old worker's thread is gone", PATIENCE, || {
        !threads(pid).iter().any(|t| t.id == first.id)
    });
    let workers: Vec<_> = threads(pid).into_iter().filter(Thread::works).collect();
    println!("workers now: {workers:?}");
    assert_eq!(workers.len(), 1);
    assert_ne!(workers[0].id, first.id);
    assert_eq!(workers[0].nice, first.nice);
    let status = service.json("/api/status");
    assert_eq!(status["routes"][0]["slots"][0]["epoch"], 2);
    assert_eq!(status["quarantine"]["pairs"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read(root.path().join("in/file.bin")).unwrap(), bytes);
    let published = |e: &Event| matches!(e, Event::Renamed { to, .. } if to == "/in/file.bin");
    assert_eq!(events.drain().iter().filter(|e| published(e)).count(), 1);
    assert!(is_held(pid, &incident), "still, after all that");
}

/// A verdict on a peer that stopped reading.
struct Verdict {
    incident: Value,
    /// Seconds from the moment when the reader stopped.
    since_stop: f64,
    /// Seconds from the last moment at which the peer was seen to take bytes.
    since_taken: f64,
    /// Seconds in which this test itself was not let run; it saw nothing then, and the service
    /// is likely to have fared no better.
    blind: f64,
}

/// Wedges `count` files one after the other.
fn verdicts(lab: &LabServer, service: &Ftpulse, count: usize) -> Vec<Verdict> {
    let mut events = lab.events();
    let one = |i: usize| {
        let name = format!("w{i}.bin");
        lab.add_fault(wedge(&name));
        service.put("main", &name, &content(i as u64, SIZE));
        let struck = |e: &Event| matches!(e, Event::Struck { path, .. } if path.contains(&name));
        events
            .wait_for(struck, PATIENCE)
            .expect("the peer stops reading");
        let struck = clock::unix();
        // A starved machine may convict an attempt that was never wedged; that is another matter.
        let moving = |line: &Value| line["phase"] == "transfer" || line["phase"] == "drain";
        let ours = |line: &Value| line["file"] == *name && moving(line);
        // The reader has stopped, its kernel has not: it takes what its window still holds, the
        // last of it at a window probe. The send queue stands still from then on.
        let (mut queued, mut moves) = (0, vec![struck]);
        let (mut looked, mut blind) = (struck, 0.0);
        wait_until("the verdict", PATIENCE, || {
            let gap = clock::unix() - looked;
            blind += if gap > LOOK { gap - LOOK } else { 0.0 };
            looked += gap;
            let now = send_queues(service.pid()).into_values().max();
            if now.is_some_and(|now| now != queued) {
                queued = now.unwrap_or_default();
                moves.push(clock::unix());
            }
            service.logged("deadlock found").iter().any(ours)
        });
        service.wait_delivered(&name);
        let incident = wait_incident(service, "its incident", ours);
        let detected = incident["detected_at"].as_f64().unwrap();
        // What moves after the verdict is the next uploader's.
        let last = moves.into_iter().rfind(|at| *at <= detected).unwrap();
        println!(
            "{name}: last byte taken {:.3} s after the stop",
            last - struck
        );
        Verdict {
            incident,
            since_stop: detected - struck,
            since_taken: detected - last,
            blind,
        }
    };
    (0..count).map(one).collect()
}

/// Most verdicts fall within `bound`; a tick that came late (a busy machine) postpones one by a
/// beat, at most N in a row, and no further.
fn assert_within(what: &str, found: &[Verdict], seconds: &[f64], bound: f64) {
    let late = INTERVAL.as_secs_f64() * f64::from(MISSES);
    let blind: Vec<_> = found.iter().map(|v| v.blind).collect();
    println!("{what}: {seconds:.3?}, bound {bound:.3} s and {late:.3} s where ticks are late");
    println!("this test was not let run for {blind:.3?} s");
    let mut over: Vec<_> = seconds.iter().zip(&blind).map(|(s, b)| s - b).collect();
    over.sort_by(f64::total_cmp);
    assert!(over[over.len() / 2] <= bound, "{what}: {over:?}");
    assert!(over[over.len() - 1] <= bound + late, "{what}: {over:?}");
}

#[test]
fn a_wedge_without_any_voucher_is_convicted_within_n_plus_two_intervals() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).key("heartbeat.vouchers", "none").start();
    let found = verdicts(&lab, &service, 5);
    let silent: Vec<_> = found
        .iter()
        .map(|v| {
            let at = |key: &str| v.incident[key].as_f64().unwrap();
            at("detected_at") - at("last_sign_of_life")
        })
        .collect();
    let since_stop: Vec<_> = found.iter().map(|v| v.since_stop).collect();
    // One tick on top: at this interval a tick is an interval.
    let bound = (INTERVAL * (MISSES + 2) + INTERVAL).as_secs_f64();
    assert_within("last sign of life to verdict", &found, &silent, bound);
    assert_within("reader stopped to verdict", &found, &since_stop, bound);
    let least = (INTERVAL * MISSES).as_secs_f64();
    assert!(silent.iter().all(|s| *s > least), "convicted too early");
}

#[test]
fn a_peer_that_stops_reading_is_convicted_when_the_stall_timer_and_the_beats_are_over() {
    let root = temp_dir();
    let stall = Duration::from_secs(1);
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).key("timers.stall", "1s").start();
    let found = verdicts(&lab, &service, 5);
    let seconds: Vec<_> = found.iter().map(|v| v.since_taken).collect();
    let bound = stall + INTERVAL * (MISSES + 2) + INTERVAL;
    assert_within(
        "last byte taken to verdict",
        &found,
        &seconds,
        bound.as_secs_f64(),
    );
    for verdict in &found {
        let seconds = verdict.since_stop;
        assert!(seconds >= stall.as_secs_f64(), "{seconds}: too early");
        let cause = &verdict.incident["cause"];
        assert_eq!(cause, "zero_window", "{:#}", verdict.incident);
    }
}

#[test]
fn a_file_that_always_wedges_keeps_to_its_back_off_and_costs_one_worker_a_time() {
    const TIMES: usize = 8;
    let root = temp_dir();
    let always = Fault::new(Kind::StopReading { after: READ }).always();
    let lab = LabServer::start(root.path(), always).unwrap();
    let service = settings(&lab)
        .key("heartbeat.vouchers", "none")
        .key("retry.first", "10ms")
        .key("retry.max", "500ms")
        .key("retry.jitter", "0")
        .start();
    let pid = service.pid();
    service.put("main", "file.bin", &content(1, SIZE));
    wait_until("it has wedged often enough", PATIENCE, || {
        incidents(&service).len() >= TIMES
    });
    let found = incidents(&service);
    let at: Vec<_> = found
        .iter()
        .map(|i| i["detected_at"].as_f64().unwrap())
        .collect();
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    println!("verdict to verdict: {gaps:.3?}");
    for (failures, gap) in (0u32..).zip(&gaps) {
        let pause = Duration::from_millis(10 << failures).min(Duration::from_millis(500));
        // A worker that wedges lives for more than N beats after its pause.
        let least = pause + INTERVAL * MISSES;
        assert!(
            *gap >= least.as_secs_f64(),
            "{failures}: {gap} under {least:?}"
        );
    }
    let epochs: Vec<_> = found.iter().map(|i| i["epoch"].as_u64().unwrap()).collect();
    assert!(
        epochs.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "one worker each: {epochs:?}"
    );
    let stored = lab.counters().stor_count;
    let resets = service
        .metrics()
        .sum("ftpulse_uploader_resets_total", &[("route", "main")]);
    println!("STOR {stored}, resets {resets}");
    assert!(stored as f64 <= resets + 1.0, "one STOR a life");
    wait_until("one worker is there", PATIENCE, || {
        threads(pid).iter().filter(|t| t.works()).count() == 1
    });
}
