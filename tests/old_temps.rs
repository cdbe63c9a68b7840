//! Temp names of uploads that were broken off: a late server may make one again when the file was
//! delivered long ago. Each is taken away once more, also by a later life of the service than the
//! one that broke it off; nobody else's name is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ftpulse::clock;
use ftpulse::core::journey::Stage;
use ftpulse::spool::journal::{Change, Key, Store};
use support::servers::{Opts, Server, is_root};
use support::service::{Ftpulse, Settings, variable};
use support::{PATIENCE, content, wait_for, wait_until};

const NAME: &str = "part.bin";
const MIB: usize = 1 << 20;
/// Long enough that no life but the last one sweeps.
const LATER: &str = "10m";

/// A file on a server's disk, last modified so many hours ago.
fn left(path: PathBuf, hours: u64) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(&path).unwrap();
    let at = clock::unix() - hours as f64 * 3600.0;
    file.set_modified(UNIX_EPOCH + Duration::from_secs_f64(at))
        .unwrap();
    path
}

/// A server that takes 2 MiB a second.
fn slow(name: &str) -> Server {
    let bytes = 2 * MIB;
    match name {
        "vsftpd" => Server::vsftpd(
            Opts::default()
                .line(format!("local_max_rate={bytes}"))
                .line(format!("anon_max_rate={bytes}")),
        ),
        _ => Server::pyftpdlib(Opts::default().process_per_session().line(format!(
            r#"
import time
from pyftpdlib.handlers import DTPHandler
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

/// The temp names on a server's disk.
fn temps(root: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(root).unwrap().flatten().map(|e| e.path());
    all.filter(|path| path.extension().is_some_and(|e| e == "part"))
        .collect()
}

struct UnderWay {
    service: Ftpulse,
    journal: PathBuf,
    temp: PathBuf,
}

/// A service that sends a file to a slow server; the temp name under which it grows there.
fn under_way(server: &Server) -> UnderWay {
    let settings = Settings::new()
        .quick()
        .key("timers.stall", "700ms")
        .key("quarantine.hold", LATER)
        .key("routes.main.uploaders", "1")
        .route("main", server, "");
    let state = &settings.vars()[&variable("state.dir")];
    let journal = Path::new(state).join("journal.db");
    let service = settings.start();
    service.put("main", NAME, &content(3, 4 * MIB));
    let temp = wait_for("the file grows", PATIENCE, || {
        let found = temps(&server.root);
        found.into_iter().find(|temp| {
            let size = fs::metadata(temp).map_or(0, |meta| meta.len());
            size > 0
        })
    });
    UnderWay {
        service,
        journal,
        temp,
    }
}

/// What the journal has still to sweep.
fn sweeps(journal: &Path) -> Vec<String> {
    let store = Store::open(journal).unwrap().store;
    let known = store.sweeps().unwrap();
    known.into_iter().map(|old| old.temp).collect()
}

/// Kills the service after the delivery, has a late server make the temp name again, and another
/// agent's beside it; the next life takes the one away and not the other.
fn swept_by_the_next_life(server: &Server, stage: UnderWay) {
    let UnderWay {
        service,
        journal,
        temp,
    } = stage;
    service.wait_delivered(NAME);
    service.wait_spool_empty("main", PATIENCE);
    // Another life that is killed before it is time.
    let mut service = service.kill_and_restart();
    service.process.kill();
    let known = sweeps(&journal);
    let name = temp.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(known.contains(&name), "{name} is not among {known:?}");

    fs::write(&temp, b"late").unwrap();
    let others = server.path(".part.bin.01234567-0123456789abcdef.part");
    fs::write(&others, b"not ours").unwrap();
    let hold = variable("quarantine.hold");
    let mut service = service.restart_with(&hold, Some("1s"));
    wait_until("the late temp is gone", PATIENCE, || !temp.exists());
    assert_eq!(temps(&server.root), [others]);
    assert_eq!(
        fs::read(server.path(NAME)).unwrap(),
        content(3, 4 * MIB),
        "what was delivered is not touched"
    );
    wait_until("nothing is left to sweep", PATIENCE, || {
        let swept = service.logged("old temp names swept");
        let gone = swept.iter().map(|line| line["gone"].as_u64().unwrap());
        gone.sum::<u64>() == known.len() as u64
    });
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(sweeps(&journal), Vec::<String>::new());
}

#[test]
fn a_temp_that_a_stopped_server_makes_again_is_taken_away_by_the_next_life() {
    std::thread::scope(|scope| {
        for name in ["vsftpd", "pyftpdlib"] {
            scope.spawn(move || {
                let server = slow(name);
                let stage = under_way(&server);
                let frozen = server.freeze_sessions();
                assert!(!frozen.is_empty());
                stage.service.wait_log("uploader reset", |_| true);
                swept_by_the_next_life(&server, stage);
            });
        }
    });
}

#[test]
fn a_temp_that_was_sent_when_the_service_was_killed_is_taken_away_again() {
    let server = slow("pyftpdlib");
    let mut stage = under_way(&server);
    stage.service = stage.service.kill_and_restart();
    swept_by_the_next_life(&server, stage);
}

/// Files that were left on a server by whomever; only what is ours, old and unknown goes.
fn left_alone_but_the_old_one(server: &Server) {
    let settings = Settings::new().quick().route("main", server, "in");
    let state = PathBuf::from(&settings.vars()[&variable("state.dir")]);
    let mut service = settings.start();
    service.put("main", "sub/first.txt", b"first");
    service.wait_delivered("sub/first.txt");
    assert_eq!(service.terminate(), Some(0));

    let agent = fs::read_to_string(state.join("agent")).unwrap();
    let agent = agent.trim();
    let in_doubt = format!(".doubt.csv.{agent}-0000000000000001.part");
    let mut store = Store::open(&state.join("journal.db")).unwrap().store;
    let doubt = Change::Attempt {
        of: Key {
            route: "gone".into(),
            path: "doubt.csv".into(),
        },
        temp: in_doubt.clone(),
        stage: Stage::Publishing,
        sent: None,
        target: None,
        place: None,
    };
    store.apply([doubt].iter()).unwrap();
    assert!(store.close());

    let ours = |n: u32| format!(".x.csv.{agent}-{n:016x}.part");
    let place = |name: &str| server.path("in").join(name);
    let old = [
        left(place(&ours(1)), 49),
        left(place("sub").join(ours(2)), 49),
    ];
    let stay = [
        left(place(&ours(3)), 0),
        left(place(&ours(4)), 23),
        left(place(&in_doubt), 49),
        left(place(".x.csv.fedcba98-0000000000000005.part"), 49),
        left(place(&format!("{}.bak", ours(6))), 49),
        left(place("old.csv"), 49),
        // No file of this route was uploaded to it.
        left(place("other").join(ours(7)), 49),
    ];
    let service = service.kill_and_restart();
    service.put("main", "sub/second.txt", b"second");
    service.wait_delivered("sub/second.txt");
    for old in &old {
        wait_until("the old temp is gone", PATIENCE, || !old.exists());
    }
    let found = service.logged("old temp files of this agent found");
    assert_eq!(found.len(), old.len(), "{found:?}");
    wait_until("the empty files are gone, too", PATIENCE, || {
        let kinds = [place(""), place("sub")];
        let all = kinds.iter().flat_map(|folder| temps(folder));
        !all.into_iter()
            .any(|temp| temp.to_string_lossy().contains(".clock."))
    });
    for file in &stay {
        assert!(file.exists(), "{} is gone", file.display());
    }
}

#[test]
fn of_what_was_left_on_a_server_only_our_own_old_temps_are_removed() {
    std::thread::scope(|scope| {
        scope.spawn(|| left_alone_but_the_old_one(&Server::vsftpd(Opts::default())));
        scope.spawn(|| left_alone_but_the_old_one(&Server::pyftpdlib(Opts::default())));
        scope.spawn(|| left_alone_but_the_old_one(&Server::proftpd(Opts::default())));
        if is_root() {
            scope.spawn(|| left_alone_but_the_old_one(&Server::pure_ftpd(Opts::default())));
        }
    });
}
