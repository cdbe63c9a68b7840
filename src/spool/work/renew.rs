//! New settings of a route while its thread runs: what is in hand is kept as far as they take it,
//! in their order; a scan finds what they take besides.

use std::sync::Arc;

use slog::error;

use super::{IN_HAND_MAX, Report, Work};
use crate::config::Route;
use crate::spool::Candidate;
use crate::spool::dead::Tally;
use crate::spool::settle::Sight;
use crate::spool::source::facts_of;
use crate::spool::taking::Taking;
use crate::spool::waiting::Waiting;
use crate::sys::file;

impl Work {
    /// Takes new settings of the same spool. What was offered is not taken back here; all credit
    /// is used up, so that nothing is offered before the daemon has given back what it has.
    pub(super) fn renew(&mut self, route: Arc<Route>) {
        match Taking::new(&route) {
            Ok(taking) => self.taking = taking,
            // The configuration's check tells it before.
            Err(error) => error!(self.log, "a pattern is none"; "error" => %error,
                "next" => "the old patterns hold"),
        }
        let mut waiting = Waiting::new(route.order, IN_HAND_MAX);
        while let Some((path, facts)) = self.waiting.pop_first() {
            if self.taking.takes(&path)
                && let Some(evicted) = waiting.insert(&path, facts)
            {
                self.leave(&evicted.stamp);
            }
        }
        self.waiting = waiting;
        self.settle
            .renew(route.settle, |path| self.taking.takes(path));
        self.folder.renew(Arc::clone(&route));
        if route.dead_letter != self.route.dead_letter {
            self.dead_letters = Tally::default();
        }
        self.route = route;
        self.credit = 0;
        // What was read by the old settings does not tell what the new ones take.
        (self.pass, self.count) = (None, None);
        self.scan_soon();
        self.out.push_back(Report::Renewed);
    }

    /// The daemon has not begun with these: what has settled stays settled.
    pub(super) fn give_back(&mut self, files: Vec<Candidate>) {
        self.moved_on = true;
        for Candidate { path, stamp } in files {
            self.memory.take_back(&path);
            let Some(root) = self.folder.root() else {
                continue;
            };
            if !self.taking.takes(&path) {
                continue;
            }
            let Ok(stat) = file::stat_beneath(root, &path) else {
                continue;
            };
            if !file::is_regular(&stat) {
                continue;
            }
            let facts = facts_of(&stat);
            if facts.stamp == stamp {
                self.enqueue(&path, facts);
            } else {
                self.take_in(&path, facts, Sight::Seen, (self.clock.now)());
            }
        }
    }
}
