//! The service's own parts break, one after the other, and it goes on: a handler or a worker
//! panics, an event loop dies or wedges, a worker cannot end. What it cannot heal within the
//! process it passes on: it ends and asks to be restarted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
#[path = "support/hung.rs"]
mod hung;
#[path = "support/inside.rs"]
mod inside;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use ftpulse::app::End;
use ftpulse::clock;
use ftpulse::lab::{Fault, Kind, LabServer};
use ftpulse::pulse::{Point, Sabotage};
use inside::Inside;
use support::service::Settings;
use support::{PATIENCE, content, temp_dir, wait_until};

/// A server that takes `seconds` to read `size` bytes: time for something to break meanwhile.
fn slow_lab(size: usize, seconds: usize) -> (LabServer, tempfile::TempDir) {
    let root = temp_dir();
    let kind = Kind::Trickle {
        after: 0,
        bytes_per_second: (size / seconds) as u32,
    };
    let lab = LabServer::start(root.path(), Fault::new(kind)).unwrap();
    (lab, root)
}

const SIZE: usize = 4 << 20;

fn quick(lab: &LabServer, routes: &[&str]) -> Settings {
    let settings = Settings::new()
        .quick()
        .key("shutdown.grace", "1s")
        .key("quarantine.hold", "1s");
    routes.iter().fold(settings, |settings, route| {
        settings.route_to(route, &lab.url(route), lab.password())
    })
}

/// Breaks a part in the middle of a file; the file arrives in the end, whole and once.
fn breaks_in_mid_file(
    point: Point,
    deed: impl Fn() + Send + Sync + 'static,
) -> (Inside, LabServer, tempfile::TempDir) {
    let (lab, root) = slow_lab(SIZE, 2);
    let sabotage = Sabotage::default();
    let service = Inside::start(quick(&lab, &["main"]), &sabotage);
    let bytes = content(5, SIZE);
    service.put("main", "file.bin", &bytes);
    lab.wait_counters(|c| c.strikes == 1, PATIENCE).unwrap();
    sabotage.arm(point, 1, deed);
    wait_until("the file is delivered", PATIENCE, || {
        service.delivered("main") == 1
    });
    assert_eq!(sabotage.left(), 0, "nothing broke");
    assert_eq!(
        std::fs::read(root.path().join("main/file.bin")).unwrap(),
        bytes
    );
    let published = lab.counters().rename_count;
    assert!(published >= 1, "published");
    service.wait_slots(|slots| slots.iter().all(|s| s["phase"] != "none"));
    assert!(
        service
            .slots()
            .iter()
            .any(|s| s["epoch"].as_u64() >= Some(2)),
        "a fresh worker"
    );
    (service, lab, root)
}

#[test]
fn a_handler_that_panics_costs_its_slot_a_moment() {
    let (service, _lab, _root) = breaks_in_mid_file(Point::Uploader, || panic!("a handler panics"));
    assert_eq!(service.end(), End::Done);
}

#[test]
fn a_worker_that_panics_in_mid_file_is_replaced_and_the_file_delivered() {
    let (service, _lab, _root) = breaks_in_mid_file(Point::Transfer, || panic!("a worker panics"));
    assert_eq!(service.end(), End::Done);
}

#[test]
fn a_dead_arbiter_is_replaced_and_all_its_slots_come_back() {
    let (service, _lab, _root) = breaks_in_mid_file(Point::Uploader, || {
        actix::Arbiter::current().stop();
    });
    let slots = service.slots();
    assert_eq!(slots.len(), 2);
    assert!(
        slots.iter().all(|s| s["epoch"].as_u64() >= Some(2)),
        "{slots:?}"
    );
    for number in 0..6 {
        service.put("main", &format!("more-{number}"), b"more");
    }
    wait_until("later files are delivered", PATIENCE, || {
        service.delivered("main") == 7
    });
    assert_eq!(service.end(), End::Done);
}

#[test]
fn an_arbiter_that_a_handler_never_gives_back_is_left_behind() {
    let over = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&over);
    let (service, _lab, _root) = breaks_in_mid_file(Point::Uploader, move || park_until(&held));
    assert!(
        service
            .slots()
            .iter()
            .all(|s| s["epoch"].as_u64() >= Some(2))
    );
    over.store(true, SeqCst);
    assert_eq!(service.end(), End::Done);
}

/// What no signal and no dead descriptor ends: a wait that goes on after every interruption.
fn park_until(over: &AtomicBool) {
    while !over.load(SeqCst) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Counts how often a new life is begun when each ends at once.
/// Ungated it is some 20 in six seconds, and as many in the next.
fn lives(point: Point) -> (usize, usize) {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let sabotage = Sabotage::default();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    sabotage.arm(point, 10_000, move || {
        counted.fetch_add(1, SeqCst);
        std::panic::resume_unwind(Box::new("killed at birth"));
    });
    let settings = quick(&lab, &["main"]).key("routes.main.uploaders", "1");
    let service = Inside::start(settings, &sabotage);
    service.put("main", "file.bin", b"late, but it comes");
    let mut marks = [0, 0];
    for mark in &mut marks {
        let end = clock::mono() + Duration::from_secs(6);
        wait_until("six seconds are over", PATIENCE, || clock::mono() >= end);
        *mark = count.load(SeqCst);
    }
    sabotage.disarm();
    // The pause that runs may be a long one by now.
    wait_until("the file is delivered", PATIENCE, || {
        service.delivered("main") == 1
    });
    assert_eq!(service.end(), End::Done);
    (marks[0], marks[1])
}

#[test]
fn workers_that_die_at_birth_are_restarted_ever_more_slowly() {
    let (first, both) = lives(Point::Worker);
    println!("workers that died at birth: {first} in 6 s, {both} in 12 s");
    assert!(first >= 3 && both <= 20, "{first}, {both}");
}

#[test]
fn actors_that_die_at_birth_are_restarted_ever_more_slowly() {
    let (first, both) = lives(Point::Uploader);
    println!("actors that died at birth: {first} in 6 s, {both} in 12 s");
    assert!(first >= 3 && both <= 20, "{first}, {both}");
}

/// A part without which the service cannot heal itself: it ends and asks to be restarted.
fn escalates(point: Point, deed: impl Fn() + Send + Sync + 'static) {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let sabotage = Sabotage::default();
    let service = Inside::start(quick(&lab, &["main"]), &sabotage);
    service.put("main", "before", b"before");
    wait_until("it works", PATIENCE, || service.delivered("main") == 1);
    sabotage.arm(point, 1, deed);
    service.put("main", "after", b"after");
    assert_eq!(service.ended(), End::Escalated);
    assert_eq!(sabotage.left(), 0);
}

#[test]
fn without_its_daemon_the_service_asks_to_be_restarted() {
    escalates(Point::Daemon, || panic!("the daemon panics"));
}

#[test]
fn without_the_daemons_event_loop_the_service_asks_to_be_restarted() {
    escalates(Point::Daemon, || {
        actix::Arbiter::current().stop();
    });
}

#[test]
fn without_its_quarantine_the_service_asks_to_be_restarted() {
    escalates(Point::Quarantine, || panic!("the quarantine panics"));
}

#[test]
fn without_its_collector_the_service_asks_to_be_restarted() {
    escalates(Point::Collector, || panic!("the collector panics"));
}

#[test]
fn without_the_collectors_event_loop_the_service_asks_to_be_restarted() {
    escalates(Point::Collector, || {
        actix::Arbiter::current().stop();
    });
}

#[test]
fn two_workers_that_cannot_end_suspend_their_route_until_they_do() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let sabotage = Sabotage::default();
    let over = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&over);
    sabotage.arm(Point::Transfer, 2, move || park_until(&held));
    let service = Inside::start(quick(&lab, &["stuck", "well"]), &sabotage);
    for name in ["a", "b", "c"] {
        service.put("stuck", name, &content(1, 1 << 20));
    }
    wait_until("two workers are stuck", PATIENCE, || sabotage.left() == 0);
    wait_until("both count as stranded", PATIENCE, || {
        service.metrics.stranded_workers().get() == 2
    });
    wait_until("the route is suspended", PATIENCE, || {
        !service.route("stuck")["suspended"].is_null()
    });
    // What was in work before comes to its end first.
    wait_until("none of its slots is in work", PATIENCE, || {
        let slots = service.route("stuck")["slots"].clone();
        slots
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["file"].is_null())
    });
    let so_far = service.delivered("stuck");
    for name in ["a", "b", "c"] {
        service.put("well", name, b"flows");
        service.put("stuck", &format!("later-{name}"), b"waits");
    }
    wait_until("the other route's files flow", PATIENCE, || {
        service.delivered("well") == 3
    });
    assert_eq!(
        service.delivered("stuck"),
        so_far,
        "a suspended route sends nothing"
    );
    over.store(true, SeqCst);
    wait_until("the route goes on when they end", PATIENCE, || {
        service.delivered("stuck") == 6
    });
    assert_eq!(service.metrics.stranded_workers().get(), 0);
    assert!(service.route("stuck")["suspended"].is_null());
    assert_eq!(service.end(), End::Done);
}

/// One uploader that cannot end, in a service that tolerates `limit` of them.
fn one_stuck(limit: u32) -> (Inside, Arc<AtomicBool>, LabServer, tempfile::TempDir) {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let sabotage = Sabotage::default();
    let over = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&over);
    sabotage.arm(Point::Transfer, 1, move || park_until(&held));
    let settings = quick(&lab, &["stuck", "well"])
        .key("heartbeat.max_stranded_workers", limit)
        .key("routes.stuck.uploaders", "1");
    let service = Inside::start(settings, &sabotage);
    service.put("stuck", "file.bin", b"goes to the next worker");
    wait_until("a worker is stuck", PATIENCE, || sabotage.left() == 0);
    (service, over, lab, root)
}

#[test]
fn a_tolerated_worker_that_cannot_end_costs_nothing_but_its_thread() {
    let (service, over, _lab, _root) = one_stuck(1);
    wait_until("it counts as stranded", PATIENCE, || {
        service.metrics.stranded_workers().get() == 1
    });
    wait_until("its file is delivered", PATIENCE, || {
        service.delivered("stuck") == 1
    });
    over.store(true, SeqCst);
    wait_until("it has ended", PATIENCE, || {
        service.metrics.stranded_workers().get() == 0
    });
    assert_eq!(service.end(), End::Done);
}

#[test]
fn more_such_workers_than_are_tolerated_end_the_service() {
    let (service, over, _lab, _root) = one_stuck(0);
    assert_eq!(service.ended(), End::Escalated);
    over.store(true, SeqCst);
}

#[test]
fn a_spool_on_a_hung_disk_ends_the_process_with_70() {
    let (lab, _root) = slow_lab(SIZE, 1);
    let settings = quick(&lab, &["main"]);
    let spool = settings.spool("main");
    // Only a part of the spool hangs: its lock and its first scan shall work.
    let inner = spool.join("share");
    std::fs::create_dir(&inner).unwrap();
    let Some(disk) = hung::HungDisk::mount(&inner, &["one.bin", "two.bin"]) else {
        println!("skipped: this machine does not permit a FUSE mount");
        return;
    };
    let mut service = settings.start();
    // Unmounted before the service's folders are removed.
    let disk = disk;
    wait_until("both uploaders hang in a read", PATIENCE, || {
        disk.reads() >= 2
    });
    let found = service.wait_log("deadlock found", |_| true);
    println!("cause {} in phase {}", found["cause"], found["phase"]);
    assert_eq!(found["cause"], "disk", "{found}");
    service.wait_log("an ended worker cannot leave", |_| true);
    service.wait_log("route suspended: two of its workers cannot end", |_| true);
    assert_eq!(service.wait_exit(PATIENCE).code(), Some(70));
    assert_eq!(lab.counters().rename_count, 0, "nothing was published");
}

/// With the default settings.
#[test]
fn a_file_whose_disk_hangs_for_a_while_is_named_so_and_delivered_whole() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let settings = Settings::new().route_to("main", &lab.url("in"), lab.password());
    let inner = settings.spool("main").join("share");
    std::fs::create_dir(&inner).unwrap();
    let Some(disk) = hung::HungDisk::mount(&inner, &["one.bin"]) else {
        println!("skipped: this machine does not permit a FUSE mount");
        return;
    };
    // The mount's files cannot be deleted.
    let service = settings.key("routes.main.after", "keep").start();
    let disk = disk;
    wait_until("an uploader hangs in a read", PATIENCE, || {
        disk.reads() >= 1
    });
    let began = clock::mono();
    service.put("main", "other.bin", b"flows meanwhile");
    service.wait_delivered("other.bin");
    let found = service.wait_log("deadlock found", |_| true);
    println!(
        "hung disk: cause {} in phase {}, found after {:.1?}",
        found["cause"],
        found["phase"],
        clock::mono() - began
    );
    assert_eq!(found["cause"], "disk", "{found}");
    disk.mend();
    service.wait_delivered("share/one.bin");
    println!("delivered after {:.1?}", clock::mono() - began);
    let arrived = std::fs::read(root.path().join("in/share/one.bin")).unwrap();
    assert_eq!(arrived, vec![0; hung::SIZE as usize]);
    assert_eq!(lab.counters().rename_count, 2, "each was published once");
    service.wait_metrics("the old worker has left", |m| {
        m.get("ftpulse_stranded_workers", &[]) == Some(0.0)
    });
}

/// The service's own /etc/resolv.conf, in a mount namespace of its own, names a loopback address
/// that takes questions and never answers.
#[test]
fn a_name_look_up_without_an_answer_is_a_timeout_of_its_phase() {
    let Some(resolver) =
        (2..250).find_map(|n| std::net::UdpSocket::bind((format!("127.77.3.{n}"), 53)).ok())
    else {
        println!("skipped: this user may not bind port 53");
        return;
    };
    let conf = temp_dir();
    let conf = conf.path().join("resolv.conf");
    std::fs::write(
        &conf,
        format!(
            "nameserver {}\noptions timeout:4 attempts:1\n",
            resolver.local_addr().unwrap().ip()
        ),
    )
    .unwrap();
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let url = format!("ftp://lab@files.example.net:{}/in", lab.addr().port());
    let settings = Settings::new()
        .quick()
        .key("timers.dns", "1s")
        .key("retry.first", "20s")
        .key("retry.max", "20s")
        .route_to("main", &url, lab.password());
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec {} run",
        conf.display(),
        env!("CARGO_BIN_EXE_ftpulse")
    );
    let mut command = support::process::tied("unshare");
    command
        .args(["-m", "sh", "-c", &script])
        .env_clear()
        .envs(settings.vars());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut service = settings.launch_by(command);
    service.wait_listening();
    let put = clock::mono();
    service.put("main", "file.bin", b"waits");
    let told = service.wait_log("the destination gives no session", |_| true);
    let took = clock::mono() - put;
    assert_eq!(told["phase"], "dns", "{told}");
    println!("ended {took:?} after the file came: {}", told["error"]);
    resolver.set_nonblocking(true).unwrap();
    assert!(
        resolver.recv(&mut [0; 512]).is_ok(),
        "the resolver was asked"
    );
    let metrics = service.metrics();
    assert_eq!(
        metrics.get(
            "ftpulse_timeouts_total",
            &[("route", "main"), ("phase", "dns")]
        ),
        Some(1.0)
    );
    assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &[]), 0.0);
    service.wait_metrics("the helper counts as stranded", |m| {
        m.get("ftpulse_stranded_workers", &[]) == Some(1.0)
    });
    // getaddrinfo gives up by itself at last.
    service.wait_metrics("the helper has ended", |m| {
        m.get("ftpulse_stranded_workers", &[]) == Some(0.0)
    });
    assert_eq!(service.terminate(), Some(0));
}
