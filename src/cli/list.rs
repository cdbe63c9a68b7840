//! `ftpulse list`: what a remote folder holds, for a person, as JSON lines, or as a local file that
//! is written whole (S2: GETINFO). It changes nothing on the server.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::errand::crew::{Crew, Done};
use super::errand::screen::{Results, Screen};
use super::errand::stop::Stop;
use super::errand::target::{Retries, Target, write_whole};
use super::errand::tries::{End, What, tries};
use super::errand::{Helped, Login, ended_by, helped, of};
use super::{EXIT_FAILED, EXIT_USAGE, Global, complain, show};
use crate::clock;
use crate::config::Timers;
use crate::ftp::{Entry, Kind};
use crate::log::{escape_bytes, sealed};
use crate::pulse::Folder;
use crate::spool::journal::Journal;
use crate::worker::{Answer, Ask, JobResult, Work};

/// List a folder of an FTP server.
///
/// One line an entry: when it was modified (with Z where the server tells the exact time, else as
/// far as it does), its size in bytes, and its name, with a / behind a folder and an @ behind what
/// is neither file nor folder. Control characters in names are escaped; --json has them all.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ftpulse list ftp://me@ftp.example.net/incoming/
  ftpulse list --json ftp://ftp.example.net/pub | jq .name
  ftpulse list ftp://me@ftp.example.net/incoming/ listing.txt")]
pub struct Arguments {
    /// A JSON object a line: name, type (file, folder, other), size, modified, exact.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    login: Login,
    /// The folder, such as ftp://user@host/folder (%2F at the path's start makes it absolute).
    #[arg(value_name = "URL")]
    url: String,
    /// Write the listing to this file; it replaces what is there once it is whole. - is standard
    /// output.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

const VERB: &str = "list";

/// Runs the subcommand.
pub fn main(global: Global, arguments: &Arguments) -> ExitCode {
    let file = arguments.file.as_ref().filter(|file| *file != "-");
    let target = match file.map(|file| Target::of(file, None)) {
        Some(Err(why)) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
        Some(Ok(target)) => Some(target),
        None => None,
    };
    let (login, url) = (&arguments.login, &arguments.url);
    // Nothing is made on the server for a look at it.
    let more = vec![of("direction", "get", VERB), of("after", "keep", VERB)];
    let mut errand = match login.prepare(VERB, url, more, global) {
        Ok(errand) => errand,
        Err(code) => return code,
    };
    if let Err(code) = errand.unlock() {
        return code;
    }
    errand.route.server.folder = errand.place.path();
    let screen = Screen::new(global, Results::Out);
    let (log, guard) = screen.logger(global);
    let (stop, timers) = (errand.stop.clone(), errand.config.timers.clone());
    let mut crew = Crew::new(errand, Folder::default(), Journal::none(), log.clone());
    let what = What {
        deed: "listing",
        shown: url,
    };
    let listed = tries(&mut crew, login.attempts, what, &log, |crew| {
        let work = Work::Ask(Ask::Folder(String::new()));
        match crew.run(work, |signalled| signalled, |_| {}) {
            Done::Told(JobResult::Answered(Answer::Folder(entries))) => Ok(entries),
            done => Err(crew.miss(done)),
        }
    });
    let code = match listed {
        End::Done(mut entries) => {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let text = match arguments.json {
                true => json_lines(&entries),
                false => lines(&entries),
            };
            match target {
                None => show(&text),
                Some(target) => write(target, text, &timers, &stop),
            }
        }
        End::Failed | End::Unreachable => ExitCode::from(EXIT_FAILED),
        End::Stopped => ended_by(&stop),
    };
    crew.leave();
    drop(guard);
    code
}

fn write(target: Target, text: String, timers: &Timers, stop: &Stop) -> ExitCode {
    let retries = Retries {
        count: timers.write_lock_retries,
        pause: timers.write_lock_interval,
    };
    let bound = Some(timers.disk + retries.pause);
    let written = helped(stop, bound, move |seen| {
        write_whole(&target, text.as_bytes(), retries, seen)
    });
    match written {
        Helped::Done(Ok(())) => ExitCode::SUCCESS,
        Helped::Done(Err(why)) | Helped::Stuck(why) => {
            complain(&why);
            ExitCode::from(EXIT_FAILED)
        }
        Helped::Stopped => ended_by(stop),
    }
}

fn lines(entries: &[Entry]) -> String {
    let size = |entry: &Entry| {
        entry
            .size
            .map_or_else(|| "-".into(), |size| size.to_string())
    };
    let sizes: Vec<String> = entries.iter().map(size).collect();
    let width = sizes.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (entry, size) in entries.iter().zip(sizes) {
        let mark = match entry.kind {
            Kind::File => "",
            Kind::Folder => "/",
            Kind::Other => "@",
        };
        let (time, name) = (time(entry), escape_bytes(&entry.name));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{time:20}  {size:>width$}  {name}{mark}");
    }
    text
}

/// No more than the server tells.
fn time(entry: &Entry) -> String {
    let Some(modified) = entry.modified else {
        return "-".into();
    };
    let whole = clock::utc(modified as f64);
    let end = match (entry.exact, modified % 86_400) {
        (true, _) => whole.len(),
        (false, 0) => "2026-01-02".len(),
        (false, _) => "2026-01-02T03:04".len(),
    };
    let told = whole.get(..end).unwrap_or("-");
    match entry.exact {
        true => told.to_owned(),
        false => told.replace('T', " "),
    }
}

fn json_lines(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let kind = match entry.kind {
            Kind::File => "file",
            Kind::Folder => "folder",
            Kind::Other => "other",
        };
        let modified = entry.modified.map(|at| clock::utc(at as f64));
        let mut object = json!({
            "name": String::from_utf8_lossy(&entry.name),
            "type": kind,
            "size": entry.size,
            "modified": modified,
            "exact": entry.exact,
        });
        if std::str::from_utf8(&entry.name).is_err() {
            // Whoever needs it exactly.
            object["name_bytes"] = json!(entry.name);
        }
        sealed(&object.to_string())
    };
    entries.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(
        name: &[u8],
        kind: Kind,
        size: Option<u64>,
        modified: Option<i64>,
        exact: bool,
    ) -> Entry {
        Entry {
            name: name.to_vec(),
            kind,
            size,
            modified,
            exact,
        }
    }

    #[test]
    fn no_more_is_shown_than_the_server_tells_and_names_cannot_act() {
        let entries = [
            entry(b"a\x1b[2J", Kind::File, Some(12), Some(1_709_208_015), true),
            entry(b"d", Kind::Folder, None, Some(1_709_208_000), false),
            entry(b"l\xff", Kind::Other, Some(1), Some(1_541_376_000), false),
            entry(b"n", Kind::File, Some(5), None, false),
        ];
        let expected = "2024-02-29T12:00:15Z  12  a\\x1b[2J\n\
                        2024-02-29 12:00       -  d/\n\
                        2018-11-05             1  l\\xff@\n\
                        -                      5  n\n";
        assert_eq!(lines(&entries), expected);
        let json = json_lines(&entries);
        let objects: Vec<serde_json::Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects[0]["name"], "a\u{1b}[2J");
        assert_eq!(objects[0]["modified"], "2024-02-29T12:00:15Z");
        assert_eq!(objects[1]["type"], "folder");
        assert_eq!(objects[2]["name_bytes"], json!([108, 255]));
        assert!(objects[3]["modified"].is_null() && objects[3].get("name_bytes").is_none());
    }
}
