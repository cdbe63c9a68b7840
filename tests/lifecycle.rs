//! A service's life around its files: spools that come and go, a second process, a backlog far
//! larger than memory should hold, a SIGTERM in the middle of it.
//! `FTPULSE_BACKLOG` sets how many tiny files wait at the start (a suite's share by default).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Counters, Fault, Kind, LabServer, Script};
use support::service::{Ftpulse, Settings, variable};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, count_of, rss_of, temp_dir, wait_until};

fn healthy() -> (tempfile::TempDir, LabServer) {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    (root, lab)
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect()
}

fn wait_ready(service: &Ftpulse, status: u16) {
    wait_until("readiness changes", PATIENCE, || {
        service.get("/readyz").status == status
    });
}

#[test]
fn a_spool_that_is_missing_or_made_anew_is_waited_for() {
    let (root, lab) = healthy();
    let settings = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password());
    let spool = settings.spool("main");
    fs::remove_dir_all(spool.parent().unwrap()).unwrap();
    let service = settings.start();
    wait_ready(&service, 503);
    assert_eq!(service.metrics().get("ftpulse_ready", &[]), Some(0.0));
    let reason = service.get("/readyz").body;
    assert!(
        reason.contains(spool.to_str().unwrap()) || reason.contains("main"),
        "{reason}"
    );
    println!("{reason}");
    assert_eq!(service.get("/healthz").status, 200);

    fs::create_dir_all(&spool).unwrap();
    service.put("main", "first", &content(1, 5000));
    service.wait_delivered("first");
    wait_ready(&service, 200);

    for round in 2..5 {
        service.wait_spool_empty("main", PATIENCE);
        fs::remove_dir_all(&spool).unwrap();
        wait_ready(&service, 503);
        // Made elsewhere and moved into place with a file in it, as a mount would come.
        let name = format!("round {round}");
        let fresh = spool.with_extension("fresh");
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join(&name), content(round, 5000)).unwrap();
        fs::rename(&fresh, &spool).unwrap();
        service.wait_delivered(&name);
        wait_ready(&service, 200);
        assert_eq!(
            fs::read(root.path().join("in").join(&name)).unwrap(),
            content(round, 5000)
        );
        let late = format!("late {round}");
        service.put("main", &late, b"late");
        service.wait_delivered(&late);
    }
}

#[test]
fn a_second_process_on_the_same_folders_exits_and_names_the_holder() {
    let (_root, lab) = healthy();
    let settings = || {
        Settings::new()
            .quick()
            .route_to("main", &lab.url("in"), lab.password())
    };
    let first = settings();
    let spool = first.spool("main");
    let state = first.vars()[&variable("state.dir")].clone();
    let service = first.start();
    let same_spool = settings().key("routes.main.spool", spool.display());
    let same_state = settings().key("state.dir", &state);
    for (second, folder) in [
        (same_spool, spool.to_str().unwrap()),
        (same_state, state.as_str()),
    ] {
        let mut second = second.launch();
        let status = second.wait_exit(PATIENCE);
        let said = second.log_text();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            said.contains(folder) && said.contains(&service.pid().to_string()),
            "{said}"
        );
        println!("{}", said.trim_end());
    }
    service.put("main", "file", b"untouched");
    service.wait_delivered("file");
    // The folders are free again at once when the holder is gone, however it went.
    service.kill_and_restart();
}

#[test]
fn a_large_backlog_costs_bounded_memory_and_its_first_file_goes_soon() {
    let n = count_of("FTPULSE_BACKLOG", 5_000);
    let (root, lab) = healthy();
    let settings = Settings::new()
        .key("log.level", "info")
        .key("timers.stall", "60s")
        .key("routes.main.uploaders", "4")
        .key("routes.main.settle", "0s")
        .route_to("main", &lab.url("in"), lab.password());
    let spool = settings.spool("main");
    let settings = settings.key("routes.main.settle", "0s");
    for i in 0..n {
        fs::write(spool.join(format!("file-{i:06}")), format!("tiny {i}")).unwrap();
    }
    let began = clock::mono();
    let service = settings.start();
    let idle = rss_of(service.pid()).now;
    service.wait_log("file delivered", |_| true);
    let first = (clock::mono() - began).as_secs_f64();
    let bound = PATIENCE + Duration::from_millis(20) * u32::try_from(n).unwrap();
    let all = |c: &Counters| c.rename_count >= n as u64;
    lab.wait_counters(all, bound).expect("the backlog is gone");
    let took = (clock::mono() - began).as_secs_f64();
    service.wait_spool_empty("main", PATIENCE);
    let rss = rss_of(service.pid());
    println!(
        "{n} files: first after {first:.2} s, {:.0} files/s, RSS {idle} KiB at the start, peak {} KiB, {} KiB at the end",
        n as f64 / took,
        rss.peak,
        rss.now
    );
    assert!(first < 10.0, "the first file took {first} s");
    // A record of every file would show: 100,000 of them at 1 KiB are 100 MiB.
    assert!(rss.peak < 64 * 1024, "{rss:?}");
    assert_eq!(lab.counters().rename_count, n as u64, "each once");
    let there = files(&root.path().join("in"));
    assert_eq!(there.len(), n);
    for i in (0..n).step_by(97) {
        let name = format!("file-{i:06}");
        assert_eq!(
            fs::read(root.path().join("in").join(name)).unwrap(),
            format!("tiny {i}").as_bytes()
        );
    }
}

#[test]
fn a_sigterm_amid_many_files_drains_and_a_restart_goes_on() {
    const N: usize = 1_500;
    let (root, lab) = healthy();
    let watcher = Watcher::start(root.path(), is_final_name);
    let settings = Settings::new().quick().key("shutdown.grace", "8s");
    let settings =
        settings
            .key("timers.stall", "60s")
            .route_to("main", &lab.url("in"), lab.password());
    let spool = settings.spool("main");
    let mut all = BTreeSet::new();
    for i in 0..N {
        let name = format!("file {i}");
        let bytes = content(i as u64, i % 4000);
        watcher.allow(&format!("in/{name}"), &bytes);
        fs::write(spool.join(&name), bytes).unwrap();
        all.insert(name);
    }
    let mut service = settings.start();
    let mut sent = 0;
    for stop in 1..=3 {
        let goal = (sent + N / 10) as u64;
        lab.wait_counters(|c| c.rename_count >= goal, PATIENCE)
            .unwrap();
        let began = clock::mono();
        assert_eq!(service.terminate(), Some(0));
        let took = clock::mono() - began;
        // Over the grace, far below what else would end it: stall.
        assert!(took < Duration::from_secs(40), "{took:?}");
        let (waiting, there) = (files(&spool), files(&root.path().join("in")));
        println!(
            "stop {stop}: {} sent, {} wait, drained in {took:?}",
            there.len(),
            waiting.len()
        );
        // No temp name, no private name, nothing lost, nothing both sent and kept.
        assert_eq!(&waiting | &there, all);
        assert!(waiting.is_disjoint(&there), "{:?}", &waiting & &there);
        assert!(!waiting.is_empty(), "stopped in the middle");
        sent = there.len();
        service = service.kill_and_restart();
    }
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(files(&root.path().join("in")), all);
    assert_eq!(lab.counters().rename_count, N as u64, "each once");
    watcher.assert_clean();
}

#[test]
fn a_kill_amid_many_files_loses_none_and_shows_none_torn() {
    const N: usize = 600;
    let (root, lab) = healthy();
    let watcher = Watcher::start(root.path(), is_final_name);
    let settings = Settings::new().quick().key("timers.stall", "60s").route_to(
        "main",
        &lab.url("in"),
        lab.password(),
    );
    let spool = settings.spool("main");
    let contents: Vec<_> = (0..N).map(|i| content(i as u64, i * 50)).collect();
    for (i, bytes) in contents.iter().enumerate() {
        watcher.allow(&format!("in/file {i}"), bytes);
        fs::write(spool.join(format!("file {i}")), bytes).unwrap();
    }
    let mut service = settings.start();
    for kill in 1..=4 {
        let goal = lab.counters().rename_count + (N / 8) as u64;
        lab.wait_counters(|c| c.rename_count >= goal, PATIENCE)
            .unwrap();
        service = service.kill_and_restart();
        println!(
            "kill {kill}: {} renames so far",
            lab.counters().rename_count
        );
    }
    service.wait_spool_empty("main", PATIENCE);
    for (i, bytes) in contents.iter().enumerate() {
        let there = fs::read(root.path().join(format!("in/file {i}"))).unwrap();
        assert_eq!(&there, bytes, "file {i}");
    }
    wait_until("no source is left under a private name", PATIENCE, || {
        files(&spool).is_empty()
    });
    let more = lab.counters().rename_count - N as u64;
    // At least once: each kill can repeat what its two uploaders had in hand, and what waited
    // for its source's end.
    println!("{more} of {N} files were sent twice");
    watcher.assert_clean();
}

#[test]
fn a_sigterm_does_not_wait_longer_than_its_grace_for_a_slow_peer() {
    let root = temp_dir();
    let crawl = Kind::Trickle {
        after: 64 * 1024,
        bytes_per_second: 1024,
    };
    let lab = LabServer::start(root.path(), Fault::new(crawl).first(1)).unwrap();
    let watcher = Watcher::start(root.path(), is_final_name);
    let mut events = lab.events();
    let mut service = Settings::new()
        .quick()
        .key("timers.stall", "60s")
        .key("shutdown.grace", "2s")
        .route_to("main", &lab.url("in"), lab.password())
        .start();
    let bytes = content(1, 8 << 20);
    watcher.allow("in/slow", &bytes);
    service.put("main", "slow", &bytes);
    let struck = |e: &ftpulse::lab::Event| matches!(e, ftpulse::lab::Event::Struck { .. });
    events.wait_for(struck, PATIENCE).unwrap();
    let began = clock::mono();
    assert_eq!(service.terminate(), Some(0));
    let took = clock::mono() - began;
    println!("ended after {took:?}");
    // Over the grace, far below what else would end it: stall.
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert_eq!(fs::read(service.spool("main").join("slow")).unwrap(), bytes);
    assert!(!root.path().join("in/slow").exists());
    let service = service.kill_and_restart();
    service.wait_delivered("slow");
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(fs::read(root.path().join("in/slow")).unwrap(), bytes);
    watcher.assert_clean();
}
