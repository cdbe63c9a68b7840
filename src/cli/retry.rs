//! `ftpulse retry`: has a running service send dead letters again, and says what became of each.

use std::process::ExitCode;

use clap::Args;

use super::client::Service;
use super::{EXIT_FAILED, Global, complain, show};
use crate::log::escape;
use crate::report::{Retry, RetryRequest};

/// Send dead letters again: files that were given up, or all of a route.
///
/// Each goes back into the spool, where nothing is replaced. Needs the token of the service. Ends
/// with 1 if the service does not do it, or not for every file.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ftpulse retry main
  ftpulse retry main reports/2026-01.csv --token-file /run/secrets/ftpulse")]
pub struct Arguments {
    #[command(flatten)]
    service: Service,
    /// Print the answer of /api/retry instead of a line for each file.
    #[arg(long)]
    json: bool,
    /// The route.
    #[arg(value_name = "ROUTE")]
    route: String,
    /// Dead letters, as paths below the route's folder of them; without any: all.
    #[arg(value_name = "FILE")]
    files: Vec<String>,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: &Arguments) -> ExitCode {
    let client = match arguments.service.client() {
        Ok(client) => client,
        Err(code) => return code,
    };
    let mut request = RetryRequest {
        route: arguments.route.clone(),
        files: arguments.files.clone(),
    };
    let mut all = true;
    // The service does a few seconds' worth at a time.
    loop {
        let (done, document) = match client.retry(&request) {
            Ok(answer) => answer,
            Err(failure) => {
                complain(&failure.text);
                return ExitCode::from(EXIT_FAILED);
            }
        };
        let sent = done.files.iter().filter(|file| file.sent).count();
        all &= sent == done.files.len();
        let named = request.files.len();
        request.files.drain(..done.files.len().min(named));
        let more = match named {
            0 => sent > 0,
            _ => !request.files.is_empty(),
        };
        let more = more && done.left > 0 && !done.files.is_empty();
        let shown = match (arguments.json, global.quiet) {
            (true, _) => show(&document),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => show(&text(&done, more)),
        };
        if shown != ExitCode::SUCCESS {
            return shown;
        }
        if !more {
            all &= done.left == 0;
            break;
        }
    }
    if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}

fn text(done: &Retry, more: bool) -> String {
    if done.files.is_empty() {
        return format!("route {} has no dead letters\n", escape(&done.route));
    }
    let line = |file: &crate::report::RetriedFile| {
        let what = if file.sent { "sent again" } else { "not sent" };
        format!("{what}: {}: {}\n", escape(&file.file), escape(&file.says))
    };
    let mut text: String = done.files.iter().map(line).collect();
    if done.left > 0 && !more {
        text += &format!("{} more are left as they are\n", done.left);
    }
    text
}
