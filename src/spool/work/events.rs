//! What the watch tells: each event costs a look at one name, never a scan of the spool.

use rustix::fs::FileType;
use slog::debug;

use super::Work;
use crate::spool::scan::what_it_is;
use crate::spool::settle::Sight;
use crate::spool::source::facts_of;
use crate::spool::taking::check_name;
use crate::spool::watch::{FsEvent, Kind};
use crate::sys::file;

impl Work {
    /// Events were lost: a scan must tell.
    pub fn events_lost(&mut self) {
        debug!(self.log, "file events were lost"; "next" => "the spool is scanned");
        self.folder_moved = true;
        self.scan_soon();
    }

    /// Takes what the watch told. Costs a look at that one name, never a scan of the spool.
    pub fn event(&mut self, event: FsEvent) {
        let FsEvent::Below(kind, path) = event else {
            // Where it is still the same folder, its rights may have changed.
            self.folder_moved = true;
            return self.scan_soon();
        };
        if self.route.get.is_some() {
            // It was put there to be taken by somebody else.
            return;
        }
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let rel = match check_name(bytes) {
            Ok(rel) => rel,
            Err(reason) => return self.say(bytes, reason),
        };
        let sight = if kind == Kind::MovedIn {
            Sight::MovedIn
        } else {
            Sight::Seen
        };
        if kind == Kind::Gone {
            self.gone(rel);
        }
        self.look_at(rel, sight, kind != Kind::Seen);
        if let Some(marked) = self.taking.marked_by(rel) {
            self.look_at(marked, Sight::Seen, false);
        }
        self.state_changed = true;
    }

    pub(super) fn gone(&mut self, rel: &str) {
        self.waiting.remove(rel);
        self.settle.forget(rel);
        self.forget_watch(rel);
    }

    pub(super) fn forget_watch(&mut self, rel: &str) {
        if let Some(watch) = &mut self.folder.watch {
            watch.forget(rel);
        }
    }

    /// Looks at one name and takes in what stands there. A folder is scanned if it is new, that
    /// is `moved` here or not watched yet.
    pub(super) fn look_at(&mut self, rel: &str, sight: Sight, moved: bool) {
        let Some(root) = self.folder.root() else {
            return;
        };
        let Ok(stat) = file::stat_beneath(root, rel) else {
            return self.gone(rel);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if self.taking.takes(rel) => {
                let now = (self.clock.now)();
                self.take_in(rel, facts_of(&stat), sight, now);
            }
            FileType::RegularFile => {}
            FileType::Directory if self.taking.enters_all(rel) => {
                let known = self
                    .folder
                    .watch
                    .as_ref()
                    .is_some_and(|watch| watch.has(rel));
                if moved || !known {
                    self.forget_watch(rel);
                    self.scan_below(rel);
                }
            }
            FileType::Directory => {}
            other if self.taking.takes(rel) => self.say(rel.as_bytes(), what_it_is(other)),
            _ => {}
        }
    }
}
