//! The end of a delivered source: carried out here, so that no other thread ever waits for the
//! disk, and told to the daemon with what it came to.

use std::time::Duration;

use slog::{debug, error, info, warn};

use super::{Report, Work};
use crate::config::After;
use crate::report::Retry;
use crate::spool::Stamp;
use crate::spool::dead;
use crate::spool::finish::{self, FinishError, Finished, Known};
use crate::spool::marker;
use crate::spool::revive;
use crate::spool::settle::Sight;

/// Dead letters are sent again for so long in one go: other work of the route waits meanwhile.
const REVIVING: Duration = Duration::from_secs(5);

impl Work {
    /// Does with a delivered source what the route says. After an error the file stays offered:
    /// the daemon may ask again, or forget it.
    pub(super) fn finish(&mut self, path: String, sent: Stamp, story: Option<&str>, token: u64) {
        let known = Known {
            marker: self.memory.marker(&path),
            // A file of this life was offered first.
            earlier: !self.memory.is_offered(&path),
        };
        let outcome = match story {
            None => finish::finish(&self.route, &path, sent, known),
            Some(story) => self.bury(&path, sent, story, known.marker),
        };
        if let Ok(finished) = &outcome {
            self.memory.take_back(&path);
            self.moved_on = true;
            self.after(&path, sent, finished);
        }
        let outcome = outcome.map_err(|error| {
            let text = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            let next = match error.stranded_at {
                Some(_) => "it is put back by a later scan and sent again",
                None => "the source stays; the daemon asks again",
            };
            warn!(self.log, "a source cannot be finished";
                "file" => path.escape_debug().to_string(), "error" => &text, "next" => next);
            text
        });
        self.out.push_back(Report::Finished {
            path,
            token,
            outcome,
        });
    }

    /// Moves a source that is given up to the dead letters. The marker that had released it goes with
    /// it: else it would release whatever a producer begins to write under that name.
    fn bury(
        &mut self,
        path: &str,
        sent: Stamp,
        story: &str,
        marker: Option<Stamp>,
    ) -> Result<Finished, FinishError> {
        // Read before the source is hidden: one that comes later is not this version's.
        let marker = marker.or_else(|| {
            let name = marker::path_of(&self.route, path)?;
            marker::now(&self.route.spool, &name).ok().flatten()
        });
        let buried = dead::bury(&self.route, path, sent, story)?;
        let gone = matches!(buried, Finished::Buried(_) | Finished::Vanished);
        if gone && let Err(error) = finish::unmark_vanished(&self.route, path, marker) {
            warn!(self.log, "the marker of a dead letter stays";
                "file" => path.escape_debug().to_string(), "error" => %error,
                "next" => "remove it: it would release the next file of that name at once");
        }
        Ok(buried)
    }

    /// A person may have taken some away.
    pub(super) fn count_dead_letters(&mut self) {
        if let Err(error) = self.dead_letters.count(&self.route.dead_letter, self.clock) {
            self.say(b".", &format!("the dead letters cannot be read: {error}"));
        }
        self.state_changed = true;
    }

    /// Sends dead letters again: they stand in the spool like files that were just renamed there.
    pub(super) fn revive(&mut self, files: &[String]) -> Result<Retry, String> {
        if self.folder.root().is_none() {
            let why = self.folder.problem().unwrap_or("it is not there");
            return Err(format!("the spool cannot be used: {why}"));
        }
        let end = (self.clock.now)().mono + REVIVING;
        let enough = || (self.clock.now)().mono >= end;
        let (answer, back) = revive::revive(&self.route, &self.taking, files, &enough)?;
        // Before they are offered: they begin anew.
        self.out.push_back(Report::Revived(back.clone()));
        let letters = &mut self.dead_letters.letters;
        *letters = letters.saturating_sub(back.len() as u64);
        for path in back {
            info!(self.log, "dead letter sent again"; "file" => path.escape_debug().to_string(),
                "next" => "it is taken like a new file");
            self.look_at(&path, Sight::MovedIn, true);
        }
        Ok(answer)
    }

    fn after(&mut self, path: &str, sent: Stamp, finished: &Finished) {
        let file = path.escape_debug().to_string();
        match finished {
            Finished::Deleted => {}
            Finished::Archived(at) => debug!(self.log, "source archived"; "file" => file,
                "at" => ?at),
            Finished::Kept => self.memory.keep(path, sent),
            Finished::Buried(_) => self.dead_letters.letters += 1,
            Finished::Changed => {
                info!(self.log, "source changed while it was sent"; "file" => file,
                    "next" => "it settles and is sent again");
                self.look_anew(path, self.route.after != After::Keep);
            }
            Finished::SetAside(at) => {
                error!(self.log, "changed source set aside"; "file" => file, "at" => ?at,
                    "cause" => "it changed while it was sent, and a newer file took its name",
                    "next" => "the newer file is sent; this version waits for a person");
                self.look_anew(path, false);
            }
            Finished::Vanished => {
                info!(self.log, "source vanished after its delivery"; "file" => file,
                    "next" => "nothing is left to do for it");
                self.look_anew(path, false);
            }
        }
    }
}
