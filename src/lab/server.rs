//! The server's life: the listener on loopback, one thread a session, and the end of all of them.
//! Dropping the server opens the stop latch that every wait watches, and joins every thread.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::events::{Counters, Event, Hub, Subscriber};
use super::fault::Fault;
use super::fs::Root;
use super::quirk::Character;
use super::script::{Armed, Script};
use super::session::Session;
use super::stream::Stream;
use super::tls::{Identity, Secure, Tls};
use super::wait::{Latch, Thaw, wait};
use crate::clock::mono;

/// Sessions at once: several times what a test of hundreds needs, and still few for a process.
const SESSIONS_MAX: usize = 2048;
/// A session's buffers are on the heap; its deepest stack is that of a TLS handshake.
const STACK_BYTES: usize = 512 * 1024;
/// Pause after an accept that failed (out of descriptors): a connection waits in the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all sessions of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub root: Root,
    pub user: String,
    pub password: String,
    pub character: Character,
    pub secure: Option<Secure>,
    pub armed: Armed,
    pub hub: Hub,
    pub thaw: Thaw,
    pub stop: Latch,
}

impl Shared {
    /// How the server speaks TLS, if it does.
    pub(super) fn tls(&self) -> Option<Tls> {
        self.secure.as_ref().map(|secure| secure.tls)
    }
}

/// A running server.
#[derive(Debug)]
pub struct LabServer {
    shared: Arc<Shared>,
    root: PathBuf,
    addr: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl LabServer {
    /// Starts a server of the files below `root` (made if missing) on a free loopback port.
    pub fn start(root: impl Into<PathBuf>, script: impl Into<Script>) -> io::Result<Self> {
        let (root, script) = (root.into(), script.into());
        let shared = Arc::new(Shared {
            root: Root::open(&root)?,
            user: script.user,
            password: script.password,
            character: Character::new(script.quirks),
            secure: script.tls.map(Secure::new).transpose()?,
            armed: Armed::new(script.faults),
            hub: Hub::default(),
            thaw: Thaw::default(),
            stop: Latch::new()?,
        });
        let ip = if script.ipv6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        let listener = loopback_listener(ip, 1024, None)?;
        let addr = listener.local_addr()?;
        let acceptor = Acceptor::new(listener, Arc::clone(&shared), addr.port());
        let acceptor = std::thread::Builder::new()
            .name(format!("lab:{}", addr.port()))
            .stack_size(STACK_BYTES)
            .spawn(move || acceptor.run())?;
        Ok(Self {
            shared,
            root,
            addr,
            acceptor: Some(acceptor),
        })
    }

    /// The address of its control port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The name to log in with.
    pub fn user(&self) -> &str {
        &self.shared.user
    }

    /// The password to log in with.
    pub fn password(&self) -> &str {
        &self.shared.password
    }

    /// The folder it serves.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// The URL of a folder below the login folder, without the password.
    pub fn url(&self, folder: &str) -> String {
        let scheme = match self.shared.tls() {
            None => "ftp",
            Some(tls) if tls.implicit => "ftps",
            Some(_) => "ftpes",
        };
        format!("{scheme}://{}@{}/{folder}", self.user(), self.addr)
    }

    /// The certificate of its CA, as PEM; made anew at its start. None without TLS.
    pub fn ca(&self) -> Option<&str> {
        self.shared.secure.as_ref().map(|secure| secure.ca.as_str())
    }

    /// A client's certificate of that CA, with its key.
    pub fn client_identity(&self) -> Option<&Identity> {
        self.shared.secure.as_ref().map(|secure| &secure.client)
    }

    /// Ends every strike so far of faults that hold until the thaw.
    pub fn thaw(&self) {
        self.shared.thaw.thaw();
    }

    /// Replaces the faults. Strikes under way, and the mid-file faults of uploads under way, stay.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.shared.armed.set(faults);
    }

    /// Adds a fault behind the others.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.armed.add(fault);
    }

    /// A new reader of everything that happens from now on.
    pub fn events(&self) -> Subscriber {
        self.shared.hub.subscribe()
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        self.shared.hub.counters()
    }

    /// Waits until the counters satisfy `until`; the error is what they were at the timeout.
    pub fn wait_counters(
        &self,
        until: impl Fn(&Counters) -> bool,
        timeout: Duration,
    ) -> Result<Counters, Counters> {
        self.shared.hub.wait_counters(until, timeout)
    }
}

impl Drop for LabServer {
    fn drop(&mut self) {
        self.shared.stop.open();
        if let Some(acceptor) = self.acceptor.take() {
            // A panic there has been reported by its own thread.
            let _ = acceptor.join();
        }
    }
}

/// A listener on a free port of a loopback address; nothing else is ever bound.
pub(super) fn loopback_listener(
    ip: IpAddr,
    backlog: i32,
    receive: Option<usize>,
) -> io::Result<TcpListener> {
    let socket = loopback_socket(ip)?;
    if let Some(bytes) = receive {
        // Before listen: the window that a connection starts with follows from it.
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket bound to a free port of a loopback address.
pub(super) fn loopback_socket(ip: IpAddr) -> io::Result<Socket> {
    if !ip.is_loopback() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let addr = SocketAddr::from((ip, 0));
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

struct Acceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
    port: u16,
    sessions: HashMap<u64, JoinHandle<()>>,
    ended: Receiver<u64>,
    end: SyncSender<u64>,
}

impl Acceptor {
    fn new(listener: TcpListener, shared: Arc<Shared>, port: u16) -> Self {
        // One entry for each session there can be: its send never waits.
        let (end, ended) = sync_channel(SESSIONS_MAX);
        Self {
            listener,
            shared,
            port,
            sessions: HashMap::new(),
            ended,
            end,
        }
    }

    fn run(mut self) {
        let mut last = 0;
        while let Some(stream) = self.accept() {
            self.reap();
            let Some((stream, peer)) = stream else {
                continue;
            };
            last += 1;
            self.shared.hub.publish(Event::SessionOpened {
                session: last,
                peer,
            });
            if let Err(mut stream) = self.open(last, stream) {
                let _ = stream.write_all(b"421 No more sessions here.\r\n");
                drop(stream);
                self.shared.hub.publish(Event::Ended { session: last });
            }
        }
        drop(self.listener);
        for (_, session) in self.sessions.drain() {
            let _ = session.join();
        }
    }

    /// The next connection; `Some(None)`: none this time; `None`: the server ends.
    fn accept(&self) -> Option<Option<(TcpStream, SocketAddr)>> {
        let incoming = PollFd::new(&self.listener, PollFlags::IN);
        wait(&mut [self.shared.stop.watch(), incoming], None).ok()?;
        if self.shared.stop.is_open() {
            return None;
        }
        match self.listener.accept() {
            Ok(found) => Some(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(None),
            Err(_) => {
                let end = Some(mono() + ACCEPT_PAUSE);
                wait(&mut [self.shared.stop.watch()], end).ok()?;
                Some(None)
            }
        }
    }

    fn open(&mut self, id: u64, stream: TcpStream) -> Result<(), TcpStream> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(stream);
        }
        let Ok(spare) = stream.try_clone() else {
            return Err(stream);
        };
        let (shared, end) = (Arc::clone(&self.shared), self.end.clone());
        let body = move || {
            // Without its control connection there is no session.
            if let Ok(control) = Stream::new(stream) {
                Session::new(Arc::clone(&shared), id, control).run();
            }
            shared.hub.publish(Event::Ended { session: id });
            let _ = end.try_send(id);
        };
        let spawned = std::thread::Builder::new()
            .name(format!("lab:{}:{id}", self.port))
            .stack_size(STACK_BYTES)
            .spawn(body);
        match spawned {
            Ok(handle) => {
                self.sessions.insert(id, handle);
                Ok(())
            }
            Err(_) => Err(spare),
        }
    }

    /// Joins the sessions that have ended since.
    fn reap(&mut self) {
        while let Ok(id) = self.ended.try_recv() {
            if let Some(session) = self.sessions.remove(&id) {
                let _ = session.join();
            }
        }
    }
}
