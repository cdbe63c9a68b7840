//! What the daemon tells of itself when it is asked: status and incidents.

use actix::{Handler, MessageResult};

use super::DaemonActor;
use super::reload::Life;
use super::slots::{Slot, Stay};
use crate::actors::messages::{GetIncidents, GetStatus};
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
