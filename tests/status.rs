//! `ftpulse status` and `ftpulse incidents` against the running service: what a wedge looks like
//! in them, that JSON is the API's, and that every refusal names its way out and no secret.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
mod wedge_common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use ftpulse::lab::{LabServer, Script};
use rustix::process::Signal;
use serde_json::Value;
use support::process::{Running, spawn, tied};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir};
use wedge_common::*;

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn start(args: &[&str], env: &[(&str, &str)]) -> Running {
    let mut command = tied(env!("CARGO_BIN_EXE_ftpulse"));
    command.args(args).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // A proxy that would swallow every question.
    command.env("http_proxy", "http://127.0.0.1:1");
    command.envs(env.iter().copied());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    spawn(command).unwrap()
}

fn end(mut running: Running) -> Said {
    let mut errors = running.child.stderr.take().unwrap();
    let err = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let mut out = String::new();
    if let Some(mut output) = running.child.stdout.take() {
        output.read_to_string(&mut out).unwrap();
    }
    let code = running.wait(PATIENCE).code();
    Said {
        code,
        out,
        err: err.join().unwrap(),
    }
}

fn run(args: &[&str]) -> Said {
    end(start(args, &[]))
}

/// A refusal: nothing on standard output, one line that holds all of `texts`.
fn refused(args: &[&str], code: i32, texts: &[&str]) {
    let said = run(args);
    println!("{args:?}: {}", said.err.trim_end());
    assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    for text in texts {
        assert!(said.err.contains(text), "{text}: {said:?}");
    }
}

fn url(service: &Ftpulse) -> String {
    format!("http://{}", service.http())
}

fn settings(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.uploaders", "1")
}

/// The fields of the first row whose first field is `first`, by the heads above it.
fn row(page: &str, head: &str, first: &str) -> BTreeMap<String, String> {
    let mut lines = page.lines().skip_while(|line| !line.contains(head));
    let fields = |line: &str| -> Vec<String> {
        let fields = line.trim().split("  ").map(str::trim);
        fields
            .filter(|f| !f.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let heads = fields(lines.next().unwrap_or_else(|| panic!("{head} in {page}")));
    let row = lines.map(fields).find(|row| row[0] == first).unwrap();
    assert_eq!(heads.len(), row.len(), "{page}");
    heads.into_iter().zip(row).collect()
}

/// A document without what changes from one moment to the next.
fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !name.ends_with("silence_seconds") && name != "at" && name != "beats"
            });
            fields.values_mut().for_each(|v| *v = timeless(v.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| *v = timeless(v.take())),
        _ => {}
    }
    value
}

#[test]
fn a_wedge_is_seen_in_the_status_and_told_by_its_incident() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), wedge("file.bin")).unwrap();
    let service = settings(&lab).key("timers.stall", "1s").start();
    let url = url(&service);
    let empty = run(&["incidents", "--url", &url]);
    assert_eq!(empty.code, Some(0), "{empty:?}");
    assert!(empty.out.starts_with("no deadlock"), "{empty:?}");

    service.put("main", "file.bin", &content(3, SIZE));
    let working = support::wait_for("status shows the upload in work", PATIENCE, || {
        let said = run(&["status", "--url", &url]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        said.out.contains("file.bin").then_some(said.out)
    });
    println!("{working}");
    let slot = row(&working, "SLOT", "main");
    assert_eq!(
        (slot["SLOT"].as_str(), slot["FILE"].as_str()),
        ("0", "file.bin")
    );
    assert!(!working.contains('\x1b'), "no colors into a pipe");

    service.wait_log("deadlock found", |_| true);
    service.wait_delivered("file.bin");
    let incident = wait_incident(&service, "the incident is recovered from", |i| {
        i["recovered_at"].is_f64()
    });
    let status = run(&["status", "--url", &url]).out;
    println!("{status}");
    assert!(status.contains("quarantine 1 of 16 pairs, no stranded workers"));
    let route = row(&status, "DESTINATION", "main");
    assert_eq!(
        (route["STATE"].as_str(), route["DELIVERED"].as_str()),
        ("ok", "1")
    );
    assert_eq!(row(&status, "SLOT", "main")["EPOCH"], "2");
    assert_eq!(row(&status, "HELD FOR", "1")["ROUTE"], "main");

    let list = run(&["incidents", "--url", &url]).out;
    println!("{list}");
    let listed = row(&list, "CAUSE", "1");
    assert_eq!(listed["CAUSE"], incident["cause"].as_str().unwrap());
    assert_eq!(listed["CAUSE"], "zero_window");
    assert_eq!(listed["PHASE"], incident["phase"].as_str().unwrap());
    assert_eq!(
        (listed["FILE"].as_str(), listed["QUARANTINE"].as_str()),
        ("file.bin", "held")
    );
    assert_ne!(listed["RECOVERED AFTER"], "not yet");

    let story = run(&["incidents", "--url", &url, "1"]).out;
    println!("{story}");
    for text in [
        "zero_window: the peer lives",
        incident["data"]["local"].as_str().unwrap(),
        incident["control"]["peer"].as_str().unwrap(),
        "still held",
        "thread",
    ] {
        assert!(story.contains(text), "{text}");
    }

    for (args, path) in [
        (vec!["incidents", "--json"], "/api/incidents"),
        (vec!["incidents", "--json", "1"], "/api/incidents/1"),
        (vec!["status", "--json"], "/api/status"),
    ] {
        let said = run(&[args.as_slice(), &["--url", &url]].concat());
        let told: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(timeless(told), timeless(service.json(path)), "{path}");
        assert_eq!(said.out.lines().count(), 1);
    }
    refused(
        &["incidents", "--url", &url, "7"],
        1,
        &["no incident 7", "kept: 1\n"],
    );
    refused(
        &["incidents", "--url", &url, "7", "--json"],
        1,
        &["kept: 1\n"],
    );
    assert_eq!(run(&["incidents", "--url", &url, "x"]).code, Some(2));
}

#[test]
fn the_token_opens_and_every_refusal_names_the_way_out_but_no_secret() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).key("http.token", "r1ght-token").start();
    let url = url(&service);
    let file = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (
        file("right", "r1ght-token\n"),
        file("wrong", "wr0ng-token\n"),
    );
    let asked = |command, file: &str| run(&[command, "--url", &url, "--token-file", file]);
    for command in ["status", "incidents"] {
        assert_eq!(asked(command, &right).code, Some(0));
        let said = asked(command, &wrong);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
        assert!(
            said.err.contains("does not take this token (401)"),
            "{said:?}"
        );
        assert!(!said.err.contains("wr0ng"), "{said:?}");
        refused(&[command, "--url", &url], 1, &["(401)", "--token-file"]);
    }
    for variable in [
        ("FTPULSE__HTTP__TOKEN", "r1ght-token"),
        ("FTPULSE__HTTP__TOKEN_FILE", right.as_str()),
    ] {
        let said = end(start(&["status", "--url", &url], &[variable]));
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    // A refusal that will not change ends the watch, too.
    refused(&["status", "--watch", "--url", &url], 1, &["(401)"]);
    refused(
        &["status", "--token-file", "/nowhere"],
        2,
        &["/nowhere", "--token-file"],
    );
}

#[test]
fn a_wrong_url_is_wrong_usage_and_its_password_is_not_shown() {
    for (url, text) in [
        ("https://127.0.0.1:9188", "TLS"),
        ("127.0.0.1:9188", "write http://"),
        ("http://127.0.0.1:9188/api/status", "after host and port"),
    ] {
        refused(&["status", "--url", url], 2, &[text]);
    }
    let said = run(&["incidents", "--url", "http://user:s3cret@127.0.0.1:9188"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("--token-file") && !said.err.contains("s3cret"),
        "{said:?}"
    );
}

/// A server that reads a request and answers each with these bytes; its URL.
fn stranger(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn whoever_else_answers_is_told_from_the_service() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    refused(
        &["status", "--url", &nobody],
        1,
        &["nobody listens", "--url"],
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    refused(
        &["status", "--url", &silent_url],
        1,
        &["does not answer within 5 s"],
    );
    for (answer, text) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
            "cannot be read",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "cannot be read",
        ),
        (
            "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
            "no page /api/status",
        ),
        (
            "HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "points elsewhere",
        ),
        (
            "HTTP/1.1 503 No\r\n\r\n{\"error\":\"busy \\u001b[31m now\"}",
            "busy \\x1b[31m now",
        ),
        (
            "HTTP/1.1 403 No\r\n\r\n{\"error\":\"closed\"}",
            "closed; set http.token",
        ),
        ("220 ftp.example.net ready\r\n", "does not answer in HTTP"),
        ("", "closes the connection"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "is it the http.listen",
        ),
    ] {
        refused(&["status", "--url", &stranger(answer)], 1, &[text]);
    }
}

#[test]
fn a_watch_goes_on_over_a_silence_and_ends_on_the_signal() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    // A port that is free now and stays the service's over its restart.
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let listen = format!("127.0.0.1:{port}");
    let url = format!("http://{listen}");
    let mut watch = start(&["status", "--watch", "--url", &url], &[]);
    let mut complaints = BufReader::new(watch.child.stderr.take().unwrap()).lines();
    let mut blocks = BufReader::new(watch.child.stdout.take().unwrap()).lines();
    let first = complaints.next().unwrap().unwrap();
    assert!(first.contains("nobody listens") && first.contains("again each second"));
    let service = settings(&lab).key("http.listen", &listen).start();
    let mut seen = |text: &str| {
        let found = blocks.by_ref().map_while(Result::ok);
        found.into_iter().any(|line| line.starts_with(text))
    };
    for _ in 0..2 {
        assert!(seen("ftpulse ") && seen("ROUTE"));
    }
    let _service = service.kill_and_restart();
    for _ in 0..2 {
        assert!(seen("ftpulse ") && seen("ROUTE"));
    }
    watch.signal(Signal::INT);
    assert_eq!(watch.wait(PATIENCE).code(), Some(130));

    let mut lines = start(&["status", "--watch", "--json", "--url", &url], &[]);
    let mut json = BufReader::new(lines.child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&json.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["routes"][0]["name"], "main");
    }
    // A reader that has seen enough is no failure.
    drop(json);
    assert_eq!(end(lines).code, Some(0));
}

#[test]
fn a_terminal_is_drawn_on_in_place_and_given_back() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).start();
    let line = format!(
        "stty cols 60 rows 20; exec {} status --watch --url {}",
        env!("CARGO_BIN_EXE_ftpulse"),
        url(&service)
    );
    // util-linux's script gives the command a terminal.
    let mut command = tied("script");
    command.args(["-qefc", &line, "/dev/null"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut terminal = spawn(command).unwrap();
    let mut output = terminal.child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while seen.matches("\x1b[H").count() < 3 {
        let read = output.read(&mut buffer).unwrap();
        assert!(read > 0, "{seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    // Ctrl-C, as the terminal has it.
    terminal
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"\x03")
        .unwrap();
    output.read_to_string(&mut seen).unwrap();
    assert_eq!(terminal.wait(PATIENCE).code(), Some(130), "{seen:?}");
    assert!(seen.starts_with("\x1b[?1049h\x1b[?25l"), "{seen:?}");
    assert!(
        seen.trim_end_matches(['^', 'C'])
            .ends_with("\x1b[?25h\x1b[?1049l"),
        "{seen:?}"
    );
    assert!(seen.contains("\x1b[1mROUTE\x1b[0m"), "bold heads: {seen:?}");
}
