//! A route that begins while the service runs: the journal is asked what an earlier life of it left
//! behind, then its spool's thread is started. Nothing is begun before both are known.

use std::sync::Arc;

use actix::{Addr, Handler};

use super::{AGAIN, Life};
use crate::actors::collector::{RouteSpool, Step};
use crate::actors::daemon::DaemonActor;
use crate::actors::journal::{Recall, Recalled};
use crate::clock::Mono;
use crate::config::Route;
use crate::spool::journal::{KeptRows, why_no_resend};

impl DaemonActor {
    pub(super) fn recall(&mut self, index: usize, again: Mono, now: Mono, this: &Addr<Self>) {
        let state = &mut self.routes[index];
        let same = |desired: &Arc<Route>| Arc::ptr_eq(desired, &state.config);
        if !state.desired.as_ref().is_some_and(same) {
            // Nothing has begun yet.
            state.life = Life::Gone;
            return;
        }
        if now < again {
            return;
        }
        let recall = Recall {
            route: state.config.name.as_str().into(),
            told: this.clone().recipient(),
        };
        state.life = Life::Recalls { again: now + AGAIN };
        if let Some(journal) = &self.reloads.recall {
            // No room for it: asked again.
            let _ = journal.try_send(recall);
        }
    }

    fn recalled(&mut self, recalled: Recalled) {
        let Recalled {
            route,
            unfinished,
            sweeps,
            mut kept,
            lost,
            path,
        } = recalled;
        let Some(index) = self.route_index(&route) else {
            return;
        };
        if !matches!(self.routes[index].life, Life::Recalls { .. }) {
            return;
        }
        let state = &mut self.routes[index];
        // Also where it was lost while the service ran: what ran on knew its files by itself.
        state.keep_from_sending(lost.map(|place| why_no_resend(&place)).as_ref());
        state.life = Life::Opens;
        if let Some(polls) = &mut state.polls {
            polls.know(std::mem::take(&mut kept));
        }
        let settings = Arc::clone(&state.config);
        let lock = self.reloads.locks.remove(&settings.spool);
        let rows = KeptRows::new(&path, &route, self.record.journal.clone());
        self.remember(unfinished);
        self.take_up_sweeps(index, sweeps.into_iter().map(|old| old.temp).collect());
        self.tell_problems();
        let spool = RouteSpool {
            route: settings,
            lock,
            kept,
            rows: Some(rows),
        };
        self.change(route, Step::Open(Box::new(spool)));
        self.send_changes();
    }
}

impl Handler<Recalled> for DaemonActor {
    type Result = ();

    fn handle(&mut self, recalled: Recalled, _: &mut Self::Context) {
        self.recalled(recalled);
    }
}
