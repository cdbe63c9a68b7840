//! The same as `thaw.rs` with real FTP servers: their session processes are stopped (SIGSTOP) at
//! an exact step, by a relay on the control connection that stops them just before it hands the
//! command on, so that the server has it unread in its socket; then they are thawed (SIGCONT).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ftpulse::clock;
use ftpulse::sys::socket;
use support::servers::{Opts, Server, is_root};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, wait_until};

const NAME: &str = "file.bin";
/// Cells of one server at once: they wait more than they work.
const AT_ONCE: usize = 5;

/// Where the server is stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// When it has said 150 to a file that is larger than all buffers.
    MidTransfer,
    Stor,
    /// When it has said 150 to a file that all buffers take: the 226 does not come.
    Final,
    Rnfr,
    Rnto,
}

const PLACES: [Place; 5] = [
    Place::MidTransfer,
    Place::Stor,
    Place::Final,
    Place::Rnfr,
    Place::Rnto,
];

impl Place {
    fn is_at(self, by_client: bool, line: &str) -> bool {
        let begun = !by_client && (line.starts_with("150") || line.starts_with("125"));
        match self {
            Self::MidTransfer | Self::Final => begun,
            Self::Stor => by_client && line.starts_with("STOR"),
            Self::Rnfr => by_client && line.starts_with("RNFR"),
            Self::Rnto => by_client && line.starts_with("RNTO"),
        }
    }

    fn size(self) -> usize {
        if self == Self::MidTransfer {
            16 << 20
        } else {
            40_000
        }
    }
}

/// When it is thawed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    BeforeTheSuccessor,
    /// Just before the successor's first command about the old temp name.
    DuringItsResolution,
    AfterItsPublish,
    AfterNewerVersions,
    /// The source was replaced when the server stopped; thawed when the newer one is published.
    AfterAReplacement,
}

const MOMENTS: [Moment; 5] = [
    Moment::BeforeTheSuccessor,
    Moment::DuringItsResolution,
    Moment::AfterItsPublish,
    Moment::AfterNewerVersions,
    Moment::AfterAReplacement,
];

/// What the relay has come to.
#[derive(Default)]
struct Seen {
    /// The connection that was stopped and the processes that were.
    stopped: Option<(usize, Vec<u32>)>,
    resolving: bool,
}

struct Relay {
    server: Server,
    place: Place,
    thaws_in_resolution: bool,
    seen: Mutex<Seen>,
    changed: Condvar,
    connections: AtomicUsize,
}

impl Relay {
    /// Listens on the server's own IP: the passive ports that it names are found there.
    fn start(server: Server, place: Place, moment: Moment) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind((server.addr.ip(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let thaws_in_resolution = moment == Moment::DuringItsResolution;
        let (seen, changed) = (Mutex::default(), Condvar::new());
        let connections = AtomicUsize::new(0);
        let relay = Arc::new(Self {
            server,
            place,
            thaws_in_resolution,
            seen,
            changed,
            connections,
        });
        let weak = Arc::downgrade(&relay);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Some(relay) = weak.upgrade() else { return };
                let Ok(server) = TcpStream::connect(relay.server.addr) else {
                    continue;
                };
                let number = relay.connections.fetch_add(1, Ordering::SeqCst);
                for (by_client, from, to) in [(true, &client, &server), (false, &server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let relay = weak.clone();
                    std::thread::spawn(move || {
                        pass(&from, &to, |line| {
                            if let Some(relay) = relay.upgrade() {
                                relay.look(number, by_client, line);
                            }
                        });
                    });
                }
            }
        });
        (relay, addr)
    }

    /// Before a line is handed on.
    fn look(&self, connection: usize, by_client: bool, line: &str) {
        let mut seen = self.seen.lock().unwrap();
        match &seen.stopped {
            None if self.place.is_at(by_client, line) => {
                seen.stopped = Some((connection, self.server.freeze_sessions()));
            }
            Some((old, _)) if *old != connection && by_client && !seen.resolving => {
                if !(line.starts_with("RNFR") || line.starts_with("DELE")) {
                    return;
                }
                seen.resolving = true;
                if self.thaws_in_resolution {
                    self.server.thaw();
                }
            }
            _ => return,
        }
        self.changed.notify_all();
    }

    fn wait(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let seen = self.seen.lock().unwrap();
        let (_seen, late) = self
            .changed
            .wait_timeout_while(seen, PATIENCE, |seen| !holds(seen))
            .unwrap();
        assert!(!late.timed_out(), "waited in vain until {what}");
    }
}

/// Hands lines on until one side ends; a reset is handed on as a reset.
fn pass(from: &TcpStream, mut to: &TcpStream, look: impl Fn(&str)) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => {
                let _ = to.shutdown(std::net::Shutdown::Write);
                return;
            }
            Ok(_) => {
                look(&String::from_utf8_lossy(&line));
                if to.write_all(&line).is_err() {
                    let _ = socket::reset(from.as_fd());
                    return;
                }
            }
            Err(_) => {
                let _ = socket::reset(to.as_fd());
                return;
            }
        }
    }
}

/// What a process is at: none when it is gone, or its state and its context switches so far.
fn at(pid: u32) -> Option<(char, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let state = line("State:")?.trim().chars().next()?;
    (state != 'Z').then(|| {
        (
            state,
            line("voluntary_ctxt_switches:")
                .unwrap_or_default()
                .to_owned(),
        )
    })
}

/// Waits until thawed processes have done all that they had to do: each one is gone, or sleeps
/// and has not been awake for a while. Not for their end: the SIGSTOP itself makes the parent of
/// a vsftpd session wait for its child for ever.
fn wait_until_idle(pids: &[u32]) {
    let look = || pids.iter().map(|pid| at(*pid)).collect::<Vec<_>>();
    let asleep =
        |all: &[Option<(char, String)>]| all.iter().flatten().all(|(state, _)| *state == 'S');
    let (mut last, mut same) = (look(), 0);
    wait_until("the thawed sessions are idle", PATIENCE, || {
        let now = look();
        same = if now == last && asleep(&now) {
            same + 1
        } else {
            0
        };
        last = now;
        same > 60 // looks, 5 ms apart
    });
}

struct Cell {
    service: Ftpulse,
    relay: Arc<Relay>,
    watcher: Watcher,
    versions: Vec<Vec<u8>>,
}

impl Cell {
    fn put(&mut self) {
        let number = self.versions.len();
        // Newer ones are small: what they show does not hang on their size.
        let size = if number == 0 {
            self.relay.place.size()
        } else {
            30_000 + number
        };
        let bytes = content(number as u64 + 1, size);
        self.watcher.allow(NAME, &bytes);
        self.service.put("main", NAME, &bytes);
        self.versions.push(bytes);
    }

    fn published(&self, times: usize) {
        wait_until("it is published", PATIENCE, || {
            self.watcher.deliveries(NAME) >= times
        });
        self.service.wait_spool_empty("main", PATIENCE);
    }
}

fn one_stall(start: fn(Opts) -> Server, place: Place, moment: Moment, convicted: bool) {
    let server = start(Opts::default().process_per_session());
    let watcher = Watcher::start(&server.root, is_final_name);
    let root = server.root.clone();
    let (user, password) = (server.user.clone(), server.password.clone());
    let (relay, addr) = Relay::start(server, place, moment);
    let service = Settings::new()
        .quick()
        .key("heartbeat.interval", "150ms")
        .key("heartbeat.vouchers", if convicted { "none" } else { "all" })
        .key("timers.reply", "1500ms")
        .key("timers.stall", "700ms")
        .key("retry.first", "500ms")
        // The thaw has to come within it: what is made later is never swept.
        .key("quarantine.hold", "12s")
        .key("routes.main.uploaders", "1")
        .route_to("main", &format!("ftp://{user}@{addr}/"), &password)
        .start();
    let mut cell = Cell {
        service,
        relay,
        watcher,
        versions: Vec::new(),
    };
    cell.put();
    cell.relay
        .wait("the server is stopped", |seen| seen.stopped.is_some());
    let mut fewest = 1;
    match moment {
        Moment::BeforeTheSuccessor => drop(cell.service.wait_log("upload failed", |_| true)),
        Moment::DuringItsResolution => cell
            .relay
            .wait("the successor resolves", |seen| seen.resolving),
        Moment::AfterItsPublish => cell.published(1),
        Moment::AfterNewerVersions => {
            cell.published(1);
            for times in 2..=3 {
                cell.put();
                cell.published(times);
            }
            fewest = 3;
        }
        Moment::AfterAReplacement => {
            cell.put();
            wait_until("the newer one is published", PATIENCE, || {
                fs::read(root.join(NAME)).is_ok_and(|found| Some(&found) == cell.versions.last())
            });
        }
    }
    cell.relay.server.thaw();
    let stopped = cell.relay.seen.lock().unwrap().stopped.clone().unwrap().1;
    cell.published(fewest);
    wait_until_idle(&stopped);
    let temps = || -> Vec<String> {
        let names = fs::read_dir(&root).unwrap().flatten();
        names
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| !is_final_name(n))
            .collect()
    };
    wait_until("no temp name is left", PATIENCE, || temps().is_empty());
    let most = cell.versions.len();
    // The watcher sees by its own clock.
    wait_until("the watcher saw the last version", PATIENCE, || {
        cell.watcher.deliveries(NAME) >= fewest
    });
    let deliveries = cell.watcher.deliveries(NAME);
    assert!(
        (fewest..=most).contains(&deliveries),
        "published {deliveries} times, {most} versions"
    );
    assert_eq!(
        &fs::read(root.join(NAME)).unwrap(),
        cell.versions.last().unwrap(),
        "not the last version"
    );
    let resets = cell
        .service
        .metrics()
        .sum("ftpulse_uploader_resets_total", &[]);
    assert!(
        resets >= 1.0 || !(convicted || place == Place::MidTransfer),
        "it was no deadlock"
    );
    cell.watcher.assert_clean();
}

/// Every place and moment; convicted and timed out by turns, all of both with `FTPULSE_SOAK`.
fn every_stall(start: fn(Opts) -> Server) {
    let all = std::env::var_os("FTPULSE_SOAK").is_some();
    let mut cells = Vec::new();
    for (row, place) in PLACES.into_iter().enumerate() {
        for (column, moment) in MOMENTS.into_iter().enumerate() {
            let turns = [false, true]
                .into_iter()
                .filter(|c| all || *c == ((row + column) % 2 == 0));
            cells.extend(turns.map(|convicted| (place, moment, convicted)));
        }
    }
    if let Ok(part) = std::env::var("FTPULSE_CELL") {
        cells.retain(|cell| format!("{cell:?}").contains(&part));
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some(cell) = cells.get(next.fetch_add(1, Ordering::SeqCst)) {
            let began = clock::mono();
            let ended = std::thread::scope(|scope| {
                scope
                    .spawn(|| one_stall(start, cell.0, cell.1, cell.2))
                    .join()
            });
            eprintln!(
                "{} {cell:?} {:.1?}",
                if ended.is_ok() { "ok" } else { "FAILED" },
                clock::mono() - began
            );
            if ended.is_err() {
                failed.push(format!("{cell:?}"));
            }
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert!(
        failed.is_empty(),
        "{} of {} failed: {failed:#?}",
        failed.len(),
        cells.len()
    );
}

#[test]
fn a_thawed_vsftpd_shows_no_version_twice_no_older_one_and_no_torn_one() {
    every_stall(Server::vsftpd);
}

#[test]
fn a_thawed_pure_ftpd_shows_no_version_twice_no_older_one_and_no_torn_one() {
    if is_root() {
        every_stall(Server::pure_ftpd);
    } else {
        eprintln!("not run: Debian's pure-ftpd runs for root only");
    }
}

#[test]
fn a_thawed_proftpd_shows_no_version_twice_no_older_one_and_no_torn_one() {
    every_stall(Server::proftpd);
}

#[test]
fn a_thawed_pyftpdlib_shows_no_version_twice_no_older_one_and_no_torn_one() {
    every_stall(Server::pyftpdlib);
}

/// A server that forbids renames answers 550 to RNFR, one that forbids looking answers 550 to
/// SIZE: both together must not be taken for "it is not there any more, so it was published".
#[test]
fn a_server_that_forbids_renames_and_sizes_costs_no_file() {
    let server = Server::pyftpdlib(
        Opts::default().line(r#"authorizer.user_table["tester"]["perm"] = "ewm""#),
    );
    let service = Settings::new()
        .quick()
        .key("routes.main.verify", "none")
        .route("main", &server, "")
        .start();
    let source = service.put("main", NAME, b"the only copy");
    for attempt in 1..=4 {
        service.wait_log("upload failed", |line| line["attempt"] == attempt);
    }
    assert_eq!(service.logged("file delivered").len(), 0);
    assert_eq!(fs::read(source).unwrap(), b"the only copy");
    assert!(!server.path(NAME).exists());
}
