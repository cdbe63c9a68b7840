//! The configuration is read anew while the service runs, on SIGHUP and by `POST /api/reload`:
//! routes come, change and go, what runs is finished whole, a file with faults changes nothing, and
//! what needs a restart is named. No password is ever told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::http::{Answer, request};
use support::process::{spawn, tied};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, count_of, temp_dir, wait_until};

const TOKEN: &str = "let-me-reload";
/// For two seconds of a large file or more, whatever the machine.
const RATE: [&str; 2] = ["anon_max_rate=4000000", "local_max_rate=4000000"];
const LARGE: usize = 16 << 20;

/// A configuration file that is written anew, and the service that reads it.
struct Rig {
    dir: tempfile::TempDir,
    file: PathBuf,
    /// By table, the lines.
    tables: BTreeMap<String, BTreeMap<String, String>>,
}

impl Rig {
    fn new() -> Self {
        let dir = temp_dir();
        let file = dir.path().join("ftpulse.toml");
        let tables = BTreeMap::new();
        Self { dir, file, tables }.set("http", "token", TOKEN)
    }

    fn set(mut self, table: &str, key: &str, value: &str) -> Self {
        self.put(table, key, value);
        self
    }

    fn put(&mut self, table: &str, key: &str, value: &str) {
        let number = value.parse::<u64>().is_ok();
        let list = value.starts_with('[');
        let value = if number || list {
            value.to_owned()
        } else {
            format!("{value:?}")
        };
        let table = self.tables.entry(table.into()).or_default();
        table.insert(key.into(), value);
    }

    /// A route with a spool folder of its own.
    fn route(&mut self, name: &str, server: &Server, folder: &str) {
        let spool = self.spool(name);
        fs::create_dir_all(&spool).unwrap();
        let table = format!("routes.{name}");
        self.put(&table, "spool", spool.to_str().unwrap());
        self.put(&table, "server", &server.url(folder));
        self.put(&table, "password", &server.password);
        self.put(&table, "settle", "200ms");
    }

    fn without(&mut self, name: &str) {
        self.tables.remove(&format!("routes.{name}")).unwrap();
    }

    fn spool(&self, route: &str) -> PathBuf {
        self.dir.path().join("spools").join(route)
    }

    /// By rename, so that nobody reads half of it.
    fn write(&self) {
        let mut text = String::new();
        for (name, lines) in &self.tables {
            writeln!(text, "[{name}]").unwrap();
            for (key, value) in lines {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        self.write_text(&text);
    }

    fn write_text(&self, text: &str) {
        let fresh = self.dir.path().join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, &self.file).unwrap();
    }

    fn settings(&self) -> Settings {
        self.write();
        let settings = Settings::new().quick().arg("--config");
        settings.arg(self.file.to_str().unwrap())
    }

    fn drop_in(&self, route: &str, name: &str, bytes: &[u8]) {
        let staged = self.dir.path().join("staged");
        fs::write(&staged, bytes).unwrap();
        fs::rename(staged, self.spool(route).join(name)).unwrap();
    }

    /// Reloads by HTTP.
    fn reload(&self, service: &Ftpulse) -> Value {
        self.write();
        let answer = post(service, TOKEN);
        assert_eq!(answer.status, 200, "{}", answer.body);
        println!("{}", answer.body);
        answer.json()
    }

    /// Reloads by the signal; returns when it is done.
    fn hang_up(&self, service: &Ftpulse) {
        self.write();
        let done = || service.logged("configuration reloaded").len();
        let before = done();
        service.signal(Signal::HUP);
        wait_until("it is reloaded", PATIENCE, || done() > before);
    }
}

fn post(service: &Ftpulse, token: &str) -> Answer {
    let headers = format!("Authorization: Bearer {token}\r\nContent-Length: 0\r\n");
    request(service.http(), "POST", "/api/reload", &headers).unwrap()
}

fn route(service: &Ftpulse, name: &str) -> Option<Value> {
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = request(service.http(), "GET", "/api/status", &headers).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let routes = answer.json()["routes"].as_array().unwrap().clone();
    routes.into_iter().find(|route| route["name"] == name)
}

/// It is on its way.
fn wait_moving(service: &Ftpulse, name: &str) {
    wait_until("it is on its way", PATIENCE, || {
        let slots = route(service, name).unwrap()["slots"].clone();
        let moves = |s: &Value| s["bytes_sent"].as_u64() > Some(0) && !s["file"].is_null();
        slots.as_array().unwrap().iter().any(moves)
    });
}

fn wait_gone(service: &Ftpulse, name: &str) {
    wait_until("the route is gone", PATIENCE, || {
        route(service, name).is_none()
    });
}

fn delivered(service: &Ftpulse, route: &str, file: &str) -> usize {
    let lines = service.logged("file delivered").into_iter();
    let fits = |l: &Value| l["route"] == route && l["file"] == file;
    lines.filter(fits).count()
}

fn wait_file(service: &Ftpulse, route: &str, file: &str) {
    service.wait_log("file delivered", |l| {
        l["route"] == route && l["file"] == file
    });
}

#[test]
fn a_route_comes_goes_and_comes_back() {
    let server = Server::pyftpdlib(Opts::default());
    let mut rig = Rig::new();
    rig.route("main", &server, "in");
    let mut service = rig.settings().start();
    rig.drop_in("main", "1", b"one");
    wait_file(&service, "main", "1");

    rig.route("other", &server, "other");
    rig.put("routes.other", "after", "keep");
    rig.hang_up(&service);
    let line = &service.logged("configuration reloaded")[0];
    assert_eq!(
        (&line["by"], &line["added"]),
        (&json!("SIGHUP"), &json!("other"))
    );
    rig.drop_in("other", "2", b"two");
    wait_file(&service, "other", "2");
    assert_eq!(fs::read(server.path("other/2")).unwrap(), b"two");
    let (of, sent) = ([("route", "other")], ("outcome", "delivered"));
    let count = |m: &support::http::Metrics| m.get("ftpulse_files_total", &[of[0], sent]);
    let gauges = ["ftpulse_spool_files", "ftpulse_dead_letters"];
    let metrics = service.metrics();
    assert_eq!(count(&metrics), Some(1.0));
    assert!(gauges.iter().all(|name| metrics.get(name, &of).is_some()));

    rig.without("other");
    let answer = rig.reload(&service);
    assert_eq!(answer["removed"], json!(["other"]));
    assert_eq!(
        (&answer["added"], &answer["changed"]),
        (&json!([]), &json!([]))
    );
    wait_gone(&service, "other");
    service.wait_log("route ended", |l| l["route"] == "other");
    let metrics = service.metrics();
    assert_eq!(count(&metrics), Some(1.0), "a counter stays");
    assert!(gauges.iter().all(|name| metrics.get(name, &of).is_none()));
    rig.drop_in("other", "3", b"three");
    // What comes later to the other route shows that nobody took this one meanwhile.
    rig.drop_in("main", "4", b"four");
    wait_file(&service, "main", "4");
    assert!(rig.spool("other").join("3").exists());

    rig.route("other", &server, "other");
    rig.put("routes.other", "after", "keep");
    assert_eq!(rig.reload(&service)["added"], json!(["other"]));
    wait_file(&service, "other", "3");
    assert_eq!(fs::read(server.path("other/3")).unwrap(), b"three");
    let nothing = rig.reload(&service);
    for what in ["added", "changed", "removed", "applied", "needs_restart"] {
        assert_eq!(nothing[what], json!([]), "{what}");
    }
    // What it kept in its life before is known, and not sent again.
    assert_eq!(service.logged("file delivered").len(), 4);
    assert!(rig.spool("other").join("2").exists());
    assert_eq!(service.terminate(), Some(0));
    assert!(!service.log_text().contains(&server.password));
}

#[test]
fn a_removed_route_ends_its_large_upload_whole() {
    let server = Server::vsftpd(Opts::default().line(RATE[0]).line(RATE[1]));
    let mut rig = Rig::new();
    rig.route("main", &server, "in");
    rig.route("goes", &server, "goes");
    rig.put("routes.goes", "uploaders", "1");
    let service = rig.settings().start();
    let bytes = content(3, LARGE);
    rig.drop_in("goes", "a-large", &bytes);
    wait_moving(&service, "goes");
    rig.drop_in("goes", "b-later", b"stays");
    rig.without("goes");
    assert_eq!(rig.reload(&service)["removed"], json!(["goes"]));
    assert_eq!(delivered(&service, "goes", "a-large"), 0, "too fast");
    let why = route(&service, "goes").unwrap()["suspended"].clone();
    assert!(why.as_str().unwrap().contains("removed"), "{why}");
    wait_file(&service, "goes", "a-large");
    wait_gone(&service, "goes");
    assert!(fs::read(server.path("goes/a-large")).unwrap() == bytes);
    assert!(!rig.spool("goes").join("a-large").exists());
    assert!(rig.spool("goes").join("b-later").exists());
    assert!(!server.path("goes/b-later").exists());
    assert!(service.logged("upload failed").is_empty());
}

#[test]
fn a_route_that_moves_ends_its_large_upload_at_the_old_server() {
    let old = Server::vsftpd(Opts::default().line(RATE[0]).line(RATE[1]));
    let new = Server::pyftpdlib(Opts::default());
    let mut rig = Rig::new();
    rig.route("main", &old, "in");
    rig.put("routes.main", "uploaders", "1");
    let service = rig.settings().start();
    let bytes = content(4, LARGE);
    rig.drop_in("main", "a-large", &bytes);
    wait_moving(&service, "main");
    for name in ["b", "c"] {
        rig.drop_in("main", name, name.as_bytes());
    }
    rig.route("main", &new, "in");
    assert_eq!(rig.reload(&service)["changed"], json!(["main"]));
    assert_eq!(delivered(&service, "main", "a-large"), 0, "too fast");
    for name in ["a-large", "b", "c"] {
        wait_file(&service, "main", name);
    }
    assert!(fs::read(old.path("in/a-large")).unwrap() == bytes);
    for name in ["b", "c"] {
        assert_eq!(
            fs::read(new.path("in").join(name)).unwrap(),
            name.as_bytes()
        );
        assert!(!old.path("in").join(name).exists());
    }
    assert!(!new.path("in/a-large").exists());
    service.wait_spool_empty("main", PATIENCE);
}

#[test]
fn the_right_password_is_tried_at_once_where_a_wrong_one_is_waited_for() {
    let server = Server::pyftpdlib(Opts::default());
    let mut rig = Rig::new();
    rig.route("main", &server, "in");
    rig.route("wrong", &server, "wrong");
    rig.put("routes.wrong", "password", "first-wrong-one");
    let settings = rig.settings().key("retry.max", "1h");
    let mut service = settings.start();
    rig.drop_in("wrong", "1", b"one");
    service.wait_log("the destination gives no session", |l| {
        l["login"] == "refused" && l["route"] == "wrong"
    });
    let problem = route(&service, "wrong").unwrap()["destination_problem"].clone();
    assert!(problem.as_str().unwrap().contains("reload"), "{problem}");
    rig.put("routes.wrong", "password", "second-wrong-one");
    rig.hang_up(&service);
    wait_until("the second one is refused as well", PATIENCE, || {
        let lines = service.logged("the destination gives no session");
        lines.iter().filter(|l| l["login"] == "refused").count() == 2
    });
    rig.put("routes.wrong", "password", &server.password);
    let answer = rig.reload(&service);
    assert_eq!(answer["changed"], json!(["wrong"]));
    // Without the reload the next try would be a minute after the last one.
    service.wait_log_within(Duration::from_secs(40), "file delivered", |l| {
        l["route"] == "wrong" && l["file"] == "1"
    });
    assert_eq!(fs::read(server.path("wrong/1")).unwrap(), b"one");
    let problem = route(&service, "wrong").unwrap()["destination_problem"].clone();
    assert_eq!(problem, Value::Null);
    rig.drop_in("main", "2", b"two");
    wait_file(&service, "main", "2");
    assert_eq!(service.terminate(), Some(0));
    let said = service.log_text() + &answer.to_string();
    for secret in [
        "first-wrong-one",
        "second-wrong-one",
        &*server.password,
        TOKEN,
    ] {
        assert!(!said.contains(secret), "{secret}");
    }
}

#[test]
fn a_file_with_faults_changes_nothing_and_is_told_like_check_tells_it() {
    let server = Server::pyftpdlib(Opts::default());
    let mut rig = Rig::new();
    rig.route("main", &server, "in");
    let settings = rig.settings();
    let vars = settings.vars().clone();
    let mut service = settings.start();
    let bad = "[http]\ntoken = \"let-me-reload\"\n[routes.main]\nuploaders = 0\n\
               spool = \"/nowhere/at/all\"\npasswort = \"hidden-word\"\n[routes.extra]\n\
               server = \"ftp://user:other-hidden-word@host/\"\n";
    rig.write_text(bad);
    let mut check = tied(env!("CARGO_BIN_EXE_ftpulse"));
    check.env_clear().envs(&vars).arg("check");
    check.arg("--config").arg(&rig.file);
    check.stdin(Stdio::null()).stdout(Stdio::null());
    let mut check = spawn({
        check.stderr(Stdio::piped());
        check
    })
    .unwrap();
    let mut text = String::new();
    let mut stderr = check.child.stderr.take().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(check.wait(PATIENCE).code(), Some(2));
    let text = text.strip_prefix("ftpulse: ").unwrap();

    let answer = post(&service, TOKEN);
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(answer.json()["error"], *text);
    let faults = answer.json()["faults"].as_array().unwrap().clone();
    assert!(faults.len() >= 3, "{faults:?}");
    assert!(faults.iter().any(|f| f["key"] == "routes.main.uploaders"));
    service.signal(Signal::HUP);
    wait_until("both are told in the log", PATIENCE, || {
        service.logged("configuration not reloaded").len() == 2
    });
    for line in service.logged("configuration not reloaded") {
        let said = line["error"].as_str().unwrap();
        assert!(said.contains("routes.main.uploaders"), "{said}");
        let next = line["next"].as_str().unwrap();
        assert!(next.contains("nothing was changed"), "{next}");
    }

    // A file that is gone is a fault as well.
    fs::remove_file(&rig.file).unwrap();
    assert_eq!(post(&service, TOKEN).status, 422);
    // A spool that another process owns: nothing is changed either.
    let taken = temp_dir();
    let other = Settings::new();
    let mut other = other
        .route("main", &server, "in")
        .key("routes.main.spool", taken.path().display())
        .start();
    rig.route("other", &server, "other");
    rig.put("routes.other", "spool", taken.path().to_str().unwrap());
    rig.write();
    let answer = post(&service, TOKEN);
    assert_eq!(answer.status, 422, "{}", answer.body);
    let why = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(why.contains(&other.pid().to_string()), "{why}");
    assert!(route(&service, "other").is_none());
    assert_eq!(other.terminate(), Some(0));
    assert_eq!(rig.reload(&service)["added"], json!(["other"]));

    rig.drop_in("main", "1", b"one");
    wait_file(&service, "main", "1");
    assert_eq!(post(&service, "wrong").status, 403);
    assert_eq!(service.terminate(), Some(0));
    let said = service.log_text() + text + &answer.body;
    for secret in ["hidden-word", &*server.password, TOKEN] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

#[test]
fn settings_that_need_a_restart_are_named_and_the_others_hold_at_once() {
    let server = Server::pyftpdlib(Opts::default());
    let mut rig = Rig::new().set("log", "level", "debug");
    rig.put("http", "listen", "127.0.0.1:0");
    rig.route("main", &server, "in");
    let settings = rig.settings();
    let settings = settings.without("log.level").without("http.listen");
    let service = settings.start();
    rig.drop_in("main", "1", b"one");
    wait_file(&service, "main", "1");
    wait_until("a debug line is written", PATIENCE, || {
        service.lines().iter().any(|l| l["level"] == "DEBUG")
    });

    rig.put("http", "listen", "127.0.0.1:1");
    rig.put("state", "history", "1h");
    rig.put("heartbeat", "misses", "7");
    rig.put("heartbeat", "vouchers", "all");
    rig.put("quarantine", "capacity", "3");
    rig.put("log", "level", "warning");
    rig.put("http", "token", "another-token");
    rig.put("shutdown", "grace", "7s");
    let answer = rig.reload(&service);
    let needs = json!(["heartbeat.misses", "state.history", "http.listen"]);
    assert_eq!(answer["needs_restart"], needs);
    let applied = json!([
        "quarantine.capacity",
        "shutdown.grace",
        "http.token",
        "log.level"
    ]);
    assert_eq!(answer["applied"], applied);
    let line = service.wait_log("settings need a restart", |_| true);
    let keys = "heartbeat.misses state.history http.listen";
    assert_eq!(line["keys"], keys);
    let held = service.metrics().get("ftpulse_quarantine_capacity", &[]);
    assert_eq!(held, Some(3.0));
    // The new token holds, the old one does not; it is the same address as before.
    assert_eq!(post(&service, TOKEN).status, 403);
    let again = post(&service, "another-token");
    assert_eq!(again.status, 200);
    // Named as long as the file and the service differ; told by a line that is grave enough.
    assert_eq!(again.json()["needs_restart"], needs);
    let lines = service.lines().len();
    rig.drop_in("main", "2", b"two");
    wait_until("it is delivered", PATIENCE, || {
        server.path("in/2").exists() && !rig.spool("main").join("2").exists()
    });
    for line in &service.lines()[lines..] {
        assert!(
            line["level"] != "INFO" && line["level"] != "DEBUG",
            "{line}"
        );
    }
}

#[test]
fn a_reload_does_not_send_kept_files_of_which_the_journal_is_lost() {
    let server = Server::pyftpdlib(Opts::default());
    let mut rig = Rig::new();
    for name in ["kept", "main", "new"] {
        rig.route(name, &server, name);
    }
    rig.without("new");
    rig.put("routes.kept", "after", "keep");
    let settings = rig.settings();
    let state = PathBuf::from(&settings.vars()["FTPULSE__STATE__DIR"]);
    // The old journal was set aside, and no new one stands.
    fs::write(state.join("journal.db.unreadable-1"), b"no database").unwrap();
    let service = settings.start();
    rig.drop_in("kept", "1", b"was delivered, perhaps");
    let waits = |name: &str| {
        let reason = || {
            route(&service, name)?["suspended"]
                .as_str()
                .map(str::to_owned)
        };
        wait_until("the route waits", PATIENCE, || {
            reason().is_some_and(|why| why.contains("--accept-resend"))
        });
    };
    waits("kept");
    // Another setting, and a new route that keeps its files: both wait. So does one that would
    // delete them from now on, for what is there may have been delivered.
    rig.route("new", &server, "new");
    rig.put("routes.new", "after", "keep");
    rig.put("routes.kept", "uploaders", "3");
    rig.drop_in("new", "2", b"was delivered, perhaps");
    rig.reload(&service);
    rig.put("routes.kept", "after", "delete");
    rig.reload(&service);
    wait_until("three uploaders", PATIENCE, || {
        let slots = route(&service, "kept").unwrap()["slots"].clone();
        slots.as_array().unwrap().len() == 3
    });
    waits("kept");
    waits("new");
    rig.drop_in("main", "3", b"goes");
    wait_file(&service, "main", "3");
    for (name, file) in [("kept", "1"), ("new", "2")] {
        assert_eq!(delivered(&service, name, file), 0);
        assert!(rig.spool(name).join(file).exists());
    }
    let said = service.get("/readyz").body;
    assert!(
        said.contains("route kept") && said.contains("route new"),
        "{said}"
    );
    // What is not there any more is no reason to be unready.
    rig.without("kept");
    rig.without("new");
    rig.reload(&service);
    wait_until("it is ready", PATIENCE, || {
        service.get("/readyz").status == 200
    });
}

/// What the service and the server say of a file.
fn story(service: &Ftpulse, server: &Server, file: &str) -> String {
    let said = service.log_text() + &server.log();
    let word = |c: char| !c.is_ascii_alphanumeric();
    let of_file = |line: &&str| line.split(word).any(|part| part == file);
    let lines: Vec<&str> = said.lines().filter(of_file).collect();
    lines.join("\n")
}

#[test]
fn fifty_reloads_during_two_hundred_files_lose_nothing_and_send_nothing_twice() {
    let server = Server::vsftpd(Opts::default());
    let mut rig = Rig::new();
    rig.route("main", &server, "main");
    rig.route("comes", &server, "comes");
    let mut service = rig.settings().start();
    let (files, reloads) = (count_of("FTPULSE_FILES", 200), 50);
    let bytes = |n: usize| content(n as u64, 20_000 + n);
    let place = |n: usize| if n % 4 == 3 { "comes" } else { "main" };
    let mut put = 0;
    for turn in 0..reloads {
        while put < files * (turn + 1) / reloads {
            rig.drop_in(place(put), &format!("f{put}"), &bytes(put));
            put += 1;
        }
        rig.put("routes.main", "uploaders", ["2", "5", "3"][turn % 3]);
        rig.put("routes.main", "order", ["oldest", "name"][turn % 2]);
        rig.put("retry", "max", ["1s", "2s"][turn % 2]);
        match turn % 6 {
            2 => rig.without("comes"),
            4 => rig.route("comes", &server, "comes"),
            _ => {}
        }
        rig.write();
        service.signal(Signal::HUP);
        if turn % 5 == 4 {
            let answer = post(&service, TOKEN);
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
    if !rig.tables.contains_key("routes.comes") {
        rig.route("comes", &server, "comes");
    }
    rig.hang_up(&service);
    for n in 0..files {
        wait_file(&service, place(n), &format!("f{n}"));
    }
    let done = service.logged("configuration reloaded").len();
    for n in 0..files {
        let name = format!("f{n}");
        assert_eq!(delivered(&service, place(n), &name), 1, "{name}");
        let there = fs::read(server.path(place(n)).join(&name));
        assert!(
            there.is_ok_and(|there| there == bytes(n)),
            "{name}: {}",
            story(&service, &server, &name)
        );
    }
    wait_until("the sources are gone", PATIENCE, || {
        (0..files).all(|n| !rig.spool(place(n)).join(format!("f{n}")).exists())
    });
    let log = server.log();
    for n in 0..files {
        let stores = log.matches(&format!("\"STOR .f{n}.")).count();
        assert_eq!(stores, 1, "f{n} was sent once");
    }
    println!("{done} reloads for {reloads} signals and 10 requests, {files} files");
    assert!(done >= 11, "{done}");
    assert_eq!(service.terminate(), Some(0));
    for failed in ["upload failed", "a thread panicked", "sockets quarantined"] {
        assert!(service.logged(failed).is_empty(), "{failed}");
    }
}
