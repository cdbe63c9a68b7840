//! What the daemon tells of itself when it is asked: status and incidents.

use actix::{Handler, MessageResult};

use super::DaemonActor;
use super::reload::Life;
use super::slots::{Slot, Stay};
use crate::actors::messages::{GetIncidents, GetStatus, Turn};
use crate::clock;
use crate::report::{RouteStatus, Status};

impl Handler<GetStatus> for DaemonActor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        let now = clock::mono();
        let routes = self
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.life != Life::Gone)
            .map(|(index, route)| RouteStatus {
                slots: self
                    .slots
                    .iter()
                    .filter(|s| s.route == index && s.stay != Stay::Gone)
                    .map(Slot::status)
                    .collect(),
                ..route.status(&self.destinations[route.destination], now)
            });
        let mut routes: Vec<_> = routes.collect();
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        MessageResult(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started,
            at: clock::unix(),
            draining: self.draining.is_some(),
            journal_problem: self.record.problem.clone(),
            incident_changes: self.incident_changes,
            routes,
            stranded_workers: self.leaving.iter().filter(|l| l.stranded).count()
                + self.look_ups.stranded(),
            ..Status::default()
        })
    }
}

impl DaemonActor {
    /// One line on what the service is doing, without the name of any file.
    fn sentence(&self) -> String {
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter(|route| route.life != Life::Gone)
            .collect();
        let waiting: usize = routes
            .iter()
            .map(|route| route.backlog.ready() + route.backlog.waiting())
            .sum();
        let in_work = self.slots.iter().filter(|s| s.job.is_some()).count();
        let held = self.metrics.quarantine_pairs().get();
        let places = self.metrics.quarantine_capacity().get();
        let routes = match routes.len() {
            1 => "1 route".to_owned(),
            n => format!("{n} routes"),
        };
        let state = match (self.draining.is_some(), self.problems.borrow().len()) {
            (true, _) => "draining, ",
            (false, 0) => "",
            (false, _) => "not ready (/readyz says why), ",
        };
        format!(
            "{state}{routes}, {waiting} waiting, {in_work} in work, quarantine {held} of {places}"
        )
    }
}

impl Handler<Turn> for DaemonActor {
    type Result = ();

    fn handle(&mut self, Turn { answer }: Turn, _: &mut Self::Context) {
        answer(self.sentence());
    }
}

impl Handler<GetIncidents> for DaemonActor {
    type Result = MessageResult<GetIncidents>;

    fn handle(&mut self, _: GetIncidents, _: &mut Self::Context) -> Self::Result {
        MessageResult(
            self.incidents
                .iter()
                .rev()
                .map(|r| r.incident.clone())
                .collect(),
        )
    }
}
