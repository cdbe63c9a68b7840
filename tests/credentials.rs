//! A password is sent and nothing else: it stands in no log, page, error or argument, not even where
//! the server repeats it, and no login leaves a further copy of it in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use ftpulse::lab::{LabServer, Script, Tls};
use support::recipes::{Opts, PASSWORD};
use support::servers::Server;
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, temp_dir, wait_until};

/// A text that nothing else on this machine has.
const SECRET: &str = "k7Vq-no-other-text-w3Zp";

/// How often a text stands in the memory of a process.
fn copies(pid: u32, text: &str) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let number = |hex| u64::from_str_radix(hex, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(to) - number(from)).unwrap()];
        memory.seek(SeekFrom::Start(number(from))).unwrap();
        // What went away meanwhile cannot be read, and holds nothing.
        if memory.read_exact(&mut bytes).is_ok() {
            let same = |part: &&[u8]| *part == text.as_bytes();
            found += bytes.windows(text.len()).filter(same).count();
        }
    }
    found
}

fn settings(url: &str, file: &Path) -> Settings {
    Settings::new()
        .quick()
        .key("log.level", "trace")
        .key("timers.idle_session", "50ms")
        .key("routes.main.uploaders", 1)
        .route_to("main", url, "")
        .without("routes.main.password")
        .key("routes.main.password_file", file.display())
}

/// Everything that a person or a program can read of the service.
fn shown(service: &Ftpulse) -> String {
    let cmdline = fs::read(format!("/proc/{}/cmdline", service.pid())).unwrap();
    let mut all = service.log_text() + &String::from_utf8_lossy(&cmdline);
    for page in ["/metrics", "/api/status", "/api/incidents", "/readyz", "/"] {
        all += &service.get(page).body;
    }
    all
}

fn logins(service: &Ftpulse, from: usize, to: usize) {
    for n in from..to {
        service.put("main", &format!("f{n}"), b"small");
        service.wait_delivered(&format!("f{n}"));
        wait_until("its session ends", PATIENCE, || {
            service.logged("idle session ended").len() > n
        });
    }
}

#[test]
fn no_login_leaves_a_copy_of_the_password_and_none_is_shown() {
    for tls in [None, Some(Tls::explicit())] {
        let dir = temp_dir();
        let script = Script {
            password: SECRET.into(),
            ..Script::healthy()
        };
        let script = match tls {
            Some(tls) => script.over(tls),
            None => script,
        };
        let lab = LabServer::start(dir.path().join("root"), script).unwrap();
        let file = dir.path().join("password");
        fs::write(&file, format!("{SECRET}\n")).unwrap();
        let mut settings = settings(&lab.url("in"), &file);
        if let Some(ca) = lab.ca() {
            let file = dir.path().join("ca.pem");
            fs::write(&file, ca).unwrap();
            settings = settings.key("routes.main.ca_file", file.display());
        }
        let service = settings.start();
        logins(&service, 0, 2);
        let first = copies(service.pid(), SECRET);
        logins(&service, 2, 12);
        let last = copies(service.pid(), SECRET);
        println!("copies of the password: {first} after 2 logins, {last} after 12");
        assert!(first >= 1, "the settings hold it: the search finds nothing");
        assert!(last <= first, "{first} copies became {last}");
        assert!(!shown(&service).contains(SECRET));
    }
}

#[test]
fn a_server_that_repeats_the_password_does_not_make_us_show_it() {
    let dir = temp_dir();
    for refusal in ["530 PASS", "230-PASS", "999 PASS"] {
        let answer = format!(
            "handler.ftp_PASS = lambda self, line: self.push('{refusal} ' + line + ' is wrong\\r\\n')"
        );
        let server = Server::pyftpdlib(Opts::default().line(answer));
        let file = dir.path().join("password");
        fs::write(&file, PASSWORD).unwrap();
        let settings = settings(&server.url("in"), &file);
        let vars = settings.vars().clone();
        let service = settings.start();
        service.put("main", "file", b"waits");
        let told = service.wait_log("the destination gives no session", |_| true);
        println!("{}", told["error"]);
        assert!(!shown(&service).contains(PASSWORD), "{told}");
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_ftpulse"));
        check.args(["check", "--connect"]).env_clear();
        for name in ["SPOOL", "SERVER", "PASSWORD_FILE"] {
            let name = format!("FTPULSE__ROUTES__MAIN__{name}");
            check.env(&name, &vars[&name]);
        }
        check.env("FTPULSE__TIMERS__REPLY", "2s");
        let output = check.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}
