//! The collector as the daemon meets it: real folders, real inotify, real threads; the daemon's
//! side is an actor that writes down what it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod collector_common;
mod spool_common;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use collector_common::*;
use ftpulse::actors::collector::{Finish, Shutdown, Want};
use ftpulse::config::After;
use ftpulse::spool::Candidate;
use ftpulse::spool::finish::Finished;
use ftpulse::spool::lock::FolderLock;
use spool_common::{NOBODY, age, as_user, in_own_process, number_from, rename_in, route};

#[test]
fn a_file_renamed_in_is_found_at_once_and_another_waits_to_settle() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(slow(route(dir.path())));
    let spool = rig.route.spool.clone();
    rig.want(10);
    rig.state("the first scan", |state| state.files == 0);
    fs::write(spool.join("written"), "x").unwrap();
    rename_in(&spool, "renamed", "x");
    assert_eq!(rig.paths(1), ["renamed"]);
    let state = rig.state("both files", |state| state.files == 2);
    assert_eq!((state.bytes, state.problem), (2, None));
    rig.nothing_found();
}

#[test]
fn a_written_file_is_found_once_when_it_has_settled() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(route(dir.path()));
    let spool = rig.route.spool.clone();
    rig.want(10);
    rig.state("the first scan", |state| state.files == 0);
    fs::write(spool.join("a"), "x").unwrap();
    fs::create_dir_all(spool.join("new/deep")).unwrap();
    fs::write(spool.join("new/deep/b"), "x").unwrap();
    let found: BTreeSet<String> = rig.paths(2).into_iter().collect();
    assert_eq!(found, BTreeSet::from(["a".into(), "new/deep/b".into()]));
    rig.nothing_found();
}

#[test]
fn files_that_were_there_before_are_found_in_order_and_only_as_many_as_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.settle = Duration::ZERO;
    for n in 0..600_u64 {
        let path = route.spool.join(format!("{n:03}"));
        fs::write(&path, "x").unwrap();
        age(&path, 10_000 - n);
    }
    let mut rig = Rig::new(route);
    rig.want(300);
    let expected: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
    assert_eq!(rig.paths(300), expected);
    rig.nothing_found();
    rig.want(1_000);
    assert_eq!(rig.paths(300)[299], "599");
    rig.nothing_found();
}

#[test]
fn a_file_open_for_writing_waits_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.settle = Duration::from_millis(50);
    let mut writer = OpenOptions::new()
        .create(true)
        .append(true)
        .open(route.spool.join("a"))
        .unwrap();
    let mut rig = Rig::new(route);
    rig.want(10);
    writer.write_all(b"one ").unwrap();
    rig.nothing_found();
    writer.write_all(b"two").unwrap();
    drop(writer);
    let found = rig.found(1);
    assert_eq!((found[0].path.as_str(), found[0].stamp.size), ("a", 7));
}

#[test]
fn strange_things_are_left_alone_said_once_and_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.settle = Duration::ZERO;
    let spool = route.spool.clone();
    open_to_all(dir.path(), &spool);
    symlink("/etc/passwd", spool.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, spool.join("fifo"), 0o600.into()).unwrap();
    fs::write(spool.join("shut"), "x").unwrap();
    fs::set_permissions(spool.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(spool.join("dir")).unwrap();
    fs::set_permissions(spool.join("dir"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::write(spool.join("line\nbreak"), "x").unwrap();
    fs::write(spool.join("good"), "x").unwrap();

    let opened = spool.join("shut");
    let mut rig = as_user(NOBODY, move || Rig::new(route));
    rig.want(10);
    assert_eq!(rig.paths(1), ["good"]);
    for strange in [
        "file=link",
        "file=fifo",
        "file=shut",
        "file=dir",
        "file=line\\nbreak",
    ] {
        assert_eq!(rig.said_of(strange), 1, "{strange}: {:#?}", rig.said());
    }
    // A second look, caused by each name's change, says nothing new.
    fs::remove_file(spool.join("link")).unwrap();
    symlink("/etc/shadow", spool.join("link")).unwrap();
    rename_in(&spool, "good too", "x");
    assert_eq!(rig.paths(1), ["good too"]);
    assert_eq!(rig.said_of("file=link"), 1);
    // What becomes readable is found.
    fs::set_permissions(&opened, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(rig.paths(1), ["shut"]);
    fs::set_permissions(spool.join("dir"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Lets every user work in the test's folders.
fn open_to_all(dir: &Path, spool: &Path) {
    for folder in [dir, spool] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
}

#[test]
fn a_spool_that_becomes_unreadable_is_told_and_used_again_when_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    let spool = route.spool.clone();
    open_to_all(dir.path(), &spool);
    let mut rig = as_user(NOBODY, move || Rig::new(route));
    rig.want(10);
    rig.state("the first scan", |state| state.problem.is_none());
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o000)).unwrap();
    let state = rig.state("a problem", |state| state.problem.is_some());
    assert!(state.problem.unwrap().contains("Permission denied"));
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o777)).unwrap();
    rig.state("no problem", |state| state.problem.is_none());
    old(&spool.join("a"), "x");
    assert_eq!(rig.paths(1), ["a"]);
}

#[test]
fn a_machine_without_watches_left_is_told_once_and_scanned_instead() {
    if !rustix::process::getuid().is_root() {
        eprintln!(
            "using up the limit would starve the tests beside this one: needs a user of its own"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    let spool = route.spool.clone();
    open_to_all(dir.path(), &spool);
    let (mut rig, hogs) = as_user(NOBODY - 1, move || {
        let flags = rustix::fs::inotify::CreateFlags::CLOEXEC;
        let init = || rustix::fs::inotify::init(flags).ok();
        let hogs: Vec<_> = std::iter::from_fn(init).take(900).collect();
        (Rig::new(route), hogs)
    });
    rig.want(10);
    rig.state("the first scan", |state| state.problem.is_none());
    if hogs.len() == 900 {
        eprintln!("this machine's limit is too high to be used up");
        return;
    }
    for name in ["a", "b"] {
        rename_in(&spool, name, "x");
        assert_eq!(rig.paths(1), [name]);
    }
    assert_eq!(
        rig.said_of("lets no more folders be watched"),
        1,
        "{:#?}",
        rig.said()
    );
}

#[test]
fn a_delivered_file_is_removed_and_its_successor_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(route(dir.path()));
    let spool = rig.route.spool.clone();
    rig.want(10);
    rig.state("the first scan", |state| state.files == 0);
    rename_in(&spool, "a", "one");
    let found = rig.found(1);
    rig.finish(&found[0], 7);
    let done = rig.finished();
    assert_eq!(
        (done.path.as_str(), done.token, done.outcome),
        ("a", 7, Ok(Finished::Deleted))
    );
    assert!(!spool.join("a").exists());
    rename_in(&spool, "a", "two!");
    assert_eq!(rig.found(1)[0].stamp.size, 4);
    rig.state("one file", |state| state.files == 1 && state.bytes == 4);
}

#[test]
fn a_file_replaced_while_it_was_sent_is_offered_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(route(dir.path()));
    let spool = rig.route.spool.clone();
    rig.want(10);
    rig.state("the first scan", |state| state.files == 0);
    rename_in(&spool, "a", "one");
    let found = rig.found(1);
    rename_in(&spool, "a", "newer");
    rig.nothing_found();
    rig.finish(&found[0], 1);
    assert_eq!(rig.finished().outcome, Ok(Finished::Changed));
    let again = rig.found(1);
    assert_eq!((again[0].path.as_str(), again[0].stamp.size), ("a", 5));
    rig.finish(&again[0], 2);
    assert_eq!(rig.finished().outcome, Ok(Finished::Deleted));
    rig.state("an empty spool", |state| state.files == 0);
    rig.nothing_found();
}

#[test]
fn a_file_the_daemon_forgets_is_offered_again_after_a_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.settle = Duration::ZERO;
    old(&route.spool.join("a"), "x");
    let mut rig = Rig::new(route);
    rig.want(1_000_000);
    let mut begun = now();
    for _ in 0..3 {
        assert_eq!(rig.paths(1), ["a"]);
        // Before it is forgotten: the rest is at least as long, however late this thread goes on.
        begun = now();
        rig.forget("a");
    }
    assert_eq!(rig.paths(1), ["a"]);
    assert!((now() - begun) > Duration::from_millis(500), "no hot loop");
    fs::remove_file(rig.route.spool.join("a")).unwrap();
    rig.forget("a");
    rig.state("an empty spool", |state| state.files == 0);
}

#[test]
fn a_kept_file_is_offered_again_only_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.after = After::Keep;
    old(&route.spool.join("a"), "x");
    let mut rig = Rig::new(route);
    let spool = rig.route.spool.clone();
    rig.want(10);
    let found = rig.found(1);
    rig.finish(&found[0], 1);
    assert_eq!(rig.finished().outcome, Ok(Finished::Kept));
    rig.state("nothing to send", |state| state.files == 0);
    // Read, and its rights changed: the same version still.
    fs::read(spool.join("a")).unwrap();
    fs::set_permissions(spool.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
    rig.nothing_found();
    fs::write(spool.join("a"), "changed").unwrap();
    assert_eq!(rig.found(1)[0].stamp.size, 7);
}

#[test]
fn an_archive_that_fails_is_told_and_can_be_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    let blocker = dir.path().join("blocker");
    fs::write(&blocker, "").unwrap();
    route.after = After::Archive(blocker.join("archive"));
    old(&route.spool.join("a"), "x");
    let mut rig = Rig::new(route);
    rig.want(10);
    let found = rig.found(1);
    rig.finish(&found[0], 1);
    assert!(
        rig.finished()
            .outcome
            .unwrap_err()
            .contains("cannot archive")
    );
    rig.nothing_found();
    fs::remove_file(&blocker).unwrap();
    rig.finish(&found[0], 2);
    let at = blocker.join("archive/a");
    assert_eq!(rig.finished().outcome, Ok(Finished::Archived(at.clone())));
    assert!(at.exists());
}

#[test]
fn a_missing_spool_is_told_once_and_used_when_it_appears() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    fs::remove_dir(&route.spool).unwrap();
    route.spool = dir.path().join("mount/spool");
    route.dead_letter = route.spool.join(".dead-letter");
    let mut rig = Rig::new(route);
    rig.want(10);
    let state = rig.state("a problem", |state| state.problem.is_some());
    let problem = state.problem.unwrap();
    assert!(
        problem.contains("mount/spool") && problem.contains("No such file"),
        "{problem}"
    );
    fs::create_dir_all(&rig.route.spool).unwrap();
    rig.state("no problem", |state| state.problem.is_none());
    rename_in(&rig.route.spool, "a", "x");
    assert_eq!(rig.paths(1), ["a"]);
    assert_eq!(rig.said_of("cannot be used"), 1, "{:#?}", rig.said());
}

#[test]
fn a_spool_removed_and_made_again_is_taken_hold_of_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(slow(route(dir.path())));
    let spool = rig.route.spool.clone();
    rig.want(100);
    rig.state("the first scan", |state| state.problem.is_none());
    for round in 0..3 {
        fs::remove_dir_all(&spool).unwrap();
        rig.state("a problem", |state| state.problem.is_some());
        fs::create_dir(&spool).unwrap();
        rig.state("no problem", |state| state.problem.is_none());
        rename_in(&spool, &format!("a{round}"), "x");
        assert_eq!(rig.paths(1), [format!("a{round}")]);
        let held = FolderLock::acquire(&spool, "spool folder");
        assert!(held.is_err(), "the new folder is owned too");
    }
    // Replaced in one go, without a time in which it is missing.
    let next = dir.path().join("next");
    fs::create_dir(&next).unwrap();
    old(&next.join("b"), "x");
    fs::rename(&spool, dir.path().join("old")).unwrap();
    fs::rename(&next, &spool).unwrap();
    rename_in(&spool, "c", "x");
    // The new folder was scanned or its watch told: c is found either way (b rests).
    let end = now() + LONG;
    let mut names = BTreeSet::new();
    while !names.contains("c") && now() < end {
        names.extend(
            rig.found_within(Duration::from_millis(500))
                .into_iter()
                .map(|f| f.path),
        );
        if !names.contains("c") {
            rename_in(&spool, "c", "x");
        }
    }
    assert!(names.contains("c"), "{:#?}", rig.said());
}

#[test]
fn a_spool_that_is_a_symlink_is_followed_to_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let route = slow(route(dir.path()));
    fs::rename(&route.spool, dir.path().join("real")).unwrap();
    symlink("real", &route.spool).unwrap();
    let mut rig = Rig::new(route);
    rig.want(10);
    rig.state("the first scan", |state| state.problem.is_none());
    rename_in(&rig.route.spool, "a", "x");
    assert_eq!(rig.paths(1), ["a"]);
    // Led elsewhere, it is that folder.
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::remove_file(&rig.route.spool).unwrap();
    rig.state("a problem", |state| state.problem.is_some());
    symlink("other", &rig.route.spool).unwrap();
    rig.state("no problem", |state| state.problem.is_none());
    rename_in(&rig.route.spool, "b", "x");
    assert_eq!(rig.paths(1), ["b"]);
}

#[test]
fn a_spool_owned_by_another_is_told_with_its_holder_and_taken_when_free() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    old(&route.spool.join("a"), "x");
    let held = FolderLock::acquire(&route.spool, "spool folder").unwrap();
    let mut rig = Rig::new(route);
    rig.want(10);
    let state = rig.state("a problem", |state| state.problem.is_some());
    let pid = format!("process {}", std::process::id());
    assert!(state.problem.as_ref().unwrap().contains(&pid), "{state:?}");
    drop(held);
    assert_eq!(rig.paths(1), ["a"]);
}

#[test]
fn a_lock_taken_before_is_used_and_shutdown_gives_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    let spool = route.spool.clone();
    old(&spool.join("a"), "x");
    let lock = FolderLock::acquire(&spool, "spool folder").unwrap();
    let mut rig = Rig::with_lock(route, Some(lock));
    rig.want(10);
    let found = rig.found(1);
    assert!(FolderLock::acquire(&spool, "spool folder").is_err());
    // What was asked for before the end is still done.
    rig.finish(&found[0], 1);
    let (ended, end) = channel();
    let collector = rig.collector.clone();
    rig.system.arbiter().spawn(async move {
        let _ = ended.send(collector.send(Shutdown).await);
    });
    assert!(
        end.recv_timeout(LONG).unwrap().unwrap(),
        "all threads ended"
    );
    assert_eq!(rig.finished().outcome, Ok(Finished::Deleted));
    FolderLock::acquire(&spool, "spool folder").unwrap();
}

#[test]
fn folders_moved_about_stay_watched() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(slow(route(dir.path())));
    let spool = rig.route.spool.clone();
    fs::create_dir_all(spool.join("one/in")).unwrap();
    rig.want(100);
    rig.state("the first scan", |state| state.problem.is_none());
    let mut expect = |rel: &str| {
        // The new watch may stand a moment later than the folder: what falls before is scanned,
        // and rests; so the file is renamed in until its rename is seen.
        let end = now() + LONG;
        loop {
            rename_in(&spool, rel, "x");
            let found = rig.found_within(Duration::from_millis(300));
            if found.iter().any(|file| file.path == rel) {
                return;
            }
            assert!(now() < end, "{rel} not found; {:#?}", rig.said());
        }
    };
    expect("one/in/a");
    fs::rename(spool.join("one"), spool.join("two")).unwrap();
    expect("two/in/b");
    fs::create_dir_all(spool.join("one/in")).unwrap();
    expect("one/in/c");
    fs::remove_dir_all(spool.join("one")).unwrap();
    fs::create_dir_all(spool.join("one/in")).unwrap();
    expect("one/in/d");
    fs::create_dir(spool.join("empty")).unwrap();
    fs::rename(spool.join("two"), spool.join("empty")).unwrap();
    expect("empty/in/e");
}

#[test]
fn a_source_hidden_by_a_killed_service_is_put_back_and_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let route = route(dir.path());
    old(
        &route.spool.join(".ftpulse-0123456789abcdef.a.csv.sent"),
        "x",
    );
    let mut rig = Rig::new(route);
    rig.want(10);
    assert_eq!(rig.paths(1), ["a.csv"]);
    assert_eq!(rig.said_of("source put back"), 1);
}

#[test]
fn a_burst_that_overruns_the_watch_is_found_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(route(dir.path()));
    let spool = rig.route.spool.clone();
    rig.want(20_000);
    rig.state("the first scan", |state| state.files == 0);
    // Every file costs the kernel's queue of 16,384 four events.
    let total = 9_000;
    for n in 0..total {
        fs::write(spool.join(format!("{n}")), "x").unwrap();
    }
    let found: BTreeSet<String> = rig.paths(total).into_iter().collect();
    assert_eq!(found.len(), total, "each once");
    let state = rig.state("all files", |state| state.files == total as u64);
    assert_eq!(state.bytes, total as u64);
}

#[test]
fn a_spool_larger_than_a_batch_is_worked_off_to_the_last_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.settle = Duration::ZERO;
    let total = 25_000;
    for n in 0..total {
        fs::File::create(route.spool.join(format!("{n:05}"))).unwrap();
    }
    let mut rig = Rig::new(route);
    let first = rig.state("all files", |state| state.files == total);
    assert_eq!(first.problem, None);
    rig.want(500);
    let mut seen = BTreeSet::new();
    let mut token = 0;
    while seen.len() < total as usize {
        for file in rig.found(1) {
            // A full mailbox is the daemon's to wait for.
            let Candidate { path, stamp: sent } = file.clone();
            let finish = Finish {
                route: "main".into(),
                path,
                sent,
                story: None,
                token,
            };
            while rig.collector.try_send(finish.clone()).is_err() {
                std::thread::yield_now();
            }
            while rig
                .collector
                .try_send(Want {
                    route: "main".into(),
                    n: 1,
                })
                .is_err()
            {
                std::thread::yield_now();
            }
            token += 1;
            assert!(seen.insert(file.path), "offered twice");
        }
    }
    rig.state("an empty spool", |state| state.files == 0);
    assert_eq!(fs::read_dir(&rig.route.spool).unwrap().count(), 0);
}

/// `FTPULSE_SOAK_SECONDS=60` measures for a minute.
#[test]
fn idle_with_10_000_kept_files_costs_next_to_nothing() {
    if !in_own_process("idle_with_10_000_kept_files_costs_next_to_nothing") {
        return;
    }
    let seconds = number_from("FTPULSE_SOAK_SECONDS", 3);
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.after = After::Keep;
    for n in 0..10_000 {
        old(&route.spool.join(format!("{n:05}")), "x");
    }
    // A folder that changed a moment ago is scanned once more, to be sure; not this one.
    std::thread::park_timeout(Duration::from_secs(5));
    let mut rig = Rig::new(route);
    rig.want(20_000);
    for (token, file) in rig.found(10_000).iter().enumerate() {
        let Candidate { path, stamp: sent } = file.clone();
        let finish = Finish {
            route: "main".into(),
            path,
            sent,
            story: None,
            token: token as u64,
        };
        while rig.collector.try_send(finish.clone()).is_err() {
            std::thread::yield_now();
        }
    }
    rig.state("nothing to send", |state| state.files == 0);
    let before = cpu_nanoseconds();
    assert!(rig.found_within(Duration::from_secs(seconds)).is_empty());
    let used = cpu_nanoseconds() - before;
    println!("idle: {:.4} s of CPU in {seconds} s", used as f64 / 1e9);
    assert!(used < 100_000_000, "{used} ns");
}

/// CPU time of all threads of this process.
fn cpu_nanoseconds() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let spent = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    spent
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// `FTPULSE_SOAK=1000000` makes it a million, best with `--release`.
#[test]
fn any_number_of_files_costs_bounded_memory() {
    if !in_own_process("any_number_of_files_costs_bounded_memory") {
        return;
    }
    let count = number_from("FTPULSE_SOAK", 30_000);
    let dir = tempfile::tempdir().unwrap();
    let mut route = route(dir.path());
    route.settle = Duration::ZERO;
    for n in 0..count {
        let folder = route.spool.join(format!("{:03}", n / 1_000));
        if n % 1_000 == 0 {
            fs::create_dir(&folder).unwrap();
        }
        fs::File::create(folder.join(format!("a file of a usual name {n:07}"))).unwrap();
    }
    let before = resident_bytes();
    let begun = now();
    let mut rig = Rig::new(route);
    rig.state("all files", |state| state.files == count);
    println!("first scan: {:?}", (now() - begun));
    rig.want(20_000);
    rig.found(20_000);
    let grown = resident_bytes().saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < 20 << 20, "{grown}");
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}
