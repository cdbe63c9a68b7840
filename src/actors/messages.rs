//! What the actors say to each other. Each message about a worker carries its epoch: a message
//! of an old epoch changes nothing.

use std::sync::Arc;

use actix::Message;

use crate::clock::Mono;
use crate::core::evidence::Sample;
use crate::core::names::ReleaseReason;
use crate::pulse::WorkerHandle;
use crate::report;
use crate::sys::fence::Pair;
use crate::worker::{Job, Report};

/// Time goes on (S1.1): sent by the timer thread, judged by the time it carries.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Tick {
    /// When it was meant to be handled.
    pub scheduled: Mono,
}

/// A fresh worker stands.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ready {
    /// Its slot.
    pub slot: usize,
    /// What the daemon needs to judge and to end it.
    pub handle: Arc<WorkerHandle>,
}

/// Heartbeat detection message (S1.2).
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Ping {
    /// The epoch that is asked.
    pub epoch: u64,
    /// Its number within the epoch.
    pub seq: u64,
}

/// The actor's answer: evidence only; the daemon judges.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Pong {
    /// The slot.
    pub slot: usize,
    /// The epoch that answers.
    pub epoch: u64,
    /// The Ping that is answered.
    pub seq: u64,
    /// What was seen of the worker.
    pub sample: Sample,
}

/// Work for a worker.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Give(pub Job);

/// The worker of `epoch` was ended: start the one of `next` (S1.4).
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct EndTask {
    /// The ended epoch.
    pub epoch: u64,
    /// The one to begin.
    pub next: u64,
}

/// No more work comes: the worker says goodbye and leaves.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Retire;

/// A worker's report.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Outcome(pub Report);

/// Sockets of an ended worker, to be held (S1.4, S1.5).
#[derive(Message)]
#[rtype(result = "()")]
pub struct Strand {
    /// The incident that stranded them; the pair's id.
    pub incident: u64,
    /// The route.
    pub route: Arc<str>,
    /// The destination's key.
    pub destination: String,
    /// The final name that was in work.
    pub target: Option<Arc<str>>,
    /// The sockets.
    pub pair: Pair,
}

/// A pair was released.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Released {
    /// The incident it belonged to.
    pub incident: u64,
    /// Its stay.
    pub report: report::QuarantineReport,
    /// Why.
    pub reason: ReleaseReason,
}

/// A destination has no seat for us: its oldest pair has to go.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Seats {
    /// The destination's key.
    pub destination: String,
}

/// A file is about to be resumed: its pairs have to go.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Resume {
    /// The destination's key.
    pub destination: String,
    /// The final name.
    pub target: String,
}

/// What the quarantine holds.
#[derive(Message, Debug)]
#[rtype(result = "report::QuarantineStatus")]
pub struct Snapshot;

/// The service ends: release all.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Close;

/// What the service is doing.
#[derive(Message, Debug)]
#[rtype(result = "report::Status")]
pub struct GetStatus;

/// The deadlocks found, newest first.
#[derive(Message, Debug)]
#[rtype(result = "Vec<report::Incident>")]
pub struct GetIncidents;

/// To the daemon: its loop is to go round once (S5). Only one is under way at a time.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Turn {
    /// Told that it did, with a sentence on what the service is doing; never waits.
    pub answer: Box<dyn FnOnce(String) + Send>,
}

/// Stop taking work and end in order; answered by the daemon's `over` callback.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Drain {
    /// When whatever still runs is ended.
    pub until: Mono,
}

/// To the quarantine: other bounds hold from now on.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Limit(pub crate::core::ring::Limits);
