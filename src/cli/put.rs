//! `ftpulse put`: sends files and ends. Each is sent as the service sends it: under a temporary
//! name, verified, renamed; tried again after a failure; gone on with where it stopped.

mod send;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use slog::{Logger, debug, error, info};

use self::send::Sender;
use super::errand::crew::Crew;
use super::errand::plan::{self, Plan};
use super::errand::screen::{Results, Screen};
use super::errand::tries::End;
use super::errand::{Errand, Helped, Login, Verify, ended_by, helped, of, remember};
use super::{EXIT_FAILED, EXIT_USAGE, Global, complain};
use crate::config::Argument;
use crate::pulse::Folder;

/// Send files to an FTP server.
///
/// Each file is sent under a temporary name, verified and then renamed, so nobody sees a part of
/// it; a connection that dies or wedges is given up and the file tried again, going on where it
/// stopped if it is large. Missing remote folders are made. A URL that ends with / names a folder,
/// in which files and folders keep their names; any other URL is the new name of the one file or
/// folder. `-` reads standard input to its end before anything is sent (its end cannot be told
/// from the death of its writer: use `set -o pipefail`). Ends with 1 if a file could not be sent.
#[derive(Debug, Args)]
#[command(
    override_usage = "ftpulse put [OPTIONS] <FILE>... <URL>",
    after_help = "Examples:
  ftpulse put report.csv ftp://me@ftp.example.net/incoming/
  ftpulse put report.csv ftp://me@ftp.example.net/incoming/2026-01.csv
  ftpulse put -r photos *.mp4 ftp://me@ftp.example.net/media/
  pg_dump db | ftpulse put - ftp://me@ftp.example.net/backup/db.sql
  ftpulse put --continue disk.img ftp://me@ftp.example.net/     after an interruption"
)]
pub struct Arguments {
    /// Send folders with all that is in them; symlinks and empty folders in them are left out.
    #[arg(short, long)]
    recursive: bool,
    /// Go on with files over 8 MiB that an earlier `put` did not finish, if they are unchanged
    /// since; and keep what was sent of such a file if this one is interrupted.
    #[arg(long = "continue")]
    resume: bool,
    /// How a sent file is verified before it gets its name.
    #[arg(long, value_enum, default_value_t)]
    verify: Verify,
    /// Bytes a second at most, such as 500KiB.
    #[arg(long, value_name = "SIZE")]
    limit: Option<String>,
    #[command(flatten)]
    login: Login,
    /// What is sent (- is standard input), and last where to, such as ftp://user@host/folder/ (%2F
    /// at the path's start makes it absolute).
    #[arg(value_name = "FILE... URL", required = true)]
    places: Vec<OsString>,
}

impl Arguments {
    fn more(&self) -> Vec<Argument> {
        let limit = self.limit.as_deref();
        let limit = limit.map(|limit| of("rate_limit", limit, "--limit"));
        [self.verify.argument()].into_iter().chain(limit).collect()
    }
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: &Arguments) -> ExitCode {
    let login = &arguments.login;
    let (url, files) = match arguments.places.split_last() {
        Some((url, files)) if !files.is_empty() => (url.to_string_lossy(), files),
        _ => {
            complain("a file and, last, a URL are needed (see ftpulse put --help)");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let mut errand = match login.prepare("put", &url, arguments.more(), global) {
        Ok(errand) => errand,
        Err(code) => return code,
    };
    let plan = match look_at(files, &errand, arguments.recursive) {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    let server = &errand.route.server;
    let at = format!("{}/{}", server.key(), server.folder);
    let over = errand.route.resume_over;
    let large = plan.items.iter().any(|item| item.stamp.size > over);
    let keep = large.then(|| remember(&errand.stop, &errand.config, &at));
    if let (Some(Err(why)), true) = (&keep, arguments.resume) {
        complain(&format!("--continue: {why}"));
        return ExitCode::from(EXIT_USAGE);
    }
    if let Err(code) = errand.unlock() {
        return code;
    }
    let mut screen = Screen::new(global, Results::Out);
    let (log, guard) = screen.logger(global);
    let keep = keep.and_then(|keep| {
        let unless = |why: &String| {
            debug!(log, "nothing is remembered of unfinished files"; "error" => why);
        };
        keep.inspect_err(unless).ok()
    });
    let journal = keep.as_ref().map(|keep| keep.journal.clone());
    let (stop, folder) = (errand.stop.clone(), Folder::at(&at));
    let crew = Crew::new(errand, folder, journal.unwrap_or_default(), log.clone());
    let rules = (login.attempts, arguments.resume);
    let mut sender = Sender::new(crew, keep.as_ref(), rules, log.clone());
    let code = send_all(&mut sender, &mut screen, plan, &log);
    screen.clear();
    sender.leave();
    drop(keep);
    drop(guard);
    match stop.came() {
        Some(_) if code != ExitCode::SUCCESS => ended_by(&stop),
        _ => code,
    }
}

/// Looks at what is to be sent.
fn look_at(files: &[OsString], errand: &Errand, recursive: bool) -> Result<Plan, ExitCode> {
    // Whoever writes to standard input may take its time.
    let waits = files.iter().any(|file| file == "-");
    let bound = (!waits).then_some(errand.config.timers.disk);
    let (files, place) = (files.to_vec(), errand.place.clone());
    let looked = helped(&errand.stop, bound, move |seen| {
        plan::plan(&files, &place, recursive, seen)
    });
    match looked {
        Helped::Done(Ok(plan)) => Ok(plan),
        Helped::Done(Err(why)) => {
            complain(&why);
            Err(ExitCode::from(EXIT_USAGE))
        }
        Helped::Stuck(why) => {
            complain(&why);
            Err(ExitCode::from(EXIT_FAILED))
        }
        Helped::Stopped => Err(ended_by(&errand.stop)),
    }
}

fn send_all(sender: &mut Sender<'_>, screen: &mut Screen, plan: Plan, log: &Logger) -> ExitCode {
    for (shown, why) in &plan.left_out {
        info!(log, "left out"; "file" => shown, "error" => *why);
    }
    for (shown, why) in &plan.failed {
        error!(log, "it cannot be sent"; "file" => shown, "error" => why);
    }
    let items = plan.items.iter();
    screen.expect(plan.items.len(), items.map(|item| item.stamp.size).sum());
    let (mut sent, mut failed) = (0, plan.failed.len());
    for item in &plan.items {
        match sender.send(item, screen) {
            End::Done(()) => sent += 1,
            End::Failed => failed += 1,
            End::Unreachable | End::Stopped => break,
        }
    }
    let left = plan.items.len() - sent - (failed - plan.failed.len());
    screen.clear();
    if sent + failed + left > 1 {
        let rest = if left > 0 {
            format!(", {left} not sent")
        } else {
            String::new()
        };
        screen.result(&format!("{sent} sent, {failed} failed{rest}"));
    }
    if failed + left == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}
