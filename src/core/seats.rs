//! The seats of one destination: how many sessions it grants us, and what follows when it grants
//! none. Whoever was refused while others of ours stand has met its limit: fewer are tried (half,
//! but not fewer than stand), and one more is tried ever more rarely while that is refused. Nobody
//! stands: it is down, and one probes it under the back-off. It refuses the login itself: one
//! probes, after long pauses, since every wrong password may lock the account.
//! Counts only; who has which session is the caller's to know.

use super::Mono;
use super::retry::Backoff;
use std::time::Duration;

/// The first pause before one seat more is tried than was granted.
pub const RAISE_FIRST: Duration = Duration::from_secs(5);
/// The longest one.
pub const RAISE_LAST: Duration = Duration::from_secs(600);
/// The first pause after a refused login is `retry.max`, but not longer than this; each further
/// one doubles it.
pub const LOGIN_FIRST: Duration = Duration::from_secs(60);
/// The longest pause after a refused login.
pub const LOGIN_LAST: Duration = Duration::from_secs(3600);
/// Logins refused in a row, with no session of ours left, after which even a password that was
/// right once counts as wrong.
const WRONG_AFTER: u32 = 3;

/// Whether a refused login (530) tells that all seats are taken, not that the login is wrong: some
/// servers have only the one code for both.
pub fn says_full(reply: &str) -> bool {
    let reply = reply.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reply.contains(word));
    says(&["maximum", "too many", "no more than", "limit"])
        && says(&["client", "user", "connect", "session", "logged in"])
        // A locked account is told in such words too.
        && !says(&["attempt", "fail", "password", "incorrect", "invalid", "tries", "locked"])
}

/// Who has sessions at the destination now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Slots with work.
    pub working: usize,
    /// Slots with a session, idle ones included.
    pub standing: usize,
    /// Slots with work and no session yet: they are about to ask for one.
    pub opening: usize,
    /// Stranded pairs in our own quarantine: the server may count them still.
    pub ghosts: usize,
}

impl Usage {
    /// Seats that our slots take.
    fn taken(&self) -> usize {
        self.standing + self.opening
    }
}

/// A session that did not come to be.
#[derive(Debug, Clone, Copy)]
pub struct NoSession {
    /// The login was refused (530).
    pub login_refused: bool,
    /// The number of the try, as [`Seats::era`] was when it began.
    pub era: u64,
    /// Who else has what.
    pub usage: Usage,
}

/// What a session that did not come to be means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has no seat more: so many slots may have one from now on.
    NoSeat {
        /// How many.
        allowed: usize,
    },
    /// It gives nobody a session: it is left alone so long, then one tries.
    Down {
        /// The pause.
        pause: Mono,
    },
    /// It does not take our name and password: it is left alone so long, then one tries.
    Login {
        /// The pause.
        pause: Mono,
    },
}

/// The seats of one destination.
#[derive(Debug, Clone)]
pub struct Seats {
    /// Slots of all routes to it.
    slots: usize,
    /// Seats that it seems to grant us, ghosts included; none: it never refused one.
    limit: Option<usize>,
    /// +1 at every change of the limit: a refusal of a try that began before says nothing new.
    era: u64,
    /// The last change was a raise that nobody has used yet.
    raised: bool,
    /// The pause before the next raise, and when it is over.
    gap: Mono,
    raise_at: Mono,
    /// Sessions that did not come to be, in a row, while nobody had one.
    failures: u32,
    logins_refused: u32,
    paused: Mono,
    /// A login was taken once.
    known: bool,
}

impl Seats {
    /// A destination that so many slots may want a session of, at least 1.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(1),
            limit: None,
            era: 0,
            raised: false,
            gap: RAISE_FIRST,
            raise_at: Mono::ZERO,
            failures: 0,
            logins_refused: 0,
            paused: Mono::ZERO,
            known: false,
        }
    }

    /// So many slots may want a session from now on, at least 1.
    pub fn set_slots(&mut self, slots: usize) {
        self.slots = slots.max(1);
    }

    /// The settings changed: the next try may be the right one, and is not put off. Nothing is
    /// known of a login with them.
    pub fn forgive(&mut self) {
        self.failures = 0;
        self.logins_refused = 0;
        self.paused = Mono::ZERO;
        self.known = false;
        self.era += 1;
    }

    /// The number that a try which begins now has to tell when it fails.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Sessions that did not come to be, in a row; 0: it gives some.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when nobody tries.
    pub fn paused(&self) -> Mono {
        self.paused
    }

    /// Whether a login was taken in this run.
    pub fn known(&self) -> bool {
        self.known
    }

    /// Whether the last failures were refused logins.
    pub fn wrong_login(&self) -> bool {
        self.failures > 0 && self.logins_refused > 0
    }

    /// Whether it grants fewer seats than we have slots.
    pub fn limited(&self) -> bool {
        self.limit.is_some()
    }

    /// How many slots may have a session at once: 1 to all.
    pub fn allowed(&self, ghosts: usize) -> usize {
        let limit = self.limit.unwrap_or(usize::MAX);
        limit.saturating_sub(ghosts).clamp(1, self.slots)
    }

    /// Whether a slot may begin work now; `holds`: it has a session.
    pub fn may_begin(&self, holds: bool, usage: Usage, now: Mono) -> bool {
        if now < self.paused || (self.failures > 0 && usage.working > 0) {
            return false;
        }
        if holds {
            return true;
        }
        // A crowd with a wrong password would lock the account at once.
        if self.limit.is_none() {
            return self.known || usage.opening == 0;
        }
        // One at a time: where seats are few a crowd would only be refused.
        usage.opening == 0 && usage.taken() < self.allowed(usage.ghosts)
    }

    /// A slot wants a session and there is no seat for it: whether one more may be tried now.
    pub fn raise(&mut self, usage: Usage, now: Mono) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        let full = usage.opening == 0 && usage.taken() >= self.allowed(usage.ghosts);
        if !full || self.failures > 0 || self.raised || now < self.raise_at {
            return false;
        }
        if usage.taken() >= self.slots {
            return false;
        }
        self.era += 1;
        self.raised = true;
        // The ghosts may be more than the limit: what is tried is one session more.
        self.limit = Some(limit.max(usage.taken() + usage.ghosts) + 1);
        true
    }

    /// A session came to be in a try of that era.
    pub fn opened(&mut self, era: u64, ghosts: usize, now: Mono) {
        self.failures = 0;
        self.logins_refused = 0;
        self.paused = Mono::ZERO;
        self.known = true;
        if std::mem::take(&mut self.raised) {
            if era == self.era {
                self.gap = (self.gap / 2).max(RAISE_FIRST);
                self.raise_at = now + self.gap;
            } else {
                self.raised = true;
            }
        }
        if self.limit.is_some_and(|limit| limit >= self.slots + ghosts) && !self.raised {
            self.limit = None;
        }
    }

    /// A session did not come to be. `random` is uniform in 0 to 1.
    pub fn failed(
        &mut self,
        failure: NoSession,
        backoff: Backoff,
        random: f64,
        now: Mono,
    ) -> Verdict {
        let NoSession {
            login_refused,
            era,
            usage,
        } = failure;
        // Before any success a refused login is a wrong password, whoever stands.
        let wrong = login_refused && !self.known;
        let seats = usage.standing + usage.ghosts;
        if !wrong && seats > 0 {
            self.lower(era, seats, now);
        }
        if !wrong && usage.standing > 0 {
            let allowed = self.allowed(usage.ghosts);
            return Verdict::NoSeat { allowed };
        }
        self.failures += 1;
        self.logins_refused = if login_refused {
            self.logins_refused + 1
        } else {
            0
        };
        let wrong = wrong || (self.logins_refused >= WRONG_AFTER && usage.ghosts == 0);
        let pause = if wrong {
            let first = backoff.max.min(LOGIN_FIRST);
            let doubled = 1 << self.logins_refused.saturating_sub(1).min(31);
            first.saturating_mul(doubled).min(LOGIN_LAST)
        } else {
            backoff.pause(self.failures, random)
        };
        self.paused = now + pause;
        if wrong {
            Verdict::Login { pause }
        } else {
            Verdict::Down { pause }
        }
    }

    /// A seat was refused while `seats` others stood.
    fn lower(&mut self, era: u64, seats: usize, now: Mono) {
        if era != self.era {
            return;
        }
        self.era += 1;
        let limit = self.limit.unwrap_or(self.slots + seats);
        let below = limit.saturating_sub(1).max(1);
        if std::mem::take(&mut self.raised) {
            // One more than it grants, as had to be found out: back to what it does grant.
            self.gap = (self.gap * 2).min(RAISE_LAST);
            self.limit = Some(below);
        } else {
            self.limit = Some((limit / 2).max(seats).min(below).max(1));
        }
        self.raise_at = now + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        max: Duration::from_secs(300),
        jitter: 0.0,
    };

    /// A destination that permits `permits` sessions, and slots that always want one.
    struct World {
        seats: Seats,
        slots: usize,
        permits: usize,
        ghosts: usize,
        standing: usize,
        opening: Vec<u64>,
        refused: usize,
        most: usize,
        now: Mono,
    }

    impl World {
        fn new(slots: usize, permits: usize, ghosts: usize) -> Self {
            Self {
                seats: Seats::new(slots),
                slots,
                permits,
                ghosts,
                standing: 0,
                opening: Vec::new(),
                refused: 0,
                most: 0,
                now: Mono::ZERO,
            }
        }

        fn usage(&self) -> Usage {
            Usage {
                working: self.standing + self.opening.len(),
                standing: self.standing,
                opening: self.opening.len(),
                ghosts: self.ghosts,
            }
        }

        /// Whoever may asks for a session; then the server answers all of them.
        fn turn(&mut self) {
            while self.standing + self.opening.len() < self.slots {
                let (usage, now) = (self.usage(), self.now);
                if !self.seats.may_begin(false, usage, now) && !self.seats.raise(usage, now) {
                    break;
                }
                self.opening.push(self.seats.era());
            }
            self.most = self.most.max(self.standing + self.opening.len());
            while let Some(era) = self.opening.pop() {
                if self.standing + self.ghosts < self.permits {
                    self.standing += 1;
                    self.seats.opened(era, self.ghosts, self.now);
                    continue;
                }
                self.refused += 1;
                let failure = NoSession {
                    login_refused: false,
                    era,
                    usage: self.usage(),
                };
                self.seats.failed(failure, BACKOFF, 0.5, self.now);
            }
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                self.turn();
            }
        }
    }

    #[test]
    fn three_of_eight_seats_are_found_at_once_and_then_asked_for_more_ever_more_rarely() {
        let mut world = World::new(8, 3, 0);
        world.run(2);
        assert_eq!((world.standing, world.refused), (3, 5));
        world.run(24 * 3600);
        assert_eq!(world.standing, 3);
        // 5 s, 10 s, ... 10 min, then six an hour.
        assert!(world.refused <= 6 + 8 + 24 * 6, "{}", world.refused);
        world.permits = 8;
        world.run(3600);
        assert_eq!(world.standing, 8);
        assert!(!world.seats.limited());
    }

    #[test]
    fn ghosts_take_seats_until_they_are_released() {
        let mut world = World::new(8, 3, 2);
        world.run(3);
        assert_eq!(world.standing, 1);
        let refused = world.refused;
        world.ghosts = 0;
        world.run(1);
        assert_eq!(world.standing, 2, "one at a time");
        world.run(2);
        assert_eq!((world.standing, world.refused), (3, refused));
    }

    #[test]
    fn a_destination_that_is_down_is_probed_by_one_under_the_back_off() {
        let mut world = World::new(4, 0, 0);
        world.run(1);
        assert_eq!(world.refused, 1);
        world.run(599);
        // 1, 2, 4, ... 256, 300 s.
        assert!(world.refused <= 10, "{}", world.refused);
        world.permits = 4;
        world.run(600);
        assert_eq!(world.standing, 4);
    }

    #[test]
    fn a_wrong_password_is_tried_four_times_in_ten_minutes_and_then_once_an_hour() {
        let mut seats = Seats::new(8);
        let (mut now, mut tries) = (Mono::ZERO, Vec::new());
        while now < Duration::from_secs(8 * 3600) {
            if seats.may_begin(false, Usage::default(), now) {
                tries.push(now.as_secs());
                let failure = NoSession {
                    login_refused: true,
                    era: seats.era(),
                    usage: Usage::default(),
                };
                let verdict = seats.failed(failure, BACKOFF, 0.5, now);
                assert!(matches!(verdict, Verdict::Login { .. }));
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(tries[..7], [0, 60, 180, 420, 900, 1860, 3780]);
        assert!(tries[7..].windows(2).all(|w| w[1] - w[0] == 3600));
        assert!(seats.wrong_login());
        seats.opened(seats.era(), 0, now);
        assert!(!seats.wrong_login() && seats.may_begin(false, Usage::default(), now));
    }

    #[test]
    fn a_server_that_is_full_is_told_from_a_wrong_login_by_its_words() {
        for full in [
            "530 Sorry, the maximum number of clients (3) for this user are already connected.",
            "530 Sorry, the maximum number of allowed clients (3) are already connected.",
            "530 Too many connections for this user.",
            "530 No more than 3 sessions per user.",
        ] {
            assert!(says_full(full), "{full}");
        }
        for wrong in [
            "530 Login incorrect.",
            "530 Authentication failed.",
            "530 User cannot log in.",
            "530 Not logged in, user or password incorrect",
            "530 Too many failed login attempts for this user.",
            "530 Maximum login attempts exceeded, user locked.",
            "530 Account limit: invalid user",
        ] {
            assert!(!says_full(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_refused_login_after_a_success_is_a_seat_while_others_stand_and_else_soon_a_password() {
        let mut seats = Seats::new(2);
        seats.opened(0, 0, Mono::ZERO);
        let refused = |seats: &mut Seats, standing| {
            let usage = Usage {
                standing,
                ..Usage::default()
            };
            let failure = NoSession {
                login_refused: true,
                era: seats.era(),
                usage,
            };
            seats.failed(failure, BACKOFF, 0.5, Mono::ZERO)
        };
        assert_eq!(refused(&mut seats, 1), Verdict::NoSeat { allowed: 1 });
        let first = Duration::from_secs(1);
        assert_eq!(refused(&mut seats, 0), Verdict::Down { pause: first });
        assert!(matches!(refused(&mut seats, 0), Verdict::Down { .. }));
        assert!(matches!(refused(&mut seats, 0), Verdict::Login { .. }));
    }

    proptest! {
        /// Under a server with any limit, that other clients and our own ghosts may change: never
        /// above the slots, never below one, all of what it grants is used in the end, and what is
        /// refused grows with the logarithm of time, then with time over the longest pause.
        #[test]
        fn seats_are_found_and_refusals_stay_few(
            slots in 1usize..20,
            life in prop::collection::vec((1usize..24, 0usize..3, 1u64..4000), 1..6),
        ) {
            let mut world = World::new(slots, 1, 0);
            let mut bound = 0.0;
            for (permits, ghosts, seconds) in life {
                world.permits = permits + ghosts;
                world.ghosts = ghosts;
                world.standing = world.standing.min(permits);
                for _ in 0..seconds {
                    world.run(1);
                    let allowed = world.seats.allowed(ghosts);
                    prop_assert!(allowed >= 1 && allowed <= slots);
                }
                let time = Duration::from_secs(seconds);
                bound += 2.0 * slots as f64 + 3.0
                    + (time.as_secs_f64() / RAISE_FIRST.as_secs_f64() + 1.0).log2()
                    + time.as_secs_f64() / RAISE_LAST.as_secs_f64();
                prop_assert!((world.refused as f64) <= bound, "{} > {bound}", world.refused);
                prop_assert!(world.most <= slots);
            }
            // In the end: what the last server grants, after the longest pause for each seat.
            world.run(RAISE_LAST.as_secs() * (slots as u64 + 1));
            prop_assert_eq!(world.standing, world.permits.saturating_sub(world.ghosts).min(slots));
        }
    }
}
