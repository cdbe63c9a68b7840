//! A route that comes, changes or goes while the service runs: its thread is started, takes new
//! settings in, or ends and lets go of the spool's lock. Each step is answered once it is done.

use std::sync::Arc;

use actix::prelude::SendError;
use actix::prelude::*;
use slog::error;
use tokio::sync::oneshot;

use super::{CollectorActor, RouteSpool, TRY_AGAIN, desk};
use crate::config::Route;
use crate::spool::Candidate;
use crate::spool::work::Command;

/// Daemon to collector: what changes about a route's spool. One at a time for a route, but for
/// `GiveBack`, which is not answered.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Change {
    /// The route's name.
    pub route: Arc<str>,
    /// What is to be done.
    pub step: Step,
}

/// The kinds of it.
#[derive(Debug)]
pub enum Step {
    /// A thread for it is started.
    Open(Box<RouteSpool>),
    /// It has new settings, and the same spool. What was offered under the old ones and is not in
    /// work should be given back once it is answered; all credit is used up by it.
    Renew(Arc<Route>),
    /// These files are offered again, if they are still to be sent.
    GiveBack(Vec<Candidate>),
    /// Its thread ends.
    Shut,
}

/// Collector to daemon: a step is done.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Changed {
    /// The route's name.
    pub route: Arc<str>,
    /// Which.
    pub took: Took,
}

/// The steps that are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Took {
    /// The thread runs, or could not be started.
    Open(Result<(), String>),
    /// Files that are offered from here on go by the new settings.
    Renew,
    /// The thread has ended, and its lock is free.
    Shut,
}

impl Handler<Change> for CollectorActor {
    type Result = ();

    fn handle(&mut self, change: Change, ctx: &mut Self::Context) {
        let Change { route, step } = change;
        match step {
            Step::Open(spool) => self.open(route, *spool, ctx),
            Step::Renew(settings) => self.pass(&route, Command::Renew(settings), ctx),
            Step::GiveBack(files) => self.pass(&route, Command::GiveBack(files), ctx),
            Step::Shut => self.shut(route, ctx),
        }
    }
}

impl CollectorActor {
    /// Starts the thread from a thread: what it looks at first may lie on a disk that hangs.
    fn open(&mut self, route: Arc<str>, spool: RouteSpool, ctx: &mut Context<Self>) {
        let (made_in, made) = oneshot::channel();
        let (daemon, log, clock) = (self.daemon.clone(), self.log.clone(), self.clock);
        let name = Arc::clone(&route);
        let opener = std::thread::Builder::new().name("spool-open".into());
        let begun = opener.spawn(move || {
            // Nobody may be waiting any more: the thread then ends with its lane.
            let _ = made_in.send(desk::start(daemon, name, spool, &log, clock));
        });
        if let Err(error) = begun {
            return self.tell(route, Took::Open(Err(error.to_string())), ctx);
        }
        let opened = made.into_actor(self).map(move |made, actor, ctx| {
            let result = match made {
                Ok(Ok(lane)) => {
                    actor.lanes.insert(Arc::clone(&route), lane);
                    Ok(())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the thread that starts it is gone".into()),
            };
            actor.tell(route, Took::Open(result), ctx);
        });
        ctx.spawn(opened);
    }

    fn shut(&mut self, route: Arc<str>, ctx: &mut Context<Self>) {
        if let Some(mut lane) = self.lanes.remove(&route) {
            lane.flush();
            lane.stop();
            self.shutting.push((route, lane.thread));
            self.see_them_end(ctx);
        } else {
            error!(self.log, "a route without a thread is shut"; "route" => &*route,
                "next" => "nothing is left to end");
            self.tell(route, Took::Shut, ctx);
        }
    }

    /// Waits for the threads that were told to end: one that hangs in a disk call holds its lock.
    fn see_them_end(&mut self, ctx: &mut Context<Self>) {
        let threads = std::mem::take(&mut self.shutting);
        let (ended, left): (Vec<_>, Vec<_>) = threads
            .into_iter()
            .partition(|(_, thread)| thread.is_finished());
        self.shutting = left;
        for (route, _) in ended {
            self.tell(route, Took::Shut, ctx);
        }
        if !self.shutting.is_empty() && !std::mem::replace(&mut self.watching, true) {
            ctx.run_later(TRY_AGAIN, |actor, ctx| {
                actor.watching = false;
                actor.see_them_end(ctx);
            });
        }
    }

    /// An answer is never lost: a daemon without room is told again.
    fn tell(&mut self, route: Arc<str>, took: Took, ctx: &mut Context<Self>) {
        let told = self.daemon.changed.try_send(Changed { route, took });
        if let Err(SendError::Full(Changed { route, took })) = told {
            ctx.run_later(TRY_AGAIN, move |actor, ctx| actor.tell(route, took, ctx));
        }
    }
}
