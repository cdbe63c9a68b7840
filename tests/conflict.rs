//! What happens when a final name exists on the server (`routes.NAME.on_conflict`): against real
//! servers, with names chosen side by side, and over lost replies and kills, where a file's own
//! earlier publication must not be taken for a conflict.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Event, Fault, Kind, LabServer};
use support::servers::{Opts, Server, is_root};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, count_of, temp_dir, wait_until};

/// The files of a folder with their bytes, temp names included.
fn folder(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_file()));
    files
        .filter_map(|e| Some((e.file_name().into_string().ok()?, fs::read(e.path()).ok()?)))
        .collect()
}

/// Puts a file where a route's server has its files, as somebody else would.
fn place(server: &Server, path: &str, bytes: &[u8]) {
    let path = server.path(path);
    let parent = path.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    fs::write(&path, bytes).unwrap();
    if is_root() {
        let nobody = Some(support::recipes::UNPRIVILEGED);
        std::os::unix::fs::chown(parent, nobody, nobody).unwrap();
        std::os::unix::fs::chown(&path, nobody, nobody).unwrap();
    }
}

fn outcome(service: &Ftpulse, route: &str, outcome: &str) -> f64 {
    let labels = [("route", route), ("outcome", outcome)];
    service.metrics().sum("ftpulse_files_total", &labels)
}

fn every_way_on(server: &Server) {
    let theirs = content(1, 3_000);
    let ours = content(2, 3_000);
    let longer = content(3, 4_000);
    for route in ["overwrite", "skip", "keeps", "rename", "fail"] {
        place(server, &format!("{route}/x.csv"), &theirs);
    }
    place(server, "rename/x-1.csv", &theirs);
    let archive = temp_dir();
    let mut settings = Settings::new().quick();
    for (route, way) in [
        ("overwrite", "overwrite"),
        ("skip", "skip"),
        ("keeps", "skip"),
        ("rename", "rename"),
        ("fail", "fail"),
    ] {
        settings = settings
            .route(route, server, route)
            .key(&format!("routes.{route}.on_conflict"), way);
    }
    let service = settings
        .key("routes.keeps.after", "archive")
        .key("routes.keeps.archive", archive.path().display())
        .start();

    service.put("overwrite", "x.csv", &ours);
    service.wait_delivered("x.csv");
    assert_eq!(fs::read(server.path("overwrite/x.csv")).unwrap(), ours);

    // Of the same size: not needed, whatever is in it.
    service.put("skip", "x.csv", &ours);
    service.wait_log("file skipped", |l| l["route"] == "skip");
    service.wait_spool_empty("skip", PATIENCE);
    assert_eq!(outcome(&service, "skip", "skipped"), 1.0);
    assert_eq!(outcome(&service, "skip", "delivered"), 0.0);
    assert_eq!(folder(&server.path("skip")).len(), 1);

    // Of another size: what would be deleted is kept, and said.
    place(server, "skip/y.csv", &theirs);
    let source = service.put("skip", "y.csv", &longer);
    let line = service.wait_log("upload failed", |l| l["file"] == "y.csv");
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("y.csv exists") && error.contains("3000 bytes") && error.contains("4000"),
        "{error}"
    );
    assert_eq!(fs::read(&source).unwrap(), longer);
    assert_eq!(fs::read(server.path("skip/y.csv")).unwrap(), theirs);

    // What is archived loses nothing.
    service.put("keeps", "x.csv", &longer);
    service.wait_log("file skipped", |l| l["route"] == "keeps");
    service.wait_spool_empty("keeps", PATIENCE);
    // Hidden in the spool first, then archived.
    let archived = archive.path().join("x.csv");
    wait_until("it is archived", PATIENCE, || archived.exists());
    assert!(fs::read(archived).unwrap() == longer);
    assert_eq!(fs::read(server.path("keeps/x.csv")).unwrap(), theirs);

    service.put("rename", "x.csv", &ours);
    let line = service.wait_log("file delivered", |l| l["route"] == "rename");
    assert_eq!(line["stands_as"], "x-2.csv");
    let found = folder(&server.path("rename"));
    assert_eq!(found.len(), 3, "{:?}", found.keys());
    assert_eq!(found["x-2.csv"], ours);
    assert!(found["x.csv"] == theirs && found["x-1.csv"] == theirs);

    service.put("fail", "x.csv", &ours);
    let line = service.wait_log("upload failed", |l| l["route"] == "fail");
    assert!(line["error"].as_str().unwrap().contains("x.csv exists"));
    assert!(line["next"].as_str().unwrap().starts_with("retry in"));
    assert_eq!(folder(&server.path("fail")).len(), 1);
    fs::remove_file(server.path("fail/x.csv")).unwrap();
    service.wait_log("file delivered", |l| l["route"] == "fail");
    assert_eq!(folder(&server.path("fail"))["x.csv"], ours);
}

#[test]
fn a_taken_name_is_replaced_skipped_numbered_or_refused_as_the_route_says() {
    let mut servers = vec![
        Server::vsftpd(Opts::default()),
        Server::pyftpdlib(Opts::default()),
    ];
    if is_root() {
        servers.push(Server::pure_ftpd(Opts::default()));
    }
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| every_way_on(server));
        }
    });
}

#[test]
fn a_server_without_size_is_asked_otherwise() {
    let no_size = |verbs: &str| {
        format!(
            "handler.proto_cmds = {{k: v for k, v in handler.proto_cmds.items() if k not in {verbs}}}"
        )
    };
    for (verbs, told) in [
        ("('SIZE',)", true),
        ("('SIZE', 'MDTM')", true),
        ("('SIZE', 'MDTM', 'MLST')", false),
    ] {
        let server = Server::pyftpdlib(Opts::default().line(no_size(verbs)));
        place(&server, "in/x", b"theirs");
        let service = Settings::new().quick().route("main", &server, "in");
        let service = service
            .key("routes.main.on_conflict", "rename")
            .key("retry.give_up_after", "1s")
            .start();
        service.put("main", "x", b"ours");
        if told {
            let line = service.wait_delivered("x");
            assert_eq!(line["stands_as"], "x-1", "without {verbs}");
        } else {
            let line = service.wait_log("upload failed", |l| l["file"] == "x");
            let error = line["error"].as_str().unwrap();
            assert!(error.contains("cannot tell whether"), "{error}");
            // Nothing was renamed: it is whole on the server, and can be given up.
            service.wait_log("file dead-lettered", |l| l["file"] == "x");
        }
        assert_eq!(fs::read(server.path("in/x")).unwrap(), b"theirs");
    }
}

/// Every file wants the same few names: whatever worker comes first, none may replace another's.
#[test]
fn names_chosen_side_by_side_never_meet() {
    const FILES: u64 = 24;
    let server = Server::vsftpd(Opts::default());
    place(&server, "in/f", b"theirs");
    for n in [2, 5, 11] {
        place(&server, &format!("in/f-{n}"), b"theirs");
    }
    let service = Settings::new()
        .quick()
        .route("main", &server, "in")
        .key("routes.main.on_conflict", "rename")
        .key("routes.main.uploaders", 6)
        .start();
    let name = |n: u64| match n {
        0 => "f".to_owned(),
        n => format!("f-{n}"),
    };
    for n in 0..FILES {
        service.put("main", &name(n), &content(n, 5_000));
    }
    service.wait_metrics("all are delivered", |m| {
        m.sum("ftpulse_files_total", &[("outcome", "delivered")]) >= FILES as f64
    });
    let found = folder(&server.path("in"));
    assert_eq!(found.len() as u64, FILES + 4, "{:?}", found.keys());
    for n in 0..FILES {
        let bytes = content(n, 5_000);
        let times = found.values().filter(|b| **b == bytes).count();
        assert_eq!(times, 1, "{}", name(n));
    }
}

/// The RNTO is executed, its reply never comes: the file stands under its final name, and that is
/// no conflict, neither in this life nor in the next one.
#[test]
fn an_own_publication_in_doubt_is_no_conflict() {
    for (way, killed) in [
        ("skip", false),
        ("fail", false),
        ("rename", false),
        ("fail", true),
        ("rename", true),
    ] {
        let root = temp_dir();
        fs::create_dir(root.path().join("in")).unwrap();
        if way == "rename" {
            fs::write(root.path().join("in/x.csv"), b"theirs").unwrap();
        }
        let lab =
            LabServer::start(root.path(), Fault::new(Kind::RntoDoneNoReply).first(1)).unwrap();
        let mut events = lab.events();
        let mut service = Settings::new()
            .quick()
            .key("timers.reply", if killed { "30s" } else { "1s" })
            .route_to("main", &lab.url("in"), lab.password())
            .key("routes.main.on_conflict", way)
            .start();
        let bytes = content(9, 20_000);
        service.put("main", "x.csv", &bytes);
        let renamed = events.wait_for(|e| matches!(e, Event::Renamed { .. }), PATIENCE);
        let Some(Event::Renamed { to, .. }) = renamed else {
            panic!("it was not renamed");
        };
        if killed {
            service = service.kill_and_restart();
        }
        let line = service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        let own = if way == "rename" { "x-1.csv" } else { "x.csv" };
        assert!(to.ends_with(own), "{way}: {to}");
        if way == "rename" {
            assert_eq!(line["stands_as"], own, "{way}, killed: {killed}");
        }
        let found = folder(&root.path().join("in"));
        let files = if way == "rename" { 2 } else { 1 };
        assert_eq!(found.len(), files, "{way}: {:?}", found.keys());
        assert_eq!(found[own], bytes);
    }
}

/// The process is killed at random moments: each file stands once, none under a number.
#[test]
fn a_process_that_is_killed_again_and_again_numbers_no_file_of_its_own() {
    let (kills, files) = (count_of("FTPULSE_KILLS", 6), count_of("FTPULSE_FILES", 60));
    let server = Server::vsftpd(Opts::default());
    let mut service = Settings::new()
        .quick()
        .route("main", &server, "in")
        .key("routes.main.on_conflict", "rename")
        .start();
    let bytes = |n: usize| content(n as u64, n * 1_000);
    let (mut put, mut random) = (0, 0x2545_f491_4f6c_dd1d_u64);
    for kill in 0..kills {
        while put < files * (kill + 1) / kills {
            service.put("main", &format!("{put}.bin"), &bytes(put));
            put += 1;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let end = clock::mono() + Duration::from_millis(200 + random % 400);
        wait_until("the moment has come", PATIENCE, || clock::mono() >= end);
        service = service.kill_and_restart();
    }
    service.wait_spool_empty("main", PATIENCE * 2);
    let found = folder(&server.path("in"));
    let finals = found.iter().filter(|(name, _)| !name.starts_with('.'));
    let finals: BTreeMap<_, _> = finals.collect();
    let numbered: Vec<_> = finals.keys().filter(|n| n.contains('-')).collect();
    assert!(numbered.is_empty(), "{numbered:?}");
    assert_eq!(finals.len(), files);
    for n in 0..files {
        assert!(*finals[&format!("{n}.bin")] == bytes(n), "{n} is torn");
    }
}

/// What went over control connections, in order: when, whether the client said it, the line.
type Said = Arc<Mutex<Vec<(Duration, bool, String)>>>;

/// Hands control connections on and notes each line. It listens on the server's own IP: the
/// passive ports that the server names are found there.
fn noting_relay(server: SocketAddr) -> (SocketAddr, Said) {
    let listener = TcpListener::bind((server.ip(), 0)).unwrap();
    let (addr, said) = (listener.local_addr().unwrap(), Said::default());
    let notes = Arc::clone(&said);
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let Ok(server) = TcpStream::connect(server) else {
                continue;
            };
            for (by_client, from, to) in [(true, &client, &server), (false, &server, &client)] {
                let (from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                to.set_nodelay(true).unwrap();
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || {
                    for line in BufReader::new(from).lines().map_while(Result::ok) {
                        let sent = format!("{line}\r\n");
                        notes.lock().unwrap().push((clock::mono(), by_client, line));
                        if to.write_all(sent.as_bytes()).is_err() {
                            return;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (addr, said)
}

/// Between the look at the final name and its rename comes nothing but the RNFR: so long another
/// writer has. Printed, from the SIZE on its way to the server to the 250 on its way back;
/// FTPULSE_FILES sets how often.
#[test]
fn the_window_for_other_writers_is_two_round_trips() {
    let files = count_of("FTPULSE_FILES", 60);
    let server = Server::vsftpd(Opts::default());
    let (addr, said) = noting_relay(server.addr);
    let url = format!("ftp://{}@{addr}/in", server.user);
    let service = Settings::new()
        .quick()
        .route_to("main", &url, &server.password)
        .key("routes.main.on_conflict", "rename")
        .key("routes.main.uploaders", 1)
        .start();
    for n in 0..files {
        service.put("main", &format!("{n}.bin"), &content(n as u64, 1_000));
    }
    service.wait_spool_empty("main", PATIENCE * 2);
    drop(service);
    let said = said.lock().unwrap();
    let asked: Vec<_> = said.iter().filter(|(_, by_client, _)| *by_client).collect();
    let answers = |since| {
        let later = said
            .iter()
            .filter(move |(at, by_client, _)| !by_client && *at >= since);
        later.map(|(at, _, line)| (*at, line))
    };
    let mut windows = Vec::new();
    for three in asked.windows(3) {
        let [(looked, _, look), (_, _, from), (renamed, _, to)] = three else {
            unreachable!("three of them");
        };
        let Some(name) = to.strip_prefix("RNTO ") else {
            continue;
        };
        assert_eq!(*look, format!("SIZE {name}"));
        assert!(from.starts_with("RNFR "), "{from}");
        let (done, reply) = answers(*renamed).next().unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        windows.push(done - *looked);
    }
    assert_eq!(windows.len(), files);
    windows.sort();
    println!(
        "from the look at a final name to its rename, {files} files to vsftpd over loopback: \
         median {:?}, 99 of 100 within {:?}, max {:?}",
        windows[files / 2],
        windows[files * 99 / 100],
        windows[files - 1]
    );
}
