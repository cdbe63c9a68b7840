//! A server that was stopped and is thawed again: whatever it still executes of the old session,
//! the final name only ever shows whole versions, never an older one after a newer one, none
//! twice, none lost, and no temp name is left in the end. By the lab, whose event stream tells
//! the exact order of what the server did. `FTPULSE_SOAK=n` sets the number of random scenarios,
//! `FTPULSE_SEED=n` runs a single one again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Step, Subscriber};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, temp_dir};

const NAME: &str = "file.bin";
const FINAL: &str = "/in/file.bin";
/// More than the lab's receive buffer and the product's send buffer hold together.
const SIZE: usize = 2 << 20;
/// Scenarios at once: they wait more than they work.
const AT_ONCE: usize = 8;

fn version(number: usize) -> Vec<u8> {
    content(number as u64, SIZE + number)
}

/// What the server did, followed event by event: which whole content stands under which name.
#[derive(Default)]
struct Ledger {
    whole: HashMap<String, u64>,
    /// The versions that were renamed to the final name, in order; none for a torn one.
    shown: Vec<Option<usize>>,
    /// One line for each event that changed something, for the report of a failure.
    story: Vec<String>,
}

impl Ledger {
    fn follow(&mut self, event: &Event) {
        match event {
            Event::Storing { path, .. } | Event::Deleted { path, .. } => {
                self.whole.remove(path);
            }
            Event::Stored { path, bytes, .. } => {
                self.whole.insert(path.clone(), *bytes);
            }
            Event::Renamed { from, to, .. } => {
                let whole = self.whole.remove(from);
                if to == FINAL {
                    let version =
                        whole.and_then(|bytes| usize::try_from(bytes).ok()?.checked_sub(SIZE));
                    self.shown.push(version);
                } else if let Some(bytes) = whole {
                    self.whole.insert(to.clone(), bytes);
                }
            }
            _ => {}
        }
        self.story.push(format!("{event:?}"));
    }

    /// Whole versions only, each at most once, none after a newer one, the last one put at last.
    fn check(&self, last: usize) -> Result<(), String> {
        let whole: Option<Vec<usize>> = self.shown.iter().copied().collect();
        let right = whole.is_some_and(|shown| {
            shown.windows(2).all(|pair| pair[0] < pair[1]) && shown.last() == Some(&last)
        });
        if right {
            Ok(())
        } else {
            Err(format!("shown: {:?}, put: 1 to {last}", self.shown))
        }
    }
}

/// A lab, a service with one route to it, and two witnesses of the lab's folder.
struct Stage {
    service: Ftpulse,
    lab: LabServer,
    events: Subscriber,
    ledger: Ledger,
    watcher: Option<Watcher>,
    put: usize,
    root: tempfile::TempDir,
}

impl Stage {
    fn new(faults: Vec<Fault>, settings: impl FnOnce(Settings) -> Settings) -> Self {
        let root = temp_dir();
        fs::create_dir(root.path().join("in")).unwrap();
        let lab = LabServer::start(root.path(), Script::of(faults)).unwrap();
        let events = lab.events();
        let watcher = Watcher::start(&root.path().join("in"), is_final_name);
        let quick = Settings::new()
            .quick()
            .key("timers.reply", "700ms")
            .key("timers.stall", "700ms")
            .key("routes.main.uploaders", "1")
            .route_to("main", &lab.url("in"), lab.password());
        let service = settings(quick).start();
        let (ledger, put) = (Ledger::default(), 0);
        Self {
            service,
            lab,
            events,
            ledger,
            watcher: Some(watcher),
            put,
            root,
        }
    }

    /// The producer puts the next version into the spool, over an unsent one if there is one.
    fn put(&mut self) {
        self.put += 1;
        let bytes = version(self.put);
        self.watcher.as_ref().unwrap().allow(NAME, &bytes);
        self.service.put("main", NAME, &bytes);
    }

    /// The consumer takes the final file away.
    fn consume(&self) {
        let _ = fs::remove_file(self.root.path().join("in").join(NAME));
    }

    /// The next event, followed.
    fn next(&mut self, time: Duration) -> Option<Event> {
        let event = self.events.wait_for(|_| true, time)?;
        self.ledger.follow(&event);
        Some(event)
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let end = clock::mono() + PATIENCE;
        loop {
            match self.next(end.saturating_sub(clock::mono())) {
                Some(event) if wanted(&event) => return event,
                Some(_) => {}
                None => self.fail(&format!("waited in vain until {what}")),
            }
        }
    }

    /// Waits until version `number` has been shown.
    fn until_shown(&mut self, number: usize) {
        while !self.ledger.shown.contains(&Some(number)) {
            self.until(
                "a version is published",
                |e| matches!(e, Event::Renamed { to, .. } if to == FINAL),
            );
        }
    }

    fn temps(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path().join("in")).unwrap().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|name| !is_final_name(name)).collect()
    }

    /// Nothing is under way and nothing is left: the spool is empty, nobody is frozen, no session
    /// but idle ones stands, no temp name is there.
    fn is_quiet(&self) -> bool {
        let counters = self.lab.counters();
        let spool = fs::read_dir(self.service.spool("main")).unwrap().flatten();
        counters.frozen == 0
            && counters.data_open == 0
            && self.temps().is_empty()
            && spool
                .filter(|e| is_final_name(&e.file_name().to_string_lossy()))
                .count()
                == 0
    }

    /// Thaws whatever is frozen, waits for the end of everything, and checks the whole story.
    fn finish(mut self) {
        let end = clock::mono() + PATIENCE;
        let mut quiet = 0;
        // Twice in a row with a pause between: what is between two steps has come to its next.
        while quiet < 2 {
            self.lab.thaw();
            if self.next(Duration::from_millis(100)).is_some() {
                quiet = 0;
                continue;
            }
            quiet = if self.is_quiet() { quiet + 1 } else { 0 };
            if clock::mono() > end {
                let left = format!(
                    "no end: temp names {:?}, {:?}",
                    self.temps(),
                    self.lab.counters()
                );
                self.fail(&left);
            }
        }
        while self.next(Duration::ZERO).is_some() {}
        if let Err(wrong) = self.ledger.check(self.put) {
            self.fail(&wrong);
        }
        let at_last = fs::read(self.root.path().join("in").join(NAME));
        assert!(
            at_last.is_err() || at_last.unwrap() == version(self.put),
            "not the last version"
        );
        self.watcher.take().unwrap().assert_clean();
    }

    fn fail(&self, why: &str) -> ! {
        eprintln!("--- {why}\n{}", self.ledger.story.join("\n"));
        panic!("{why}");
    }
}

/// Runs all jobs, some at a time, and names those that failed.
fn run_all<T: Sync>(jobs: &[T], name: impl Fn(&T) -> String + Sync, run: impl Fn(&T) + Sync) {
    let next = AtomicU64::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
            let (run, began) = (&run, clock::mono());
            let ended = std::thread::scope(|scope| scope.spawn(move || run(job)).join());
            eprintln!(
                "{} {} {:.1?}",
                if ended.is_ok() { "ok" } else { "FAILED" },
                name(job),
                clock::mono() - began
            );
            if ended.is_err() {
                failed.push(name(job));
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
        jobs.len()
    );
}

/// When the stopped session goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// The attempt has failed, its successor has not come yet.
    BeforeTheSuccessor,
    /// The successor's first command about the old temp name was read.
    DuringItsResolution,
    AfterItsPublish,
    /// Two newer versions were delivered meanwhile.
    AfterNewerVersions,
    /// The source was replaced when the server stopped; thawed when the newer one is published.
    AfterAReplacement,
}

fn matrix() -> Vec<(Kind, Moment, bool)> {
    use Moment::*;
    let kinds = [
        Kind::StopReading { after: 256 << 10 },
        Kind::NoReply(Step::Stor),
        Kind::NoReply(Step::Final),
        Kind::NoReply(Step::Rnfr),
        Kind::NoReply(Step::Rnto),
        Kind::RntoDoneNoReply,
    ];
    let moments = [
        BeforeTheSuccessor,
        DuringItsResolution,
        AfterItsPublish,
        AfterNewerVersions,
        AfterAReplacement,
    ];
    let mut cells = Vec::new();
    for kind in kinds {
        for moment in moments {
            cells.extend([false, true].map(|convicted| (kind, moment, convicted)));
        }
    }
    cells
}

/// One stall, one thaw. Without vouchers every silence is a deadlock; with them a living peer's
/// silence is a timeout, but for the stall in mid-transfer.
fn one_stall((kind, moment, convicted): (Kind, Moment, bool)) {
    let mut stage = Stage::new(vec![Fault::new(kind).until_thaw()], |settings| {
        settings
            .key("heartbeat.vouchers", if convicted { "none" } else { "all" })
            // The verdict comes before the timer does.
            .key("timers.reply", if convicted { "3s" } else { "700ms" })
            .key("retry.first", "500ms")
            // The thaw has to come within it: what is made later is never swept.
            .key("quarantine.hold", "8s")
    });
    stage.put();
    let struck = stage
        .until("the fault strikes", |e| matches!(e, Event::Struck { .. }))
        .session();
    match moment {
        Moment::BeforeTheSuccessor => {
            stage.service.wait_log("upload failed", |_| true);
        }
        Moment::DuringItsResolution => {
            let works = |verb: &str| matches!(verb, "RNFR" | "DELE");
            stage.until("the successor resolves", |e| {
                matches!(e, Event::Command { session, verb, .. } if *session != struck && works(verb))
            });
        }
        Moment::AfterItsPublish => {
            stage.until_shown(1);
            // A rename that was done before the stall is published before its attempt fails.
            stage.service.wait_log("upload failed", |_| true);
        }
        Moment::AfterNewerVersions => {
            for number in 1..=3 {
                if number > 1 {
                    stage.put();
                }
                stage.until_shown(number);
                stage.service.wait_spool_empty("main", PATIENCE);
            }
        }
        Moment::AfterAReplacement => {
            stage.put();
            stage.until_shown(2);
        }
    }
    stage.lab.thaw();
    stage.service.wait_spool_empty("main", PATIENCE);
    let resets = stage
        .service
        .metrics()
        .sum("ftpulse_uploader_resets_total", &[]);
    let deadlock = convicted || matches!(kind, Kind::StopReading { .. });
    assert!(resets >= 1.0 || !deadlock, "it was no deadlock");
    stage.finish();
}

#[test]
fn a_thawed_server_never_shows_an_older_version_a_torn_one_or_one_twice() {
    run_all(
        &matrix(),
        |cell| format!("{cell:?}"),
        |cell| one_stall(*cell),
    );
}

/// The old temp is the only whole copy and the only evidence while its publication is in doubt:
/// taken for garbage before its file's turn comes, "it is not there" would read as "published".
#[test]
fn a_temp_name_is_not_swept_while_its_publication_is_in_doubt() {
    let cells = [("all", "1s", 8), ("none", "1s", 8), ("none", "30s", 1)];
    run_all(
        &cells,
        |cell| format!("{cell:?}"),
        |(vouchers, hold, seats)| {
            let stall = Fault::new(Kind::NoReply(Step::Rnto)).until_thaw();
            // The second wedge takes the first one's only place in the quarantine.
            let second = Fault::new(Kind::NoReply(Step::Stor))
                .matching("other", 1)
                .until_thaw();
            let mut stage = Stage::new(vec![stall, second], |settings| {
                settings
                    .key("heartbeat.vouchers", vouchers)
                    .key("retry.first", "5s")
                    .key("retry.max", "5s")
                    .key("quarantine.hold", hold)
                    .key("quarantine.per_destination", seats)
            });
            stage.put();
            stage.until("RNTO is stopped", |e| matches!(e, Event::Struck { .. }));
            stage.service.wait_log("upload failed", |_| true);
            if *seats == 1 {
                stage.service.put("main", "other", b"other");
                stage
                    .service
                    .wait_log("sockets released", |line| line["reason"] == "seats");
            }
            stage.until_shown(1);
            stage.lab.thaw();
            stage.service.wait_spool_empty("main", PATIENCE);
            if let Err(wrong) = stage.ledger.check(1) {
                stage.fail(&wrong);
            }
        },
    );
}

/// A resolution that was stopped at its RNTO (old temp to fresh token) is executed late, just
/// between the next resolution's two questions: each name is absent when it is asked for, and
/// still the file is not published.
#[test]
fn a_late_rename_of_an_earlier_resolution_is_not_taken_for_a_publication() {
    // Which of two threads of the lab is first is chance: some tries find both orders.
    run_all(
        &[1, 2, 3, 4, 5, 6],
        |n| format!("try {n}"),
        |_| late_rename(),
    );
}

fn late_rename() {
    let drip = Kind::Drip {
        step: Step::Size,
        every: Duration::from_millis(15),
    };
    let faults = vec![
        Fault::new(Kind::NoReply(Step::Rnfr)).until_thaw(),
        Fault::new(Kind::NoReply(Step::Rnto)).until_thaw(),
        Fault::new(drip),
    ];
    // SIZE is then asked by resolutions only.
    let mut stage = Stage::new(faults, |s| {
        s.key("routes.main.verify", "none")
            .key("timers.reply", "2s")
    });
    stage.put();
    for _ in 0..2 {
        stage.until("a stall", |e| matches!(e, Event::Struck { .. }));
    }
    let renames = |e: &Event| matches!(e, Event::Renamed { .. });
    stage.until("it asks for a name, or publishes", |e| {
        renames(e)
            || matches!(
                e,
                Event::Struck {
                    fault: Kind::Drip { .. },
                    ..
                }
            )
    });
    stage.finish();
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
    fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Thaw,
    Put,
    Consume,
}

const HOLD: Duration = Duration::from_secs(6);

/// Up to four stalls anywhere, thaws, newer versions and a consumer at random events.
fn scenario(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let any = |dice: &mut Dice| {
        let after = dice.below(SIZE as u64);
        let all = [
            Kind::StopReading { after },
            Kind::NoReply(Step::Stor),
            Kind::NoReply(Step::Final),
            Kind::NoReply(Step::Size),
            Kind::NoReply(Step::Rnfr),
            Kind::NoReply(Step::Rnto),
            Kind::RntoDoneNoReply,
            Kind::NoReply(Step::Rnfr),
            Kind::NoReply(Step::Rnto),
            Kind::RntoDoneNoReply,
            Kind::NoReply(Step::User),
            Kind::NoReply(Step::Epsv),
            Kind::Reset {
                after,
                silent: false,
            },
            Kind::Drip {
                step: Step::Size,
                every: Duration::from_millis(8),
            },
        ];
        dice.of(&all)
    };
    let faults: Vec<Fault> = (0..1 + dice.below(4))
        .map(|_| Fault::new(any(&mut dice)).until_thaw())
        .collect();
    let mut deeds: Vec<(u64, Deed)> = Vec::new();
    for (deed, most) in [(Deed::Thaw, 4), (Deed::Put, 4), (Deed::Consume, 3)] {
        deeds.extend((0..dice.below(most)).map(|_| (dice.below(120), deed)));
    }
    deeds.sort_by_key(|(at, _)| *at);
    let first = dice.of(&["20ms", "150ms", "400ms"]);
    let mut stage = Stage::new(faults, |settings| {
        settings
            .key(
                "heartbeat.vouchers",
                if dice.percent(40) { "none" } else { "all" },
            )
            .key("routes.main.verify", dice.of(&["size", "none"]))
            .key("routes.main.uploaders", dice.of(&["1", "2"]))
            .key("quarantine.per_destination", dice.of(&["1", "2", "8"]))
            .key("quarantine.hold", format!("{}ms", HOLD.as_millis()))
            .key("retry.first", first)
    });
    let consumer = dice.percent(30);
    stage.put();
    let mut deeds = deeds.into_iter().peekable();
    let (mut count, mut thaw_by, end) = (0, None, clock::mono() + PATIENCE);
    while deeds.peek().is_some() {
        let event = stage.next(Duration::from_millis(200));
        count += 1;
        match &event {
            // Later than the hold nobody sweeps any more.
            Some(Event::Struck { .. }) => thaw_by = thaw_by.or(Some(clock::mono() + HOLD / 2)),
            Some(Event::Renamed { to, .. }) if consumer && to == FINAL && dice.percent(50) => {
                stage.consume()
            }
            _ => {}
        }
        if thaw_by.is_some_and(|by| clock::mono() >= by) {
            stage.lab.thaw();
            thaw_by = None;
        }
        // Where nothing happens any more, the next deed is due.
        while let Some((_, deed)) = deeds.next_if(|(at, _)| *at <= count || event.is_none()) {
            match deed {
                Deed::Thaw => {
                    stage.lab.thaw();
                    thaw_by = None;
                }
                Deed::Put => stage.put(),
                Deed::Consume => stage.consume(),
            }
            if event.is_none() {
                break;
            }
        }
        assert!(clock::mono() < end, "no end of deeds");
    }
    // The stalls of the end last a while too; then `finish` thaws whatever comes.
    while let Some(by) = thaw_by.filter(|by| clock::mono() < *by) {
        if stage.next(by - clock::mono()).is_none() {
            break;
        }
    }
    stage.finish();
}

#[test]
fn random_stalls_thaws_and_newer_versions_lose_nothing_and_show_nothing_twice() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seeds: Vec<u64> = match number("FTPULSE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = RandomState::new().hash_one(0) >> 32;
            (0..number("FTPULSE_SOAK").unwrap_or(40))
                .map(|n| first + n)
                .collect()
        }
    };
    run_all(
        &seeds,
        |seed| format!("FTPULSE_SEED={seed}"),
        |seed| scenario(*seed),
    );
}
