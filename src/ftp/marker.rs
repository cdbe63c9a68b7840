//! The empty file beside a final name that tells that the file is there (`remote_marker`). It is
//! stored after the publication and never before; that it may be missing is a stage of its own in
//! the journal, so whatever ends a session or the process in between, only the marker is stored
//! again, never the file.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, memfd_create};
use slog::{debug, warn};

use super::publish::{Landed, take_away};
use super::{Session, Trouble, transfer};
use crate::core::journey::Stage;
use crate::failpoint;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::journal::{Journal, Key};

impl Session {
    /// Before a file is sent: what is wrong with its final name where the route has markers.
    ///
    /// # Errors
    /// It has the form of a marker, so the marker of another file could replace it; or its own
    /// marker would have too long a name.
    pub fn may_be_marked(&self, target: &str) -> Result<(), Trouble> {
        let route = &self.setup.route;
        let Some(markers) = &route.publishing.markers else {
            return Ok(());
        };
        let why = if markers.is_marker(target) {
            "has the form of a marker: it could be taken for one, and be replaced by one"
        } else if markers.marker(target).is_none() {
            "is too long: its marker's name would not fit"
        } else {
            return Ok(());
        };
        Err(Trouble::Conflict(format!(
            "the name {} {why} (routes.{}.remote_marker); give the file another name, or leave it \
             out by routes.{}.exclude",
            escape(target),
            route.name,
            route.name
        )))
    }

    /// Before a file grows under its final name: the marker of what stood there is taken away.
    pub(super) fn unmark(&mut self, target: &str) -> Result<(), Trouble> {
        let markers = &self.setup.route.publishing.markers;
        let Some(marker) = markers.as_ref().and_then(|m| m.marker(target)) else {
            return Ok(());
        };
        if take_away(self, &marker)? {
            return Ok(());
        }
        Err(Trouble::Conflict(format!(
            "the marker {} of an earlier file stands and cannot be taken away: it would tell that \
             a file is whole which is being sent; ask the server's keeper for the right to delete",
            escape(&marker)
        )))
    }

    /// Stores the marker of a published file.
    pub fn mark(&mut self, attempt: &Attempt, landed: &Landed) -> Result<(), Trouble> {
        let markers = &self.setup.route.publishing.markers;
        let Some(markers) = markers.as_ref() else {
            return Ok(());
        };
        let Some(marker) = markers.marker(&landed.name) else {
            warn!(self.setup.log, "no marker"; "file" => escape(&landed.name).into_owned(),
                "error" => "its name would be too long", "next" => "the file counts as delivered");
            return Ok(());
        };
        // The file is there and only its marker may be missing: that stands in the journal first.
        Trouble::unless_journalled(&self.setup.handle, attempt)?;
        if let Err(trouble) = self.store_empty(&marker) {
            warn!(self.setup.log, "the marker failed"; "file" => escape(&landed.name).into_owned(),
                "marker" => escape(&marker).into_owned(),
                "error" => escape(&trouble.to_string()).into_owned(),
                "next" => "the file stands and is not sent again; the marker is tried again");
            return Err(trouble);
        }
        attempt.enter(Stage::Marked);
        failpoint::at("marked");
        debug!(self.setup.log, "marker stored"; "marker" => escape(&marker).into_owned());
        Ok(())
    }

    /// Stores an empty file. It cannot be torn, so it needs no temp name, and a second one does no
    /// harm; what it belongs to stands in the journal.
    pub(super) fn store_empty(&mut self, name: &str) -> Result<(), Trouble> {
        let unmade = |e: io::Error| Trouble::Source(format!("making an empty file: {e}"));
        let made = memfd_create("ftpulse-marker", MemfdFlags::CLOEXEC);
        let mut empty = made.map(File::from).map_err(|e| unmade(e.into()))?;
        let stamp = crate::spool::stamp_of(&empty).map_err(unmade)?;
        let of = Key {
            route: self.setup.route.name.as_str().into(),
            path: name.into(),
        };
        let attempt = Attempt::new(name.to_owned(), of, Journal::none());
        // An empty file is told by its 226 alone; whoever waits for it may have taken it already.
        let told = |_: &mut Self, _: &File, _, _: &Attempt, _| Ok(());
        transfer::put_whole(self, &mut empty, stamp, &attempt, 0, told).map(drop)
    }
}
