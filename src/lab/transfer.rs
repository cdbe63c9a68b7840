//! The transfers: STOR with the faults of the middle of a file, RETR, listings. An upload is
//! written as it arrives, so a partial file is visible under its name, as on real servers.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use super::data::{DataConn, Found};
use super::events::{Event, TransferEnd};
use super::fault::{Kind, Step};
use super::listing::{self, Style};
use super::paths::VPath;
use super::script::Slot;
use super::session::{End, Flow, Session, Strike};
use super::wait::{Term, wait};
use crate::clock::{Mono, mono, unix};

const CHUNK: usize = 64 * 1024;
/// A trickling reader takes its share this often.
const TRICKLE_PAUSE: Duration = Duration::from_millis(100);

/// How the receiving of an upload ended.
enum Received {
    /// The client's clean end; the file is complete.
    Whole,
    /// The data connection failed.
    Broken,
    /// The file could not be written.
    DiskFull,
    /// A fault ended it: this code is the reply.
    Faulted(u16),
}

/// A reader's speed limit.
struct Pace {
    per_second: u32,
    since: Mono,
    read: u64,
    term: Term,
}

impl Pace {
    /// Bytes that may be read now.
    fn due(&self) -> u64 {
        let allowed = (mono() - self.since).as_secs_f64() * f64::from(self.per_second);
        (allowed as u64).saturating_sub(self.read)
    }
}

/// An upload under way.
struct Upload {
    data: DataConn,
    file: File,
    path: String,
    /// Mid-file faults not reached yet, by their byte.
    faults: VecDeque<(u64, Arc<Slot>)>,
    pace: Option<Pace>,
}

impl Upload {
    /// Writes what has been received so far.
    fn take_received(&mut self) -> Flow {
        let mut buf = vec![0; CHUNK];
        while let Some(n) = self.data.read_received(&mut buf)? {
            self.file.write_all(&buf[..n])?;
        }
        Ok(())
    }
}

impl Session {
    pub(super) fn stor(&mut self, path: &VPath) -> Flow {
        let name = path.to_string();
        let mut dead_path = None;
        if let Some(strike) = self.strike_at(Step::Stor, &name)? {
            match strike.kind {
                Kind::DeadPathAt(_) => dead_path = Some(strike.term),
                Kind::Garbage(_) => return self.garbage(),
                Kind::StorReply(code) => return self.refuse(code),
                _ => self.hold_or_spoil(strike)?,
            }
        }
        let restart = std::mem::take(&mut self.restart);
        if self.passive.is_none() {
            return self.reply(425, "Use EPSV or PASV first.");
        }
        let opened = self.shared.root.create(path, restart == 0);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return self.reply(553, &format!("Could not create the file: {error}.")),
        };
        if restart > 0 && file.seek(SeekFrom::Start(restart)).is_err() {
            return self.reply(554, "Cannot restart there.");
        }
        self.publish(Event::Storing {
            session: self.id,
            path: name.clone(),
        });
        let Some(mut data) = self.accept_data()? else {
            return self.reply(425, "No data connection came.");
        };
        if let Some(term) = dead_path {
            self.lose_path(&term, Some(&mut data))?;
        }
        let faults = VecDeque::from(self.shared.armed.mid_file(&name));
        let stops = |kind: &Kind| matches!(kind, Kind::StopReading { .. });
        if faults.iter().any(|(_, slot)| stops(&slot.fault.kind)) {
            data.hold_window();
        }
        self.reply(150, "Ok to send data.")?;
        let upload = Upload {
            data,
            file,
            path: name.clone(),
            faults,
            pace: None,
        };
        self.receive(upload, &name)
    }

    fn refuse(&mut self, code: u16) -> Flow {
        let text = match code {
            421 => "Closing the control connection.",
            450 => "The file is busy.",
            452 => "Insufficient storage space.",
            550 => "Permission denied.",
            552 => "Quota exceeded.",
            553 => "File name not allowed.",
            _ => "No.",
        };
        self.reply(code, text)?;
        if code == 421 { Err(End::Quit) } else { Ok(()) }
    }

    /// Takes the data port and waits for the client's connection to it.
    fn accept_data(&mut self) -> Flow<Option<DataConn>> {
        self.unblock_passive()?;
        let Some(passive) = self.passive.take() else {
            return Ok(None);
        };
        let Some(stream) = passive.accept(&self.shared, &self.control)? else {
            return Ok(None);
        };
        DataConn::new(stream, Arc::clone(&self.shared), self.id).map(Some)
    }

    fn receive(&mut self, mut upload: Upload, name: &str) -> Flow {
        let mut buf = vec![0; CHUNK];
        loop {
            if let Some(strike) = self.due(&mut upload)? {
                match self.mid_file(strike, upload)? {
                    Ok(going_on) => upload = going_on,
                    Err(code) => return self.finish_upload(Received::Faulted(code), None, name),
                }
                continue;
            }
            let room = self.room(&mut upload)?;
            if room == 0 {
                continue;
            }
            let end = match upload.data.read(&mut buf[..room])? {
                Found::Bytes(n) => {
                    if let Some(pace) = &mut upload.pace {
                        pace.read += n as u64;
                    }
                    match upload.file.write_all(&buf[..n]) {
                        Ok(()) => continue,
                        Err(_) => Received::DiskFull,
                    }
                }
                Found::End(TransferEnd::Eof) => Received::Whole,
                Found::End(_) => Received::Broken,
            };
            return self.finish_upload(end, Some(upload), name);
        }
    }

    /// The mid-file fault that strikes at this byte, if any.
    fn due(&self, upload: &mut Upload) -> Flow<Option<Strike>> {
        while upload
            .faults
            .front()
            .is_some_and(|(after, _)| *after <= upload.data.bytes)
        {
            let Some((_, slot)) = upload.faults.pop_front() else {
                break;
            };
            if slot.take(&upload.path) {
                let (kind, until) = (slot.fault.kind, slot.fault.until);
                return self.struck(kind, until, &upload.path).map(Some);
            }
        }
        Ok(None)
    }

    /// How much may be read now; waits while a slow reader may read nothing.
    fn room(&self, upload: &mut Upload) -> Flow<usize> {
        let next = upload
            .faults
            .front()
            .map_or(u64::MAX, |(after, _)| after - upload.data.bytes);
        let mut room = next.min(CHUNK as u64);
        if upload.pace.as_ref().is_some_and(|pace| pace.term.over()) {
            upload.pace = None;
        }
        if let Some(pace) = &upload.pace {
            if pace.due() == 0 {
                let end = mono() + TRICKLE_PAUSE;
                let end = pace.term.deadline().map_or(end, |term| term.min(end));
                let mut fds = vec![self.shared.stop.watch()];
                fds.extend(pace.term.watch());
                wait(&mut fds, Some(end))?;
                if self.shared.stop.is_open() {
                    return Err(End::Stopped);
                }
            }
            room = room.min(pace.due());
        }
        Ok(usize::try_from(room).unwrap_or(CHUNK))
    }

    /// Carries out a fault of the middle of a file: the upload goes on, or ends with a code.
    fn mid_file(&mut self, strike: Strike, mut upload: Upload) -> Flow<Result<Upload, u16>> {
        let Strike { kind, term } = strike;
        match kind {
            Kind::StopReading { .. } => self.freeze(&term, Some(&mut upload.data))?,
            Kind::DeadPath { .. } => {
                self.deafen(Some(&upload.data))?;
                // The window opens again: the client sends into nothing, and does not just wait.
                upload.take_received()?;
                self.freeze_deaf(&term, Some(&mut upload.data))?;
            }
            Kind::Trickle {
                bytes_per_second, ..
            } => {
                let per_second = bytes_per_second.max(1);
                upload.pace = Some(Pace {
                    per_second,
                    since: mono(),
                    read: 0,
                    term,
                });
            }
            Kind::Reset { silent, .. } => {
                upload.data.reset();
                return self.after_break(silent, &term);
            }
            Kind::Close { silent, .. } => {
                upload.data.close();
                return self.after_break(silent, &term);
            }
            Kind::MidReply { code, .. } => {
                upload.data.close();
                return Ok(Err(code));
            }
            Kind::ControlDrop { .. } => return self.drop_control(upload),
            _ => {}
        }
        Ok(Ok(upload))
    }

    fn after_break(&mut self, silent: bool, term: &Term) -> Flow<Result<Upload, u16>> {
        if silent {
            self.freeze(term, None)?;
        }
        Ok(Err(426))
    }

    /// Closes control, then reads the data connection to its end into nowhere.
    fn drop_control(&mut self, mut upload: Upload) -> Flow<Result<Upload, u16>> {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        self.mute = true;
        let mut buf = vec![0; CHUNK];
        while let Found::Bytes(_) = upload.data.read(&mut buf)? {}
        Err(End::Gone)
    }

    fn finish_upload(&mut self, end: Received, upload: Option<Upload>, name: &str) -> Flow {
        let (code, text) = match end {
            Received::Whole => (226, "Transfer complete."),
            Received::Broken => (426, "Connection closed; transfer aborted."),
            Received::DiskFull => (452, "The file could not be written."),
            Received::Faulted(452) => (452, "Insufficient storage space."),
            Received::Faulted(552) => (552, "Quota exceeded."),
            Received::Faulted(code) => (code, "Transfer aborted."),
        };
        let whole = matches!(end, Received::Whole);
        let mut data = None;
        if let Some(upload) = upload {
            let bytes = upload.file.metadata().map_or(0, |meta| meta.len());
            drop(upload.file);
            if whole {
                let path = name.to_owned();
                self.publish(Event::Stored {
                    session: self.id,
                    path,
                    bytes,
                });
            }
            data = Some(upload.data);
        }
        if whole && !self.final_fault(name, &mut data)? {
            return Ok(());
        }
        drop(data);
        self.reply(code, text)
    }

    /// The faults of the final reply; false when the reply is already given. The data connection
    /// stays open while the session is frozen, as a stopped process would leave it.
    fn final_fault(&mut self, name: &str, data: &mut Option<DataConn>) -> Flow<bool> {
        let Some(strike) = self.strike_at(Step::Final, name)? else {
            return Ok(true);
        };
        match strike.kind {
            Kind::Garbage(_) => {
                self.garbage()?;
                return Ok(false);
            }
            Kind::NoReply(_) => self.freeze(&strike.term, data.as_mut())?,
            Kind::DeadPathAt(_) => self.lose_path(&strike.term, data.as_mut())?,
            Kind::Late226(time) => self.freeze(&Term::At(mono() + time), data.as_mut())?,
            _ => self.hold_or_spoil(strike)?,
        }
        Ok(true)
    }

    pub(super) fn retr(&mut self, path: &VPath) -> Flow {
        let restart = std::mem::take(&mut self.restart);
        if self.passive.is_none() {
            return self.reply(425, "Use EPSV or PASV first.");
        }
        let opened = self.shared.root.read(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return self.reply(550, &format!("Cannot read the file: {error}.")),
        };
        if file.seek(SeekFrom::Start(restart)).is_err() {
            return self.reply(554, "Cannot restart there.");
        }
        let Some(mut data) = self.accept_data()? else {
            return self.reply(425, "No data connection came.");
        };
        self.reply(150, "Here comes the file.")?;
        let mut buf = vec![0; CHUNK];
        loop {
            match file.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    if data.write_all(&buf[..n])?.is_some() {
                        return self.reply(426, "Connection closed; transfer aborted.");
                    }
                }
                Err(_) => {
                    data.reset();
                    return self.reply(451, "The file could not be read.");
                }
            }
        }
        data.finish();
        self.reply(226, "Transfer complete.")
    }

    pub(super) fn list(&mut self, style: Style, path: &VPath) -> Flow {
        if self.passive.is_none() {
            return self.reply(425, "Use EPSV or PASV first.");
        }
        let entries = match self.shared.root.list(path) {
            Ok(entries) => entries,
            Err(error) => return self.reply(550, &format!("Cannot list it: {error}.")),
        };
        let Some(mut data) = self.accept_data()? else {
            return self.reply(425, "No data connection came.");
        };
        self.reply(150, "Here comes the listing.")?;
        let text = listing::text(style, &entries, unix() as i64);
        if data.write_all(&text)?.is_some() {
            return self.reply(426, "Connection closed; transfer aborted.");
        }
        data.finish();
        self.reply(226, "Listing sent.")
    }
}
