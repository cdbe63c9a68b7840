//! Vouchers: who may say that a worker's silence is legitimate (S4, S5).
//! Each is a pure function of evidence and limits, registered by its id; each is bounded, so that
//! nothing can be vouched for ever. They read samples; they never take one.

use super::Mono;
use super::names::Phase;

/// TCP states as the kernel numbers them (`include/net/tcp_states.h`).
pub mod tcp {
    /// The connection stands.
    pub const ESTABLISHED: u8 = 1;
    /// The SYN is not answered yet.
    pub const SYN_SENT: u8 = 2;
    /// The peer has acknowledged our FIN.
    pub const FIN_WAIT2: u8 = 5;
    /// The connection is over.
    pub const CLOSE: u8 = 7;

    /// The name that `ss` prints.
    pub fn name(state: u8) -> &'static str {
        match state {
            1 => "ESTAB",
            2 => "SYN-SENT",
            3 => "SYN-RECV",
            4 => "FIN-WAIT-1",
            5 => "FIN-WAIT-2",
            6 => "TIME-WAIT",
            7 => "UNCONN",
            8 => "CLOSE-WAIT",
            9 => "LAST-ACK",
            10 => "LISTEN",
            11 => "CLOSING",
            _ => "UNKNOWN",
        }
    }
}

/// What one socket shows at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Socket {
    /// Identity (SO_COOKIE).
    pub cookie: u64,
    /// TCP state number.
    pub state: u8,
    /// Retransmissions without an answer.
    pub retransmits: u8,
    /// Probes (keepalive or zero window) without an answer.
    pub probes: u8,
    /// Bytes that the peer has acknowledged.
    pub acked: u64,
    /// Bytes queued and not yet sent.
    pub unsent: u64,
    /// Bytes sent and not acknowledged.
    pub unacked: u64,
    /// The peer's receive window, bytes.
    pub window: u32,
    /// Smoothed round trip, microseconds.
    pub rtt_us: u32,
    /// Milliseconds since data was last received.
    pub last_received_ms: u32,
}

impl Socket {
    fn answers(&self) -> bool {
        self.retransmits < 2 && self.probes < 2
    }
}

/// What the worker's thread shows at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thread {
    /// State letter of /proc.
    pub state: char,
    /// Number of the system call it is in, if any.
    pub syscall: Option<i64>,
    /// First argument of that call (a descriptor, for most).
    pub argument: u64,
    /// Kernel function it sleeps in.
    pub wait_channel: String,
    /// Whether that call waits for a lock (futex).
    pub waits_for_lock: bool,
    /// CPU time used, milliseconds.
    pub cpu_ms: u64,
}

/// All that one Ping saw of a worker, read without blocking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken.
    pub at: Mono,
    /// The last Ping number that the worker has copied.
    pub acked: u64,
    /// The worker's phase.
    pub phase: Phase,
    /// That phase's number, unique within the epoch.
    pub phase_number: u64,
    /// When that phase has to be over.
    pub deadline: Option<Mono>,
    /// Bytes handed to the kernel in this transfer.
    pub bytes: u64,
    /// The control connection.
    pub control: Option<Socket>,
    /// The data connection.
    pub data: Option<Socket>,
    /// The thread, where it was read.
    pub thread: Option<Thread>,
}

/// Bounds of the vouchers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a living peer may take no byte.
    pub stall: Mono,
}

/// What a voucher is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The sample of this Ping.
    pub sample: &'a Sample,
    /// Whether the peer took bytes since the last beat.
    pub advanced: bool,
    /// When it last did, or the phase began to be seen.
    pub last_advance: Mono,
    /// The bounds.
    pub limits: Limits,
}

/// A unit that can say "this silence is legitimate".
#[derive(Clone, Copy)]
pub struct Voucher {
    /// Its name in logs.
    pub id: &'static str,
    /// Its judgement.
    pub vouches: fn(&Question<'_>) -> bool,
}

/// All vouchers of this build.
pub const VOUCHERS: &[Voucher] = &[
    Voucher {
        id: "progress",
        vouches: progress,
    },
    Voucher {
        id: "patience",
        vouches: patience,
    },
];

/// The path is alive: nothing in the sockets that matter in this phase says otherwise.
pub fn path_alive(sample: &Sample) -> bool {
    let control = sample
        .control
        .as_ref()
        .is_some_and(|s| s.state == tcp::ESTABLISHED && s.answers());
    let data = !sample.phase.moves()
        || sample
            .data
            .as_ref()
            .is_some_and(|s| s.state != tcp::CLOSE && s.answers());
    control && data
}

/// In a phase that moves bytes: the peer takes some, or lives and took some not long ago (a slow
/// reader's window opens in jumps many seconds apart).
fn progress(q: &Question<'_>) -> bool {
    q.sample.phase.moves()
        && (q.advanced
            || (path_alive(q.sample)
                && q.sample.at.saturating_sub(q.last_advance) < q.limits.stall))
}

/// In a phase that waits for one event: its deadline has not come, and the path is alive. While
/// connecting, the path is not asked: a SYN's retransmissions are all it could show.
fn patience(q: &Question<'_>) -> bool {
    q.sample
        .deadline
        .is_some_and(|deadline| q.sample.at <= deadline)
        && !q.sample.phase.moves()
        && (q.sample.phase.connects() || q.sample.phase == Phase::Lock || path_alive(q.sample))
}

/// Follows one worker's samples and asks the registered vouchers.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    phase_number: u64,
    cookie: u64,
    acked: u64,
    last_advance: Mono,
    advanced: bool,
}

impl Witness {
    /// Takes the sample of a Ping and remembers what moved since the one before.
    pub fn observe(&mut self, sample: &Sample) {
        let (cookie, acked) = sample.data.map_or((0, 0), |s| (s.cookie, s.acked));
        let fresh = sample.phase_number != self.phase_number || cookie != self.cookie;
        self.advanced = cookie == self.cookie && acked > self.acked;
        if fresh || self.advanced {
            self.last_advance = sample.at;
        }
        self.phase_number = sample.phase_number;
        self.cookie = cookie;
        self.acked = acked;
    }

    /// The id of the first voucher that answers for the worker, if one does.
    pub fn vouched(&self, sample: &Sample, limits: Limits) -> Option<&'static str> {
        let question = Question {
            sample,
            advanced: self.advanced,
            last_advance: self.last_advance,
            limits,
        };
        VOUCHERS
            .iter()
            .find(|v| (v.vouches)(&question))
            .map(|v| v.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        stall: Duration::from_secs(30),
    };

    fn socket() -> Socket {
        Socket {
            cookie: 9,
            state: tcp::ESTABLISHED,
            ..Socket::default()
        }
    }

    fn sample(phase: Phase, at: u64) -> Sample {
        Sample {
            at: Duration::from_secs(at),
            acked: 0,
            phase,
            phase_number: 4,
            deadline: None,
            bytes: 0,
            control: Some(socket()),
            data: phase.moves().then(socket),
            thread: None,
        }
    }

    fn ask(history: &[Sample]) -> Option<&'static str> {
        let mut witness = Witness::default();
        for s in history {
            witness.observe(s);
        }
        witness.vouched(history.last().expect("a sample"), LIMITS)
    }

    #[test]
    fn a_living_peer_that_takes_nothing_is_vouched_for_until_the_stall_timer() {
        assert_eq!(
            ask(&[sample(Phase::Transfer, 1), sample(Phase::Transfer, 30)]),
            Some("progress")
        );
        assert_eq!(
            ask(&[sample(Phase::Transfer, 1), sample(Phase::Transfer, 31)]),
            None
        );
    }

    #[test]
    fn each_advance_restarts_the_stall_timer() {
        let mut later = sample(Phase::Transfer, 25);
        later.data = Some(Socket {
            acked: 1,
            ..socket()
        });
        let mut last = later.clone();
        last.at = Duration::from_secs(50);
        assert_eq!(
            ask(&[sample(Phase::Transfer, 1), later, last]),
            Some("progress")
        );
    }

    #[test]
    fn a_dead_path_is_not_vouched_for() {
        let mut dead = sample(Phase::Transfer, 2);
        dead.data = Some(Socket {
            retransmits: 2,
            ..socket()
        });
        assert_eq!(ask(&[sample(Phase::Transfer, 1), dead]), None);
        let mut silent = sample(Phase::Reply, 2);
        silent.deadline = Some(Duration::from_secs(60));
        assert_eq!(ask(&[silent.clone()]), Some("patience"));
        silent.control = Some(Socket {
            probes: 2,
            ..socket()
        });
        assert_eq!(ask(&[silent]), None);
    }

    #[test]
    fn patience_ends_with_the_deadline() {
        let mut s = sample(Phase::FinalReply, 60);
        s.deadline = Some(Duration::from_secs(60));
        assert_eq!(ask(&[s.clone()]), Some("patience"));
        s.at = Duration::from_secs(61);
        assert_eq!(ask(&[s]), None);
    }

    #[test]
    fn connecting_is_judged_by_its_deadline_alone() {
        let mut s = sample(Phase::ControlConnect, 5);
        s.deadline = Some(Duration::from_secs(10));
        s.control = Some(Socket {
            state: tcp::SYN_SENT,
            retransmits: 5,
            ..socket()
        });
        assert_eq!(ask(&[s]), Some("patience"));
    }

    #[test]
    fn local_work_has_no_voucher() {
        assert_eq!(ask(&[sample(Phase::LocalFile, 1)]), None);
    }

    proptest! {
        /// Nothing is vouched for ever: over a history without any advance, every voucher falls
        /// silent after the longest bound.
        #[test]
        fn no_silence_is_vouched_beyond_its_bound(
            phase in 0u8..16,
            deadline in prop::option::of(0u64..100),
            acked in 0u64..1000,
        ) {
            let Some(phase) = Phase::from_u8(phase) else { return Ok(()) };
            let mut witness = Witness::default();
            for at in 0..200u64 {
                let mut s = sample(phase, at);
                s.deadline = deadline.map(Duration::from_secs);
                s.data = s.data.map(|d| Socket { acked, ..d });
                witness.observe(&s);
                if at > deadline.unwrap_or(0).max(31) {
                    prop_assert_eq!(witness.vouched(&s, LIMITS), None);
                }
            }
        }
    }
}
