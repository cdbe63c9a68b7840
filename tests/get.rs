//! Routes that download (`direction = "get"`): every file of a remote folder comes down once and
//! whole, whatever the server is, and is then deleted, archived or kept there; nothing is taken
//! that still grows, or whose name leads elsewhere; a target that somebody holds is waited for; a
//! server that stops in the middle is convicted; and the process may be killed at any moment.
//! FTPULSE_KILLS and FTPULSE_FILES set how often.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::spool::journal::Store;
use rusqlite::{Connection, OptionalExtension};
use rustix::process::Signal;
use support::certificates::Authority;
use support::consumer::{Consumer, Moments, Wrongs, size};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, count_of, wait_for, wait_until};

/// Files over this size are gone on with.
const LARGE: usize = 4 << 20;

/// The server's user may do everything below its login folder.
fn give_to_server(server: &Server, path: &Path) {
    let root = fs::metadata(&server.root).unwrap();
    let mut place = path.to_path_buf();
    while place != server.root {
        chown(&place, Some(root.uid()), Some(root.gid())).unwrap();
        place = place.parent().unwrap().to_path_buf();
    }
}

/// Makes a folder on the server.
fn folder(server: &Server, name: &str) -> PathBuf {
    let path = server.path(name);
    fs::create_dir_all(&path).unwrap();
    give_to_server(server, &path);
    path
}

/// Puts a whole file into the server's folder at once, as a careful producer does.
fn offer(server: &Server, name: &str, bytes: &[u8]) -> PathBuf {
    let (target, staged) = (server.path(name), server.dir().join("staged"));
    folder(server, Path::new(name).parent().unwrap().to_str().unwrap());
    fs::write(&staged, bytes).unwrap();
    give_to(server, &staged);
    fs::rename(&staged, &target).unwrap();
    target
}

fn give_to(server: &Server, path: &Path) {
    let root = fs::metadata(&server.root).unwrap();
    chown(path, Some(root.uid()), Some(root.gid())).unwrap();
}

/// A route `main` that downloads from `in` of this server.
fn settings(server: &Server) -> Settings {
    folder(server, "in");
    Settings::new()
        .quick()
        .route("main", server, "in")
        .key("routes.main.direction", "get")
        .key("routes.main.poll", "1s")
        .key("routes.main.resume_over", "4MiB")
}

/// What is in the local folder of `main`, or below it.
fn here(service: &Ftpulse, name: &str) -> PathBuf {
    service.spool("main").join(name)
}

/// Temp files anywhere below a folder.
fn temps(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(temps(&entry.path()));
        } else if entry.file_name().to_string_lossy().ends_with(".part") {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn files_of_every_server_come_down_whole_and_are_deleted_there() {
    for server in Server::all(&Opts::default()) {
        println!("{}", server.name);
        let names = [
            "a.bin",
            "b c.bin",
            "\u{e9}t\u{e9}.bin",
            "sub/deep/d.bin",
            "empty.bin",
            "e.bin",
        ];
        let bytes = |i: usize| content(i as u64, [10, 40_000, 1, 3 << 20, 0, 6 << 20][i]);
        for (i, name) in names.iter().enumerate() {
            offer(&server, &format!("in/{name}"), &bytes(i));
        }
        // Left alone: in work, by its name; and left out by the route.
        offer(&server, "in/x.part", b"part");
        offer(&server, "in/x.log", b"log");
        let mut service = settings(&server)
            .key("routes.main.exclude", "*.log")
            .start();
        let watcher = Watcher::start(&service.spool("main"), is_final_name);
        for (i, name) in names.iter().enumerate() {
            watcher.allow(name, &bytes(i));
        }
        for (i, name) in names.iter().enumerate() {
            service.wait_delivered(name);
            assert_eq!(fs::read(here(&service, name)).unwrap(), bytes(i), "{name}");
            wait_until("it is gone from the server", PATIENCE, || {
                !server.path(format!("in/{name}")).exists()
            });
        }
        let label = [("route", "main"), ("outcome", "delivered")];
        let metrics = service.metrics();
        assert_eq!(
            metrics.sum("ftpulse_files_total", &label),
            names.len() as f64
        );
        let all: usize = (0..names.len()).map(|i| bytes(i).len()).sum();
        assert_eq!(
            metrics.sum("ftpulse_upload_bytes_total", &[("route", "main")]),
            all as f64
        );
        assert_eq!(service.terminate(), Some(0));
        assert!(temps(&service.spool("main")).is_empty());
        assert!(server.path("in/x.part").exists() && server.path("in/x.log").exists());
        watcher.assert_clean();
    }
}

#[test]
fn many_files_come_down_over_tls_from_every_server() {
    let authority = Arc::new(Authority::new());
    for server in Server::all(&Opts::default().tls(&authority)) {
        println!("{}", server.name);
        let ca = authority.write(server.dir());
        // More in one session than a ticket of TLS 1.3 is good for.
        let count = 20;
        let bytes = |i: usize| content(i as u64, i * 30_000);
        for i in 0..count {
            offer(&server, &format!("in/{i}.bin"), &bytes(i));
        }
        let service = settings(&server)
            .key("routes.main.ca_file", ca.display())
            .key("routes.main.uploaders", 1)
            .start();
        for i in 0..count {
            let name = format!("{i}.bin");
            service.wait_delivered(&name);
            assert_eq!(fs::read(here(&service, &name)).unwrap(), bytes(i), "{name}");
        }
        wait_until("the server has none left", PATIENCE, || {
            fs::read_dir(server.path("in")).unwrap().count() == 0
        });
        assert!(service.logged("download failed").is_empty());
    }
}

/// A pyftpdlib that tells MD5 hashes, and spoils a byte of the first file that it sends.
const SPOILS: &str = r#"
import hashlib, os
handler.proto_cmds = dict(handler.proto_cmds)
handler.proto_cmds["XMD5"] = dict(perm="l", auth=True, arg=True, help="")
def tell(self, path):
    put(path, spoilt[0])
    self.respond("250 " + hashlib.md5(open(path, "rb").read()).hexdigest())
handler.ftp_XMD5 = tell
spoilt = []
def put(file, first):
    stat = os.stat(file)
    with open(file, "r+b") as f:
        f.write(first)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
class more(handler):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._extra_feats = list(self._extra_feats) + ["XMD5"]
    def ftp_RETR(self, file):
        if not spoilt:
            spoilt.append(open(file, "rb").read(1))
            put(file, bytes([spoilt[0][0] ^ 1]))
        return super().ftp_RETR(file)
server.handler = more
"#;

#[test]
fn a_byte_that_was_spoilt_on_the_way_is_found_by_the_servers_hash() {
    let server = Server::pyftpdlib(Opts::default().line(SPOILS));
    let bytes = content(7, 300_000);
    offer(&server, "in/f.bin", &bytes);
    let service = settings(&server).key("routes.main.verify", "hash").start();
    let failed = service.wait_log("download failed", |_| true);
    assert!(
        failed["error"].as_str().unwrap().contains("XMD5"),
        "{failed}"
    );
    assert!(!here(&service, "f.bin").exists());
    service.wait_delivered("f.bin");
    assert_eq!(fs::read(here(&service, "f.bin")).unwrap(), bytes);
}

#[test]
fn other_settings_hold_from_the_next_listing_on_and_a_turned_route_begins_anew() {
    let server = Server::pyftpdlib(Opts::default());
    offer(&server, "in/a.txt", b"one");
    offer(&server, "in/b.log", b"two");
    let dir = support::temp_dir();
    let file = dir.path().join("ftpulse.toml");
    let write = |text: &str| fs::write(&file, format!("[routes.main]\n{text}\n")).unwrap();
    write("direction = \"get\"\nexclude = [\"*.log\"]");
    let service = settings(&server)
        .without("routes.main.direction")
        .arg("--config")
        .arg(file.display().to_string())
        .start();
    service.wait_delivered("a.txt");
    write("direction = \"get\"\nafter = \"keep\"");
    service.signal(Signal::HUP);
    service.wait_delivered("b.log");
    assert!(
        server.path("in/b.log").exists(),
        "it is kept by the new settings"
    );
    // Turned round, what was downloaded is uploaded: the folder is the same.
    write("direction = \"put\"");
    service.signal(Signal::HUP);
    service.wait_log("route begins", |_| true);
    wait_until("both are on the server again", PATIENCE, || {
        fs::read(server.path("in/a.txt")).is_ok_and(|bytes| bytes == b"one")
    });
    service.wait_spool_empty("main", PATIENCE);
    write("direction = \"get\"");
    service.signal(Signal::HUP);
    wait_until("both are here again", PATIENCE, || {
        here(&service, "a.txt").exists() && here(&service, "b.log").exists()
    });
}

#[test]
fn a_kept_file_is_taken_once_a_version_and_also_over_a_restart() {
    for server in [
        Server::vsftpd(Opts::default()),
        Server::proftpd(Opts::default()),
    ] {
        println!("{}", server.name);
        let old = offer(&server, "in/f.txt", b"one");
        // Old enough that LIST shows its day alone.
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        fs::File::options()
            .append(true)
            .open(&old)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let service = settings(&server).key("routes.main.after", "keep").start();
        service.wait_delivered("f.txt");
        let modified = fs::metadata(here(&service, "f.txt")).unwrap().modified();
        assert_eq!(modified.unwrap(), long_ago, "it keeps its time");
        fs::remove_file(here(&service, "f.txt")).unwrap();
        let service = service.kill_and_restart();
        offer(&server, "in/g.txt", b"two");
        service.wait_delivered("g.txt");
        offer(&server, "in/f.txt", b"another one");
        let line = service.wait_delivered("f.txt");
        assert_eq!(line["bytes"], 11, "{line}");
        assert_eq!(service.logged("file delivered").len(), 2, "once each");
        assert_eq!(fs::read(here(&service, "f.txt")).unwrap(), b"another one");
        assert!(server.path("in/f.txt").exists() && server.path("in/g.txt").exists());
    }
}

/// Since when the journal has that file of `main` as missing, if it does.
fn missing_since(state: &Path, name: &str) -> Option<f64> {
    let journal = Connection::open(state.join("journal.db")).unwrap();
    let query = "SELECT gone FROM kept WHERE route = 'main' AND path = ?1";
    let found = journal.query_row(query, [name], |row| row.get(0));
    // It is written a moment after it was told.
    found.optional().unwrap().flatten()
}

#[test]
fn a_kept_file_that_goes_and_comes_back_is_not_taken_again() {
    let server = Server::proftpd(Opts::default());
    let path = offer(&server, "in/f.txt", b"one");
    let settings = settings(&server).key("routes.main.after", "keep");
    let state = PathBuf::from(&settings.vars()["FTPULSE__STATE__DIR"]);
    let service = settings.start();
    service.wait_delivered("f.txt");
    let aside = server.path("aside.txt");
    fs::rename(&path, &aside).unwrap();
    wait_until("it is known to be missing", PATIENCE, || {
        missing_since(&state, "f.txt").is_some()
    });
    let service = service.kill_and_restart();
    fs::rename(&aside, &path).unwrap();
    wait_until("it is known to be back", PATIENCE, || {
        missing_since(&state, "f.txt").is_none()
    });
    offer(&server, "in/g.txt", b"two");
    service.wait_delivered("g.txt");
    assert_eq!(service.logged("file delivered").len(), 1);
}

#[test]
fn an_archived_file_keeps_its_path_there_and_replaces_none() {
    for server in Server::all(&Opts::default()) {
        println!("{}", server.name);
        // Inside the remote folder: it is not taken from there again.
        let root = server.root.display().to_string();
        let chrooted = support::servers::is_root() || server.name == "pyftpdlib";
        let archive = if chrooted {
            "/in/done".to_owned()
        } else {
            format!("{root}/in/done")
        };
        let service = settings(&server)
            .key("routes.main.after", "archive")
            .key("routes.main.archive", archive)
            .start();
        for (version, place) in [("one", "f.txt"), ("two!", "f-1.txt")] {
            offer(&server, "in/sub/f.txt", version.as_bytes());
            let archived = server.path(format!("in/done/sub/{place}"));
            wait_until("it is archived", PATIENCE, || {
                fs::read(&archived).is_ok_and(|bytes| bytes == version.as_bytes())
            });
            assert_eq!(
                fs::read(here(&service, "sub/f.txt")).unwrap(),
                version.as_bytes()
            );
            assert!(!server.path("in/sub/f.txt").exists());
        }
        offer(&server, "in/last.txt", b"x");
        service.wait_delivered("last.txt");
        assert_eq!(service.logged("file delivered").len(), 3);
        assert!(!here(&service, "done").exists());
    }
}

#[test]
fn a_file_that_still_grows_is_not_taken() {
    let server = Server::pyftpdlib(Opts::default());
    let path = offer(&server, "in/grows.bin", b"");
    let service = settings(&server)
        .key("routes.main.settle", "1500ms")
        .start();
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    let mut written = 0;
    let listed = |service: &Ftpulse| {
        service
            .metrics()
            .sum("ftpulse_spool_bytes", &[("route", "main")])
    };
    for _ in 0..4 {
        file.write_all(&[7; 1000]).unwrap();
        written += 1000;
        // It grows faster than it could settle: the next listing shows it larger.
        wait_until("a listing has shown that much", PATIENCE, || {
            listed(&service) >= f64::from(written)
        });
        assert!(service.logged("file delivered").is_empty());
    }
    drop(file);
    let line = service.wait_delivered("grows.bin");
    assert_eq!(line["bytes"], written);
    assert_eq!(fs::read(here(&service, "grows.bin")).unwrap(), [7; 4000]);
    assert_eq!(service.logged("file delivered").len(), 1);
}

#[test]
fn names_that_lead_elsewhere_stay_on_the_server_and_are_told_once() {
    for server in [
        Server::pyftpdlib(Opts::default()),
        Server::vsftpd(Opts::default()),
    ] {
        println!("{}", server.name);
        let hostile = ["..\\evil.txt", "a\\b.txt", "esc\u{1b}[2J.txt"];
        for name in hostile {
            offer(&server, &format!("in/{name}"), b"evil");
        }
        offer(&server, "in/good.txt", b"good");
        let service = settings(&server).start();
        service.wait_delivered("good.txt");
        offer(&server, "in/last.txt", b"good");
        service.wait_delivered("last.txt");
        let refused = service.logged("a listed name is refused");
        // vsftpd shows what no terminal should see as question marks: then it is another name.
        let count = refused.len();
        assert!(count >= 2 && count <= hostile.len(), "{refused:?}");
        let metric = service.metrics();
        let counted = metric.sum("ftpulse_refused_names_total", &[("route", "main")]);
        assert_eq!(counted, count as f64, "each once");
        assert!(
            refused
                .iter()
                .all(|line| !line.to_string().contains('\u{1b}'))
        );
        for name in hostile {
            assert!(server.path(format!("in/{name}")).exists(), "{name}");
        }
        let got: Vec<_> = fs::read_dir(service.spool("main"))
            .unwrap()
            .flatten()
            .collect();
        let got: Vec<_> = got
            .iter()
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        assert!(
            got.iter()
                .all(|name| name.ends_with("good.txt") || name == "last.txt"),
            "{got:?}"
        );
    }
}

#[test]
fn a_target_that_somebody_holds_is_asked_for_again_and_its_holder_is_told() {
    let server = Server::pyftpdlib(Opts::default());
    let service = settings(&server)
        .key("timers.write_lock_retries", 2)
        .key("timers.write_lock_interval", "50ms")
        .start();
    fs::write(here(&service, "f.txt"), "old").unwrap();
    let held = fs::File::open(here(&service, "f.txt")).unwrap();
    held.lock_shared().unwrap();
    offer(&server, "in/f.txt", b"new");
    let own = format!("locked by pid {}", std::process::id());
    let says = |line: &serde_json::Value| line["error"].as_str().is_some_and(|e| e.contains(&own));
    let again = service.wait_log("the target is locked", says);
    assert_eq!(again["left"], 1);
    service.wait_log("download failed", says);
    assert_eq!(fs::read(here(&service, "f.txt")).unwrap(), b"old");
    assert!(server.path("in/f.txt").exists());
    held.unlock().unwrap();
    service.wait_delivered("f.txt");
    assert_eq!(fs::read(here(&service, "f.txt")).unwrap(), b"new");
}

#[test]
fn a_name_that_exists_here_is_handled_as_the_route_says() {
    let server = Server::proftpd(Opts::default());
    for (on_conflict, stands_as) in [("rename", Some("f-1.txt")), ("skip", None), ("fail", None)] {
        println!("{on_conflict}");
        let service = settings(&server)
            .key("routes.main.on_conflict", on_conflict)
            .start();
        fs::write(here(&service, "f.txt"), "mine").unwrap();
        offer(&server, "in/f.txt", b"your");
        match (on_conflict, stands_as) {
            ("rename", Some(name)) => {
                assert_eq!(service.wait_delivered("f.txt")["stands_as"], name);
                assert_eq!(fs::read(here(&service, name)).unwrap(), b"your");
            }
            ("skip", _) => {
                // Of the same size, as deleting it demands.
                service.wait_log("file skipped", |line| line["file"] == "f.txt");
                offer(&server, "in/f.txt", b"longer");
                service.wait_log("download failed", |_| true);
                assert!(server.path("in/f.txt").exists());
            }
            _ => {
                service.wait_log("download failed", |_| true);
                assert!(server.path("in/f.txt").exists());
            }
        }
        assert_eq!(fs::read(here(&service, "f.txt")).unwrap(), b"mine");
        let _ = fs::remove_file(server.path("in/f.txt"));
    }
}

/// Waits until the download under way has moved so many bytes.
fn wait_moved(service: &Ftpulse, bytes: u64) {
    wait_until("the download is under way", PATIENCE, || {
        let status = service.json("/api/status");
        let slots = status["routes"][0]["slots"].as_array().unwrap().clone();
        slots
            .iter()
            .any(|s| s["bytes_sent"].as_u64() >= Some(bytes) && s["file"].is_string())
    });
}

#[test]
fn a_server_that_stops_in_the_middle_is_convicted_and_the_next_epoch_downloads() {
    let server = Server::vsftpd(Opts::default());
    let bytes = content(5, 24 << 20);
    let service = settings(&server)
        .key("routes.main.uploaders", 1)
        .key("routes.main.rate_limit", "8MiB")
        .start();
    offer(&server, "in/large.bin", &bytes);
    wait_moved(&service, 2 << 20);
    server.freeze_sessions();
    let verdict = service.wait_log("deadlock found", |_| true);
    assert_eq!(verdict["cause"], "silent_server", "{verdict}");
    assert_eq!(verdict["phase"], "transfer");
    service.wait_log("sockets quarantined", |_| true);
    assert!(
        !here(&service, "large.bin").exists(),
        "no part under its final name"
    );
    let line = service.wait_delivered("large.bin");
    assert!(fs::read(here(&service, "large.bin")).unwrap() == bytes);
    let resumed = service.logged("download resumed");
    println!("{line}\n{resumed:?}");
    assert_eq!(resumed.len(), 1, "a large one goes on where it stopped");
    let status = service.json("/api/status");
    assert_eq!(status["routes"][0]["slots"][0]["epoch"], 2);
    server.thaw();
    wait_until("it is gone from the server", PATIENCE, || {
        !server.path("in/large.bin").exists()
    });
    assert!(temps(&service.spool("main")).is_empty());
}

#[test]
fn a_session_that_is_lost_in_the_middle_is_gone_on_with_also_in_the_next_life() {
    let server = Server::pyftpdlib(Opts::default().process_per_session());
    let bytes = content(6, 24 << 20);
    let service = settings(&server)
        .key("routes.main.rate_limit", "8MiB")
        .key("routes.main.after", "keep")
        .start();
    offer(&server, "in/large.bin", &bytes);
    wait_moved(&service, LARGE as u64);
    server.kill_sessions();
    service.wait_log("download failed", |_| true);
    assert!(!here(&service, "large.bin").exists());
    let first = service.wait_log("download resumed", |_| true);
    assert!(first["from"].as_u64().unwrap() > 0);
    wait_moved(&service, LARGE as u64);
    let mut service = service.kill_and_restart();
    let second = service.wait_log("download resumed", |_| true);
    assert!(
        second["from"].as_u64() > first["from"].as_u64(),
        "{first} {second}"
    );
    service.wait_delivered("large.bin");
    assert!(fs::read(here(&service, "large.bin")).unwrap() == bytes);
    assert_eq!(service.terminate(), Some(0));
    assert!(temps(&service.spool("main")).is_empty());
}

#[test]
fn a_download_over_its_bound_leaves_no_part_under_the_final_name() {
    let server = Server::pyftpdlib(Opts::default());
    let service = settings(&server)
        .key("routes.main.rate_limit", "1MiB")
        .key("routes.main.resume_over", "1GiB")
        .key("timers.transfer_get", "500ms")
        .start();
    offer(&server, "in/slow.bin", &content(1, 8 << 20));
    let failed = service.wait_log("download failed", |_| true);
    assert!(
        failed["error"].as_str().unwrap().contains("transfer"),
        "{failed}"
    );
    let metrics = service.metrics();
    assert!(metrics.sum("ftpulse_timeouts_total", &[("phase", "transfer")]) >= 1.0);
    assert!(!here(&service, "slow.bin").exists());
    assert!(server.path("in/slow.bin").exists());
    // What is small starts anew: not even a temp file is left of an attempt that is over.
    let left = wait_for("no attempt is under way", PATIENCE, || {
        let status = service.json("/api/status");
        let slots = status["routes"][0]["slots"].as_array().unwrap().clone();
        let idle = slots.iter().all(|s| s["file"].is_null());
        idle.then(|| temps(&service.spool("main")))
    });
    assert!(left.len() <= 1, "{left:?}");
}

#[test]
fn a_missing_remote_folder_is_waited_for_and_not_made() {
    let server = Server::pyftpdlib(Opts::default());
    let service = settings(&server)
        .key("routes.main.server", server.url("later"))
        .start();
    service.wait_log("the destination gives no session", |_| true);
    assert!(!server.path("later").exists());
    offer(&server, "later/f.txt", b"x");
    service.wait_delivered("f.txt");
}

#[test]
fn a_remote_folder_that_is_removed_and_made_anew_is_found_again() {
    for server in [
        Server::vsftpd(Opts::default()),
        Server::proftpd(Opts::default()),
    ] {
        println!("{}", server.name);
        let service = settings(&server).start();
        offer(&server, "in/a.txt", b"a");
        service.wait_delivered("a.txt");
        wait_until("it is deleted there", PATIENCE, || {
            !server.path("in/a.txt").exists()
        });
        fs::rename(server.path("in"), server.path("old")).unwrap();
        fs::remove_dir(server.path("old")).unwrap();
        offer(&server, "in/b.txt", b"b");
        service.wait_delivered("b.txt");
    }
}

#[test]
fn check_connect_changes_nothing_for_a_route_that_downloads() {
    let server = Server::pyftpdlib(Opts::default());
    let settings = settings(&server).key("routes.main.server", server.url("later"));
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ftpulse"));
        command.args(["check", "--connect", "--canary"]).env_clear();
        let output = command.envs(settings.vars()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = check();
    assert!(said.contains("the service waits for it"), "{said}");
    assert!(said.contains("the route only downloads"), "{said}");
    assert!(!server.path("later").exists());
    folder(&server, "later");
    let said = check();
    assert!(said.contains("by MLSD"), "{said}");
    assert_eq!(fs::read_dir(server.path("later")).unwrap().count(), 0);
}

#[test]
fn a_process_that_is_killed_again_and_again_takes_every_file_once_and_whole() {
    let (kills, files) = (count_of("FTPULSE_KILLS", 8), count_of("FTPULSE_FILES", 80));
    for (server, after) in [
        (Server::vsftpd(Opts::default()), "delete"),
        (Server::proftpd(Opts::default()), "keep"),
    ] {
        let settings = settings(&server)
            .key("routes.main.after", after)
            .key("routes.main.settle", "0s");
        let state = settings.vars()["FTPULSE__STATE__DIR"].clone();
        let consumer = Consumer::start(settings.spool("main"), |n| content(n as u64, size(n)));
        let mut service = settings.start();
        let arrived = || consumer.files();
        let mut put = 0;
        let mut moments = Moments::new();
        for kill in 0..kills {
            let until = files * (kill + 1) / kills;
            while put < until {
                offer(
                    &server,
                    &format!("in/{put}.bin"),
                    &content(put as u64, size(put)),
                );
                put += 1;
            }
            let end = clock::mono() + moments.next(900);
            wait_until("the moment has come", PATIENCE, || {
                clock::mono() >= end || arrived() == files
            });
            service = service.kill_and_restart();
        }
        wait_until("every file has arrived", PATIENCE * 5, || {
            arrived() == files
        });
        if after == "delete" {
            wait_until("the server has none left", PATIENCE, || {
                fs::read_dir(server.path("in")).unwrap().count() == 0
            });
        }
        wait_until("nothing is left to do", PATIENCE, || {
            let status = service.json("/api/status");
            let route = &status["routes"][0];
            let idle = |s: &serde_json::Value| s["file"].is_null();
            let waits = route["waiting"].as_u64().unwrap() + route["backing_off"].as_u64().unwrap();
            waits == 0 && route["slots"].as_array().unwrap().iter().all(idle)
        });
        assert_eq!(service.terminate(), Some(0));
        let Wrongs { torn, twice } = consumer.wrongs();
        let store = Store::open(&Path::new(&state).join("journal.db")).unwrap();
        let left = store.store.unfinished().unwrap();
        println!(
            "{} {after}: {kills} kills, {files} files, torn {torn:?}, twice {twice:?}, left {left:?}",
            server.name
        );
        assert!(torn.is_empty() && twice.is_empty() && left.is_empty());
        assert!(temps(&service.spool("main")).is_empty());
    }
}

/// The process dies at every step of a download in turn; the next life takes the file once.
#[cfg(feature = "failpoints")]
#[test]
fn wherever_the_process_dies_the_file_comes_down_once() {
    const POINTS: &[&str] = &[
        "bytes-received",
        "received",
        "publishing-decided",
        "publishing-stands",
        "placed",
        "got-stands",
        "remote-finished",
        "commit-due",
        "committed",
    ];
    let server = Server::proftpd(Opts::default());
    for after in ["delete", "keep"] {
        for point in POINTS {
            let settings = settings(&server)
                .key("routes.main.after", after)
                .env("FAILPOINTS", format!("{point}=return"));
            let mut service = settings.start();
            offer(&server, "in/0.bin", b"");
            offer(&server, "in/1.bin", &content(1, size(1)));
            service.wait_exit(PATIENCE);
            // Before the next life begins the consumer has what is there.
            let consumer = Consumer::start(service.spool("main"), |n| content(n as u64, size(n)));
            wait_until("it has seen what is there", PATIENCE, || {
                let names = fs::read_dir(service.spool("main")).unwrap().flatten();
                let mut names = names.map(|e| e.file_name().into_string().unwrap());
                !names.any(|name| is_final_name(&name))
            });
            let mut service = service.restart_with("FAILPOINTS", None);
            wait_until("both have come", PATIENCE, || consumer.files() == 2);
            offer(&server, "in/2.bin", &content(2, size(2)));
            service.wait_delivered("2.bin");
            if after == "delete" {
                wait_until("all are gone from the server", PATIENCE, || {
                    fs::read_dir(server.path("in")).unwrap().count() == 0
                });
            }
            assert_eq!(service.terminate(), Some(0));
            assert!(temps(&service.spool("main")).is_empty(), "{point}");
            wait_until("the last has come", PATIENCE, || consumer.files() == 3);
            let Wrongs { torn, twice } = consumer.wrongs();
            println!("{after} {point}: torn {torn:?}, twice {twice:?}");
            assert!(torn.is_empty() && twice.is_empty(), "{after} {point}");
            for entry in fs::read_dir(server.path("in")).unwrap().flatten() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
