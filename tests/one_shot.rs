//! `ftpulse put`: what arrives and under which name, what is refused before anything is touched,
//! what a wedge, an interruption and a death leave, what is shown in a terminal and in a pipe.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

#[path = "support/hung.rs"]
mod hung;
mod one_shot_common;
mod support;

use std::net::TcpListener;
use std::sync::Arc;

use one_shot_common::{Desk, tree, wait_for_part};
use rustix::process::Signal;
use support::certificates::Authority;
use support::servers::{Opts, Server};
use support::{content, count_of, wait_until};

const MIB: usize = 1 << 20;

#[test]
fn every_form_of_put_arrives_whole_and_under_its_name() {
    for server in Server::all(&Opts::default()) {
        let desk = Desk::at(&server);
        let (small, large) = (b"a,b\n1,2\n".to_vec(), content(1, 3 * MIB));
        desk.file("report.csv", &small);
        desk.file("film.mp4", &large);
        desk.file("f/one", b"1");
        desk.file("f/sub/two words", b"2");
        let url = |path: &str| server.url(path);
        let put = |args: &[&str]| desk.run(&[&["put"], args].concat());

        put(&["report.csv", "film.mp4", &url("in/new/")])
            .assert_code(0)
            .assert_says("2 sent, 0 failed");
        put(&["film.mp4", &url("in/other.mp4")])
            .assert_code(0)
            .assert_says("film.mp4: 3.0 MiB");
        put(&["-r", "f", &url("in/")]).assert_code(0);
        put(&["-r", "f", &url("in/g")]).assert_code(0);
        let input = desk.start(&["put", "-", &url("in/input")], &large);
        input.end().assert_code(0);

        let names = [
            "f/one",
            "f/sub/two words",
            "g/one",
            "g/sub/two words",
            "input",
            "new/film.mp4",
            "new/report.csv",
            "other.mp4",
        ];
        assert_eq!(tree(&server.path("in")), names, "{}", server.name);
        let there = |name: &str| std::fs::read(server.path("in").join(name)).unwrap();
        assert_eq!(there("new/report.csv"), small);
        for name in ["new/film.mp4", "other.mp4", "input"] {
            assert!(there(name) == large, "{} {name}", server.name);
        }
        assert_eq!(there("g/sub/two words"), b"2");
        assert_eq!(desk.remembered(), 0, "nothing is left to remember");
    }
}

#[test]
fn what_fails_is_told_and_the_rest_is_sent() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    desk.file("good", b"good");
    desk.file("bad", b"bad");
    // A folder is in the way.
    let inner = desk.run(&["put", "good", &server.url("in/bad/inner")]);
    inner.assert_code(0);
    let said = desk.run(&["put", "none", "bad", "good", &server.url("in/")]);
    said.assert_code(1)
        .assert_says("1 sent, 2 failed")
        .assert_says("ftpulse: none: it cannot be sent: No such file")
        .assert_says("ftpulse: bad: sending failed: the server refused RNTO");
    assert_eq!(tree(&server.root), ["in/bad/inner", "in/good"]);

    let wrong = desk.env("FTPULSE_PASSWORD", "wrong");
    let said = wrong.run(&["put", "good", "bad", &server.url("in/")]);
    if server.user != "anonymous" {
        said.assert_code(1).assert_says("2 not sent");
        assert_eq!(
            said.err
                .matches("sending failed: the server refused PASS")
                .count(),
            1
        );
    }

    let nowhere = Desk::new().key("timers.control_connect_attempts", 2);
    nowhere.file("f", b"f");
    let said = nowhere.run(&["put", "f", "ftp://127.0.0.1:1/"]);
    said.assert_code(1)
        .assert_says("connecting failed (attempt 1 of 2)")
        .assert_says("again in 100ms");
}

#[test]
fn wrong_usage_touches_nothing_and_shows_no_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let desk = Desk::new().env("FTPULSE_PASSWORD", "s3cret");
    desk.file("f", b"f");
    desk.file("g/f", b"f");
    let to = |rest: &str| format!("ftp://me@{at}/{rest}");
    for (args, says) in [
        (vec!["put"], "<FILE>... <URL>"),
        (vec!["put", "f"], "and, last, a URL"),
        (vec!["put", "f", "host/"], "no scheme"),
        (vec!["put", "f", "http://h/"], "no FTP server"),
        (
            vec!["put", "f", &format!("ftp://me:s3cret@{at}/")],
            "FTPULSE_PASSWORD_FILE",
        ),
        (vec!["put", "f", &to("a b")], "percent-encode"),
        (vec!["put", "f", "g/f", &to("x")], "end the URL with /"),
        (vec!["put", "f", "g/f", &to("x/")], "same name"),
        (vec!["put", "g", &to("")], "-r"),
        (vec!["put", "-", &to("")], "standard input has no name"),
        (vec!["put", "f", "--attempts", "0", &to("")], "--attempts"),
        (vec!["put", "f", "--verify", "so", &to("")], "--verify"),
        (
            vec!["put", "f", "--limit", "1B", &to("")],
            "rate_limit, from --limit",
        ),
        (vec!["put", "f", "--user", "you", &to("")], "one login name"),
        (
            vec!["put", "f", "--config", "none.toml", &to("")],
            "none.toml",
        ),
        (
            vec!["put", "f", "--password", "s3cret", &to("")],
            "unexpected argument",
        ),
    ] {
        let said = desk.run(&args);
        said.assert_code(2).assert_says(says);
        let shown = said.out.clone() + &said.err;
        assert!(
            !shown.contains("s3cret") || args.contains(&"--password"),
            "{shown}"
        );
    }
    let both = desk.env("FTPULSE_PASSWORD_FILE", "f");
    both.run(&["put", "f", &to("")])
        .assert_code(2)
        .assert_says("both");
    let none = both
        .without("FTPULSE_PASSWORD")
        .without("FTPULSE_PASSWORD_FILE");
    none.run_far_from_any_terminal(&["put", "f", &to("")])
        .assert_code(2)
        .assert_says("no terminal to ask for it");
    let stateless = none
        .env("FTPULSE_PASSWORD", "s3cret")
        .without("XDG_STATE_HOME");
    stateless.file("large", &content(1, 9 * MIB));
    stateless
        .run(&["put", "--continue", "large", &to("")])
        .assert_code(2)
        .assert_says("neither XDG_STATE_HOME nor HOME");
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn routes_of_a_configuration_are_left_alone_and_its_timers_hold() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    desk.file("f", b"f");
    let config = "timers.data_connect_attempts = 7\n[routes.put]\nspool = \"relative\"\n\
                  password_file = \"/none\"\nserver = \"gopher://h\"\n";
    desk.file("ftpulse.toml", config.as_bytes());
    let url = server.url("");
    let args = ["put", "--config", "ftpulse.toml", "f", &url];
    desk.run(&args).assert_code(0);
    desk.file("ftpulse.toml", b"timers.dns = \"never\"\n");
    desk.run(&args).assert_code(2).assert_says("timers.dns");
}

#[test]
fn a_session_that_is_stopped_in_mid_transfer_is_survived_and_gone_on_with() {
    let server = Server::proftpd(Opts::default());
    let desk = Desk::at(&server);
    let bytes = content(2, 24 * MIB);
    desk.file("big", &bytes);
    let job = desk.start(&["put", "--limit", "8MiB", "big", &server.url("")], b"");
    wait_for_part(&server, 4 << 20);
    let line = std::fs::read(format!("/proc/{}/cmdline", job.running.pid())).unwrap();
    let line = String::from_utf8_lossy(&line);
    assert!(
        line.contains("put") && !line.contains(&server.password),
        "{line}"
    );
    let frozen = server.freeze_sessions();
    assert!(!frozen.is_empty());
    let said = job.end();
    said.assert_code(0)
        .assert_says("big: sending failed (attempt 1 of 5): no sign of life in the phase transfer")
        .assert_says("retry in")
        .assert_says("of it now");
    server.thaw();
    wait_until("the thawed sessions are gone", support::PATIENCE, || {
        server.pids().is_empty()
    });
    assert!(std::fs::read(server.path("big")).unwrap() == bytes);
    assert_eq!(tree(&server.root), ["big"]);
}

/// Interrupts a `put` after some of the file; the folder of the desk is where it can go on.
fn interrupted(server: &Server, desk: &Desk, args: &[&str], signal: Signal) -> i32 {
    let url = server.url("in/");
    let whole = std::fs::metadata(desk.dir.path().join("big"))
        .unwrap()
        .len();
    // All of it would take three seconds.
    let limit = format!("{}B", whole / 3);
    let args = [&["put", "--limit", &limit], args, &["big", &url]].concat();
    let job = desk.start(&args, b"");
    wait_for_part(server, whole / 8);
    job.signal(signal);
    let said = job.end();
    said.code.unwrap_or_else(|| panic!("{said:?}"))
}

#[test]
fn an_interrupted_put_leaves_nothing_and_a_continued_one_sends_only_the_rest() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    let whole = count_of("ONE_SHOT_MIB", 24) * MIB;
    let bytes = content(3, whole);
    desk.file("big", &bytes);
    let url = server.url("in/");

    assert_eq!(interrupted(&server, &desk, &[], Signal::INT), 130);
    assert_eq!(tree(&server.root), [""; 0], "nothing is left");
    assert_eq!(interrupted(&server, &desk, &[], Signal::TERM), 143);
    assert_eq!(tree(&server.root), [""; 0], "nothing is left");
    assert_eq!(desk.remembered(), 0);

    assert_eq!(
        interrupted(&server, &desk, &["--continue"], Signal::INT),
        130
    );
    let parts = tree(&server.root);
    assert!(parts.len() == 1 && parts[0].ends_with(".part"), "{parts:?}");
    assert_eq!(desk.remembered(), 1);
    let said = desk.run(&["put", "--continue", "big", &url]);
    said.assert_code(0)
        .assert_says("of it now")
        .assert_says("upload resumed");
    assert_eq!(tree(&server.root), ["in/big"]);
    assert!(std::fs::read(server.path("in/big")).unwrap() == bytes);
    assert_eq!(desk.remembered(), 0);
}

#[test]
fn a_changed_file_is_not_gone_on_with_and_a_dead_commands_part_is_taken_away() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    desk.file("big", &content(4, 24 * MIB));
    let url = server.url("in/");
    assert_eq!(
        interrupted(&server, &desk, &["--continue"], Signal::INT),
        130
    );
    let changed = content(5, 24 * MIB);
    desk.file("big", &changed);
    let said = desk.run(&["put", "--continue", "big", &url]);
    said.assert_code(0);
    assert!(!said.out.contains("of it now"), "{}", said.out);
    assert_eq!(tree(&server.root), ["in/big"]);
    assert!(std::fs::read(server.path("in/big")).unwrap() == changed);

    std::fs::remove_file(server.path("in/big")).unwrap();
    let job = desk.start(&["put", "--limit", "8MiB", "big", &url], b"");
    wait_for_part(&server, 3 << 20);
    job.signal(Signal::KILL);
    assert_eq!(job.end().code, None);
    wait_until("its session is gone", support::PATIENCE, || {
        server.pids().is_empty()
    });
    let other = desk.run(&["put", "big", &url]);
    other.assert_code(0);
    assert!(!other.out.contains("of it now"), "{}", other.out);
    assert_eq!(tree(&server.root), ["in/big"]);
}

#[test]
fn a_second_interrupt_ends_a_command_at_once_and_the_first_within_its_grace() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server).key("shutdown.grace", "60s");
    desk.file("big", &content(6, 24 * MIB));
    let job = desk.start(&["put", "--limit", "8MiB", "big", &server.url("")], b"");
    wait_for_part(&server, 3 << 20);
    server.freeze();
    job.signal(Signal::INT);
    // The clean-up asks a server that does not answer.
    wait_until("it cleans up", support::PATIENCE, || {
        let told = std::fs::read_to_string(format!("/proc/{}/net/tcp", job.running.pid()));
        let port = format!(":{:04X} 01", server.addr.port());
        told.is_ok_and(|told| told.contains(&port))
    });
    job.signal(Signal::INT);
    let said = job.end();
    said.assert_code(130);
    server.thaw();
}

#[test]
fn a_terminal_shows_a_bar_and_a_pipe_plain_lines() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    desk.file("film.mp4", &content(7, 12 * MIB));
    desk.file("small", b"1");
    let url = server.url("in/");
    let args = ["put", "--limit", "6MiB", "film.mp4", "small", &url];
    let shown = desk.run_in_terminal(&args, "");
    shown.assert_code(0);
    for part in ["film.mp4", "[=", "MiB/s", "2 files", "/12.00 MiB", "2 sent"] {
        shown.assert_says(part);
    }
    let plain = desk.run(&args);
    plain.assert_code(0).assert_says("film.mp4: 12.0 MiB in");
    for text in [&plain.out, &plain.err] {
        assert!(!text.contains(['\x1b', '\r']), "{text:?}");
    }
    assert_eq!(plain.out.lines().count(), 3, "{}", plain.out);
    let quiet = desk.run(&["put", "-q", "small", &url]);
    quiet.assert_code(0);
    assert_eq!(quiet.out.clone() + &quiet.err, "");
}

#[test]
fn the_password_is_typed_unseen_and_stands_in_no_log() {
    let server = Server::proftpd(Opts::default());
    let desk = Desk::new();
    desk.file("f", b"f");
    let url = server.url("");
    let said = desk.run_in_terminal(&["put", "-vv", "f", &url], &server.password);
    said.assert_code(0)
        .assert_says(&format!("Password of {}", server.user))
        .assert_says("sends the password and the files in clear")
        .assert_says("(no echo)")
        .assert_says("(usual)");
    assert!(!said.out.contains(&server.password), "{}", said.out);
    assert_eq!(tree(&server.root), ["f"]);

    let by_file = Desk::new().env("FTPULSE_PASSWORD_FILE", "secret");
    by_file.file("secret", format!("{}\n", server.password).as_bytes());
    by_file.file("g", b"g");
    let said = by_file.run(&["put", "-vv", "g", &url]);
    said.assert_code(0);
    assert!(!said.err.contains(&server.password), "{}", said.err);
    assert_eq!(tree(&server.root), ["f", "g"]);
}

#[test]
fn a_hash_is_compared_where_the_server_tells_one_and_asked_for_in_vain_elsewhere() {
    let modules = support::recipes::cache().join("root/usr/lib/proftpd");
    let digest = format!(
        "ModulePath {}\nLoadModule mod_digest.c\nDigestEngine on",
        modules.display()
    );
    let server = Server::proftpd(Opts::default().line(digest));
    let desk = Desk::at(&server);
    desk.file("f", b"content");
    desk.run(&["put", "--verify", "hash", "f", &server.url("")])
        .assert_code(0);
    desk.run(&["get", "--verify", "hash", &server.url("f"), "g"])
        .assert_code(0);
    assert_eq!(desk.read("g"), b"content");
    let asked = server.log().matches("\"HASH ").count();
    assert!(asked >= 2, "{}", server.log());

    let without = Server::vsftpd(Opts::default());
    let desk = Desk::at(&without);
    desk.file("f", b"content");
    desk.run(&["put", "--verify", "hash", "f", &without.url("")])
        .assert_code(1)
        .assert_says("tells no hash")
        .assert_says("it is not tried again");
    assert_eq!(tree(&without.root), [""; 0]);
}

/// Each folder and each file has a data connection of its own, each has to resume the session, and
/// proftpd gives few tickets for that in TLS 1.3.
#[test]
fn a_tree_goes_both_ways_over_tls_that_has_to_be_resumed() {
    let authority = Arc::new(Authority::new());
    let strict: [fn(Opts) -> Server; 2] = [Server::vsftpd, Server::proftpd];
    for (start, only) in strict
        .into_iter()
        .flat_map(|start| [None, Some("TLSv1.3")].map(|only| (start, only)))
    {
        let server = start(Opts::default().tls(&authority).tls_with(|t| t.only = only));
        let desk = Desk::at(&server);
        let ca = authority.write(desk.dir.path()).display().to_string();
        let files: Vec<_> = (0..8).map(|i| format!("folder {i}/sub/file {i}")).collect();
        for name in &files {
            desk.file(&format!("tree/{name}"), name.as_bytes());
        }
        let url = server.url("in/tree");
        let put = desk.run(&["put", "-r", "--ca-file", &ca, "tree", &server.url("in/")]);
        put.assert_code(0).assert_says("8 sent, 0 failed");
        let get = desk.run(&["get", "-r", "--ca-file", &ca, &url, "back/"]);
        get.assert_code(0).assert_says("8 received, 0 failed");
        assert_eq!(tree(&desk.dir.path().join("back/tree")), files);
    }
}

#[test]
fn tls_and_active_mode_are_spoken_and_no_stranger_is_trusted() {
    let authority = Arc::new(Authority::new());
    let server = Server::vsftpd(Opts::default().tls(&authority));
    let desk = Desk::at(&server);
    let ca = authority.write(desk.dir.path());
    let ca = ca.file_name().unwrap().to_str().unwrap();
    let bytes = content(10, 3 * MIB);
    desk.file("f", &bytes);
    let url = server.url("in/");
    assert!(url.starts_with("ftpes://"), "{url}");
    let put = desk.run(&["put", "--active", "--ca-file", ca, "f", &url]);
    put.assert_code(0);
    assert!(std::fs::read(server.path("in/f")).unwrap() == bytes);
    let get = desk.run(&["get", "--insecure", &server.url("in/f"), "g"]);
    get.assert_code(0).assert_says("not verified");
    assert!(desk.read("g") == bytes);
    desk.run(&["list", "--ca-file", ca, "--active", &url])
        .assert_code(0)
        .assert_says("  f");
    let strange = desk.run(&["put", "f", &server.url("in/other")]);
    strange.assert_code(1).assert_says("certificate");
    assert_eq!(tree(&server.root), ["in/f"]);
}

/// Puts a file on the server, as its own users do.
fn offer(server: &Server, name: &str, bytes: &[u8]) {
    let path = server.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn every_form_of_get_arrives_whole_and_leaves_the_server_as_it_was() {
    for server in Server::all(&Opts::default()) {
        let desk = Desk::at(&server);
        let large = content(8, 9 * MIB);
        offer(&server, "out/report.csv", b"a,b\n");
        offer(&server, "out/film.mp4", &large);
        offer(&server, "out/f/one", b"1");
        offer(&server, "out/f/sub/two words", b"2");
        let before = tree(&server.root);
        let get = |args: &[&str]| desk.run(&[&["get"], args].concat());

        std::fs::create_dir(desk.dir.path().join("here")).unwrap();
        get(&[&server.url("out/report.csv"), "here"]).assert_code(0);
        get(&[&server.url("out/report.csv"), "new/"]).assert_code(0);
        get(&["-v", &server.url("out/film.mp4"), "other.mp4"])
            .assert_code(0)
            .assert_says("film.mp4: 9.0 MiB");
        get(&["-r", &server.url("out/f"), "all/"])
            .assert_code(0)
            .assert_says("2 received, 0 failed");
        get(&["-r", &server.url("out/f/"), "renamed"]).assert_code(0);
        let piped = desk.start(&["get", &server.url("out/film.mp4"), "-"], b"");
        let (code, out, err) = piped.end_raw();
        assert!(code == Some(0) && out == large, "{} {err}", server.name);

        assert_eq!(desk.read("here/report.csv"), b"a,b\n");
        assert_eq!(desk.read("new/report.csv"), b"a,b\n");
        assert!(desk.read("other.mp4") == large, "{}", server.name);
        for folder in ["all/f", "renamed"] {
            let found = tree(&desk.dir.path().join(folder));
            assert_eq!(found, ["one", "sub/two words"], "{}", server.name);
        }
        assert_eq!(tree(&server.root), before, "{}", server.name);
        assert_eq!(desk.remembered(), 0);

        get(&[&server.url("out/none"), "x"])
            .assert_code(1)
            .assert_says("no such file");
        get(&[&server.url("out/none/deeper"), "x"]).assert_code(1);
        get(&[&server.url("out/"), "x"])
            .assert_code(2)
            .assert_says("-r");
        get(&["-r", &server.url("out/"), "-"]).assert_code(2);
        assert_eq!(tree(&server.root), before, "no folder is made there");
    }
}

#[test]
fn a_listing_is_shown_safely_and_written_whole() {
    for server in Server::all(&Opts::default()) {
        let desk = Desk::at(&server);
        offer(&server, "out/a b", b"12345");
        offer(&server, "out/sub/x", b"1");
        let url = server.url("out");
        let said = desk.run(&["list", &url]);
        said.assert_code(0);
        let lines: Vec<&str> = said.out.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].ends_with("  5  a b"),
            "{}: {said:?}",
            server.name
        );
        assert!(lines[1].ends_with("  sub/"), "{}: {said:?}", server.name);

        let said = desk.run(&["list", "--json", &url]);
        let objects: Vec<serde_json::Value> = said
            .out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects[0]["name"], "a b");
        assert_eq!(
            (&objects[0]["type"], &objects[0]["size"]),
            (&"file".into(), &5.into())
        );
        assert_eq!(objects[1]["type"], "folder");

        let path = desk.file("listing", b"old");
        let held = std::fs::File::open(&path).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockShared).unwrap();
        let said = desk.run(&["list", &url, "listing"]);
        said.assert_code(1).assert_says("locked by pid");
        assert_eq!(desk.read("listing"), b"old");
        drop(held);
        desk.run(&["list", &url, "listing"]).assert_code(0);
        assert_eq!(
            String::from_utf8(desk.read("listing"))
                .unwrap()
                .lines()
                .count(),
            2
        );
        desk.run(&["list", &server.url("none")])
            .assert_code(1)
            .assert_says("CWD");
        assert_eq!(
            tree(&server.root),
            ["out/a b", "out/sub/x"],
            "no folder is made"
        );
    }
}

#[test]
fn hostile_names_do_not_leave_the_target_folder_nor_act_on_the_terminal() {
    let listing = r#"
from pyftpdlib.filesystems import AbstractedFS
def format_mlsx(self, basedir, listing, perms, facts, ignore_err=True):
    names = ["../evil", "/tmp/ftpulse-evil", "a\\b", "\x1b[2Jx", "good"]
    for name in names if len(listing) > 1 else listing:
        yield f"type=file;size=4;modify=20240101000000; {name}\r\n".encode()
AbstractedFS.format_mlsx = format_mlsx
"#;
    let extra = vec![listing.to_owned()];
    let server = Server::pyftpdlib(Opts {
        extra,
        ..Opts::default()
    });
    let desk = Desk::at(&server);
    for name in ["good", "other"] {
        offer(&server, name, b"good");
    }
    let said = desk.run(&["get", "-r", &server.url(""), "in/here"]);
    said.assert_code(1)
        .assert_says("it is not downloaded: it holds a /");
    assert!(!said.err.contains('\x1b'), "{}", said.err);
    assert_eq!(desk.read("in/here/good"), b"good");
    assert!(
        !tree(desk.dir.path())
            .iter()
            .any(|name| name.ends_with("evil"))
    );
    let said = desk.run(&["list", &server.url("")]);
    said.assert_code(0).assert_says("\\x1b[2Jx");
    assert!(!said.out.contains('\x1b'), "{}", said.out);
}

/// Waits until a temp file of a download has that size.
fn wait_for_local_part(desk: &Desk, bytes: u64) {
    wait_until("a part is here", support::PATIENCE, || {
        let large = |name: &String| {
            let size = std::fs::metadata(desk.dir.path().join(name)).map_or(0, |f| f.len());
            name.ends_with(".part") && size >= bytes
        };
        tree(desk.dir.path()).iter().any(large)
    });
}

fn local_parts(desk: &Desk) -> usize {
    let files = tree(desk.dir.path());
    files.iter().filter(|name| name.ends_with(".part")).count()
}

#[test]
fn a_get_survives_a_stopped_session_and_an_interrupted_one_is_gone_on_with() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    let bytes = content(9, 24 * MIB);
    offer(&server, "big", &bytes);
    let url = server.url("big");
    let slowly = ["get", "--limit", "8MiB", &url, "big"];

    let job = desk.start(&slowly, b"");
    wait_for_local_part(&desk, 3 << 20);
    assert!(!server.freeze_sessions().is_empty());
    let said = job.end();
    said.assert_code(0)
        .assert_says("big: receiving failed (attempt 1 of 5): no sign of life")
        .assert_says("of it now");
    server.thaw();
    assert!(desk.read("big") == bytes);
    std::fs::remove_file(desk.dir.path().join("big")).unwrap();

    for signal in [Signal::INT, Signal::TERM] {
        let job = desk.start(&slowly, b"");
        wait_for_local_part(&desk, 3 << 20);
        job.signal(signal);
        job.end().assert_code(128 + signal.as_raw());
        assert_eq!((local_parts(&desk), desk.remembered()), (0, 0));
    }

    let job = desk.start(&[&slowly[..], &["--continue"]].concat(), b"");
    wait_for_local_part(&desk, 3 << 20);
    job.signal(Signal::INT);
    job.end().assert_code(130);
    assert_eq!((local_parts(&desk), desk.remembered()), (1, 1));
    desk.run(&["get", "--continue", &url, "big"])
        .assert_code(0)
        .assert_says("download resumed")
        .assert_says("of it now");
    assert!(desk.read("big") == bytes);
    assert_eq!((local_parts(&desk), desk.remembered()), (0, 0));

    let job = desk.start(&slowly, b"");
    wait_for_local_part(&desk, 3 << 20);
    job.signal(Signal::KILL);
    assert_eq!(job.end().code, None);
    desk.run(&["get", &url, "big"]).assert_code(0);
    assert!(desk.read("big") == bytes);
    assert_eq!((local_parts(&desk), desk.remembered()), (0, 0));
}

#[test]
fn a_disk_that_hangs_does_not_hold_the_command() {
    let server = Server::vsftpd(Opts::default());
    let desk = Desk::at(&server);
    let at = desk.dir.path().join("disk");
    std::fs::create_dir(&at).unwrap();
    let Some(disk) = hung::HungDisk::mount(&at, &["one.bin"]) else {
        println!("not run: this machine does not let us mount a file system");
        return;
    };
    let said = desk.run(&["put", "disk/one.bin", &server.url("")]);
    said.assert_code(1)
        .assert_says("no sign of life in the phase transfer (disk)")
        .assert_says("workers cannot be ended");
    disk.mend();
}

#[cfg(feature = "lab")]
mod lab {
    use super::*;
    use ftpulse::lab::{Fault, LabServer, Named};

    /// What a server refuses for good is not tried again.
    const FOR_GOOD: [&str; 5] = [
        "login-refused",
        "mid-file-552",
        "stor-550",
        "stor-552",
        "stor-553",
    ];

    /// A put meets the fault and delivers all the same, unless it is refused for good; nothing else
    /// is left on the server.
    fn one(named: &Named) {
        let root = support::temp_dir();
        let fault = Fault::from_name(named.name).unwrap();
        let lab = LabServer::start(root.path(), fault).unwrap();
        let desk = Desk::new().env("FTPULSE_PASSWORD", lab.password());
        let len = if named.name == "trickle" {
            50_000
        } else {
            12 * MIB
        };
        let bytes = content(11, len);
        desk.file("big", &bytes);
        let said = desk.run(&["put", "big", &lab.url("in/")]);
        println!("{:22} exit {:?}\n{}", named.name, said.code, said.err);
        if FOR_GOOD.contains(&named.name) {
            said.assert_code(1).assert_says("it is not tried again");
            assert_eq!(tree(root.path()), [""; 0]);
        } else {
            said.assert_code(0);
            assert_eq!(tree(root.path()), ["in/big"]);
            assert!(std::fs::read(root.path().join("in/big")).unwrap() == bytes);
        }
    }

    #[test]
    fn a_put_survives_every_fault_of_the_lab() {
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
}

/// The password of somebody is not told to whoever answers to an anonymous login.
#[cfg(feature = "lab")]
#[test]
fn an_anonymous_login_gets_no_password_of_ours() {
    use ftpulse::lab::{LabServer, Script};
    let root = support::temp_dir();
    let script = Script {
        user: "anonymous".into(),
        password: "ftpulse@".into(),
        ..Script::healthy()
    };
    let lab = LabServer::start(root.path(), script).unwrap();
    std::fs::write(root.path().join("there.txt"), b"x").unwrap();
    let desk = Desk::new().env("FTPULSE_PASSWORD", "s3cret");
    let url = format!("ftp://{}/", lab.addr());
    for args in [vec!["list", &url], vec!["list", &url, "-"]] {
        let said = desk.run(&args);
        said.assert_code(0);
        assert!(said.out.contains("there.txt"), "{}", said.out);
    }
    let mine = format!("ftp://anonymous@{}/", lab.addr());
    desk.run(&["list", &mine]).assert_code(1);
}

#[test]
fn one_attempt_connects_once() {
    let desk = Desk::new().env("FTPULSE_PASSWORD", "s3cret");
    desk.file("f", b"f");
    let said = desk.run(&["put", "--attempts", "1", "f", "ftp://me@127.0.0.1:1/"]);
    said.assert_code(1);
    assert!(!said.err.contains("again in"), "{}", said.err);
}
