//! The seats of a destination: a server that grants fewer sessions than there are uploaders, and
//! one that refuses the login. Every file arrives, few sessions are refused, and no wrong password
//! is tried in a storm. FTPULSE_LOGIN_MINUTES sets how long a wrong password is tried by default.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;
mod wedge_common;

use std::fs;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Fault, Kind, LabServer, Script};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, count_of, temp_dir, wait_until};
use wedge_common::*;

/// Sessions that did not come to be, as the service tells them.
fn refused(service: &Ftpulse) -> usize {
    service.logged("the destination gives no session").len()
}

fn logins_refused(service: &Ftpulse) -> Vec<serde_json::Value> {
    let lines = service
        .logged("the destination gives no session")
        .into_iter();
    lines.filter(|l| l["login"] == "refused").collect()
}

/// What may be refused: each uploader once at first, a halving each, one for each pair that was
/// given back, then one more seat tried after 5, 10, 20 ... seconds.
fn bound(uploaders: usize, ghosts: usize, took: Duration) -> usize {
    let raises = (took.as_secs_f64() / 5.0 + 1.0).log2().ceil() as usize;
    uploaders + 3 + 2 * ghosts + raises
}

fn name(number: usize) -> String {
    format!("f{number:03}")
}

fn bytes(number: usize) -> Vec<u8> {
    content(number as u64, 200_000 + number)
}

#[test]
fn three_seats_for_eight_uploaders_deliver_everything_and_few_are_refused() {
    let server = Server::pyftpdlib(Opts::default().per_ip(3));
    let service = Settings::new()
        .quick()
        .key("routes.main.uploaders", "8")
        .route("main", &server, "in")
        .start();
    let files = count_of("FTPULSE_FILES", 150);
    let began = clock::mono();
    for number in 0..files {
        service.put("main", &name(number), &bytes(number));
    }
    let (mut last, mut longest) = (clock::mono(), Duration::ZERO);
    let mut done = 0;
    while done < files {
        wait_until("another file is delivered", PATIENCE, || {
            service.logged("file delivered").len() > done
        });
        done = service.logged("file delivered").len();
        longest = longest.max(clock::mono() - last);
        last = clock::mono();
    }
    service.wait_spool_empty("main", PATIENCE);
    let took = clock::mono() - began;
    for number in 0..files {
        let there = fs::read(server.root.join("in").join(name(number))).unwrap();
        assert!(there == bytes(number), "{number}");
    }
    let refused = refused(&service);
    println!("{files} files in {took:.1?}, {refused} sessions refused, longest gap {longest:.2?}");
    assert!(refused >= 1, "the server grants three at most");
    assert!(refused <= bound(8, 0, took), "{refused} in {took:.1?}");
    assert!(service.logged("upload failed").is_empty(), "no file failed");
}

#[test]
fn two_pairs_in_quarantine_count_as_seats_and_are_given_back_when_they_are_needed() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    for file in ["wedged-1", "wedged-2"] {
        lab.add_fault(wedge(file));
    }
    let service = Settings::new()
        .quick()
        .key("heartbeat.interval", "200ms")
        .key("routes.main.uploaders", "8")
        .route_to("main", &lab.url("in"), lab.password())
        .start();
    for file in ["wedged-1", "wedged-2"] {
        service.put("main", file, &content(1, SIZE));
    }
    service.wait_metrics("two pairs are held", |m| {
        m.get("ftpulse_quarantine_pairs", &[]) == Some(2.0)
    });
    lab.add_fault(Fault::new(Kind::Seats { max: 3 }).always());
    let began = clock::mono();
    let files = count_of("FTPULSE_FILES", 150);
    for number in 0..files {
        service.put("main", &name(number), &bytes(number));
    }
    for number in 0..files {
        service.wait_delivered(&name(number));
    }
    service.wait_spool_empty("main", PATIENCE);
    let took = clock::mono() - began;
    for number in 0..files {
        let there = fs::read(root.path().join("in").join(name(number))).unwrap();
        assert!(there == bytes(number), "{number}");
    }
    let refused = refused(&service);
    let given_back = releases(&service.metrics(), "seats");
    println!(
        "{files} files in {took:.1?}, {refused} sessions refused, {given_back} pairs given back"
    );
    assert!(refused >= 1 && given_back >= 1.0, "{refused}, {given_back}");
    assert!(refused <= bound(8, 2, took), "{refused} in {took:.1?}");
}

/// What a stretch of time was like for the server and for whoever waits for the files.
fn tell(what: &str, files: usize, took: Duration, (opened, refused): (usize, usize)) {
    let (seconds, asked) = (took.as_secs_f64(), opened + refused);
    println!(
        "{what}: {files} files in {took:.1?}, {:.1} files/s; {asked} connections ({refused} \
         refused), {:.1} a minute",
        files as f64 / seconds,
        asked as f64 * 60.0 / seconds,
    );
}

#[test]
fn a_real_server_with_three_seats_of_which_two_are_stopped_gets_no_storm() {
    let rate = ["anon_max_rate=4000000", "local_max_rate=4000000"];
    let opts = Opts::default().per_ip(3).line(rate[0]).line(rate[1]);
    let server = Server::vsftpd(opts);
    let service = Settings::new()
        .quick()
        .key("heartbeat.interval", "200ms")
        .key("routes.main.uploaders", "8")
        .route("main", &server, "in")
        .start();
    // Larger than all buffers, and slow: the server is stopped in the middle of both.
    for file in ["wedged-1", "wedged-2"] {
        service.put("main", file, &content(1, 16 << 20));
    }
    wait_until("both are on their way", PATIENCE, || {
        let status = service.json("/api/status");
        let slots = status["routes"][0]["slots"].as_array().unwrap().clone();
        let moving = |s: &&serde_json::Value| s["bytes_sent"].as_u64() > Some(0);
        slots.iter().filter(moving).count() == 2
    });
    server.freeze_sessions();
    service.wait_metrics("two pairs are put away", |m| {
        m.sum("ftpulse_uploader_resets_total", &[]) >= 2.0
    });
    let asked = || {
        let opened = service.logged("session opened").len();
        (opened, refused(&service))
    };
    let since = |before: (usize, usize)| {
        let now = asked();
        (now.0 - before.0, now.1 - before.1)
    };
    let delivered = || service.logged("file delivered").len();
    let files = count_of("FTPULSE_FILES", 100);
    // The stopped sessions hold two seats, whatever we do: all goes through the third.
    let (before, began) = (asked(), clock::mono());
    for number in 0..files {
        service.put("main", &name(number), &bytes(number));
    }
    let patience = PATIENCE + Duration::from_millis(300) * files as u32;
    wait_until("all are delivered by one", patience, || {
        delivered() >= files + 2
    });
    let took = clock::mono() - began;
    let (opened, refused) = since(before);
    tell(
        "two of three seats stopped",
        files + 2,
        took,
        (opened, refused),
    );
    let limit = bound(8, 2, took);
    assert!(refused >= 1 && refused <= limit, "{refused}, {limit}");
    let given_back = releases(&service.metrics(), "seats");
    println!("{given_back} pairs given back");
    assert!(
        given_back >= 1.0,
        "a refused session asks for the seats of the pairs"
    );
    // The server goes on: its sessions find that they were given up, and end.
    server.thaw();
    let (before, began) = (asked(), clock::mono());
    for number in files..3 * files {
        service.put("main", &name(number), &bytes(number));
    }
    wait_until("all are delivered", patience, || {
        delivered() == 3 * files + 2
    });
    let took = clock::mono() - began;
    let (opened, refused) = since(before);
    tell("after the thaw", 2 * files, took, (opened, refused));
    assert!(refused <= bound(0, 0, took), "{refused} in {took:.1?}");
    service.wait_spool_empty("main", PATIENCE);
    for number in 0..3 * files {
        let there = fs::read(server.root.join("in").join(name(number))).unwrap();
        assert!(there == bytes(number), "{number}");
    }
    for file in ["wedged-1", "wedged-2"] {
        let there = fs::read(server.root.join("in").join(file)).unwrap();
        assert!(there == content(1, 16 << 20), "{file}");
    }
}

#[test]
fn a_wrong_password_of_one_route_does_not_hold_up_another_of_the_same_user() {
    let server = Server::pyftpdlib(Opts::default());
    let service = Settings::new()
        .quick()
        .route_to("bad", &server.url("bad"), "not the password")
        .route("good", &server, "good")
        .start();
    service.put("bad", "waits", b"waits");
    service.wait_log("the destination gives no session", |l| {
        l["login"] == "refused"
    });
    for number in 0..10 {
        service.put("good", &name(number), b"fine");
        service.wait_delivered(&name(number));
    }
    let routes = service.json("/api/status")["routes"].clone();
    let problem = routes[0]["destination_problem"].as_str().unwrap();
    assert!(problem.contains("the login is refused"), "{problem}");
    assert!(routes[1]["destination_problem"].is_null(), "{routes:#}");
    let tries = logins_refused(&service);
    assert!(tries.iter().all(|l| l["route"] == "bad"), "{tries:?}");
}

#[test]
fn a_server_whose_seats_others_hold_from_the_start_is_no_wrong_password() {
    let server = Server::proftpd(Opts::default().line("MaxClientsPerUser 1"));
    let mut other = suppaftp::FtpStream::connect(server.addr).unwrap();
    other.login(&server.user, &server.password).unwrap();
    let service = Settings::new()
        .quick()
        .key("routes.main.uploaders", "4")
        .route("main", &server, "in")
        .start();
    for number in 0..5 {
        service.put("main", &name(number), b"waits");
    }
    service.wait_log("the destination gives no session", |l| l["failures"] == 3);
    let lines = service.logged("the destination gives no session");
    println!("{}", lines[0]);
    assert!(
        lines[0]["error"].as_str().unwrap().contains("530"),
        "{}",
        lines[0]
    );
    assert!(logins_refused(&service).is_empty(), "{lines:?}");
    other.quit().unwrap();
    for number in 0..5 {
        service.wait_delivered(&name(number));
    }
    service.wait_spool_empty("main", PATIENCE);
    assert!(service.logged("upload failed").is_empty(), "no file failed");
}

#[test]
fn a_password_that_is_mended_is_tried_at_once_after_a_restart() {
    let server = Server::pyftpdlib(Opts::default());
    // The pause is the default's: a minute at first.
    let service = Settings::new()
        .route_to("main", &server.url("in"), "not the password")
        .start();
    service.put("main", "waits", b"waits");
    service.wait_log("the destination gives no session", |l| {
        l["login"] == "refused"
    });
    assert_eq!(pauses(&service), [60]);
    let variable = support::service::variable("routes.main.password");
    let service = service.restart_with(&variable, Some(&server.password));
    service.wait_delivered("waits");
    assert!(
        service
            .logged("the destination gives no session")
            .is_empty()
    );
}

#[test]
fn two_routes_share_the_only_seat_of_their_destination() {
    let server = Server::pyftpdlib(Opts::default().per_ip(1));
    let service = Settings::new()
        .quick()
        .route("a", &server, "a")
        .route("b", &server, "b")
        .start();
    for number in 0..20 {
        service.put("a", &name(number), b"of a");
        service.put("b", &name(number), b"of b");
    }
    for route in ["a", "b"] {
        service.wait_spool_empty(route, PATIENCE);
        assert_eq!(
            fs::read_dir(server.root.join(route)).unwrap().count(),
            20,
            "{route}"
        );
    }
    println!("{} sessions refused", refused(&service));
    assert!(service.logged("upload failed").is_empty(), "no file failed");
    // Later again, when one of them sits on the seat with nothing to do.
    service.put("a", "again", b"a");
    service.wait_delivered("again");
    service.put("b", "again-b", b"b");
    service.wait_delivered("again-b");
}

#[test]
fn a_route_whose_folder_is_refused_does_not_hold_up_another_to_the_same_server() {
    let server = Server::pyftpdlib(Opts::default());
    fs::write(server.root.join("taken"), b"a file, no folder").unwrap();
    let service = Settings::new()
        .quick()
        .route("bad", &server, "taken")
        .route("good", &server, "good")
        .start();
    service.put("bad", "never", b"never");
    service.wait_log("the destination gives no session", |l| l["failures"] == 2);
    for number in 0..10 {
        service.put("good", &name(number), b"fine");
        service.wait_delivered(&name(number));
    }
    let routes = service.json("/api/status")["routes"].clone();
    assert!(routes[0]["destination_problem"].is_string(), "{routes:#}");
    assert!(routes[1]["destination_problem"].is_null(), "{routes:#}");
}

/// The pauses after refused logins, as the log has them, in seconds.
fn pauses(service: &Ftpulse) -> Vec<u64> {
    let lines = logins_refused(service);
    let pause = |line: &serde_json::Value| {
        let next = line["next"].as_str().unwrap();
        let (_, rest) = next.split_once("again in ").unwrap();
        let (seconds, _) = rest.split_once("s,").unwrap();
        seconds.parse().unwrap()
    };
    lines.iter().map(pause).collect()
}

#[test]
fn a_wrong_password_is_tried_by_one_session_after_pauses_that_double_and_says_what_to_do() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Fault::new(Kind::LoginRefused).first(3)).unwrap();
    let service = Settings::new()
        .quick() // retry.max = 1s: the first pause
        .key("routes.main.uploaders", "8")
        .route_to("main", &lab.url("in"), lab.password())
        .start();
    for number in 0..20 {
        service.put("main", &name(number), b"waits");
    }
    let line = service.wait_log("the destination gives no session", |l| {
        l["login"] == "refused" && l["failures"] == 2
    });
    assert!(
        line["next"]
            .as_str()
            .unwrap()
            .contains("routes.main.user and .password"),
        "{line}"
    );
    let problem = service.json("/api/status")["routes"][0]["destination_problem"].clone();
    let problem = problem.as_str().unwrap_or_default().to_owned();
    println!("{problem}");
    assert!(
        problem.contains("the login is refused") && problem.contains("530"),
        "{problem}"
    );
    assert_eq!(lab.counters().strikes, 2, "one session each");
    for number in 0..20 {
        service.wait_delivered(&name(number));
    }
    assert_eq!(lab.counters().strikes, 3);
    assert_eq!(pauses(&service), [1, 2, 4]);
    assert!(service.logged("upload failed").is_empty(), "no file failed");
    let problem = service.json("/api/status")["routes"][0]["destination_problem"].clone();
    assert!(problem.is_null(), "{problem}");
}

#[test]
fn a_real_server_sees_one_wrong_login_and_then_long_nothing() {
    let minutes = count_of("FTPULSE_LOGIN_MINUTES", 0);
    let server = Server::vsftpd(Opts::default());
    let service = Settings::new()
        .key("routes.main.uploaders", "8")
        .route_to("main", &server.url("in"), "not the password")
        .start();
    for number in 0..20 {
        service.put("main", &name(number), b"waits");
    }
    service.wait_log("the destination gives no session", |l| {
        l["login"] == "refused"
    });
    let end = clock::mono() + Duration::from_secs(minutes as u64 * 60);
    wait_until(
        "the time is over",
        end.saturating_sub(clock::mono()) + PATIENCE,
        || clock::mono() >= end,
    );
    let logins = logins_refused(&service).len();
    println!(
        "{logins} logins in {minutes} min, pauses {:?} s",
        pauses(&service)
    );
    let expected = [0, 60, 180, 420, 900];
    let due = expected.iter().filter(|at| **at <= minutes * 60).count();
    assert!(logins <= due, "{logins}");
    assert_eq!(pauses(&service)[..1], [60]);
    assert_eq!(refused(&service), logins);
    assert!(!service.log_text().contains("not the password"));
}
