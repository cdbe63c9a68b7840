//! `ftpulse check`: validates the configuration and shows what is in effect, and why.
//! It connects nowhere, writes nothing but its report, and shows no secret.

use super::{ConfigFile, Global};
use crate::config::Loaded;
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

/// Validate the configuration; print every effective setting with its origin.
///
/// Ends with 0 if the configuration is sound. Otherwise it names every fault, its origin and
/// what to do, and ends with 2.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  FTPULSE__ROUTES__MAIN__SPOOL=/spool \\
  FTPULSE__ROUTES__MAIN__SERVER=ftp://user@ftp.example.net/incoming \\
  FTPULSE__ROUTES__MAIN__PASSWORD_FILE=/run/secrets/ftp \\
  ftpulse check")]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: Arguments) -> ExitCode {
    let loaded = match arguments.file.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if global.quiet {
        return ExitCode::SUCCESS;
    }
    match report(&loaded) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn report(loaded: &Loaded) -> io::Result<()> {
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
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    Ok(())
}
