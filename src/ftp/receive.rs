//! Receives one file: data connection, RETR (after REST where a part is here already), the bytes,
//! the completion reply; and asks for the version that the server has. It promises that a returned
//! `Ok` means: the server sent exactly the bytes that it listed, all of them were written, and it
//! said 226 (or 250).

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use slog::warn;
use suppaftp::Status;

use super::conflict::Found;
use super::listing::{self, Kind};
use super::pace::Pace;
use super::transfer::break_off;
use super::{Quirk, Session, Trouble, hash, stream};
use crate::config::Verify;
use crate::core::arrivals::Version;
use crate::core::names::Phase;
use crate::failpoint;
use crate::spool;
use crate::sys::fence::Which;

/// Bytes read in one call: a safe point comes after each.
const BUFFER: usize = 256 * 1024;
/// Bytes written between two syncs: the last sync of a large file has little left to do, so that a
/// slow disk is a slow transfer and no local file operation that stands still.
const SYNC: u64 = 8 << 20;

/// Receives the file of `size` bytes at `path` below the remote folder into `into`, which has the
/// `from` bytes before and stands behind them.
pub fn receive(
    session: &mut Session,
    path: &str,
    size: u64,
    from: u64,
    into: &mut File,
) -> Result<(), Trouble> {
    let wired = session.wire(path)?;
    let setup = session.setup.clone();
    let handle = &setup.handle;
    let position = usize::try_from(from).unwrap_or(usize::MAX);
    // Sent with the next data command.
    session
        .client
        .resume_transfer(position)
        .map_err(|e| Trouble::from_ftp(handle, "REST", e))?;
    let mut stream = session.begin_data("RETR", &format!("RETR {wired}"))?;
    handle.begin_receiving(setup.timers.transfer_get);
    let mut pace = Pace::new(&setup.limit);
    let mut buffer = vec![0u8; BUFFER];
    let (mut at, mut synced) = (from, from);
    let moved = loop {
        if let Err(stop) = handle.check() {
            break Err(stop.into());
        }
        let want = match pace.allow_receiving(handle, BUFFER) {
            Ok(want) => want,
            Err(trouble) => break Err(trouble),
        };
        match stream.read(&mut buffer[..want]) {
            // The dead descriptor of an interrupt reads as an end, too.
            Ok(0) => break handle.check().map_err(Trouble::from),
            // It has grown since it was listed.
            Ok(read) if at + read as u64 > size => break Err(Trouble::Changed),
            Ok(read) => {
                pace.sent(read);
                at += read as u64;
                let mut written = into.write_all(&buffer[..read]);
                if written.is_ok() && at - synced >= SYNC {
                    written = into.sync_data();
                    synced = at;
                }
                if let Err(error) = written {
                    break Err(Trouble::Source(format!("writing the file failed: {error}")));
                }
                handle.moved(read as u64);
                failpoint::at("bytes-received");
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // Some servers end a secured connection without a word; nothing is missing.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof && at == size => {
                break handle.check().map_err(Trouble::from);
            }
            Err(e) => break Err(Trouble::from_io(handle, "receiving", &e)),
        }
    };
    if let Err(trouble) = moved {
        return Err(break_off(session, stream, "RETR", trouble));
    }
    if let Ok(wire) = stream::of(&mut stream) {
        wire.say_goodbye();
    }
    // The keeper would hold the connection open, and the server waits for its end.
    handle.fence.release(Which::Data);
    handle.begin(Phase::FinalReply, Some(setup.timers.reply));
    let finished = stream.finish();
    handle.ack();
    finished.map_err(|e| Trouble::from_ftp(handle, "RETR", e))?;
    Trouble::unless_stopped(handle, ())?;
    if at == size {
        Ok(())
    } else {
        Err(Trouble::Incomplete {
            received: at,
            listed: size,
        })
    }
}

impl Session {
    /// The version of a file below the remote folder that the server has now, as far as it tells;
    /// `None` if there is no such file.
    pub fn version_of(&mut self, path: &str) -> Result<Option<Version>, Trouble> {
        if !self.quirks().has(Quirk::NoMlsd) {
            match self.facts_of(path) {
                // It can list them and yet not tell of one: asked in the older way.
                Err(Trouble::Refused {
                    code: 500..=504, ..
                })
                | Ok(None) => {}
                told => return told,
            }
        }
        let size = match self.look(path)? {
            Found::Absent => return Ok(None),
            Found::There(size) => size,
        };
        let modified = self.modified_seconds(path)?;
        let size = size.ok_or_else(|| {
            Trouble::Conflict("the server does not tell the sizes of files (no SIZE)".into())
        })?;
        Ok(Some(Version { size, modified }))
    }

    /// When a file below the remote folder was modified, seconds since the Unix epoch; `None` if the
    /// server does not say.
    pub fn modified_seconds(&mut self, path: &str) -> Result<Option<i64>, Trouble> {
        let wired = self.wire(path)?;
        Ok(self.modified(&wired)?.and_then(listing::seconds))
    }

    /// By MLST, as the listing by MLSD told it. `Ok(None)`: no clear answer.
    fn facts_of(&mut self, path: &str) -> Result<Option<Version>, Trouble> {
        let line = format!("MLST {}", self.wire(path)?);
        let expected = [Status::RequestedFileActionOk];
        let told = self.step("MLST", |client| client.custom_command(line, &expected));
        let reply = match told {
            Err(Trouble::Refused { code: 550, .. }) => return Ok(None),
            told => told?,
        };
        let mut lines = reply.body.split(|byte| *byte == b'\n');
        let entry = lines.find_map(listing::parse_facts);
        let told = entry.filter(|entry| entry.kind == Kind::File);
        Ok(told.and_then(|entry| {
            let (size, modified) = (entry.size?, entry.modified);
            Some(Version { size, modified })
        }))
    }

    /// Whether the route wants more than the completion reply.
    pub fn verifies(&self) -> bool {
        self.setup.route.verify != Verify::None
    }

    /// Compares what was received with what the server has: its hash, where the route wants that, or
    /// where it was put together from parts and the server can.
    pub fn verify_received(
        &mut self,
        path: &str,
        file: &File,
        resumed: bool,
    ) -> Result<(), Trouble> {
        let wanted = self.setup.route.verify == Verify::Hash;
        if !wanted && !resumed {
            return Ok(());
        }
        let stamp = spool::stamp_of(file)
            .map_err(|e| Trouble::Source(format!("looking at the temp file failed: {e}")))?;
        match hash::compare(self, file, stamp, path) {
            Err(Trouble::NoHash(_)) if !wanted => Ok(()),
            Err(Trouble::Refused { code, text, .. }) if code != 421 && !wanted => {
                self.hash = Some(Err(text.clone()));
                warn!(self.setup.log, "the server tells no hash after all"; "error" => text,
                    "next" => "the sizes are equal; the resumed file counts as whole");
                Ok(())
            }
            compared => compared,
        }
    }

    /// Takes a file that was downloaded away from below the remote folder.
    pub fn delete(&mut self, path: &str) -> Result<(), Trouble> {
        let wired = self.wire(path)?;
        self.step("DELE", |client| client.rm(wired))
    }

    /// Moves a downloaded file to that path on the server, or a numbered one where it is taken;
    /// folders are made. Answers where it is.
    pub fn archive(&mut self, path: &str, place: &str) -> Result<String, Trouble> {
        let name = self.free_name(place)?;
        match self.rename(path, &name) {
            // Its folder may be missing: some servers call that a passing trouble.
            Err(Trouble::Refused {
                verb: "RNTO",
                code: 450..=451 | 500..=599,
                ..
            }) => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let folder = self.wire(folder)?;
                self.make_folders(&folder)?;
                self.rename(path, &name)?;
            }
            other => other?,
        }
        Ok(name)
    }

    /// Most servers replace what stands under the name of an RNTO.
    fn free_name(&mut self, place: &str) -> Result<String, Trouble> {
        for n in 0..super::conflict::NUMBERS {
            let name = crate::core::naming::numbered(place, n);
            if self.look(&name)? == Found::Absent {
                return Ok(name);
            }
        }
        Err(Trouble::Conflict(
            "the archive has no free name left for it".into(),
        ))
    }

    /// The remote folder as the server calls it.
    pub fn remote_folder(&mut self) -> Result<Option<String>, Trouble> {
        match self.current_folder() {
            Ok(folder) => Ok(Some(folder)),
            Err(Trouble::Refused { code, .. }) if code != 421 => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}
