//! `ftpulse status`: what a running service is doing, once or each second. It only asks and
//! shows; it changes nothing in the service.

mod page;
mod watch;

use std::process::ExitCode;

use clap::Args;

use super::client::Service;
use super::look::Look;
use super::{EXIT_FAILED, Global, complain, show};
use crate::clock;

/// Show what the service is doing: routes, uploads in work, quarantine.
///
/// Ends with 1 if the service does not answer.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ftpulse status
  ftpulse status --watch
  ftpulse status --url http://192.0.2.7:9188 --token-file /run/secrets/ftpulse --json")]
pub struct Arguments {
    #[command(flatten)]
    service: Service,
    /// Print the document of /api/status instead of tables.
    #[arg(long)]
    json: bool,
    /// Show it again each second until Ctrl-C: on a terminal in place, otherwise one block after
    /// the other, with --json one line each. A service that does not answer is asked again.
    #[arg(long)]
    watch: bool,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: &Arguments) -> ExitCode {
    let client = match arguments.service.client() {
        Ok(client) => client,
        Err(code) => return code,
    };
    if arguments.watch {
        return watch::watch(&client, arguments.json, global.quiet);
    }
    let text = if arguments.json {
        client.document("/api/status")
    } else {
        let page = |status| page::page(&status, clock::unix(), Look::of_stdout());
        client.status().map(page)
    };
    match text {
        Ok(_) if global.quiet && !arguments.json => ExitCode::SUCCESS,
        Ok(text) => show(&text),
        Err(failure) => {
            complain(&failure.text);
            ExitCode::from(EXIT_FAILED)
        }
    }
}
