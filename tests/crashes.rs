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

use std::fs;
use std::path::Path;

use ftpulse::clock;
use ftpulse::spool::journal::Store;
use support::consumer::{Consumer, Moments, Wrongs, size};
use support::servers::{Opts, Server, is_root};
use support::service::Settings;
use support::{PATIENCE, content, count_of, wait_until};

fn bytes(route: &str, number: usize) -> Vec<u8> {
    content(
        (number * 2 + usize::from(route == "b")) as u64,
        size(number),
    )
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
        consumers.push(Consumer::start(server.root.join("in"), |n| bytes(route, n)));
    }
    let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
    let mut service = settings.start();
    let total = files / 2 * 2;
    let arrived = |consumers: &[Consumer]| consumers.iter().map(Consumer::files).sum::<usize>();
    let mut put = 0;
    let mut moments = Moments::new();
    for kill in 0..kills {
        // The files come in bursts, so that there is always something under way.
        let until = total * (kill + 1) / kills;
        while put < until {
            let (route, number) = (["a", "b"][put % 2], put / 2);
            service.put(route, &format!("{number}.bin"), &bytes(route, number));
            put += 1;
        }
        let end = clock::mono() + moments.next(600);
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
    let wrongs: Vec<_> = consumers.iter().map(Consumer::wrongs).collect();
    let store = Store::open(&Path::new(&state).join("journal.db")).unwrap();
    assert!(store.set_aside.is_none());
    let left = store.store.unfinished().unwrap();
    println!("{kills} kills, {total} files, {wrongs:?}, left in the journal: {left:?}");
    let right = |w: &Wrongs| w.torn.is_empty() && w.twice.is_empty();
    assert!(wrongs.iter().all(right), "{wrongs:?}");
    assert!(left.is_empty(), "{left:?}");
}
