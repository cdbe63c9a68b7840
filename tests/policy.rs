//! The two policies on a link that drops everything for 3, 6, 9 and 12 s in mid-file, with the
//! default settings: who convicts, after how long, with how many Pings. Prints the table
//! (`--nocapture`).
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
use ftpulse::core::names::{Beat, Cause};
use ftpulse::lab::{Event, Fault, Kind, LabServer};
use ftpulse::pulse::Sabotage;
use inside::Inside;
use support::service::Settings;
use support::{PATIENCE, content, temp_dir, wait_until};

/// What came of one outage.
#[derive(Debug)]
struct Row {
    policy: &'static str,
    outage: u64,
    /// From the cut to the verdict, if there was one.
    convicted: Option<f64>,
    delivered: f64,
    /// Beats between the cut and the delivery.
    missed: u64,
    pings: u64,
}

fn one(policy: &'static str, outage: u64) -> Row {
    let root = temp_dir();
    let kind = Kind::DeadPath { after: 16 * 1024 };
    let fault = Fault::new(kind).ends_after(Duration::from_secs(outage));
    let lab = LabServer::start(root.path(), fault).unwrap();
    let mut events = lab.events();
    let settings = Settings::new()
        .key("heartbeat.policy", policy)
        .key("routes.main.uploaders", 1)
        .route_to("main", &lab.url("in"), lab.password());
    let service = Inside::start(settings, &Sabotage::default());
    let bytes = content(outage, 2 << 20);
    service.put("main", "file.bin", &bytes);
    let cut = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(cut.is_some(), "the link was not cut");
    let began = clock::mono();
    let beats = |beat| service.metrics.beats("main", beat).get();
    let all = || Beat::ALL.iter().map(|beat| beats(*beat)).sum::<u64>();
    let (before, missed_before) = (all(), beats(Beat::Missed));
    let resets = || {
        service
            .metrics
            .uploader_resets("main", Cause::PathDead)
            .get()
    };
    let mut convicted = None;
    wait_until("the file is delivered", PATIENCE, || {
        if convicted.is_none() && resets() > 0 {
            convicted = Some((clock::mono() - began).as_secs_f64());
        }
        service.delivered("main") == 1
    });
    let delivered = (clock::mono() - began).as_secs_f64();
    let row = Row {
        policy,
        outage,
        convicted,
        delivered,
        missed: beats(Beat::Missed) - missed_before,
        pings: all() - before,
    };
    let all_resets: u64 = Cause::ALL
        .iter()
        .map(|cause| service.metrics.uploader_resets("main", *cause).get())
        .sum();
    assert_eq!(all_resets, resets(), "{row:?}: another cause");
    let arrived = std::fs::read(root.path().join("in/file.bin")).unwrap();
    assert!(arrived == bytes, "{row:?}");
    assert_eq!(service.end(), End::Done);
    row
}

#[test]
fn a_short_outage_convicts_under_neither_policy_and_a_long_one_under_both() {
    let rows: Vec<Row> = std::thread::scope(|scope| {
        let runs: Vec<_> = [3, 6, 9, 12]
            .into_iter()
            .flat_map(|outage| ["count", "lease"].map(|policy| (policy, outage)))
            .map(|(policy, outage)| scope.spawn(move || one(policy, outage)))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    println!("policy  outage  convicted after  delivered after  beats  missed");
    for row in &rows {
        let convicted = row.convicted.map_or("-".into(), |t| format!("{t:.1} s"));
        println!(
            "{:6}  {:4} s  {convicted:>15}  {:13.1} s  {:5}  {:6}",
            row.policy, row.outage, row.delivered, row.pings, row.missed
        );
    }
    for row in &rows {
        match row.outage {
            3 => assert_eq!(row.convicted, None, "{row:?}"),
            12 => assert!(row.convicted.is_some(), "{row:?}"),
            _ => {}
        }
        let most = if row.policy == "count" { 4 } else { 9 };
        assert!(row.missed <= most, "{row:?}");
    }
}
