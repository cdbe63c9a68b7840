//! A spool of very many files: what it costs in names held and folder entries read, counted and
//! not timed, by a clock that the test turns. FTPULSE_FILES changes the number of files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod spool_common;

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use ftpulse::clock::Mono;
use ftpulse::spool::watch::Inlet;
use ftpulse::spool::work::{Command, Cost, Report, State, Work};
use ftpulse::spool::{Candidate, Clock, Now};
use spool_common::{log, number_from, route};

thread_local! {
    /// The time of this test, in nanoseconds.
    static TIME: Cell<u64> = const { Cell::new(0) };
}

fn now() -> Now {
    let mono = Duration::from_nanos(TIME.get());
    // An hour ahead: the files are long settled.
    let unix = ftpulse::clock::unix() + 3600.0 + mono.as_secs_f64();
    Now {
        mono,
        unix_ns: (unix * 1e9) as i64,
    }
}

fn turn_clock_to(time: Mono) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap();
    TIME.set(TIME.get().max(nanoseconds));
}

/// The work on a spool and what it told, turned by hand.
struct Rig {
    work: Work,
    found: Vec<Candidate>,
    state: State,
    most_names: usize,
}

impl Rig {
    fn new(dir: &Path) -> Self {
        let mut route = route(dir);
        route.settle = Duration::ZERO;
        let clock = Clock { now };
        let stop = Arc::new(AtomicBool::new(false));
        // Events reach nobody: what is found is found by reading.
        let inlet = Inlet {
            events: sync_channel(1).0,
            wake: sync_channel(1).0,
            lost: Arc::default(),
        };
        let work = Work::new(Arc::new(route), None, inlet, &log().0, clock, stop).unwrap();
        Self {
            work,
            found: Vec::new(),
            state: State::default(),
            most_names: 0,
        }
    }

    fn cost(&self) -> Cost {
        self.work.cost()
    }

    /// One turn; tells when the next one is due.
    fn turn(&mut self) -> Mono {
        let due = self.work.turn();
        self.most_names = self.most_names.max(self.cost().names);
        for report in self.work.out.drain(..) {
            match report {
                Report::Found(found) => self.found.extend(found),
                Report::State(state) => self.state = state,
                Report::Finished { outcome, .. } => drop(outcome.unwrap()),
                _ => {}
            }
        }
        due
    }

    /// Turns until nothing is due at the present time.
    fn rest(&mut self) -> Mono {
        loop {
            let due = self.turn();
            if due > now().mono {
                return due;
            }
        }
    }
}

fn fill(spool: &Path, count: u64) {
    // The first half in one folder, the other in many.
    for n in 0..count {
        let folder = match n < count / 2 {
            true => spool.to_owned(),
            false => spool.join(format!("{:04}", n / 1_000)),
        };
        if n % 1_000 == 0 || n == count / 2 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::File::create(folder.join(format!("{n:07}"))).unwrap();
    }
}

#[test]
fn each_of_very_many_files_goes_once_and_the_spool_is_not_read_again_for_each_batch() {
    let count = number_from("FTPULSE_FILES", 40_000);
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let spool = dir.path().join("spool");
    fill(&spool, count);

    rig.work.command(Command::Want(500));
    while rig.found.is_empty() {
        let due = rig.turn();
        turn_clock_to(due);
    }
    let first = rig.cost();
    println!("the first files are offered at {first:?}");
    assert!(first.entries <= 20_000, "{first:?}");

    let mut seen = HashSet::new();
    let mut token = 0;
    while (seen.len() as u64) < count {
        for Candidate { path, stamp: sent } in std::mem::take(&mut rig.found) {
            rig.work.command(Command::Finish {
                path: path.clone(),
                sent,
                story: None,
                token,
            });
            rig.work.command(Command::Want(1));
            token += 1;
            assert!(seen.insert(path.clone()), "{path} was offered twice");
        }
        let due = rig.turn();
        if rig.found.is_empty() {
            turn_clock_to(due);
        }
    }
    rig.rest();
    let (cost, most) = (rig.cost(), rig.most_names);
    println!(
        "{count} files: {cost:?}, at most {most} names, {:?}",
        now().mono
    );
    // Once to offer them, once to count them; by the end of both a batch may have come anew.
    let folders = count / 1_000;
    assert!(
        cost.entries <= 2 * (count + 3 * folders) + 20_000,
        "{cost:?}"
    );
    assert!(most <= 20_003, "{most} names were held at once");
    turn_clock_to(now().mono + Duration::from_secs(2));
    rig.rest();
    assert_eq!(rig.state.files, 0);
    assert_eq!(
        fs::read_dir(&spool)
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_file())
            .count(),
        0
    );
}

#[test]
fn events_lost_a_thousand_times_cost_one_more_reading() {
    let count = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    fill(&dir.path().join("spool"), count);
    rig.rest();
    turn_clock_to(now().mono + Duration::from_secs(5));
    rig.rest();
    let before = rig.cost().entries;
    fs::write(dir.path().join("spool/late"), "x").unwrap();
    for _ in 0..1_000 {
        rig.work.events_lost();
        rig.turn();
        turn_clock_to(now().mono + Duration::from_micros(900));
    }
    turn_clock_to(now().mono + Duration::from_secs(5));
    rig.rest();
    let read = rig.cost().entries - before;
    println!("{read} entries were read after the storm");
    assert!(read >= count, "the spool was read again");
    assert!(
        read <= 3 * (count + 100),
        "{read}: the last loss is followed by one reading at most"
    );
    turn_clock_to(now().mono + Duration::from_secs(2));
    rig.rest();
    assert_eq!(rig.state.files, count + 1, "what no event told is found");
}
