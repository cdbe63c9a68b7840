//! The HTTP side: metrics and probes for machines, status and incidents for people and tools.
//! It reads through [`Source`]; whatever changes something needs the token. Who may see what is
//! decided in `access`. Every answer comes within a bound, and no client, slow or silent, holds the
//! service's exit.

mod access;
mod answer;
mod page;
mod pages;
mod reload;
mod retry;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, HttpServer, web};
use slog::{Logger, info, warn};

pub use actix_web::dev::{Server, ServerHandle};

use crate::config;
use crate::metrics::Metrics;
use crate::report::{Incident, NotReloaded, Reloaded, Retry, RetryRequest, Status};
use access::Access;
pub use access::Token;

/// Connections at once. A scraper, two probes and a few people need ten; the rest is room for
/// connections that wait for their timeout. At most an eighth of the usual 1024 descriptors.
const CONNECTIONS: usize = 128;

/// How long a client may take to send a request's head.
const REQUEST: Duration = Duration::from_secs(5);

/// How long an idle connection is kept. Longer than a probe's usual period of 10 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a closed connection may take to end.
const DISCONNECT: Duration = Duration::from_secs(1);

/// How long a client may take no byte of an answer before the kernel ends its connection, ms.
const UNREAD_MS: u32 = 30_000;

/// How long a stop waits for answers in progress, seconds; then connections are cut.
const STOP: u64 = 1;

/// What the HTTP side asks of the service. The calls themselves must not block; an answer that
/// takes longer than two seconds is given up (503).
pub trait Source: Send + Sync {
    /// What the service is doing.
    fn status(&self) -> Answer<'_, Status>;
    /// The incidents that are kept, in the order the reader should see them.
    fn incidents(&self) -> Answer<'_, Vec<Incident>>;
    /// One incident, if it is kept.
    fn incident(&self, id: u64) -> Answer<'_, Option<Incident>>;
    /// Sends dead letters again. Has a longer bound of its own.
    fn retry(&self, request: RetryRequest) -> Answer<'_, Retried>;
    /// Reads the configuration anew. Has a longer bound of its own.
    fn reload(&self) -> Answer<'_, Result<Reloaded, NotReloaded>> {
        let why = "this service has no configuration that it could read anew";
        Box::pin(std::future::ready(Err(Unavailable(why.into()))))
    }
    /// Whether the daemon's loop turns. Never depends on an FTP server.
    fn healthy(&self) -> Health;
    /// Why the service is not ready (configuration, spools, journal); empty if it is.
    fn ready(&self) -> Vec<String>;
}

/// What became of dead letters that were to be sent again.
#[derive(Debug, Clone)]
pub enum Retried {
    /// Each file has its answer.
    Done(Retry),
    /// There is no such route.
    NoRoute {
        /// Those that there are.
        routes: Vec<String>,
    },
}

/// A [`Source`]'s answer to come. Awaited on the server's own thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + 'a>>;

/// The service cannot answer now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Health of the daemon's loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It turns.
    Turning,
    /// It has not turned for this long.
    Stuck {
        /// Time since its last turn.
        silent: Duration,
    },
}

/// The HTTP side cannot start.
#[derive(Debug)]
pub enum HttpError {
    /// The address cannot be listened on.
    Bind {
        /// The address of `http.listen`.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Bind { listen, source } = self;
        write!(f, "cannot listen on {listen} (http.listen): ")?;
        let port = listen.port();
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "another program holds the port, perhaps a second ftpulse (`ss -ltnp 'sport = \
                 :{port}'` names it); stop it or choose another port with http.listen"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                "this machine has no such address; choose one of its own, 127.0.0.1 or 0.0.0.0 \
                 with http.listen"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "not permitted; ports below 1024 need the capability CAP_NET_BIND_SERVICE, any \
                 other can be chosen with http.listen"
            ),
            _ => write!(
                f,
                "the system refuses; check the address and port of http.listen"
            ),
        }
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let Self::Bind { source, .. } = self;
        Some(source)
    }
}

/// What every request sees.
struct State {
    metrics: Metrics,
    source: Arc<dyn Source>,
    access: Access,
    log: Logger,
}

/// Listens on `http.listen` and gives back the server and the address it has (the port, if 0
/// was asked for). From here on clients can connect; they are served once the `Server` is
/// awaited or spawned within an actix `System`. `server.handle().stop(true).await` ends it
/// within about a second, whatever its clients do.
pub fn bind(
    config: &config::Http,
    metrics: Metrics,
    source: Arc<dyn Source>,
    log: Logger,
) -> Result<(Server, SocketAddr), HttpError> {
    let token = Token::new(config.token.clone());
    bind_with(config.listen, token, metrics, source, log)
}

/// The same with a token that the caller may change.
///
/// # Errors
/// As [`bind`].
pub fn bind_with(
    listen: SocketAddr,
    token: Token,
    metrics: Metrics,
    source: Arc<dyn Source>,
    log: Logger,
) -> Result<(Server, SocketAddr), HttpError> {
    let bind_error = |source| HttpError::Bind { listen, source };
    let listener = TcpListener::bind(listen).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    // Accepted connections inherit it; without it a client that reads nothing keeps its place.
    rustix::net::sockopt::set_tcp_user_timeout(&listener, UNREAD_MS)
        .map_err(|e| bind_error(e.into()))?;

    let access = Access::new(address.ip(), token);
    if access.closed() {
        warn!(log, "status pages closed"; "listen" => %address,
            "reason" => "listening off loopback without http.token",
            "next" => "only /metrics, /healthz and /readyz answer; set http.token to open the rest");
    }
    info!(log, "http listening"; "listen" => %address);

    let state = web::Data::new(State {
        metrics,
        source,
        access,
        log,
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(access::guard))
            .wrap(headers())
            .configure(pages::routes)
    })
    // One thread: answers are short, and the uploads are what the machine is for.
    .workers(1)
    .worker_max_blocking_threads(1)
    .max_connections(CONNECTIONS)
    .client_request_timeout(REQUEST)
    .client_disconnect_timeout(DISCONNECT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(STOP)
    .disable_signals()
    .listen(listener)
    .map_err(bind_error)?
    .run();
    Ok((server, address))
}

/// Headers of every answer: nothing is cached, sniffed, framed or run.
fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add(("Cache-Control", "no-store"))
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("X-Frame-Options", "DENY"))
        .add(("Referrer-Policy", "no-referrer"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
        .add((
            "Content-Security-Policy",
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ))
}
