//! `ftpulse retry` and `POST /api/retry` against the running service and real servers: one dead
//! letter, a route's, all; each begins anew, loses its story, replaces nothing; who may not ask is
//! told why and changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use support::http::{Answer, raw, request};
use support::process::{spawn, tied};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, wait_until};

const TOKEN: &str = "let-me-send";

fn settings() -> Settings {
    Settings::new()
        .quick()
        .key("http.token", TOKEN)
        .key("retry.max", "200ms")
        .key("retry.give_up_after", "1s")
        .key("timers.control_connect_attempts", "1")
}

/// A folder stands where the file is to be: its rename is refused until that is gone.
fn block(server: &Server, name: &str) -> PathBuf {
    let place = server.root.join("in").join(name);
    fs::create_dir_all(&place).unwrap();
    // The server may be another user.
    let ours = place.ancestors().take_while(|dir| *dir != server.root);
    for dir in ours {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    place
}

fn letters(service: &Ftpulse) -> PathBuf {
    service.spool("main").join(".dead-letter")
}

/// Every regular file below a folder, with its path below it.
fn files(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, out);
            } else {
                out.push(path.strip_prefix(root).unwrap().to_str().unwrap().into());
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, folder, &mut out);
    out.sort();
    out
}

fn dead(service: &Ftpulse, name: &str, times: usize) {
    wait_until("it is given up", PATIENCE, || {
        let lines = service.logged("file dead-lettered");
        lines.iter().filter(|l| l["file"] == name).count() >= times
    });
}

fn there(server: &Server, name: &str) -> Vec<u8> {
    fs::read(server.root.join("in").join(name)).unwrap()
}

fn headers() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

fn post(service: &Ftpulse, headers: &str, body: &str) -> Answer {
    let (http, length) = (service.http(), body.len());
    let head = format!("POST /api/retry HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n");
    let text = format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}");
    raw(http, text.as_bytes()).unwrap()
}

fn gauge(service: &Ftpulse, expected: f64) {
    service.wait_metrics("dead letters are counted", |m| {
        m.get("ftpulse_dead_letters", &[("route", "main")]) == Some(expected)
    });
}

/// `ftpulse retry` with these arguments, and the token where it is to have one.
fn retry(service: &Ftpulse, token: bool, args: &[&str]) -> (i32, String, String) {
    let mut command = tied(env!("CARGO_BIN_EXE_ftpulse"));
    command.env_clear().arg("retry");
    command.args(["--url", &format!("http://{}", service.http())]);
    let dir = support::temp_dir();
    if token {
        let file = dir.path().join("token");
        fs::write(&file, format!("{TOKEN}\n")).unwrap();
        command.arg("--token-file").arg(file);
    }
    command.args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = spawn(command).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let mut output = running.child.stdout.take().unwrap();
    output.read_to_string(&mut out).unwrap();
    let mut errors = running.child.stderr.take().unwrap();
    errors.read_to_string(&mut err).unwrap();
    let code = running.wait(PATIENCE).code().unwrap();
    println!("ftpulse retry {args:?}: {code}\n{out}{err}");
    (code, out, err)
}

#[test]
fn one_file_then_a_route_s_all_are_sent_and_their_stories_are_gone() {
    for server in [
        Server::vsftpd(Opts::default()),
        Server::pyftpdlib(Opts::default()),
    ] {
        let service = settings().route("main", &server, "in").start();
        let names = ["one", "sub/two", "three"];
        let blocks: Vec<_> = names.iter().map(|name| block(&server, name)).collect();
        for name in names {
            service.put("main", name, name.as_bytes());
        }
        names.iter().for_each(|name| dead(&service, name, 1));
        gauge(&service, 3.0);
        for place in blocks {
            fs::remove_dir(place).unwrap();
        }
        let (code, out, _) = retry(&service, true, &["main", "sub/two"]);
        assert_eq!(
            (code, out.as_str()),
            (
                0,
                "sent again: sub/two: it is in the spool again as sub/two\n"
            )
        );
        service.wait_delivered("sub/two");
        assert_eq!(there(&server, "sub/two"), b"sub/two");
        let left = ["one", "one.why.json", "three", "three.why.json"];
        assert_eq!(files(&letters(&service)), left);
        gauge(&service, 2.0);
        // A whole path names it as well, as the log tells it.
        let whole = letters(&service).join("one");
        let (code, out, _) = retry(&service, true, &["main", whole.to_str().unwrap(), "--json"]);
        let document: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, 0);
        assert_eq!(document["files"][0]["file"], "one");
        assert_eq!(document["files"][0]["sent"], true);
        let answer = post(&service, &headers(), r#"{"route":"main"}"#);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["files"].as_array().unwrap().len(), 1);
        assert_eq!(answer.json()["left"], 0);
        for name in names {
            service.wait_delivered(name);
            assert_eq!(there(&server, name), name.as_bytes());
        }
        assert_eq!(files(&letters(&service)), [""; 0]);
        gauge(&service, 0.0);
        service.wait_spool_empty("main", PATIENCE);
        let (code, out, _) = retry(&service, true, &["main"]);
        assert_eq!(
            (code, out.as_str()),
            (0, "route main has no dead letters\n")
        );
    }
}

#[test]
fn a_dead_letter_that_is_sent_again_begins_anew() {
    let server = Server::pyftpdlib(Opts::default());
    block(&server, "bad");
    let mut service = settings().route("main", &server, "in").start();
    service.put("main", "bad", b"bad");
    dead(&service, "bad", 1);
    let failures = |service: &Ftpulse| -> Vec<u64> {
        let lines = service.logged("upload failed");
        lines
            .iter()
            .map(|l| l["attempt"].as_u64().unwrap())
            .collect()
    };
    let first = failures(&service);
    // In this life, and in another one that knew it as failing until it was given up.
    let (code, ..) = retry(&service, true, &["main", "bad"]);
    assert_eq!(code, 0);
    dead(&service, "bad", 2);
    let both = failures(&service);
    println!("attempts: {both:?}");
    assert_eq!(both[first.len()], 1, "{both:?}");
    assert!(both.len() > first.len() + 2, "{both:?}");
    let story = fs::read_to_string(letters(&service).join("bad.why.json")).unwrap();
    let story: Value = serde_json::from_str(&story).unwrap();
    assert!(story["failing_seconds"].as_f64().unwrap() < 10.0, "{story}");
    // In its order: what a kill in this instant leaves is the matter of letter_crashes.rs.
    assert_eq!(service.terminate(), Some(0));
    let service = service.kill_and_restart();
    let (code, ..) = retry(&service, true, &["main"]);
    assert_eq!(code, 0);
    dead(&service, "bad", 1);
    let third = failures(&service);
    assert!(third[0] == 1 && third.len() > 2, "{third:?}");
}

#[test]
fn a_new_file_of_the_same_name_is_not_replaced_and_none_of_them_is_lost() {
    let mut server = Server::pyftpdlib(Opts::default());
    let place = block(&server, "bad");
    let service = settings().route("main", &server, "in").start();
    for (times, text) in ["first", "second"].into_iter().enumerate() {
        service.put("main", "bad", text.as_bytes());
        dead(&service, "bad", times + 1);
    }
    fs::remove_dir(place).unwrap();
    // A third one waits in the spool while the server is away.
    server.stop();
    service.put("main", "bad", b"third");
    service.wait_log("the destination gives no session", |_| true);
    let (code, out, _) = retry(&service, true, &["main"]);
    assert_eq!(code, 1);
    assert_eq!(out.matches("is not replaced").count(), 2, "{out}");
    let all = ["bad", "bad.1", "bad.1.why.json", "bad.why.json"];
    assert_eq!(files(&letters(&service)), all);
    assert_eq!(
        fs::read(service.spool("main").join("bad")).unwrap(),
        b"third"
    );
    server.start_again();
    let delivered = |n: usize| {
        wait_until("it is delivered", PATIENCE, || {
            service.logged("file delivered").len() == n
        });
        service.wait_spool_empty("main", PATIENCE);
    };
    delivered(1);
    assert_eq!(there(&server, "bad"), b"third");
    // Of two letters of one name the older goes first; the other has to wait for it.
    server.stop();
    let (code, out, _) = retry(&service, true, &["main"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("sent again: bad: it is in the spool again as bad\n"),
        "{out}"
    );
    assert!(
        out.contains("not sent: bad.1: the spool has a file bad"),
        "{out}"
    );
    assert_eq!(files(&letters(&service)), ["bad.1", "bad.1.why.json"]);
    server.start_again();
    delivered(2);
    assert_eq!(there(&server, "bad"), b"first");
    let (code, out, _) = retry(&service, true, &["main", "bad.1"]);
    assert_eq!(code, 0);
    assert!(out.contains("it is in the spool again as bad\n"), "{out}");
    delivered(3);
    assert_eq!(there(&server, "bad"), b"second");
    assert_eq!(files(&letters(&service)), [""; 0]);
}

#[test]
fn a_file_that_was_set_aside_goes_only_by_name() {
    let server = Server::pyftpdlib(Opts::default());
    let service = settings().route("main", &server, "in").start();
    fs::create_dir_all(letters(&service)).unwrap();
    fs::write(letters(&service).join("old"), b"older than what was sent").unwrap();
    let (code, out, _) = retry(&service, true, &["main"]);
    assert_eq!(code, 1);
    assert!(out.contains("not sent: old: it has no story"), "{out}");
    let (code, ..) = retry(&service, true, &["main", "old"]);
    assert_eq!(code, 0);
    service.wait_delivered("old");
    assert_eq!(there(&server, "old"), b"older than what was sent");
}

#[test]
fn dead_letters_on_another_device_go_there_and_come_back_whole() {
    use std::os::unix::fs::MetadataExt;
    let server = Server::pyftpdlib(Opts::default());
    let place = block(&server, "sub/bad");
    let shared = Path::new("/dev/shm");
    let other = if shared.is_dir() {
        tempfile::tempdir_in(shared).unwrap()
    } else {
        support::temp_dir()
    };
    let folder = other.path().join("dead");
    let service = settings()
        .key("routes.main.dead_letter", folder.display())
        .route("main", &server, "in")
        .start();
    let bytes = support::content(1, 3 << 20);
    service.put("main", "sub/bad", &bytes);
    let spool = service.spool("main");
    let written = fs::metadata(spool.join("sub/bad")).unwrap();
    dead(&service, "sub/bad", 1);
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    println!("another device: {}", device(&folder) != device(&spool));
    assert_eq!(fs::read(folder.join("sub/bad")).unwrap(), bytes);
    let there = fs::metadata(folder.join("sub/bad")).unwrap();
    assert_eq!(there.mtime_nsec(), written.mtime_nsec());
    assert_eq!(files(&spool), [""; 0]);
    gauge(&service, 1.0);
    fs::remove_dir(place).unwrap();
    // A half copy that a killed life left on its way back.
    fs::write(spool.join(".ftpulse-0123456789abcdef.part"), b"half").unwrap();
    let service = service.kill_and_restart();
    let (code, ..) = retry(&service, true, &["main", "sub/bad"]);
    assert_eq!(code, 0);
    service.wait_delivered("sub/bad");
    assert!(fs::read(server.root.join("in/sub/bad")).unwrap() == bytes);
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(files(&folder), [""; 0]);
    wait_until("nothing is left", PATIENCE, || files(&spool).is_empty());
}

#[test]
fn a_marker_goes_and_comes_with_its_file() {
    let server = Server::pyftpdlib(Opts::default());
    let place = block(&server, "bad");
    let service = settings()
        .key("routes.main.ready_suffix", ".ready")
        .route("main", &server, "in")
        .start();
    service.put("main", "bad", b"bad");
    service.put("main", "bad.ready", b"");
    dead(&service, "bad", 1);
    // What a producer begins to write under that name now must wait for a marker of its own.
    assert_eq!(files(&letters(&service)), ["bad", "bad.why.json"]);
    assert!(!service.spool("main").join("bad.ready").exists());
    fs::remove_dir(place).unwrap();
    let (code, ..) = retry(&service, true, &["main"]);
    assert_eq!(code, 0);
    service.wait_delivered("bad");
    assert_eq!(there(&server, "bad"), b"bad");
    wait_until("the marker is gone", PATIENCE, || {
        !service.spool("main").join("bad.ready").exists()
    });
    assert_eq!(files(&letters(&service)), [""; 0]);
}

#[test]
fn nothing_outside_the_dead_letters_can_be_named_and_wrong_requests_say_why() {
    let server = Server::pyftpdlib(Opts::default());
    let service = settings().route("main", &server, "in").start();
    let outside = service.spool("main").parent().unwrap().join("outside");
    fs::write(&outside, b"outside").unwrap();
    let folder = letters(&service);
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.parent().unwrap(), folder.join("links")).unwrap();
    // A story that points out of the spool, and one that points to a name that is never taken.
    for (name, place) in [("up", "../../outside-2"), ("dot", ".hidden")] {
        fs::write(folder.join(name), name).unwrap();
        let story = json!({ "file": place }).to_string();
        fs::write(folder.join(format!("{name}.why.json")), story).unwrap();
    }
    let named = [
        "../outside",
        "link",
        "links/outside",
        "/etc/passwd",
        "",
        ".",
        "\0",
    ];
    let body = json!({ "route": "main", "files": named }).to_string();
    let answer = post(&service, &headers(), &body);
    println!("{}", answer.body);
    assert_eq!(answer.status, 200);
    for file in answer.json()["files"].as_array().unwrap() {
        assert_eq!(file["sent"], false, "{file}");
        assert!(
            file["says"]
                .as_str()
                .unwrap()
                .contains("no such dead letter")
        );
    }
    let answer = post(
        &service,
        &headers(),
        r#"{"route":"main","files":["up","dot"]}"#,
    );
    println!("{}", answer.body);
    // Such a story is none: they go under the names that they have.
    for name in ["up", "dot"] {
        service.wait_delivered(name);
    }
    assert_eq!(fs::read(&outside).unwrap(), b"outside");
    assert!(
        fs::read_dir(service.spool("main").parent().unwrap())
            .unwrap()
            .count()
            == 2
    );

    for (status, body, says) in [
        (
            404,
            r#"{"route":"other"}"#,
            "there is no route other; there are: main",
        ),
        (
            400,
            r#"{"route":"main","file":["a"]}"#,
            "unknown field `file`",
        ),
        (400, "route=main", "the body is not what is expected"),
        (400, "", "the body is not what is expected"),
    ] {
        let answer = post(&service, &headers(), body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(
            answer.json()["error"].as_str().unwrap().contains(says),
            "{answer:?}"
        );
        assert!(answer.json()["way_out"].is_string());
    }
    let large = format!(
        "{{\"route\":\"main\",\"files\":[\"{}\"]}}",
        "x".repeat(1 << 20)
    );
    assert_eq!(post(&service, &headers(), &large).status, 413);
    let answer = request(service.http(), "GET", "/api/retry", &headers()).unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let (code, _, err) = retry(&service, true, &["other"]);
    assert!(
        code == 1 && err.contains("there is no route other"),
        "{err}"
    );
    assert_eq!(retry(&service, true, &[]).0, 2);
}

#[test]
fn without_the_token_nothing_is_sent_even_on_loopback() {
    let server = Server::pyftpdlib(Opts::default());
    let with = settings().route("main", &server, "in").start();
    let without = Settings::new().quick().route("main", &server, "in").start();
    for service in [&with, &without] {
        fs::create_dir_all(letters(service)).unwrap();
        fs::write(letters(service).join("kept"), b"kept").unwrap();
        for headers in ["", "Authorization: Bearer other\r\n"] {
            let answer = post(service, headers, r#"{"route":"main","files":["kept"]}"#);
            println!("{}", answer.body.trim_end());
            assert_eq!(answer.status, 403);
            assert!(!answer.body.contains(TOKEN));
        }
        let (code, out, err) = retry(service, false, &["main", "kept"]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("403") && err.contains("token"), "{err}");
        assert_eq!(fs::read(letters(service).join("kept")).unwrap(), b"kept");
    }
    // A page elsewhere that a browser is led to cannot ask either.
    let answer = post(
        &without,
        "Authorization: Bearer \r\n",
        r#"{"route":"main"}"#,
    );
    assert_eq!(answer.status, 403);
}
