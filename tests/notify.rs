//! What `ftpulse run` tells whoever watches it, against a manager that holds systemd's contract:
//! readiness, both beats, status, reloads, the end; that a wedged loop sends no software beat and a
//! rightly busy one does, within its bound; that no watcher ever holds the service up.
//! The breaking of the loop needs the feature `failpoints` (`tests/run` gives it). FTPULSE_SOAK=1
//! makes the load last a minute.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
#[path = "support/manager.rs"]
mod manager;
#[path = "support/small_disk.rs"]
mod small_disk;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use ftpulse::clock::{self, Mono};
use ftpulse::lab::{LabServer, Script};
use manager::{Manager, Said};
use rustix::process::Signal;
use small_disk::SmallDisk;
use support::process::{Running, spawn, tied};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, count_of, temp_dir, wait_until};

/// What systemd's WatchdogSec would be.
const WITHIN: Duration = Duration::from_secs(2);
/// Half of it is the software period; five pulses are one.
const PERIOD: Duration = Duration::from_secs(1);
const PULSE: Duration = Duration::from_millis(200);

fn told(settings: Settings, manager: &Manager) -> Settings {
    settings
        .key("watchdog.pulse_interval", "200ms")
        .env("NOTIFY_SOCKET", manager.socket().display())
        .env("WATCHDOG_USEC", WITHIN.as_micros())
}

/// A route to where nobody listens.
fn nowhere() -> Settings {
    Settings::new()
        .quick()
        .route_to("main", "ftp://u@127.0.0.1:1/in", "p")
}

fn let_pass(time: Duration) {
    let end = clock::mono() + time;
    wait_until("the time is over", time + PATIENCE, || clock::mono() >= end);
}

fn threads(service: &Ftpulse) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    let names = tasks.flatten().filter_map(|task| name(task).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn readiness_beats_status_and_the_end_are_told_as_systemd_wants_them() {
    let manager = Manager::start();
    let mut service = told(nowhere(), &manager).launch();
    let first = manager.wait("the first pulse", |_| true);
    assert!(first.pulses(), "{first:?}");
    let ready = manager.wait("ready", |s| s.has("READY=1"));
    service.wait_listening();
    assert_eq!(service.get("/healthz").status, 200);
    assert_eq!(ready.get("MAINPID"), Some(&*service.pid().to_string()));
    assert!(ready.pulses());
    let listens = format!("listening on {}", service.http());
    assert_eq!(ready.get("STATUS"), Some(&*listens));

    service.put("main", "not-to-be-told.bin", b"x");
    let beats = manager.wait_many(ready.at, 5, Said::beats);
    for pair in beats.windows(2) {
        let gap = pair[1].at - pair[0].at;
        assert!(gap > PERIOD - PULSE && gap < WITHIN, "{gap:?}");
    }
    let line = "1 route, 1 waiting, 0 in work, quarantine 0 of 16";
    manager.wait("the waiting file", |s| s.get("STATUS") == Some(line));
    let pulses = manager.said().iter().filter(|s| s.pulses()).count();
    assert!(pulses > 4 * 5, "{pulses} pulses in five periods");

    let ends = clock::mono();
    assert_eq!(service.terminate(), Some(0));
    let stopping = manager.wait_after(ends, "stopping", |s| s.has("STOPPING=1"));
    let asked: u64 = stopping
        .get("EXTEND_TIMEOUT_USEC")
        .unwrap()
        .parse()
        .unwrap();
    assert!(asked >= 8_000_000, "the grace and more: {asked}");
    let said = manager.said();
    assert_eq!(said.iter().filter(|s| s.has("READY=1")).count(), 1);
    assert!(said.iter().all(|s| s.pid == service.pid()), "{said:?}");
    assert!(said.iter().all(|s| !s.text.contains("not-to-be-told")));
    assert!(said.iter().all(|s| s.text.lines().all(|l| l.contains('='))));
    assert!(manager.longest_gap(stopping.at) < WITHIN);
}

#[test]
fn a_reload_is_told_before_and_after_whatever_comes_of_it() {
    let manager = Manager::start();
    let dir = temp_dir();
    let file = dir.path().join("ftpulse.toml");
    fs::write(&file, "[retry]\nfirst = \"100ms\"\n").unwrap();
    let settings = told(nowhere().without("retry.first"), &manager)
        .key("http.token", "let-me")
        .arg("--config")
        .arg(file.to_str().unwrap());
    let mut service = settings.start();
    manager.wait("ready", |s| s.has("READY=1"));

    let reload = |text: &str, ask: &dyn Fn()| {
        fs::write(&file, text).unwrap();
        let (from, usec) = (clock::mono(), clock::kernel_usec());
        ask();
        let begins = manager.wait_after(from, "reloading", |s| s.has("RELOADING=1"));
        let at: u64 = begins.get("MONOTONIC_USEC").unwrap().parse().unwrap();
        assert!(at >= usec && at <= clock::kernel_usec());
        manager.wait_after(begins.at, "ready again", |s| s.has("READY=1"))
    };
    let hup = || service.signal(Signal::HUP);
    let done = reload("[retry]\nfirst = \"200ms\"\n", &hup);
    assert_eq!(done.get("STATUS"), Some("configuration reloaded"));
    let refused = reload("[retry]\nfirst = \"soon\"\n", &hup);
    let status = refused.get("STATUS").unwrap();
    assert!(status.starts_with("configuration not reloaded"), "{status}");
    let later = manager.wait_after(refused.at, "a beat", Said::beats);
    let status = later.get("STATUS").unwrap();
    assert!(
        status.ends_with("; the last reload was refused"),
        "{status}"
    );
    let (http, head) = (
        service.http(),
        "Authorization: Bearer let-me\r\nContent-Length: 0\r\n",
    );
    let post = || {
        let answer = support::http::request(http, "POST", "/api/reload", head).unwrap();
        assert_eq!(answer.status, 200);
    };
    let done = reload("[retry]\nfirst = \"300ms\"\n", &post);
    let later = manager.wait_after(done.at, "a beat", Said::beats);
    assert!(!later.text.contains("refused"), "{later:?}");
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_stopped_process_sends_neither_beat_and_no_burst_when_it_goes_on() {
    let manager = Manager::start();
    let mut service = told(nowhere(), &manager).start();
    manager.wait("a beat", Said::beats);
    service.signal(Signal::STOP);
    wait_until("it is stopped", PATIENCE, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim().starts_with('T')
    });
    let stopped = clock::mono();
    let_pass(2 * WITHIN);
    assert!(
        manager.said().iter().all(|s| s.at < stopped),
        "nothing is said"
    );
    service.signal(Signal::CONT);
    let again = manager.wait_after(stopped, "a pulse", Said::pulses);
    let at_once = |s: &Said| s.at >= again.at && s.at < again.at + PULSE / 2;
    let after = manager.wait_many(again.at, 10, Said::pulses);
    let burst = after.iter().filter(|s| at_once(s)).count();
    assert!(burst <= 1, "{burst} more at once: {after:?}");
    manager.wait_after(again.at, "a beat", Said::beats);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_watcher_that_does_not_listen_or_is_gone_holds_nothing_up() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let dir = temp_dir();
    let path = dir.path().join("notify");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X=1", &path).is_ok() {}
    let settings = Settings::new()
        .quick()
        .route_to("main", &lab.url("main"), lab.password())
        .key("watchdog.pulse_interval", "100ms")
        .env("NOTIFY_SOCKET", path.display())
        .env("WATCHDOG_USEC", 400_000);
    let mut service = settings.start();
    service.put("main", "while-it-is-deaf", b"x");
    service.wait_delivered("while-it-is-deaf");
    let_pass(Duration::from_secs(1));
    // What was owed is said once there is room: readiness first of all that matters.
    let mut heard = Vec::new();
    let mut bytes = [0; 4096];
    deaf.set_read_timeout(Some(PATIENCE)).unwrap();
    while !heard
        .iter()
        .any(|text: &String| text.contains("WATCHDOG=1"))
    {
        let count = deaf.recv(&mut bytes).unwrap();
        heard.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
    }
    assert!(heard.iter().any(|text| text.contains("READY=1")));
    drop(deaf);
    fs::remove_file(&path).unwrap();
    service.put("main", "while-it-is-gone", b"x");
    service.wait_delivered("while-it-is-gone");
    assert_eq!(service.terminate(), Some(0));
    let complaints = service.logged("the watchdog does not take what it is told");
    assert_eq!(complaints.len(), 1, "once a minute at most");
}

#[test]
fn without_a_watcher_there_is_no_thread_and_a_bad_address_is_told() {
    let has_pulse = |service: &Ftpulse| threads(service).contains(&"pulse".into());
    let mut alone = nowhere().start();
    assert!(!has_pulse(&alone));
    assert_eq!(alone.terminate(), Some(0));
    let mut bad = nowhere().env("NOTIFY_SOCKET", "vsock:2:7").start();
    assert!(!has_pulse(&bad));
    let said = bad.wait_log("no watchdog is told", |_| true);
    assert!(
        said["error"].as_str().unwrap().contains("vsock:2:7"),
        "{said}"
    );
    assert_eq!(bad.terminate(), Some(0));
    let manager = Manager::start();
    let mut watched = told(nowhere(), &manager).start();
    assert!(has_pulse(&watched));
    assert_eq!(watched.terminate(), Some(0));
}

#[test]
fn a_start_that_waits_for_room_asks_for_time_and_says_why() {
    let test = "a_start_that_waits_for_room_asks_for_time_and_says_why";
    if !small_disk::inside(test) {
        return;
    }
    let manager = Manager::start();
    let settings = told(nowhere(), &manager);
    let state = &settings.vars()[&support::service::variable("state.dir")];
    let disk = SmallDisk::mount(Path::new(state), 1 << 20);
    disk.fill();
    let mut service = settings.launch();
    let waits = manager.wait("it waits", |s| {
        s.get("STATUS")
            .is_some_and(|text| text.contains("waits for room"))
    });
    assert!(waits.pulses());
    let asked: u64 = waits.get("EXTEND_TIMEOUT_USEC").unwrap().parse().unwrap();
    assert!(Duration::from_micros(asked) >= 4 * PULSE);
    let more = manager.wait_many(waits.at, 3, |s| s.get("EXTEND_TIMEOUT_USEC").is_some());
    assert!(more.iter().all(|s| !s.beats()), "there is no loop yet");
    disk.make_room();
    manager.wait("ready", |s| s.has("READY=1"));
    service.wait_listening();
    assert_eq!(service.terminate(), Some(0));
}

/// Both cores, and more, burn; files wait in the journal and in the spool.
#[test]
fn a_heavy_start_on_burning_cores_never_misses_three_beats() {
    let (files, seconds) = match std::env::var_os("FTPULSE_SOAK") {
        Some(_) => (100_000, 60),
        None => (count_of("FTPULSE_TEST_FILES", 20_000), 12),
    };
    let rows = 100_000;
    let manager = Manager::start();
    let settings = nowhere()
        .key("watchdog.pulse_interval", "400ms")
        .key("watchdog.software_interval", "2s")
        .key("log.level", "info")
        .env("NOTIFY_SOCKET", manager.socket().display());
    remember(&settings, rows);
    let spool = settings.spool("main");
    for n in 0..files {
        fs::write(spool.join(format!("file-{n}")), b"x").unwrap();
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    let burner = || {
        let mut command = tied("sh");
        command.args(["-c", "while :; do :; done"]);
        spawn(command).unwrap()
    };
    let burners: Vec<Running> = (0..cores).map(|_| burner()).collect();
    let began = clock::mono();
    let mut service = settings.start();
    let ready = manager.wait("ready", |s| s.has("READY=1"));
    let_pass(Duration::from_secs(seconds));
    let until = clock::mono();
    let gap = manager.longest_gap(until);
    let pulses: Vec<Mono> = manager
        .said()
        .iter()
        .filter(|s| s.pulses())
        .map(|s| s.at)
        .collect();
    let longest = pulses.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    drop(burners);
    println!(
        "{rows} rows, {files} files, {cores} cores burning for {seconds} s: ready after {:.1?}, \
         longest without a pulse (0.4 s) {longest:.2?}, without a software beat (2 s) {gap:.2?}",
        ready.at - began
    );
    assert!(gap < Duration::from_secs(3 * 2), "{gap:?}");
    assert!(longest < 3 * Duration::from_millis(400), "{longest:?}");
    assert_eq!(service.terminate(), Some(0));
}

/// A journal that knows of so many files that failed.
fn remember(settings: &Settings, rows: usize) {
    use ftpulse::spool::Stamp;
    use ftpulse::spool::journal::{Change, Failing, Key, Store};
    let state = &settings.vars()[&support::service::variable("state.dir")];
    let path = Path::new(state).join("journal.db");
    let mut store = Store::open(&path).unwrap().store;
    let change = |n: usize| Change::Waiting {
        of: Key {
            route: "main".into(),
            path: format!("file-{n}").into(),
        },
        failures: 1,
        next: 0.0,
        error: "made for a test".into(),
        failing: Failing {
            version: Stamp {
                dev: 1,
                ino: 1,
                size: 1,
                mtime_ns: 1,
            },
            first: clock::unix(),
            seconds: 1.0,
        },
    };
    let changes: Vec<_> = (0..rows).map(change).collect();
    store.apply(changes.iter()).unwrap();
    assert!(store.close());
}

#[cfg(feature = "failpoints")]
mod broken {
    use super::*;

    #[test]
    fn a_wedged_loop_sends_no_software_beat_while_the_pulse_goes_on() {
        // Asleep or in an endless loop: neither gets on with anything.
        for way in ["sleep", "delay"] {
            let manager = Manager::start();
            let wedge = format!("daemon-ticks=20*off->{way}(600000)");
            let service = told(nowhere(), &manager).env("FAILPOINTS", wedge).start();
            let last = manager.wait("a beat", Said::beats);
            // Nobody outside sees the wedge begin: it has when two periods had no beat.
            wait_until("the beats stop", PATIENCE, || {
                let said = manager.said();
                let last = said.iter().rfind(|s| s.beats()).map_or(last.at, |s| s.at);
                clock::mono() > last + 2 * PERIOD
            });
            let wedged = clock::mono();
            let pulses = manager.wait_many(wedged, 15, Said::pulses);
            assert!(pulses.iter().all(|s| !s.beats()), "{way}: {pulses:?}");
            drop(service);
        }
    }

    /// Waits until the service has said that much of its own loop, after a busy time.
    fn turned(manager: &Manager, from: Mono) -> Said {
        manager.wait_after(from, "the loop's own beat", |s| {
            s.beats()
                && s.get("STATUS")
                    .is_some_and(|text| text.starts_with("1 route"))
        })
    }

    /// A service whose loop is at it for ten seconds in one go, and the id that vouches for it.
    fn busy(failpoint: &str, compute: &str, manager: &Manager) -> Ftpulse {
        let settings = told(nowhere(), manager)
            .key("timers.compute", compute)
            .env("FAILPOINTS", format!("{failpoint}=delay(50)"));
        if failpoint == "row-taken-up" {
            remember(&settings, 200);
        } else {
            for n in 0..200 {
                fs::write(settings.spool("main").join(format!("{n}")), b"x").unwrap();
            }
        }
        settings.start()
    }

    #[test]
    fn a_loop_that_is_rightly_busy_is_vouched_for_and_misses_no_deadline() {
        for (failpoint, id) in [("file-found", "scan"), ("row-taken-up", "journal_recovery")] {
            let manager = Manager::start();
            let mut service = busy(failpoint, "10m", &manager);
            let line = format!("busy, and getting on: {id}");
            let vouched = |s: &Said| s.beats() && s.get("STATUS") == Some(&line);
            let beats = manager.wait_many(Mono::ZERO, 5, vouched);
            let own = turned(&manager, beats[4].at);
            let gap = manager.longest_gap(own.at);
            println!(
                "{id}: {} beats in its place, longest gap {gap:.2?}",
                beats.len()
            );
            assert!(gap < WITHIN, "{gap:?}");
            assert_eq!(service.terminate(), Some(0));
        }
    }

    #[test]
    fn nobody_vouches_longer_than_timers_compute() {
        let manager = Manager::start();
        let mut service = busy("row-taken-up", "3s", &manager);
        let ready = manager.wait("ready", |s| s.has("READY=1"));
        let own = turned(&manager, ready.at);
        let said = manager.said();
        let within = |s: &&Said| s.at > ready.at && s.at < own.at && s.beats();
        let vouched: Vec<_> = said
            .iter()
            .filter(within)
            .map(|s| s.at - ready.at)
            .collect();
        println!(
            "vouched after {vouched:.2?}, the loop's own after {:.2?}",
            own.at - ready.at
        );
        assert!(vouched.len() >= 2, "{vouched:?}");
        // The read of the clock here is a moment after the one there.
        assert!(
            vouched
                .iter()
                .all(|after| *after < Duration::from_millis(3_200))
        );
        assert!(own.at - ready.at > Duration::from_secs(5));
        assert_eq!(service.terminate(), Some(0));
    }

    #[test]
    fn an_escalation_says_why_and_ends_with_70() {
        let manager = Manager::start();
        let settings = told(nowhere(), &manager).env("FAILPOINTS", "daemon-ticks=10*off->panic");
        let mut service = settings.start();
        assert_eq!(service.wait_exit(PATIENCE).code(), Some(70));
        manager.wait("why", |s| {
            s.get("STATUS") == Some("the daemon is gone; the service ends with 70 to be restarted")
        });
    }
}
