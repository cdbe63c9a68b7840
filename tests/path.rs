//! A path that really dies, between two network namespaces and a real FTP server, with the default
//! heartbeat and timers: it is convicted in time, named as what it is, and when it mends each file
//! arrives whole and once. Prints the times measured (`--nocapture`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use ftpulse::clock::{self, Mono};
use serde_json::Value;
use support::netns::Net;
use support::recipes::Opts;
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, wait_until};

/// What the product promises is 12 s; a machine that is busy with a whole suite gets more.
const BOUND: Duration = Duration::from_secs(20);
/// Some seconds at the speed of `slow_reader`.
const SIZE: usize = 24 << 20;

/// A server that reads 4 MiB/s.
fn slow_reader() -> Opts {
    Opts::default()
        .line("from pyftpdlib.handlers import ThrottledDTPHandler")
        .line("class slow(ThrottledDTPHandler): read_limit = 4 << 20")
        .line("handler.dtp_handler = slow")
}

/// A server that answers its first SIZE after 5 s.
fn slow_answer() -> Opts {
    let answer = "\
import time
size = handler.ftp_SIZE
def late(self, path):
    handler.ftp_SIZE = size
    time.sleep(5)
    return size(self, path)
handler.ftp_SIZE = late";
    Opts::default().line(answer)
}

/// Default heartbeat and timers.
fn settings(net: &Net) -> Settings {
    Settings::new().route("main", net.server(), "in")
}

fn watch(net: &Net) -> Watcher {
    fs::create_dir(net.server().path("in")).unwrap();
    Watcher::start(&net.server().root, is_final_name)
}

/// Waits until that many bytes of an upload have arrived.
fn wait_arriving(net: &Net, bytes: u64) {
    let folder = net.server().path("in");
    wait_until("the file is flowing", PATIENCE, || largest(&folder) > bytes);
}

fn largest(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    sizes.max().unwrap_or(0)
}

/// Waits for the verdict; prints and answers its line.
fn convicted(service: &Ftpulse, what: &str, cut: Mono) -> Value {
    let line = service.wait_log("deadlock found", |_| true);
    let took = clock::mono() - cut;
    println!(
        "{what}: {} in phase {} found {:.2} s after the cut, silent for {} s",
        line["cause"],
        line["phase"],
        took.as_secs_f64(),
        line["silent_seconds"]
    );
    assert_eq!(line["cause"], "path_dead", "{line}");
    assert!(took < BOUND, "{took:?}");
    line
}

/// The file arrived whole and once, and nothing torn was ever to be seen.
fn arrived(net: &Net, service: &Ftpulse, watcher: Watcher, name: &str, bytes: &[u8]) {
    service.wait_delivered(name);
    service.wait_spool_empty("main", PATIENCE);
    let path = format!("in/{name}");
    assert!(fs::read(net.server().path(&path)).unwrap() == bytes);
    assert_eq!(watcher.deliveries(&path), 1, "published once");
    watcher.assert_clean();
    assert_eq!(service.logged("deadlock found").len(), 1);
    let metrics = net.near(|| service.metrics());
    let resets = [("route", "main"), ("cause", "path_dead")];
    assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &resets), 1.0);
}

#[test]
fn a_path_that_dies_while_sending_is_convicted_within_twelve_seconds() {
    let Some(net) = Net::with(slow_reader()) else {
        return;
    };
    let watcher = watch(&net);
    let service = net.run_service(settings(&net));
    let bytes = content(1, SIZE);
    watcher.allow("in/file.bin", &bytes);
    service.put("main", "file.bin", &bytes);
    wait_arriving(&net, 1 << 20);
    let cut = net.cut();
    let line = convicted(&service, "sending", cut);
    assert_eq!(line["phase"], "transfer");
    net.mend();
    arrived(&net, &service, watcher, "file.bin", &bytes);
}

#[test]
fn a_path_that_dies_while_waiting_for_a_reply_is_convicted_long_before_the_reply_timer() {
    let Some(net) = Net::with(slow_answer()) else {
        return;
    };
    let watcher = watch(&net);
    let service = net.run_service(settings(&net));
    let bytes = content(2, 100_000);
    watcher.allow("in/file.bin", &bytes);
    service.put("main", "file.bin", &bytes);
    wait_until("SIZE is read", PATIENCE, || {
        net.server().log().contains("<- SIZE")
    });
    let cut = net.cut();
    let line = convicted(&service, "waiting for a reply", cut);
    assert_eq!(line["phase"], "reply");
    net.mend();
    arrived(&net, &service, watcher, "file.bin", &bytes);
}

#[test]
fn a_path_that_dies_under_an_idle_session_costs_the_next_file_a_verdict_and_no_more() {
    let Some(net) = Net::new() else { return };
    let watcher = watch(&net);
    let service = net.run_service(settings(&net));
    for (name, bytes) in [("first.bin", b"first"), ("second.bin", b"other")] {
        watcher.allow(&format!("in/{name}"), bytes);
    }
    service.put("main", "first.bin", b"first");
    service.wait_delivered("first.bin");
    let cut = net.cut();
    service.put("main", "second.bin", b"other");
    convicted(&service, "idle, then a file", cut);
    net.mend();
    service.wait_delivered("second.bin");
    assert_eq!(watcher.deliveries("in/first.bin"), 1);
    arrived(&net, &service, watcher, "second.bin", b"other");
}

#[test]
fn connections_that_a_firewall_forgot_are_replaced_by_new_ones() {
    let Some(net) = Net::with(slow_reader()) else {
        return;
    };
    let watcher = watch(&net);
    let service = net.run_service(settings(&net));
    let bytes = content(4, SIZE);
    watcher.allow("in/file.bin", &bytes);
    service.put("main", "file.bin", &bytes);
    wait_arriving(&net, 1 << 20);
    let cut = net.cut_flows();
    convicted(&service, "forgotten by a firewall", cut);
    // Nothing is mended.
    arrived(&net, &service, watcher, "file.bin", &bytes);
}
