//! The service under its own watchdog (`ftpulse run --watchdog`): frozen in the middle of an
//! upload, again and again, and unable to heal itself. Each time a new process goes on, every file
//! arrives whole and once. FTPULSE_FREEZES sets how often, and then with the default settings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;
#[path = "support/hung.rs"]
mod hung;

use std::fs;
use std::time::Duration;

use ftpulse::clock;
use rustix::process::Signal;
use support::consumer::{Consumer, Moments, size};
use support::process::{descendants, send};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::watcher::is_final_name;
use support::{PATIENCE, content, count_of, wait_for, wait_until};

/// A large file's bytes: a second of work at the route's rate.
const LARGE: usize = 8 << 20;

/// The watched process: the only child.
fn watched(service: &Ftpulse) -> Option<u32> {
    descendants(service.pid()).first().copied()
}

/// Restarts that the watchdog has told of, by reason.
fn restarts(service: &Ftpulse, reason: &str) -> usize {
    let told = service.logged("watchdog restart");
    told.iter().filter(|line| line["reason"] == reason).count()
}

/// What a file holds: every tenth is large.
fn bytes(number: usize) -> Vec<u8> {
    let length = if number % 10 == 3 {
        LARGE
    } else {
        size(number)
    };
    content(number as u64, length)
}

fn settings(server: &Server) -> Settings {
    Settings::new()
        .arg("--watchdog")
        .route("main", server, "in")
        .key("routes.main.rate_limit", "8MiB")
}

#[test]
fn a_service_frozen_in_mid_upload_is_replaced_and_every_file_arrives_once() {
    let freezes = count_of("FTPULSE_FREEZES", 3);
    let server = Server::vsftpd(Opts::default());
    let mut settings = settings(&server);
    if std::env::var_os("FTPULSE_FREEZES").is_none() {
        settings = settings
            .key("watchdog.pulse_interval", "200ms")
            .key("watchdog.software_interval", "1s");
    }
    let consumer = Consumer::start(server.root.join("in"), bytes);
    let mut service = settings.start();
    let mut moments = Moments::new();
    let (mut put, mut found, mut next) = (0, Vec::new(), Vec::new());
    for round in 0..freezes {
        for _ in 0..10 {
            service.put("main", &format!("{put}.bin"), &bytes(put));
            put += 1;
        }
        wait_until("an upload is under way", PATIENCE, || {
            let temps = fs::read_dir(server.path("in")).into_iter().flatten();
            let mut temps = temps.flatten().filter(|entry| {
                let name = entry.file_name();
                !is_final_name(&name.to_string_lossy())
            });
            temps.any(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 0))
        });
        let moment = clock::mono() + moments.next(300);
        wait_until("the moment has come", PATIENCE, || clock::mono() >= moment);
        let pid = watched(&service).expect("the service runs");
        send(pid, Signal::STOP);
        let (frozen, before) = (clock::mono(), consumer.files());
        wait_until("the watchdog replaces it", PATIENCE, || {
            restarts(&service, "no_pulse") > round
        });
        found.push(clock::mono() - frozen);
        wait_until("a file is delivered again", PATIENCE, || {
            consumer.files() > before
        });
        next.push(clock::mono() - frozen);
    }
    wait_until("every file has arrived", PATIENCE * 5, || {
        consumer.files() == put
    });
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(restarts(&service, "no_pulse"), freezes);
    service.wait_listening();
    assert_eq!(service.terminate(), Some(0));
    let wrongs = consumer.wrongs();
    println!(
        "{freezes} freezes, {put} files, {wrongs:?}; from the freeze to the restart {}, to the next \
         delivered file {}",
        spread(&mut found),
        spread(&mut next)
    );
    assert!(wrongs.torn.is_empty() && wrongs.twice.is_empty());
}

/// Median and maximum.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    format!(
        "{:.2} s (at most {:.2} s)",
        median.as_secs_f64(),
        last.as_secs_f64()
    )
}

#[test]
fn a_service_that_cannot_heal_itself_is_replaced_and_what_was_in_flight_arrives_once() {
    let server = Server::vsftpd(Opts::default());
    let settings = settings(&server).quick().key("routes.main.after", "keep");
    let spool = settings.spool("main");
    let inner = spool.join("share");
    fs::create_dir(&inner).unwrap();
    let Some(disk) = hung::HungDisk::mount(&inner, &["1.bin", "2.bin"]) else {
        println!("skipped: this machine does not permit a FUSE mount");
        return;
    };
    let service = settings.start();
    // Unmounted before the service's folders are removed.
    let disk = disk;
    wait_until("both uploaders hang in a read", PATIENCE, || {
        disk.reads() >= 2
    });
    let told = service.wait_log("watchdog restart", |line| line["reason"] == "exit");
    assert_eq!(told["program"], "exit code 70", "{told}");
    disk.mend();
    let delivered = wait_for("both are delivered", PATIENCE, || {
        let lines = service.logged("file delivered");
        (lines.len() >= 2).then_some(lines)
    });
    let names: Vec<_> = delivered.iter().map(|line| line["file"].clone()).collect();
    println!("delivered after the escalation: {names:?}");
    let mut service = service;
    assert_eq!(service.terminate(), Some(0));
    for name in ["share/1.bin", "share/2.bin"] {
        let arrived = fs::read(server.path("in").join(name)).unwrap();
        assert_eq!(
            arrived,
            vec![0; usize::try_from(hung::SIZE).unwrap()],
            "{name}"
        );
        let times = service.logged("file delivered");
        let times = times.iter().filter(|line| line["file"] == name).count();
        assert_eq!(times, 1, "{name}");
    }
}

#[test]
fn a_consent_to_send_again_is_given_to_the_first_life_alone() {
    let service = Settings::new()
        .arg("--watchdog")
        .arg("--accept-resend")
        .route_to("main", "ftp://user@127.0.0.1:1/in", "x")
        .start();
    let told = |life: u64| {
        service.wait_log("program ready", |line| line["life"] == life);
        let pid = watched(&service).expect("the service runs");
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        (pid, line.contains("--accept-resend"))
    };
    let (pid, first) = told(1);
    send(pid, Signal::KILL);
    let (_, second) = told(2);
    assert!(first && !second, "{first} {second}");
}
