//! Active mode against real servers, which connect to us: on IPv4 and IPv6, in plain and over TLS;
//! one that stops in the middle, and one that cannot get through (`timers.listen`) until a NAT of
//! ours lets it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;
mod wedge_common;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use support::certificates::Authority;
use support::servers::{Opts, Server};
use support::service::Settings;
use support::{PATIENCE, content, wait_until};
use wedge_common::{is_held, wait_incident};

/// Below the kernel's own ports, and beside those of the servers.
const PORTS: std::ops::RangeInclusive<u16> = 22_000..=22_099;

/// vsftpd without passive mode.
fn vsftpd(opts: Opts) -> Server {
    Server::vsftpd(opts.line("pasv_enable=NO"))
}

const STARTS: [fn(Opts) -> Server; 2] = [vsftpd, Server::proftpd];

fn settings(server: &Server) -> Settings {
    Settings::new()
        .quick()
        .route("main", server, "in")
        .key("routes.main.mode", "active")
}

/// The ports that the server was told, in the order of its log.
fn told(server: &Server) -> Vec<(&'static str, u16)> {
    let log = server.log();
    let told = log.lines().filter_map(|line| {
        if let Some((_, rest)) = line.split_once("EPRT |2|::1|") {
            return Some(("EPRT", rest.split('|').next()?.parse().ok()?));
        }
        let (_, rest) = line.split_once("PORT 127,0,0,1,")?;
        let (high, rest) = rest.split_once(',')?;
        let low = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
        Some(("PORT", (high << 8) + low))
    });
    told.collect()
}

#[test]
fn files_arrive_over_connections_that_the_server_opens_to_a_port_of_the_range() {
    let authority = Arc::new(Authority::new());
    let ways = [Opts::default(), Opts::default().tls(&authority)];
    for opts in ways.into_iter().flat_map(|way| [way.clone(), way.ipv6()]) {
        for start in STARTS {
            let server = start(opts.clone());
            let verb = if server.addr.is_ipv4() {
                "PORT"
            } else {
                "EPRT"
            };
            let range = format!("{}-{}", PORTS.start(), PORTS.end());
            let service = settings(&server)
                .key("routes.main.active_ports", range)
                .start();
            let sizes = [0, 1, 70_000, 20 << 20];
            for (i, size) in (0..).zip(sizes) {
                service.put("main", &format!("f{i}"), &content(i, size));
            }
            service.wait_spool_empty("main", PATIENCE);
            for (i, size) in (0..).zip(sizes) {
                let bytes = fs::read(server.path(format!("in/f{i}"))).unwrap();
                assert!(bytes == content(i, size), "f{i} on {}", server.addr);
            }
            let ok = [("route", "main"), ("result", "ok")];
            let ok = service.metrics().sum("ftpulse_upload_attempts_total", &ok);
            assert_eq!(ok, sizes.len() as f64, "each at its first attempt");
            let told = told(&server);
            println!("{} {}: {told:?}", server.name, server.url("in"));
            assert!(told.len() >= sizes.len(), "{told:?}");
            assert!(
                told.iter()
                    .all(|(v, port)| *v == verb && PORTS.contains(port))
            );
        }
    }
}

#[test]
fn a_server_that_stops_reading_is_found_fenced_quarantined_and_its_file_delivered() {
    for start in STARTS {
        let server = start(Opts::default());
        let service = settings(&server)
            .key("routes.main.uploaders", "1")
            // A pair of a file that is resumed would not be held.
            .key("routes.main.resume_over", "1GiB")
            .start();
        let bytes = content(3, 64 << 20);
        service.put("main", "file.bin", &bytes);
        let folder = server.path("in");
        wait_until("the server has read some of it", PATIENCE, || {
            let files = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut files = files.filter_map(|file| file.metadata().ok());
            files.any(|file| file.is_file() && file.len() > 0)
        });
        server.freeze_sessions();
        let incident = wait_incident(&service, "the incident is recovered from", |i| {
            i["recovered_at"].is_f64()
        });
        println!("{}: {incident:#}", server.name);
        assert_eq!(incident["cause"], "zero_window");
        assert!(is_held(service.pid(), &incident), "open, untouched, ours");
        assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
        server.thaw();
        service.put("main", "next", b"next");
        service.wait_delivered("next");
        assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
    }
}

/// An address that the server is told, and behind which nobody takes what comes: its connections
/// get no answer at all.
struct Hole {
    socket: Socket,
    /// Who fill its queue.
    waiting: Vec<Socket>,
}

impl Hole {
    fn at(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        socket.listen(0).unwrap();
        let waiting = (0..2).map(|_| {
            let one = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            one.set_nonblocking(true).unwrap();
            // It is not established at once, or never.
            let _ = one.connect(&addr.into());
            one
        });
        Self {
            waiting: waiting.collect(),
            socket,
        }
    }

    /// From now on what comes is handed on to the same port of `to`, as by `from`: a NAT.
    fn open(self, from: IpAddr, to: IpAddr) {
        let port = self
            .socket
            .local_addr()
            .unwrap()
            .as_socket()
            .unwrap()
            .port();
        drop(self.waiting);
        let outside = TcpListener::from(self.socket);
        std::thread::spawn(move || {
            for stream in outside.incoming().map_while(Result::ok) {
                let inside = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                inside.bind(&SocketAddr::new(from, 0).into()).unwrap();
                if inside.connect(&SocketAddr::new(to, port).into()).is_err() {
                    continue; // one of those that filled the queue
                }
                hand_on(stream, TcpStream::from(inside));
            }
        });
    }
}

/// Both ways, until each end has come to its own.
fn hand_on(a: TcpStream, b: TcpStream) {
    for (mut from, mut to) in [(a.try_clone().unwrap(), b.try_clone().unwrap()), (b, a)] {
        std::thread::spawn(move || {
            // However it ends, the other side is told.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

#[test]
fn a_server_that_cannot_connect_is_waited_for_within_the_timer_and_a_nat_leads_it_to_us() {
    // Each believes any address here, as one does whose clients stand behind a NAT.
    let promiscuous: [fn() -> Server; 2] = [
        || vsftpd(Opts::default().line("port_promiscuous=YES\nconnect_timeout=300")),
        || Server::proftpd(Opts::default().line("AllowForeignAddress on\nTimeoutNoTransfer 0")),
    ];
    for start in promiscuous {
        let server = start();
        let mut octets = match server.addr.ip() {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(_) => unreachable!("the server listens on 127/8"),
        };
        // Nobody else's: servers have a last octet of 1 to 250.
        octets[3] = 251;
        let outside = IpAddr::from(octets);
        let port = *PORTS.end() + 1;
        let hole = Hole::at((outside, port).into());
        let service = settings(&server)
            .key("routes.main.uploaders", "1")
            .key("routes.main.active_address", outside)
            .key("routes.main.active_ports", format!("{port}-{port}"))
            .key("timers.listen", "500ms")
            .start();
        let bytes = content(5, 100_000);
        let spooled = service.put("main", "file.bin", &bytes);
        let failed = service.wait_log("upload failed", |_| true);
        println!("{}: {failed}", server.name);
        assert_eq!(failed["phase"], "listen");
        let labels = [("route", "main"), ("phase", "listen")];
        service.wait_metrics("the timeout is counted", |metrics| {
            metrics.sum("ftpulse_timeouts_total", &labels) >= 1.0
        });
        assert!(spooled.exists());
        assert!(!server.path("in/file.bin").exists());

        hole.open(server.addr.ip(), [127, 0, 0, 1].into());
        service.wait_log_within(PATIENCE * 2, "file delivered", |_| true);
        assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
    }
}
