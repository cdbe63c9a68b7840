//! The process dies at every step of a file's way to the dead letters and of its way back, with and
//! without markers: the file is in one place, whole, and the next life and the next `ftpulse retry`
//! bring it to its end. Needs the feature `failpoints` (`tests/run` gives it).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "failpoints")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use support::http;
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, wait_until};

const TOKEN: &str = "let-me-send";
const NAME: &str = "bad.bin";
const BYTES: &[u8] = b"the only copy";

/// Where the first life dies on the way to the dead letters.
const THERE: [&str; 4] = [
    "letter-hidden",
    "story-told",
    "letter-laid",
    "source-finished",
];
/// Where one dies on the way back.
const BACK: [&str; 2] = ["letter-back", "marker-back"];

fn died(service: &mut Ftpulse, point: &str) {
    let status = service.wait_exit(PATIENCE);
    assert_eq!(status.signal(), Some(libc::SIGABRT), "at {point}: {status}");
}

/// Every regular file of the spool, with those of ours, that is no story and no marker.
fn copies(spool: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in [spool, &spool.join(".dead-letter")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let other = name.ends_with(".why.json") || name.ends_with(".ready");
            if entry.path().is_file() && !other {
                assert_eq!(fs::read(entry.path()).unwrap(), BYTES, "{name}");
                found.push(name);
            }
        }
    }
    found
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = names
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// `POST /api/retry` for all; whether an answer came.
fn retry(service: &Ftpulse) -> Option<http::Answer> {
    let (http, body) = (service.http(), r#"{"route":"main"}"#);
    let head = format!("POST /api/retry HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n");
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let text = format!("{head}{token}Content-Length: {}\r\n\r\n{body}", body.len());
    http::raw(http, text.as_bytes())
        .ok()
        .filter(|a| a.status != 0)
}

struct Scene {
    server: Server,
    marked: bool,
}

impl Scene {
    fn new(marked: bool) -> Self {
        let server = Server::pyftpdlib(Opts::default());
        // A folder stands where the file is to be: it is refused.
        fs::create_dir_all(server.root.join("in").join(NAME)).unwrap();
        Self { server, marked }
    }

    fn start(&self, point: Option<&str>) -> Ftpulse {
        let mut settings = Settings::new()
            .quick()
            .key("http.token", TOKEN)
            .key("retry.max", "200ms")
            .key("retry.give_up_after", "1s")
            .route("main", &self.server, "in");
        if self.marked {
            settings = settings.key("routes.main.ready_suffix", ".ready");
        }
        if let Some(point) = point {
            settings = settings.env("FAILPOINTS", format!("{point}=return"));
        }
        let service = settings.start();
        service.put("main", NAME, BYTES);
        if self.marked {
            let marker = service.spool("main").join(format!("{NAME}.ready"));
            fs::File::create(marker).unwrap().flush().unwrap();
        }
        service
    }

    fn unblock(&self) {
        fs::remove_dir(self.server.root.join("in").join(NAME)).unwrap();
    }

    fn arrives(&self, service: &Ftpulse) {
        let place = self.server.root.join("in").join(NAME);
        wait_until("it arrives", PATIENCE, || {
            fs::read(&place).is_ok_and(|bytes| bytes == BYTES)
        });
        service.wait_spool_empty("main", PATIENCE);
    }
}

fn dead(service: &Ftpulse) {
    let folder = service.spool("main").join(".dead-letter");
    wait_until("it is a dead letter, with its story", PATIENCE, || {
        files(&folder) == [NAME.to_owned(), format!("{NAME}.why.json")]
    });
}

/// Whether it failed for the first time after it was sent again. What the life before had left in
/// doubt may fail, and be counted on, until then.
fn failed_anew(service: &Ftpulse) -> bool {
    let lines = service.lines();
    let mut lines = lines.iter();
    lines.any(|line| line["msg"] == "dead letter sent again")
        && lines.any(|line| line["msg"] == "upload failed" && line["attempt"] == 1)
}

#[test]
fn a_file_on_its_way_to_the_dead_letters_is_in_one_place_wherever_the_process_dies() {
    for (point, marked) in THERE.into_iter().flat_map(|p| [(p, false), (p, true)]) {
        let scene = Scene::new(marked);
        let mut service = scene.start(Some(point));
        died(&mut service, point);
        let spool = service.spool("main");
        println!("{point}, marked {marked}: {:?}", copies(&spool));
        assert_eq!(copies(&spool).len(), 1, "{point}");
        let service = service.restart_with("FAILPOINTS", None);
        dead(&service);
        assert_eq!(copies(&spool), [NAME]);
        if point == "source-finished" {
            // The journal had not learnt of it: it begins anew all the same.
            retry(&service).unwrap();
            wait_until("it begins anew", PATIENCE, || failed_anew(&service));
            service.wait_log("file dead-lettered", |_| true);
            dead(&service);
        }
        scene.unblock();
        let answer = retry(&service).unwrap();
        assert_eq!(answer.json()["files"][0]["sent"], true, "{answer:?}");
        scene.arrives(&service);
        assert_eq!(files(&spool.join(".dead-letter")), [""; 0], "{point}");
        wait_until("no copy is left", PATIENCE, || copies(&spool).is_empty());
    }
}

#[test]
fn a_file_on_its_way_back_is_in_one_place_wherever_the_process_dies() {
    for (point, marked) in BACK.into_iter().flat_map(|p| [(p, false), (p, true)]) {
        let scene = Scene::new(marked);
        let service = scene.start(None);
        dead(&service);
        let spool = service.spool("main");
        let mut service = service.restart_with("FAILPOINTS", Some(&format!("{point}=return")));
        assert!(retry(&service).is_none(), "it dies of it");
        died(&mut service, point);
        println!("{point}, marked {marked}: {:?}", copies(&spool));
        assert_eq!(copies(&spool), [NAME]);
        assert!(spool.join(NAME).exists());
        scene.unblock();
        let service = service.restart_with("FAILPOINTS", None);
        if marked && point == "letter-back" {
            // It stands there without its marker: whoever asks again ends what was begun.
            let answer = retry(&service).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        scene.arrives(&service);
        wait_until("no copy is left", PATIENCE, || copies(&spool).is_empty());
    }
}
