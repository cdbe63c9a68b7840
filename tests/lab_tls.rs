//! The lab server over TLS: explicit and implicit, 1.2 and 1.3, sessions that are resumed or have
//! to be, certificates good and bad, nothing in plain; every fault strikes as it does in plain,
//! and those of TLS where they say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod lab_common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ftpulse::clock::mono;
use ftpulse::lab::{
    Certificate, Event, Fault, Identity, Kind, LabServer, Named, Needs, Script, Step, Tls,
    TransferEnd, Until, Versions,
};
use lab_common::*;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// What a client trusts: the server's CA. Its sessions are its own.
fn trusting(server: &LabServer, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(server.ca().unwrap().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let own = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![own], key).unwrap()
        }
    })
}

/// The client's side of a handshake.
fn secure(config: &Arc<ClientConfig>, socket: TcpStream) -> io::Result<Secured> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut secured = StreamOwned::new(connection, socket);
    while secured.conn.is_handshaking() {
        secured.conn.complete_io(&mut secured.sock)?;
    }
    Ok(secured)
}

/// A client over TLS that shows every reply; its errors are values, for those who expect them.
struct Client {
    control: Secured,
    config: Arc<ClientConfig>,
    addr: SocketAddr,
    patience: Duration,
}

fn wrong(line: String) -> io::Error {
    io::Error::other(line)
}

/// A line of a plain connection, read without reading on.
fn plain_line(socket: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        socket.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn plain_ask(socket: &mut TcpStream, line: &str, code: &str) -> io::Result<()> {
    socket.write_all(format!("{line}\r\n").as_bytes())?;
    let reply = plain_line(socket)?;
    match reply.starts_with(code) {
        true => Ok(()),
        false => Err(wrong(reply)),
    }
}

impl Client {
    fn dial(addr: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&addr, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// Up to its login, both connections protected.
    fn open(
        server: &LabServer,
        config: &Arc<ClientConfig>,
        patience: Duration,
    ) -> io::Result<Self> {
        let mut socket = Self::dial(server.addr(), patience)?;
        let implicit = server.url("").starts_with("ftps:");
        if !implicit {
            let greeting = plain_line(&mut socket)?;
            if !greeting.starts_with("220") {
                return Err(wrong(greeting));
            }
            plain_ask(&mut socket, "AUTH TLS", "234")?;
        }
        let mut client = Self {
            control: secure(config, socket)?,
            config: Arc::clone(config),
            addr: server.addr(),
            patience,
        };
        if implicit {
            client.expect(220)?;
        }
        for (line, code) in [
            ("PBSZ 0", 200),
            ("PROT P", 200),
            ("USER lab", 331),
            ("PASS lab", 230),
            ("TYPE I", 200),
        ] {
            client.ask(line, code)?;
        }
        Ok(client)
    }

    fn expect(&mut self, code: u16) -> io::Result<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            self.control.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        match line.starts_with(&code.to_string()) {
            true => Ok(line),
            false => Err(wrong(line)),
        }
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.control.write_all(format!("{line}\r\n").as_bytes())
    }

    fn ask(&mut self, line: &str, code: u16) -> io::Result<String> {
        self.say(line)?;
        self.expect(code)
    }

    /// The port of EPSV, or of PASV where that is refused.
    fn port(&mut self) -> io::Result<u16> {
        if let Ok(reply) = self.ask("EPSV", 229) {
            return Ok(reply.split('|').nth(3).unwrap().parse().unwrap());
        }
        let reply = self.ask("PASV", 227)?;
        let numbers = reply.split_once('(').unwrap().1.split(')').next().unwrap();
        let numbers: Vec<u16> = numbers.split(',').map(|n| n.parse().unwrap()).collect();
        Ok(numbers[4] * 256 + numbers[5])
    }

    /// The data connection of `command`, not yet TLS.
    fn transfer(&mut self, command: &str) -> io::Result<TcpStream> {
        let addr = SocketAddr::new(self.addr.ip(), self.port()?);
        let data = Self::dial(addr, self.patience)?;
        self.ask(command, 150)?;
        Ok(data)
    }

    fn stor(&mut self, path: &str) -> io::Result<Secured> {
        let data = self.transfer(&format!("STOR {path}"))?;
        secure(&self.config, data)
    }

    /// Says goodbye as a client should, and reads the server's own.
    fn close(mut data: Secured) -> io::Result<()> {
        data.conn.send_close_notify();
        data.conn.complete_io(&mut data.sock)?;
        data.sock.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        data.read_to_end(&mut rest).map(drop)
    }

    fn put(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut data = self.stor(path)?;
        data.write_all(content)?;
        Self::close(data)?;
        self.expect(226).map(drop)
    }

    fn get(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let data = self.transfer(command)?;
        let mut data = secure(&self.config, data)?;
        let mut content = Vec::new();
        data.read_to_end(&mut content)?;
        drop(data);
        self.expect(226)?;
        Ok(content)
    }
}

fn lab_over(tls: Tls, faults: impl IntoIterator<Item = Fault>) -> Lab {
    Lab::with(Script::of(faults).over(tls))
}

fn client(lab: &Lab) -> Client {
    Client::open(&lab.server, &trusting(&lab.server, None), PATIENCE).unwrap()
}

// ---------------------------------------------------------------- healthy

#[test]
fn both_connections_are_protected_explicitly_and_implicitly_in_both_versions() {
    for tls in [Tls::explicit(), Tls::implicit()] {
        for versions in [Versions::Both, Versions::Tls12, Versions::Tls13] {
            let mut lab = lab_over(Tls { versions, ..tls }, []);
            let mut ftp = client(&lab);
            let content = bytes(3 << 20);
            for name in ["one", "two", "three"] {
                ftp.put(name, &content).unwrap();
                assert!(lab.file(name).unwrap() == content);
                assert_eq!(lab.data_ended(), TransferEnd::Eof);
            }
            assert!(ftp.get("RETR one").unwrap() == content);
            assert_eq!(ftp.get("NLST").unwrap(), b"one\r\nthree\r\ntwo\r\n");
            ftp.ask("QUIT", 221).unwrap();
            let events = lab.events.drain();
            let secured = |of_data| {
                let fits =
                    |e: &&Event| matches!(e, Event::Secured { data, .. } if *data == of_data);
                events.iter().filter(fits).count()
            };
            assert_eq!(
                (secured(false), secured(true)),
                (1, 5),
                "{tls:?} {versions:?}"
            );
            // A client that keeps its sessions has them resumed; tickets of TLS 1.3 last once.
            assert!(lab.server.counters().resumed >= 2, "{tls:?} {versions:?}");
        }
    }
}

#[test]
fn ftplib_over_openssl_uploads_downloads_and_lists() {
    const SCRIPT: &str = "
import ftplib, io, ssl, sys
host, port, ca = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile=ca)
ftp = ftplib.FTP_TLS(context=context)
ftp.connect(host, port, 60)
ftp.login('lab', 'lab')
ftp.prot_p()
content = bytes(range(256)) * 5000
ftp.storbinary('STOR f', io.BytesIO(content))
got = []
ftp.retrbinary('RETR f', got.append)
assert b''.join(got) == content
assert ftp.nlst() == ['f']
assert [(name, facts['size']) for name, facts in ftp.mlsd()] == [('f', '1280000')]
ftp.quit()
";
    let script = Script::healthy().over(Tls::explicit());
    for script in [script.clone(), script.on_ipv6()] {
        let lab = Lab::with(script);
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), lab.server.ca().unwrap()).unwrap();
        let addr = lab.server.addr();
        let output = Command::new("python3")
            .args([
                "-c",
                SCRIPT,
                &addr.ip().to_string(),
                &addr.port().to_string(),
            ])
            .arg(ca.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{addr}: {said}");
    }
}

#[test]
fn a_server_can_demand_that_data_connections_resume_the_session() {
    for versions in [Versions::Tls12, Versions::Tls13] {
        let tls = Tls {
            reuse: true,
            versions,
            ..Tls::explicit()
        };
        let lab = lab_over(tls, []);
        let mut ftp = client(&lab);
        ftp.put("resumed", b"content").unwrap();
        assert_eq!(lab.server.counters().resumed, 1);
        // Another configuration knows no session, another session's is not this one's.
        for stranger in [trusting(&lab.server, None), {
            let other = client(&lab);
            Arc::clone(&other.config)
        }] {
            ftp.config = stranger;
            let data = ftp.stor("fresh").unwrap();
            drop(data);
            ftp.expect(522).unwrap();
        }
        assert_eq!(lab.server.counters().stored, 1);
    }
}

#[test]
fn a_certificate_can_be_expired_for_another_host_or_of_no_ca() {
    type Fits = fn(&rustls::Error) -> bool;
    let cases: [(Certificate, Fits); 3] = [
        (Certificate::Expired, |e| {
            matches!(
                e,
                rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
            )
        }),
        (Certificate::WrongHost, |e| {
            matches!(
                e,
                rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
            )
        }),
        (Certificate::SelfSigned, |e| {
            matches!(
                e,
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
            )
        }),
    ];
    for (certificate, fits) in cases {
        for tls in [Tls::explicit(), Tls::implicit()] {
            let mut lab = lab_over(Tls { certificate, ..tls }, []);
            let config = trusting(&lab.server, None);
            let error = Client::open(&lab.server, &config, PATIENCE).err().unwrap();
            let inner = error.get_ref().and_then(|e| e.downcast_ref()).unwrap();
            assert!(fits(inner), "{certificate:?}: {inner:?}");
            lab.event(|e| matches!(e, Event::Ended { .. }));
            assert_eq!(lab.server.counters().logins, 0);
        }
    }
}

#[test]
fn a_server_can_want_a_certificate_of_its_clients() {
    let tls = Tls {
        client_certificate: true,
        ..Tls::explicit()
    };
    let lab = lab_over(tls, []);
    let without = trusting(&lab.server, None);
    assert!(Client::open(&lab.server, &without, PATIENCE).is_err());
    let with = trusting(&lab.server, lab.server.client_identity());
    let mut ftp = Client::open(&lab.server, &with, PATIENCE).unwrap();
    ftp.put("f", b"content").unwrap();
}

#[test]
fn where_tls_is_required_nothing_goes_without() {
    let lab = lab_over(Tls::explicit(), []);
    let mut raw = lab.raw();
    raw.expect(220);
    raw.ask("USER lab", 530);
    raw.ask("PBSZ 0", 503);
    raw.ask("AUTH KERBEROS", 504);
    let mut ftp = client(&lab);
    ftp.ask("PROT C", 534).unwrap();
    ftp.ask("AUTH TLS", 503).unwrap();
    // A data connection that ends without its close_notify may be cut short.
    let mut data = ftp.stor("cut").unwrap();
    data.write_all(b"part").unwrap();
    data.sock.shutdown(Shutdown::Write).unwrap();
    ftp.expect(426).unwrap();
    assert_eq!(lab.server.counters().stored, 0);
    // One that is no TLS at all gets nowhere.
    let mut data = ftp.transfer("STOR plain").unwrap();
    data.write_all(b"no handshake at all").unwrap();
    ftp.expect(425).unwrap();
    assert_eq!(lab.file("plain").unwrap(), b"");
}

#[test]
fn where_tls_is_only_offered_a_plain_session_is_served() {
    let tls = Tls {
        required: false,
        ..Tls::explicit()
    };
    let lab = lab_over(tls, []);
    let mut ftp = lab.client();
    assert!(ftp.feat().unwrap().contains_key("AUTH"));
    ftp.put_file("plain", &mut &b"x"[..]).unwrap();
    client(&lab).put("secured", b"x").unwrap();
    let without = Lab::new([]);
    let mut raw = without.raw();
    raw.expect(220);
    raw.ask("AUTH TLS", 502);
}

// ---------------------------------------------------------------- the faults of TLS

#[test]
fn auth_can_be_refused_dropped_or_left_without_an_answer() {
    for code in [502, 534] {
        let fault = Fault::from_name(&format!("auth-{code}")).unwrap();
        let mut lab = lab_over(Tls::explicit(), [fault]);
        let mut raw = lab.raw();
        raw.expect(220);
        raw.ask("AUTH TLS", code);
        lab.struck(&format!("auth-{code}"));
        // It is still there, in plain.
        raw.ask("NOOP", 200);
        client(&lab);
    }
    let mut lab = lab_over(Tls::explicit(), [Fault::from_name("auth-drop").unwrap()]);
    let mut raw = lab.raw();
    raw.expect(220);
    raw.say("AUTH TLS");
    assert_eq!(raw.line(), "", "the connection ends");
    lab.event(|e| matches!(e, Event::Ended { .. }));
    let fault = Fault::from_name("no-reply-auth").unwrap().until_thaw();
    let mut lab = lab_over(Tls::explicit(), [fault]);
    let mut raw = lab.raw();
    raw.expect(220);
    raw.say("AUTH TLS");
    lab.struck("no-reply-auth");
    lab.frozen(1);
    assert!(raw.is_silent());
    lab.server.thaw();
    raw.expect(234);
}

#[test]
fn a_plain_reply_can_be_slipped_in_behind_the_234() {
    let mut lab = lab_over(
        Tls::explicit(),
        [Fault::from_name("auth-injected").unwrap()],
    );
    let mut raw = lab.raw();
    raw.expect(220);
    raw.ask("AUTH TLS", 234);
    raw.expect(230);
    lab.struck("auth-injected");
    // A client that reads no further than the 234 meets it in its handshake.
    lab.server.add_fault(Fault::new(Kind::Injected));
    let config = trusting(&lab.server, None);
    let error = Client::open(&lab.server, &config, PATIENCE).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_handshake_can_get_no_answer_on_either_connection() {
    for tls in [Tls::explicit(), Tls::implicit()] {
        for (step, before) in [(Step::Tls, 0), (Step::DataTls, 1)] {
            let kind = Kind::NoReply(step);
            let mut lab = lab_over(tls, [Fault::new(kind).until_thaw()]);
            let short = Duration::from_millis(300);
            let config = trusting(&lab.server, None);
            let attempt = Client::open(&lab.server, &config, short);
            let error = attempt.and_then(|mut ftp| ftp.put("f", b"x")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{step:?}");
            lab.struck(kind.name());
            assert_eq!(lab.server.counters().logins, before);
            lab.frozen(1);
            // The same session goes on at the thaw.
            lab.server.add_fault(Fault::new(kind).until_thaw());
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| client(&lab).put("f", b"x"));
                lab.frozen(2);
                lab.server.thaw();
                waiting.join().unwrap().unwrap();
            });
        }
    }
}

#[test]
fn a_handshake_can_drip_byte_by_byte_on_either_connection() {
    for step in [Step::Tls, Step::DataTls] {
        let every = Duration::from_millis(1);
        let kind = Kind::Drip { step, every };
        let mut lab = lab_over(Tls::explicit(), [Fault::new(kind)]);
        let config = trusting(&lab.server, None);
        let began = mono();
        let mut ftp = Client::open(&lab.server, &config, PATIENCE).unwrap();
        ftp.put("f", b"x").unwrap();
        // A certificate alone is some 400 bytes; a resumed handshake has none.
        let least = if step == Step::Tls { 500 } else { 100 };
        assert!(mono() - began >= every * least, "{step:?}");
        lab.struck(kind.name());
    }
    let slow = [Fault::from_name("drip-handshake").unwrap()];
    let lab = lab_over(Tls::implicit(), slow);
    let config = trusting(&lab.server, None);
    let mut socket = Client::dial(lab.server.addr(), PATIENCE).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = ClientConnection::new(config, name).unwrap();
    while hello.wants_write() {
        hello.write_tls(&mut socket).unwrap();
    }
    let began = mono();
    socket.read_exact(&mut [0; 3]).unwrap();
    let took = mono() - began;
    assert!(took >= Duration::from_millis(1900), "{took:?}");
}

#[test]
fn a_handshake_can_be_answered_with_garbage() {
    let mut lab = lab_over(
        Tls::explicit(),
        [Fault::from_name("garbage-handshake").unwrap()],
    );
    let config = trusting(&lab.server, None);
    let error = Client::open(&lab.server, &config, PATIENCE).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    lab.struck("garbage-handshake");
    lab.event(|e| matches!(e, Event::Ended { .. }));
    client(&lab).put("f", b"x").unwrap();
}

#[test]
fn the_end_of_a_data_connection_can_be_missing_after_a_whole_upload() {
    let mut lab = lab_over(
        Tls::explicit(),
        [Fault::from_name("no-tls-close").unwrap().until_thaw()],
    );
    let mut ftp = client(&lab);
    let mut data = ftp.stor("f").unwrap();
    data.write_all(b"whole").unwrap();
    data.conn.send_close_notify();
    data.conn.complete_io(&mut data.sock).unwrap();
    lab.struck("no-tls-close");
    lab.frozen(1);
    assert_eq!(lab.file("f").unwrap(), b"whole");
    let short = Some(Duration::from_millis(200));
    data.sock.set_read_timeout(short).unwrap();
    // Tickets may come, its close_notify does not.
    let error = data.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    lab.server.thaw();
    data.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(data.read(&mut [0]).unwrap(), 0);
    ftp.expect(226).unwrap();
}

#[test]
fn a_silent_226_over_tls_comes_after_the_servers_close_notify() {
    let mut lab = lab_over(Tls::explicit(), [Fault::from_name("silent-226").unwrap()]);
    let mut ftp = client(&lab);
    let mut data = ftp.stor("f").unwrap();
    data.write_all(b"whole").unwrap();
    data.conn.send_close_notify();
    data.conn.complete_io(&mut data.sock).unwrap();
    assert_eq!(data.read(&mut [0]).unwrap(), 0);
    lab.struck("silent-226");
    lab.frozen(1);
    assert_eq!(lab.server.counters().stored, 1);
}

// ---------------------------------------------------------------- every fault

fn over_tls() -> impl Iterator<Item = &'static Named> {
    let others = Fault::others().iter();
    Fault::names()
        .iter()
        .chain(others.filter(|named| named.needs == Needs::Tls))
}

#[test]
fn every_named_fault_strikes_over_tls_and_a_later_attempt_delivers() {
    for named in over_tls() {
        // What drips or never ends defeats this client's timeouts, as it should: it has to end.
        let until = match named.kind {
            Kind::Endless(_) | Kind::Drip { .. } => Until::After(Duration::from_secs(1)),
            _ => Until::Thaw,
        };
        let fault = Fault {
            until,
            ..Fault::from_name(named.name).unwrap()
        };
        let mut lab = lab_over(Tls::explicit(), [fault]);
        let content = bytes(300_000);
        let config = trusting(&lab.server, None);
        let attempt = |lab: &Lab| -> io::Result<()> {
            let mut ftp = Client::open(&lab.server, &config, Duration::from_millis(300))?;
            ftp.put("temp", &content)?;
            ftp.ask("SIZE temp", 213)?;
            ftp.ask("RNFR temp", 350)?;
            ftp.ask("RNTO final", 250).map(drop)
        };
        let mut attempts = 1;
        while attempt(&lab).is_err() {
            attempts += 1;
            assert!(attempts < 20, "{} never lets a file through", named.name);
        }
        lab.struck(named.name);
        assert!(lab.file("final").unwrap() == content, "{}", named.name);
    }
}

#[test]
fn a_reader_that_stops_over_tls_closes_its_window_and_goes_on_at_the_thaw() {
    let mut lab = lab_over(
        Tls::explicit(),
        [Fault::from_name("stop-reading").unwrap().until_thaw()],
    );
    let content = bytes(8 << 20);
    let mut ftp = client(&lab);
    let mut data = ftp.stor("f").unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| data.write_all(&content).map(|()| data));
        lab.struck("stop-reading");
        lab.frozen(1);
        assert_eq!(lab.file("f").unwrap().len(), 16 * 1024);
        assert!(!sending.is_finished());
        lab.server.thaw();
        Client::close(sending.join().unwrap().unwrap()).unwrap();
    });
    ftp.expect(226).unwrap();
    assert!(lab.file("f").unwrap() == content);
}
