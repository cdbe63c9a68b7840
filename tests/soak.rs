//! Many wedges: nothing of them stays. One after the other (`FTPULSE_WEDGES`, threads, descriptors
//! and memory are flat) and many at a time (`FTPULSE_SOAK`, every ended worker's thread ends).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
mod wedge_common;

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use ftpulse::lab::{LabServer, Script};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_for, wait_until};
use wedge_common::*;

/// A count from the environment, for runs that are larger than a suite can bear.
fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn settings(lab: &LabServer, uploaders: usize) -> Settings {
    Settings::new()
        .quick()
        .key("timers.stall", "100ms")
        .key("retry.first", "10ms")
        .key("log.level", "info")
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.uploaders", uploaders)
}

/// Resets so far, whatever cause was found: on a busy machine not every one is told by its window.
fn resets(service: &Ftpulse) -> f64 {
    let other = |line: &&serde_json::Value| line["cause"] != "zero_window";
    let verdicts = service.logged("deadlock found");
    for line in verdicts.iter().filter(other) {
        println!("another cause: {line}");
    }
    let metrics = service.metrics();
    metrics.sum("ftpulse_uploader_resets_total", &[])
}

/// The threads of a process by name, in order.
fn names_of(pid: u32) -> Vec<String> {
    let mut names: Vec<_> = threads(pid).into_iter().map(|t| t.name).collect();
    names.sort();
    names
}

/// The published file is whole; it is taken away, so that thousands need no room.
fn take(folder: &Path, name: &str, bytes: &[u8]) -> bool {
    let path = folder.join(name);
    let Ok(found) = fs::read(&path) else {
        return false;
    };
    assert!(found == bytes, "{name}: {} bytes that differ", found.len());
    fs::remove_file(path).unwrap();
    true
}

#[test]
fn wedges_in_a_row_leave_threads_descriptors_and_memory_flat() {
    let total = count("FTPULSE_WEDGES", 25);
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab, 1)
        .key("quarantine.capacity", "4")
        .key("quarantine.per_destination", "4")
        .start();
    let (pid, folder) = (service.pid(), root.path().join("in"));
    let every = if total >= 100 { 10 } else { 5 };
    let mut series = vec![];
    for i in 1..=total {
        let name = format!("f{i:05}.bin");
        let bytes = content(i as u64, SIZE);
        lab.set_faults(vec![wedge(&name)]);
        service.put("main", &name, &bytes);
        wait_until("the file is delivered", PATIENCE, || {
            take(&folder, &name, &bytes)
        });
        if i % every == 0 {
            service.wait_spool_empty("main", PATIENCE);
            let now = wait_for("the last worker has left", PATIENCE, || {
                let threads = threads(pid);
                let one = threads.iter().filter(|t| t.works()).count() == 1;
                one.then(|| (threads.len(), descriptors(pid).len(), resident_kib(pid)))
            });
            series.push(now);
        }
    }
    let found = resets(&service);
    let metrics = service.metrics();
    println!("{total} files, {found} resets, every {every}th:");
    println!(
        "threads     {:?}",
        series.iter().map(|s| s.0).collect::<Vec<_>>()
    );
    println!(
        "descriptors {:?}",
        series.iter().map(|s| s.1).collect::<Vec<_>>()
    );
    println!(
        "RSS, KiB    {:?}",
        series.iter().map(|s| s.2).collect::<Vec<_>>()
    );
    assert!(found >= total as f64, "each one was reset");
    assert_eq!(metrics.get("ftpulse_stranded_workers", &[]), Some(0.0));
    // From the first sample on (the quarantine is full by then).
    let spread = |of: fn(&(usize, usize, u64)) -> u64| {
        let values = series.iter().map(of);
        values.clone().max().unwrap() - values.min().unwrap()
    };
    // An HTTP connection of ours may be closing, a notice of the log's thread may be open.
    assert!(spread(|s| s.0 as u64) <= 1, "threads");
    assert!(spread(|s| s.1 as u64) <= 4, "descriptors");
    // The records of the last 1,000 incidents are kept, a KiB or so each.
    let (first, last) = (series[0].2, series[series.len() - 1].2);
    let bound = 2048 + 4 * total as u64;
    assert!(last <= first + bound, "RSS: {first} to {last} KiB");
}

#[test]
fn of_many_transfers_whose_peer_stops_reading_every_thread_ends() {
    const UPLOADERS: usize = 8;
    let total = count("FTPULSE_SOAK", 60);
    let root = temp_dir();
    let names: Vec<_> = (0..total).map(|i| format!("f{i:05}.bin")).collect();
    let first_attempts = names.iter().map(|name| wedge(name));
    let lab = LabServer::start(root.path(), Script::of(first_attempts)).unwrap();
    let service = settings(&lab, UPLOADERS)
        .key("quarantine.capacity", UPLOADERS)
        .key("quarantine.per_destination", UPLOADERS)
        .start();
    let (pid, folder) = (service.pid(), root.path().join("in"));
    let count_workers = || threads(pid).iter().filter(|t| t.works()).count();
    wait_until("all workers are there", PATIENCE, || {
        count_workers() == UPLOADERS
    });
    // Once a request is served the HTTP side's own thread is there too.
    service.metrics();
    let before = names_of(pid);
    let bytes = content(5, SIZE);
    let (mut next, mut open) = (names.iter(), VecDeque::new());
    let (mut most_stranded, mut most_threads) = (0.0_f64, 0);
    while open.len() + next.len() > 0 {
        while open.len() < 4 * UPLOADERS
            && let Some(name) = next.next()
        {
            service.put("main", name, &bytes);
            open.push_back(name);
        }
        let left = open.len();
        wait_until("a file is delivered", PATIENCE, || {
            open.retain(|name| !take(&folder, name, &bytes));
            open.len() < left
        });
        let stranded = service.metrics().get("ftpulse_stranded_workers", &[]);
        most_stranded = most_stranded.max(stranded.unwrap());
        most_threads = most_threads.max(threads(pid).len());
    }
    let found = resets(&service);
    let struck = lab.counters().strikes;
    println!("{total} transfers, {struck} whose peer stopped, {found} resets");
    println!("stranded workers at most {most_stranded}");
    assert_eq!(struck, total as u64);
    assert!(found >= total as f64, "each one was reset");
    assert_eq!(most_stranded, 0.0);
    assert_eq!(service.logged("an ended worker cannot leave").len(), 0);
    wait_until("every ended worker's thread has ended", PATIENCE, || {
        count_workers() == UPLOADERS
    });
    let after = names_of(pid);
    println!("threads before {before:?}, at most {most_threads}, after {after:?}");
    assert_eq!(after, before);
}
