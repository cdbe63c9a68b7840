//! The closed sets of names that metrics, logs and incidents share (CONTRACT: "Metrics").
//! A new member is a change of the contract: it shows up on dashboards.

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $type { $($(#[$vdoc])* $variant,)* }

        impl $type {
            /// All members, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in labels, logs and incidents.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its number, as an atomic holds it.
            pub const fn as_u8(self) -> u8 {
                self as u8
            }

            /// The member with this number.
            pub fn from_u8(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// What a worker is doing.
    Phase {
        /// Waits for work.
        Idle = "idle",
        /// Waits for a name look-up.
        Dns = "dns",
        /// Waits for the control connection.
        ControlConnect = "control_connect",
        /// Waits for the 220.
        Greeting = "greeting",
        /// Waits for a TLS handshake.
        Tls = "tls",
        /// Waits for a command's reply.
        Reply = "reply",
        /// Waits for the data connection (passive mode).
        DataConnect = "data_connect",
        /// Waits for the server's data connection (active mode).
        Listen = "listen",
        /// Waits for a file lock.
        Lock = "lock",
        /// Works on the local file.
        LocalFile = "local_file",
        /// Computes a hash.
        Hash = "hash",
        /// Moves the file's bytes.
        Transfer = "transfer",
        /// Waits until the peer has acknowledged the last byte.
        Drain = "drain",
        /// Waits for the transfer's completion reply.
        FinalReply = "final_reply",
        /// Waits for the peer's close_notify.
        TlsClose = "tls_close",
        /// Waits for the 221.
        Quit = "quit",
    }
}

impl Phase {
    /// Whether the phase opens a connection: all that a socket shows then is retransmission.
    pub const fn connects(self) -> bool {
        matches!(self, Self::Dns | Self::ControlConnect | Self::DataConnect)
    }

    /// Whether the phase moves bytes over the data connection and so must beat (no deadline).
    pub const fn moves(self) -> bool {
        matches!(self, Self::Transfer | Self::Drain)
    }
}

names! {
    /// Why an upload was stuck.
    Cause {
        /// No packet comes back.
        PathDead = "path_dead",
        /// The peer lives but reads nothing.
        ZeroWindow = "zero_window",
        /// The peer lives but does not answer.
        SilentServer = "silent_server",
        /// The data connection does not come to be.
        NoDataConnection = "no_data_connection",
        /// The local file system does not answer.
        Disk = "disk",
        /// The resolver does not answer.
        Dns = "dns",
        /// The worker computes without end.
        CpuLoop = "cpu_loop",
        /// The worker waits for a lock.
        Lock = "lock",
        /// The evidence names nothing.
        Unknown = "unknown",
    }
}

names! {
    /// Why the watchdog started its program again (S4, S5).
    RestartReason {
        /// It ended by itself, other than with code 0; or it did not end when it was asked to.
        Exit = "exit",
        /// Its beats did not come.
        Beats = "beats",
        /// Its pulse did not come: it was frozen or dead.
        NoPulse = "no_pulse",
        /// Its software beat did not come: its event loop was wedged.
        NoSoftwareBeat = "no_software_beat",
        /// It was not ready in time.
        NotReady = "not_ready",
        /// What came in the place of its beats could not be read.
        Garbage = "garbage",
    }
}

names! {
    /// Why a stranded pair left the quarantine.
    ReleaseReason {
        /// A newer pair needed the place.
        Full = "full",
        /// It was held long enough.
        Hold = "hold",
        /// Its destination needed the seat.
        Seats = "seats",
        /// Its unsent bytes were too many.
        Memory = "memory",
        /// Its file is about to be resumed.
        Resume = "resume",
        /// The service ends.
        Shutdown = "shutdown",
    }
}

names! {
    /// What came of one beat.
    Beat {
        /// The worker answered.
        Acked = "acked",
        /// A voucher answered for it.
        Vouched = "vouched",
        /// Nobody did.
        Missed = "missed",
    }
}

names! {
    /// What came of one upload attempt.
    AttemptResult {
        /// Delivered.
        Ok = "ok",
        /// Refused or failed.
        Error = "error",
        /// A wait was over its bound.
        Timeout = "timeout",
        /// The worker was ended.
        Reset = "reset",
    }
}

names! {
    /// What became of a file in the end.
    FileOutcome {
        /// It stands under its final name.
        Delivered = "delivered",
        /// It was put aside.
        DeadLetter = "dead_letter",
        /// It was left out on purpose.
        Skipped = "skipped",
    }
}
