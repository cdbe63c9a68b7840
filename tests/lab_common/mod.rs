//! A lab server with its events and two clients: suppaftp, and a raw socket where a test must see
//! each reply. Nothing here waits for time alone: it waits for the server's events.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ftpulse::lab::{Event, Fault, LabServer, Script, Subscriber, TransferEnd};
use socket2::SockRef;
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpStream, Mode, Status};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Lab {
    pub server: LabServer,
    pub events: Subscriber,
    pub dir: TempDir,
}

impl Lab {
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::with(Script::of(faults))
    }

    pub fn with(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = LabServer::start(dir.path(), script).unwrap();
        let events = server.events();
        Self {
            server,
            events,
            dir,
        }
    }

    pub fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        match self.events.wait_for(wanted, PATIENCE) {
            Some(event) => event,
            None => panic!(
                "the event never came; these did: {:#?}",
                self.events.drain()
            ),
        }
    }

    pub fn struck(&mut self, name: &str) -> u64 {
        self.event(|e| matches!(e, Event::Struck { fault, .. } if fault.name() == name))
            .session()
    }

    pub fn data_ended(&mut self) -> TransferEnd {
        match self.event(|e| matches!(e, Event::DataEnded { .. })) {
            Event::DataEnded { how, .. } => how,
            other => panic!("{other:?}"),
        }
    }

    pub fn frozen(&self, n: usize) {
        self.server
            .wait_counters(|c| c.frozen == n, PATIENCE)
            .expect("the session freezes");
    }

    pub fn client(&self) -> FtpStream {
        let mut ftp = self.connect();
        ftp.login(self.server.user(), self.server.password())
            .unwrap();
        ftp.transfer_type(FileType::Binary).unwrap();
        ftp
    }

    pub fn connect(&self) -> FtpStream {
        let mut ftp = FtpStream::connect(self.server.addr()).unwrap();
        ftp.set_mode(Mode::ExtendedPassive);
        ftp
    }

    pub fn raw(&self) -> Raw {
        Raw::connect(self.server.addr())
    }

    pub fn logged_in(&self) -> Raw {
        let mut raw = self.raw();
        raw.expect(220);
        raw.login();
        raw
    }

    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.path().join(path)).ok()
    }

    pub fn put_file(&self, path: &str, content: &[u8]) {
        std::fs::write(self.dir.path().join(path), content).unwrap();
    }
}

/// A client that shows every reply.
pub struct Raw {
    pub stream: TcpStream,
    pub replies: BufReader<TcpStream>,
    /// What a test keeps of a reply.
    pub seen: String,
}

impl Raw {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // What is said is on its way: a reset that follows does not throw it away unsent.
        stream.set_nodelay(true).unwrap();
        let replies = BufReader::new(stream.try_clone().unwrap());
        Self {
            stream,
            replies,
            seen: String::new(),
        }
    }

    pub fn say(&mut self, line: &str) {
        self.stream
            .write_all(format!("{line}\r\n").as_bytes())
            .unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.replies.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    pub fn expect(&mut self, code: u16) -> String {
        let line = self.line();
        assert!(
            line.starts_with(&code.to_string()),
            "expected {code}, got {line:?}"
        );
        line
    }

    pub fn ask(&mut self, line: &str, code: u16) -> String {
        self.say(line);
        self.expect(code)
    }

    pub fn login(&mut self) {
        self.ask("USER lab", 331);
        self.ask("PASS lab", 230);
    }

    pub fn epsv(&mut self) -> u16 {
        let reply = self.ask("EPSV", 229);
        reply.split('|').nth(3).unwrap().parse().unwrap()
    }

    pub fn data(&mut self) -> TcpStream {
        let port = self.epsv();
        let server = self.stream.peer_addr().unwrap().ip();
        let data = TcpStream::connect((server, port)).unwrap();
        data.set_read_timeout(Some(PATIENCE)).unwrap();
        data
    }

    /// EPSV, connect, STOR up to its 150.
    pub fn stor(&mut self, path: &str) -> TcpStream {
        let data = self.data();
        self.ask(&format!("STOR {path}"), 150);
        data
    }

    pub fn put(&mut self, path: &str, content: &[u8]) {
        let mut data = self.stor(path);
        data.write_all(content).unwrap();
        drop(data);
        self.expect(226);
    }

    /// A port of this client's own, told to the server by EPRT.
    pub fn eprt(&mut self) -> TcpListener {
        let own = self.stream.local_addr().unwrap().ip();
        let listener = TcpListener::bind((own, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let family = if own.is_ipv4() { 1 } else { 2 };
        self.ask(&format!("EPRT |{family}|{own}|{port}|"), 200);
        listener
    }

    /// What a download or a listing sends, up to the end of its data connection.
    pub fn received(&mut self, command: &str) -> Vec<u8> {
        let mut data = self.data();
        self.ask(command, 150);
        let mut content = Vec::new();
        data.read_to_end(&mut content).unwrap();
        content
    }

    /// All lines of a reply; the last one bears the code.
    pub fn reply(&mut self, code: u16) -> Vec<String> {
        let mut lines = vec![self.line()];
        while !lines.last().unwrap().starts_with(&format!("{code} ")) {
            lines.push(self.line());
        }
        lines
    }

    /// Nothing has come and the connection stands.
    pub fn is_silent(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let found = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.replies.buffer().is_empty()
            && found.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Writes until the kernel takes no more; how much it took.
pub fn stuff(data: &TcpStream, content: &[u8]) -> usize {
    data.set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sent = 0;
    while sent < content.len() {
        match (&*data).write(&content[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return sent,
            Err(e) => panic!("after {sent} bytes: {e}"),
        }
    }
    sent
}

pub fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

pub fn code(error: FtpError) -> Status {
    match error {
        FtpError::UnexpectedResponse(response) => response.status,
        other => panic!("not a reply: {other:?}"),
    }
}
