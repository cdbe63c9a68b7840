//! The lab server is correct FTP when healthy; a session can go silent at each step and goes on
//! where it stood; its script is obeyed; it ends without a trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod lab_common;

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use ftpulse::clock::mono;
use ftpulse::lab::{Event, Fault, Kind, Quirk, Script, Step, TransferEnd, Until};
use lab_common::*;
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpStream, Mode, Status};

// ---------------------------------------------------------------- healthy

#[test]
fn a_healthy_server_stores_and_returns_files_of_any_name_and_size() {
    let mut lab = Lab::new([]);
    let mut ftp = lab.client();
    let long = "n".repeat(255);
    for (name, size) in [
        ("plain.bin", 1 << 20),
        ("empty", 0),
        ("two words  .txt", 10),
        ("-dash", 1),
        ("späße-日本語", 70_000),
        (" leading", 5),
        ("quote\"d", 5),
        (long.as_str(), 3),
    ] {
        let content = bytes(size);
        ftp.put_file(name, &mut content.as_slice()).unwrap();
        assert_eq!(
            lab.file(name).as_deref(),
            Some(content.as_slice()),
            "{name}"
        );
        assert_eq!(ftp.size(name).unwrap(), size);
        assert_eq!(
            ftp.retr_as_buffer(name).unwrap().into_inner(),
            content,
            "{name}"
        );
        let stored = lab.event(|e| matches!(e, Event::Stored { .. }));
        let path = format!("/{name}");
        assert!(matches!(stored, Event::Stored { path: p, bytes, .. }
            if p == path && bytes == size as u64));
    }
    assert!(ftp.mdtm("plain.bin").is_ok());
    ftp.quit().unwrap();
    lab.event(|e| matches!(e, Event::Ended { .. }));
    let counters = lab.server.counters();
    assert_eq!(
        (counters.stored, counters.stor_count, counters.sessions_open),
        (8, 8, 0)
    );
}

#[test]
fn folders_are_made_entered_listed_and_removed() {
    let lab = Lab::new([]);
    let mut ftp = lab.client();
    assert_eq!(ftp.pwd().unwrap(), "/");
    ftp.mkdir("in").unwrap();
    assert_eq!(code(ftp.mkdir("in").unwrap_err()), Status::FileUnavailable);
    ftp.cwd("in").unwrap();
    assert_eq!(ftp.pwd().unwrap(), "/in");
    ftp.put_file("a b", &mut &b"12345"[..]).unwrap();
    ftp.mkdir("sub").unwrap();
    assert_eq!(ftp.nlst(None).unwrap(), ["a b", "sub"]);
    let list = ftp.list(Some("/in")).unwrap();
    let file = suppaftp::list::ListParser::parse_posix(&list[0]).unwrap();
    assert_eq!((file.name(), file.size()), ("a b", 5));
    let mlsd = ftp.mlsd(None).unwrap();
    let file = suppaftp::list::ListParser::parse_mlsd(&mlsd[0]).unwrap();
    assert_eq!((file.name(), file.size(), file.is_file()), ("a b", 5, true));
    assert!(ftp.mlst(Some("a b")).unwrap().contains("size=5"));
    assert!(ftp.feat().unwrap().contains_key("EPSV"));
    ftp.rmdir("sub").unwrap();
    ftp.rm("a b").unwrap();
    ftp.cdup().unwrap();
    ftp.rmdir("in").unwrap();
    assert!(ftp.nlst(None).unwrap().is_empty());
    ftp.opts("UTF8", Some("ON")).unwrap();
    ftp.noop().unwrap();
}

#[test]
fn a_rename_replaces_and_a_partial_file_is_visible_while_it_arrives() {
    let mut lab = Lab::new([]);
    lab.put_file("final", b"old");
    let mut raw = lab.logged_in();
    let mut data = raw.stor("temp");
    lab.event(|e| matches!(e, Event::Storing { .. }));
    assert_eq!(lab.file("temp").unwrap(), b"");
    data.write_all(b"new").unwrap();
    drop(data);
    raw.expect(226);
    raw.ask("RNFR temp", 350);
    raw.ask("RNTO final", 250);
    let renamed = lab.event(|e| matches!(e, Event::Renamed { .. }));
    let session = renamed.session();
    let (from, to) = ("/temp".into(), "/final".into());
    assert_eq!(renamed, Event::Renamed { session, from, to });
    assert_eq!(lab.file("final").unwrap(), b"new");
    assert_eq!(lab.file("temp"), None);
    raw.ask("RNFR temp", 550);
    raw.ask("RNTO final", 503);
    raw.ask("APPE final", 502);
    raw.ask("NONSENSE", 502);
}

#[test]
fn an_upload_resumes_at_the_position_of_rest_without_losing_what_stood_before() {
    let lab = Lab::new([]);
    lab.put_file("f", b"0123456789");
    let mut raw = lab.logged_in();
    raw.ask("REST 8", 350);
    raw.put("f", b"ABCD");
    assert_eq!(lab.file("f").unwrap(), b"01234567ABCD");
    raw.put("f", b"x");
    assert_eq!(lab.file("f").unwrap(), b"x");
}

#[test]
fn no_path_leads_out_of_the_root() {
    let lab = Lab::new([]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"s").unwrap();
    std::os::unix::fs::symlink(outside.path(), lab.dir.path().join("link")).unwrap();
    let mut raw = lab.logged_in();
    for path in ["link/secret", "/../../../../etc/passwd", "link"] {
        raw.ask(&format!("SIZE {path}"), 550);
    }
    let data = raw.data();
    raw.ask("STOR link/new", 553);
    raw.ask("DELE link/secret", 550);
    raw.ask("CWD link", 550);
    drop(data);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn without_login_and_with_a_wrong_password_nothing_is_served() {
    let mut lab = Lab::new([]);
    let mut raw = lab.raw();
    raw.expect(220);
    raw.ask("PWD", 530);
    raw.ask("USER lab", 331);
    raw.ask("PASS secret", 530);
    raw.ask("STOR x", 530);
    assert!(
        lab.events
            .drain()
            .iter()
            .all(|e| !format!("{e:?}").contains("secret"))
    );
}

#[test]
fn two_hundred_sessions_upload_at_once() {
    let lab = Lab::new([]);
    let content = bytes(50_000);
    let mut clients: Vec<_> = (0..200).map(|_| lab.logged_in()).collect();
    let transfers: Vec<_> = clients
        .iter_mut()
        .enumerate()
        .map(|(i, raw)| raw.stor(&format!("f{i}")))
        .collect();
    let counters = lab.server.counters();
    assert_eq!((counters.sessions_open, counters.data_open), (200, 200));
    for mut data in transfers {
        data.write_all(&content).unwrap();
    }
    for raw in &mut clients {
        raw.expect(226);
    }
    assert!((0..200).all(|i| lab.file(&format!("f{i}")).unwrap() == content));
    drop(clients);
    lab.server
        .wait_counters(|c| c.sessions_open == 0 && c.data_open == 0, PATIENCE)
        .unwrap();
}

// ---------------------------------------------------------------- silence and thaw

#[test]
fn each_step_can_go_silent_and_goes_on_where_it_stood_at_the_thaw() {
    for step in [
        Step::Greeting,
        Step::User,
        Step::Pass,
        Step::Epsv,
        Step::Stor,
        Step::Final,
        Step::Size,
        Step::Rnfr,
        Step::Rnto,
    ] {
        let kind = Kind::NoReply(step);
        let mut lab = Lab::new([Fault::new(kind).until_thaw()]);
        let mut raw = lab.raw();
        let at = |lab: &mut Lab, raw: &mut Raw, this: Step, say: &str, code: u16| {
            if !say.is_empty() {
                raw.say(say);
            }
            if this == step {
                lab.struck(kind.name());
                lab.frozen(1);
                assert!(raw.is_silent(), "{step:?}");
                assert_eq!(lab.file("b"), None);
                lab.server.thaw();
            }
            raw.expect(code)
        };
        at(&mut lab, &mut raw, Step::Greeting, "", 220);
        at(&mut lab, &mut raw, Step::User, "USER lab", 331);
        at(&mut lab, &mut raw, Step::Pass, "PASS lab", 230);
        let reply = at(&mut lab, &mut raw, Step::Epsv, "EPSV", 229);
        let port: u16 = reply.split('|').nth(3).unwrap().parse().unwrap();
        let mut data = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        at(&mut lab, &mut raw, Step::Stor, "STOR a", 150);
        data.write_all(b"content").unwrap();
        drop(data);
        at(&mut lab, &mut raw, Step::Final, "", 226);
        at(&mut lab, &mut raw, Step::Size, "SIZE a", 213);
        at(&mut lab, &mut raw, Step::Rnfr, "RNFR a", 350);
        at(&mut lab, &mut raw, Step::Rnto, "RNTO b", 250);
        assert_eq!(lab.file("b").unwrap(), b"content");
        lab.event(|e| matches!(e, Event::Thawed { .. }));
        assert_eq!(lab.server.counters().strikes, 1);
        // The next one is served.
        raw.put("a", b"");
    }
}

#[test]
fn a_silence_ends_by_itself_after_its_time() {
    let time = Duration::from_millis(300);
    let lab = Lab::new([Fault::new(Kind::NoReply(Step::Size)).ends_after(time)]);
    lab.put_file("a", b"1");
    let mut raw = lab.logged_in();
    let asked = mono();
    raw.ask("SIZE a", 213);
    assert!(mono() - asked >= time);
}

#[test]
fn an_unread_rnto_is_executed_at_the_thaw_although_its_client_is_gone() {
    let mut lab = Lab::new([Fault::new(Kind::NoReply(Step::Rnto)).until_thaw()]);
    lab.put_file("temp", b"old version");
    let mut raw = lab.logged_in();
    raw.ask("RNFR temp", 350);
    raw.say("RNTO final");
    let session = lab.struck("no-reply-rnto");
    lab.frozen(1);
    drop(raw.replies);
    reset(raw.stream);
    assert_eq!(lab.file("final"), None);
    lab.server.thaw();
    lab.event(|e| matches!(e, Event::Renamed { .. }));
    assert_eq!(lab.file("final").unwrap(), b"old version");
    lab.event(|e| *e == Event::Ended { session });
}

#[test]
fn commands_that_wait_in_the_socket_are_executed_at_the_thaw() {
    let mut lab = Lab::new([Fault::new(Kind::NoReply(Step::Rnfr)).until_thaw()]);
    lab.put_file("temp", b"x");
    let mut raw = lab.logged_in();
    raw.say("RNFR temp");
    lab.struck("no-reply-rnfr");
    lab.frozen(1);
    raw.say("RNTO final");
    drop(raw.replies);
    reset(raw.stream);
    lab.server.thaw();
    lab.event(|e| matches!(e, Event::Renamed { .. }));
    assert_eq!(lab.file("final").unwrap(), b"x");
}

#[test]
fn a_late_rnto_finds_nothing_when_the_temp_name_was_taken_away_meanwhile() {
    let mut lab = Lab::new([Fault::new(Kind::NoReply(Step::Rnto)).until_thaw()]);
    lab.put_file("temp", b"old");
    let mut raw = lab.logged_in();
    raw.ask("RNFR temp", 350);
    raw.say("RNTO final");
    lab.struck("no-reply-rnto");
    let mut other = lab.logged_in();
    other.ask("DELE temp", 250);
    lab.server.thaw();
    raw.expect(550);
    assert_eq!(lab.file("final"), None);
}

#[test]
fn rnto_can_be_done_without_a_reply() {
    let mut lab = Lab::new([Fault::new(Kind::RntoDoneNoReply)]);
    lab.put_file("temp", b"x");
    let mut raw = lab.logged_in();
    raw.ask("RNFR temp", 350);
    raw.say("RNTO final");
    let session = lab.struck("rnto-done-no-reply");
    lab.event(|e| matches!(e, Event::Renamed { .. }));
    lab.frozen(1);
    assert!(raw.is_silent());
    assert_eq!(lab.file("final").unwrap(), b"x");
    drop(raw);
    lab.event(|e| *e == Event::Ended { session });
}

#[test]
fn an_unread_stor_makes_its_file_at_the_thaw_and_takes_what_was_sent() {
    let mut lab = Lab::new([Fault::new(Kind::NoReply(Step::Stor)).until_thaw()]);
    let mut raw = lab.logged_in();
    let mut data = raw.data();
    raw.say("STOR temp");
    lab.struck("no-reply-stor");
    lab.frozen(1);
    assert_eq!(lab.file("temp"), None);
    data.write_all(b"early").unwrap();
    reset(data);
    drop(raw.replies);
    reset(raw.stream);
    lab.server.thaw();
    lab.event(|e| matches!(e, Event::Storing { .. }));
    assert_eq!(lab.data_ended(), TransferEnd::Reset);
    lab.event(|e| matches!(e, Event::Ended { .. }));
    assert_eq!(lab.file("temp").unwrap(), b"early");
    assert_eq!(lab.server.counters().stored, 0);
}

#[test]
fn the_final_reply_can_be_missing_with_the_data_connection_left_open() {
    let mut lab = Lab::new([Fault::from_name("silent-226").unwrap().until_thaw()]);
    let mut raw = lab.logged_in();
    let mut data = raw.stor("f");
    data.write_all(b"whole").unwrap();
    data.shutdown(Shutdown::Write).unwrap();
    lab.struck("silent-226");
    assert_eq!(lab.data_ended(), TransferEnd::Eof);
    lab.frozen(1);
    assert_eq!(lab.file("f").unwrap(), b"whole");
    assert!(raw.is_silent());
    data.set_nonblocking(true).unwrap();
    assert_eq!(
        data.read(&mut [0]).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    lab.server.thaw();
    raw.expect(226);
}

#[test]
fn the_final_reply_can_be_late() {
    let time = Duration::from_millis(400);
    let lab = Lab::new([Fault::new(Kind::Late226(time))]);
    let mut ftp = lab.client();
    let began = mono();
    ftp.put_file("f", &mut &b"x"[..]).unwrap();
    assert!(mono() - began >= time);
}

/// Every command with a step of its own, in an order in which all of them work, and its reply.
const COMMANDS: [(Step, &str, u16); 20] = [
    (Step::User, "USER lab", 331),
    (Step::Pass, "PASS lab", 230),
    (Step::Feat, "FEAT", 211),
    (Step::Opts, "OPTS UTF8 ON", 200),
    (Step::Type, "TYPE I", 200),
    (Step::Mkd, "MKD in", 257),
    (Step::Cwd, "CWD in", 250),
    (Step::Pwd, "PWD", 257),
    (Step::Stor, "STOR f", 150),
    (Step::Size, "SIZE f", 213),
    (Step::Mfmt, "MFMT 20020717210715 f", 213),
    (Step::Mdtm, "MDTM f", 213),
    (Step::Rest, "REST 0", 350),
    (Step::Retr, "RETR f", 150),
    (Step::List, "MLSD", 150),
    (Step::Rnfr, "RNFR f", 350),
    (Step::Rnto, "RNTO g", 250),
    (Step::Dele, "DELE g", 250),
    (Step::Noop, "NOOP", 200),
    (Step::Quit, "QUIT", 221),
];

/// Says all commands; `with` is told the step and the reply that it waits for. Transfers are
/// passive, so that EPSV is among them.
fn say_all(raw: &mut Raw, mut with: impl FnMut(Step, &mut Raw, u16)) {
    with(Step::Greeting, raw, 220);
    for (step, line, code) in COMMANDS {
        let mut data = None;
        if code == 150 {
            raw.say("EPSV");
            with(Step::Epsv, raw, 229);
            let port = raw.seen.split('|').nth(3).unwrap().parse::<u16>().unwrap();
            data = Some(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
        }
        raw.say(line);
        with(step, raw, code);
        if let Some(mut data) = data {
            if step != Step::Stor {
                data.read_to_end(&mut Vec::new()).unwrap();
            }
            drop(data);
            let last = if step == Step::List {
                Step::Listed
            } else {
                Step::Final
            };
            with(last, raw, 226);
        }
    }
}

#[test]
fn every_reply_can_drip_be_missing_or_be_another_one() {
    let steps = || {
        let more = [Step::Greeting, Step::Epsv, Step::Final, Step::Listed];
        more.into_iter().chain(COMMANDS.map(|(step, ..)| step))
    };
    for step in steps() {
        let every = Duration::from_millis(2);
        let mut lab = Lab::new([Fault::new(Kind::Drip { step, every })]);
        let mut raw = lab.raw();
        let mut dripped = false;
        say_all(&mut raw, |at, raw, code| {
            let began = mono();
            raw.seen = raw.reply(code).concat();
            if at == step && !std::mem::replace(&mut dripped, true) {
                let least = every * (raw.seen.len() as u32 - 1);
                assert!(mono() - began >= least, "{step:?}");
            }
        });
        let struck = lab.event(|e| matches!(e, Event::Struck { .. }));
        assert!(
            matches!(struck, Event::Struck { fault: Kind::Drip { step: s, .. }, .. } if s == step)
        );
    }
    for step in steps() {
        let mut lab = Lab::new([Fault::new(Kind::NoReply(step)).until_thaw()]);
        let mut raw = lab.raw();
        let mut frozen = false;
        say_all(&mut raw, |at, raw, code| {
            if at == step && !std::mem::replace(&mut frozen, true) {
                lab.struck(Kind::NoReply(step).name());
                lab.frozen(1);
                assert!(raw.is_silent(), "{step:?}");
                lab.server.thaw();
            }
            raw.seen = raw.reply(code).concat();
        });
        assert!(frozen, "{step:?}");
    }
    let lab = Lab::new([
        Fault::new(Kind::Reply(Step::Noop, 421)),
        Fault::new(Kind::HangUp(Step::Pwd)),
    ]);
    let mut raw = lab.logged_in();
    raw.ask("NOOP", 421);
    assert_eq!(raw.line(), "", "a 421 ends the session");
    let mut raw = lab.logged_in();
    raw.say("PWD");
    assert_eq!(raw.line(), "", "it hangs up");
}

// ---------------------------------------------------------------- servers as they are

fn like(quirks: &[Quirk]) -> (Lab, Raw) {
    let lab = Lab::with(Script::healthy().like(quirks.iter().cloned()));
    let mut raw = lab.raw();
    raw.reply(220);
    for (line, code) in [("USER lab", 331), ("PASS lab", 230)] {
        raw.say(line);
        raw.reply(code);
    }
    (lab, raw)
}

#[test]
fn the_time_of_a_file_can_be_set_and_asked() {
    let lab = Lab::new([]);
    lab.put_file("f 1", b"x");
    let mut raw = lab.logged_in();
    assert_eq!(
        raw.ask("MFMT 20020717210715 f 1", 213),
        "213 Modify=20020717210715; /f 1"
    );
    assert_eq!(raw.ask("MDTM f 1", 213), "213 20020717210715");
    raw.ask("MFMT 20021317210715 f 1", 501);
    raw.ask("MFMT 20020717210715 absent", 550);
    raw.ask("MFMT 20020717210715", 501);
}

#[test]
fn a_server_can_lack_any_command() {
    for (verb, arg, code) in [
        ("EPSV", "", 500),
        ("SIZE", " f", 502),
        ("MDTM", " f", 502),
        ("MLSD", "", 500),
        ("REST", " 5", 502),
        ("OPTS", " UTF8 ON", 501),
        ("FEAT", "", 500),
        ("RNFR", " f", 550),
    ] {
        let (lab, mut raw) = like(&[Quirk::Refuses(verb, code)]);
        lab.put_file("f", b"x");
        raw.ask(&format!("{verb}{arg}"), code);
        raw.ask("NOOP", 200);
        if verb != "FEAT" {
            raw.say("FEAT");
            let features = raw.reply(211).concat();
            assert!(!features.contains(verb), "{features}");
        }
    }
}

#[test]
fn data_ports_can_be_as_behind_a_nat() {
    let (lab, mut raw) = like(&[Quirk::DeadEpsv, Quirk::ForeignPasv]);
    let port = raw.epsv();
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let reply = raw.ask("PASV", 227);
    let numbers = reply.split_once("(192,0,2,1,").unwrap().1;
    let numbers: Vec<u16> = numbers
        .trim_end_matches(").")
        .split(',')
        .map(|n| n.parse().unwrap())
        .collect();
    let port = numbers[0] * 256 + numbers[1];
    let data = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    raw.ask("STOR f", 150);
    drop(data);
    raw.expect(226);
    assert!(lab.file("f").is_some());
}

#[test]
fn a_rename_over_a_file_can_be_refused() {
    for code in [550, 553] {
        let (lab, mut raw) = like(&[Quirk::NoOverwrite(code)]);
        lab.put_file("temp", b"new");
        lab.put_file("final", b"old");
        raw.ask("RNFR temp", 350);
        raw.ask("RNTO final", code);
        assert_eq!(lab.file("final").unwrap(), b"old");
        raw.ask("DELE final", 250);
        raw.ask("RNFR temp", 350);
        raw.ask("RNTO final", 250);
        assert_eq!(lab.file("final").unwrap(), b"new");
    }
}

#[test]
fn replies_can_have_other_codes_odd_lines_bare_ends_and_no_text() {
    let (_lab, mut raw) = like(&[Quirk::Says(226, 250), Quirk::Says(257, 200)]);
    let data = raw.stor("f");
    drop(data);
    raw.expect(250);
    raw.ask("PWD", 200);
    let (_lab, mut raw) = like(&[Quirk::OddLines]);
    raw.say("NOOP");
    let lines = raw.reply(200);
    assert!(
        lines.len() > 4 && lines.iter().any(|line| line.starts_with("550 ")),
        "{lines:?}"
    );
    let lab = Lab::with(Script::healthy().like([Quirk::BareLf, Quirk::BareCodes]));
    let mut raw = lab.raw();
    let mut line = Vec::new();
    raw.replies.read_until(b'\n', &mut line).unwrap();
    assert_eq!(line, b"220\n");
    raw.login();
}

#[test]
fn a_greeting_can_be_long_and_no_utf8() {
    let lab = Lab::with(Script::healthy().like([Quirk::LongGreeting, Quirk::Latin1Greeting]));
    let mut raw = lab.raw();
    let mut first = Vec::new();
    raw.replies.read_until(b'\n', &mut first).unwrap();
    assert!(std::str::from_utf8(&first).is_err() && first.starts_with(b"220-"));
    assert!(raw.reply(220).len() > 40);
    raw.login();
}

#[test]
fn logins_sizes_names_and_sessions_can_have_their_own_ways() {
    let lab = Lab::with(Script::healthy().like([Quirk::NoPassword]));
    let mut raw = lab.raw();
    raw.expect(220);
    raw.ask("USER lab", 230);
    raw.ask("PWD", 257);
    let (lab, mut raw) = like(&[Quirk::SizeNeedsBinary, Quirk::NoDotFiles, Quirk::OneFile]);
    lab.put_file("f", b"123");
    raw.ask("SIZE f", 550);
    raw.ask("TYPE I", 200);
    raw.ask("SIZE f", 213);
    let data = raw.data();
    raw.ask("STOR .f.part", 553);
    raw.ask("RNFR f", 350);
    raw.ask("RNTO .g", 553);
    raw.ask("STOR g", 150);
    drop(data);
    raw.expect(226);
    raw.expect(421);
    assert_eq!(raw.line(), "", "one file a session");
}

#[test]
fn listings_can_look_in_other_ways() {
    let (lab, mut raw) = like(&[Quirk::ListsParents, Quirk::HidesDotFiles]);
    lab.put_file("f", b"x");
    lab.put_file(".hidden", b"x");
    let mlsd = String::from_utf8(raw.received("MLSD")).unwrap();
    raw.expect(226);
    assert!(
        mlsd.starts_with("type=cdir;") && mlsd.contains("type=pdir;"),
        "{mlsd}"
    );
    assert!(
        mlsd.ends_with(" f\r\n") && !mlsd.contains("hidden"),
        "{mlsd}"
    );
    let list = String::from_utf8(raw.received("LIST -a")).unwrap();
    assert!(
        list.starts_with("total 8\r\ndrwx") && list.contains(" ..\r\n"),
        "{list}"
    );
    let (lab, mut raw) = like(&[Quirk::DosList, Quirk::NoEmptyList]);
    let data = raw.data();
    raw.ask("LIST", 550);
    drop(data);
    lab.put_file("f", b"x");
    let list = String::from_utf8(raw.received("LIST")).unwrap();
    raw.expect(226);
    let file = suppaftp::list::ListParser::parse_dos(list.trim_end()).unwrap();
    assert_eq!((file.name(), file.size()), ("f", 1));
}

// ---------------------------------------------------------------- the script

#[test]
fn a_fault_strikes_only_the_path_it_names() {
    let lab = Lab::new([Fault::new(Kind::Reply(Step::Stor, 450)).matching("bad", 2)]);
    let mut ftp = lab.client();
    for (name, works) in [
        ("good", true),
        ("bad1", false),
        ("bad2", false),
        ("bad3", true),
    ] {
        assert_eq!(ftp.put_file(name, &mut &b"x"[..]).is_ok(), works, "{name}");
    }
}

#[test]
fn faults_are_replaced_and_added_while_the_server_runs() {
    let lab = Lab::new([Fault::new(Kind::Reply(Step::Stor, 450)).always()]);
    let mut ftp = lab.client();
    assert!(ftp.put_file("f", &mut &b"x"[..]).is_err());
    lab.server.set_faults(Vec::new());
    ftp.put_file("f", &mut &b"x"[..]).unwrap();
    lab.server
        .add_fault(Fault::new(Kind::Reply(Step::Stor, 552)));
    assert_eq!(
        code(ftp.put_file("f", &mut &b"x"[..]).unwrap_err()),
        Status::ExceededStorage
    );
    ftp.put_file("f", &mut &b"x"[..]).unwrap();
}

#[test]
fn after_every_named_fault_on_the_first_attempt_a_later_attempt_delivers() {
    for named in Fault::names() {
        // An endless reply defeats this client's timeouts, as it should: it has to end.
        let until = match named.kind {
            Kind::Endless(_) => Until::After(Duration::from_secs(1)),
            _ => Until::Thaw,
        };
        let fault = Fault {
            until,
            ..Fault::from_name(named.name).unwrap()
        };
        let mut lab = Lab::new([fault]);
        let content = bytes(300_000);
        let attempt = |lab: &Lab| -> Result<(), FtpError> {
            let stream =
                TcpStream::connect(lab.server.addr()).map_err(FtpError::ConnectionError)?;
            let time = Some(Duration::from_millis(300));
            stream
                .set_read_timeout(time)
                .map_err(FtpError::ConnectionError)?;
            stream
                .set_write_timeout(time)
                .map_err(FtpError::ConnectionError)?;
            let mut ftp = FtpStream::connect_with_stream(stream)?;
            ftp = ftp.passive_stream_builder(move |addr| {
                let data = TcpStream::connect_timeout(&addr, Duration::from_millis(300))
                    .map_err(FtpError::ConnectionError)?;
                data.set_write_timeout(time)
                    .map_err(FtpError::ConnectionError)?;
                Ok(data)
            });
            ftp.set_mode(Mode::ExtendedPassive);
            ftp.login("lab", "lab")?;
            ftp.transfer_type(FileType::Binary)?;
            ftp.put_file("temp", &mut content.as_slice())?;
            ftp.size("temp")?;
            ftp.rename("temp", "final")
        };
        let mut attempts = 1;
        while attempt(&lab).is_err() {
            attempts += 1;
            assert!(attempts < 20, "{} never lets a file through", named.name);
        }
        lab.struck(named.name);
        assert_eq!(lab.file("final").unwrap(), content, "{}", named.name);
    }
}

// ---------------------------------------------------------------- the end

fn threads_of(port: u16) -> usize {
    let of_server = |comm: String| {
        let mut parts = comm.trim_end().split(':');
        parts.next() == Some("lab") && parts.next() == Some(&port.to_string())
    };
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| of_server(comm.clone()))
        .count()
}

#[test]
fn dropping_the_server_leaves_no_thread_whatever_its_sessions_do() {
    let faults = [
        Fault::new(Kind::NoReply(Step::Greeting))
            .first(10)
            .until_thaw(),
        Fault::new(Kind::StopReading { after: 0 }).matching("stop", 10),
        Fault::new(Kind::NoReply(Step::Final)).matching("silent", 10),
        Fault::new(Kind::Trickle {
            after: 0,
            bytes_per_second: 1,
        })
        .matching("slow", 10),
        Fault::new(Kind::Endless(Step::Rnfr)),
    ];
    let lab = Lab::new(faults);
    let silent: Vec<_> = (0..10).map(|_| lab.raw()).collect();
    lab.frozen(10);
    let mut transfers = Vec::new();
    for name in ["stop", "silent", "slow", "fine"] {
        for i in 0..10 {
            let mut raw = lab.logged_in();
            let mut data = raw.stor(&format!("{name}{i}"));
            data.write_all(&bytes(10_000)).unwrap();
            if name == "silent" {
                data.shutdown(Shutdown::Write).unwrap();
            }
            transfers.push((raw, data));
        }
    }
    lab.put_file("x", b"");
    let mut endless = lab.logged_in();
    endless.ask("RNFR x", 350);
    let mut waiting = lab.logged_in();
    let unaccepted = waiting.epsv();
    lab.frozen(30);
    let port = lab.server.addr().port();
    assert_eq!(threads_of(port), 1 + 10 + 40 + 2);
    let Lab {
        server,
        mut events,
        dir: _dir,
    } = lab;
    let began = mono();
    drop(server);
    assert!(mono() - began < PATIENCE);
    assert_eq!(threads_of(port), 0);
    let ended = events
        .drain()
        .iter()
        .filter(|e| matches!(e, Event::Ended { .. }))
        .count();
    assert_eq!(ended, 52);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, unaccepted)).is_err());
    drop(silent);
}
