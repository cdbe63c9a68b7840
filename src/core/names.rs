//! The closed sets of names that metrics, logs and incidents share (CONTRACT: "Metrics").
//! Each is defined here once; nobody else spells one of these words in a label.
//! The order of the variants is the number of `as_u8`: append only.

use std::fmt;

/// Defines an enum with its words: `ALL`, `as_str`, `as_u8`, `from_u8` and `Display`.
macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$word_doc])* $word,)+ }

        impl $name {
            /// Every member, in the order of `as_u8`.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// The word, as labels, logs and incidents have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text,)+ }
            }

            /// The number, for an atomic.
            pub const fn as_u8(self) -> u8 {
                self as u8
            }

            /// The member with this number, if there is one.
            pub fn from_u8(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

closed_set! {
    /// What a worker is doing. Waits for one event have a deadline, `Transfer`, `Drain`,
    /// `LocalFile` and `Hash` must move instead.
    Phase {
        /// Nothing to do, the session may be open.
        Idle = "idle",
        /// Looking up the server's name.
        Dns = "dns",
        /// Connecting the control connection.
        ControlConnect = "control_connect",
        /// Waiting for the server's first reply.
        Greeting = "greeting",
        /// In a TLS handshake.
        Tls = "tls",
        /// Waiting for a command's reply.
        Reply = "reply",
        /// Connecting the data connection (passive mode).
        DataConnect = "data_connect",
        /// Waiting for the server's data connection (active mode).
        Listen = "listen",
        /// Waiting for a file lock.
        Lock = "lock",
        /// Opening or reading the local file.
        LocalFile = "local_file",
        /// Computing a hash.
        Hash = "hash",
        /// Moving bytes.
        Transfer = "transfer",
        /// All bytes are handed to the kernel, not all are acknowledged.
        Drain = "drain",
        /// Waiting for the reply that ends a transfer.
        FinalReply = "final_reply",
        /// Closing TLS on the data connection.
        TlsClose = "tls_close",
        /// Saying good-bye.
        Quit = "quit",
    }
}

closed_set! {
    /// Why an upload stopped moving.
    Cause {
        /// The network to the peer is gone: probes or retransmissions stay unanswered.
        PathDead = "path_dead",
        /// The peer lives but takes no byte.
        ZeroWindow = "zero_window",
        /// The peer lives but does not answer.
        SilentServer = "silent_server",
        /// The data connection does not come about.
        NoDataConnection = "no_data_connection",
        /// The local disk does not answer.
        Disk = "disk",
        /// The name look-up does not answer.
        Dns = "dns",
        /// The worker computes without end.
        CpuLoop = "cpu_loop",
        /// The worker waits for a lock.
        Lock = "lock",
        /// The evidence fits no cause.
        Unknown = "unknown",
    }
}

closed_set! {
    /// Why the quarantine released a pair of sockets (S1.5).
    ReleaseReason {
        /// Its place was needed.
        Full = "full",
        /// It was held as long as `quarantine.hold` says.
        Hold = "hold",
        /// It took a login seat at its destination.
        Seats = "seats",
        /// Too many unsent bytes were held in kernel memory.
        Memory = "memory",
        /// Its file is about to be resumed.
        Resume = "resume",
        /// The service ended.
        Shutdown = "shutdown",
    }
}

closed_set! {
    /// What became of a file.
    FileOutcome {
        /// It stands whole under its final name.
        Delivered = "delivered",
        /// It was given up and moved to the dead-letter folder.
        DeadLetter = "dead_letter",
        /// It was left out by a rule.
        Skipped = "skipped",
    }
}

closed_set! {
    /// How one attempt to upload ended.
    AttemptResult {
        /// Delivered.
        Ok = "ok",
        /// The server or the local file refused.
        Error = "error",
        /// A timer ended a wait.
        Timeout = "timeout",
        /// The uploader was reset after a deadlock.
        Reset = "reset",
    }
}

closed_set! {
    /// What came of one Ping.
    BeatResult {
        /// The worker itself answered.
        Acked = "acked",
        /// A voucher answered for it.
        Vouched = "vouched",
        /// Nobody did.
        Missed = "missed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_members_map_onto_each_other() {
        for (at, &phase) in Phase::ALL.iter().enumerate() {
            assert_eq!(usize::from(phase.as_u8()), at);
            assert_eq!(Phase::from_u8(phase.as_u8()), Some(phase));
        }
        assert_eq!(Phase::ALL.len(), 16);
        assert_eq!(Phase::from_u8(16), None);
        assert_eq!(Cause::ALL.len(), 9);
    }
}
