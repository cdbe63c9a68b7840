//! Evidence: what one Ping sees of a worker, read from outside without blocking and without its
//! help. Plain values that fit into a message; they judge nothing (`vouch` and `stall` do).

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
    /// Bytes that the peer has sent and our kernel has.
    pub received: u64,
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
    /// The peer's machine answers: at most one retransmission and one probe are open (a living
    /// peer with a closed window never showed more than one).
    pub fn answers(&self) -> bool {
        self.retransmits < 2 && self.probes < 2
    }

    /// Bytes that the peer has not acknowledged.
    pub fn queued(&self) -> u64 {
        self.unsent + self.unacked
    }
}

/// What kind of system call a thread is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Call {
    /// None, or not asked.
    #[default]
    None,
    /// It waits for a lock (futex).
    Lock,
    /// It works on a file: open, read, stat, flock, fsync.
    File,
    /// Any other.
    Other,
}

/// What the worker's thread shows at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thread {
    /// State letter of /proc.
    pub state: char,
    /// The system call it is in; only asked of a thread that is silent.
    pub call: Call,
    /// CPU time used, milliseconds.
    pub cpu_ms: u64,
}

/// All that one Ping saw of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Bytes handed to the kernel in this transfer, or taken from it.
    pub bytes: u64,
    /// The data connection brings bytes: a download.
    pub receives: bool,
    /// The control connection.
    pub control: Option<Socket>,
    /// The data connection.
    pub data: Option<Socket>,
    /// The thread, where it can be read.
    pub thread: Option<Thread>,
}

impl Sample {
    /// The path is alive: nothing in the sockets that matter in this phase says otherwise.
    pub fn path_alive(&self) -> bool {
        let control = self
            .control
            .is_some_and(|s| s.state == tcp::ESTABLISHED && s.answers());
        let data = !self.phase.moves()
            || self
                .data
                .is_some_and(|s| s.state != tcp::CLOSE && s.answers());
        control && data
    }

    /// The path is dead: a socket that matters in this phase waits for answers that do not come.
    /// Neither is true of a connection that its peer has closed.
    pub fn path_dead(&self) -> bool {
        let deaf = |s: Option<Socket>| s.is_some_and(|s| !s.answers());
        deaf(self.control) || (self.phase.moves() && deaf(self.data))
    }
}
