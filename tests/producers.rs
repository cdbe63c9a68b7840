//! Producers that do their worst: they replace, append to, rewrite, truncate, delete and make a
//! source anew at the very moments at which its version is looked at, sent, published, removed.
//! What a name holds once they rest arrives; nothing torn or mixed is ever seen, nothing is lost,
//! and no older version ever takes the place of a newer one. `FTPULSE_ROUNDS` sets how long the
//! random producer goes on, `FTPULSE_SEED` repeats one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

#[path = "support/inside.rs"]
mod inside;
mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Step};
use ftpulse::pulse::{Point, Sabotage};
use inside::Inside;
use support::servers::{Opts, Server};
use support::service::Settings;
use support::watcher::{Watcher, is_final_name, sha256};
use support::{PATIENCE, content, count_of, temp_dir, wait_until};

/// Several chunks of the upload.
const SIZE: usize = 1 << 20;

/// What a producer does to a file that it has put in already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Another one, renamed over it.
    Replace,
    Append,
    /// Other bytes in the same place, as many as before.
    Rewrite,
    Truncate,
    Delete,
    /// Deleted, then written anew in place.
    Recreate,
}

const DEEDS: [Deed; 6] = [
    Deed::Replace,
    Deed::Append,
    Deed::Rewrite,
    Deed::Truncate,
    Deed::Delete,
    Deed::Recreate,
];

impl Deed {
    /// What the file holds afterwards; `fresh` are new bytes.
    fn result(self, old: &[u8], fresh: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Replace | Self::Recreate => Some(fresh.to_vec()),
            Self::Append => Some([old, &fresh[..100]].concat()),
            Self::Rewrite => Some(
                [
                    &fresh[..old.len().min(fresh.len())],
                    &old[fresh.len().min(old.len())..],
                ]
                .concat(),
            ),
            Self::Truncate => Some(old[..old.len() / 2].to_vec()),
            Self::Delete => None,
        }
    }

    /// Does it, in several steps where a producer would. False where the file is not there (its
    /// name may be taken away for a moment while its end is decided).
    fn act(self, path: &Path, old_len: usize, fresh: &[u8]) -> bool {
        let write = |file: &mut File, bytes: &[u8]| {
            for part in bytes.chunks(bytes.len().div_ceil(3).max(1)) {
                file.write_all(part).unwrap();
            }
        };
        let opened = |options: &mut OpenOptions| options.open(path).ok();
        match self {
            Self::Replace => {
                let temp = path.with_extension("tmp");
                fs::write(&temp, fresh).unwrap();
                fs::rename(&temp, path).unwrap();
                true
            }
            Self::Append => opened(OpenOptions::new().append(true))
                .map(|mut file| write(&mut file, &fresh[..100]))
                .is_some(),
            Self::Rewrite => opened(OpenOptions::new().write(true))
                .map(|mut file| write(&mut file, &fresh[..old_len.min(fresh.len())]))
                .is_some(),
            Self::Truncate => opened(OpenOptions::new().write(true))
                .map(|file| file.set_len(old_len as u64 / 2).unwrap())
                .is_some(),
            Self::Delete => fs::remove_file(path).is_ok(),
            Self::Recreate => {
                let _ = fs::remove_file(path);
                write(&mut File::create(path).unwrap(), fresh);
                true
            }
        }
    }
}

// --- at the worst moments, one by one ---

struct Scene {
    root: tempfile::TempDir,
    lab: LabServer,
    watcher: Watcher,
}

impl Scene {
    fn new(script: impl Into<Script>) -> Self {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), script).unwrap();
        let watcher = Watcher::start(root.path(), is_final_name);
        Self { root, lab, watcher }
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .quick()
            // No timer is what this is about.
            .key("timers.stall", "120s")
            .key("timers.reply", "120s")
            .key("routes.main.uploaders", "1")
            .route_to("main", &self.lab.url("in"), self.lab.password())
    }

    fn there(&self) -> PathBuf {
        self.root.path().join("in/file.bin")
    }

    /// After the deed: its result arrives, or nothing does; the service goes on.
    fn ends(&self, spool: &Path, put: impl Fn(&str, &[u8]), result: Option<&[u8]>, told: &str) {
        let end = result.map(<[u8]>::to_vec);
        if let Some(new) = &end {
            wait_until(
                &format!("{told}: the new version is there"),
                PATIENCE,
                || fs::read(self.there()).is_ok_and(|bytes| bytes == *new),
            );
        }
        wait_until(&format!("{told}: the spool is empty"), PATIENCE, || {
            !spool.join("file.bin").exists()
        });
        self.watcher.allow("in/next", b"next");
        put("next", b"next");
        wait_until(&format!("{told}: the next is there"), PATIENCE, || {
            self.root.path().join("in/next").exists()
        });
        let left: Vec<_> = fs::read_dir(self.root.path().join("in"))
            .unwrap()
            .flatten()
            .collect();
        let left = left.iter().map(|e| e.file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| !is_final_name(name)).collect();
        assert!(left.is_empty(), "{told}: {left:?}");
        assert!(
            !spool.join(".dead-letter").exists(),
            "{told}: nothing is set aside"
        );
    }
}

/// The producer acts at the moment when a part of the service passes a point.
fn strikes_at(point: Point, deed: Deed) {
    let told = format!("{deed:?} at {point:?}");
    let scene = Scene::new(Script::healthy());
    let (old, fresh) = (content(1, SIZE), content(2, SIZE));
    let result = deed.result(&old, &fresh);
    // Between its delivery and its removal the old version has arrived already.
    if point == Point::Collector {
        scene.watcher.allow("in/file.bin", &old);
    }
    if let Some(new) = &result {
        scene.watcher.allow("in/file.bin", new);
    }
    let settings = scene.settings();
    let spool = settings.spool("main");
    let sabotage = Sabotage::default();
    let path = spool.join("file.bin");
    let done = Arc::new(AtomicBool::new(false));
    let acted = Arc::clone(&done);
    sabotage.arm(point, 1, move || {
        acted.store(deed.act(&path, SIZE, &fresh), SeqCst)
    });
    let service = Inside::start(settings, &sabotage);
    service.put("main", "file.bin", &old);
    wait_until(&told, PATIENCE, || done.load(SeqCst));
    let put = |name: &str, bytes: &[u8]| service.put("main", name, bytes);
    scene.ends(&spool, put, result.as_deref(), &told);
    if result.is_none() {
        assert_eq!(scene.there().exists(), point == Point::Collector, "{told}");
    }
    service.end();
    scene.watcher.assert_clean();
}

#[test]
fn a_producer_that_strikes_between_the_scan_and_the_opening() {
    DEEDS
        .into_iter()
        .for_each(|deed| strikes_at(Point::Source, deed));
}

#[test]
fn a_producer_that_strikes_while_it_is_sent() {
    DEEDS
        .into_iter()
        .for_each(|deed| strikes_at(Point::Transfer, deed));
}

#[test]
fn a_producer_that_strikes_between_the_publishing_and_the_removal() {
    DEEDS
        .into_iter()
        .for_each(|deed| strikes_at(Point::Collector, deed));
}

/// The producer acts while the server holds a reply back.
#[test]
fn a_producer_that_strikes_while_the_server_is_silent_around_the_publishing() {
    for step in [Step::Final, Step::Size, Step::Rnfr, Step::Rnto] {
        for deed in DEEDS {
            let told = format!("{deed:?} at {step:?}");
            let scene = Scene::new(Fault::new(Kind::NoReply(step)).first(1).until_thaw());
            let mut events = scene.lab.events();
            let (old, fresh) = (content(1, SIZE), content(2, SIZE));
            let result = deed.result(&old, &fresh);
            // From RNFR on the old version is on its way to its name, whole.
            let on_its_way = matches!(step, Step::Rnfr | Step::Rnto);
            if on_its_way {
                scene.watcher.allow("in/file.bin", &old);
            }
            if let Some(new) = &result {
                scene.watcher.allow("in/file.bin", new);
            }
            let service = scene.settings().start();
            let path = service.put("main", "file.bin", &old);
            let struck = |event: &Event| matches!(event, Event::Struck { .. });
            events.wait_for(struck, PATIENCE).expect(&told);
            assert!(deed.act(&path, SIZE, &fresh), "{told}");
            scene.lab.thaw();
            let put = |name: &str, bytes: &[u8]| drop(service.put("main", name, bytes));
            scene.ends(&service.spool("main"), put, result.as_deref(), &told);
            if result.is_none() {
                assert_eq!(scene.there().exists(), on_its_way, "{told}");
            }
            scene.watcher.assert_clean();
        }
    }
}

// --- as fast as it can ---

/// A new version at every chance: before each opening and before each removal.
#[test]
fn a_name_that_gets_a_new_version_at_every_step_ends_with_its_newest() {
    const VERSIONS: u64 = 60;
    let scene = Scene::new(Script::healthy());
    let bytes = |version: u64| content(version, 30_000);
    for version in 0..=VERSIONS {
        scene.watcher.allow("in/file.bin", &bytes(version));
    }
    let settings = scene.settings();
    let path = settings.spool("main").join("file.bin");
    let sabotage = Sabotage::default();
    let newest = Arc::new(AtomicU64::new(0));
    let published = Arc::new(Mutex::new(Vec::new()));
    // Three at each opening: the third may get the inode and the time of the first.
    let (at, count) = (path.clone(), Arc::clone(&newest));
    let next = move || {
        for _ in 0..3 {
            let version = count.fetch_add(1, SeqCst) + 1;
            let temp = at.with_extension("tmp");
            fs::write(&temp, bytes(version)).unwrap();
            fs::rename(&temp, &at).unwrap();
        }
    };
    let (there, seen, after) = (scene.there(), Arc::clone(&published), next.clone());
    sabotage.arm(Point::Source, VERSIONS as usize / 6, next);
    sabotage.arm(Point::Collector, VERSIONS as usize / 6, move || {
        seen.lock().unwrap().push(fs::read(&there).unwrap());
        after();
    });
    let service = Inside::start(settings, &sabotage);
    service.put("main", "file.bin", &bytes(0));
    wait_until("every version was put in", PATIENCE, || {
        sabotage.left() == 0
    });
    wait_until("the newest has arrived", PATIENCE, || {
        !path.exists() && fs::read(scene.there()).unwrap() == bytes(VERSIONS)
    });
    let order: Vec<u64> = published
        .lock()
        .unwrap()
        .iter()
        .map(|found| {
            (0..=VERSIONS)
                .find(|version| bytes(*version) == *found)
                .expect("a whole version")
        })
        .collect();
    println!(
        "of {} versions there arrived, in this order: {order:?} and {VERSIONS}",
        VERSIONS + 1
    );
    assert_eq!(newest.load(SeqCst), VERSIONS);
    assert!(order.windows(2).all(|two| two[0] < two[1]), "{order:?}");
    service.end();
    scene.watcher.assert_clean();
}

// --- at random, against a real server ---

/// The version that a content of a name is.
type Order = HashMap<(String, [u8; 32]), u64>;

/// What whoever looks at the server sees of each name: never an older version after a newer one.
struct Witness {
    over: Arc<AtomicBool>,
    order: Arc<Mutex<Order>>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Witness {
    fn start(folder: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let order: Arc<Mutex<Order>> = Arc::default();
        let (ended, known) = (Arc::clone(&over), Arc::clone(&order));
        let thread = std::thread::spawn(move || {
            let mut newest: BTreeMap<String, u64> = BTreeMap::new();
            let mut wrong = Vec::new();
            while !ended.load(SeqCst) {
                for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    let name = entry.file_name().into_string().unwrap();
                    // Replaced between the listing and the reading: seen in the next round.
                    let Some(found) = fs::read(entry.path()).ok().filter(|_| is_final_name(&name))
                    else {
                        continue;
                    };
                    let version = known
                        .lock()
                        .unwrap()
                        .get(&(name.clone(), sha256(&found)))
                        .copied();
                    match (version, newest.get(&name)) {
                        (None, _) => {
                            wrong.push(format!("{name}: {} bytes of no version", found.len()))
                        }
                        (Some(version), Some(newer)) if version < *newer => {
                            wrong.push(format!("{name}: version {version} after {newer}"));
                        }
                        (Some(version), _) => drop(newest.insert(name, version)),
                    }
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            wrong
        });
        Self {
            over,
            order,
            thread: Some(thread),
        }
    }

    fn knows(&self, name: &str, version: u64, bytes: &[u8]) {
        self.order
            .lock()
            .unwrap()
            .insert((name.into(), sha256(bytes)), version);
    }

    fn end(mut self) -> Vec<String> {
        self.over.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_random_hostile_producer_loses_tears_and_turns_back_nothing() {
    let rounds = count_of("FTPULSE_ROUNDS", 250);
    let seed = count_of(
        "FTPULSE_SEED",
        (clock::unix() * 1e6) as usize % 1_000_000_007,
    );
    println!("FTPULSE_SEED={seed}");
    let server = Server::vsftpd(Opts::default());
    let watcher = Watcher::start(&server.root, is_final_name);
    let witness = Witness::start(server.root.join("in"));
    let service = Settings::new()
        .quick()
        .key("log.level", "info")
        .key("timers.stall", "60s")
        .key("timers.reply", "60s")
        .key("routes.main.uploaders", "3")
        .route("main", &server, "in")
        .key("routes.main.settle", "30ms")
        .start();
    let spool = service.spool("main");
    let mut state = seed as u64 | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut names: BTreeMap<String, Option<Vec<u8>>> =
        (0..5).map(|i| (format!("name-{i}"), None)).collect();
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    let mut version = 0;
    for _ in 0..rounds {
        let name = format!("name-{}", random(5));
        let path = spool.join(&name);
        let deed = DEEDS[random(DEEDS.len() as u64) as usize];
        // What was delivered and is gone is put in anew first; its upload is what the deed meets.
        let steps = if path.exists() { 1 } else { 2 };
        for step in 0..steps {
            version += 1;
            let old = names[&name].clone().unwrap_or_default();
            let fresh = content(version, 2_000 + random(200_000) as usize);
            let first = steps == 2 && step == 0;
            let unfit = names[&name].is_none() || (deed == Deed::Truncate && old.len() < 1_000);
            let now = if first || unfit { Deed::Replace } else { deed };
            let result = now.result(&old, &fresh);
            if let Some(new) = &result {
                // Before it can be whole anywhere.
                witness.knows(&name, version, new);
                watcher.allow(&format!("in/{name}"), new);
            }
            let acted = now.act(&path, old.len(), &fresh);
            let what = format!("{now:?}{}", if acted { "" } else { " (gone)" });
            *done.entry(what).or_default() += 1;
            if acted {
                names.insert(name.clone(), result);
            }
            let end = clock::mono() + Duration::from_micros(random(40_000));
            wait_until("a short while has passed", PATIENCE, || {
                clock::mono() >= end
            });
        }
    }
    service.wait_spool_empty("main", PATIENCE * 2);
    for (name, expected) in &names {
        let there = server.root.join("in").join(name);
        if let Some(expected) = expected {
            wait_until(
                &format!("the last version of {name} is there"),
                PATIENCE,
                || fs::read(&there).is_ok_and(|bytes| bytes == *expected),
            );
        }
    }
    let delivered = service
        .metrics()
        .sum("ftpulse_files_total", &[("outcome", "delivered")]);
    println!("{rounds} rounds {done:?}: {delivered} versions delivered");
    let wrong = witness.end();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        service.metrics().sum("ftpulse_uploader_resets_total", &[]),
        0.0
    );
    watcher.assert_clean();
}
