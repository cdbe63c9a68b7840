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

use ftpulse::spool::journal::Store;
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings, variable};
use support::{PATIENCE, content, wait_for, wait_until};

const NAME: &str = "part.bin";
const MIB: usize = 1 << 20;
/// Long enough that no life but the last one sweeps.
const LATER: &str = "10m";

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

struct Stage {
    service: Ftpulse,
    journal: PathBuf,
    temp: PathBuf,
}

/// A service that sends a file to a slow server; the temp name under which it grows there.
fn under_way(server: &Server) -> Stage {
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
    Stage {
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
fn swept_by_the_next_life(server: &Server, stage: Stage) {
    let Stage {
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
