//! The process is killed at random moments, again and again, while files flow to two real servers
//! and a consumer takes each away as soon as it appears: every file arrives whole, no torn one is
//! ever seen, none is sent twice, and the journal is sound each time. FTPULSE_KILLS and
//! FTPULSE_FILES set how long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ftpulse::clock;
use ftpulse::spool::journal::Store;
use support::servers::{Opts, Server, is_root};
use support::service::Settings;
use support::watcher::is_final_name;
use support::{PATIENCE, content, count_of, wait_until};

/// Size of a file by its number: 0 B to 8 MiB, most of them small.
fn size(number: usize) -> usize {
    match number % 40 {
        0 => 0,
        7 => 8 << 20,
        21 => 1 << 20,
        n => n * 1_733,
    }
}

fn bytes(route: &str, number: usize) -> Vec<u8> {
    content(
        (number * 2 + usize::from(route == "b")) as u64,
        size(number),
    )
}

/// Takes final names away as soon as they appear, as a partner's import does.
struct Consumer {
    over: Arc<AtomicBool>,
    taken: Arc<Mutex<BTreeMap<String, Vec<bool>>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Consumer {
    fn start(route: &'static str, folder: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let taken: Arc<Mutex<BTreeMap<String, Vec<bool>>>> = Arc::default();
        let (ended, list) = (Arc::clone(&over), Arc::clone(&taken));
        let thread = std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    let name = entry.file_name().into_string().unwrap();
                    if !is_final_name(&name) {
                        continue;
                    }
                    let found = fs::read(entry.path()).unwrap();
                    fs::remove_file(entry.path()).unwrap();
                    let number: usize = name.strip_suffix(".bin").unwrap().parse().unwrap();
                    let whole = found == bytes(route, number);
                    list.lock().unwrap().entry(name).or_default().push(whole);
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        Self {
            over,
            taken,
            thread: Some(thread),
        }
    }

    fn files(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the consumer failed");
        }
    }
}

#[test]
fn a_process_that_is_killed_again_and_again_loses_tears_and_repeats_nothing() {
    let (kills, files) = (
        count_of("FTPULSE_KILLS", 12),
        count_of("FTPULSE_FILES", 160),
    );
    let second = if is_root() {
        Server::pure_ftpd(Opts::default())
    } else {
        Server::pyftpdlib(Opts::default())
    };
    let servers = [("a", Server::vsftpd(Opts::default())), ("b", second)];
    let mut settings = Settings::new()
        .key("retry.first", "100ms")
        .key("retry.max", "1s")
        .key("quarantine.hold", "2s");
    let mut consumers = Vec::new();
    for (route, server) in &servers {
        settings = settings.route(route, server, "in");
        consumers.push(Consumer::start(route, server.root.join("in")));
    }
    let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
    let mut service = settings.start();
    let total = files / 2 * 2;
    let arrived = |consumers: &[Consumer]| consumers.iter().map(Consumer::files).sum::<usize>();
    let mut put = 0;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..kills {
        // The files come in bursts, so that there is always something under way.
        let until = total * (kill + 1) / kills;
        while put < until {
            let (route, number) = (["a", "b"][put % 2], put / 2);
            service.put(route, &format!("{number}.bin"), &bytes(route, number));
            put += 1;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let end = clock::mono() + Duration::from_millis(random % 600);
        wait_until("the moment has come", PATIENCE, || {
            clock::mono() >= end || arrived(&consumers) == total
        });
        service = service.kill_and_restart();
        let broken = fs::read_dir(&state).unwrap().flatten();
        let broken = broken.filter(|e| e.file_name().to_string_lossy().contains("unreadable"));
        assert_eq!(
            broken.count(),
            0,
            "a journal was set aside after kill {kill}"
        );
    }
    wait_until("every file has arrived", PATIENCE * 5, || {
        arrived(&consumers) == total
    });
    for route in ["a", "b"] {
        service.wait_spool_empty(route, PATIENCE);
    }
    assert_eq!(service.terminate(), Some(0));
    let mut twice = Vec::new();
    for (consumer, (route, _)) in consumers.iter().zip(&servers) {
        for (name, seen) in consumer.taken.lock().unwrap().iter() {
            assert!(seen.iter().all(|whole| *whole), "{route}/{name} was torn");
            if seen.len() > 1 {
                twice.push(format!("{route}/{name}"));
            }
        }
    }
    let store = Store::open(&Path::new(&state).join("journal.db")).unwrap();
    assert!(store.set_aside.is_none());
    let left = store.store.unfinished().unwrap();
    println!("{kills} kills, {total} files, sent twice: {twice:?}, left in the journal: {left:?}");
    assert!(twice.is_empty(), "{twice:?}");
    assert!(left.is_empty(), "{left:?}");
}
