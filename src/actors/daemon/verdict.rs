//! The end of a task, in its order (S1.4): evidence, local fence, quarantine, restart through the
//! gate, the file back as in doubt. The remote fence is the successor's first work on that name.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use slog::{error, warn};

use super::reports::Failed;
use super::route::Due;
use super::slots::{Running, RunningKind};
use super::{DaemonActor, Unsent};
use crate::actors::messages::Strand;
use crate::clock::{self, Mono};
use crate::core::evidence::{Sample, Socket, tcp};
use crate::core::names::{AttemptResult, Cause};
use crate::core::stall;
use crate::log;
use crate::report::{Incident, QuarantineReport, SocketReport};
use crate::sys::{socket, thread};

impl DaemonActor {
    /// Deadlock: the worker of this slot is ended, and everything goes on without it.
    pub(super) fn convict(&mut self, index: usize, now: Mono) {
        self.incident += 1;
        let slot = &self.slots[index];
        let Some(handle) = slot.handle.clone() else {
            return;
        };
        // 1. Evidence.
        let last = handle.look(true);
        let cause = if handle.answers() {
            // Its actor or their event loop is silent: what the worker shows is no evidence.
            Cause::Unknown
        } else {
            stall::cause(slot.last_good.as_ref(), &last)
        };
        let silent = now.saturating_sub(slot.beat.last_good());
        let route = self.routes[slot.route].config.name.clone();
        let mut incident = self.record(index, cause, silent, &last);
        let sent = incident.bytes_sent;
        error!(self.log, "deadlock found"; "route" => &route, "slot" => slot.number,
            "epoch" => slot.epoch, "incident" => incident.id, "phase" => &incident.phase,
            "cause" => cause.as_str(), "file" => &incident.file,
            "silent_seconds" => silent.as_secs_f64(), "bytes_sent" => incident.bytes_sent,
            "bytes_acked" => incident.bytes_acked,
            "next" => "its sockets are put away and a fresh uploader goes on");
        self.metrics.uploader_resets(&route, cause).inc();
        self.metrics.detection(cause).observe(silent.as_secs_f64());
        // 2. Local fence: from here on the kernel refuses the old worker's every byte.
        let pair = handle.fence.end();
        place(&mut incident.control, &pair.control);
        place(&mut incident.data, &pair.data);
        let pair = pair.connected();
        // 4. Quarantine.
        let held = pair.control.is_some() || pair.data.is_some();
        let id = incident.id;
        let target = match &slot.job {
            Some(Running {
                kind: RunningKind::File { path, .. },
                ..
            }) => Some(self.routes[slot.route].target(path)),
            _ => None,
        };
        if held {
            if let Some(target) = &target {
                self.stranded.insert(id, target.clone());
            }
            let at = self.routes[slot.route].destination;
            self.destinations[at].ghosts.insert(id);
            self.unsent.push_back(Unsent::Strand(Strand {
                incident: id,
                route: route.as_str().into(),
                destination: self.routes[slot.route].config.server.key(),
                target: target.map(|(_, name)| name.into()),
                pair,
            }));
        }
        let incident = Incident {
            quarantine: held.then(|| QuarantineReport {
                entered: clock::unix(),
                ..QuarantineReport::default()
            }),
            ..incident
        };
        self.keep_incident(now, cause, incident);
        // 5. Restart, through the gate.
        self.detach(index, now);
        warn!(self.log, "uploader reset"; "route" => &route, "slot" => self.slots[index].number,
            "epoch" => self.slots[index].epoch, "cause" => cause.as_str(),
            "next" => format!("a fresh worker in {:?}", self.slots[index].due.saturating_sub(now)));
        // 6. The file goes back, in doubt.
        let due = if held {
            Due::Release(id)
        } else {
            Due::At(now + self.config.quarantine.hold)
        };
        self.metrics
            .upload_attempts(&route, AttemptResult::Reset)
            .inc();
        self.interrupted_job(index, now, due, Some(id), sent);
        self.flush();
    }

    /// Ends a worker without a verdict: its actor or its thread is gone.
    pub(super) fn end_worker(&mut self, index: usize, now: Mono, why: &str) {
        let route = self.routes[self.slots[index].route].config.name.clone();
        let mut sent = 0;
        if let Some(handle) = self.detach(index, now) {
            handle.fence.end().reset();
            sent = handle.bytes();
        }
        self.metrics.uploader_resets(&route, Cause::Unknown).inc();
        warn!(self.log, "uploader reset"; "route" => &route, "slot" => self.slots[index].number,
            "epoch" => self.slots[index].epoch, "error" => why,
            "next" => format!("a fresh worker in {:?}", self.slots[index].due.saturating_sub(now)));
        let due = Due::At(now + self.config.quarantine.hold);
        if self.slots[index].job.is_some() {
            self.metrics
                .upload_attempts(&route, AttemptResult::Reset)
                .inc();
        }
        self.interrupted_job(index, now, due, None, sent);
    }

    /// The job of an ended worker: its file waits, and what was begun is in doubt.
    fn interrupted_job(
        &mut self,
        index: usize,
        now: Mono,
        due: Due,
        incident: Option<u64>,
        sent: u64,
    ) {
        let route = self.slots[index].route;
        match self.slots[index].job.take().map(|job| job.kind) {
            None => {}
            Some(RunningKind::Part) => {}
            Some(RunningKind::Poll) => self.poll_again(route, "the worker was ended", None, now),
            Some(RunningKind::Look { clock }) => self.look_failed(route, clock, due),
            Some(RunningKind::Sweep { temps }) => {
                for temp in temps {
                    self.sweep_later(route, temp, None, due);
                }
            }
            Some(RunningKind::File { path, attempt }) => {
                // A download's temp is here, and its next attempt has it.
                if attempt.may_leave_temp() && self.routes[route].polls.is_none() {
                    let of = Some(Arc::clone(&path));
                    self.sweep_later(route, attempt.temp.clone(), of, due);
                }
                let failed = Failed {
                    attempt: Some(attempt),
                    incident,
                    phase: None,
                    cause: None,
                    seat_lost: false,
                    sent,
                    error: "the worker was ended",
                };
                self.retry(route, &path, failed, now);
            }
        }
    }

    fn record(&self, index: usize, cause: Cause, silent: Mono, last: &Sample) -> Incident {
        let slot = &self.slots[index];
        let file = match &slot.job {
            Some(Running {
                kind: RunningKind::File { path, .. },
                ..
            }) => Some(log::escape(path).into_owned()),
            _ => None,
        };
        let thread = slot
            .handle
            .as_ref()
            .and_then(|h| thread::story(h.fence.thread()));
        let at = clock::unix();
        let data = last.data.unwrap_or_default();
        // The cell counts a chunk when its call has returned; a wedged call holds a part of one.
        let counted = slot.handle.as_ref().map_or(0, |h| h.bytes());
        let bytes_sent = counted.max(data.acked + data.queued());
        Incident {
            id: self.incident,
            route: self.routes[slot.route].config.name.clone(),
            slot: slot.number,
            epoch: slot.epoch,
            file,
            phase: last.phase.as_str().into(),
            cause: cause.as_str().into(),
            last_sign_of_life: at - silent.as_secs_f64(),
            detected_at: at,
            recovered_at: None,
            bytes_sent,
            bytes_acked: data.acked,
            control: last.control.map(|s| shown(&s)),
            data: last.data.map(|s| shown(&s)),
            thread,
            quarantine: None,
        }
    }
}

/// Adds the addresses, which a sample does not hold.
fn place(report: &mut Option<SocketReport>, fd: &Option<OwnedFd>) {
    if let (Some(report), Some(fd)) = (report, fd) {
        let (local, peer) = socket::addresses(fd.as_fd());
        report.local = local.map(|a| a.to_string());
        report.peer = peer.map(|a| a.to_string());
    }
}

fn shown(socket: &Socket) -> SocketReport {
    SocketReport {
        local: None,
        peer: None,
        state: tcp::name(socket.state).into(),
        unsent: socket.unsent,
        unacked: socket.unacked,
        retransmits: socket.retransmits.into(),
        probes: socket.probes.into(),
        rtt: f64::from(socket.rtt_us) / 1e6,
        last_data_received_ago: f64::from(socket.last_received_ms) / 1e3,
    }
}
