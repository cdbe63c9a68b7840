//! The byte streams beneath suppaftp's client. All of them are ours, plain ones too, so that this
//! service says itself what is sent and awaited on the control connection, and when it becomes TLS:
//! suppaftp secures a connection only together with commands of its own, under one bound.
//! It promises that nothing that came in plain is taken for something that came secured, and that
//! a stream never blocks when it is dropped.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::ClientConnection;
use suppaftp::TransferStream;
use suppaftp::{DataStream, FtpError, FtpResult, ImplFtpStream, TlsConnector, TlsStream};
use zeroize::Zeroizing;

use super::active::{self, Offer};
use super::replies::Replies;
use super::tls::{self, Security};
use super::{Setup, Trouble};

/// suppaftp's client.
pub(super) type Client = ImplFtpStream<Wire>;
/// A data connection of it.
pub(super) type Transfer = TransferStream<Wire>;

/// What suppaftp reads from the pair that stands in for a server while the client is made.
const STAGE: &[u8] = b"220 \r\n234 \r\n";
/// What it reads then in answer to its PBSZ and PROT, which are not sent.
const PRELUDE: &[u8] = b"200 \r\n200 \r\n";
const PRELUDE_COMMANDS: u8 = 2;
/// Bytes of replies read at once.
const REPLY_CHUNK: usize = 4096;

/// What a session says to its own control stream, past suppaftp.
#[derive(Default)]
pub(super) struct Line {
    /// Read byte by byte: nothing may be left over when the connection becomes TLS.
    exact: AtomicBool,
    /// The session ended well: the peer is told.
    farewell: AtomicBool,
    /// What is sent in place of suppaftp's next command.
    instead: Mutex<Option<Zeroizing<Vec<u8>>>>,
    /// What is read in place of the server's next reply.
    heard: Mutex<&'static [u8]>,
    /// Where the server is to connect to us (active mode).
    offer: Mutex<Option<Offer>>,
    /// TLS that the stream has to go on with.
    secured: Mutex<Option<ClientConnection>>,
    /// How data connections are secured, once that is agreed.
    data: OnceLock<Security>,
    /// Why the last data connection could not be secured: suppaftp hands on no more than a text.
    trouble: Mutex<Option<Trouble>>,
}

impl Line {
    fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
        what.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection is still to become TLS.
    pub(super) fn read_exactly(&self, exact: bool) {
        self.exact.store(exact, SeqCst);
    }

    /// The next command is given in these words, which suppaftp does not get to see. Without words
    /// nothing is sent, and only a reply is awaited.
    pub(super) fn say_instead(&self, words: Zeroizing<Vec<u8>>) {
        *Self::lock(&self.instead) = Some(words);
    }

    /// The server connects to us for the next transfer: suppaftp's passive command is not sent.
    pub(super) fn expect(&self, offer: Offer) {
        self.say_instead(Zeroizing::default());
        *Self::lock(&self.heard) = active::PRETENDED;
        *Self::lock(&self.offer) = Some(offer);
    }

    /// Whether the server is to connect to us.
    pub(super) fn expects(&self) -> bool {
        Self::lock(&self.offer).is_some()
    }

    /// The server's connection is not waited for any more, and the next command is sent again.
    pub(super) fn withdraw(&self) {
        *Self::lock(&self.instead) = None;
        *Self::lock(&self.heard) = &[];
        *Self::lock(&self.offer) = None;
    }

    /// The connection is TLS from here on.
    pub(super) fn secure(&self, connection: ClientConnection) {
        *Self::lock(&self.secured) = Some(connection);
        self.read_exactly(false);
    }

    /// Data connections are TLS from here on.
    pub(super) fn secure_data(&self, security: Security) {
        // Agreed once a session.
        let _ = self.data.set(security);
    }

    /// How data connections are secured, if they are.
    pub(super) fn security(&self) -> Option<&Security> {
        self.data.get()
    }

    /// Why the last data connection could not be secured.
    pub(super) fn take_trouble(&self) -> Option<Trouble> {
        Self::lock(&self.trouble).take()
    }

    /// The session has ended well.
    pub(super) fn part(&self) {
        self.farewell.store(true, SeqCst);
    }
}

/// One connection, plain or TLS.
pub(super) struct Wire {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Of the control connection.
    line: Option<Arc<Line>>,
    /// Read before anything else.
    prelude: &'static [u8],
    /// Commands that are not sent.
    swallow: u8,
    /// What came of replies, on the control connection.
    replies: Replies,
}

impl Wire {
    fn new(tcp: TcpStream, tls: Option<Box<ClientConnection>>) -> Self {
        Self {
            tcp,
            tls,
            line: None,
            prelude: &[],
            swallow: 0,
            replies: Replies::default(),
        }
    }

    /// The socket, where bytes may be given to it past this stream: where it is plain.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        self.tls.is_none().then_some(&self.tcp)
    }

    /// Its TLS and the socket beneath, where it is not plain.
    pub(super) fn secured(&mut self) -> Option<(&mut ClientConnection, &TcpStream)> {
        Some((self.tls.as_deref_mut()?, &self.tcp))
    }

    /// The socket, to look at and to wait with.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Nothing more is sent: the peer is told so, by TLS (close_notify) and by TCP.
    pub(super) fn end_writing(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            tls::flush(tls, &self.tcp)?;
        }
        self.tcp.shutdown(Shutdown::Write)
    }

    /// The peer's end was read: ours follows, if the kernel takes it at once.
    pub(super) fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls
            && self.tcp.set_nonblocking(true).is_ok()
        {
            tls.send_close_notify();
            // A courtesy: the connection goes either way.
            let _ = tls.write_tls(&mut self.tcp);
        }
    }

    /// What comes, as it comes.
    fn read_raw(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.adopt();
        match &mut self.tls {
            Some(tls) => tls::read(tls, &self.tcp, buffer),
            None if self.line.as_ref().is_some_and(|l| l.exact.load(SeqCst)) => {
                let room = buffer.len().min(1);
                self.tcp.read(&mut buffer[..room])
            }
            None => self.tcp.read(buffer),
        }
    }

    /// Goes on with TLS, if that was agreed meanwhile.
    fn adopt(&mut self) {
        if let Some(line) = &self.line
            && let Some(connection) = Line::lock(&line.secured).take()
        {
            self.tls = Some(Box::new(connection));
            self.replies = Replies::default();
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.prelude.is_empty() {
            return self.prelude.read(buffer);
        }
        if let Some(line) = &self.line {
            let mut heard = Line::lock(&line.heard);
            if !heard.is_empty() {
                return heard.read(buffer);
            }
        }
        if self.line.is_none() {
            return self.read_raw(buffer);
        }
        loop {
            let count = self.replies.read(buffer);
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            // As much as was asked for: before TLS begins nothing is read ahead.
            let mut raw = [0; REPLY_CHUNK];
            let room = buffer.len().min(raw.len());
            match self.read_raw(&mut raw[..room])? {
                0 => {
                    self.replies.end();
                    return Ok(self.replies.read(buffer));
                }
                count => self.replies.take(&raw[..count]),
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.swallow > 0 {
            self.swallow -= 1;
            return Ok(bytes.len());
        }
        self.adopt();
        let instead = self
            .line
            .as_ref()
            .and_then(|line| Line::lock(&line.instead).take());
        let mut sink = Sink(self);
        match instead {
            Some(words) => sink.write_all(&words).map(|()| bytes.len()),
            None => sink.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the bytes of a stream really go.
struct Sink<'a>(&'a mut Wire);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0.tls {
            Some(tls) => tls::write(tls, &self.0.tcp, bytes),
            None => self.0.tcp.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self
            .line
            .as_ref()
            .is_some_and(|line| line.farewell.load(SeqCst))
        {
            self.say_goodbye();
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl TlsStream for Wire {
    type InnerStream = Self;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        // Only asked for by commands that make a secured session plain again: none is sent.
        let refused = io::Error::from(io::ErrorKind::Unsupported);
        Err(FtpError::ConnectionError(refused))
    }

    fn get_ref(&self) -> &TcpStream {
        &self.tcp
    }

    fn mut_ref(&mut self) -> &mut Self {
        self
    }
}

/// Gives suppaftp its streams: first the control connection that stands already, then each data
/// connection, secured as the session agreed with the server.
pub(super) struct Connector {
    first: Mutex<Option<Wire>>,
    line: Arc<Line>,
    setup: Setup,
}

impl Connector {
    /// A data connection as the session agreed on it with the server.
    fn data(&self, stream: TcpStream) -> Result<Wire, Trouble> {
        // A reply that was cut by the interrupt is taken for the whole; the next phase would hide it.
        self.setup.handle.check()?;
        let offer = Line::lock(&self.line.offer).take();
        let stream = match offer {
            Some(offer) => active::accept(&self.setup, &offer)?,
            None => stream,
        };
        let tls = match self.line.security() {
            Some(security) => {
                let Setup { handle, timers, .. } = &self.setup;
                Some(Box::new(security.shake_hands(handle, timers.tls, &stream)?))
            }
            None => None,
        };
        Ok(Wire::new(stream, tls))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl TlsConnector for Connector {
    type Stream = Wire;

    fn connect(&self, _: &str, stream: TcpStream) -> FtpResult<Wire> {
        if let Some(control) = Line::lock(&self.first).take() {
            return Ok(control);
        }
        self.data(stream).map_err(|trouble| {
            let told = FtpError::SecureError(trouble.to_string());
            *Line::lock(&self.line.trouble) = Some(trouble);
            told
        })
    }
}

/// A client over a connection on which nothing was said yet; nothing is said by this either.
pub(super) fn client(control: TcpStream, line: &Arc<Line>, setup: &Setup) -> FtpResult<Client> {
    // suppaftp knows one way to a stream of our own: after a greeting and an AUTH on a plain one.
    // A socket pair that never leaves this process stands in for that.
    let (stage, mut prompter) = UnixStream::pair().map_err(FtpError::ConnectionError)?;
    prompter
        .write_all(STAGE)
        .map_err(FtpError::ConnectionError)?;
    let connector = Connector {
        first: Mutex::new(Some(Wire {
            tcp: control,
            tls: None,
            line: Some(Arc::clone(line)),
            prelude: PRELUDE,
            swallow: PRELUDE_COMMANDS,
            replies: Replies::default(),
        })),
        line: Arc::clone(line),
        setup: setup.clone(),
    };
    Client::connect_with_stream(TcpStream::from(OwnedFd::from(stage)))?.into_secure(connector, "")
}

/// The stream of a data connection; every one that a client of ours opens is one.
pub(super) fn of(transfer: &mut Transfer) -> io::Result<&mut Wire> {
    match transfer.get_mut() {
        DataStream::Ssl(wire) => Ok(wire),
        DataStream::Tcp(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_after_an_offer_that_was_withdrawn_is_sent_and_its_reply_read() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let line = Arc::new(Line::default());
        let mut wire = Wire::new(TcpStream::from(OwnedFd::from(near)), None);
        wire.line = Some(Arc::clone(&line));
        line.expect(Offer::any().unwrap());
        line.withdraw();
        wire.write_all(b"DELE a\r\n").unwrap();
        far.write_all(b"250 Ok.\r\n").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        wire.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "250 Ok.\r\n");
        drop(wire);
        let mut sent = String::new();
        far.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "DELE a\r\n");
    }
}
