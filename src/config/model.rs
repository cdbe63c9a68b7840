//! The validated configuration: what the rest of the service reads.
//! It holds values that passed every check of `validate`; nothing here parses or fails.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::heartbeat::Policy;
use crate::core::lease::Terms;

/// The whole configuration of one service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ring 1: how uploads are watched.
    pub heartbeat: Heartbeat,
    /// The bounded FIFO of stranded socket pairs.
    pub quarantine: Quarantine,
    /// The bound of every wait.
    pub timers: Timers,
    /// Back-off of files and destinations.
    pub retry: Retry,
    /// Ring 2: how a process is watched.
    pub watchdog: Watchdog,
    /// The routes by name.
    pub routes: BTreeMap<String, Arc<Route>>,
    /// How long a drain may take after SIGTERM or SIGINT.
    pub shutdown_grace: Duration,
    /// Folder of the service's own state; locked by one process.
    pub state_dir: PathBuf,
    /// How long the journal remembers deliveries, incidents, and kept files that are gone.
    pub history: Duration,
    /// Kept files whose record is lost are sent again. No key: `ftpulse run --accept-resend`.
    pub accept_resend: bool,
    /// The HTTP side.
    pub http: Http,
    /// Logging.
    pub log: Log,
}

/// `heartbeat.*` (S1.2, S1.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// Time between two Pings of a slot.
    pub interval: Duration,
    /// Missed beats tolerated in a row; the next one convicts (policy `count`).
    pub misses: u32,
    /// The lease whose end convicts instead, if that is the policy (S3).
    pub lease: Option<Terms>,
    /// Whether vouchers may stand in for a worker's own answer.
    pub vouchers: bool,
    /// Stranded workers tolerated before the process asks to be restarted.
    pub max_stranded_workers: u32,
}

impl Heartbeat {
    /// The policy as the decisions take it.
    pub fn policy(&self) -> Policy {
        Policy {
            interval: self.interval,
            misses: self.misses,
            lease: self.lease,
        }
    }
}

/// `watchdog.*` (S4, S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// Time in which a program of one beat has to send it.
    pub interval: Duration,
    /// Missing or unreadable beats tolerated in a row; the next one is the fault.
    pub misses: u32,
    /// The window in which they are counted; `misses + 1` intervals fit.
    pub window: Duration,
    /// Whether a program that is ready has to beat; else it is judged from its first beat on.
    pub beats_required: bool,
    /// How long a program may take to be ready.
    pub start_timeout: Duration,
    /// Time between two pulses of a program of two beats.
    pub pulse_interval: Duration,
    /// Time between two software beats of a program of two beats; at least two pulses.
    pub software_interval: Duration,
    /// Missing beats of one kind in a row that are the fault.
    pub kind_misses: u32,
}

/// `quarantine.*` (S1.5).
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantine {
    /// Pairs held at most.
    pub capacity: usize,
    /// Pairs of one destination held at most.
    pub per_destination: usize,
    /// How long a pair is held.
    pub hold: Duration,
    /// Unsent bytes held in kernel memory at most, over all pairs.
    pub max_send_bytes: u64,
}

/// `timers.*` (S2). `None` means unbounded by a timer of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Timers {
    /// One attempt of the control connection.
    pub control_connect: Duration,
    /// Attempts of the control connection in total.
    pub control_connect_attempts: u32,
    /// Pause between two attempts.
    pub control_connect_interval: Duration,
    /// One reply: greeting, command, final 226.
    pub reply: Duration,
    /// Retries of the shared lock on a source.
    pub read_lock_retries: u32,
    /// Pause between two of them.
    pub read_lock_interval: Duration,
    /// Retries of the exclusive lock on a target.
    pub write_lock_retries: u32,
    /// Pause between two of them.
    pub write_lock_interval: Duration,
    /// One attempt of the data connection (passive mode).
    pub data_connect: Duration,
    /// Attempts of the data connection in total.
    pub data_connect_attempts: u32,
    /// Pause between two attempts.
    pub data_connect_interval: Duration,
    /// Bound on a whole PUT, drain included.
    pub transfer_put: Option<Duration>,
    /// Bound on a whole GET, and on the listing of a route that downloads.
    pub transfer_get: Option<Duration>,
    /// How long a living peer may take no byte.
    pub stall: Duration,
    /// How long a local file operation may stand still.
    pub disk: Duration,
    /// How long a phase may compute.
    pub compute: Duration,
    /// The server's connect to us (active mode).
    pub listen: Duration,
    /// A name look-up.
    pub dns: Duration,
    /// A TLS handshake.
    pub tls: Duration,
    /// How long an idle session is kept.
    pub idle_session: Duration,
}

/// `retry.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Random share by which a pause is made longer or shorter, 0 to 1.
    pub jitter: f64,
    /// How long a file may fail before it becomes a dead letter.
    pub give_up_after: Duration,
}

/// One spool folder, one destination, its rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The route's name, `[a-z0-9_]+`.
    pub name: String,
    /// The watched folder; the filled one of a route that downloads.
    pub spool: PathBuf,
    /// Where the files go, or come from.
    pub server: Server,
    /// It downloads: how.
    pub get: Option<Get>,
    /// The server opens the data connections (active mode); none: we do.
    pub active: Option<super::Active>,
    /// Slots of this route.
    pub uploaders: u32,
    /// What is taken: shell patterns on the path below the spool.
    pub include: Vec<String>,
    /// What is left out: shell patterns on the path below the spool.
    pub exclude: Vec<String>,
    /// Whether folders below the spool are watched.
    pub recursive: bool,
    /// How long a file must stay unchanged before it is taken.
    pub settle: Duration,
    /// A file is taken when its name with this suffix appears; it need not settle then.
    pub ready_suffix: Option<String>,
    /// The order of dispatch.
    pub order: Order,
    /// Who goes first where routes share a destination's seats: the higher one.
    pub priority: i32,
    /// Bytes a second at most, of all its uploaders together.
    pub rate_limit: Option<u64>,
    /// How the sent file is verified before it is published.
    pub verify: Verify,
    /// Files of more bytes are resumed.
    pub resume_over: u64,
    /// How it gets its final name.
    pub publishing: super::Publishing,
    /// What becomes of the source after its delivery.
    pub after: After,
    /// Folder of dead letters; never scanned.
    pub dead_letter: PathBuf,
}

/// What only a route that downloads has (`direction = "get"`).
#[derive(Debug, Clone, PartialEq)]
pub struct Get {
    /// Pause between two listings of the remote folder.
    pub poll: Duration,
}

/// A destination.
#[derive(Clone, PartialEq)]
pub struct Server {
    /// Host name or address literal, without brackets.
    pub host: String,
    /// TCP port of the control connection.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// Login password.
    pub password: Secret,
    /// Remote folder after percent-decoding: empty for the login folder, `/…` if absolute
    /// (RFC 1738 section 3.2.2).
    pub folder: String,
    /// How TLS is spoken; none: plain FTP.
    pub tls: Option<super::Tls>,
}

impl Server {
    /// The destination's identity: what shares seats and final names. Holds no secret.
    pub fn key(&self) -> String {
        format!("{}@{}:{}", self.user, self.host, self.port)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.key(), self.folder)
    }
}

/// A secret that no formatter prints, and whose memory is wiped in the end.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret. A `String` is taken over: no copy stays behind.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }
    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Order of dispatch within a scanned batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest modification time first.
    Oldest,
    /// Newest modification time first.
    Newest,
    /// By path.
    Name,
}

/// Verification before publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// SIZE must equal what was sent (RFC 3659 section 4).
    Size,
    /// That, and the server's hash of the file must equal ours.
    Hash,
    /// The 226 alone is believed.
    None,
}

/// What becomes of a delivered source, or of a downloaded remote file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It is deleted.
    Delete,
    /// It is moved to this folder, keeping its path below the spool; a downloaded one to this
    /// folder on the server.
    Archive(PathBuf),
    /// It stays; it is not sent, or taken, again while unchanged.
    Keep,
}

/// `http.*`.
#[derive(Debug, Clone)]
pub struct Http {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Bearer token of the API.
    pub token: Option<Secret>,
}

/// `log.*`.
#[derive(Debug, Clone)]
pub struct Log {
    /// Least severe level that is written.
    pub level: slog::Level,
    /// Form of a line.
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One readable line a record.
    Text,
    /// One JSON object a line.
    Json,
}
