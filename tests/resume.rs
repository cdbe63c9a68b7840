//! Large files go on where an attempt stopped: real servers lose their session processes in
//! mid-file again and again, forget the part, refuse to go on, or come back to life and write on;
//! the file under the final name is always whole. Prints how much was sent again.
//! `FTPULSE_CUTS=n` sets how often a session is killed (3).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::servers::{Opts, Server, is_root};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name, sha256};
use support::{PATIENCE, content, count_of, wait_for, wait_until};

const NAME: &str = "large.bin";
const MIB: usize = 1 << 20;
/// Bytes before the end of the part that go again.
const SEAM: u64 = 1 << 20;
/// What a server takes in a second, MiB: a cut has to find the file in its middle.
const RATE: usize = 8;

/// A server that takes its time.
fn slow(name: &str, opts: Opts) -> Server {
    let (kib, bytes) = (RATE * 1024, RATE * MIB);
    match name {
        "vsftpd" => Server::vsftpd(
            opts.line(format!("local_max_rate={bytes}"))
                .line(format!("anon_max_rate={bytes}")),
        ),
        "proftpd" => Server::proftpd(opts.line(format!("TransferRate APPE,STOR {kib}"))),
        "pure-ftpd" => Server::pure_ftpd(opts.line("-T").line(format!("{kib}:{kib}"))),
        _ => Server::pyftpdlib(opts.process_per_session().line(format!(
            r#"
import time
from pyftpdlib.handlers import DTPHandler
# Its own throttle lets bursts of many megabytes pass.
class dtp(DTPHandler):
    def handle_read(self):
        super().handle_read()
        time.sleep(self.ac_in_buffer_size / {bytes})
    handle_read_event = handle_read
handler.dtp_handler = dtp
"#
        ))),
    }
}

/// The servers that have a process a session.
fn servers() -> Vec<&'static str> {
    let mut names = vec!["vsftpd", "proftpd", "pyftpdlib"];
    if is_root() {
        names.push("pure-ftpd");
    }
    names
}

fn settings(server: &Server) -> Settings {
    Settings::new()
        .quick()
        // The vouchers stand in for a slow server.
        .key("timers.stall", "10s")
        .key("timers.reply", "10s")
        .key("quarantine.hold", "3s")
        .key("routes.main.uploaders", "1")
        .key("routes.main.resume_over", "4MiB")
        .route("main", server, "")
}

/// A service with one large file on its way to a server.
struct Stage {
    server: Server,
    service: Ftpulse,
    watcher: Watcher,
    bytes: Vec<u8>,
}

impl Stage {
    fn new(server: Server, size: usize) -> Self {
        Self::with(server, size, |settings| settings)
    }

    fn with(server: Server, size: usize, more: impl FnOnce(Settings) -> Settings) -> Self {
        let watcher = Watcher::start(&server.root, is_final_name);
        let service = more(settings(&server)).start();
        let bytes = content(7, size);
        watcher.allow(NAME, &bytes);
        service.put("main", NAME, &bytes);
        Self {
            server,
            service,
            watcher,
            bytes,
        }
    }

    /// Waits until the server has more than so many bytes under a temp name.
    fn part(&self, more_than: usize) {
        wait_until("the part is long enough", PATIENCE, || {
            assert!(
                self.service.logged("file delivered").is_empty(),
                "delivered before the cut"
            );
            newest_part(&self.server.root) > more_than as u64
        });
    }

    /// Kills the session when it has more than so many bytes; answers what its part holds then.
    fn cut(&self, more_than: usize) -> u64 {
        let failed = self.service.logged("upload failed").len();
        self.part(more_than);
        let pids = self.server.pids();
        self.server.kill_sessions();
        wait_until("the session is gone", PATIENCE, || {
            pids.iter().all(|pid| !alive(*pid))
        });
        let part = newest_part(&self.server.root);
        wait_until("the attempt has failed", PATIENCE, || {
            self.service.logged("upload failed").len() > failed
        });
        part
    }

    /// Waits for the delivery and looks at all of it.
    fn finish(self) -> Done {
        let line = self.service.wait_delivered(NAME);
        self.service.wait_spool_empty("main", PATIENCE);
        assert_eq!(
            sha256(&fs::read(self.server.path(NAME)).unwrap()),
            sha256(&self.bytes),
            "not the file that was sent"
        );
        wait_until("no temp name is left", PATIENCE, || {
            temps(&self.server.root).is_empty()
        });
        wait_until("the watcher has seen it", PATIENCE, || {
            self.watcher.deliveries(NAME) >= 1
        });
        let deliveries = self.watcher.deliveries(NAME);
        self.watcher.assert_clean();
        Done {
            line,
            deliveries,
            service: self.service,
        }
    }
}

/// A service whose file was delivered.
struct Done {
    line: Value,
    deliveries: usize,
    service: Ftpulse,
}

/// Where attempts have begun that did not begin at the start.
fn resumed(service: &Ftpulse) -> Vec<u64> {
    let lines = service.logged("upload resumed");
    lines.iter().map(|l| l["from"].as_u64().unwrap()).collect()
}

fn alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

fn hidden(root: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(root).unwrap().flatten().map(|e| e.path());
    all.filter(|path| !is_final_name(&path.file_name().unwrap().to_string_lossy()))
        .collect()
}

/// The service's own temp names.
fn temps(root: &Path) -> Vec<PathBuf> {
    let mut all = hidden(root);
    all.retain(|path| path.extension().is_some_and(|e| e == "part"));
    all
}

/// The size of what was written last. Where pure-ftpd goes on with a file, it has it under a name
/// of its own meanwhile, and a killed one leaves it there.
fn newest_part(root: &Path) -> u64 {
    let facts = hidden(root).into_iter().flat_map(fs::metadata);
    let newest = facts.max_by_key(|meta| (meta.mtime(), meta.mtime_nsec()));
    newest.map_or(0, |meta| meta.len())
}

/// Kills the session of one upload so often; tells what that cost.
fn cuts(name: &str) {
    let cuts = count_of("FTPULSE_CUTS", 3);
    let size = (24.max(cuts * 5)) * MIB;
    let stage = Stage::new(slow(name, Opts::default()), size);
    let step = size / (cuts + 1);
    for number in 1..=cuts {
        let part = stage.cut(number * step - step / 4);
        if name == "pure-ftpd" {
            // What it had resumed it leaves under another name when it is killed.
            continue;
        }
        let from = wait_for("the rest is sent", PATIENCE, || {
            resumed(&stage.service).get(number - 1).copied()
        });
        assert_eq!(from, part - SEAM, "cut {number}");
    }
    let done = stage.finish();
    assert_eq!(done.deliveries, 1);
    let sent = |line: &Value| line["bytes_sent"].as_u64().unwrap();
    let failed = done.service.logged("upload failed");
    let all: u64 = failed.iter().map(sent).sum::<u64>() + sent(&done.line);
    let again = all - size as u64;
    let percent = again as f64 * 100.0 / size as f64;
    println!(
        "{name}: {cuts} cuts, {} MiB, sent again {:.1} MiB ({percent:.1} %, {:.2} MiB a cut)",
        size / MIB,
        again as f64 / MIB as f64,
        again as f64 / MIB as f64 / cuts as f64,
    );
    assert_eq!(failed.len(), cuts);
    assert!(!resumed(&done.service).is_empty());
    // The seam, and what was in the buffers on the way when the server died.
    let most = (cuts * 6 * MIB) as u64;
    assert!(name == "pure-ftpd" || again < most, "sent again: {again}");
    let counted = done.service.metrics();
    let counted = counted.sum("ftpulse_upload_bytes_total", &[("route", "main")]);
    assert_eq!(counted as u64, sent(&done.line), "bytes really sent");
}

#[test]
fn sessions_killed_in_mid_file_cost_little_and_the_file_is_whole() {
    std::thread::scope(|scope| {
        let all: Vec<_> = servers()
            .into_iter()
            .map(|name| (name, scope.spawn(move || cuts(name))))
            .collect();
        for (name, thread) in all {
            assert!(thread.join().is_ok(), "{name}");
        }
    });
}

#[test]
fn a_service_that_was_killed_resumes_what_its_journal_has_in_doubt() {
    let stage = Stage::new(slow("vsftpd", Opts::default()), 16 * MIB);
    stage.part(6 * MIB);
    let Stage {
        server,
        service,
        watcher,
        bytes,
    } = stage;
    let service = service.kill_and_restart();
    let stage = Stage {
        server,
        service,
        watcher,
        bytes,
    };
    let done = stage.finish();
    assert!(resumed(&done.service)[0] >= 5 * MIB as u64);
}

/// A server whose sessions are stopped in mid-file: the upload is a deadlock, its pair is held,
/// and released before it is resumed; then the server lives on.
fn stopped(name: &str, opts: Opts, before_the_successor: bool) -> Stage {
    let stage = Stage::with(slow(name, opts), 20 * MIB, |settings| {
        let settings = settings
            .key("timers.stall", "700ms")
            .key("quarantine.hold", "20s");
        // Time for the thaw.
        let pause = if before_the_successor { "3s" } else { "100ms" };
        settings.key("retry.first", pause).key("retry.max", "3s")
    });
    stage.part(5 * MIB);
    let frozen = stage.server.freeze_sessions();
    let old = temps(&stage.server.root);
    stage.service.wait_log("upload failed", |_| true);
    if name == "vsftpd" && !before_the_successor {
        // It locks what it writes: the new session waits for the old one's end.
        wait_until("the part has its new name", PATIENCE, || {
            temps(&stage.server.root) != old
        });
    } else if !before_the_successor {
        stage.service.wait_log("upload resumed", |_| true);
    }
    assert!(frozen.iter().all(|pid| alive(*pid)));
    stage.server.thaw();
    stage.service.wait_delivered(NAME);
    let released = stage.service.logged("sockets released");
    assert_eq!(released[0]["reason"], "resume", "{released:?}");
    let metrics = stage.service.metrics();
    let released = metrics.sum("ftpulse_quarantine_releases_total", &[("reason", "resume")]);
    assert!(released >= 1.0);
    stage
}

#[test]
fn an_old_session_that_writes_on_late_does_the_resumed_file_no_harm() {
    std::thread::scope(|scope| {
        for name in servers() {
            scope.spawn(move || {
                let stage = stopped(name, Opts::default(), false);
                let done = stage.finish();
                assert_eq!(resumed(&done.service).len(), 1, "{name}");
            });
        }
    });
}

#[test]
fn a_server_that_deletes_failed_uploads_gets_them_from_the_start_or_as_they_stand() {
    let opts = || Opts::default().line("delete_failed_uploads=YES");
    // It deletes by the old name, which is not there any more.
    let done = stopped("vsftpd", opts(), false).finish();
    assert_eq!(resumed(&done.service).len(), 1);
    // It deletes when the pair is reset: before the rename, or after it.
    let done = stopped("vsftpd", opts(), true).finish();
    assert!(resumed(&done.service).len() <= 1);
}

/// The first session ends itself in mid-file, however slow this test is.
const ENDS_ITSELF: &str = r#"
import os, signal, sys
from pyftpdlib.handlers import DTPHandler
class dtp(DTPHandler):
    def handle_read(self):
        super().handle_read()
        if self.tot_bytes_received > (7 << 20):
            try:
                os.close(os.open(cut, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)
    handle_read_event = handle_read
cut = os.path.join(sys.argv[1], "..", "cut")
handler.dtp_handler = dtp
"#;

/// One cut of a server with a peculiarity.
fn cut_once(lines: &str) -> Done {
    let opts = Opts::default().process_per_session();
    let server = Server::pyftpdlib(opts.line(ENDS_ITSELF).line(lines));
    let stage = Stage::new(server, 16 * MIB);
    stage.service.wait_log("upload failed", |_| true);
    stage.finish()
}

/// What SIZE cannot tell: the old session's end cuts the file below what the new one writes, and
/// its bytes make the file long again, with a hole.
const TRUNCATES_LATE: &str = r#"
import hashlib, os
handler.proto_cmds = dict(handler.proto_cmds)
handler.proto_cmds["XSHA256"] = dict(perm="l", auth=True, arg=True, help="")
class odd(handler):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._extra_feats = list(self._extra_feats) + ["XSHA256"]
    def ftp_XSHA256(self, path):
        self.respond("250 " + hashlib.sha256(open(path, "rb").read()).hexdigest())
    def ftp_STOR(self, file, mode="w"):
        resumed = self._restart_position
        answer = super().ftp_STOR(file, mode)
        if resumed:
            os.truncate(file, resumed // 2)
        return answer
server.handler = odd
"#;

#[test]
fn a_server_that_truncates_late_gets_the_file_from_the_start_by_its_hash() {
    let done = cut_once(TRUNCATES_LATE);
    assert_eq!(resumed(&done.service).len(), 1, "once, and then not again");
    let failed = done.service.logged("upload failed");
    let error = failed.last().unwrap()["error"].as_str().unwrap();
    assert!(error.contains("other bytes than were sent"), "{error}");
    assert_eq!(done.line["bytes_sent"], 16 * MIB as u64);
}

/// Cuts the file after the last byte of the new session: SIZE tells that.
const TRUNCATES_LAST: &str = r#"
import os
class odd(handler):
    def ftp_STOR(self, file, mode="w"):
        self.went_on = self._restart_position
        return super().ftp_STOR(file, mode)
    def on_file_received(self, file):
        if self.went_on:
            os.truncate(file, self.went_on // 2)
server.handler = odd
"#;

#[test]
fn a_server_that_truncates_after_the_226_is_found_out_by_its_size() {
    let done = cut_once(TRUNCATES_LAST);
    assert_eq!(resumed(&done.service).len(), 1);
    let failed = done.service.logged("upload failed");
    let error = failed.last().unwrap()["error"].as_str().unwrap();
    assert!(
        error.contains("bytes were sent but the server has"),
        "{error}"
    );
    assert_eq!(done.line["bytes_sent"], 16 * MIB as u64);
}

/// Servers that cannot be gone on with, each in its own way.
const REFUSE: [(&str, &str); 4] = [
    (
        "no REST",
        "handler.proto_cmds = {k: v for k, v in handler.proto_cmds.items() if k != 'REST'}",
    ),
    (
        "no SIZE",
        "handler.proto_cmds = {k: v for k, v in handler.proto_cmds.items() if k != 'SIZE'}",
    ),
    (
        "no STOR after REST",
        r#"
class odd(handler):
    def ftp_STOR(self, file, mode="w"):
        if self._restart_position:
            self._restart_position = 0
            self.respond("551 No.")
            return
        return super().ftp_STOR(file, mode)
server.handler = odd
"#,
    ),
    (
        "no new temp name",
        r#"
class odd(handler):
    def ftp_RNTO(self, path):
        if path.endswith(".part"):
            self._rnfr = None
            self.respond("553 No.")
            return
        return super().ftp_RNTO(path)
server.handler = odd
"#,
    ),
];

#[test]
fn a_server_that_does_not_go_on_gets_the_file_from_the_start() {
    std::thread::scope(|scope| {
        for (what, lines) in REFUSE {
            scope.spawn(move || {
                let done = cut_once(lines);
                assert_eq!(resumed(&done.service), Vec::<u64>::new(), "{what}");
                assert_eq!(done.line["bytes_sent"], 16 * MIB as u64, "{what}");
                assert_eq!(done.service.logged("upload failed").len(), 1, "{what}");
            });
        }
    });
}
