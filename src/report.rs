//! What the service tells about itself: the JSON shapes behind `/api/status` and
//! `/api/incidents` (CONTRACT: "Logs and incidents"). Plain data; times are Unix seconds.

use serde::{Deserialize, Serialize};

/// Answer of `/api/status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Unix time of the service's start.
    pub started_at: f64,
    /// Unix time of this answer, by the clock that the other times are of.
    #[serde(default)]
    pub at: f64,
    /// Whether the service is draining before its end.
    pub draining: bool,
    /// Why no new work is taken (the journal cannot be written), if so.
    #[serde(default)]
    pub journal_problem: Option<String>,
    /// Why the service is not ready, as `/readyz` has it; empty if it is.
    #[serde(default)]
    pub not_ready: Vec<String>,
    /// How often an incident was recorded or changed since the start: who has seen this number
    /// need not ask for the incidents again.
    #[serde(default)]
    pub incident_changes: u64,
    /// The routes, by name.
    pub routes: Vec<RouteStatus>,
    /// The quarantine.
    pub quarantine: QuarantineStatus,
    /// Workers that were ended but whose thread cannot end.
    pub stranded_workers: usize,
}

/// One route.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The route's name.
    pub name: String,
    /// `user@host:port`.
    pub destination: String,
    /// `put` (uploads) or `get` (downloads).
    #[serde(default)]
    pub direction: String,
    /// Files known and waiting to be sent.
    pub waiting: usize,
    /// Files waiting in their back-off.
    pub backing_off: usize,
    /// Files in the spool that are not settled yet, or are open for writing.
    #[serde(default)]
    pub settling: u64,
    /// Files delivered since the start.
    pub delivered: u64,
    /// Bytes that crossed the network for them; with `bytes_sent` of the files in work this grows
    /// evenly, so two answers give a rate.
    #[serde(default)]
    pub delivered_bytes: u64,
    /// Dead letters.
    #[serde(default)]
    pub dead_letters: u64,
    /// Why nothing is dispatched, if so.
    pub suspended: Option<String>,
    /// What is wrong with the spool folder, if anything.
    pub spool_problem: Option<String>,
    /// Why the destination gives no session, if so, and when it is tried again.
    #[serde(default)]
    pub destination_problem: Option<String>,
    /// The file that failed last and waits in its back-off, with its error, both escaped.
    #[serde(default)]
    pub last_failure: Option<String>,
    /// The slots.
    pub slots: Vec<SlotStatus>,
}

/// One slot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The slot's number within its route.
    pub slot: u32,
    /// The number of its worker.
    pub epoch: u64,
    /// The worker's phase.
    pub phase: String,
    /// The file in work, escaped.
    pub file: Option<String>,
    /// Bytes of it handed to the kernel.
    pub bytes_sent: u64,
    /// Its size, once its source is open.
    #[serde(default)]
    pub file_bytes: Option<u64>,
    /// Missed beats in a row.
    pub failures: u32,
    /// Its last beats, oldest first, 30 at most, a letter each: `a` acked, `v` vouched, `m` missed;
    /// `x` stands where its worker was replaced.
    #[serde(default)]
    pub beats: String,
    /// How long ago the Ping of its last good beat was sent, seconds.
    #[serde(default)]
    pub silence_seconds: f64,
    /// The longest time so far from one good beat of the slot to the next, seconds.
    #[serde(default)]
    pub longest_silence_seconds: f64,
}

/// The quarantine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// Places.
    pub capacity: usize,
    /// Pairs held, oldest first.
    pub pairs: Vec<PairStatus>,
}

/// One stranded pair.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PairStatus {
    /// The incident that put it there.
    pub incident: u64,
    /// Route it came from.
    pub route: String,
    /// Unix time it entered.
    pub entered: f64,
    /// Unsent bytes in kernel memory.
    pub send_bytes: u64,
}

/// The record of one deadlock.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Incident {
    /// Its number, from 1.
    pub id: u64,
    /// Route of the slot.
    pub route: String,
    /// Slot.
    pub slot: u32,
    /// The convicted epoch.
    pub epoch: u64,
    /// The file in work, escaped.
    pub file: Option<String>,
    /// Phase in which the worker was wedged.
    pub phase: String,
    /// The cause that was found.
    pub cause: String,
    /// Unix time of the last good beat.
    pub last_sign_of_life: f64,
    /// Unix time of the verdict.
    pub detected_at: f64,
    /// Unix time of the file's delivery.
    pub recovered_at: Option<f64>,
    /// Bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes that the peer acknowledged.
    pub bytes_acked: u64,
    /// The control connection.
    pub control: Option<SocketReport>,
    /// The data connection.
    pub data: Option<SocketReport>,
    /// The worker's thread.
    pub thread: Option<ThreadReport>,
    /// What became of the sockets.
    pub quarantine: Option<QuarantineReport>,
}

/// Answer of `POST /api/reload`: what the newly read configuration changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Routes that are new.
    pub added: Vec<String>,
    /// Routes with another setting.
    pub changed: Vec<String>,
    /// Routes that are not configured any more.
    pub removed: Vec<String>,
    /// Settings outside the routes that hold from now on.
    pub applied: Vec<String>,
    /// Settings that hold from the next start on.
    pub needs_restart: Vec<String>,
}

/// The same where nothing was changed: why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReloaded {
    /// In a sentence.
    pub error: String,
    /// The faults of the configuration, if it is that.
    pub faults: Vec<FaultReport>,
}

/// One fault of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// The setting.
    pub key: String,
    /// The file with its line, or the variable, that set it.
    pub origin: Option<String>,
    /// What was found; never the value of a secret.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
    /// What to do.
    pub way_out: String,
}

/// A socket at the time of the verdict.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SocketReport {
    /// Local address.
    pub local: Option<String>,
    /// Peer address.
    pub peer: Option<String>,
    /// TCP state, as `ss` names it.
    pub state: String,
    /// Bytes not yet sent.
    pub unsent: u64,
    /// Bytes sent but not acknowledged.
    pub unacked: u64,
    /// Unanswered retransmissions.
    pub retransmits: u32,
    /// Unanswered probes.
    pub probes: u32,
    /// Smoothed round trip, seconds.
    pub rtt: f64,
    /// Seconds since data was last received.
    pub last_data_received_ago: f64,
}

/// A worker's thread at the time of the verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadReport {
    /// State letter of /proc.
    pub state: String,
    /// Number of the system call it is in, if any.
    pub syscall: Option<i64>,
    /// Kernel function it sleeps in.
    pub wait_channel: String,
    /// CPU time used, seconds.
    pub cpu_seconds: f64,
}

/// The stay of a stranded pair in the quarantine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QuarantineReport {
    /// Unix time it entered.
    pub entered: f64,
    /// Unix time it was released.
    pub released: Option<f64>,
    /// Why it was released.
    pub reason: Option<String>,
    /// What the peer did with the held connections meanwhile.
    pub peer: Option<String>,
}

/// What `POST /api/retry` takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// The route's name.
    pub route: String,
    /// Dead letters, as paths below the route's folder of them; none: all.
    #[serde(default)]
    pub files: Vec<String>,
}

/// What it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Retry {
    /// The route's name.
    pub route: String,
    /// What became of each file.
    pub files: Vec<RetriedFile>,
    /// Files that were meant but are too many for one request.
    pub left: u64,
}

/// One dead letter that was to be sent again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RetriedFile {
    /// Its path among the dead letters, escaped.
    pub file: String,
    /// Whether it is in the spool again.
    pub sent: bool,
    /// What became of it, in words.
    pub says: String,
}
