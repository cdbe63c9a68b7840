//! The incidents: the newest ones in memory, each of their states in the journal, so that a restart
//! forgets neither them nor the file that has to recover.

use std::collections::VecDeque;

use slog::warn;

use super::DaemonActor;
use crate::actors::messages::Released;
use crate::clock::{self, Mono};
use crate::core::names::{Cause, ReleaseReason};
use crate::log;
use crate::report::{Incident, QuarantineReport};
use crate::spool::journal::{Change, Done, INCIDENTS};

/// An incident as the daemon keeps it.
pub(super) struct Recorded {
    /// When; none in an earlier life, whose clock says nothing here.
    found: Option<Mono>,
    cause: Cause,
    pub incident: Incident,
    /// The number of the change with its newest state, until that stands in the journal.
    unsaved: Option<u64>,
}

/// What earlier lives found. Whatever they held in their quarantine went with them.
pub(super) fn recalled(incidents: Vec<Incident>) -> VecDeque<Recorded> {
    let recorded = |mut incident: Incident| {
        if let Some(held) = incident
            .quarantine
            .as_mut()
            .filter(|q| q.released.is_none())
        {
            *held = QuarantineReport {
                entered: held.entered,
                released: Some(clock::unix()),
                reason: Some(ReleaseReason::Shutdown.as_str().into()),
                peer: Some("not known: the service ended and the kernel closed them".into()),
            };
        }
        let named = |cause: &&Cause| cause.as_str() == incident.cause;
        Recorded {
            found: None,
            cause: Cause::ALL
                .iter()
                .find(named)
                .copied()
                .unwrap_or(Cause::Unknown),
            incident,
            unsaved: None,
        }
    };
    incidents.into_iter().map(recorded).collect()
}

impl DaemonActor {
    pub(super) fn keep_incident(&mut self, found: Mono, cause: Cause, incident: Incident) {
        if self.incidents.len() >= INCIDENTS {
            self.incidents.pop_front();
        }
        self.incidents.push_back(Recorded {
            found: Some(found),
            cause,
            incident,
            unsaved: None,
        });
        self.save_incident(self.incidents.len() - 1);
    }

    /// Brings its newest state into the journal, when that can be written.
    fn save_incident(&mut self, index: usize) {
        self.incident_changes += 1;
        let token = self.record.next_token();
        let Some(record) = self.incidents.get_mut(index) else {
            return;
        };
        record.unsaved = Some(token);
        match serde_json::to_string(&record.incident) {
            Ok(body) => {
                let (id, at) = (record.incident.id, record.incident.detected_at);
                let change = Change::Incident { id, at, body };
                // No room, or refused: once more when the journal can be written again.
                self.record.journal.put(change, Done::Daemon(token));
            }
            Err(error) => {
                warn!(self.log, "an incident cannot be kept"; "incident" => record.incident.id,
                "error" => error.to_string(), "next" => "it is told until the service ends")
            }
        }
    }

    /// A change stands: the incident whose newest state it was, if any, need not be saved again.
    pub(super) fn incident_saved(&mut self, token: u64) {
        let of = |r: &&mut Recorded| r.unsaved == Some(token);
        if let Some(record) = self.incidents.iter_mut().find(of) {
            record.unsaved = None;
        }
    }

    /// The journal can be written again, or is another one: what it may lack of this life.
    pub(super) fn save_incidents(&mut self, all: bool) {
        for index in 0..self.incidents.len() {
            let record = &self.incidents[index];
            if record.unsaved.is_some() || all {
                self.save_incident(index);
            }
        }
    }

    /// The deadlock that a file of an earlier life has not recovered from.
    pub(super) fn incident_of(&self, route: &str, path: &str) -> Option<u64> {
        let file = log::escape(path);
        let of_it = |r: &&Recorded| {
            r.incident.recovered_at.is_none()
                && r.incident.route == route
                && r.incident.file.as_deref() == Some(&*file)
        };
        let newest = self.incidents.iter().rev().find(of_it);
        newest.map(|record| record.incident.id)
    }

    /// A stranded pair left the quarantine.
    pub(super) fn released(&mut self, released: Released) {
        self.stranded.remove(&released.incident);
        let of = |r: &Recorded| r.incident.id == released.incident;
        if let Some(index) = self.incidents.iter().position(of) {
            self.incidents[index].incident.quarantine = Some(released.report);
            self.save_incident(index);
        }
        for destination in &mut self.destinations {
            destination.ghosts.remove(&released.incident);
        }
        // Released before its time: the server may be stopped still, and make the name again.
        let at = match released.reason {
            ReleaseReason::Hold => Mono::ZERO,
            _ => clock::mono() + self.config.quarantine.hold,
        };
        for route in &mut self.routes {
            route.release_sweeps(released.incident, at);
        }
    }

    /// The file of an incident was delivered after all.
    pub(super) fn recovered(&mut self, id: u64) {
        let Some(index) = self.incidents.iter().position(|r| r.incident.id == id) else {
            return;
        };
        let record = &mut self.incidents[index];
        let detected = record.incident.detected_at;
        let took = match record.found {
            // By the clock that nobody sets: the wall clock may have been set meanwhile.
            Some(found) => clock::mono().saturating_sub(found).as_secs_f64(),
            None => (clock::unix() - detected).max(0.0),
        };
        record.incident.recovered_at = Some(detected + took);
        self.metrics.recovery(record.cause).observe(took);
        self.save_incident(index);
    }
}
