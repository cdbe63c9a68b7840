//! `ftpulse demo` as a stranger runs it: the story it tells for several faults, its end by itself
//! and by Ctrl-C, what it refuses, and that it leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use ftpulse::clock;
use ftpulse::lab::{Fault, Needs};
use rustix::process::Signal;
use support::process::{Running, spawn, tied};
use support::{PATIENCE, http, temp_dir};

/// A running demo whose temporary folder would be in a folder of the test's own.
struct Demo {
    process: Running,
    lines: Receiver<String>,
    told: Vec<String>,
    tmp: tempfile::TempDir,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        Self::start_by(tied(env!("CARGO_BIN_EXE_ftpulse")), args, &[])
    }

    fn start_by(mut command: std::process::Command, args: &[&str], env: &[(&str, &str)]) -> Self {
        let tmp = temp_dir();
        if command.get_args().all(|arg| arg != "-qec") {
            command.arg("demo").args(args);
        }
        command
            .env_clear()
            .env("TMPDIR", tmp.path())
            .envs(env.iter().copied());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = spawn(command).unwrap();
        let out = BufReader::new(process.child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self {
            process,
            lines,
            told: Vec::new(),
            tmp,
        }
    }

    /// Waits for a line with all these parts; earlier lines do not count.
    fn wait(&mut self, parts: &[&str]) -> String {
        let end = clock::mono() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_sub(clock::mono())) {
                Ok(line) => {
                    self.told.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(why) => panic!(
                    "no line with {parts:?} ({why}) after\n{}",
                    self.told.join("\n")
                ),
            }
        }
    }

    /// Waits for its end: exit code, all of its standard output, its standard error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let end = clock::mono() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_sub(clock::mono())) {
                Ok(line) => self.told.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end of\n{}", self.told.join("\n")),
            }
        }
        let code = self.process.wait(PATIENCE).code();
        let mut complaints = String::new();
        self.process
            .child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut complaints)
            .unwrap();
        assert_eq!(entries(self.tmp.path()), 0, "it left something behind");
        (code, self.told.join("\n"), complaints)
    }
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Whether the story has lines with these labels and texts, in this order.
fn tells(story: &str, steps: &[(&str, &str)]) {
    let mut lines = story.lines();
    for (label, text) in steps {
        let found = lines.any(|line| {
            let rest = line.split_once("s ").map_or("", |(_, rest)| rest);
            rest.starts_with(label) && rest.contains(text)
        });
        assert!(found, "no {label:?} with {text:?} in its place in\n{story}");
    }
}

fn one_round(fault: &str) -> String {
    let (code, story, complaints) = Demo::start(&["--fault", fault, "--rounds", "1"]).end();
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{story}");
    assert!(story.contains("5 dropped, 5 delivered whole"), "{story}");
    assert!(story.contains("Goodbye"), "{story}");
    tells(
        &story,
        &[
            ("FAULT", "big-1.bin"),
            ("delivered", "big-1.bin"),
            ("verified", "big-1.bin"),
        ],
    );
    story
}

#[test]
fn a_peer_that_stops_reading_is_told_from_fault_to_delivery_until_the_quarantine_is_full() {
    let mut demo = Demo::start(&[]);
    let line = demo.wait(&["metrics", "http://127.0.0.1:"]);
    let url = line.split("http://").nth(1).unwrap();
    let address: SocketAddr = url.strip_suffix("/metrics").unwrap().parse().unwrap();
    demo.wait(&["DEADLOCK", "zero_window"]);
    let incidents = http::get(address, "/api/incidents").unwrap().body;
    let incidents: serde_json::Value = serde_json::from_str(&incidents).unwrap();
    assert_eq!(incidents[0]["cause"], "zero_window");
    assert!(
        http::get(address, "/metrics")
            .unwrap()
            .body
            .contains("ftpulse_uploader_resets_total")
    );
    let (code, story, complaints) = demo.end();
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{story}");
    for round in 1..=3 {
        let (file, small) = (format!("big-{round}.bin"), format!("small-{round}.txt"));
        tells(
            &story,
            &[
                ("dropped", &file),
                ("FAULT", &file),
                ("delivered", &small),
                ("missed beat", "of 3 tolerated"),
                ("DEADLOCK", "cause zero_window"),
                // Of whichever slot had a session.
                ("fresh", "the old upload thread is ended, epoch "),
                ("delivered", &file),
                ("verified", &file),
            ],
        );
    }
    tells(
        &story,
        &[
            ("quarantined", "1 of 2 places"),
            ("quarantined", "2 of 2 places"),
            ("released", "incident 1, reason full"),
            ("quarantined", "2 of 2 places"),
            ("released", "reason shutdown"),
        ],
    );
    // The server sees it in its own time, before or after the new pair has its place.
    tells(
        &story,
        &[
            ("released", "incident 1, reason full"),
            ("reset seen", "publishes nothing"),
        ],
    );
    assert!(
        story.contains("heartbeat.interval 500ms, heartbeat.misses 3"),
        "{story}"
    );
    assert!(story.contains("9 dropped, 9 delivered whole"), "{story}");
    assert!(!story.contains('\x1b'), "colour without a terminal");
}

#[test]
fn a_missing_final_reply_is_told_as_a_timeout() {
    let story = one_round("silent-226");
    tells(
        &story,
        &[
            ("vouched for", "timers.reply (3s)"),
            ("failed", "final_reply"),
            ("delivered", "big-1"),
        ],
    );
    assert!(!story.contains("DEADLOCK"), "{story}");
}

#[test]
fn a_missing_reply_to_rnto_is_made_good_without_sending_twice() {
    let story = one_round("no-reply-rnto");
    tells(
        &story,
        &[
            ("failed", "reply"),
            ("fenced", "nothing is sent twice"),
            ("delivered", "big-1"),
        ],
    );
}

#[test]
fn a_reset_in_mid_file_is_told_as_a_failure_and_tried_again() {
    let story = one_round("reset-mid-file");
    tells(
        &story,
        &[("failed", "big-1.bin"), ("delivered", "big-1.bin")],
    );
    assert!(story.contains("1 failed attempt"), "{story}");
}

#[test]
fn a_late_final_reply_resets_nothing() {
    let story = one_round("late-226");
    assert!(!story.contains("DEADLOCK"), "{story}");
    assert!(
        story
            .lines()
            .any(|l| l.contains("failures") && l.ends_with("none")),
        "{story}"
    );
}

#[test]
fn a_fault_of_the_greeting_strikes_although_sessions_are_kept() {
    let story = one_round("no-greeting");
    tells(
        &story,
        &[
            ("waiting", "idle sessions"),
            ("FAULT", "big-1.bin"),
            ("no session", ""),
        ],
    );
}

#[test]
fn ctrl_c_in_the_middle_of_a_wedge_ends_it_clean() {
    let mut demo = Demo::start(&[]);
    demo.wait(&["FAULT"]);
    demo.process.signal(Signal::INT);
    let (code, story, complaints) = demo.end();
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{story}");
    tells(&story, &[("stopping", "is finished")]);
    assert!(
        story.contains("still waiting in the spool, whole") && story.contains("Goodbye"),
        "{story}"
    );
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_leaves_no_folder() {
    let mut demo = Demo::start(&[]);
    demo.wait(&["FAULT"]);
    demo.process.signal(Signal::INT);
    demo.wait(&["stopping"]);
    demo.process.signal(Signal::INT);
    let (code, story, _) = demo.end();
    assert_eq!(code, Some(130), "{story}");
}

#[test]
fn an_unknown_fault_is_refused_with_a_proposal_and_the_list() {
    let (code, story, complaints) = Demo::start(&["--fault", "stop-readin"]).end();
    assert_eq!((code, story.as_str()), (Some(2), ""));
    assert!(
        complaints.contains("did you mean \"stop-reading\"?"),
        "{complaints}"
    );
    let (code, list, complaints_of_help) = Demo::start(&["--fault", "help"]).end();
    assert_eq!((code, complaints_of_help.as_str()), (Some(0), ""));
    for named in Fault::names().iter().chain(Fault::others()) {
        if named.needs == Needs::Download {
            assert!(!list.contains(named.name), "{list}");
            continue;
        }
        for text in [&list, &complaints] {
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(named.name));
            assert!(line.unwrap().contains(named.about), "{text}");
        }
    }
}

#[test]
fn faults_of_tls_and_of_active_mode_bring_their_own_server() {
    for (fault, told) in [
        ("no-data-handshake", "bound of the phase tls"),
        ("no-handshake", "bound of the phase tls"),
        ("no-connect", "bound of the phase listen"),
    ] {
        let (code, story, complaints) = Demo::start(&["--fault", fault, "--rounds", "1"]).end();
        assert_eq!((code, complaints.as_str()), (Some(0), ""), "{story}");
        assert!(story.contains(told), "{story}");
    }
}

#[test]
fn a_foreign_folder_is_refused_and_an_own_one_is_kept_and_taken_again() {
    let dir = temp_dir();
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("precious"), "mine").unwrap();
    let (code, story, complaints) = Demo::start(&["--dir", foreign.to_str().unwrap()]).end();
    assert_eq!((code, story.as_str()), (Some(2), ""));
    assert!(complaints.contains("nothing was touched"), "{complaints}");
    assert_eq!(entries(&foreign), 1);

    let own = dir.path().join("new/demo");
    let there = ["--dir", own.to_str().unwrap()];
    let slow = [&["--fault", "trickle", "--rounds", "1"], &there[..]].concat();
    let (code, story, complaints) = Demo::start(&slow).end();
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{story}");
    let sent = own.join("server/incoming/big-1.bin");
    let size = sent.metadata().unwrap().len();
    let log = fs::read_to_string(own.join("service.log")).unwrap();
    assert!(log.contains("file delivered"), "{log}");

    // Another size of the same name, which an interrupted demo does not deliver.
    let mut demo = Demo::start(&there);
    demo.wait(&["FAULT"]);
    demo.process.signal(Signal::TERM);
    let (code, story, complaints) = demo.end();
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{story}");
    assert_eq!(sent.metadata().unwrap().len(), size);
}

#[test]
fn a_file_that_is_not_whole_on_the_server_fails_the_demo() {
    let dir = temp_dir();
    let own = dir.path().join("demo");
    let mut demo = Demo::start(&["--rounds", "1", "--dir", own.to_str().unwrap()]);
    demo.wait(&["FAULT"]);
    fs::write(own.join("server/incoming/hello.txt"), "torn").unwrap();
    let (code, story, complaints) = demo.end();
    assert_eq!(code, Some(1), "{story}");
    assert!(complaints.contains("not whole: hello.txt"), "{complaints}");
    assert!(story.contains("1 NOT WHOLE"), "{story}");
}

#[test]
fn a_quiet_demo_says_nothing() {
    let (code, story, complaints) =
        Demo::start(&["-q", "--fault", "epsv-refused", "--rounds", "1"]).end();
    assert_eq!(
        (code, story.as_str(), complaints.as_str()),
        (Some(0), "", "")
    );
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let on_a_terminal = |env: &[(&str, &str)]| {
        let mut command = tied("script");
        let demo = concat!(
            env!("CARGO_BIN_EXE_ftpulse"),
            " demo --fault epsv-refused --rounds 1"
        );
        command.args(["-qec", demo, "/dev/null"]);
        let (code, story, _) = Demo::start_by(command, &[], env).end();
        assert_eq!(code, Some(0), "{story}");
        story
    };
    assert!(on_a_terminal(&[("TERM", "xterm")]).contains("\x1b[32m"));
    let plain = on_a_terminal(&[("TERM", "xterm"), ("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b'), "{plain}");
    assert!(
        plain
            .lines()
            .all(|line| line.trim_end().chars().count() <= 100),
        "{plain}"
    );
}
