//! The real FTP servers of the tests can do what the product asks of one: log in, extended
//! passive mode, SIZE, a rename over an existing file, a listing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use suppaftp::types::{FileType, Mode};
use suppaftp::{FtpError, FtpStream};
use support::servers::{Opts, Server, is_root};
use support::{PATIENCE, content, wait_until};

fn log_in(server: &Server) -> FtpStream {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut ftp = FtpStream::connect_with_stream(stream).unwrap();
    ftp.login(server.user.as_str(), server.password.as_str())
        .unwrap();
    ftp.set_mode(Mode::ExtendedPassive);
    ftp.transfer_type(FileType::Binary).unwrap();
    ftp
}

fn upload(ftp: &mut FtpStream, name: &str, bytes: &[u8]) {
    let mut data = ftp.put_with_stream(name).unwrap();
    data.write_all(bytes).unwrap();
    data.get_ref().get_ref().shutdown(Shutdown::Write).unwrap();
    data.finish().unwrap();
}

fn serves_an_upload(server: &Server) {
    let mut ftp = log_in(server);
    ftp.mkdir("in box").unwrap();
    let (old, new) = (content(1, 100_000), content(2, 70_001));
    for bytes in [&old, &new] {
        upload(&mut ftp, "in box/.-é.part", bytes);
        assert_eq!(ftp.size("in box/.-é.part").unwrap(), bytes.len());
        ftp.rename("in box/.-é.part", "in box/-é").unwrap();
        assert_eq!(&std::fs::read(server.path("in box/-é")).unwrap(), bytes);
    }
    let listed = ftp.nlst(Some("in box")).unwrap();
    assert!(listed.iter().any(|name| name.ends_with("-é")), "{listed:?}");
    assert!(
        !listed.iter().any(|name| name.ends_with(".part")),
        "{listed:?}"
    );
    assert!(!server.pids().is_empty());
    ftp.quit().unwrap();
}

#[test]
fn vsftpd_serves_an_upload() {
    serves_an_upload(&Server::vsftpd(Opts::default()));
}

#[test]
fn proftpd_serves_an_upload() {
    serves_an_upload(&Server::proftpd(Opts::default()));
}

#[test]
fn pure_ftpd_serves_an_upload() {
    if is_root() {
        serves_an_upload(&Server::pure_ftpd(Opts::default()));
    } else {
        eprintln!("not run: Debian's pure-ftpd runs for root only");
    }
}

#[test]
fn pyftpdlib_serves_an_upload() {
    serves_an_upload(&Server::pyftpdlib(Opts::default()));
    serves_an_upload(&Server::pyftpdlib(Opts::default().process_per_session()));
}

#[test]
fn every_server_refuses_a_session_beyond_its_bound_per_address() {
    for server in Server::all(&Opts::default().per_ip(1)) {
        let first = log_in(&server);
        let stream = TcpStream::connect(server.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let second = FtpStream::connect_with_stream(stream)
            .and_then(|mut ftp| ftp.login(server.user.as_str(), server.password.as_str()));
        assert!(second.is_err(), "{} let a second session in", server.name);
        drop(first);
    }
}

#[test]
fn a_wrong_password_is_refused_with_530() {
    for server in Server::all(&Opts::default()) {
        if server.user == "anonymous" {
            continue; // vsftpd without root takes any password
        }
        let mut ftp = FtpStream::connect(server.addr).unwrap();
        match ftp.login(server.user.as_str(), "wrong") {
            Err(FtpError::UnexpectedResponse(reply)) => assert_eq!(reply.status.code(), 530),
            other => panic!("{}: {other:?}", server.name),
        }
    }
}

#[test]
fn a_frozen_session_answers_after_the_thaw_and_a_killed_one_never() {
    for server in Server::all(&Opts::default().process_per_session()) {
        let mut ftp = log_in(&server);
        server.freeze_sessions();
        ftp.get_ref()
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(ftp.noop().is_err(), "{} answered while frozen", server.name);
        server.thaw();
        server.kill_sessions();
        wait_until("the sessions are gone", PATIENCE, || {
            server.pids().is_empty()
        });
        assert!(
            log_in(&server).noop().is_ok(),
            "{} serves no new session",
            server.name
        );
    }
}

#[test]
fn a_server_comes_back_on_its_address_with_its_files() {
    for mut server in Server::all(&Opts::default()) {
        upload(&mut log_in(&server), "kept", b"kept");
        server.stop();
        assert!(TcpStream::connect(server.addr).is_err());
        server.start_again();
        assert_eq!(log_in(&server).size("kept").unwrap(), 4);
    }
}
