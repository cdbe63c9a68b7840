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
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use suppaftp::types::{FileType, Mode};
use suppaftp::{FtpError, FtpStream};
use support::certificates::{Authority, Secured};
use support::servers::{Opts, Server, is_root};
use support::{PATIENCE, content, temp_dir, wait_until};

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

/// One upload over TLS by a client that is not ours.
const STRANGER: &str = r#"
import ftplib, io, ssl, sys
host, port, user, password, ca, implicit, resume, active, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if certificate:
    context.load_cert_chain(certificate, key)
class Client(ftplib.FTP_TLS):
    def connect(self):
        if not implicit:
            return super().connect(host, int(port))
        import socket
        self.host, self.port = host, int(port)
        sock = socket.create_connection((host, int(port)))
        self.af = sock.family
        self.sock = context.wrap_socket(sock, server_hostname=host)
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
    def ntransfercmd(self, cmd, rest=None):
        data, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        session = self.sock.session if resume else None
        return context.wrap_socket(data, server_hostname=host, session=session), size
client = Client(context=context)
client.connect()
try:
    if implicit:
        ftplib.FTP.login(client, user, password)
    else:
        client.login(user, password)
    client.prot_p()
    client.set_pasv(not active)
    print(client.sock.version(), client.storbinary("STOR a", io.BytesIO(b"a" * 100000)))
except ftplib.Error as error:
    print("refused:", error)
"#;

/// What the stranger says.
fn stranger(server: &Server, secured: &Secured, resume: bool, active: bool) -> String {
    let dir = temp_dir();
    let ca = secured.authority.write(dir.path());
    let own = secured.wants_client.then(|| {
        let (certificate, key) = secured.authority.client().write(dir.path(), "client");
        [certificate, key].map(|path| path.display().to_string())
    });
    let yes = |so: bool| if so { "yes" } else { "" };
    let output = Command::new("python3")
        .args(["-c", STRANGER, &server.addr.ip().to_string()])
        .args([
            &server.addr.port().to_string(),
            &server.user,
            &server.password,
        ])
        .arg(ca)
        .args([secured.implicit, resume, active].map(yes))
        .args(own.unwrap_or_default())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// Starts each server that has TLS so, and lets the stranger upload.
fn each_secured(change: fn(&mut Secured), also_implicit: bool) -> Vec<(Server, Secured)> {
    let authority = Arc::new(Authority::new());
    let opts = Opts::default().tls(&authority).tls_with(change);
    let servers = match also_implicit {
        true => vec![Server::vsftpd(opts.clone()), Server::proftpd(opts.clone())],
        false => Server::all(&opts),
    };
    let secured = opts.tls.unwrap();
    servers
        .into_iter()
        .map(|server| (server, secured.clone()))
        .collect()
}

#[test]
fn every_server_speaks_tls_and_only_the_version_that_it_shall() {
    for (change, version) in [
        (|_: &mut Secured| {}) as fn(&mut Secured),
        |secured| secured.only = Some("TLSv1.2"),
        |secured| secured.only = Some("TLSv1.3"),
    ]
    .into_iter()
    .zip(["TLSv1.3", "TLSv1.2", "TLSv1.3"])
    {
        for (server, secured) in each_secured(change, false) {
            let said = stranger(&server, &secured, true, false);
            println!("{}: {said}", server.name);
            assert!(said.starts_with(&format!("{version} 226")), "{said}");
            let mut plain = FtpStream::connect(server.addr).unwrap();
            let refused = plain.login(server.user.as_str(), server.password.as_str());
            assert!(
                refused.is_err(),
                "{} lets a password in clear in",
                server.name
            );
        }
    }
}

#[test]
fn vsftpd_and_proftpd_speak_tls_from_the_first_byte_and_want_a_session_resumed() {
    for (server, secured) in each_secured(|secured| secured.implicit = true, true) {
        let said = stranger(&server, &secured, true, false);
        assert!(said.contains(" 226"), "{}: {said}", server.name);
        let said = stranger(&server, &secured, false, false);
        println!("{}: {said}", server.name);
        assert!(!said.contains(" 226"), "{}: {said}", server.name);
    }
}

#[test]
fn every_server_takes_only_clients_that_show_a_certificate_where_it_shall() {
    for (server, mut secured) in each_secured(|secured| secured.wants_client = true, false) {
        if server.name == "pure-ftpd" {
            continue; // it asks for none
        }
        let said = stranger(&server, &secured, true, false);
        assert!(said.contains(" 226"), "{}: {said}", server.name);
        secured.wants_client = false;
        let said = stranger(&server, &secured, true, false);
        println!("{}: {said}", server.name);
        assert!(!said.contains(" 226"), "{}: {said}", server.name);
    }
}

#[test]
fn vsftpd_and_proftpd_connect_to_us_on_both_kinds_of_address() {
    let authority = Arc::new(Authority::new());
    for opts in [Opts::default(), Opts::default().ipv6()] {
        let opts = opts.tls(&authority);
        let secured = opts.tls.clone().unwrap();
        for server in [Server::vsftpd(opts.clone()), Server::proftpd(opts.clone())] {
            let said = stranger(&server, &secured, true, true);
            assert!(
                said.contains(" 226"),
                "{} {}: {said}",
                server.name,
                server.addr
            );
            let said = stranger(&server, &secured, true, false);
            assert!(
                said.contains(" 226"),
                "{} {}: {said}",
                server.name,
                server.addr
            );
        }
    }
}
