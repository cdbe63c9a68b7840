//! The end of a delivered source: carried out here, so that no other thread ever waits for the
//! disk, and told to the daemon with what it came to.

use slog::{debug, error, info, warn};

use super::{Report, Work};
use crate::config::After;
use crate::spool::Stamp;
use crate::spool::finish::{self, Finished, Known};

impl Work {
    /// Does with a delivered source what the route says. After an error the file stays offered:
    /// the daemon may ask again, or forget it.
    pub(super) fn finish(&mut self, path: String, sent: Stamp, token: u64) {
        let known = Known {
            marker: self.memory.marker(&path),
            // A file of this life was offered first.
            earlier: !self.memory.is_offered(&path),
        };
        let outcome = finish::finish(&self.route, &path, sent, known);
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
            warn!(self.log, "delivered source cannot be finished";
                "file" => path.escape_debug().to_string(), "error" => &text, "next" => next);
            text
        });
        self.out.push_back(Report::Finished {
            path,
            token,
            outcome,
        });
    }

    fn after(&mut self, path: &str, sent: Stamp, finished: &Finished) {
        let file = path.escape_debug().to_string();
        match finished {
            Finished::Deleted => {}
            Finished::Archived(at) => debug!(self.log, "source archived"; "file" => file,
                "at" => ?at),
            Finished::Kept => self.memory.keep(path, sent),
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
