//! Downloads from servers that fail in every phase, over plain FTP, TLS and in active mode: each
//! failure is told with its phase, leaves nothing under the final name and the remote file where it
//! was, and the file comes down whole and once in the end. Prints the table. Also: servers as they
//! are, whose ways are no faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use ftpulse::lab::{Event, Fault, Kind, LabServer, Quirk, Script, Step, Tls};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};

/// Starts anew, and more than a fault lets through.
const SMALL: usize = 1 << 20;
/// Goes on where it stopped.
const LARGE: usize = 6 << 20;
/// Bytes that come before a fault in mid-file.
const AFTER: u64 = 200_000;
/// The same of a large file: more than the seam that is received again.
const FAR: u64 = 3 << 20;

/// How the service speaks with the server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Tls,
    Active,
}
use Way::{Active, Plain, Tls as Secured};

/// What is logged of a failure, and in which phase; and what is left of it here.
struct Row {
    kind: Kind,
    way: Way,
    size: usize,
    told: &'static str,
    phase: Option<&'static str>,
    here: Here,
}

/// What is left here of the first attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Here {
    /// Nothing.
    Nothing,
    /// A part under its temp name.
    Part,
    /// Whatever the next attempt finds: the worker was ended.
    Any,
    /// The whole file, under its final name.
    Whole,
}
use Here::{Any, Nothing, Part, Whole};

const LISTED: &str = "the remote folder cannot be listed";
const FAILED: &str = "download failed";
const WEDGED: &str = "deadlock found";
const LEFT: &str = "the downloaded file cannot be finished on the server";

const fn row(
    kind: Kind,
    way: Way,
    size: usize,
    told: &'static str,
    phase: &'static str,
    here: Here,
) -> Row {
    Row {
        kind,
        way,
        size,
        told,
        phase: Some(phase),
        here,
    }
}

const ROWS: &[Row] = &[
    row(
        Kind::NoReply(Step::List),
        Plain,
        SMALL,
        LISTED,
        "reply",
        Nothing,
    ),
    row(Kind::StopListing, Plain, SMALL, LISTED, "transfer", Nothing),
    row(
        Kind::NoReply(Step::Listed),
        Plain,
        SMALL,
        LISTED,
        "final_reply",
        Nothing,
    ),
    row(
        Kind::DataNotAccepted,
        Plain,
        SMALL,
        LISTED,
        "data_connect",
        Nothing,
    ),
    row(
        Kind::NoReply(Step::Retr),
        Plain,
        SMALL,
        FAILED,
        "reply",
        Nothing,
    ),
    row(
        Kind::StopSending { after: AFTER },
        Plain,
        SMALL,
        WEDGED,
        "transfer",
        Any,
    ),
    row(
        Kind::StopSending { after: FAR },
        Plain,
        LARGE,
        WEDGED,
        "transfer",
        Any,
    ),
    row(
        Kind::DeadPath { after: AFTER },
        Plain,
        SMALL,
        WEDGED,
        "transfer",
        Any,
    ),
    row(
        Kind::Short { after: AFTER },
        Plain,
        SMALL,
        FAILED,
        "final_reply",
        Nothing,
    ),
    row(
        Kind::Close {
            after: AFTER,
            silent: false,
        },
        Plain,
        SMALL,
        FAILED,
        "final_reply",
        Nothing,
    ),
    row(
        Kind::Close {
            after: FAR,
            silent: true,
        },
        Plain,
        LARGE,
        FAILED,
        "final_reply",
        Part,
    ),
    // Whether its reason comes after the reset is a race.
    Row {
        kind: Kind::Reset {
            after: AFTER,
            silent: false,
        },
        way: Plain,
        size: SMALL,
        told: FAILED,
        phase: None,
        here: Nothing,
    },
    row(
        Kind::Reset {
            after: AFTER,
            silent: true,
        },
        Plain,
        SMALL,
        FAILED,
        "transfer",
        Nothing,
    ),
    row(
        Kind::MidReply {
            code: 451,
            after: FAR,
        },
        Plain,
        LARGE,
        FAILED,
        "final_reply",
        Part,
    ),
    row(
        Kind::ControlDrop { after: AFTER },
        Plain,
        SMALL,
        WEDGED,
        "transfer",
        Any,
    ),
    row(
        Kind::NoReply(Step::Final),
        Plain,
        SMALL,
        FAILED,
        "final_reply",
        Nothing,
    ),
    row(
        Kind::NoReply(Step::Final),
        Plain,
        LARGE,
        FAILED,
        "final_reply",
        Part,
    ),
    row(
        Kind::NoReply(Step::Dele),
        Plain,
        SMALL,
        LEFT,
        "reply",
        Whole,
    ),
    row(
        Kind::Reply(Step::Dele, 450),
        Plain,
        SMALL,
        LEFT,
        "reply",
        Whole,
    ),
    row(Kind::HangUp(Step::Dele), Plain, SMALL, LEFT, "reply", Whole),
    row(
        Kind::StopSending { after: AFTER },
        Secured,
        SMALL,
        WEDGED,
        "transfer",
        Any,
    ),
    row(
        Kind::Close {
            after: AFTER,
            silent: false,
        },
        Secured,
        SMALL,
        FAILED,
        "final_reply",
        Nothing,
    ),
    row(
        Kind::NoReply(Step::Final),
        Secured,
        LARGE,
        FAILED,
        "final_reply",
        Part,
    ),
    row(Kind::NoConnect, Active, SMALL, LISTED, "listen", Nothing),
    row(
        Kind::StopSending { after: AFTER },
        Active,
        SMALL,
        WEDGED,
        "transfer",
        Any,
    ),
];

fn server(root: &Path, way: Way, faults: Vec<Fault>) -> LabServer {
    let script = Script::of(faults);
    let script = match way {
        Secured => script.over(Tls::explicit()),
        Plain | Active => script,
    };
    fs::create_dir_all(root.join("in")).unwrap();
    LabServer::start(root, script).unwrap()
}

fn settings(lab: &LabServer, way: Way, root: &Path) -> Settings {
    let settings = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.direction", "get")
        .key("routes.main.poll", "1s")
        .key("routes.main.settle", "0s")
        .key("routes.main.uploaders", 1)
        .key("routes.main.resume_over", "4MiB")
        .key("timers.reply", "1s")
        .key("timers.listen", "1s")
        .key("timers.data_connect", "500ms")
        .key("timers.data_connect_attempts", 2);
    match (way, lab.ca()) {
        (Secured, Some(ca)) => {
            let file = root.join("ca.pem");
            fs::write(&file, ca).unwrap();
            settings.key("routes.main.ca_file", file.display())
        }
        (Active, _) => settings.key("routes.main.mode", "active"),
        _ => settings,
    }
}

/// Puts a file into the server's folder at once.
fn offer(root: &Path, name: &str, bytes: &[u8]) {
    let staged = root.join("staged");
    fs::write(&staged, bytes).unwrap();
    fs::rename(&staged, root.join("in").join(name)).unwrap();
}

/// Names in the local folder, but those that the service itself keeps there.
fn names(service: &Ftpulse) -> Vec<String> {
    let entries = fs::read_dir(service.spool("main")).unwrap().flatten();
    entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect()
}

fn one(row: &Row) -> String {
    let (root, own) = (temp_dir(), temp_dir());
    let fault = Fault::new(row.kind);
    let lab = server(root.path(), row.way, vec![fault]);
    let bytes = content(9, row.size);
    offer(root.path(), "f.bin", &bytes);
    // What is looked at after the failure must not be gone before it is.
    let service = settings(&lab, row.way, own.path())
        .key("retry.first", "2s")
        .key("retry.max", "2s");
    let service = service.start();
    let told = service.wait_log(row.told, |_| true);
    if row.phase.is_some() {
        assert_eq!(told["phase"].as_str(), row.phase, "{:?} {told}", row.kind);
    }
    let (name, found) = (service.spool("main").join("f.bin"), names(&service));
    let parts = found.iter().filter(|name| name.ends_with(".part")).count();
    match row.here {
        Nothing => assert!(parts == 0 && !name.exists(), "{:?}: {found:?}", row.kind),
        Part => assert!(parts == 1 && !name.exists(), "{:?}: {found:?}", row.kind),
        Any => assert!(parts <= 1 && !name.exists(), "{:?}: {found:?}", row.kind),
        Whole => assert!(fs::read(&name).unwrap() == bytes, "{:?}", row.kind),
    }
    let there = fs::read(root.path().join("in/f.bin")).unwrap() == bytes;
    assert!(there, "the remote file is as it was");
    if row.told == WEDGED {
        let quarantined = service.wait_log("sockets quarantined", |_| true);
        assert_eq!(quarantined["route"], "main");
    }
    service.wait_delivered("f.bin");
    wait_until("it is deleted there", PATIENCE, || {
        !root.path().join("in/f.bin").exists()
    });
    assert!(fs::read(&name).unwrap() == bytes, "{:?}", row.kind);
    wait_until("nothing else is left here", PATIENCE, || {
        names(&service) == ["f.bin"]
    });
    assert_eq!(service.logged("file delivered").len(), 1, "once");
    let resumed = service.logged("download resumed").len();
    let kind = format!("{:?}", row.kind);
    format!(
        "{kind:36} {:8} {:>8} {:32.32} {:12} {:8} untouched {resumed}",
        format!("{:?}", row.way),
        row.size,
        row.told,
        row.phase.unwrap_or("-"),
        format!("{:?}", row.here),
    )
}

/// Runs some at a time: many services on two cores would starve each other.
fn table<T: Sync>(rows: &[T], one: impl Fn(&T) -> String + Sync) {
    for some in rows.chunks(4) {
        let lines: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|row| scope.spawn(|| one(row))).collect();
            running.into_iter().map(|thread| thread.join()).collect()
        });
        for line in lines {
            println!("{}", line.expect("a row is as it should be"));
        }
    }
}

#[test]
fn every_fault_ends_with_the_file_here_whole_and_once() {
    println!(
        "fault                                way          size told                             \
         phase        here     there     resumed"
    );
    table(ROWS, one);
}

#[test]
fn a_lost_reply_to_the_archiving_is_no_second_download() {
    table(
        &[
            (Kind::NoReply(Step::Rnfr), 1),
            (Kind::NoReply(Step::Rnto), 1),
            (Kind::RntoDoneNoReply, 1),
        ],
        |&(kind, deliveries)| {
            let (root, own) = (temp_dir(), temp_dir());
            let lab = server(root.path(), Plain, vec![Fault::new(kind)]);
            offer(root.path(), "f.bin", b"content");
            let service = settings(&lab, Plain, own.path())
                .key("routes.main.after", "archive")
                .key("routes.main.archive", "/in/done")
                .start();
            service.wait_log(LEFT, |line| line["phase"] == "reply");
            lab.thaw();
            wait_until("it is archived", PATIENCE, || {
                let there = |name: &str| root.path().join(name).exists();
                there("in/done/f.bin") && !there("in/f.bin")
            });
            offer(root.path(), "g.bin", b"later");
            service.wait_delivered("g.bin");
            let told = service.logged("file delivered");
            let of_it = told.iter().filter(|line| line["file"] == "f.bin").count();
            assert_eq!(of_it, deliveries, "{kind:?}");
            let archived = fs::read_dir(root.path().join("in/done")).unwrap().flatten();
            let copies = archived.filter(|e| e.file_name().to_string_lossy().starts_with('f'));
            assert_eq!(copies.count(), 1, "{kind:?}");
            format!("{kind:?}: delivered once, archived once")
        },
    );
}

#[test]
fn hostile_names_of_a_listing_never_leave_the_folder() {
    for quirks in [vec![], vec![Quirk::Refuses("MLSD", 500)]] {
        let (root, own) = (temp_dir(), temp_dir());
        fs::create_dir_all(root.path().join("in")).unwrap();
        let script = Script::of([Fault::new(Kind::HostileNames).always()]).like(quirks.clone());
        let lab = LabServer::start(root.path(), script).unwrap();
        offer(root.path(), "good.bin", b"good");
        let service = settings(&lab, Plain, own.path()).start();
        service.wait_delivered("good.bin");
        let refused = service.wait_log("a listed name is refused", |_| true);
        offer(root.path(), "last.bin", b"last");
        service.wait_delivered("last.bin");
        let lines = service.logged("a listed name is refused");
        let counted = service
            .metrics()
            .sum("ftpulse_refused_names_total", &[("route", "main")]);
        println!("{quirks:?}: {} refused, the first: {refused}", lines.len());
        assert_eq!(counted, lines.len() as f64, "each once");
        assert!(lines.len() >= 3);
        let mut found = names(&service);
        found.retain(|name| !name.ends_with(".part"));
        found.sort();
        assert_eq!(found, ["good.bin", "last.bin"]);
        let spools = service.spool("main").parent().unwrap().to_owned();
        let beside: Vec<_> = fs::read_dir(&spools).unwrap().flatten().collect();
        assert_eq!(beside.len(), 1, "nothing beside the folder: {beside:?}");
    }
}

#[test]
fn servers_as_they_are_are_served() {
    let ways: &[&[Quirk]] = &[
        &[Quirk::Refuses("MLSD", 500)],
        &[Quirk::Refuses("MLSD", 502), Quirk::Refuses("MDTM", 500)],
        &[Quirk::Refuses("MLSD", 500), Quirk::DosList],
        &[Quirk::Refuses("EPSV", 500)],
        &[Quirk::Refuses("REST", 502)],
        &[Quirk::Refuses("FEAT", 500)],
        &[Quirk::BareLf, Quirk::ListsParents],
        &[Quirk::NoEmptyList],
        &[Quirk::NoEmptyList, Quirk::Refuses("MLSD", 500)],
        &[Quirk::Says(226, 250), Quirk::NoPassword],
        &[Quirk::SizeNeedsBinary, Quirk::Refuses("MLSD", 500)],
        &[Quirk::OneFile],
    ];
    table(ways, |quirks| {
        let (root, own) = (temp_dir(), temp_dir());
        fs::create_dir_all(root.path().join("in")).unwrap();
        let script = Script::healthy().like(quirks.to_vec());
        let lab = LabServer::start(root.path(), script).unwrap();
        let mut events = lab.events();
        let service = settings(&lab, Plain, own.path())
            .key("routes.main.settle", "200ms")
            .start();
        // The first listing shows nothing.
        let listed = |e: &Event| matches!(e, Event::Command { verb, .. } if verb == "LIST" || verb == "MLSD");
        events.wait_for(listed, PATIENCE).expect("it is listed");
        for (number, size) in [40_000, 0, SMALL].into_iter().enumerate() {
            let (name, bytes) = (format!("{number} x.bin"), content(number as u64, size));
            offer(root.path(), &name, &bytes);
            service.wait_delivered(&name);
            assert!(fs::read(service.spool("main").join(&name)).unwrap() == bytes);
            wait_until("it is deleted there", PATIENCE, || {
                !root.path().join("in").join(&name).exists()
            });
        }
        assert_eq!(service.logged("file delivered").len(), 3);
        for trouble in [FAILED, LISTED, WEDGED] {
            let lines = service.logged(trouble);
            // A session that ends after each file is asked to be used once more.
            let excused = quirks.contains(&Quirk::OneFile);
            assert!(lines.is_empty() || excused, "{quirks:?}: {lines:?}");
        }
        format!("{quirks:?}")
    });
}

#[test]
fn a_slow_server_is_no_fault() {
    let (root, own) = (temp_dir(), temp_dir());
    let trickle = Kind::Trickle {
        after: AFTER,
        bytes_per_second: 100_000,
    };
    let lab = server(root.path(), Plain, vec![Fault::new(trickle)]);
    let bytes = content(3, 600_000);
    offer(root.path(), "slow.bin", &bytes);
    let service = settings(&lab, Plain, own.path())
        .key("timers.stall", "1s")
        .start();
    let line = service.wait_log_within(Duration::from_secs(120), "file delivered", |_| true);
    assert!(line["seconds"].as_f64().unwrap() > 3.0, "{line}");
    assert!(fs::read(service.spool("main").join("slow.bin")).unwrap() == bytes);
    assert!(service.logged(WEDGED).is_empty());
}
