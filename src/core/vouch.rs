//! Vouchers: who may say that a worker's silence is legitimate (S4, S5).
//! Each is a pure function of evidence and limits, registered by its id at start; each is bounded,
//! so that nothing can be vouched for ever. They read samples; they never take one.

use super::Mono;
use super::evidence::{Sample, Socket};
use super::names::Phase;

/// Bounds of the vouchers: how long each may stand in for a phase that must move.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A living peer that takes no byte.
    pub stall: Mono,
    /// A local file operation that does not return.
    pub disk: Mono,
    /// A phase that computes.
    pub compute: Mono,
    /// Time between two beats: who vouches answers for all of it, so that what follows (N + 1
    /// missed beats) begins no later than the bound.
    pub beat: Mono,
}

impl Limits {
    /// Whether something that began then stays within `bound` until the next beat.
    fn holds(&self, bound: Mono, since: Mono, now: Mono) -> bool {
        now.saturating_sub(since) + self.beat <= bound
    }
}

/// What a voucher is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The sample of this Ping.
    pub sample: &'a Sample,
    /// Whether the peer took bytes, or sent some, since the last beat.
    pub advanced: bool,
    /// When it last did, or the phase began to be seen.
    pub last_advance: Mono,
    /// When the phase began to be seen.
    pub phase_since: Mono,
    /// Whether the worker used CPU time since the last beat.
    pub computed: bool,
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

/// The vouchers of a service, registered at its start.
#[derive(Clone)]
pub struct Vouchers(Vec<Voucher>);

impl Vouchers {
    /// Nobody vouches: every silence is a miss.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// All vouchers of this build.
    pub fn all() -> Self {
        let mut all = Self::none();
        all.register("progress", progress);
        all.register("patience", patience);
        all.register("cpu", cpu);
        all.register("disk", disk);
        all
    }

    /// Registers a voucher; one of the same id is replaced.
    pub fn register(&mut self, id: &'static str, vouches: fn(&Question<'_>) -> bool) {
        self.0.retain(|v| v.id != id);
        self.0.push(Voucher { id, vouches });
    }

    /// Their ids, in the order in which they are asked.
    pub fn ids(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|v| v.id)
    }

    /// The id of the first one that answers for the worker.
    pub fn ask(&self, question: &Question<'_>) -> Option<&'static str> {
        let found = self.0.iter().find(|v| (v.vouches)(question));
        found.map(|v| v.id)
    }
}

/// In a phase that moves bytes: the peer takes (or, in a download, sends) some, or lives and did so
/// not long ago (a slow reader's window opens in jumps many seconds apart).
fn progress(q: &Question<'_>) -> bool {
    q.sample.phase.moves()
        && (q.advanced
            || (q.sample.path_alive()
                && q.limits.holds(q.limits.stall, q.last_advance, q.sample.at)))
}

/// In a phase that waits for one event: its deadline has not come, and the path is alive. While
/// connecting, the path is not asked: a SYN's retransmissions are all it could show.
fn patience(q: &Question<'_>) -> bool {
    q.sample
        .deadline
        .is_some_and(|deadline| q.sample.at <= deadline)
        && !q.sample.phase.moves()
        && (q.sample.phase.connects() || q.sample.phase == Phase::Lock || q.sample.path_alive())
}

/// In a phase that computes: the worker is on the CPU (or waits for one that others keep busy) and
/// its CPU time grows.
fn cpu(q: &Question<'_>) -> bool {
    q.sample.phase == Phase::Hash
        && q.sample.thread.is_some_and(|t| t.state == 'R')
        && q.computed
        && q.limits.holds(q.limits.compute, q.phase_since, q.sample.at)
}

/// In a local-file phase: the file system is slow, and no peer waits for us (nothing is queued, the
/// window is open).
fn disk(q: &Question<'_>) -> bool {
    q.sample.phase == Phase::LocalFile
        && q.sample
            .data
            .is_none_or(|s| s.queued() == 0 && s.window > 0)
        && q.limits.holds(q.limits.disk, q.phase_since, q.sample.at)
}

/// Follows one worker's samples and asks the registered vouchers.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    phase_number: u64,
    phase_since: Mono,
    cookie: u64,
    moved: u64,
    last_advance: Mono,
    advanced: bool,
    cpu_ms: u64,
    computed: bool,
}

impl Witness {
    /// Takes the sample of a Ping and remembers what moved since the one before.
    pub fn observe(&mut self, sample: &Sample) {
        // Bytes go one way; the few that go the other are no content, but signs of life.
        let moved = |s: Socket| (s.cookie, s.acked + s.received);
        let (cookie, moved) = sample.data.map_or((0, 0), moved);
        let cpu_ms = sample.thread.map_or(0, |t| t.cpu_ms);
        if sample.phase_number != self.phase_number {
            self.phase_since = sample.at;
        }
        let fresh = sample.phase_number != self.phase_number || cookie != self.cookie;
        self.advanced = cookie == self.cookie && moved > self.moved;
        if fresh || self.advanced {
            self.last_advance = sample.at;
        }
        self.computed = cpu_ms > self.cpu_ms;
        self.phase_number = sample.phase_number;
        self.cookie = cookie;
        self.moved = moved;
        self.cpu_ms = cpu_ms;
    }

    /// The id of the first voucher that answers for the worker, if one does.
    pub fn vouched(
        &self,
        vouchers: &Vouchers,
        sample: &Sample,
        limits: Limits,
    ) -> Option<&'static str> {
        vouchers.ask(&Question {
            sample,
            advanced: self.advanced,
            last_advance: self.last_advance,
            phase_since: self.phase_since,
            computed: self.computed,
            limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evidence::{Call, Thread, tcp};
    use proptest::prelude::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        stall: Duration::from_secs(30),
        disk: Duration::from_secs(20),
        compute: Duration::from_secs(600),
        beat: Duration::from_secs(2),
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
            receives: false,
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
        let last = history.last().expect("a sample");
        witness.vouched(&Vouchers::all(), last, LIMITS)
    }

    #[test]
    fn a_living_peer_that_takes_nothing_is_vouched_for_until_the_stall_timer() {
        assert_eq!(
            ask(&[sample(Phase::Transfer, 1), sample(Phase::Transfer, 29)]),
            Some("progress")
        );
        assert_eq!(
            ask(&[sample(Phase::Transfer, 1), sample(Phase::Transfer, 30)]),
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
        let mut last = later;
        last.at = Duration::from_secs(53);
        assert_eq!(
            ask(&[sample(Phase::Transfer, 1), later, last]),
            Some("progress")
        );
    }

    #[test]
    fn bytes_that_the_peer_sends_restart_the_stall_timer_too() {
        let at = |at, received| Sample {
            receives: true,
            data: Some(Socket {
                received,
                ..socket()
            }),
            ..sample(Phase::Transfer, at)
        };
        assert_eq!(ask(&[at(1, 0), at(25, 9), at(53, 9)]), Some("progress"));
        assert_eq!(ask(&[at(1, 0), at(25, 9), at(55, 9)]), None);
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
        assert_eq!(ask(&[silent]), Some("patience"));
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
        assert_eq!(ask(&[s]), Some("patience"));
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
    fn a_slow_disk_is_vouched_for_until_its_timer_unless_a_peer_waits() {
        let began = sample(Phase::LocalFile, 1);
        let at = |at| Sample {
            at: Duration::from_secs(at),
            ..began
        };
        assert_eq!(ask(&[began, at(19)]), Some("disk"));
        assert_eq!(ask(&[began, at(20)]), None);
        let waiting = Sample {
            data: Some(Socket {
                unacked: 9,
                window: 65_535,
                ..socket()
            }),
            ..at(5)
        };
        assert_eq!(ask(&[began, waiting]), None);
    }

    /// Samples of a hash whose thread has used that much CPU time at these seconds.
    fn hash(state: char, used: &[(u64, u64)]) -> Option<&'static str> {
        let samples: Vec<_> = used
            .iter()
            .map(|&(at, cpu_ms)| Sample {
                thread: Some(Thread {
                    state,
                    call: Call::None,
                    cpu_ms,
                }),
                ..sample(Phase::Hash, at)
            })
            .collect();
        ask(&samples)
    }

    #[test]
    fn a_hash_is_vouched_for_while_its_thread_computes() {
        assert_eq!(hash('R', &[(2, 100), (4, 400)]), Some("cpu"));
        assert_eq!(hash('R', &[(2, 100), (4, 100)]), None, "starved for ever");
        assert_eq!(hash('S', &[(2, 100), (4, 400)]), None, "it sleeps");
        assert_eq!(hash('R', &[(2, 100), (602, 9000)]), None, "over its bound");
    }

    #[test]
    fn computing_is_no_excuse_in_any_other_phase() {
        for phase in Phase::ALL {
            let at = |at, cpu_ms| Sample {
                thread: Some(Thread {
                    state: 'R',
                    call: Call::None,
                    cpu_ms,
                }),
                ..sample(*phase, at)
            };
            let named = ask(&[at(2, 100), at(4, 400)]);
            assert_eq!(named == Some("cpu"), *phase == Phase::Hash, "{phase}");
        }
    }

    #[test]
    fn a_service_without_vouchers_excuses_nothing_and_ids_are_unique() {
        let mut witness = Witness::default();
        let s = sample(Phase::Transfer, 1);
        witness.observe(&s);
        assert_eq!(witness.vouched(&Vouchers::none(), &s, LIMITS), None);
        let mut vouchers = Vouchers::all();
        vouchers.register("disk", |_| true);
        let ids: Vec<_> = vouchers.ids().collect();
        assert_eq!(ids, ["progress", "patience", "cpu", "disk"]);
    }

    proptest! {
        /// Nothing is vouched for ever: over a history without any advance, every voucher falls
        /// silent after the longest bound.
        #[test]
        fn no_silence_is_vouched_beyond_its_bound(
            phase in 0u8..16,
            busy in any::<bool>(),
            deadline in prop::option::of(0u64..100),
            acked in 0u64..1000,
        ) {
            let Some(phase) = Phase::from_u8(phase) else { return Ok(()) };
            let (vouchers, mut witness) = (Vouchers::all(), Witness::default());
            for at in 0..1000u64 {
                let mut s = sample(phase, at);
                s.deadline = deadline.map(Duration::from_secs);
                s.data = s.data.map(|d| Socket { acked, ..d });
                s.thread = busy.then(|| Thread { state: 'R', call: Call::None, cpu_ms: at * 500 });
                witness.observe(&s);
                let bound = if phase == Phase::Hash { 600 } else { 31 };
                if at > deadline.unwrap_or(0).max(bound) {
                    prop_assert_eq!(witness.vouched(&vouchers, &s, LIMITS), None);
                }
            }
        }
    }
}
