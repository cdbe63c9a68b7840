//! `ftpulse check --connect [--canary]`: it tells of real servers what they can, of failing ones
//! what is wrong and what to do, ends whatever a server does, and leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use ftpulse::clock;
use support::process::tied;
use support::servers::{Opts, Server};
use support::service::variable;
use support::{temp_dir, wait_until};

/// One run of `ftpulse check`.
struct Check {
    vars: BTreeMap<String, String>,
    _dir: tempfile::TempDir,
}

/// What it said.
struct Said {
    code: Option<i32>,
    out: String,
}

impl Check {
    /// With timers that suit a test.
    fn new() -> Self {
        let dir = temp_dir();
        let check = Self {
            vars: BTreeMap::new(),
            _dir: dir,
        };
        check
            .key("heartbeat.interval", "100ms")
            .key("timers.control_connect", "2s")
            .key("timers.data_connect", "2s")
            .key("timers.reply", "2s")
            .key("timers.stall", "2s")
    }

    fn key(mut self, key: &str, value: impl ToString) -> Self {
        self.vars.insert(variable(key), value.to_string());
        self
    }

    fn route(self, name: &str, url: &str, password: &str) -> Self {
        let spool = self._dir.path().display().to_string();
        self.key(&format!("routes.{name}.spool"), format!("{spool}/{name}"))
            .key(&format!("routes.{name}.server"), url)
            .key(&format!("routes.{name}.password"), password)
    }

    fn to(server: &Server, folder: &str) -> Self {
        Self::new().route("main", &server.url(folder), &server.password)
    }

    fn run(self, args: &[&str]) -> Said {
        let output = self.output(args);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("escaped");
        let out = text(&output.stdout) + &text(&output.stderr);
        assert!(
            !out.contains(|c: char| c.is_control() && c != '\n'),
            "nothing of a server reaches the terminal unescaped: {out:?}"
        );
        let secret =
            |(name, value): &(&String, &String)| name.ends_with("PASSWORD") && *value != "lab";
        for (_, secret) in self.vars.iter().filter(secret) {
            assert!(
                !out.contains(secret.as_str()),
                "no password is shown: {out}"
            );
        }
        Said {
            code: output.status.code(),
            out,
        }
    }

    fn output(&self, args: &[&str]) -> Output {
        let mut command = tied(env!("CARGO_BIN_EXE_ftpulse"));
        command.arg("check").args(args).env_clear().envs(&self.vars);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = support::process::spawn(command).unwrap();
        let (stdout, stderr) = (child.child.stdout.take(), child.child.stderr.take());
        let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        let stdout = read(stdout.map(|pipe| Box::new(pipe) as _));
        let stderr = read(stderr.map(|pipe| Box::new(pipe) as _));
        // Far above the sum of its bounds here: only a hang is later.
        let status = child.wait(Duration::from_secs(120));
        Output {
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

impl Said {
    /// The detail of the line about `what` with that mark.
    fn detail(&self, mark: &str, what: &str) -> &str {
        let fits = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some(mark) && words.next() == Some(what)
        };
        let line = self.out.lines().find(fits);
        let line = line.unwrap_or_else(|| panic!("no line `{mark} {what}` in:\n{}", self.out));
        line.split_once(what).unwrap().1.trim()
    }

    fn fine(&self, what: &str) -> &str {
        self.detail("ok", what)
    }

    fn failed(&self, what: &str) -> &str {
        self.detail("FAILED", what)
    }

    /// What to do.
    fn advice(&self) -> &str {
        let line = self
            .out
            .lines()
            .find_map(|l| l.trim().strip_prefix("what to do"));
        line.unwrap_or_else(|| panic!("no advice in:\n{}", self.out))
            .trim()
    }

    fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.out);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_real_server_passes_with_a_canary_that_leaves_nothing() {
    for server in Server::all(&Opts::default()) {
        std::fs::write(server.path("a file"), b"x").unwrap();
        let said = Check::to(&server, "").run(&["--connect", "--canary"]);
        said.assert_code(0);
        println!("{}", said.out.split("sound").nth(1).unwrap());
        assert!(said.fine("connection").contains(&server.addr.to_string()));
        assert!(!said.fine("greeting").is_empty());
        for feature in ["SIZE yes", "MDTM yes", "REST STREAM yes"] {
            assert!(said.fine("features").contains(feature), "{}", said.out);
        }
        assert!(
            said.fine("listing").starts_with("1 entry, by "),
            "{}",
            said.out
        );
        assert_eq!(said.fine("data"), "EPSV works");
        for step in ["upload", "rename", "clock", "delete"] {
            said.fine(step);
        }
        assert!(
            said.out.contains("1 destination: 1 fine, 0 failed"),
            "{}",
            said.out
        );
        assert_eq!(names(&server.root), ["a file"], "{}", server.name);
    }
}

#[test]
fn a_missing_folder_is_told_and_made_only_for_the_canary_and_removed_again() {
    for server in Server::all(&Opts::default()) {
        let said = Check::to(&server, "in/deep").run(&["--connect"]);
        said.assert_code(0);
        assert!(
            said.detail("note", "folder").contains("in/deep"),
            "{}",
            said.out
        );
        assert_eq!(
            names(&server.root),
            [""; 0],
            "{}: --connect makes nothing",
            server.name
        );
        let said = Check::to(&server, "in/deep").run(&["--connect", "--canary"]);
        said.assert_code(0);
        said.fine("delete");
        assert_eq!(
            names(&server.root),
            [""; 0],
            "{}: {}",
            server.name,
            said.out
        );
    }
}

#[test]
fn a_wrong_password_is_told_with_what_to_do() {
    for server in Server::all(&Opts::default()) {
        if server.user == "anonymous" {
            continue;
        }
        let check = Check::new().route("main", &server.url(""), "not the password");
        // Servers let a wrong password wait for some seconds.
        let said = check.key("timers.reply", "30s").run(&["--connect"]);
        said.assert_code(1);
        assert!(said.failed("login").contains("530"), "{}", said.out);
        assert!(
            said.advice().contains("routes.main.password"),
            "{}",
            said.out
        );
        assert!(
            said.out.contains("1 destination: 0 fine, 1 failed"),
            "{}",
            said.out
        );
    }
}

#[test]
fn a_folder_without_the_right_to_write_is_told_by_the_canary() {
    let server =
        Server::pyftpdlib(Opts::default().line("authorizer.user_table['tester']['perm'] = 'elr'"));
    Check::to(&server, "").run(&["--connect"]).assert_code(0);
    let said = Check::to(&server, "").run(&["--connect", "--canary"]);
    said.assert_code(1);
    assert!(said.failed("upload").contains("550"), "{}", said.out);
    assert!(said.advice().contains("may not write"), "{}", said.out);
    // Without the right to rename, the temp name must not stay.
    let server = Server::pyftpdlib(
        Opts::default().line("authorizer.user_table['tester']['perm'] = 'elrwd'"),
    );
    let said = Check::to(&server, "").run(&["--connect", "--canary"]);
    said.assert_code(1);
    assert!(said.failed("rename").contains("RNFR"), "{}", said.out);
    assert_eq!(names(&server.root), [""; 0], "{}", said.out);
    // Without the right to delete it does stay, and is named.
    let server = Server::pyftpdlib(
        Opts::default().line("authorizer.user_table['tester']['perm'] = 'elrwf'"),
    );
    let said = Check::to(&server, "").run(&["--connect", "--canary"]);
    said.assert_code(1);
    let left = names(&server.root);
    assert!(
        said.out.contains(&left[0]),
        "{left:?} is named in {}",
        said.out
    );
}

#[test]
fn a_server_that_refuses_to_rename_is_told_with_the_way_out_and_what_that_gives_up() {
    let server = Server::vsftpd(Opts::default().line("cmds_denied=RNFR,RNTO"));
    let said = Check::to(&server, "").run(&["--connect", "--canary"]);
    said.assert_code(1);
    assert!(said.failed("rename").contains("RNFR"), "{}", said.out);
    let way_out = "routes.main.publish = \"direct\"";
    assert!(said.advice().contains(way_out), "{}", said.out);
    let direct = || Check::to(&server, "").key("routes.main.publish", "direct");
    let said = direct().run(&["--connect", "--canary"]);
    said.assert_code(0);
    assert!(said.out.contains("torn files can be seen"), "{}", said.out);
    assert_eq!(names(&server.root), [""; 0], "{}", said.out);
    // Without a connection too: it is a warning of the configuration.
    let said = direct().run(&[]);
    said.assert_code(0);
    assert!(said.out.contains("torn after a failure"), "{}", said.out);
}

/// A port of this address on which nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[test]
fn what_cannot_be_reached_is_told_beside_what_can() {
    let server = Server::pyftpdlib(Opts::default());
    let said = Check::to(&server, "")
        .key("timers.dns", "5s")
        .route(
            "a_closed",
            &format!("ftp://me@{}/", closed_port()),
            "secret one",
        )
        .route("b_unknown", "ftp://me@no-such-host.invalid/", "secret two")
        .route("z_same", &server.url(""), &server.password)
        .run(&["--connect"]);
    said.assert_code(1);
    assert!(
        said.out.contains("nobody listens at 127.0.0.1:"),
        "{}",
        said.out
    );
    let unknown = ["is not known here", "do not answer within timers.dns"];
    assert!(
        unknown.iter().any(|text| said.out.contains(text)),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("(routes main, z_same)"),
        "tried once: {}",
        said.out
    );
    assert!(
        said.out.contains("3 destinations: 1 fine, 2 failed"),
        "{}",
        said.out
    );
}

#[test]
fn quiet_tells_failures_only() {
    let server = Server::pyftpdlib(Opts::default());
    let said = Check::to(&server, "").run(&["--quiet", "--connect"]);
    said.assert_code(0);
    // The warning of a password over plain FTP is for the log of the service.
    assert_eq!(said.out, "");
    let refused = Check::new().route("main", &format!("ftp://me@{}/", closed_port()), "p w");
    let said = refused.run(&["--quiet", "--connect"]);
    said.assert_code(1);
    said.failed("connection");
    assert!(!said.out.contains("routes.main.spool"), "{}", said.out);
}

#[test]
fn a_wrong_configuration_or_usage_connects_nowhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("ftp://me@{}/", listener.local_addr().unwrap());
    let wrong = Check::new()
        .route("main", &url, "p w")
        .key("heartbeat.misses", "many");
    wrong.run(&["--connect"]).assert_code(2);
    Check::new()
        .route("main", &url, "p w")
        .run(&["--canary"])
        .assert_code(2);
    Check::new()
        .route("main", &url, "p w")
        .run(&[])
        .assert_code(0);
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn a_server_that_is_stopped_is_given_up_and_the_check_ends() {
    let server = Server::vsftpd(Opts::default());
    server.freeze();
    let said = Check::to(&server, "").run(&["--connect", "--canary"]);
    server.thaw();
    said.assert_code(1);
    assert!(
        said.failed("connection").contains("greeting"),
        "{}",
        said.out
    );
    assert!(said.advice().contains("timers.reply"), "{}", said.out);
    wait_until("the server is free again", support::PATIENCE, || {
        server.pids().is_empty()
    });
}

#[cfg(feature = "lab")]
mod lab {
    use super::*;
    use ftpulse::lab::{Expected, Fault, Kind, LabServer, Named, Script, Step};

    fn check(lab: &LabServer, folder: &str) -> Said {
        let check = Check::new().route("main", &lab.url(folder), lab.password());
        check.run(&["--connect", "--canary"])
    }

    /// What it tells of the fault, in the time that its timers allow, with nothing left behind.
    fn one(named: &Named) {
        let root = temp_dir();
        let fault = Fault::from_name(named.name).unwrap();
        let lab = LabServer::start(root.path(), fault).unwrap();
        let began = clock::mono();
        let said = check(&lab, "");
        let took = clock::mono() - began;
        // Three waits of 2 s at most: the fault's own, the clean-up's, the goodbye's.
        assert!(took < Duration::from_secs(30), "{}: {took:?}", named.name);
        let mid_file = [
            "stop-reading",
            "path-dead-transfer",
            "trickle",
            "reset-mid-file",
            "reset-mid-file-silent",
            "close-mid-file",
            "close-mid-file-silent",
            "control-drop",
            "mid-file-452",
            "mid-file-552",
        ];
        // The canary is too small for the faults of the middle of a file.
        let passes = mid_file.contains(&named.name)
            || named.expected == Expected::Success && named.name != "late-226"
            || named.name == "wrong-pasv";
        println!(
            "{:22} {:5} ms, exit {:?}",
            named.name,
            took.as_millis(),
            said.code
        );
        assert_eq!(
            said.code,
            Some(i32::from(!passes)),
            "{}: {}",
            named.name,
            said.out
        );
        if !passes {
            assert!(!said.advice().is_empty());
        }
        assert_eq!(names(root.path()), [""; 0], "{}: {}", named.name, said.out);
    }

    #[test]
    fn no_fault_of_the_lab_holds_it_and_none_leaves_a_trace() {
        let failed: Vec<_> = std::thread::scope(|scope| {
            let start = |named: &'static Named| (named.name, scope.spawn(move || one(named)));
            let all: Vec<_> = Fault::names().iter().map(start).collect();
            let failed = all
                .into_iter()
                .filter_map(|(name, run)| run.join().err().map(|_| name));
            failed.collect()
        });
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn an_endless_or_dripping_reply_at_any_step_does_not_hold_it() {
        let steps = [
            Step::Greeting,
            Step::User,
            Step::Pass,
            Step::Epsv,
            Step::Stor,
            Step::Final,
            Step::Rnto,
        ];
        let drip = |step| Kind::Drip {
            step,
            every: Duration::from_millis(500),
        };
        let kinds = steps
            .into_iter()
            .flat_map(|step| [Kind::Endless(step), drip(step)]);
        std::thread::scope(|scope| {
            for kind in kinds {
                scope.spawn(move || {
                    let root = temp_dir();
                    let lab = LabServer::start(root.path(), Fault::new(kind).always()).unwrap();
                    let said = check(&lab, "");
                    assert_eq!(said.code, Some(1), "{kind:?}: {}", said.out);
                    assert!(
                        said.out.contains("nothing came in time"),
                        "{kind:?}: {}",
                        said.out
                    );
                });
            }
        });
    }

    #[test]
    fn what_it_could_not_take_away_is_named() {
        let root = temp_dir();
        // Every RNFR goes unanswered, and no second session comes up.
        let faults = [
            Fault::new(Kind::NoReply(Step::Rnfr)).always(),
            Fault::new(Kind::Seats { max: 1 }).always(),
        ];
        let lab = LabServer::start(root.path(), Script::of(faults)).unwrap();
        let said = check(&lab, "");
        said.assert_code(1);
        said.failed("rename");
        let left = names(root.path());
        if let [temp] = &left[..] {
            assert!(
                said.out.contains(temp.as_str()),
                "{temp} is named in {}",
                said.out
            );
        }
    }
}
