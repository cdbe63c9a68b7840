//! The spool on a real file system: what is taken, when it is settled, what becomes of a
//! delivered source, who owns a folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod spool_common;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ftpulse::config::{After, Order, Route};
use ftpulse::spool::finish::{
    self, FinishError, Finished, Known, Leftover, is_private, put_back_leftover,
};
use ftpulse::spool::lock::{FolderLock, LockError};
use ftpulse::spool::scan::{Eyes, Finds, Scan};
use ftpulse::spool::settle::{Settle, Sight, Verdict};
use ftpulse::spool::taking::Taking;
use ftpulse::spool::{Facts, Now, SourceError, Stamp, open_source, stamp_at, stamp_of};
use ftpulse::sys::file::open_root;
use proptest::prelude::*;
use spool_common::{NOBODY, age, as_user, route};

// --- opening a source ---

#[test]
fn a_source_is_opened_only_as_a_regular_file_beneath_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    fs::create_dir(route.spool.join("sub")).unwrap();
    fs::write(route.spool.join("sub/a"), "hello").unwrap();
    fs::write(dir.path().join("secret"), "s").unwrap();
    symlink("../secret", route.spool.join("link")).unwrap();
    symlink(dir.path(), route.spool.join("out")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, route.spool.join("fifo"), 0o600.into()).unwrap();
    let _socket = UnixListener::bind(route.spool.join("socket")).unwrap();

    let (file, stamp) = open_source(&route.spool, "sub/a").unwrap();
    assert_eq!((stamp.size, stamp), (5, stamp_of(&file).unwrap()));
    assert_eq!(stamp_at(&route.spool, "sub/a").unwrap(), Some(stamp));

    for other in ["link", "fifo", "socket", "sub", "out/secret"] {
        let error = open_source(&route.spool, other).unwrap_err();
        assert!(matches!(error, SourceError::NotRegular), "{other}: {error}");
        assert_eq!(stamp_at(&route.spool, other).unwrap(), None, "{other}");
    }
    for gone in ["none", "sub/none", "none/none"] {
        let error = open_source(&route.spool, gone).unwrap_err();
        assert!(matches!(error, SourceError::Vanished), "{gone}: {error}");
    }
    let error = open_source(&dir.path().join("nowhere"), "a").unwrap_err();
    assert!(
        matches!(error, SourceError::Io(_)),
        "a missing spool is not a vanished file: {error}"
    );
    assert!(matches!(
        open_source(&route.spool, "../secret").unwrap_err(),
        SourceError::Io(_)
    ));
}

#[test]
fn a_file_without_read_permission_is_told_as_denied() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let route = route(dir.path());
    fs::write(route.spool.join("a"), "x").unwrap();
    fs::set_permissions(route.spool.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let spool = route.spool.clone();
    let error = as_user(NOBODY, move || open_source(&spool, "a").unwrap_err());
    assert!(matches!(error, SourceError::Denied), "{error}");
}

// --- the end of a source ---

fn finish(route: &Route, rel: &str, sent: Stamp) -> Result<Finished, FinishError> {
    finish::finish(route, rel, sent, Known::default())
}

fn put(route: &Route, rel: &str, content: &str) -> Stamp {
    let path = route.spool.join(rel);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    stamp_at(&route.spool, rel).unwrap().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Names of all files below a folder.
fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(
                files_below(&entry.path())
                    .iter()
                    .map(|below| format!("{name}/{below}")),
            );
        } else {
            found.insert(name);
        }
    }
    found
}

#[test]
fn a_delivered_source_is_deleted_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    for name in [
        "a",
        "sub/deep/-dash and space",
        &"n".repeat(255),
        &"ü".repeat(127),
    ] {
        let sent = put(&route, name, "x");
        assert_eq!(
            finish(&route, name, sent).unwrap(),
            Finished::Deleted,
            "{name}"
        );
    }
    assert_eq!(files_below(&route.spool), BTreeSet::new());
}

#[test]
fn an_archived_source_keeps_its_path_and_never_replaces_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    let archive = dir.path().join("archive");
    route.after = After::Archive(archive.clone());
    for (content, place) in [("1", "sub/a"), ("2", "sub/a.1"), ("3", "sub/a.2")] {
        let sent = put(&route, "sub/a", content);
        let done = finish(&route, "sub/a", sent).unwrap();
        assert_eq!(done, Finished::Archived(archive.join(place)));
        assert_eq!(read(archive.join(place)), content);
    }
    assert_eq!(files_below(&route.spool), BTreeSet::new());
}

#[test]
fn archiving_to_another_device_copies_whole_and_keeps_the_time() {
    let other = Path::new("/dev/shm");
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().metadata().unwrap().dev();
    if !other.metadata().is_ok_and(|other| other.dev() != here) {
        eprintln!("no second file system here: nothing to show");
        return;
    }
    let archive = tempfile::tempdir_in(other).unwrap();
    let mut route = route(dir.path());
    route.after = After::Archive(archive.path().to_owned());
    let content = "0123456789".repeat(100_000);
    put(&route, "sub/a", &content);
    age(&route.spool.join("sub/a"), 5_000);
    let sent = stamp_at(&route.spool, "sub/a").unwrap().unwrap();
    assert!(matches!(
        finish(&route, "sub/a", sent).unwrap(),
        Finished::Archived(_)
    ));
    assert_eq!(read(archive.path().join("sub/a")), content);
    let modified = archive.path().join("sub/a").metadata().unwrap();
    assert_eq!(modified.mtime(), sent.mtime_ns / 1_000_000_000);
    assert_eq!(files_below(&route.spool), BTreeSet::new());
    assert_eq!(
        files_below(archive.path()),
        BTreeSet::from(["sub/a".to_owned()])
    );
}

#[test]
fn an_archive_that_cannot_be_written_leaves_the_source_at_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    fs::write(dir.path().join("file"), "").unwrap();
    route.after = After::Archive(dir.path().join("file/archive"));
    let sent = put(&route, "a", "x");
    let error = finish(&route, "a", sent).unwrap_err();
    assert!(
        error.to_string().contains("archive") && error.stranded_at.is_none(),
        "{error}"
    );
    assert_eq!(read(route.spool.join("a")), "x");
    route.after = After::Delete;
    assert_eq!(
        finish(&route, "a", sent).unwrap(),
        Finished::Deleted,
        "the call can be repeated"
    );
}

#[test]
fn a_symlink_planted_as_archive_or_dead_letter_folder_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    route.after = After::Archive(route.spool.join("done"));
    symlink(&outside, route.spool.join("done")).unwrap();
    let sent = put(&route, "a", "x");
    assert!(finish(&route, "a", sent).is_err());
    assert_eq!(read(route.spool.join("a")), "x");
    assert_eq!(files_below(&outside), BTreeSet::new());
}

#[test]
fn a_kept_source_is_only_compared() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.after = After::Keep;
    let sent = put(&route, "a", "x");
    assert_eq!(finish(&route, "a", sent).unwrap(), Finished::Kept);
    put(&route, "a", "longer");
    assert_eq!(finish(&route, "a", sent).unwrap(), Finished::Changed);
    fs::remove_file(route.spool.join("a")).unwrap();
    assert_eq!(finish(&route, "a", sent).unwrap(), Finished::Vanished);
}

#[test]
fn a_source_that_was_replaced_appended_to_or_is_still_written_stays() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());

    let sent = put(&route, "replaced", "old");
    spool_common::rename_in(&route.spool, "replaced", "new");
    assert_eq!(finish(&route, "replaced", sent).unwrap(), Finished::Changed);
    assert_eq!(read(route.spool.join("replaced")), "new");

    let sent = put(&route, "appended", "old");
    let mut file = OpenOptions::new()
        .append(true)
        .open(route.spool.join("appended"))
        .unwrap();
    file.write_all(b"er").unwrap();
    drop(file);
    assert_eq!(finish(&route, "appended", sent).unwrap(), Finished::Changed);
    assert_eq!(read(route.spool.join("appended")), "older");

    let sent = put(&route, "open", "old");
    let writer = OpenOptions::new()
        .append(true)
        .open(route.spool.join("open"))
        .unwrap();
    assert_eq!(finish(&route, "open", sent).unwrap(), Finished::Changed);
    drop(writer);
    assert_eq!(finish(&route, "open", sent).unwrap(), Finished::Deleted);

    let sent = put(&route, "gone/a", "old");
    fs::remove_dir_all(route.spool.join("gone")).unwrap();
    assert_eq!(finish(&route, "gone/a", sent).unwrap(), Finished::Vanished);

    fs::rename(&route.spool, dir.path().join("away")).unwrap();
    assert!(
        finish(&route, "a", sent).is_err(),
        "a missing spool says nothing about its files"
    );
}

/// A producer puts a new version under the name whenever the name is free; each version is
/// sent at most from one reading. Whatever the interleaving: what was put in is sent, in the
/// spool or among the dead letters.
#[test]
fn no_version_is_lost_however_a_producer_and_the_end_of_a_source_meet() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    let done = AtomicBool::new(false);
    let name = route.spool.join("a");
    let (mut put_in, mut sent, mut aside) = (BTreeSet::new(), BTreeSet::new(), 0);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut put_in = BTreeSet::new();
            let temp = dir.path().join("staging");
            for version in 0..100_000_u32 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(&temp, version.to_string()).unwrap();
                while !done.load(Ordering::Relaxed) {
                    if fs::hard_link(&temp, &name).is_ok() {
                        put_in.insert(version.to_string());
                        break;
                    }
                }
                // The next write must not go into the linked file.
                fs::remove_file(&temp).unwrap();
            }
            put_in
        });
        let mut round = 0;
        while round < 2_000 {
            let Ok((mut file, stamp)) = open_source(&route.spool, "a") else {
                continue;
            };
            round += 1;
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            drop(file);
            // Every other time the comparison must fail.
            let claimed = Stamp {
                size: stamp.size + u64::from(round % 2 == 0),
                ..stamp
            };
            match finish(&route, "a", claimed).unwrap() {
                Finished::Deleted => drop(sent.insert(content)),
                Finished::SetAside(_) => aside += 1,
                Finished::Changed | Finished::Vanished => {}
                other => panic!("{other:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
        put_in = producer.join().unwrap();
    });
    let mut found = sent;
    for rel in files_below(&route.spool) {
        assert!(
            !is_private(rel.rsplit('/').next().unwrap()),
            "left under a private name: {rel}"
        );
        found.insert(read(route.spool.join(rel)));
    }
    assert!(
        put_in.len() > 500,
        "{} versions, {aside} set aside",
        put_in.len()
    );
    eprintln!("{} versions, {aside} set aside", put_in.len());
    let lost: Vec<_> = put_in.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}, {aside} set aside");
}

#[test]
fn a_leftover_private_name_is_put_back_or_set_aside_but_never_over_a_newer_file() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    let root = open_root(&route.spool).unwrap();
    let private = "sub/.ftpulse-0123456789abcdef.a.csv.sent";
    put(&route, private, "old");
    let back = put_back_leftover(&root, &route, private).unwrap();
    assert_eq!(back, Leftover::PutBack("sub/a.csv".into()));
    assert_eq!(read(route.spool.join("sub/a.csv")), "old");

    put(&route, private, "older");
    let aside = put_back_leftover(&root, &route, private).unwrap();
    assert_eq!(
        aside,
        Leftover::SetAside(route.dead_letter.join("sub/a.csv"))
    );
    assert_eq!(read(route.spool.join("sub/a.csv")), "old");
    assert_eq!(read(route.dead_letter.join("sub/a.csv")), "older");
}

// --- scans ---

#[derive(Default)]
struct See {
    alone: HashMap<String, String>,
    entered: Vec<String>,
}

impl Eyes for See {
    fn entering(&mut self, rel: &str) {
        self.entered.push(rel.to_owned());
    }
    fn wants(&mut self, _: &str, _: &Facts) -> bool {
        true
    }
    fn left_alone(&mut self, rel: &[u8], reason: &str) {
        self.alone
            .insert(String::from_utf8_lossy(rel).into_owned(), reason.to_owned());
    }
}

fn scan(route: &Route, places: usize) -> (Finds, See) {
    let (taking, stop) = (Taking::new(route).unwrap(), AtomicBool::new(false));
    let scan = Scan {
        taking: &taking,
        order: route.order,
        places,
        stop: &stop,
    };
    let mut see = See::default();
    let finds = scan
        .run(&open_root(&route.spool).unwrap(), "", &mut see)
        .unwrap();
    (finds, see)
}

fn names(finds: &Finds) -> Vec<&str> {
    finds.files.iter().map(|(path, _)| path.as_str()).collect()
}

#[test]
fn only_regular_files_with_plain_names_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.order = Order::Name;
    route.dead_letter = route.spool.join("dead");
    route.after = After::Archive(route.spool.join("sub/archive"));
    let taken = [
        "a",
        "-dash",
        "mit Leerzeichen",
        "sub/b",
        "sub/ü€",
        "sub/deep/c",
    ];
    let hidden = [
        ".hidden",
        "x.tmp",
        "y.part",
        ".dir/z",
        "dead/d",
        "sub/archive/e",
        "part.tmp/f",
        "sub/.g",
    ];
    taken.iter().chain(&hidden).for_each(|rel| {
        put(&route, rel, "x");
    });
    symlink("a", route.spool.join("link")).unwrap();
    symlink(dir.path(), route.spool.join("sub/linked")).unwrap();
    symlink("nowhere", route.spool.join("broken")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, route.spool.join("fifo"), 0o600.into()).unwrap();
    let _socket = UnixListener::bind(route.spool.join("socket")).unwrap();
    fs::write(route.spool.join("line\nbreak"), "x").unwrap();
    fs::write(
        route.spool.join(std::ffi::OsStr::from_bytes(b"latin\xe4")),
        "x",
    )
    .unwrap();

    let (finds, see) = scan(&route, 100);
    let mut expected = taken;
    expected.sort_unstable();
    assert_eq!(names(&finds), expected);
    assert!(finds.complete);
    let told: BTreeSet<&str> = see.alone.keys().map(String::as_str).collect();
    let alone = [
        "link",
        "sub/linked",
        "broken",
        "fifo",
        "socket",
        "line\nbreak",
        "latin\u{fffd}",
    ];
    assert_eq!(told, BTreeSet::from(alone), "{:?}", see.alone);
    assert_eq!(
        see.entered
            .iter()
            .map(String::as_str)
            .collect::<BTreeSet<_>>(),
        BTreeSet::from(["", "sub", "sub/deep"])
    );

    route.recursive = false;
    assert_eq!(
        names(&scan(&route, 100).0),
        ["-dash", "a", "mit Leerzeichen"]
    );
}

#[test]
fn patterns_look_at_the_name_or_with_a_slash_at_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.order = Order::Name;
    for rel in [
        "a.csv",
        "b.txt",
        "in/c.csv",
        "in/d.txt",
        "in/deep/e.csv",
        "out/f.csv",
    ] {
        put(&route, rel, "x");
    }
    let mut taken = |include: &[&str], exclude: &[&str]| {
        route.include = include.iter().map(ToString::to_string).collect();
        route.exclude = exclude.iter().map(ToString::to_string).collect();
        names(&scan(&route, 100).0).join(" ")
    };
    assert_eq!(
        taken(&["*.csv"], &[]),
        "a.csv in/c.csv in/deep/e.csv out/f.csv"
    );
    assert_eq!(taken(&["in/*.csv"], &[]), "in/c.csv");
    assert_eq!(taken(&["/*.csv"], &[]), "a.csv");
    assert_eq!(taken(&["in/**"], &["*.txt"]), "in/c.csv in/deep/e.csv");
    assert_eq!(taken(&["*"], &["in/**", "b.*"]), "a.csv out/f.csv");
    assert_eq!(taken(&[], &["*.{csv,dat}"]), "b.txt in/d.txt");
    assert_eq!(taken(&["*"], &["*"]), "");
}

#[test]
fn an_unreadable_folder_is_told_and_the_rest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let route = route(dir.path());
    put(&route, "open/a", "x");
    put(&route, "shut/b", "x");
    fs::set_permissions(route.spool.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    let spool = route.spool.clone();
    let (finds, see) = as_user(NOBODY, move || scan(&route, 100));
    assert_eq!(names(&finds), ["open/a"]);
    assert!(
        !finds.complete && see.alone.contains_key("shut"),
        "{:?}",
        see.alone
    );
    fs::set_permissions(spool.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_bounded_scan_keeps_the_best_and_counts_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    for n in 0..50_u64 {
        let rel = format!("{:02}", (n * 7) % 50);
        put(&route, &rel, "xx");
        age(&route.spool.join(&rel), 1_000 - n);
    }
    for (order, first) in [
        (Order::Oldest, "00"),
        (Order::Newest, "43"),
        (Order::Name, "00"),
    ] {
        route.order = order;
        let (finds, _) = scan(&route, 10);
        assert_eq!(
            (finds.files.len(), finds.rest.files, finds.rest.bytes),
            (10, 40, 80)
        );
        assert_eq!(names(&finds)[0], first, "{order:?}");
        let (all, _) = scan(&route, 100);
        assert_eq!(names(&finds), names(&all)[..10], "{order:?}");
    }
}

fn resident_pages() -> u64 {
    read("/proc/self/statm")
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_hundred_thousand_files_cost_the_memory_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    for n in 0..100_000 {
        File::create(
            route
                .spool
                .join(format!("a file with a name of a usual length {n:06}")),
        )
        .unwrap();
    }
    let before = resident_pages();
    let (finds, _) = scan(&route, 10_000);
    let grown = resident_pages().saturating_sub(before) * 4_096;
    assert_eq!((finds.files.len(), finds.rest.files), (10_000, 90_000));
    // Other tests of this process run meanwhile; all paths alone would be over 10 MiB.
    assert!(grown < 8 << 20, "grew by {grown} bytes");
}

// --- locks ---

#[test]
fn a_folder_has_one_owner_and_the_second_is_told_who() {
    let dir = tempfile::tempdir().unwrap();
    let lock = FolderLock::acquire(dir.path(), "spool folder").unwrap();
    let error = FolderLock::acquire(dir.path(), "spool folder").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(
        text.contains(dir.path().to_str().unwrap()) && text.contains("spool folder"),
        "{text}"
    );
    assert!(lock.is_current().unwrap());
    drop(lock);
    FolderLock::acquire(dir.path(), "spool folder").unwrap();
}

/// Not a test of its own: the other process of the next one.
#[test]
fn other_process_that_holds_a_folder() {
    let Ok(folder) = std::env::var("FTPULSE_TEST_HOLD") else {
        return;
    };
    let _lock = FolderLock::acquire(Path::new(&folder), "state folder").unwrap();
    println!("\nholding");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn another_process_that_owns_the_folder_is_named_and_its_end_frees_it() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "other_process_that_holds_a_folder",
            "--nocapture",
        ])
        .env("FTPULSE_TEST_HOLD", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    let error = FolderLock::acquire(dir.path(), "state folder").unwrap_err();
    let LockError::Held {
        holder: Some(holder),
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(holder.pid, child.id());
    assert!(
        holder
            .command
            .as_ref()
            .unwrap()
            .contains("other_process_that_holds"),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    FolderLock::acquire(dir.path(), "state folder").unwrap();
}

#[test]
fn a_folder_that_was_removed_and_made_again_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    fs::create_dir(&path).unwrap();
    let lock = FolderLock::acquire(&path, "spool folder").unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(lock.is_current().is_err());
    fs::create_dir(&path).unwrap();
    assert!(!lock.is_current().unwrap());
    FolderLock::acquire(&path, "spool folder").unwrap();
}

// --- settling ---

const SETTLE: Duration = Duration::from_secs(5);
const START_NS: i64 = 1_700_000_000_000_000_000;

fn at(ms: u64) -> Now {
    // The process has been up for a day, so that ages do not run into the clock's zero.
    let mono = Duration::from_millis(86_400_000 + ms);
    Now {
        mono,
        unix_ns: START_NS + ms as i64 * 1_000_000,
    }
}

fn version(size: u64, ctime_ms: i64) -> Facts {
    let ctime_ns = START_NS + ctime_ms * 1_000_000;
    Facts {
        stamp: Stamp {
            dev: 1,
            ino: 1,
            size,
            mtime_ns: ctime_ns,
        },
        ctime_ns,
    }
}

#[test]
fn a_renamed_file_is_settled_at_once_another_after_its_rest() {
    let mut settle = Settle::new(SETTLE, 10);
    assert_eq!(
        settle.observe("a", version(1, 0), Sight::MovedIn, at(0)),
        Verdict::Settled
    );
    assert_eq!(
        settle.observe("b", version(1, 0), Sight::Seen, at(0)),
        Verdict::Waits
    );
    assert_eq!(
        settle.observe("b", version(2, 3_000), Sight::Seen, at(3_000)),
        Verdict::Waits
    );
    assert_eq!(settle.next_due(), Some(at(8_000).mono));
    assert_eq!(
        settle.observe("b", version(2, 3_000), Sight::Seen, at(7_999)),
        Verdict::Waits
    );
    assert_eq!(
        settle.observe("b", version(2, 3_000), Sight::Seen, at(8_000)),
        Verdict::Settled
    );
    assert_eq!(
        settle.observe("c", version(1, -6_000), Sight::Seen, at(0)),
        Verdict::Settled
    );
    assert_eq!(
        settle.observe("d", version(1, -2_000), Sight::Seen, at(0)),
        Verdict::Waits
    );
    assert_eq!(
        settle.next_due(),
        Some(at(3_000).mono),
        "2 s of its rest were over"
    );
    assert_eq!(
        settle.observe("d", version(1, 0), Sight::MovedIn, at(1_000)),
        Verdict::Settled
    );
    assert!(settle.is_empty() && settle.next_due().is_none());
}

#[test]
fn a_time_in_the_future_delays_by_one_rest_only() {
    let mut settle = Settle::new(SETTLE, 10);
    let future = version(1, 86_400_000);
    assert_eq!(
        settle.observe("a", future, Sight::Seen, at(0)),
        Verdict::Waits
    );
    assert_eq!(
        settle.observe("a", future, Sight::Seen, at(5_000)),
        Verdict::Settled
    );
}

#[test]
fn a_file_put_back_by_us_settles_anew_although_it_was_renamed() {
    let mut settle = Settle::new(Duration::ZERO, 10);
    assert_eq!(
        settle.restart("a", version(1, 0), true, at(0)),
        Verdict::Waits
    );
    assert_eq!(
        settle.observe("a", version(1, 0), Sight::MovedIn, at(1)),
        Verdict::Waits
    );
    assert_eq!(
        settle.observe("a", version(2, 1), Sight::MovedIn, at(2)),
        Verdict::Settled
    );
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Write(usize),
    MoveIn(usize),
    Look(usize),
    Hold(usize),
    Restart(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..7_000_u64).prop_map(Step::Pass),
        (0..6_usize).prop_map(Step::Write),
        (0..6_usize).prop_map(Step::MoveIn),
        (0..6_usize).prop_map(Step::Look),
        (0..6_usize).prop_map(Step::Hold),
        (0..6_usize).prop_map(Step::Restart),
        (0..6_usize).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to six files with places for four: none is settled before its rest is
    /// over unless it was renamed in, the bound holds, whatever waits comes due, and left in
    /// peace everything is settled in the end.
    #[test]
    fn no_file_settles_early_and_none_waits_for_ever(
        steps in proptest::collection::vec(step(), 1..120),
        skew_s in prop_oneof![Just(0_i64), -100..0_i64, 0..100_000_i64],
    ) {
        let mut settle = Settle::new(SETTLE, 4);
        let mut clock = 0_u64;
        // True state of each file: size, and when it last changed.
        let mut files: Vec<Option<(u64, u64)>> = vec![None; 6];
        let facts = |(size, changed): (u64, u64)| version(size, changed as i64 + skew_s * 1_000);
        let name = |n: usize| format!("f{n}");
        for step in steps {
            match step {
                Step::Pass(ms) => clock += ms,
                Step::Write(n) => files[n] = Some((files[n].map_or(0, |f| f.0) + 1, clock)),
                Step::MoveIn(n) => {
                    files[n] = Some((files[n].map_or(0, |f| f.0) + 1, clock));
                    let seen = facts(files[n].unwrap());
                    let verdict = settle.observe(&name(n), seen, Sight::MovedIn, at(clock));
                    prop_assert_ne!(verdict, Verdict::Full);
                }
                Step::Look(n) => if let Some(file) = files[n] {
                    let verdict = settle.observe(&name(n), facts(file), Sight::Seen, at(clock));
                    // A skewed clock that lies in the past can shorten the rest, no other does.
                    if verdict == Verdict::Settled && skew_s >= 0 {
                        prop_assert!(clock - file.1 >= 5_000, "settled after {}", clock - file.1);
                    }
                },
                Step::Hold(n) => if let Some(file) = files[n] {
                    // Held is only what settled.
                    if clock - file.1 >= 5_000 {
                        settle.hold(&name(n), facts(file), at(clock));
                    }
                },
                Step::Restart(n) => if let Some(file) = files[n] {
                    settle.restart(&name(n), facts(file), n % 2 == 0, at(clock));
                },
                Step::Remove(n) => { files[n] = None; settle.forget(&name(n)); }
            }
            prop_assert!(settle.len() <= 4);
            prop_assert_eq!(settle.next_due().is_none(), settle.is_empty());
        }
        // Left in peace: following next_due alone empties it within two longest pauses.
        let end = clock + 2 * 16_000 + 10_000;
        while let Some(due) = settle.next_due() {
            clock = clock.max(due.as_millis() as u64 - 86_400_000 + 1);
            prop_assert!(clock <= end, "still waiting");
            let path = settle.first_due(at(clock).mono).unwrap();
            match files[path[1..].parse::<usize>().unwrap()] {
                Some(file) => drop(settle.observe(&path, facts(file), Sight::Seen, at(clock))),
                None => drop(settle.forget(&path)),
            }
        }
    }
}
