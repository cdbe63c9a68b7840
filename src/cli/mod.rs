//! The command line: arguments, subcommands, exit codes (CONTRACT: "Commands"). Each subcommand
//! has its own file; wrong usage and wrong configuration end with 2 before anything is touched.

mod check;
mod client;
#[cfg(feature = "lab")]
mod demo;
#[cfg(feature = "lab")]
mod drill;
mod errand;
mod generate;
mod get;
mod guard;
mod incidents;
mod list;
mod look;
mod put;
mod retry;
mod run;
mod signals;
#[cfg(feature = "lab")]
mod stage;
mod status;
mod table;
#[cfg(feature = "lab")]
mod tap;
mod watchdog;
mod words;

use crate::config::{self, Loaded, Sources};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The work failed.
pub const EXIT_FAILED: u8 = 1;
/// The service cannot heal itself: restart it.
pub const EXIT_ESCALATED: u8 = 70;
/// Wrong usage or configuration; nothing was touched.
pub const EXIT_USAGE: u8 = 2;

/// The FTP upload service that cannot stay stuck.
#[derive(Debug, Parser)]
#[command(name = "ftpulse", version, arg_required_else_help = true)]
#[command(after_help = "Example:\n  ftpulse check --config /etc/ftpulse.toml")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Arguments of every subcommand.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Global {
    /// Say less: errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The log level: the configured one, unless `-q` or `-v` ask for another.
    pub fn level(self, configured: slog::Level) -> slog::Level {
        match (self.quiet, self.verbose) {
            (true, _) => configured.min(slog::Level::Error),
            (false, 0) => configured,
            (false, 1) => configured.max(slog::Level::Debug),
            (false, _) => slog::Level::Trace,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    #[cfg(feature = "lab")]
    Demo(demo::Arguments),
    #[cfg(feature = "lab")]
    Drill(drill::Arguments),
    #[command(hide = true)]
    Generate(generate::Arguments),
    Get(get::Arguments),
    Incidents(incidents::Arguments),
    List(list::Arguments),
    Put(put::Arguments),
    Retry(retry::Arguments),
    Run(run::Arguments),
    Status(status::Arguments),
    Watchdog(watchdog::Arguments),
}

/// The argument that names the configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFile {
    /// Configuration file (TOML); without it the variable FTPULSE_CONFIG may name one.
    /// Variables such as FTPULSE__HEARTBEAT__INTERVAL=2s win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Loads the configuration; its faults go to standard error.
    ///
    /// # Errors
    /// The exit code of a wrong configuration.
    pub fn load(self) -> Result<Loaded, ExitCode> {
        self.read().map_err(|faults| {
            // Nobody reads a standard error that is gone; the exit code still tells.
            let _ = write!(std::io::stderr().lock(), "ftpulse: {faults}");
            ExitCode::from(EXIT_USAGE)
        })
    }

    /// The same for whoever tells the faults in another way.
    fn read(self) -> Result<Loaded, config::Faults> {
        config::load(Sources::of_process(self.config))
    }
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    match command {
        Command::Check(arguments) => check::main(global, arguments),
        #[cfg(feature = "lab")]
        Command::Demo(arguments) => demo::main(global, arguments),
        #[cfg(feature = "lab")]
        Command::Drill(arguments) => drill::main(global, arguments),
        Command::Generate(arguments) => generate::main(&arguments, &Cli::command()),
        Command::Get(arguments) => get::main(global, &arguments),
        Command::Incidents(arguments) => incidents::main(global, &arguments),
        Command::List(arguments) => list::main(global, &arguments),
        Command::Put(arguments) => put::main(global, &arguments),
        Command::Retry(arguments) => retry::main(global, &arguments),
        Command::Run(arguments) => run::main(global, arguments),
        Command::Status(arguments) => status::main(global, &arguments),
        Command::Watchdog(arguments) => watchdog::main(global, arguments),
    }
}

/// Says what went wrong; nobody reads a standard error that is gone, the exit code still tells.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "ftpulse: {what}");
}

/// Writes to standard output at once. A reader that has seen enough (`| head`) is no failure.
fn show(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let shown = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("standard output cannot be written: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::Level;

    #[test]
    fn quiet_and_verbose_only_move_the_level_their_way() {
        let level = |quiet, verbose, configured| Global { quiet, verbose }.level(configured);
        assert_eq!(level(false, 0, Level::Warning), Level::Warning);
        assert_eq!(level(true, 0, Level::Trace), Level::Error);
        assert_eq!(level(false, 1, Level::Info), Level::Debug);
        assert_eq!(level(false, 1, Level::Trace), Level::Trace);
        assert_eq!(level(false, 2, Level::Info), Level::Trace);
    }
}
