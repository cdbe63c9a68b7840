//! `ftpulse get`: downloads files and ends. Each is received as a route of the service does it:
//! into a temp file beside its target, compared, synced, renamed; tried again after a failure; gone
//! on with where it stopped. Nothing changes on the server.

mod fetch;
mod walk;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use slog::{Logger, error};

use self::fetch::{Fetcher, Remote};
use super::errand::crew::Crew;
use super::errand::plan::Place;
use super::errand::screen::{Results, Screen};
use super::errand::stop::Stop;
use super::errand::target::Target;
use super::errand::tries::End;
use super::errand::{Errand, Helped, Login, Verify, ended_by, helped, of};
use super::{EXIT_FAILED, EXIT_USAGE, Global, complain};
use crate::config::Argument;
use crate::pulse::Folder;
use crate::spool::journal::Journal;
use crate::token;

/// Download a file from an FTP server.
///
/// It is received under a temporary name beside FILE, compared with what the server tells, synced
/// and then renamed, so nobody sees a part of it. FILE is the new name, or a folder (one that is
/// there, or ends with /), in which it keeps its own. `-` writes to standard output once all of it
/// is here. With -r the URL names a folder. Ends with 1 if a file could not be had.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ftpulse get ftp://me@ftp.example.net/out/report.csv .
  ftpulse get ftp://me@ftp.example.net/out/report.csv january.csv
  ftpulse get -r ftp://me@ftp.example.net/photos backup/
  ftpulse get ftp://ftp.example.net/pub/list.gz - | zcat
  ftpulse get --continue ftp://me@ftp.example.net/disk.img .     after an interruption")]
pub struct Arguments {
    /// Download a folder with all that is in it.
    #[arg(short, long)]
    recursive: bool,
    /// Go on with files over 8 MiB that an earlier `get` did not finish, if they are unchanged
    /// since; and keep what was received of such a file if this one is interrupted.
    #[arg(long = "continue")]
    resume: bool,
    /// How a received file is verified before it gets its name.
    #[arg(long, value_enum, default_value_t)]
    verify: Verify,
    /// Bytes a second at most, such as 500KiB.
    #[arg(long, value_name = "SIZE")]
    limit: Option<String>,
    #[command(flatten)]
    login: Login,
    /// The file, such as ftp://user@host/folder/file (%2F at the path's start makes it absolute).
    #[arg(value_name = "URL")]
    url: String,
    /// Where it goes; - is standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

const VERB: &str = "get";

impl Arguments {
    fn more(&self) -> Vec<Argument> {
        let mut more = vec![of("direction", "get", VERB), of("after", "keep", VERB)];
        more.push(self.verify.argument());
        more.extend(
            self.limit
                .as_deref()
                .map(|limit| of("rate_limit", limit, "--limit")),
        );
        more
    }
}

/// Where all of it goes.
struct Goal {
    /// The local folder that everything is below.
    folder: PathBuf,
    /// The one file's name there; none with -r.
    name: Option<String>,
    /// The folder is ours alone, and the file goes to standard output.
    out: bool,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: &Arguments) -> ExitCode {
    let mut errand = match arguments
        .login
        .prepare(VERB, &arguments.url, arguments.more(), global)
    {
        Ok(errand) => errand,
        Err(code) => return code,
    };
    let goal = match goal(arguments, &errand.place) {
        Ok(goal) => goal,
        Err(why) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Err(code) = errand.unlock() {
        return code;
    }
    let stop = errand.stop.clone();
    let code = if let Err(error) = make(&goal) {
        let folder = goal.folder.display();
        complain(&format!("the folder {folder} cannot be made: {error}"));
        ExitCode::from(EXIT_FAILED)
    } else {
        fetch(global, arguments, errand, &goal)
    };
    if goal.out {
        // What is left there was received in vain.
        let _ = std::fs::remove_dir_all(&goal.folder);
    }
    match stop.came() {
        Some(_) if code != ExitCode::SUCCESS => ended_by(&stop),
        _ => code,
    }
}

fn goal(arguments: &Arguments, place: &Place) -> Result<Goal, String> {
    let out = arguments.file.as_os_str() == "-";
    let (file, name) = (&arguments.file, place.name.as_deref());
    if arguments.recursive {
        if out {
            return Err("a folder cannot go to standard output: name a local folder".into());
        }
        let path = place.path();
        let own = path.rsplit('/').next().filter(|own| !own.is_empty());
        let into = file.as_os_str().as_encoded_bytes().ends_with(b"/") || file.is_dir();
        let folder = match own {
            Some(own) if into => Target::of(file, Some(own)).map(|t| t.folder.join(t.name))?,
            _ => file.clone(),
        };
        return Ok(Goal {
            folder,
            name: None,
            out,
        });
    }
    let Some(name) = name else {
        return Err("the URL names a folder: with -r folders are downloaded, too".into());
    };
    if out {
        let folder = std::env::temp_dir().join(format!("ftpulse-{}", token::new()));
        let name = Some("file".into());
        return Ok(Goal { folder, name, out });
    }
    let Target { folder, name } = Target::of(file, Some(name))?;
    Ok(Goal {
        folder,
        name: Some(name),
        out,
    })
}

fn make(goal: &Goal) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    if goal.out {
        builder.mode(0o700).create(&goal.folder)
    } else {
        builder.recursive(true).create(&goal.folder)
    }
}

fn fetch(global: Global, arguments: &Arguments, mut errand: Errand, goal: &Goal) -> ExitCode {
    let results = if goal.out { Results::Err } else { Results::Out };
    let mut screen = Screen::new(global, results);
    let (log, guard) = screen.logger(global);
    let (place, stop) = (errand.place.clone(), errand.stop.clone());
    let route = &mut errand.route;
    // Where an earlier command's parts are looked for has to be the same, whichever way it was
    // named.
    route.spool = std::fs::canonicalize(&goal.folder).unwrap_or_else(|_| goal.folder.clone());
    if arguments.recursive {
        route.server.folder = place.path();
    }
    let crew = Crew::new(errand, Folder::default(), Journal::none(), log.clone());
    let resume = arguments.resume && !goal.out;
    let mut fetcher = Fetcher::new(crew, arguments.login.attempts, resume, log.clone());
    let code = match (&goal.name, place.name) {
        (Some(target), Some(path)) => {
            let remote = Remote::new(path, target.clone());
            let got = fetcher.fetch(&remote, &mut screen);
            screen.clear();
            match got {
                End::Done(()) if goal.out => copy_out(&goal.folder.join(target), &stop, &log),
                End::Done(()) => ExitCode::SUCCESS,
                End::Failed | End::Unreachable | End::Stopped => ExitCode::from(EXIT_FAILED),
            }
        }
        _ => fetcher.fetch_all(&mut screen),
    };
    screen.clear();
    fetcher.leave();
    drop(guard);
    code
}

/// All of the file goes to standard output; a reader that has seen enough is no failure.
fn copy_out(file: &Path, stop: &Stop, log: &Logger) -> ExitCode {
    let file = file.to_owned();
    // The reader may take its time.
    let copied = helped(stop, None, move |_| {
        let mut file = File::open(file)?;
        io::copy(&mut file, &mut io::stdout().lock()).map(drop)
    });
    match copied {
        Helped::Done(Ok(())) => ExitCode::SUCCESS,
        Helped::Done(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Helped::Done(Err(e)) => {
            error!(log, "standard output cannot be written"; "error" => e.to_string());
            ExitCode::from(EXIT_FAILED)
        }
        Helped::Stuck(why) => {
            error!(log, "standard output cannot be written"; "error" => why);
            ExitCode::from(EXIT_FAILED)
        }
        Helped::Stopped => ended_by(stop),
    }
}
