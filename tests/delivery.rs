//! The service delivers what appears in its spool to real servers: whole, once, under its own
//! name whatever that is, and never with a torn file visible under a final name.
//! `FTPULSE_FILES` sets how many files each server gets (a suite's share by default).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ftpulse::clock;
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name, sha256};
use support::{PATIENCE, content, count_of, rss_of, wait_until};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Names that a shell, a protocol line or a careless server could take for something else.
fn awkward() -> Vec<String> {
    let mut names: Vec<String> = [
        " leading space",
        "trailing space ",
        " both ",
        "two  spaces  inside",
        "-dash",
        "--help",
        "-",
        "~",
        "~root",
        "~tilde/-a/ b",
        "grüße-日本語-🚀.bin",
        "e\u{301} is not é",
        "double\"quote\".txt",
        "single'quote'.txt",
        "\"",
        "semi;colon;rm -rf",
        "percent%20%s%n%00.bin",
        "back\\slash",
        "*star?[x]{y}",
        "$HOME`id`$(id)",
        "#hash&amp<tag>|pipe!",
        "a,b:c=d@e^f+g",
        "dots..",
        "UPPER.CSV",
        "upper.csv",
        "deep/er/and/ever deeper/file",
        "-folder/-file",
        " folder/ file",
        "ordner ä/ö ü/ß",
        "it's;a \"folder\"/100%",
        "folder.with.dots/.../no",
    ]
    .map(String::from)
    .into();
    // A folder of a leading dot is not taken.
    names.retain(|name| !name.split('/').any(|part| part.starts_with('.')));
    names.push("n".repeat(255));
    names.push("ü".repeat(127));
    names.push(format!("long/{}/{}", "f".repeat(255), "🚀".repeat(63)));
    names
}

/// `n` files by name and size, the awkward names first: 0 B to 64 MiB, most of them small.
fn corpus(n: usize) -> Vec<(String, usize)> {
    let mut names = awkward();
    names.extend((names.len()..n).map(|i| match i % 4 {
        0 => format!("plain-{i}.dat"),
        1 => format!("some folder {}/x {i}.dat", i % 7),
        2 => format!("ordner-ü/{}/-{i};'%.dat", i % 5),
        _ => format!(" {i} ä\"日"),
    }));
    let size = |i: usize| match i {
        3 => 64 * MIB,
        40 => 64 * MIB - 1,
        5 | 50 => 8 * MIB + 1,
        _ if i.is_multiple_of(10) => 0,
        _ if i % 50 == 7 => MIB,
        _ => (i * 7_919) % (48 * KIB) + 1,
    };
    names.truncate(n.max(1));
    names
        .into_iter()
        .enumerate()
        .map(|(i, name)| (name, size(i)))
        .collect()
}

/// All regular files below a folder with their hash, temp names included.
fn tree(folder: &Path) -> BTreeMap<String, [u8; 32]> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, sha256(&fs::read(path).unwrap()));
            }
        }
    }
    found
}

fn delivered(service: &Ftpulse) -> usize {
    let count = service
        .metrics()
        .sum("ftpulse_files_total", &[("outcome", "delivered")]);
    count as usize
}

/// Under which name a file of this name stands there; none where the server refuses it.
fn stands_as(server: &Server, name: &str) -> Option<String> {
    match name {
        // Debian's pure-ftpd prohibits backslashes and has "_" for a space at the end.
        _ if server.name != "pure-ftpd" => Some(name.to_owned()),
        _ if name.contains('\\') => None,
        _ => Some(
            name.strip_suffix(' ')
                .map_or_else(|| name.to_owned(), |cut| format!("{cut}_")),
        ),
    }
}

fn all_arrive_on(server: &Server, n: usize) {
    let files = corpus(n);
    fs::create_dir(server.path("in")).unwrap();
    if support::servers::is_root() {
        let nobody = Some(support::recipes::UNPRIVILEGED);
        std::os::unix::fs::chown(server.path("in"), nobody, nobody).unwrap();
    }
    let watcher = Watcher::start(&server.path("in"), is_final_name);
    let service = Settings::new()
        .key("timers.stall", "60s") // the machine may be busy: no test of detection
        .key("log.level", "info")
        .route("main", server, "in")
        .start();
    let mut expected = BTreeMap::new();
    let began = clock::mono();
    let mut sent = 0;
    for (i, (name, size)) in files.iter().enumerate() {
        let Some(there) = stands_as(server, name) else {
            continue;
        };
        let bytes = content(i as u64, *size);
        let hash = sha256(&bytes);
        watcher.allow_hash(&there, hash);
        expected.insert(there, hash);
        service.put("main", name, &bytes);
        sent += 1;
    }
    let n = sent;
    let bound = PATIENCE + Duration::from_secs(n as u64);
    wait_until("all files are delivered", bound, || {
        delivered(&service) >= n
    });
    service.wait_spool_empty("main", PATIENCE);
    let took = (clock::mono() - began).as_secs_f64();
    let found = tree(&server.path("in"));
    let missing: Vec<_> = expected
        .iter()
        .filter(|(name, hash)| found.get(*name) != Some(hash))
        .collect();
    let more: Vec<_> = found
        .keys()
        .filter(|name| !expected.contains_key(*name))
        .collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "{}: not there as it was: {:?}; not sent: {more:?}",
        server.name,
        missing.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    assert_eq!(delivered(&service), n, "{}: each once", server.name);
    let metrics = service.metrics();
    assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &[]), 0.0);
    let seen = watcher.assert_clean();
    println!(
        "{:10} {n} files of {} MiB, {:.1} files/s (with their making), RSS {} KiB, watcher saw {} names",
        server.name,
        files.iter().map(|(_, size)| size).sum::<usize>() / MIB,
        n as f64 / took,
        rss_of(service.pid()).now,
        seen.len()
    );
}

#[test]
fn files_of_every_name_and_size_arrive_whole_on_every_server() {
    let n = count_of("FTPULSE_FILES", 60);
    let servers = Server::all(&Opts::default());
    let failed: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = servers
            .iter()
            .map(|server| (server.name, scope.spawn(move || all_arrive_on(server, n))))
            .collect();
        let failed = |(name, thread): (_, std::thread::ScopedJoinHandle<'_, _>)| {
            thread.join().is_err().then_some(name)
        };
        all.into_iter().filter_map(failed).collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_server_that_refuses_epsv_gets_pasv() {
    let no_epsv =
        r#"handler.proto_cmds = {k: v for k, v in handler.proto_cmds.items() if k != "EPSV"}"#;
    let server = Server::pyftpdlib(Opts::default().line(no_epsv));
    let service = Settings::new().quick().key("routes.main.uploaders", "1");
    let service = service.route("main", &server, "in").start();
    for i in 0..5 {
        service.put("main", &format!("{i}"), &content(i, 10_000));
    }
    for i in 0..5 {
        service.wait_delivered(&format!("{i}"));
        assert_eq!(
            fs::read(server.path(format!("in/{i}"))).unwrap(),
            content(i, 10_000)
        );
    }
    let log = server.log();
    // Said as "-> 500 …" and, at the same level, by the command's own line.
    let refused = log.matches("\"EPSV\" not understood").count();
    assert_eq!(refused, 1, "asked once a session:\n{log}");
    assert!(log.matches("227 Entering passive mode").count() >= 5);
}

#[test]
fn two_routes_with_two_uploaders_each_keep_to_their_servers() {
    let servers = [
        Server::vsftpd(Opts::default()),
        Server::pyftpdlib(Opts::default()),
    ];
    let service = Settings::new()
        .quick()
        .key("timers.stall", "60s")
        .route("left", &servers[0], "in")
        .route("right", &servers[1], "in")
        .start();
    const N: u64 = 40;
    for i in 0..N {
        service.put("left", &format!("left {i}"), &content(i, 30_000));
        service.put("right", &format!("right {i}"), &content(100 + i, 30_000));
    }
    for (server, route, seed) in [(&servers[0], "left", 0), (&servers[1], "right", 100)] {
        service.wait_spool_empty(route, PATIENCE);
        let found = tree(&server.path("in"));
        assert_eq!(found.len() as u64, N, "{:?}", found.keys());
        for i in 0..N {
            assert_eq!(
                found[&format!("{route} {i}")],
                sha256(&content(seed + i, 30_000))
            );
        }
        let slots: std::collections::BTreeSet<_> = service.json("/api/status")["routes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["name"] == route)
            .flat_map(|r| r["slots"].as_array().unwrap().clone())
            .map(|slot| slot.to_string())
            .collect();
        assert_eq!(slots.len(), 2, "{slots:?}");
    }
}
