//! What several routes share: a destination with its seats (`core::seats` decides, this counts
//! who has which session). A slot without a seat waits; an idle one gives its session up when
//! another needs the seat; a wrong password is told with the way out.

use std::collections::HashSet;

use slog::{error, info, warn};

use super::DaemonActor;
use super::reload::Life;
use super::route::RouteState;
use super::slots::RunningKind;
use crate::actors::messages::Seats as AskForSeat;
use crate::clock::Mono;
use crate::config::Secret;
use crate::core::claim::Claim;
use crate::core::names::Cause;
use crate::core::seats::{NoSession, Seats, Usage, Verdict, says_full};
use crate::ftp::Quirks;
use crate::log::escape;
use crate::token;
use crate::worker::{Failure, Work};

/// How long a route may keep its sessions while another one to the same destination has none.
const TURN: Mono = Mono::from_secs(5);

/// A destination as the daemon knows it.
pub struct Destination {
    /// `user@host:port`.
    pub key: String,
    /// Where one route has the wrong password, only that one is to wait for it.
    password: Secret,
    pub seats: Seats,
    /// What its server was found to be like.
    pub quirks: Quirks,
    /// The last reason for which no session came to be.
    pub no_session: String,
    /// Incidents whose pairs the quarantine holds: the server may count them as sessions.
    pub ghosts: HashSet<u64>,
}

impl Destination {
    /// What a person should know of it, if it gives no session.
    pub fn problem(&self, now: Mono) -> Option<String> {
        let failures = self.seats.failures();
        let again = self.seats.paused().saturating_sub(now).as_secs_f64();
        let why = escape(&self.no_session);
        match failures {
            0 => None,
            _ if self.seats.wrong_login() => Some(format!(
                "the login is refused ({failures} tries): {why}; correct user and password of \
                 the route and reload; next try in {again:.0} s"
            )),
            _ => Some(format!(
                "no session after {failures} tries: {why}; next try in {again:.1} s"
            )),
        }
    }
}

/// What a route is known by at its destination, if the route is there.
fn login(route: &RouteState) -> Option<(String, Secret)> {
    let server = &route.config.server;
    (route.life != Life::Gone).then(|| (server.key(), server.password.clone()))
}

impl DaemonActor {
    /// The destinations of all routes, and which route has which; again after each change.
    pub(super) fn make_destinations(&mut self) {
        for route in 0..self.routes.len() {
            let Some(own) = login(&self.routes[route]) else {
                continue;
            };
            let same = |r: &&RouteState| login(r).is_some_and(|other| other == own);
            let slots = self.routes.iter().filter(same);
            let slots = slots.map(|r| r.config.uploaders).sum::<u32>() as usize;
            let known = |d: &Destination| d.key == own.0 && d.password == own.1;
            let at = match self.destinations.iter().position(known) {
                Some(at) => at,
                None => self.new_destination(own, slots),
            };
            self.destinations[at].seats.set_slots(slots);
            self.routes[route].destination = at;
        }
    }

    /// In the place of one that no route has any more, if there is one.
    fn new_destination(&mut self, (key, password): (String, Secret), slots: usize) -> usize {
        let new = Destination {
            seats: Seats::new(slots),
            quirks: Quirks::default(),
            key,
            password,
            no_session: String::new(),
            ghosts: HashSet::new(),
        };
        let had = |at: &usize| self.routes.iter().any(|r| r.destination == *at);
        match (0..self.destinations.len()).find(|at| !had(at)) {
            Some(at) => {
                self.destinations[at] = new;
                at
            }
            None => {
                self.destinations.push(new);
                self.destinations.len() - 1
            }
        }
    }

    /// Whether what this slot does is done under another login, or another way to it, than its
    /// route has by now: it says nothing of the new one.
    fn is_of_old_settings(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        slot.terms.route.server != self.routes[slot.route].config.server
    }

    fn usage(&self, destination: usize) -> Usage {
        let mut usage = Usage {
            ghosts: self.destinations[destination].ghosts.len(),
            ..Usage::default()
        };
        let own = |s: &&super::Slot| self.routes[s.route].destination == destination;
        for slot in self.slots.iter().filter(own) {
            let (works, stands) = (slot.job.is_some(), slot.has_session());
            usage.working += usize::from(works);
            usage.standing += usize::from(stands);
            usage.opening += usize::from(works && !stands);
        }
        usage
    }

    /// Takes note of the sessions that came to be since the last look.
    pub(super) fn see_sessions(&mut self, now: Mono) {
        for index in 0..self.slots.len() {
            if self.slots[index].opens.is_some() && self.slots[index].has_session() {
                self.session_came(index, now);
            }
        }
    }

    /// The session that this slot's job had to open came to be.
    pub(super) fn session_came(&mut self, index: usize, now: Mono) {
        let old = self.is_of_old_settings(index);
        let slot = &mut self.slots[index];
        let Some(era) = slot.opens.take() else { return };
        slot.session_since = now;
        if old {
            return;
        }
        let destination = &mut self.destinations[self.routes[slot.route].destination];
        let ghosts = destination.ghosts.len();
        destination.seats.opened(era, ghosts, now);
    }

    /// Whether this free slot may begin something now, as far as its destination goes.
    pub(super) fn may_begin(&mut self, index: usize, now: Mono) -> bool {
        let route = self.slots[index].route;
        let at = self.routes[route].destination;
        let (holds, usage) = (self.slots[index].has_session(), self.usage(at));
        let seats = &mut self.destinations[at].seats;
        if seats.may_begin(holds, usage, now) {
            // Where seats are few a route must not sit on them while another has none.
            let stays = !holds
                || !seats.limited()
                || now < self.slots[index].session_since + TURN
                || !self.must_yield(route, now);
            return stays || !self.part(index);
        }
        let wanting = self.routes[route].is_due(now);
        if !wanting || now < seats.paused() || seats.failures() > 0 {
            return false;
        }
        if usage.opening == 0 && self.part_an_idle_one(at) {
            return false;
        }
        self.destinations[at].seats.raise(usage, now)
    }

    /// Whether this route has something that could be done now.
    fn wants_seats(&self, route: usize, now: Mono) -> bool {
        let state = &self.routes[route];
        state.gives() && !state.suspended && now >= state.paused && state.is_due(now)
    }

    /// Takes note of the routes that have files but no session.
    pub(super) fn see_hunger(&mut self, now: Mono) {
        for route in 0..self.routes.len() {
            let mut slots = self.slots.iter().filter(|s| s.route == route);
            let none = slots.all(|s| s.job.is_none() && !s.has_session());
            let hungry = none && self.wants_seats(route, now);
            let state = &mut self.routes[route];
            state.hungry = hungry.then(|| state.hungry.unwrap_or(now));
        }
    }

    /// What this route may claim of the seats of its destination.
    pub(super) fn claim(&self, route: usize, now: Mono) -> Claim {
        let state = &self.routes[route];
        Claim::new(state.config.priority, state.hungry, now)
    }

    /// Whether another route of its destination has the better right to a seat of this one: an
    /// equal one that has none at all, or one of a greater claim that could use one more.
    fn must_yield(&self, route: usize, now: Mono) -> bool {
        let (at, own) = (self.routes[route].destination, self.claim(route, now));
        let others = (0..self.routes.len()).filter(|r| *r != route);
        others
            .filter(|r| self.routes[*r].destination == at && self.wants_seats(*r, now))
            .any(|other| {
                let claim = self.claim(other, now);
                let mut slots = self.slots.iter().filter(|s| s.route == other);
                let hungry = self.routes[other].hungry.is_some();
                (hungry && claim >= own)
                    || (claim > own && slots.any(|s| s.free() && !s.has_session()))
            })
    }

    /// Has an idle slot give its session up. Whoever had work for it would have got it before.
    fn part_an_idle_one(&mut self, destination: usize) -> bool {
        let idle = |s: &super::Slot| {
            s.free() && s.has_session() && self.routes[s.route].destination == destination
        };
        let found = self.slots.iter().position(idle);
        found.is_some_and(|index| self.part(index))
    }

    pub(super) fn part(&mut self, index: usize) -> bool {
        self.hand_over(index, Work::Part, RunningKind::Part)
    }

    /// No session came to be: not the file's failure, the destination's (or, once the login was
    /// taken, the route's: its folder cannot be entered).
    pub(super) fn no_session(
        &mut self,
        index: usize,
        failure: &Failure,
        cause: Option<Cause>,
        now: Mono,
    ) {
        let route = self.slots[index].route;
        if self.is_of_old_settings(index) {
            self.slots[index].opens = None;
            info!(self.log, "a session of old settings did not come to be";
                "route" => &self.routes[route].config.name,
                "error" => escape(&failure.error).into_owned(), "next" => "the new ones are tried");
            return;
        }
        if failure.logged_in {
            self.session_came(index, now);
            return self.no_folder(route, failure, now);
        }
        let at = self.routes[route].destination;
        let (backoff, usage) = (self.backoff(), self.usage(at));
        let opens = self.slots[index].opens.take();
        let destination = &mut self.destinations[at];
        let no_session = NoSession {
            login_refused: matches!(failure.code, Some(332 | 530)) && !says_full(&failure.error),
            era: opens.unwrap_or(destination.seats.era()),
            usage,
        };
        let verdict = destination
            .seats
            .failed(no_session, backoff, token::random(), now);
        destination.no_session.clone_from(&failure.error);
        let name = &self.routes[route].config.name;
        let next = match verdict {
            Verdict::NoSeat { allowed } => {
                format!("{allowed} at once until it grants more; files wait and lose nothing")
            }
            Verdict::Down { pause } => {
                format!("again in {pause:.1?}; files wait and lose nothing")
            }
            Verdict::Login { pause } => format!(
                "correct routes.{name}.user and .password and reload; else again in {pause:.0?}, \
                 by one session, so that the account is not locked; files wait and lose nothing"
            ),
        };
        let (key, error) = (&destination.key, escape(&failure.error).into_owned());
        let (failures, phase) = (destination.seats.failures(), failure.phase.as_str());
        let cause = cause.map(Cause::as_str);
        if matches!(verdict, Verdict::Login { .. }) {
            error!(self.log, "the destination gives no session"; "route" => name,
                "destination" => key, "failures" => failures, "login" => "refused",
                "error" => error, "next" => next);
        } else {
            warn!(self.log, "the destination gives no session"; "route" => name,
                "destination" => key, "failures" => failures, "phase" => phase, "cause" => cause,
                "error" => error, "next" => next);
        }
        self.ask_for_seat(at, failure);
    }

    /// The login was taken, but the route's folder can neither be entered nor made.
    fn no_folder(&mut self, route: usize, failure: &Failure, now: Mono) {
        let backoff = self.backoff();
        let state = &mut self.routes[route];
        state.failures += 1;
        let pause = backoff.pause(state.failures, token::random());
        state.paused = now + pause;
        state.no_session.clone_from(&failure.error);
        let at = state.destination;
        warn!(self.log, "the destination gives no session"; "route" => &state.config.name,
            "destination" => &self.destinations[at].key, "failures" => state.failures,
            "phase" => failure.phase.as_str(), "error" => escape(&failure.error).into_owned(),
            "next" => format!("again in {pause:.1?}; files wait and lose nothing"));
    }

    /// A session that stood was taken away by a 421.
    pub(super) fn seat_lost(&mut self, route: usize, now: Mono) {
        let at = self.routes[route].destination;
        let (backoff, usage) = (self.backoff(), self.usage(at));
        if usage.standing > 0 {
            let seats = &mut self.destinations[at].seats;
            let no_session = NoSession {
                login_refused: false,
                era: seats.era(),
                usage,
            };
            seats.failed(no_session, backoff, 0.5, now);
        }
    }

    /// Our own ghosts in the quarantine may hold the seats that the server says are taken.
    pub(super) fn ask_for_seat(&self, at: usize, failure: &Failure) {
        let destination = &self.destinations[at];
        let no_seat = match failure.code {
            Some(421) => true,
            // 530 before any success is a wrong password.
            Some(530) => destination.seats.known(),
            _ => false,
        };
        if no_seat {
            // No room for it: the next failure says it again.
            let _ = self.peers.seats.try_send(AskForSeat {
                destination: destination.key.clone(),
            });
        }
    }
}
