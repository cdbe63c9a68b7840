//! Real FTP servers as child processes, each on a loopback address of its own (so that ports
//! and passive ports collide with nothing), with a real login and a folder of its own.
//! Started when its greeting was read; killed on drop; its log is shown when a test panics.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::netns::Space;
use super::process::{Running, send, spawn};
use super::recipes::{self, Place, UNPRIVILEGED};
pub use super::recipes::{Opts, PASSWORD, USER, is_root};
use super::{PATIENCE, temp_dir, wait_for, wait_until};

type Recipe = fn(&Place<'_>) -> Command;

/// A real FTP server.
pub struct Server {
    /// Its name: vsftpd, proftpd, pure-ftpd or pyftpdlib.
    pub name: &'static str,
    /// Where it listens; passive connections go to the same address.
    pub addr: SocketAddr,
    /// Login name.
    pub user: String,
    /// Login password.
    pub password: String,
    /// The login folder: where uploads land.
    pub root: PathBuf,
    recipe: Recipe,
    opts: Opts,
    process: Option<Running>,
    dir: tempfile::TempDir,
    seat: Seat,
}

impl Server {
    /// vsftpd: a process pair a session. Without root or mount namespaces: anonymous (any
    /// password), not chrooted.
    pub fn vsftpd(opts: Opts) -> Self {
        Self::start("vsftpd", recipes::vsftpd, opts)
    }

    /// Its folder of configuration and logs.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// proftpd: a process a session. Without root: not chrooted.
    pub fn proftpd(opts: Opts) -> Self {
        Self::start("proftpd", recipes::proftpd, opts)
    }

    /// pure-ftpd: a process (pair) a session. Root only.
    pub fn pure_ftpd(opts: Opts) -> Self {
        Self::start("pure-ftpd", recipes::pure_ftpd, opts)
    }

    /// pyftpdlib: all sessions in one process, unless `opts.process_per_session`.
    pub fn pyftpdlib(opts: Opts) -> Self {
        Self::start("pyftpdlib", recipes::pyftpdlib, opts)
    }

    /// Every server that this user can run, one after the other started.
    pub fn all(opts: &Opts) -> Vec<Self> {
        let mut servers = vec![Self::vsftpd(opts.clone()), Self::proftpd(opts.clone())];
        if is_root() {
            servers.push(Self::pure_ftpd(opts.clone()));
        }
        servers.push(Self::pyftpdlib(opts.clone()));
        servers
    }

    /// pyftpdlib in a network namespace.
    pub fn pyftpdlib_in(space: &Arc<Space>, opts: Opts) -> Self {
        let space = Some(Arc::clone(space));
        Self::start_in(space, "pyftpdlib", recipes::pyftpdlib, opts)
    }

    fn start(name: &'static str, recipe: Recipe, opts: Opts) -> Self {
        Self::start_in(None, name, recipe, opts)
    }

    fn start_in(space: Option<Arc<Space>>, name: &'static str, recipe: Recipe, opts: Opts) -> Self {
        let dir = temp_dir();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&root, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
        let seat = Seat::take(space, opts.ipv6);
        let anonymous = name == "vsftpd" && recipes::vsftpd_is_anonymous();
        let mut server = Self {
            name,
            addr: seat.address(),
            user: if anonymous { "anonymous" } else { USER }.into(),
            password: PASSWORD.into(),
            root,
            recipe,
            opts,
            process: None,
            dir,
            seat,
        };
        // A wildcard listener elsewhere can still take the port between choice and bind.
        for _ in 0..5 {
            if server.try_start() {
                return server;
            }
            server.addr = server.seat.address();
        }
        panic!("{name} does not start:\n{}", server.log());
    }

    /// Starts the process and waits for its greeting; false if it ended instead.
    fn try_start(&mut self) -> bool {
        let place = Place {
            dir: self.dir.path(),
            root: &self.root,
            addr: self.addr,
            opts: &self.opts,
        };
        let mut command = self.seat.moved((self.recipe)(&place));
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("output.log"))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        command.current_dir(self.dir.path());
        let mut process = spawn(command).unwrap_or_else(|e| panic!("start {}: {e}", self.name));
        let greeted = wait_for(&format!("{} greets", self.name), PATIENCE, || {
            match self.seat.greeting(self.addr, self.is_implicit()) {
                Ok(()) => Some(true),
                Err(_) if process.ended().is_some() => Some(false),
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => None,
                Err(e) => panic!("greeting of {}: {e}\n{}", self.name, self.log()),
            }
        });
        if greeted {
            // The seat that the greeting took is free again before the test counts seats.
            wait_until("the first session ends", PATIENCE, || {
                process.descendants().is_empty()
            });
        }
        self.process = greeted.then_some(process);
        greeted
    }

    /// Address, user and folder as the product's `server` wants them; no password in it.
    pub fn url(&self, folder: &str) -> String {
        let scheme = match &self.opts.tls {
            Some(_) if self.is_implicit() => "ftps",
            Some(_) => "ftpes",
            None => "ftp",
        };
        format!("{scheme}://{}@{}/{folder}", self.user, self.addr)
    }

    /// The certificate of the authority that signs for it, if it speaks TLS.
    pub fn authority(&self) -> Option<PathBuf> {
        let secured = self.opts.tls.as_ref();
        secured.map(|secured| secured.authority.write(self.dir.path()))
    }

    fn is_implicit(&self) -> bool {
        self.opts.tls.as_ref().is_some_and(|tls| tls.implicit)
    }

    /// The path of a file below the login folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    fn process(&self) -> &Running {
        self.process
            .as_ref()
            .expect("the server was stopped by this test")
    }

    /// Processes that serve sessions. Where one process serves all, that one.
    pub fn pids(&self) -> Vec<u32> {
        if self.name == "pyftpdlib" && !self.opts.process_per_session {
            return vec![self.process().pid()];
        }
        self.process().descendants()
    }

    /// SIGSTOP to every session; new ones still come up (but see `pids`).
    pub fn freeze_sessions(&self) -> Vec<u32> {
        let pids = self.pids();
        pids.iter().for_each(|pid| send(*pid, Signal::STOP));
        pids
    }

    /// SIGCONT to every process of the server.
    pub fn thaw(&self) {
        send(self.process().pid(), Signal::CONT);
        self.process()
            .descendants()
            .into_iter()
            .for_each(|pid| send(pid, Signal::CONT));
    }

    /// SIGSTOP to the whole server: the kernel still completes connections, nobody answers.
    pub fn freeze(&self) {
        send(self.process().pid(), Signal::STOP);
        self.process()
            .descendants()
            .into_iter()
            .for_each(|pid| send(pid, Signal::STOP));
    }

    /// SIGKILL to every session.
    pub fn kill_sessions(&self) {
        self.pids()
            .into_iter()
            .for_each(|pid| send(pid, Signal::KILL));
    }

    /// Ends the server; its folder and address stay for `start_again`.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts a stopped server again on the same address.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} still runs", self.name);
        // The kernel may hold the port for a moment after the kill.
        wait_until("the server is back", PATIENCE, || self.try_start());
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let mut files: Vec<_> = fs::read_dir(self.dir.path()).unwrap().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files
            .iter()
            .filter(|f| f.path().extension().is_some_and(|e| e == "log"))
        {
            let bytes = fs::read(file.path()).unwrap_or_default();
            text += &format!("--- {} {}\n", self.name, file.file_name().to_string_lossy());
            text += &String::from_utf8_lossy(&bytes);
        }
        text
    }
}

impl Drop for Server {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        self.process = None;
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            let from = (from..log.len())
                .find(|i| log.is_char_boundary(*i))
                .unwrap_or(log.len());
            eprintln!("{}", &log[from..]);
        }
    }
}

/// An address of 127/8 that no other test has. A bound port marks it as taken.
fn seat() -> TcpListener {
    loop {
        let random = RandomState::new().hash_one(0).to_le_bytes();
        let ip = Ipv4Addr::new(127, 16 + random[0] % 200, random[1], 1 + random[2] % 250);
        match TcpListener::bind((ip, 19_999)) {
            Ok(seat) => return seat,
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            Err(e) => panic!("bind {ip}: {e}"),
        }
    }
}

/// Where a server has its address.
enum Seat {
    /// Bound as long as the server lives: the address belongs to it.
    Loopback(TcpListener),
    /// Shared with others: there is but one such address.
    Loopback6,
    /// Nobody else is there.
    Space(Arc<Space>),
}

impl Seat {
    fn take(space: Option<Arc<Space>>, ipv6: bool) -> Self {
        match space {
            Some(space) => Self::Space(space),
            None if ipv6 => Self::Loopback6,
            None => Self::Loopback(seat()),
        }
    }

    /// The address with a free port.
    fn address(&self) -> SocketAddr {
        let ip = match self {
            Self::Loopback(seat) => seat.local_addr().unwrap().ip(),
            Self::Loopback6 => Ipv6Addr::LOCALHOST.into(),
            Self::Space(space) => return (space.ip, 2121).into(),
        };
        TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
    }

    fn moved(&self, command: Command) -> Command {
        match self {
            Self::Loopback(_) | Self::Loopback6 => command,
            Self::Space(space) => space.moved(&command),
        }
    }

    fn greeting(&self, addr: SocketAddr, implicit: bool) -> std::io::Result<()> {
        match self {
            Self::Loopback(_) | Self::Loopback6 => greeting(addr, implicit),
            Self::Space(space) => space.run(|| greeting(addr, implicit)),
        }
    }
}

/// Reads the greeting and says goodbye. One in TLS is not read: the server listens.
fn greeting(addr: SocketAddr, implicit: bool) -> std::io::Result<()> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    if implicit {
        return Ok(());
    }
    let mut lines = BufReader::new(&stream);
    let mut line = String::new();
    while !line.starts_with("220 ") {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Err(ErrorKind::ConnectionRefused.into()); // not ready yet: try again
        }
    }
    (&stream).write_all(b"QUIT\r\n")?;
    while lines.read_line(&mut line)? > 0 {}
    Ok(())
}
