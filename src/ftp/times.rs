//! Gives a sent file the time of its source (`keep_time`), before it is published: by MFMT
//! (draft-somers-ftp-mfxx), else by MDTM with two arguments, which vsftpd and others take; a server
//! that does not takes both for one odd name, and says that there is no such file. A refusal costs
//! no file: it is told, and not tried again if it is for good (5xx).

use std::time::{Duration, UNIX_EPOCH};

use slog::info;
use suppaftp::Status;

use super::{Quirk, Session, Trouble};
use crate::log::escape;
use crate::spool::Stamp;

impl Session {
    /// Sets the time of what stands under `name`, if the route wants that.
    pub(super) fn keep_time(&mut self, name: &str, source: Option<Stamp>) -> Result<(), Trouble> {
        let wanted = self.setup.route.publishing.keep_time && !self.quirks().has(Quirk::NoTimes);
        let Some(time) = source.filter(|_| wanted).and_then(time_val) else {
            return Ok(());
        };
        let features = self.features()?.unwrap_or_default();
        let Some(verb) = ["MFMT", "MDTM"].into_iter().find(|verb| features.has(verb)) else {
            if self.quirks().features().is_some() {
                self.learn(Quirk::NoTimes, "its FEAT names no MFMT and no MDTM");
            }
            return Ok(());
        };
        let argument = format!("{time} {}", self.wire(name)?);
        let done = [
            Status::File,
            Status::RequestedFileActionOk,
            Status::CommandOk,
        ];
        match self.command(verb, &argument, &done) {
            Ok(_) => Ok(()),
            Err(Trouble::Refused { code, text, .. }) if code != 421 => {
                if code >= 500 {
                    self.learn(Quirk::NoTimes, &text);
                } else {
                    info!(self.setup.log, "the time of this file could not be set";
                        "file" => escape(name).into_owned(), "error" => escape(&text).into_owned(),
                        "next" => "it bears the time of its upload");
                }
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }
}

/// `YYYYMMDDHHMMSS` in UTC (RFC 3659 section 2.3); none before 1970.
fn time_val(stamp: Stamp) -> Option<String> {
    let since = Duration::from_nanos(u64::try_from(stamp.mtime_ns).ok()?);
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string();
    Some(text.chars().filter(char::is_ascii_digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_whole_seconds_of_utc() {
        let at = |mtime_ns| {
            time_val(Stamp {
                dev: 0,
                ino: 0,
                size: 0,
                mtime_ns,
            })
        };
        assert_eq!(at(86_401_999_999_999).unwrap(), "19700102000001");
        assert_eq!(at(1_709_208_000_000_000_000).unwrap(), "20240229120000");
        assert_eq!(at(-1), None);
    }
}
