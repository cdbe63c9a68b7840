//! The SocketQuarantineActor: owns the bounded FIFO of stranded pairs (S1.5). Pairs come from the
//! daemon and leave only here, data first by a reset, so that the server knows that the upload
//! failed; while they are held they stay open, untouched and observed.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult, Recipient};
use slog::{Logger, info, warn};

use super::messages::{Close, Limit, Released, Seats, Snapshot, Strand, Tick};
use crate::clock;
use crate::core::evidence::{Socket, tcp};
use crate::core::names::ReleaseReason;
use crate::core::ring::{Entry, Limits, Release, Ring};
use crate::metrics::Metrics;
use crate::pulse::{Point, Sabotage};
use crate::report::{PairStatus, QuarantineReport, QuarantineStatus};
use crate::sys::fence::Pair;
use crate::sys::socket;

/// Messages that may wait: a pair for each slot at worst, ticks and questions.
const MAILBOX: usize = 1024;

struct Held {
    route: Arc<str>,
    destination: String,
    entered: f64,
    pair: Pair,
    first: (Option<Socket>, Option<Socket>),
    last: (Option<Socket>, Option<Socket>),
}

/// The actor.
pub struct SocketQuarantineActor {
    ring: Ring,
    capacity: usize,
    held: HashMap<u64, Held>,
    released: Recipient<Released>,
    /// Notices that the daemon's mailbox had no room for; at most one a pair that was held.
    unsent: Vec<Released>,
    metrics: Metrics,
    log: Logger,
    sabotage: Sabotage,
}

impl SocketQuarantineActor {
    /// An empty quarantine that tells `released` of every release.
    pub fn new(
        limits: Limits,
        released: Recipient<Released>,
        metrics: Metrics,
        log: Logger,
    ) -> Self {
        metrics.quarantine_capacity().set(limits.capacity as i64);
        Self {
            ring: Ring::new(limits),
            capacity: limits.capacity,
            held: HashMap::new(),
            released,
            unsent: Vec::new(),
            metrics,
            log,
            sabotage: Sabotage::default(),
        }
    }

    /// The same, in a service that may be sabotaged.
    #[must_use]
    pub fn sabotaged_by(self, sabotage: Sabotage) -> Self {
        Self { sabotage, ..self }
    }

    fn release_all(&mut self, releases: Vec<Release>) {
        for Release { id, reason } in releases {
            if let Some(held) = self.held.remove(&id) {
                self.release(id, held, reason);
            }
        }
        self.flush();
        self.metrics.quarantine_pairs().set(self.held.len() as i64);
        self.metrics
            .quarantine_send_bytes()
            .set(self.ring.bytes() as i64);
    }

    fn release(&mut self, incident: u64, held: Held, reason: ReleaseReason) {
        held.pair.reset();
        let peer = deeds(&held.first, &held.last);
        self.metrics.quarantine_releases(reason).inc();
        info!(self.log, "sockets released"; "route" => &*held.route, "incident" => incident,
            "destination" => &held.destination, "reason" => reason.as_str(), "peer" => &peer,
            "next" => "their temp file is swept once more");
        self.unsent.push(Released {
            incident,
            reason,
            report: QuarantineReport {
                entered: held.entered,
                released: Some(clock::unix()),
                reason: Some(reason.as_str().into()),
                peer: Some(peer),
            },
        });
    }

    fn flush(&mut self) {
        for notice in std::mem::take(&mut self.unsent) {
            if let Err(actix::prelude::SendError::Full(notice)) = self.released.try_send(notice) {
                self.unsent.push(notice);
            }
        }
    }

    fn observe(&mut self) {
        for (id, held) in &mut self.held {
            held.last = look(&held.pair);
            let bytes = [held.last.0, held.last.1].into_iter().flatten();
            self.ring
                .weigh(*id, bytes.map(|s| s.unsent + s.unacked).sum());
        }
    }
}

fn look(pair: &Pair) -> (Option<Socket>, Option<Socket>) {
    let one = |fd: &Option<OwnedFd>| fd.as_ref().and_then(|fd| socket::sample(fd.as_fd()));
    (one(&pair.control), one(&pair.data))
}

/// What the peer did with the held connections, in words.
fn deeds(
    first: &(Option<Socket>, Option<Socket>),
    last: &(Option<Socket>, Option<Socket>),
) -> String {
    let one = |name: &str, first: &Option<Socket>, last: &Option<Socket>| match (first, last) {
        (Some(first), Some(last)) => {
            let took = last.acked.saturating_sub(first.acked);
            Some(format!(
                "{name} {}, took {took} bytes",
                tcp::name(last.state)
            ))
        }
        _ => None,
    };
    let both = [
        one("control", &first.0, &last.0),
        one("data", &first.1, &last.1),
    ];
    both.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

impl Actor for SocketQuarantineActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Strand> for SocketQuarantineActor {
    type Result = ();

    fn handle(&mut self, strand: Strand, _: &mut Self::Context) {
        let seen = look(&strand.pair);
        let bytes = [seen.0, seen.1]
            .into_iter()
            .flatten()
            .map(|s| s.unsent + s.unacked)
            .sum();
        let held = Held {
            route: strand.route,
            destination: strand.destination.clone(),
            entered: clock::unix(),
            pair: strand.pair,
            first: seen,
            last: seen,
        };
        info!(self.log, "sockets quarantined"; "route" => &*held.route,
            "incident" => strand.incident, "destination" => &held.destination, "bytes" => bytes,
            "next" => "they are held and released late");
        self.held.insert(strand.incident, held);
        let releases = self.ring.put(Entry {
            id: strand.incident,
            destination: strand.destination,
            target: strand.target.map(|t| t.to_string()),
            since: clock::mono(),
            bytes,
        });
        self.release_all(releases);
    }
}

impl Handler<Tick> for SocketQuarantineActor {
    type Result = ();

    fn handle(&mut self, _: Tick, _: &mut Self::Context) {
        self.sabotage.at(Point::Quarantine);
        if self.held.is_empty() && self.unsent.is_empty() {
            return;
        }
        self.observe();
        let releases = self.ring.tick(clock::mono());
        self.release_all(releases);
    }
}

impl Handler<Limit> for SocketQuarantineActor {
    type Result = ();

    fn handle(&mut self, Limit(limits): Limit, _: &mut Self::Context) {
        self.capacity = limits.capacity;
        let capacity = self.metrics.quarantine_capacity();
        capacity.set(limits.capacity as i64);
        self.observe();
        let releases = self.ring.limit(limits);
        self.release_all(releases);
    }
}

impl Handler<Seats> for SocketQuarantineActor {
    type Result = ();

    fn handle(&mut self, seats: Seats, _: &mut Self::Context) {
        self.observe();
        let release = self.ring.seats(&seats.destination);
        if release.is_some() {
            warn!(self.log, "the destination has no seat for us";
                "destination" => &seats.destination, "next" => "its oldest held pair is released");
        }
        self.release_all(release.into_iter().collect());
    }
}

impl Handler<Snapshot> for SocketQuarantineActor {
    type Result = MessageResult<Snapshot>;

    fn handle(&mut self, _: Snapshot, _: &mut Self::Context) -> Self::Result {
        let pairs = self.ring.held().filter_map(|entry| {
            let held = self.held.get(&entry.id)?;
            Some(PairStatus {
                incident: entry.id,
                route: held.route.to_string(),
                entered: held.entered,
                send_bytes: entry.bytes,
            })
        });
        MessageResult(QuarantineStatus {
            capacity: self.capacity,
            pairs: pairs.collect(),
        })
    }
}

impl Handler<Close> for SocketQuarantineActor {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Self::Context) {
        self.observe();
        let releases = self.ring.shutdown();
        self.release_all(releases);
    }
}
