//! How a file comes to its final name where a server is special: temp names of another form
//! (`temp_pattern`), upload straight under the final name (`publish = "direct"`), a marker beside
//! it afterwards (`remote_marker`): against real servers that refuse what the usual way needs, and
//! over lost replies and kills.
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
use std::path::Path;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Step};
use support::servers::{Opts, Server};
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

/// The one file of a folder.
fn only(path: &Path, name: &str, bytes: &[u8]) {
    let found = folder(path);
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, [name]);
    assert!(found[name] == bytes, "{name} is torn");
}

#[test]
fn a_server_without_dot_files_takes_temp_names_of_another_form() {
    // It refuses every name that begins with a dot, as many partners do.
    let server = Server::vsftpd(Opts::default().line("deny_file={.*}"));
    let bytes = content(1, 40_000);
    let service = Settings::new().quick().route("main", &server, "in");
    let service = service.start();
    service.put("main", "x.csv", &bytes);
    let line = service.wait_log("upload failed", |l| l["file"] == "x.csv");
    assert!(line["error"].as_str().unwrap().contains("STOR"), "{line}");
    drop(service);

    let service = Settings::new()
        .quick()
        .route("main", &server, "in")
        .key("routes.main.temp_pattern", "{name}.{token}.filepart")
        .start();
    service.put("main", "a/x.csv", &bytes);
    service.wait_delivered("a/x.csv");
    only(&server.path("in/a"), "x.csv", &bytes);
}

#[test]
fn a_temp_name_has_the_form_of_its_route_and_the_mark_of_its_agent() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut events = lab.events();
    let service = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.temp_pattern", "up_{token}_{name}.tmp")
        .start();
    let mut seen = Vec::new();
    for _ in 0..2 {
        service.put("main", "x.csv", b"bytes");
        let renamed = events.wait_for(|e| matches!(e, Event::Renamed { .. }), PATIENCE);
        let Some(Event::Renamed { from, to, .. }) = renamed else {
            panic!("it was not renamed");
        };
        assert_eq!(to, "/in/x.csv");
        let token = from
            .strip_prefix("/in/up_")
            .and_then(|n| n.strip_suffix("_x.csv.tmp"));
        seen.push(token.unwrap_or_else(|| panic!("{from}")).to_owned());
        service.wait_spool_empty("main", PATIENCE);
    }
    let agents = seen.iter().map(|t| t.split_once('-').unwrap().0);
    let tokens = seen.iter().map(|t| t.split_once('-').unwrap().1);
    let (agents, tokens): (Vec<_>, Vec<_>) = (agents.collect(), tokens.collect());
    assert!(agents[0].len() == 8 && agents[0] == agents[1], "{seen:?}");
    assert!(tokens[0].len() == 16 && tokens[0] != tokens[1], "{seen:?}");
}

/// A route that sends straight to the lab.
fn direct_to(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.publish", "direct")
}

/// A server that cuts a file off in the middle, once, and says nothing more in that session.
fn torn_once(root: &Path) -> LabServer {
    let after = 10_000;
    let reset = Kind::Reset {
        after,
        silent: true,
    };
    LabServer::start(root, Fault::new(reset).first(1)).unwrap()
}

fn delivered(service: &Ftpulse) -> f64 {
    let labels = [("route", "main"), ("outcome", "delivered")];
    service.metrics().sum("ftpulse_files_total", &labels)
}

/// vsftpd that refuses to rename and to delete, and is slow enough to be caught in the middle of a
/// file: a killed service's part is not delivered and is no conflict, and is stored over.
#[test]
fn a_server_that_refuses_to_rename_gets_files_straight_under_their_names() {
    let slow = ["anon_max_rate=1000000", "local_max_rate=1000000"];
    let denied = Opts::default().line("cmds_denied=RNFR,RNTO,DELE");
    let server = Server::vsftpd(denied.line(slow[0]).line(slow[1]));
    let bytes = content(1, 2_000_000);
    let service = Settings::new().quick().route("main", &server, "in").start();
    service.put("main", "small.csv", b"small");
    let line = service.wait_log("upload failed", |l| l["file"] == "small.csv");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("RNFR"), "{error}");
    drop(service);

    let service = Settings::new()
        .quick()
        .route("main", &server, "out")
        .key("routes.main.publish", "direct")
        .key("routes.main.on_conflict", "fail")
        .start();
    let warned = service.lines().into_iter().any(|l| {
        let text = l.to_string();
        text.contains("routes.main.publish") && text.contains("torn")
    });
    assert!(warned, "{}", service.log_text());
    service.put("main", "x.csv", &bytes);
    let target = server.path("out/x.csv");
    wait_until("a part is there", PATIENCE, || {
        fs::metadata(&target).is_ok_and(|meta| meta.len() > 0)
    });
    let service = service.kill_and_restart();
    let part = fs::metadata(&target).unwrap().len();
    assert!(part < 2_000_000, "it was not caught in the middle");
    service.wait_delivered("x.csv");
    service.wait_spool_empty("main", PATIENCE);
    only(&server.path("out"), "x.csv", &bytes);
    service.wait_log("a part cannot be taken away", |_| true);

    // What others have under that name is still a conflict.
    service.put("main", "x.csv", b"another");
    let line = service.wait_log("upload failed", |l| l["file"] == "x.csv");
    assert!(line["error"].as_str().unwrap().contains("exists"), "{line}");
    only(&server.path("out"), "x.csv", &bytes);
}

/// The back-off is an hour: what was torn does not wait for it.
#[test]
fn a_torn_file_is_sent_again_at_once_and_counts_once() {
    for way in ["overwrite", "skip", "fail", "rename"] {
        let root = temp_dir();
        let lab = torn_once(root.path());
        let service = direct_to(&lab)
            .key("routes.main.on_conflict", way)
            .key("retry.first", "1h")
            .key("retry.max", "1h")
            .start();
        let bytes = content(2, 50_000);
        service.put("main", "a/x.csv", &bytes);
        let line = service.wait_delivered("a/x.csv");
        service.wait_spool_empty("main", PATIENCE);
        only(&root.path().join("in/a"), "x.csv", &bytes);
        assert_eq!(line["bytes_sent"], 50_000, "{way}");
        assert_eq!(lab.counters().strikes, 1);
        assert_eq!(delivered(&service), 1.0, "{way}");
        assert_eq!(lab.counters().rename_count, 0);
    }
}

/// The process dies with a part under the final name: the next life sends the file again under the
/// same name, whatever the route says of names that exist.
#[test]
fn a_part_of_an_earlier_life_is_neither_delivered_nor_a_conflict() {
    for way in ["overwrite", "skip", "fail", "rename"] {
        let root = temp_dir();
        let stop = Kind::StopReading { after: 10_000 };
        let lab = LabServer::start(root.path(), Fault::new(stop).first(1)).unwrap();
        let mut events = lab.events();
        let taken = if way == "rename" { "x.csv" } else { "other" };
        fs::create_dir(root.path().join("in")).unwrap();
        fs::write(root.path().join("in").join(taken), b"theirs").unwrap();
        let service = direct_to(&lab).key("routes.main.on_conflict", way).start();
        let bytes = content(3, 9_000_000);
        service.put("main", "x.csv", &bytes);
        let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
        assert!(struck.is_some());
        let service = service.kill_and_restart();
        let line = service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        assert_eq!(line["bytes_sent"], 9_000_000, "{way}");
        let own = if way == "rename" { "x-1.csv" } else { "x.csv" };
        let found = folder(&root.path().join("in"));
        assert_eq!(found.len(), 2, "{way}: {:?}", found.keys());
        assert!(found[own] == bytes && found[taken] == b"theirs", "{way}");
    }
}

/// No 226 came: the size may be right, but nothing says that the server has it all.
#[test]
fn without_a_226_the_size_proves_nothing() {
    let root = temp_dir();
    let silent = Fault::new(Kind::NoReply(Step::Final)).first(1);
    let lab = LabServer::start(root.path(), silent).unwrap();
    let service = direct_to(&lab).key("timers.reply", "1s").start();
    let bytes = content(4, 50_000);
    service.put("main", "x.csv", &bytes);
    let line = service.wait_delivered("x.csv");
    assert_eq!(line["bytes_sent"], 50_000);
    assert_eq!(lab.counters().stor_count, 2);
    only(&root.path().join("in"), "x.csv", &bytes);
}

/// The 226 was read, then the session is lost before SIZE was answered.
#[test]
fn after_a_226_the_size_decides_what_is_in_doubt() {
    for found in ["whole", "torn", "taken away"] {
        let root = temp_dir();
        let silent = Fault::new(Kind::NoReply(Step::Size)).first(1);
        let lab = LabServer::start(root.path(), silent).unwrap();
        let mut events = lab.events();
        let service = direct_to(&lab).key("timers.reply", "1s").start();
        let bytes = content(5, 50_000);
        service.put("main", "x.csv", &bytes);
        let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
        assert!(struck.is_some());
        let target = root.path().join("in/x.csv");
        match found {
            "torn" => {
                let file = fs::File::options().write(true).open(target);
                file.unwrap().set_len(49_999).unwrap();
            }
            "taken away" => fs::remove_file(target).unwrap(),
            _ => {}
        }
        let line = service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        let (sent, stored) = if found == "torn" { (50_000, 2) } else { (0, 1) };
        assert_eq!(line["bytes_sent"], sent, "{found}");
        assert_eq!(lab.counters().stor_count, stored, "{found}");
        if found == "taken away" {
            assert!(folder(&root.path().join("in")).is_empty());
        } else {
            only(&root.path().join("in"), "x.csv", &bytes);
        }
    }
}

/// A stopped session that goes on later writes to a file that has no name any more.
#[test]
fn a_session_that_goes_on_late_does_not_tear_what_was_sent_again() {
    let root = temp_dir();
    let stop = Kind::StopReading { after: 100_000 };
    let stop = Fault::new(stop).first(1).until_thaw();
    let lab = LabServer::start(root.path(), stop).unwrap();
    let mut events = lab.events();
    let service = direct_to(&lab).start();
    let bytes = content(14, 9_000_000);
    service.put("main", "x.csv", &bytes);
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    let old = struck.expect("it is stopped").session();
    service.wait_log("deadlock found", |l| l["file"] == "x.csv");
    service.wait_delivered("x.csv");
    only(&root.path().join("in"), "x.csv", &bytes);
    lab.thaw();
    // Its sockets are held until the end of the service; then it sees that the upload failed.
    let thawed = events.wait_for(|e| matches!(e, Event::Thawed { .. }), PATIENCE);
    assert!(thawed.is_some_and(|e| e.session() == old));
    drop(service);
    let ended = |e: &Event| matches!(e, Event::Ended { session } if *session == old);
    assert!(events.wait_for(ended, PATIENCE).is_some());
    only(&root.path().join("in"), "x.csv", &bytes);
}

/// The source changes while a part of it is seen: the part goes, the new version comes.
#[test]
fn a_part_makes_room_for_a_new_version_of_its_source() {
    let root = temp_dir();
    let stop = Kind::StopReading { after: 10_000 };
    let lab = LabServer::start(root.path(), Fault::new(stop).first(1)).unwrap();
    let mut events = lab.events();
    let service = direct_to(&lab)
        .key("routes.main.on_conflict", "fail")
        .start();
    service.put("main", "x.csv", &content(6, 9_000_000));
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some());
    let bytes = content(7, 50_000);
    service.put("main", "x.csv", &bytes);
    service.wait_log("file delivered", |l| l["bytes"] == 50_000);
    service.wait_spool_empty("main", PATIENCE);
    only(&root.path().join("in"), "x.csv", &bytes);
}

/// The remote folder is gone with what was stored there: that the file is not in the new one does
/// not mean that somebody has taken it.
#[test]
fn a_remote_folder_made_anew_proves_no_delivery() {
    let root = temp_dir();
    let silent = Fault::new(Kind::NoReply(Step::Size)).first(1);
    let lab = LabServer::start(root.path(), silent).unwrap();
    let mut events = lab.events();
    let service = direct_to(&lab).key("timers.reply", "1s").start();
    let bytes = content(8, 50_000);
    service.put("main", "x.csv", &bytes);
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some());
    fs::remove_dir_all(root.path().join("in")).unwrap();
    let line = service.wait_delivered("x.csv");
    assert_eq!(line["bytes_sent"], 50_000);
    only(&root.path().join("in"), "x.csv", &bytes);
}

/// The source is taken back after its part was seen: the part goes too.
#[test]
fn a_part_goes_when_its_source_is_taken_back() {
    let root = temp_dir();
    let stop = Kind::StopReading { after: 10_000 };
    let lab = LabServer::start(root.path(), Fault::new(stop).first(1)).unwrap();
    let mut events = lab.events();
    let service = direct_to(&lab).start();
    let source = service.put("main", "x.csv", &content(6, 9_000_000));
    let struck = events.wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE);
    assert!(struck.is_some());
    fs::remove_file(source).unwrap();
    wait_until("the part is gone", PATIENCE, || {
        !root.path().join("in/x.csv").exists()
    });
    assert_eq!(delivered(&service), 0.0);
}

/// A route to the lab that marks what it delivered.
fn marked_to(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.remote_marker", "{name}.done")
}

/// What became visible or was renamed or deleted, in order; temp names shortened.
fn story(events: &mut ftpulse::lab::Subscriber) -> Vec<String> {
    let short = |path: &str| {
        let name = path.rsplit('/').next().unwrap().to_owned();
        if name.ends_with(".part") {
            "temp".into()
        } else {
            name
        }
    };
    let told = events.drain().into_iter().filter_map(|event| match event {
        Event::Storing { path, .. } => Some(format!("store {}", short(&path))),
        Event::Renamed { from, to, .. } => Some(format!("{} to {}", short(&from), short(&to))),
        Event::Deleted { path, .. } => Some(format!("delete {}", short(&path))),
        _ => None,
    });
    told.collect()
}

/// The file and its empty marker, nothing else.
fn marked(path: &Path, name: &str, bytes: &[u8]) {
    let found = folder(path);
    let marker = format!("{name}.done");
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, [name, &marker]);
    assert!(found[name] == bytes && found[&marker].is_empty());
}

#[test]
fn a_marker_stands_beside_each_delivered_file_on_every_server() {
    let servers = Server::all(&Opts::default());
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| {
                let service = Settings::new()
                    .quick()
                    .route("main", server, "in")
                    .key("routes.main.remote_marker", "{name}.done")
                    .start();
                let bytes = content(7, 30_000);
                service.put("main", "a/x.csv", &bytes);
                service.wait_delivered("a/x.csv");
                marked(&server.path("in/a"), "x.csv", &bytes);
                // A file that looks like another one's marker is not sent.
                service.put("main", "a/y.done", b"no marker");
                let line = service.wait_log("upload failed", |l| l["file"] == "a/y.done");
                let error = line["error"].as_str().unwrap();
                assert!(
                    error.contains("form of a marker") && error.contains("routes.main.exclude"),
                    "{error}"
                );
                assert_eq!(folder(&server.path("in/a")).len(), 2, "{}", server.name);
            });
        }
    });
}

#[test]
fn a_marker_comes_after_its_file_and_an_old_one_goes_before_a_file_grows() {
    for (way, first, second) in [
        (
            "rename",
            ["store temp", "temp to x.csv", "store x.csv.done"].as_slice(),
            ["store temp", "temp to x.csv", "store x.csv.done"].as_slice(),
        ),
        (
            "direct",
            &["store x.csv", "store x.csv.done"],
            &["delete x.csv.done", "store x.csv", "store x.csv.done"],
        ),
    ] {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
        let mut events = lab.events();
        let service = marked_to(&lab).key("routes.main.publish", way).start();
        for (n, expected) in [(8, first), (9, second)] {
            let bytes = content(n, 30_000);
            service.put("main", "x.csv", &bytes);
            service.wait_log("file delivered", |l| {
                l["bytes"] == 30_000 && {
                    fs::read(root.path().join("in/x.csv")).is_ok_and(|found| found == bytes)
                }
            });
            service.wait_spool_empty("main", PATIENCE);
            marked(&root.path().join("in"), "x.csv", &bytes);
            assert_eq!(story(&mut events), expected, "{way}");
        }
    }
}

/// The marker is refused, then its session freezes: the file stands and is not sent again.
#[test]
fn a_failing_marker_does_not_send_its_file_again() {
    for way in ["rename", "direct"] {
        let root = temp_dir();
        let refused = Fault::new(Kind::Reply(Step::Stor, 550)).matching(".done", 2);
        let frozen = Fault::new(Kind::NoReply(Step::Stor)).matching(".done", 1);
        let lab = LabServer::start(root.path(), Script::of([refused, frozen])).unwrap();
        let mut events = lab.events();
        let service = marked_to(&lab)
            .key("routes.main.publish", way)
            .key("timers.reply", "1s")
            .start();
        let bytes = content(10, 30_000);
        let source = service.put("main", "x.csv", &bytes);
        let line = service.wait_log("the marker failed", |l| l["file"] == "x.csv");
        assert!(line["next"].as_str().unwrap().contains("not sent again"));
        assert!(source.exists(), "its source is finished with its delivery");
        service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        marked(&root.path().join("in"), "x.csv", &bytes);
        assert!(lab.counters().strikes >= 2, "{way}");
        let sent = story(&mut events);
        let times = |what: &str| sent.iter().filter(|line| *line == what).count();
        let file = if way == "direct" {
            "store x.csv"
        } else {
            "store temp"
        };
        assert_eq!((times(file), times("store x.csv.done")), (1, 1), "{sent:?}");
        assert_eq!(delivered(&service), 1.0, "{way}");
    }
}

/// The process dies between the publication and its marker: in the next life only the marker is
/// stored, under the name that was chosen, even where the file has been taken away meanwhile.
#[test]
fn a_marker_that_a_killed_process_owes_is_stored_by_the_next_one() {
    for (publish, conflict, fault, taken) in [
        (
            "rename",
            "overwrite",
            Fault::new(Kind::RntoDoneNoReply).first(1),
            false,
        ),
        (
            "rename",
            "overwrite",
            Fault::new(Kind::NoReply(Step::Stor)).matching(".done", 1),
            false,
        ),
        (
            "rename",
            "rename",
            Fault::new(Kind::RntoDoneNoReply).first(1),
            false,
        ),
        (
            "rename",
            "rename",
            Fault::new(Kind::NoReply(Step::Stor)).matching(".done", 1),
            true,
        ),
        (
            "direct",
            "overwrite",
            Fault::new(Kind::NoReply(Step::Stor)).matching(".done", 1),
            true,
        ),
        (
            "direct",
            "rename",
            Fault::new(Kind::NoReply(Step::Stor)).matching(".done", 1),
            false,
        ),
    ] {
        let what = format!(
            "{publish}, {conflict}, {}, taken: {taken}",
            fault.kind.name()
        );
        let root = temp_dir();
        let inbox = root.path().join("in");
        fs::create_dir(&inbox).unwrap();
        let name = if conflict == "rename" {
            fs::write(inbox.join("x.csv"), b"theirs").unwrap();
            "x-1.csv"
        } else {
            "x.csv"
        };
        let lab = LabServer::start(root.path(), fault).unwrap();
        let mut events = lab.events();
        let service = marked_to(&lab)
            .key("routes.main.publish", publish)
            .key("routes.main.on_conflict", conflict)
            .key("timers.reply", "30s")
            .start();
        let bytes = content(11, 30_000);
        service.put("main", "x.csv", &bytes);
        lab.wait_counters(|c| c.strikes == 1, PATIENCE).unwrap();
        assert!(!inbox.join(format!("{name}.done")).exists(), "{what}");
        if taken {
            fs::remove_file(inbox.join(name)).unwrap();
        }
        let service = service.kill_and_restart();
        service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        let found = folder(&inbox);
        assert!(found[&format!("{name}.done")].is_empty(), "{what}");
        assert_eq!(found.contains_key(name), !taken, "{what}");
        assert!(taken || found[name] == bytes, "{what}");
        let files = 1 + usize::from(!taken) + usize::from(conflict == "rename");
        assert_eq!(found.len(), files, "{what}: {:?}", found.keys());
        let sent = story(&mut events);
        let file = if publish == "direct" {
            format!("store {name}")
        } else {
            "store temp".into()
        };
        let times = sent.iter().filter(|line| **line == file).count();
        assert_eq!(times, 1, "{what}: {sent:?}");
    }
}

/// The process is killed at random moments while files flow to vsftpd, by rename and straight: a
/// marker never stands beside a file that is not whole, and in the end each file has its own.
#[test]
fn whenever_the_process_dies_a_marker_tells_of_a_whole_file() {
    let (kills, files) = (count_of("FTPULSE_KILLS", 6), count_of("FTPULSE_FILES", 60));
    let server = Server::vsftpd(Opts::default());
    let ways = ["rename", "direct"];
    let mut settings = Settings::new().quick();
    for way in ways {
        settings = settings
            .route(way, &server, way)
            .key(&format!("routes.{way}.publish"), way)
            .key(&format!("routes.{way}.remote_marker"), "{name}.done");
    }
    let mut service = settings.start();
    let bytes = |n: usize| content(n as u64, n * 3_000);
    let whole = |way: &str, marker: &str| {
        let name = marker.strip_suffix(".done").unwrap();
        let found = fs::read(server.path(way).join(name)).unwrap_or_default();
        let number: usize = name.strip_suffix(".bin").unwrap().parse().unwrap();
        assert!(found == bytes(number), "{way}: {marker} beside a part");
    };
    let look = || {
        let mut seen = 0;
        for way in ways {
            let names = fs::read_dir(server.path(way))
                .into_iter()
                .flatten()
                .flatten();
            for name in names.filter_map(|e| e.file_name().into_string().ok()) {
                if name.ends_with(".done") {
                    whole(way, &name);
                    seen += 1;
                }
            }
        }
        seen
    };
    let (mut put, mut random) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    for kill in 0..kills {
        while put < files * (kill + 1) / kills {
            for way in ways {
                service.put(way, &format!("{put}.bin"), &bytes(put));
            }
            put += 1;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let end = clock::mono() + Duration::from_millis(100 + random % 300);
        wait_until("the moment has come", PATIENCE, || {
            look();
            clock::mono() >= end
        });
        service = service.kill_and_restart();
    }
    wait_until("every file has its marker", PATIENCE * 2, || {
        look() == 2 * files
    });
    for way in ways {
        service.wait_spool_empty(way, PATIENCE);
        let left = folder(&server.path(way));
        let left: Vec<_> = left.keys().filter(|n| !n.starts_with('.')).collect();
        assert_eq!(left.len(), 2 * files, "{way}: {left:?}");
    }
}

/// The process dies at each step between the publication and the delivery's record: the next life
/// stores the marker, and not the file.
#[cfg(feature = "failpoints")]
#[test]
fn at_each_step_between_file_and_marker_the_next_life_goes_on_with_the_marker() {
    for point in [
        "rnto-accepted",
        "published",
        "marking-decided",
        "marking-stands",
        "marked",
        "delivery-reported",
    ] {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
        let mut events = lab.events();
        let mut service = marked_to(&lab)
            .env("FAILPOINTS", format!("{point}=return"))
            .start();
        let bytes = content(12, 30_000);
        service.put("main", "x.csv", &bytes);
        service.process.wait(PATIENCE);
        let service = service.restart_with("FAILPOINTS", None);
        service.wait_delivered("x.csv");
        service.wait_spool_empty("main", PATIENCE);
        marked(&root.path().join("in"), "x.csv", &bytes);
        let sent = story(&mut events);
        let times = |what: &str| sent.iter().filter(|line| *line == what).count();
        assert_eq!(
            (times("store temp"), times("temp to x.csv")),
            (1, 1),
            "{point}: {sent:?}"
        );
        let markers = times("store x.csv.done");
        let again = matches!(point, "marked" | "delivery-reported");
        assert!(markers == 1 || (again && markers == 2), "{point}: {sent:?}");
    }
}

/// The process dies at each step of a file that is sent straight under its name: the next life
/// has it whole, and sends it again unless its 226 and its size were seen.
#[cfg(feature = "failpoints")]
#[test]
fn at_each_step_straight_under_the_final_name_the_next_life_ends_with_a_whole_file() {
    for (point, most) in [
        ("sending-decided", 1),
        ("sending-stands", 1),
        ("stor-accepted", 2),
        ("bytes-moved", 2),
        ("all-moved", 2),
        ("stored", 2),
        ("published", 2),
        ("marking-decided", 2),
        ("marking-stands", 1),
        ("marked", 1),
        ("delivery-stands", 1),
    ] {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
        let mut events = lab.events();
        let mut service = marked_to(&lab)
            .key("routes.main.publish", "direct")
            .key("routes.main.on_conflict", "fail")
            .env("FAILPOINTS", format!("{point}=return"))
            .start();
        let bytes = content(13, 3_000_000);
        service.put("main", "x.csv", &bytes);
        service.process.wait(PATIENCE);
        let service = service.restart_with("FAILPOINTS", None);
        service.wait_spool_empty("main", PATIENCE);
        marked(&root.path().join("in"), "x.csv", &bytes);
        let sent = story(&mut events);
        let times = sent.iter().filter(|line| *line == "store x.csv").count();
        assert!((1..=most).contains(&times), "{point}: {sent:?}");
    }
}
