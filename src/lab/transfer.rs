//! STOR, and what both ways of a file share: the faults of its middle and of its final reply. An
//! upload is written as it arrives, so a partial file is visible under its name, as on real
//! servers.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use super::data::{DataConn, Found};
use super::events::{Event, TransferEnd};
use super::fault::{Kind, Way};
use super::paths::VPath;
use super::quirk::Quirk;
use super::script::Slot;
use super::session::{End, Flow, Session, Strike, Turn};
use super::step::Step;
use super::wait::{Term, wait};
use crate::clock::{Mono, mono};

pub(super) const CHUNK: usize = 64 * 1024;
/// A trickling peer takes its share this often.
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

/// A speed limit.
struct Pace {
    per_second: u32,
    since: Mono,
    moved: u64,
    term: Term,
}

impl Pace {
    /// Bytes that may be moved now.
    fn due(&self) -> u64 {
        let allowed = (mono() - self.since).as_secs_f64() * f64::from(self.per_second);
        (allowed as u64).saturating_sub(self.moved)
    }
}

/// A file under way.
pub(super) struct Transfer {
    way: Way,
    pub data: DataConn,
    pub file: File,
    path: String,
    /// Mid-file faults not reached yet, by their byte.
    faults: VecDeque<(u64, Arc<Slot>)>,
    pace: Option<Pace>,
}

impl Transfer {
    pub(super) fn new(
        way: Way,
        data: DataConn,
        file: File,
        path: String,
        faults: Vec<(u64, Arc<Slot>)>,
    ) -> Self {
        Self {
            way,
            data,
            file,
            path,
            faults: faults.into(),
            pace: None,
        }
    }

    /// So many bytes were moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.moved += bytes as u64;
        }
    }

    /// Writes what has been received of an upload so far.
    fn take_received(&mut self) -> Flow {
        if self.way == Way::Down {
            return Ok(());
        }
        let mut buf = vec![0; CHUNK];
        while let Some(n) = self.data.read_received(&mut buf)? {
            self.file.write_all(&buf[..n])?;
        }
        Ok(())
    }
}

impl Session {
    pub(super) fn stor(&mut self, path: &VPath, strike: Option<Strike>) -> Flow {
        let restart = std::mem::take(&mut self.restart);
        if !self.may_transfer()? {
            return Ok(());
        }
        let opened = self.shared.root.create(path, restart == 0);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return self.reply(553, &format!("Could not create the file: {error}.")),
        };
        if restart > 0 && file.seek(SeekFrom::Start(restart)).is_err() {
            return self.reply(554, "Cannot restart there.");
        }
        let name = path.to_string();
        self.publish(Event::Storing {
            session: self.id,
            path: name.clone(),
        });
        let mut faults = Vec::new();
        let opened = self.open_data(&name, "Ok to send data.", |session, data| {
            session.lose_path_at(strike, data)?;
            faults = session.shared.armed.mid_file(&name, Way::Up);
            let stops = |kind: &Kind| matches!(kind, Kind::StopReading { .. });
            if faults.iter().any(|(_, slot)| stops(&slot.fault.kind)) {
                data.hold_window();
            }
            Ok(())
        })?;
        let Some(data) = opened else {
            return Ok(());
        };
        if self.shared.character.has(&Quirk::EarlyFinal) {
            self.reply(226, "It will be well.")?;
        }
        self.receive(Transfer::new(Way::Up, data, file, name, faults))
    }

    /// The path dies with the data connection, if that is the fault of this step.
    pub(super) fn lose_path_at(&mut self, strike: Option<Strike>, data: &mut DataConn) -> Flow {
        match strike {
            Some(strike) => self.lose_path(&strike.term, Some(data)),
            None => Ok(()),
        }
    }

    fn receive(&mut self, mut upload: Transfer) -> Flow {
        let mut buf = vec![0; CHUNK];
        loop {
            if let Some(strike) = self.due(&mut upload)? {
                match self.mid_file(strike, upload)? {
                    Ok(going_on) => upload = going_on,
                    Err(code) => return self.finish_upload(Received::Faulted(code), None),
                }
                continue;
            }
            let room = self.room(&mut upload)?;
            if room == 0 {
                continue;
            }
            let end = match upload.data.read(&mut buf[..room])? {
                Found::Bytes(n) => {
                    upload.moved(n);
                    match upload.file.write_all(&buf[..n]) {
                        Ok(()) => continue,
                        Err(_) => Received::DiskFull,
                    }
                }
                Found::End(TransferEnd::Eof) => Received::Whole,
                Found::End(_) => Received::Broken,
            };
            return self.finish_upload(end, Some(upload));
        }
    }

    /// The mid-file fault that strikes at this byte, if any.
    pub(super) fn due(&self, transfer: &mut Transfer) -> Flow<Option<Strike>> {
        while transfer
            .faults
            .front()
            .is_some_and(|(after, _)| *after <= transfer.data.bytes)
        {
            let Some((_, slot)) = transfer.faults.pop_front() else {
                break;
            };
            if slot.take(&transfer.path) {
                let (kind, until) = (slot.fault.kind, slot.fault.until);
                return self.struck(kind, until, &transfer.path).map(Some);
            }
        }
        Ok(None)
    }

    /// How much may be moved now; waits while a slow server may move nothing.
    pub(super) fn room(&self, transfer: &mut Transfer) -> Flow<usize> {
        let next = transfer
            .faults
            .front()
            .map_or(u64::MAX, |(after, _)| after - transfer.data.bytes);
        let mut room = next.min(CHUNK as u64);
        if transfer.pace.as_ref().is_some_and(|pace| pace.term.over()) {
            transfer.pace = None;
        }
        if let Some(pace) = &transfer.pace {
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

    /// Carries out a fault of the middle of a file: the transfer goes on, or ends with a code.
    pub(super) fn mid_file(
        &mut self,
        strike: Strike,
        mut transfer: Transfer,
    ) -> Flow<Result<Transfer, u16>> {
        let Strike { kind, term } = strike;
        match kind {
            Kind::StopReading { .. } | Kind::StopSending { .. } => {
                self.freeze(&term, Some(&mut transfer.data))?;
            }
            Kind::DeadPath { .. } => {
                self.deafen(Some(&transfer.data))?;
                // The window opens again: the client sends into nothing, and does not just wait.
                transfer.take_received()?;
                self.freeze_deaf(&term, Some(&mut transfer.data))?;
            }
            Kind::Trickle {
                bytes_per_second, ..
            } => {
                let per_second = bytes_per_second.max(1);
                transfer.pace = Some(Pace {
                    per_second,
                    since: mono(),
                    moved: 0,
                    term,
                });
            }
            Kind::Reset { silent, .. } => {
                transfer.data.reset();
                return self.after_break(silent, &term);
            }
            Kind::Close { silent, .. } => {
                transfer.data.close()?;
                return self.after_break(silent, &term);
            }
            Kind::MidReply { code, .. } => {
                transfer.data.close()?;
                return Ok(Err(code));
            }
            Kind::ControlDrop { .. } => return self.drop_control(transfer),
            _ => {}
        }
        Ok(Ok(transfer))
    }

    fn after_break(&mut self, silent: bool, term: &Term) -> Flow<Result<Transfer, u16>> {
        if silent {
            self.freeze(term, None)?;
        }
        Ok(Err(426))
    }

    /// Closes control, then reads the data connection to its end into nowhere.
    fn drop_control(&mut self, mut transfer: Transfer) -> Flow<Result<Transfer, u16>> {
        self.control.hang_up();
        self.mute = true;
        let mut buf = vec![0; CHUNK];
        while let Found::Bytes(_) = transfer.data.read(&mut buf)? {}
        Err(End::Gone)
    }

    fn finish_upload(&mut self, end: Received, upload: Option<Transfer>) -> Flow {
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
            let Transfer { file, path, .. } = upload;
            let bytes = file.metadata().map_or(0, |meta| meta.len());
            drop(file);
            data = Some(upload.data);
            if whole {
                self.publish(Event::Stored {
                    session: self.id,
                    path: path.clone(),
                    bytes,
                });
                self.close_tls(&path, &mut data)?;
                if !self.final_fault(Step::Final, &path, &mut data)? {
                    return Ok(());
                }
            }
        }
        drop(data);
        self.transferred(code, text)
    }

    /// Answers the client's close_notify.
    fn close_tls(&mut self, path: &str, data: &mut Option<DataConn>) -> Flow {
        let Some(data) = data.as_mut().filter(|data| data.stream.is_tls()) else {
            return Ok(());
        };
        if let Some(strike) = self.strike(path, |kind| *kind == Kind::NoTlsClose)? {
            self.freeze(&strike.term, Some(data))?;
        }
        data.close_notify()
    }

    /// The final reply of a file.
    pub(super) fn transferred(&mut self, code: u16, text: &str) -> Flow {
        if !(code == 226 && self.shared.character.has(&Quirk::EarlyFinal)) {
            self.reply(code, text)?;
        }
        if self.shared.character.has(&Quirk::OneFile) {
            return self.refuse(421);
        }
        Ok(())
    }

    /// The faults of the final reply; false when the reply is already given. The data connection
    /// stays open while the session is frozen, as a stopped process would leave it.
    pub(super) fn final_fault(
        &mut self,
        step: Step,
        name: &str,
        data: &mut Option<DataConn>,
    ) -> Flow<bool> {
        let Some(strike) = self.strike_at(step, name)? else {
            return Ok(true);
        };
        match strike.kind {
            Kind::NoReply(_) => self.freeze(&strike.term, data.as_mut())?,
            Kind::DeadPathAt(_) => self.lose_path(&strike.term, data.as_mut())?,
            Kind::Late226(time) => self.freeze(&Term::At(mono() + time), data.as_mut())?,
            _ => return Ok(matches!(self.carry_out(Some(strike))?, Turn::On(_))),
        }
        Ok(true)
    }
}
