//! Workers that were ended and have not left yet. They leave within milliseconds; those that
//! cannot (a hung disk, a loop, a lock) are counted as stranded, and too many of them escalate.

use std::sync::Arc;

use slog::{error, warn};

use super::DaemonActor;
use super::reload::Life;
use crate::clock::Mono;
use crate::pulse::WorkerHandle;
use crate::sys::thread;

/// How long an ended worker may take to leave before it counts as stranded. It takes milliseconds.
const LEAVE: Mono = Mono::from_secs(1);

/// A worker that was ended and has not left yet.
pub struct Leaving {
    pub handle: Arc<WorkerHandle>,
    pub route: usize,
    pub since: Mono,
    pub stranded: bool,
}

impl DaemonActor {
    /// Watches the ended workers leave; those that cannot are counted, and too many escalate.
    pub(super) fn see_them_leave(&mut self, now: Mono) {
        self.leaving
            .retain(|l| !l.handle.fence.finished() || thread::exists(l.handle.fence.thread()));
        for leaving in &mut self.leaving {
            if leaving.stranded || now.saturating_sub(leaving.since) < LEAVE {
                continue;
            }
            leaving.stranded = true;
            leaving.handle.fence.poke();
            warn!(self.log, "an ended worker cannot leave";
                "route" => &self.routes[leaving.route].config.name,
                "epoch" => leaving.handle.epoch, "thread" => leaving.handle.fence.thread(),
                "phase" => leaving.handle.phase().as_str(),
                "next" => "it is counted as stranded; its successor goes on");
        }
        let stranded = self.leaving.iter().filter(|l| l.stranded).count();
        let all = stranded + self.look_ups.stranded();
        self.metrics.stranded_workers().set(all as i64);
        for (index, route) in self.routes.iter_mut().enumerate() {
            let own = self
                .leaving
                .iter()
                .filter(|l| l.stranded && l.route == index)
                .count();
            route.suspend(own >= 2, &self.log);
        }
        let mut there = self
            .routes
            .iter()
            .filter(|r| r.life != Life::Gone)
            .peekable();
        let none_left = there.peek().is_some() && there.all(|r| r.suspended);
        if !self.escalating
            && (none_left || stranded > self.config.heartbeat.max_stranded_workers as usize)
        {
            self.escalating = true;
            error!(self.log, "too many workers cannot leave"; "stranded" => all,
                "next" => "what runs is finished, then the process ends with 70 to be restarted");
            let until = now + self.config.shutdown_grace;
            self.draining = Some(self.draining.map_or(until, |running| running.min(until)));
        }
    }
}
