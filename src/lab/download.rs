//! Downloads and listings: RETR with the faults of the middle of a file, LIST, NLST, MLSD.

use std::io::{Read, Seek, SeekFrom};

use super::data::DataConn;
use super::fault::{Kind, Way};
use super::fs::Meta;
use super::listing::{self, Style};
use super::paths::VPath;
use super::quirk::Quirk;
use super::session::{Flow, Session, Strike};
use super::step::Step;
use super::transfer::{CHUNK, Transfer};
use crate::clock::unix;

/// Names that a client must not follow: out of the folder, into another one, or no names at all.
const HOSTILE: [&[u8]; 9] = [
    b"../x", b"../../x", b"/tmp/x", b"a/b", b"a\\b", b"..\\x", b".", b"..", b"nul\0x",
];

impl Session {
    pub(super) fn retr(&mut self, path: &VPath, strike: Option<Strike>) -> Flow {
        let restart = std::mem::take(&mut self.restart);
        if !self.may_transfer()? {
            return Ok(());
        }
        let opened = self.shared.root.read(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return self.reply(550, &format!("Cannot read the file: {error}.")),
        };
        if file.seek(SeekFrom::Start(restart)).is_err() {
            return self.reply(554, "Cannot restart there.");
        }
        let name = path.to_string();
        let opened = self.open_data(&name, "Here comes the file.", |session, data| {
            session.lose_path_at(strike, data)
        })?;
        let Some(data) = opened else {
            return Ok(());
        };
        let faults = self.shared.armed.mid_file(&name, Way::Down);
        let transfer = Transfer::new(Way::Down, data, file, name.clone(), faults);
        match self.send_file(transfer)? {
            Ok(data) => self.finish_download(data, &name),
            Err(code) => self.reply(code, "Transfer aborted."),
        }
    }

    /// Sends the file; the error is the code of its bad end.
    fn send_file(&mut self, mut transfer: Transfer) -> Flow<Result<DataConn, u16>> {
        let mut buf = vec![0; CHUNK];
        loop {
            if let Some(strike) = self.due(&mut transfer)? {
                if let Kind::Short { .. } = strike.kind {
                    return Ok(Ok(transfer.data));
                }
                match self.mid_file(strike, transfer)? {
                    Ok(going_on) => transfer = going_on,
                    Err(code) => return Ok(Err(code)),
                }
                continue;
            }
            let room = self.room(&mut transfer)?;
            if room == 0 {
                continue;
            }
            match transfer.file.read(&mut buf[..room]) {
                Ok(0) => return Ok(Ok(transfer.data)),
                Ok(n) => {
                    if transfer.data.write_all(&buf[..n])?.is_some() {
                        return Ok(Err(426));
                    }
                    transfer.moved(n);
                }
                Err(_) => {
                    transfer.data.reset();
                    return Ok(Err(451));
                }
            }
        }
    }

    fn finish_download(&mut self, mut data: DataConn, name: &str) -> Flow {
        data.finish()?;
        let mut data = Some(data);
        if self.final_fault(Step::Final, name, &mut data)? {
            self.done = data;
            self.transferred(226, "Transfer complete.")?;
        }
        Ok(())
    }

    pub(super) fn list(&mut self, style: Style, path: &VPath, strike: Option<Strike>) -> Flow {
        if !self.may_transfer()? {
            return Ok(());
        }
        let mut entries = match self.shared.root.list(path) {
            Ok(entries) => entries,
            Err(error) => return self.reply(550, &format!("Cannot list it: {error}.")),
        };
        let character = &self.shared.character;
        if character.has(&Quirk::HidesDotFiles) {
            entries.retain(|(name, _)| !name.starts_with(b"."));
        }
        if entries.is_empty() && character.has(&Quirk::NoEmptyList) {
            return self.reply(550, "No files found.");
        }
        let name = path.to_string();
        if self
            .strike(&name, |kind| *kind == Kind::HostileNames)?
            .is_some()
        {
            let meta = Meta {
                folder: false,
                size: 7,
                modified: 0,
            };
            entries.extend(HOSTILE.map(|name| (name.to_vec(), meta)));
        }
        let character = &self.shared.character;
        let shape = listing::Shape {
            style,
            dos: character.has(&Quirk::DosList),
            parents: character.has(&Quirk::ListsParents),
        };
        let text = listing::text(shape, &entries, unix() as i64);
        let opened = self.open_data(&name, "Here comes the listing.", |session, data| {
            session.lose_path_at(strike, data)
        })?;
        let Some(mut data) = opened else {
            return Ok(());
        };
        let mut rest = text.as_slice();
        if let Some(strike) = self.strike(&name, |kind| *kind == Kind::StopListing)? {
            let half;
            (half, rest) = text.split_at(text.len() / 2);
            if data.write_all(half)?.is_none() {
                self.freeze(&strike.term, Some(&mut data))?;
            }
        }
        if data.write_all(rest)?.is_some() {
            return self.reply(426, "Connection closed; transfer aborted.");
        }
        data.finish()?;
        let mut data = Some(data);
        if self.final_fault(Step::Listed, &name, &mut data)? {
            self.done = data;
            self.reply(226, "Listing sent.")?;
        }
        Ok(())
    }
}
