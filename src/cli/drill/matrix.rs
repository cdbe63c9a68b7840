//! The matrix: every fault of the lab and every wedge of the service's own parts, each with what
//! has to be found and within which time, as it follows from the settings that are drilled.

use std::time::Duration;

use crate::clock::Mono;
use crate::config::Config;
use crate::core::names::Cause;
use crate::core::timers::Attempts;
use crate::ftp::REASON_BOUND;
use crate::lab::{Expected, Fault, Kind, Named, Needs, Step};

/// Bytes of each file: more than what fits between the two ends of a connection whose peer has
/// stopped reading, and little enough for forty of them.
pub const SIZE: u64 = 2 << 20;
/// What a dead path takes to show: two unanswered probes, a second apart.
const PATH: Duration = Duration::from_secs(2);
/// A tick of the daemon, and what a busy machine adds.
const GRACE: Duration = Duration::from_secs(1);
/// A dead path longer than this is ended by the kernel's own probes.
const KERNEL: Duration = Duration::from_secs(110);

/// A wedge of a part of the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// Reading the source does not return.
    Disk,
    /// The resolver does not answer.
    Resolver,
    /// The worker computes without end.
    Spin,
    /// The worker waits for a lock that nobody gives back.
    Lock,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// A fault of the FTP server, on the first occasion.
    Server(Kind),
    /// A wedge inside.
    Inside(Inner),
}

/// One row of the matrix.
#[derive(Debug, Clone)]
pub struct Row {
    /// The fault's name.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What has to be seen of it.
    pub expected: Expected,
    /// The cause that has to be named.
    pub cause: Option<Cause>,
    /// What goes wrong.
    pub what: What,
    /// Within which time it has to be found.
    pub bound: Mono,
    /// Another cause that counts as right under these settings.
    pub or_cause: Option<Cause>,
    /// Whether an error counts as well: the kernel may be faster than the detection.
    pub or_error: bool,
    /// Whether a timeout counts as well: the kernel may have taken the whole file by then, and
    /// after the last byte only the reply can tell.
    pub or_timeout: bool,
    /// Why the row proves nothing under these settings, if so.
    pub unproven: Option<&'static str>,
}

impl Row {
    /// Rows that take a whole core run when the others are done: what is drilled is the uploader,
    /// not this machine's number of cores.
    pub fn alone(&self) -> bool {
        matches!(self.what, What::Inside(Inner::Spin))
    }
}

/// How the uploads come to their servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    /// By `ftpes://`.
    pub tls: bool,
    /// In active mode.
    pub active: bool,
}

impl Way {
    /// Whether an upload that comes so can meet the fault.
    fn meets(self, named: &Named) -> bool {
        match named.needs {
            Needs::Nothing => true,
            Needs::Passive => !self.active,
            Needs::Active => self.active,
            Needs::Tls => self.tls,
            Needs::Download => false,
        }
    }

    /// The option without which no upload meets the fault of this name, if there is one.
    pub fn missing(self, name: &str) -> Option<&'static str> {
        let known = || Fault::names().iter().chain(Fault::others());
        let named = known().find(|named| named.name == name && !self.meets(named))?;
        match named.needs {
            Needs::Passive => Some("is one of passive mode: leave --active out"),
            Needs::Active => Some("is one of active mode: add --active"),
            Needs::Tls => Some("is one of TLS: add --tls"),
            Needs::Download => Some("is one of downloads, which are not drilled"),
            Needs::Nothing => None,
        }
    }
}

/// All rows under these settings.
pub fn rows(config: &Config, way: Way) -> Vec<Row> {
    let named = Fault::names().iter().chain(Fault::others());
    let server = named.filter(|named| way.meets(named)).map(|named| {
        let kind = scaled(named.kind, way, config);
        let dead_path = named.cause == Some(Cause::PathDead);
        let late_evidence = dead_path && config.timers.reply <= PATH + GRACE;
        Row {
            name: named.name,
            about: named.about,
            expected: named.expected,
            cause: named.cause.map(|cause| match kind {
                // The server that says no 150 does not connect, either.
                Kind::NoReply(Step::Stor)
                | Kind::Endless(Step::Stor)
                | Kind::Drip {
                    step: Step::Stor, ..
                } if way.active => Cause::NoDataConnection,
                _ => cause,
            }),
            what: What::Server(kind),
            bound: bound(kind, way, config),
            or_cause: late_evidence.then_some(Cause::SilentServer),
            or_error: dead_path && config.heartbeat.policy().detection() > KERNEL,
            or_timeout: matches!(kind, Kind::Close { silent: true, .. }),
            unproven: unproven(kind, config),
        }
    });
    let (timers, detection) = (&config.timers, config.heartbeat.policy().detection());
    let inside = [
        (
            "hung-disk",
            Inner::Disk,
            Expected::Deadlock,
            Cause::Disk,
            timers.disk,
            "reading the source does not return",
        ),
        (
            "silent-resolver",
            Inner::Resolver,
            Expected::Timeout,
            Cause::Dns,
            timers.dns,
            "the name look-up gets no answer",
        ),
        (
            "locked-worker",
            Inner::Lock,
            Expected::Deadlock,
            Cause::Lock,
            timers.stall,
            "the uploader waits for a lock in mid-file",
        ),
        (
            "spinning-worker",
            Inner::Spin,
            Expected::Deadlock,
            Cause::CpuLoop,
            timers.stall,
            "the uploader computes without end in mid-file",
        ),
    ]
    .map(|(name, inner, expected, cause, timer, about)| Row {
        name,
        about,
        expected,
        cause: Some(cause),
        what: What::Inside(inner),
        bound: timer + detection + GRACE,
        or_cause: None,
        or_error: false,
        or_timeout: false,
        unproven: None,
    });
    server.chain(inside).collect()
}

/// Peers that are only slow have to outlast the detection, or their row would prove nothing.
fn scaled(kind: Kind, way: Way, config: &Config) -> Kind {
    let long = config.heartbeat.policy().detection() * 2;
    match kind {
        Kind::Trickle { after, .. } => {
            // A bound on the whole transfer is kept to, it is not what this is about.
            let bound = config.timers.transfer_put.map_or(long, |put| put * 4 / 5);
            let per_second = SIZE as f64 / long.min(bound).as_secs_f64();
            Kind::Trickle {
                after,
                bytes_per_second: per_second.ceil() as u32,
            }
        }
        // Later than the reply timer would be a fault.
        Kind::Late226(_) => Kind::Late226(long.min(config.timers.reply * 4 / 5)),
        // And a reply that drips has to take longer than the timer: it is some twenty bytes, a
        // handshake more.
        Kind::Drip { step, .. } => Kind::Drip {
            step,
            every: timer(step, way, config) / 8,
        },
        other => other,
    }
}

/// A healthy row has to last longer than the detection.
fn unproven(kind: Kind, config: &Config) -> Option<&'static str> {
    let detection = config.heartbeat.policy().detection();
    let lasts = match kind {
        Kind::Trickle {
            bytes_per_second, ..
        } => Duration::from_secs(SIZE / u64::from(bytes_per_second.max(1))),
        Kind::Late226(late) => late,
        _ => return None,
    };
    (lasts < detection).then_some("it is over before the heartbeat could be wrong about it")
}

/// The timer of the wait for a reply, or for a handshake.
fn timer(step: Step, way: Way, config: &Config) -> Mono {
    match step {
        Step::Stor if way.active => config.timers.listen,
        Step::Tls | Step::DataTls => config.timers.tls,
        _ => config.timers.reply,
    }
}

/// The timer of the phase in which it strikes, and the time that a verdict takes.
fn bound(kind: Kind, way: Way, config: &Config) -> Mono {
    let timers = &config.timers;
    let timer = match kind {
        Kind::StopReading { .. } | Kind::StopSending { .. } | Kind::StopListing => timers.stall,
        Kind::DeadPath { .. } | Kind::DeadPathAt(_) => PATH,
        Kind::DataNotAccepted | Kind::DataRefused => Attempts {
            count: timers.data_connect_attempts,
            timeout: timers.data_connect,
            interval: timers.data_connect_interval,
        }
        .total(),
        Kind::NoReply(step) | Kind::Drip { step, .. } => timer(step, way, config),
        Kind::RntoDoneNoReply | Kind::NoTlsClose => timers.reply,
        Kind::Endless(step) => timer(step, way, config),
        Kind::NoConnect => timers.listen,
        Kind::Close { silent: true, .. } => timers.reply.max(REASON_BOUND),
        Kind::Reset { .. } | Kind::Close { .. } => REASON_BOUND,
        // What the server or the kernel reports is found when it is read.
        Kind::Trickle { .. }
        | Kind::Late226(_)
        | Kind::ControlDrop { .. }
        | Kind::Reply(..)
        | Kind::HangUp(_)
        | Kind::Injected
        | Kind::Stranger
        | Kind::Short { .. }
        | Kind::HostileNames
        | Kind::MidReply { .. }
        | Kind::Garbage(_)
        | Kind::WrongPasv
        | Kind::EpsvRefused
        | Kind::LoginRefused
        | Kind::Seats { .. } => Duration::ZERO,
    };
    timer + config.heartbeat.policy().detection() + GRACE
}
