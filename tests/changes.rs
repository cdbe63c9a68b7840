//! A source that changes while it is sent: noticed at whatever moment, sent again as it is then
//! or dropped with a clear line; never published torn, and newer data is never deleted unsent.
//! The lab holds the upload still at a step; the change happens there, then the lab goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use ftpulse::lab::{Event, Fault, Kind, LabServer, Step, Subscriber};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, temp_dir, wait_until};

/// More than all buffers between the service and the lab hold.
const SIZE: usize = 8 << 20;
const IN_MID_FILE: Kind = Kind::StopReading { after: 64 * 1024 };
const ALL_SENT: Kind = Kind::NoReply(Step::Final);
const AT_RNTO: Kind = Kind::NoReply(Step::Rnto);

struct Held {
    root: tempfile::TempDir,
    lab: LabServer,
    events: Subscriber,
    service: Ftpulse,
    watcher: Watcher,
    old: Vec<u8>,
}

impl Held {
    /// A service whose upload of `file.bin` has come to that step and stands still.
    fn at(kind: Kind) -> Self {
        let root = temp_dir();
        let lab = LabServer::start(root.path(), Fault::new(kind).first(1).until_thaw()).unwrap();
        let mut events = lab.events();
        let watcher = Watcher::start(root.path(), is_final_name);
        let service = Settings::new()
            .quick()
            // The lab decides how long it stands still, not a timer.
            .key("timers.stall", "120s")
            .key("timers.reply", "120s")
            .key("routes.main.uploaders", "1")
            .route_to("main", &lab.url("in"), lab.password())
            .start();
        let old = content(1, SIZE);
        if kind == AT_RNTO {
            // Its bytes are on the server, whole: that it appears once is no fault.
            watcher.allow("in/file.bin", &old);
        }
        service.put("main", "file.bin", &old);
        let struck = |event: &Event| matches!(event, Event::Struck { .. });
        events
            .wait_for(struck, PATIENCE)
            .expect("the upload comes to that step");
        Self {
            root,
            lab,
            events,
            service,
            watcher,
            old,
        }
    }

    fn source(&self) -> std::path::PathBuf {
        self.service.spool("main").join("file.bin")
    }

    /// Lets the upload go on after the source has become `new`: that arrives, whole.
    fn arrives(self, new: &[u8]) {
        self.watcher.allow("in/file.bin", new);
        self.lab.thaw();
        let target = self.root.path().join("in/file.bin");
        wait_until("the new version is there", PATIENCE, || {
            fs::read(&target).is_ok_and(|bytes| bytes == new)
        });
        self.service.wait_spool_empty("main", PATIENCE);
        self.ends();
    }

    /// Lets the upload go on after the source is gone: nothing is published, nothing stops.
    fn gets_dropped(self) {
        self.lab.thaw();
        let line = self
            .service
            .wait_log("the source is not what it was", |line| {
                line["file"] == "file.bin"
            });
        assert!(line["next"].as_str().unwrap().contains("dropped"), "{line}");
        self.ends();
    }

    fn ends(mut self) {
        self.watcher.allow("in/next", &self.old);
        self.service.put("main", "next", &self.old);
        self.service.wait_delivered("next");
        let metrics = self.service.metrics();
        assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &[]), 0.0);
        // No temp name stays behind: what was sent in vain is taken away in the same session.
        let left: Vec<_> = fs::read_dir(self.root.path().join("in"))
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| !is_final_name(name))
            .collect();
        let events = self.events.drain();
        assert!(left.is_empty(), "{left:?}\n{events:?}");
        self.watcher.assert_clean();
    }
}

fn append(path: &Path, bytes: &[u8]) {
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

fn write_over(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn appended(kind: Kind) {
    let held = Held::at(kind);
    append(&held.source(), b"and more");
    let new = [held.old.as_slice(), b"and more"].concat();
    held.arrives(&new);
}

fn written_over(kind: Kind) {
    let held = Held::at(kind);
    // The same length, at the end: the bytes that were not read yet.
    write_over(&held.source(), SIZE as u64 - 4, b"new!");
    let new = [&held.old[..SIZE - 4], b"new!"].concat();
    held.arrives(&new);
}

fn replaced(kind: Kind) {
    let held = Held::at(kind);
    let new = content(2, SIZE);
    held.service.put("main", "file.bin", &new);
    held.arrives(&new);
}

fn truncated(kind: Kind) {
    let held = Held::at(kind);
    File::options()
        .write(true)
        .open(held.source())
        .unwrap()
        .set_len(1000)
        .unwrap();
    let new = held.old[..1000].to_vec();
    held.arrives(&new);
}

#[test]
fn a_source_that_is_appended_to_while_it_is_sent_arrives_whole() {
    [IN_MID_FILE, ALL_SENT, AT_RNTO]
        .into_iter()
        .for_each(appended);
}

#[test]
fn a_source_that_is_written_over_while_it_is_sent_arrives_whole() {
    [IN_MID_FILE, ALL_SENT, AT_RNTO]
        .into_iter()
        .for_each(written_over);
}

#[test]
fn a_source_that_is_replaced_while_it_is_sent_arrives_in_its_new_version() {
    [IN_MID_FILE, ALL_SENT, AT_RNTO]
        .into_iter()
        .for_each(replaced);
}

#[test]
fn a_source_that_is_truncated_while_it_is_sent_arrives_as_it_is_then() {
    [IN_MID_FILE, ALL_SENT, AT_RNTO]
        .into_iter()
        .for_each(truncated);
}

#[test]
fn a_source_that_vanishes_while_it_is_sent_gets_dropped_with_a_clear_line() {
    for kind in [IN_MID_FILE, ALL_SENT] {
        let held = Held::at(kind);
        fs::remove_file(held.source()).unwrap();
        held.gets_dropped();
    }
}

#[test]
fn a_source_that_vanishes_while_it_is_published_was_delivered() {
    let held = Held::at(AT_RNTO);
    fs::remove_file(held.source()).unwrap();
    held.lab.thaw();
    held.service.wait_delivered("file.bin");
    assert_eq!(
        fs::read(held.root.path().join("in/file.bin")).unwrap(),
        held.old
    );
    held.ends();
}

#[test]
fn a_source_that_becomes_a_symlink_while_it_is_sent_gives_nothing_away() {
    for kind in [IN_MID_FILE, ALL_SENT] {
        let held = Held::at(kind);
        let secret = held.root.path().join("secret.tmp");
        fs::write(&secret, "the secret").unwrap();
        let link = held.service.spool("main").join("link.tmp");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        fs::rename(&link, held.source()).unwrap();
        held.lab.thaw();
        held.service
            .wait_log("the source is not what it was", |line| {
                line["file"] == "file.bin"
            });
        held.service
            .wait_log("left alone in the spool", |line| line["file"] == "file.bin");
        held.ends();
    }
}

#[test]
fn a_file_that_is_still_written_waits_until_it_is_whole() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), ftpulse::lab::Script::healthy()).unwrap();
    let watcher = Watcher::start(root.path(), is_final_name);
    let service = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .start();
    let whole = content(1, 300_000);
    watcher.allow("in/slow", &whole);
    let mut slow = File::create(service.spool("main").join("slow")).unwrap();
    for (i, part) in whole.chunks(100_000).enumerate() {
        slow.write_all(part).unwrap();
        // Each of these takes longer to settle than the slow one rests between two writes.
        let name = format!("clock {i}");
        watcher.allow(&format!("in/{name}"), b"tick");
        fs::write(service.spool("main").join(&name), "tick").unwrap();
        service.wait_delivered(&name);
        assert!(
            service
                .logged("file delivered")
                .iter()
                .all(|line| line["file"] != "slow")
        );
    }
    drop(slow);
    service.wait_delivered("slow");
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(fs::read(root.path().join("in/slow")).unwrap(), whole);
    // The watcher sees by its own clock.
    wait_until("the watcher saw it", PATIENCE, || {
        watcher.deliveries("in/slow") == 1
    });
    watcher.assert_clean();
}
