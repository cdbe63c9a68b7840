//! `ftpulse incidents`: the deadlocks that a running service has found, as a table or one with all
//! its evidence. It only asks and shows.

mod list;
mod story;

use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Failure, Kind, Service};
use super::look::Look;
use super::{EXIT_FAILED, Global, complain, show};

/// Show the deadlocks that the service found, their evidence and cause.
///
/// Ends with 1 if the service does not answer or does not keep that incident.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ftpulse incidents
  ftpulse incidents 3
  ftpulse incidents --json | jq '.[].cause'")]
pub struct Arguments {
    #[command(flatten)]
    service: Service,
    /// Print the document of /api/incidents instead of a table.
    #[arg(long)]
    json: bool,
    /// The number of one incident: its whole story.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: &Arguments) -> ExitCode {
    let client = match arguments.service.client() {
        Ok(client) => client,
        Err(code) => return code,
    };
    match text(&client, arguments.id, arguments.json) {
        Ok(_) if global.quiet && !arguments.json => ExitCode::SUCCESS,
        Ok(text) => show(&text),
        Err(why) => {
            complain(&why);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn text(client: &Client, id: Option<u64>, json: bool) -> Result<String, String> {
    let Some(id) = id else {
        let text = if json {
            client.document("/api/incidents")
        } else {
            let list = |incidents: Vec<_>| list::list(&incidents, Look::of_stdout());
            client.incidents().map(list)
        };
        return text.map_err(|failure| failure.text);
    };
    let text = if json {
        client.document(&format!("/api/incidents/{id}"))
    } else {
        client
            .incident(id)
            .map(|incident| story::story(&incident, Look::of_stdout()))
    };
    text.map_err(|failure| with_kept(client, failure))
}

/// An unknown number is told together with the known ones.
fn with_kept(client: &Client, failure: Failure) -> String {
    if failure.kind != Kind::NotFound {
        return failure.text;
    }
    match client.incidents() {
        Ok(incidents) => {
            let ids = incidents.iter().map(|incident| incident.id).collect();
            format!("{}; kept: {}", failure.text, ranges(ids))
        }
        Err(_) => failure.text,
    }
}

/// `1 to 5, 7`; `none` if there are none.
fn ranges(mut ids: Vec<u64>) -> String {
    ids.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if id <= last.saturating_add(1) => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    if ranges.is_empty() {
        return "none".to_owned();
    }
    let told = ranges.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first} to {last}")
        }
    });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_numbers_are_told_as_ranges() {
        assert_eq!(ranges(vec![]), "none");
        assert_eq!(ranges(vec![4]), "4");
        assert_eq!(ranges(vec![9, 3, 2, 1, 7, 6]), "1 to 3, 6 to 7, 9");
        assert_eq!(
            ranges(vec![u64::MAX, u64::MAX - 1]).matches("to").count(),
            1
        );
    }
}
