//! Each fault of the lab server in mid-file, in a reply, on the data port and at the login strikes
//! where it says, as often as it says, and ends as it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod lab_common;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use ftpulse::clock::mono;
use ftpulse::core::evidence::Socket;
use ftpulse::lab::{Event, Fault, Kind, Quirk, Script, Step, TransferEnd};
use ftpulse::sys::socket;
use lab_common::*;
use socket2::{SockRef, TcpKeepalive};
use suppaftp::{FtpError, Mode, Status};

// ---------------------------------------------------------------- the middle of a file

#[test]
fn a_reader_that_stops_closes_its_window_soon_and_goes_on_at_the_thaw() {
    let mut lab = Lab::new([Fault::from_name("stop-reading").unwrap().until_thaw()]);
    let content = bytes(16 << 20);
    let mut raw = lab.logged_in();
    let mut data = raw.stor("f");
    SockRef::from(&data)
        .set_send_buffer_size(64 * 1024)
        .unwrap();
    let sent = stuff(&data, &content);
    lab.struck("stop-reading");
    // Its own send buffer, the reader's small one, and what was read before.
    assert!(sent < 1 << 20, "{sent}");
    assert_eq!(lab.file("f").unwrap().len(), 16 * 1024);
    assert!(raw.is_silent());
    lab.server.thaw();
    data.set_write_timeout(None).unwrap();
    data.write_all(&content[sent..]).unwrap();
    drop(data);
    raw.expect(226);
    assert!(lab.file("f").unwrap() == content);
    assert_eq!(lab.data_ended(), TransferEnd::Eof);
}

#[test]
fn a_reader_that_stops_on_one_path_only_closes_its_window_and_drops_nothing() {
    let stop = Fault::from_name("stop-reading").unwrap();
    let mut lab = Lab::new([stop.matching("bad", 1).until_thaw()]);
    let content = bytes(16 << 20);
    let mut raw = lab.logged_in();
    raw.put("good", &content);
    let mut data = raw.stor("bad");
    SockRef::from(&data)
        .set_send_buffer_size(64 * 1024)
        .unwrap();
    let sent = stuff(&data, &content);
    lab.struck("stop-reading");
    assert!(sent < 1 << 20, "{sent}");
    let port = data.peer_addr().unwrap().port();
    let tcp = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // ESTABLISHED, and its timer (04) is the zero-window probe, not a retransmission (01).
    let line = tcp
        .lines()
        .find(|line| line.contains(&format!(":{port:04X} 01 ")))
        .unwrap();
    assert_eq!(
        line.split_whitespace()
            .nth(5)
            .and_then(|t| t.split(':').next()),
        Some("04")
    );
    lab.server.thaw();
    data.set_write_timeout(None).unwrap();
    data.write_all(&content[sent..]).unwrap();
    drop(data);
    raw.expect(226);
    assert!(lab.file("bad").unwrap() == content);
}

#[test]
fn a_reset_is_seen_while_frozen_and_the_buffered_data_is_written_at_the_thaw() {
    let mut lab = Lab::new([Fault::from_name("stop-reading").unwrap().until_thaw()]);
    let mut raw = lab.logged_in();
    let data = raw.stor("f");
    stuff(&data, &bytes(8 << 20));
    lab.struck("stop-reading");
    reset(data);
    assert_eq!(lab.data_ended(), TransferEnd::Reset);
    drop(raw.replies);
    reset(raw.stream);
    lab.server
        .wait_counters(|c| c.frozen == 1 && c.data_open == 0, PATIENCE)
        .unwrap();
    lab.server.thaw();
    lab.event(|e| matches!(e, Event::Ended { .. }));
    assert!(lab.file("f").unwrap().len() > 16 * 1024);
    assert_eq!(lab.server.counters().stored, 0);
}

#[test]
fn a_wedge_without_end_lets_go_when_its_client_closes_the_control_connection() {
    let mut lab = Lab::new([Fault::from_name("stop-reading").unwrap().always()]);
    for _ in 0..20 {
        let mut raw = lab.logged_in();
        let data = raw.stor("f");
        stuff_quickly(&data);
        let session = lab.struck("stop-reading");
        reset(data);
        assert_eq!(lab.data_ended(), TransferEnd::Reset);
        drop(raw);
        lab.event(|e| *e == Event::Ended { session });
    }
    let counters = lab.server.counters();
    assert_eq!(
        (counters.frozen, counters.sessions_open, counters.data_open),
        (0, 0, 0)
    );
}

fn stuff_quickly(data: &TcpStream) {
    data.set_nonblocking(true).unwrap();
    let content = bytes(64 * 1024);
    while (&*data).write(&content).is_ok() {}
    data.set_nonblocking(false).unwrap();
}

#[test]
fn a_reset_and_a_clean_end_of_the_data_connection_are_told_apart() {
    let mut lab = Lab::new([]);
    let mut raw = lab.logged_in();
    let mut data = raw.stor("clean");
    data.write_all(b"12345").unwrap();
    drop(data);
    raw.expect(226);
    let ended = lab.event(|e| matches!(e, Event::DataEnded { .. }));
    assert!(matches!(
        ended,
        Event::DataEnded {
            how: TransferEnd::Eof,
            bytes: 5,
            ..
        }
    ));
    let mut data = raw.stor("broken");
    data.write_all(b"123").unwrap();
    reset(data);
    raw.expect(426);
    assert_eq!(lab.data_ended(), TransferEnd::Reset);
    assert_eq!(lab.server.counters().resets, 1);
    assert_eq!(lab.server.counters().stored, 1);
}

#[test]
fn a_short_file_is_no_occasion_for_a_fault_in_mid_file() {
    let lab = Lab::new([Fault::from_name("reset-mid-file").unwrap()]);
    let mut raw = lab.logged_in();
    raw.put("short", &bytes(16 * 1024 - 1));
    assert_eq!(lab.server.counters().strikes, 0);
    let mut data = raw.stor("long");
    let _ = data.write_all(&bytes(1 << 20));
    raw.expect(426);
    raw.put("again", &bytes(1 << 20));
}

#[test]
fn a_trickling_reader_keeps_its_speed_and_the_file_arrives() {
    let kind = Kind::Trickle {
        after: 0,
        bytes_per_second: 200_000,
    };
    let lab = Lab::new([Fault::new(kind)]);
    let content = bytes(100_000);
    let mut raw = lab.logged_in();
    let began = mono();
    raw.put("f", &content);
    assert!(mono() - began >= Duration::from_millis(450));
    assert_eq!(lab.file("f").unwrap(), content);
}

#[test]
fn the_data_connection_can_be_reset_or_closed_with_and_without_a_reply() {
    for (name, silent, is_reset) in [
        ("reset-mid-file", false, true),
        ("reset-mid-file-silent", true, true),
        ("close-mid-file", false, false),
        ("close-mid-file-silent", true, false),
    ] {
        let mut lab = Lab::new([Fault::from_name(name).unwrap().until_thaw()]);
        let mut raw = lab.logged_in();
        let mut data = raw.stor("f");
        // Exactly what it reads: nothing unread can turn its close into a reset.
        data.write_all(&bytes(16 * 1024)).unwrap();
        lab.struck(name);
        let read = data.read(&mut [0]);
        if is_reset {
            assert_eq!(
                read.unwrap_err().kind(),
                io::ErrorKind::ConnectionReset,
                "{name}"
            );
        } else {
            assert_eq!(read.unwrap(), 0, "{name}");
        }
        assert_eq!(lab.data_ended(), TransferEnd::Aborted);
        if silent {
            lab.frozen(1);
            assert!(raw.is_silent());
            lab.server.thaw();
        }
        raw.expect(426);
        assert_eq!(lab.file("f").unwrap().len(), 16 * 1024);
        assert_eq!(lab.server.counters().stored, 0);
    }
}

#[test]
fn the_control_connection_can_drop_while_the_data_connection_lives_on() {
    let mut lab = Lab::new([Fault::from_name("control-drop").unwrap()]);
    let mut raw = lab.logged_in();
    let mut data = raw.stor("f");
    data.write_all(&bytes(16 * 1024)).unwrap();
    assert_eq!(raw.line(), "", "the control connection ends");
    data.write_all(&bytes(8 << 20)).unwrap();
    drop(data);
    assert_eq!(lab.data_ended(), TransferEnd::Eof);
    lab.event(|e| matches!(e, Event::Ended { .. }));
    assert_eq!(lab.file("f").unwrap().len(), 16 * 1024);
}

// ---------------------------------------------------------------- a dead path

/// Logged in, with the keepalive that the product sets.
fn probing(lab: &Lab) -> Raw {
    let raw = lab.logged_in();
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time(second)
        .with_interval(second)
        .with_retries(100);
    SockRef::from(&raw.stream)
        .set_tcp_keepalive(&keepalive)
        .unwrap();
    raw
}

/// Waits until the socket shows it.
fn shows(stream: &TcpStream, what: &str, fits: impl Fn(&Socket) -> bool) -> Socket {
    let end = mono() + PATIENCE;
    loop {
        let shown = socket::sample(stream.as_fd()).unwrap();
        if fits(&shown) {
            return shown;
        }
        assert!(mono() < end, "no {what}: {shown:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_path_that_dies_in_mid_file_answers_nothing_until_it_mends() {
    let mut lab = Lab::new([Fault::from_name("path-dead-transfer").unwrap().until_thaw()]);
    let content = bytes(16 << 20);
    let mut raw = probing(&lab);
    let mut data = raw.stor("f");
    // Less than the lab's socket takes unread: its window is open when the path dies. Behind a
    // closed one the kernel counts no retransmissions.
    let first = 32 * 1024;
    data.write_all(&content[..first]).unwrap();
    lab.struck("path-dead-transfer");
    lab.frozen(1);
    let began = mono();
    let sent = first + stuff(&data, &content[first..]);
    let before = shows(&data, "byte on its way", |s| s.unacked > 0);
    let after = shows(&data, "retransmission", |s| s.retransmits >= 2);
    println!("2 retransmissions after {:?}", mono() - began);
    assert_eq!((before.acked, before.state), (after.acked, after.state));
    let control = shows(&raw.stream, "probe", |s| s.probes >= 2);
    println!("2 probes after {:?}", mono() - began);
    assert_eq!(control.state, before.state);
    assert!(raw.is_silent());
    assert!(lab.file("f").unwrap().len() >= 16 * 1024);
    // Only these two connections are dead.
    lab.logged_in().put("other", b"another way");
    lab.server.thaw();
    data.set_write_timeout(Some(PATIENCE)).unwrap();
    data.write_all(&content[sent..]).unwrap();
    drop(data);
    raw.expect(226);
    assert!(lab.file("f").unwrap() == content);
    assert_eq!(lab.data_ended(), TransferEnd::Eof);
}

#[test]
fn a_path_that_is_dead_for_a_time_delivers_the_whole_file_in_the_end() {
    let time = Duration::from_secs(1);
    let lab = Lab::new([Fault::from_name("path-dead-transfer")
        .unwrap()
        .ends_after(time)]);
    let content = bytes(16 << 20);
    let mut raw = lab.logged_in();
    let began = mono();
    raw.put("f", &content);
    assert!(mono() - began >= time);
    assert!(lab.file("f").unwrap() == content);
    assert_eq!(lab.server.counters().stored, 1);
}

#[test]
fn a_path_can_die_before_a_reply_and_the_reply_comes_when_it_mends() {
    for (name, code) in [("path-dead-reply", 150), ("path-dead-final", 226)] {
        let mut lab = Lab::new([Fault::from_name(name).unwrap().until_thaw()]);
        let mut raw = probing(&lab);
        let mut data = raw.data();
        raw.say("STOR f");
        if code == 226 {
            raw.expect(150);
            data.write_all(b"x").unwrap();
            SockRef::from(&data)
                .shutdown(std::net::Shutdown::Write)
                .unwrap();
        }
        lab.struck(name);
        lab.frozen(1);
        shows(&raw.stream, "probe", |s| s.probes >= 2);
        assert!(raw.is_silent(), "{name}");
        lab.server.thaw();
        raw.expect(code);
        drop(data);
        if code == 150 {
            raw.expect(226);
        }
        assert_eq!(lab.server.counters().stored, 1, "{name}");
    }
}

#[test]
fn a_dead_path_without_end_lets_go_when_its_client_resets() {
    let mut lab = Lab::new([Fault::from_name("path-dead-transfer").unwrap().always()]);
    for _ in 0..20 {
        let mut raw = lab.logged_in();
        let data = raw.stor("f");
        stuff_quickly(&data);
        let session = lab.struck("path-dead-transfer");
        lab.frozen(1);
        reset(data);
        drop(raw.replies);
        reset(raw.stream);
        lab.event(|e| *e == Event::Ended { session });
    }
    let counters = lab.server.counters();
    assert_eq!(
        (counters.frozen, counters.sessions_open, counters.data_open),
        (0, 0, 0)
    );
}

#[test]
fn a_server_that_ends_resets_the_connections_of_its_dead_paths() {
    let mut lab = Lab::new([Fault::from_name("path-dead-final").unwrap()]);
    let mut raw = lab.logged_in();
    drop(raw.stor("f"));
    lab.struck("path-dead-final");
    lab.frozen(1);
    drop(lab);
    let error = raw.stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

// ---------------------------------------------------------------- replies

#[test]
fn stor_is_refused_with_each_code_and_makes_no_file() {
    for code in [421, 450, 452, 550, 552, 553] {
        let mut lab = Lab::new([Fault::from_name(&format!("stor-{code}")).unwrap()]);
        let mut raw = lab.logged_in();
        let data = raw.data();
        raw.ask("STOR f", code);
        drop(data);
        assert_eq!(lab.file("f"), None);
        if code == 421 {
            assert_eq!(raw.line(), "");
            lab.event(|e| matches!(e, Event::Ended { .. }));
        } else {
            raw.put("f", b"second time");
        }
    }
}

#[test]
fn the_disk_can_be_full_in_mid_file() {
    for code in [452, 552] {
        let lab = Lab::new([Fault::from_name(&format!("mid-file-{code}")).unwrap()]);
        let mut raw = lab.logged_in();
        let mut data = raw.stor("f");
        let _ = data.write_all(&bytes(4 << 20));
        raw.expect(code);
        assert_eq!(lab.file("f").unwrap().len(), 16 * 1024);
        drop(data);
        raw.put("f", &bytes(4 << 20));
    }
}

#[test]
fn a_garbage_reply_is_an_error_to_the_client_and_the_command_is_not_executed() {
    let lab = Lab::new([Fault::from_name("garbage-reply").unwrap()]);
    let mut ftp = lab.client();
    assert!(ftp.put_file("f", &mut &b"x"[..]).is_err());
    assert_eq!(lab.file("f"), None);
    lab.client().put_file("f", &mut &b"x"[..]).unwrap();
}

#[test]
fn an_endless_reply_goes_on_until_its_client_is_gone() {
    let mut lab = Lab::new([Fault::from_name("endless-reply").unwrap()]);
    let mut raw = lab.logged_in();
    let data = raw.data();
    raw.say("STOR f");
    let session = lab.struck("endless-reply");
    for _ in 0..10 {
        assert!(raw.line().starts_with("150-"));
    }
    drop((raw, data));
    lab.event(|e| *e == Event::Ended { session });
}

#[test]
fn an_endless_reply_ends_properly_at_the_thaw() {
    let lab = Lab::new([Fault::new(Kind::Endless(Step::Size)).until_thaw()]);
    lab.put_file("f", b"123");
    let mut raw = lab.logged_in();
    raw.ask("SIZE f", 213);
    lab.server.thaw();
    while raw.line() != "213 3" {}
    raw.ask("NOOP", 200);
}

#[test]
fn a_reply_can_drip_byte_by_byte() {
    for step in [Step::Greeting, Step::Stor] {
        let every = Duration::from_millis(20);
        let mut lab = Lab::new([Fault::new(Kind::Drip { step, every })]);
        let began = mono();
        let mut raw = lab.raw();
        let greeting = raw.expect(220);
        if step == Step::Greeting {
            assert!(mono() - began >= every * greeting.len() as u32);
        }
        raw.login();
        let began = mono();
        drop(raw.stor("f"));
        assert!(step == Step::Greeting || mono() - began >= every * 20);
        raw.expect(226);
        lab.struck(if step == Step::Greeting {
            "drip-greeting"
        } else {
            "drip-reply"
        });
    }
}

// ---------------------------------------------------------------- data port, login, seats

#[test]
fn a_data_port_that_accepts_nothing_leaves_the_connect_in_syn_sent_until_the_thaw() {
    let lab = Lab::new([Fault::from_name("data-not-accepted").unwrap().until_thaw()]);
    let mut raw = lab.logged_in();
    let port = raw.epsv();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = TcpStream::connect_timeout(&addr, Duration::from_millis(700)).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    let connecting = std::thread::spawn(move || TcpStream::connect(addr));
    wait_for_syn_sent(port);
    // The session is not frozen.
    raw.ask("NOOP", 200);
    lab.server.thaw();
    let mut data = connecting.join().unwrap().unwrap();
    raw.ask("STOR f", 150);
    data.write_all(b"late").unwrap();
    drop(data);
    raw.expect(226);
    assert_eq!(lab.file("f").unwrap(), b"late");
}

fn wait_for_syn_sent(port: u16) {
    // Remote address in hex and state 02, as /proc/net/tcp has them.
    let wanted = format!(":{port:04X} 02 ");
    let end = mono() + PATIENCE;
    while !std::fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .contains(&wanted)
    {
        assert!(mono() < end, "no SYN_SENT to port {port}");
        std::thread::yield_now();
    }
}

#[test]
fn a_closed_data_port_refuses_and_the_next_one_works() {
    let lab = Lab::new([Fault::from_name("data-refused").unwrap()]);
    let mut ftp = lab.client();
    match ftp.put_file("f", &mut &b"x"[..]).unwrap_err() {
        FtpError::ConnectionError(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
    ftp.put_file("f", &mut &b"x"[..]).unwrap();
}

#[test]
fn epsv_can_be_refused_while_pasv_works() {
    let lab = Lab::new([Fault::from_name("epsv-refused").unwrap().always()]);
    let mut ftp = lab.client();
    assert_eq!(
        code(ftp.put_file("f", &mut &b"x"[..]).unwrap_err()),
        Status::BadCommand
    );
    ftp.set_mode(Mode::Passive);
    ftp.put_file("f", &mut &b"x"[..]).unwrap();
}

#[test]
fn a_wrong_pasv_address_follows_a_refused_epsv_as_one_occasion() {
    let lab = Lab::new([Fault::from_name("wrong-pasv").unwrap()]);
    let mut raw = lab.logged_in();
    raw.ask("EPSV", 502);
    assert!(raw.ask("PASV", 227).contains("(192,0,2,1,"));
    assert!(raw.ask("PASV", 227).contains("(127,0,0,1,"));
    raw.put("f", b"x");
    assert_eq!(lab.server.counters().strikes, 1);
}

#[test]
fn a_login_can_be_refused() {
    let lab = Lab::new([Fault::from_name("login-refused").unwrap()]);
    let mut ftp = lab.connect();
    assert_eq!(
        code(ftp.login("lab", "lab").unwrap_err()),
        Status::NotLoggedIn
    );
    ftp.login("lab", "lab").unwrap();
}

#[test]
fn more_sessions_than_seats_get_a_421_until_one_leaves() {
    let mut lab = Lab::new([Fault::new(Kind::Seats { max: 2 }).always()]);
    let first = lab.logged_in();
    let _second = lab.logged_in();
    lab.raw().expect(421);
    let refused = lab.struck("seats");
    lab.event(|e| *e == Event::Ended { session: refused });
    drop(first);
    lab.server
        .wait_counters(|c| c.sessions_open == 1, PATIENCE)
        .unwrap();
    lab.logged_in();
}

// ---------------------------------------------------------------- active mode

/// The server's connection to a client's own port.
fn accepted(listener: &TcpListener) -> TcpStream {
    let (data, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), listener.local_addr().unwrap().ip());
    data
}

#[test]
fn the_server_connects_to_the_clients_port_before_or_after_its_150() {
    let script = Script::healthy();
    let late = script.clone().like([Quirk::ConnectsLate]);
    for script in [script.clone(), script.on_ipv6(), late] {
        let lab = Lab::with(script);
        let mut raw = lab.logged_in();
        let listener = raw.eprt();
        raw.ask("STOR f", 150);
        let mut data = accepted(&listener);
        data.write_all(b"content").unwrap();
        drop(data);
        raw.expect(226);
        assert_eq!(lab.file("f").unwrap(), b"content");
        let listener = raw.eprt();
        raw.ask("RETR f", 150);
        let mut content = String::new();
        accepted(&listener).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        raw.expect(226);
        // One port, one transfer.
        raw.ask("RETR f", 425);
    }
}

#[test]
fn port_is_understood_and_leads_nowhere_but_to_loopback() {
    let lab = Lab::new([]);
    lab.put_file("f", b"content");
    let mut raw = lab.logged_in();
    let listener = TcpListener::bind("127.0.0.9:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    raw.ask(&format!("PORT 127,0,0,9,{},{}", port >> 8, port & 255), 200);
    raw.ask("RETR f", 150);
    listener.accept().unwrap();
    raw.expect(226);
    for (refused, code) in [
        ("PORT 192,0,2,1,8,0", 500),
        ("PORT 127,0,0,1,0,80", 500),
        ("PORT 127,0,0,1,8", 501),
        ("EPRT |1|192.0.2.1|2048|", 500),
        ("EPRT |2|::1|2048|", 522),
    ] {
        raw.ask(refused, code);
    }
    // A port where nobody listens.
    raw.ask("EPRT |1|127.0.0.9|1024|", 200);
    raw.ask("RETR f", 425);
    let lab = Lab::with(Script::healthy().on_ipv6());
    let mut raw = lab.logged_in();
    raw.ask("PORT 127,0,0,1,8,0", 425);
    raw.ask("PASV", 425);
    raw.ask("EPSV 1", 522);
    raw.put("f", b"over IPv6");
}

#[test]
fn in_active_mode_the_connection_can_never_come() {
    let mut lab = Lab::new([Fault::from_name("no-connect").unwrap().until_thaw()]);
    let mut raw = lab.logged_in();
    // Passive mode is no occasion.
    raw.put("passive", b"x");
    let listener = raw.eprt();
    raw.ask("STOR f", 150);
    lab.struck("no-connect");
    lab.frozen(1);
    listener.set_nonblocking(true).unwrap();
    let none = listener.accept().unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    lab.server.thaw();
    drop(accepted(&listener));
    raw.expect(226);
}

#[test]
fn in_active_mode_a_stranger_can_connect_first() {
    let mut lab = Lab::new([Fault::from_name("stranger").unwrap()]);
    let mut raw = lab.logged_in();
    let listener = raw.eprt();
    raw.ask("STOR f", 150);
    lab.struck("stranger");
    let (_stranger, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 0, 66));
    let mut data = accepted(&listener);
    data.write_all(b"from the right one").unwrap();
    drop(data);
    raw.expect(226);
    assert_eq!(lab.file("f").unwrap(), b"from the right one");
}

// ---------------------------------------------------------------- downloads and listings

#[test]
fn a_download_can_stop_in_mid_file_and_goes_on_at_the_thaw() {
    let mut lab = Lab::new([Fault::from_name("stop-sending").unwrap().until_thaw()]);
    let content = bytes(100_000);
    lab.put_file("f", &content);
    let mut raw = lab.logged_in();
    // An upload is no occasion.
    raw.put("up", &content);
    let mut data = raw.data();
    raw.ask("RETR f", 150);
    let mut first = vec![0; 16 * 1024];
    data.read_exact(&mut first).unwrap();
    lab.struck("stop-sending");
    lab.frozen(1);
    data.set_nonblocking(true).unwrap();
    let none = data.read(&mut [0]).unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    data.set_nonblocking(false).unwrap();
    lab.server.thaw();
    data.read_to_end(&mut first).unwrap();
    assert!(first == content);
    raw.expect(226);
}

#[test]
fn a_download_can_break_in_mid_file_with_and_without_a_reply() {
    for (name, silent, is_reset) in [
        ("reset-mid-file", false, true),
        ("reset-mid-file-silent", true, true),
        ("close-mid-file", false, false),
        ("close-mid-file-silent", true, false),
    ] {
        let mut lab = Lab::new([Fault::from_name(name).unwrap().until_thaw()]);
        lab.put_file("f", &bytes(100_000));
        let mut raw = lab.logged_in();
        let mut data = raw.data();
        raw.ask("RETR f", 150);
        let mut got = Vec::new();
        let end = data.read_to_end(&mut got);
        assert_eq!(end.is_err(), is_reset, "{name}");
        assert!(got.len() <= 16 * 1024, "{name}");
        lab.struck(name);
        if silent {
            lab.frozen(1);
            assert!(raw.is_silent());
            lab.server.thaw();
        }
        raw.expect(426);
        assert!(raw.received("RETR f") == bytes(100_000));
    }
}

#[test]
fn a_download_can_be_short_although_the_server_says_226() {
    let mut lab = Lab::new([Fault::from_name("short-download").unwrap()]);
    lab.put_file("f", &bytes(100_000));
    let mut raw = lab.logged_in();
    raw.ask("SIZE f", 213);
    assert_eq!(raw.received("RETR f").len(), 16 * 1024);
    raw.expect(226);
    lab.struck("short-download");
}

#[test]
fn a_download_can_trickle_drop_its_control_connection_or_end_in_silence() {
    let kind = Kind::Trickle {
        after: 0,
        bytes_per_second: 200_000,
    };
    let silent = Fault::from_name("silent-226").unwrap();
    let dropped = Fault::from_name("control-drop").unwrap();
    let faults = [
        Fault::new(kind).matching("slow", 1),
        silent.matching("silent", 1).until_thaw(),
        dropped.matching("dropped", 1),
    ];
    let mut lab = Lab::new(faults);
    let content = bytes(100_000);
    for name in ["slow", "silent", "dropped"] {
        lab.put_file(name, &content);
    }
    let mut raw = lab.logged_in();
    let began = mono();
    assert!(raw.received("RETR slow") == content);
    assert!(mono() - began >= Duration::from_millis(450));
    raw.expect(226);
    assert!(raw.received("RETR silent") == content);
    lab.frozen(1);
    assert!(raw.is_silent());
    lab.server.thaw();
    raw.expect(226);
    let mut data = raw.data();
    raw.ask("RETR dropped", 150);
    let mut got = vec![0; 16 * 1024];
    data.read_exact(&mut got).unwrap();
    assert_eq!(raw.line(), "", "the control connection ends");
    lab.struck("control-drop");
}

#[test]
fn a_download_resumes_at_the_position_of_rest_and_can_be_refused() {
    let lab = Lab::new([Fault::from_name("retr-550").unwrap()]);
    lab.put_file("f", b"0123456789");
    let mut raw = lab.logged_in();
    let data = raw.data();
    raw.ask("RETR f", 550);
    drop(data);
    raw.ask("REST 7", 350);
    assert_eq!(raw.received("RETR f"), b"789");
    raw.expect(226);
}

#[test]
fn a_listing_can_show_names_that_lead_out() {
    for (command, before) in [("MLSD", "; "), ("LIST", " 1970 "), ("NLST", "")] {
        let mut lab = Lab::new([Fault::from_name("hostile-names").unwrap()]);
        lab.put_file("fine", b"x");
        let mut raw = lab.logged_in();
        let listing = String::from_utf8(raw.received(command)).unwrap();
        raw.expect(226);
        for name in ["../x", "/tmp/x", "a/b", "a\\b", ".", "..", "nul\0x"] {
            let line = format!("{before}{name}\r\n");
            assert!(listing.contains(&line), "{name:?} in {listing:?}");
        }
        assert!(listing.contains("fine\r\n"));
        lab.struck("hostile-names");
        assert_eq!(raw.received("NLST"), b"fine\r\n");
    }
}

#[test]
fn a_listing_can_stop_in_the_middle_or_end_in_silence() {
    for name in ["stop-listing", "silent-226-list", "no-reply-list"] {
        let mut lab = Lab::new([Fault::from_name(name).unwrap().until_thaw()]);
        lab.put_file("a file of some length", b"x");
        let mut raw = lab.logged_in();
        // The end of a file is no occasion.
        raw.put("f", b"x");
        let mut data = raw.data();
        raw.say("NLST");
        lab.struck(name);
        lab.frozen(1);
        lab.server.thaw();
        raw.expect(150);
        let mut listing = String::new();
        data.read_to_string(&mut listing).unwrap();
        assert_eq!(listing, "a file of some length\r\nf\r\n");
        raw.expect(226);
    }
}
