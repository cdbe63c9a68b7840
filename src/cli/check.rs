//! `ftpulse check`: validates the configuration and shows what is in effect, and why; on demand
//! tries every destination. It shows no secret, and without `--canary` it writes nothing but its
//! report.

mod advice;
mod destination;
mod examine;
mod local;
mod watch;

use super::{ConfigFile, EXIT_FAILED, Global};
use crate::config::Loaded;
use clap::Args;
use destination::{Destination, Finding, Line};
use std::io::{self, Write};
use std::process::ExitCode;

/// Validate the configuration; print every effective setting with its origin.
///
/// Ends with 0 if all is well, with 1 if a destination that was tried fails, and with 2 if the
/// configuration is wrong: then it names every fault, its origin and what to do.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  FTPULSE__ROUTES__MAIN__SPOOL=/spool \\
  FTPULSE__ROUTES__MAIN__SERVER=ftpes://user@ftp.example.net/incoming \\
  FTPULSE__ROUTES__MAIN__PASSWORD_FILE=/run/secrets/ftp \\
  ftpulse check --connect")]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Log in to every destination, list its folder and show what the server can. Each wait has
    /// the bound of its timer; each connection is tried once.
    #[arg(long)]
    connect: bool,
    /// Also upload, verify, rename and delete a tiny file, as the service does with each file.
    #[arg(long, requires = "connect")]
    canary: bool,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: Arguments) -> ExitCode {
    let loaded = match arguments.file.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let tried = report(&loaded, global.quiet).and_then(|()| {
        if arguments.connect {
            try_all(&loaded, arguments.canary, global.quiet)
        } else {
            Ok(true)
        }
    });
    match tried {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

fn report(loaded: &Loaded, quiet: bool) -> io::Result<()> {
    if quiet {
        return Ok(());
    }
    let width = |pick: fn(&crate::config::Setting) -> &str| {
        loaded
            .settings
            .iter()
            .map(|setting| pick(setting).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (keys, values) = (width(|s| &s.key), width(|s| &s.value));
    // One very long value must not push all origins out of sight.
    let values = values.min(48);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for setting in &loaded.settings {
        let value: String = setting.value.escape_debug().to_string();
        writeln!(
            out,
            "{:keys$}  {value:values$}  {}",
            setting.key, setting.origin
        )?;
    }
    writeln!(out, "\nthe configuration is sound")?;
    out.flush()?;
    let mut err = io::stderr().lock();
    for warning in loaded.warnings.iter().chain(&local::look(&loaded.config)) {
        writeln!(err, "warning: {warning}")?;
    }
    Ok(())
}

/// Tries every destination, those of different servers at the same time, and prints what is
/// found in the order of the routes. True if all are fine.
fn try_all(loaded: &Loaded, canary: bool, quiet: bool) -> io::Result<bool> {
    let mut failed = 0;
    let destinations = destination::of(&loaded.config);
    let count = destinations.len();
    let running = watch::start_all(destinations, &loaded.config, canary);
    for (destination, lines) in running {
        let mut out = Printed::new(&destination, quiet);
        let mut fine = true;
        // Ends: each watcher gives up its destination in bounded time.
        for line in lines {
            fine &= !matches!(line.finding, Finding::Failed { .. });
            out.line(&line)?;
        }
        failed += usize::from(!fine);
    }
    if !quiet {
        let fine = count - failed;
        let s = if count == 1 { "" } else { "s" };
        writeln!(
            io::stdout(),
            "\n{count} destination{s}: {fine} fine, {failed} failed"
        )?;
    }
    Ok(failed == 0)
}

/// The block of one destination; quiet, it appears with its first failure.
struct Printed<'a> {
    destination: &'a Destination,
    quiet: bool,
    titled: bool,
}

impl<'a> Printed<'a> {
    fn new(destination: &'a Destination, quiet: bool) -> Self {
        Self {
            destination,
            quiet,
            titled: false,
        }
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.quiet && !matches!(line.finding, Finding::Failed { .. }) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.titled, true) {
            writeln!(out, "\n{}", self.destination.title())?;
        }
        let (mark, advice) = match &line.finding {
            Finding::Fine => ("ok", None),
            Finding::Note => ("note", None),
            Finding::Failed { advice } => ("FAILED", Some(advice)),
        };
        writeln!(out, "  {mark:6}  {:10}  {}", line.what, line.detail)?;
        if let Some(advice) = advice {
            writeln!(out, "  {:6}  {:10}  {advice}", "", "what to do")?;
        }
        Ok(())
    }
}
