//! What a drill shows: the table for people, the document for programs, the progress on a
//! terminal. It decides nothing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::row::{Found, Outcome};
use crate::cli::look::{Look, Tone};
use crate::cli::table::{Cell, numbers, table, words};
use crate::cli::words::size;
use crate::log;

/// The whole result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The rows, in the order of the matrix.
    pub rows: Vec<Outcome>,
    /// The longest time from an uploader's last sign of life to its next good beat, seconds.
    pub maximum_stuck: f64,
    /// Whether every row is as it should be.
    pub ok: bool,
}

impl Report {
    /// Of these rows.
    pub fn new(rows: Vec<Outcome>) -> Self {
        let stuck = rows.iter().filter_map(|r| r.stuck);
        Self {
            maximum_stuck: stuck.fold(0.0, f64::max),
            ok: rows.iter().all(|r| r.faults.is_empty()),
            rows,
        }
    }

    /// The table, what is wrong with its rows, and the sum.
    pub fn text(&self, look: Look) -> String {
        let columns = [
            words("FAULT"),
            words("FOUND AS"),
            words("CAUSE"),
            numbers("FOUND AFTER"),
            numbers("WITHIN"),
            numbers("DELIVERED AFTER"),
            words("TORN"),
            numbers("SENT AGAIN"),
            numbers("STUCK"),
        ];
        let rows: Vec<_> = self.rows.iter().map(cells).collect();
        let mut out = table(&columns, &rows, look);
        out.push('\n');
        for row in &self.rows {
            for wrong in &row.faults {
                let line = format!("FAILED {}: {}", row.fault, log::escape(wrong));
                out.push_str(&look.paint(Tone::Bad, &line));
                out.push('\n');
            }
        }
        for row in &self.rows {
            if let Some(why) = row.unproven {
                out.push_str(&format!("{} proves nothing here: {why}\n", row.fault));
            }
        }
        let failed = self.rows.iter().filter(|r| !r.faults.is_empty()).count();
        out.push_str(&format!(
            "{} of {} rows as they should be; maximum stuck {:.1} s\n",
            self.rows.len() - failed,
            self.rows.len(),
            self.maximum_stuck
        ));
        out
    }
}

fn cells(row: &Outcome) -> Vec<Cell> {
    let time = |t: Option<f64>| t.map_or("-".to_owned(), |t| format!("{t:.2} s"));
    let found = match row.found {
        Found::Deadlock => "deadlock",
        Found::Timeout => "timeout",
        Found::Error => "error",
        Found::Nothing => "-",
    };
    let within = match row.found {
        Found::Nothing => "-".to_owned(),
        _ => format!("{:.0} s", row.bound),
    };
    let (torn, tone) = match row.torn {
        true => ("YES", Tone::Bad),
        false => ("no", Tone::Plain),
    };
    let wrong = !row.faults.is_empty();
    vec![
        Cell::toned(row.fault, if wrong { Tone::Bad } else { Tone::Plain }),
        Cell::new(found),
        Cell::or_dash(row.cause.as_deref()),
        Cell::new(time(row.found_after)),
        Cell::new(within),
        Cell::new(time(row.delivered_after)),
        Cell::toned(torn, tone),
        Cell::new(size(row.bytes_sent_again)),
        Cell::new(time(row.stuck)),
    ]
}

/// The bar on standard error, if that is a terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// None of `rows` is done.
    pub fn new(rows: usize, longest: Duration, quiet: bool) -> Self {
        if quiet {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(rows as u64);
        let about = longest.as_secs();
        let template =
            format!("{{elapsed}} of about {about}s  {{wide_bar}} {{pos}}/{{len}} rows  {{msg}}");
        // A template that does not parse leaves the default one.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// One more is done.
    pub fn done(&self, row: &Outcome) {
        self.0.set_message(row.fault);
        self.0.inc(1);
    }

    /// All are done.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fault: &'static str, stuck: f64, faults: &[&str]) -> Outcome {
        Outcome {
            fault,
            found: Found::Deadlock,
            cause: Some("zero_window".into()),
            expected_cause: Some("zero_window"),
            found_after: Some(38.2),
            bound: 40.0,
            delivered_after: Some(39.5),
            torn: false,
            bytes_sent_again: 1 << 20,
            stuck: Some(stuck),
            unproven: None,
            faults: faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_table_shows_every_row_and_what_is_wrong_with_it() {
        let report = Report::new(vec![row("a", 8.0, &[]), row("b", 9.5, &["too late"])]);
        let text = report.text(Look::default());
        assert!(!report.ok && report.maximum_stuck == 9.5);
        for part in [
            "38.20 s",
            "40 s",
            "1.0 MiB",
            "FAILED b: too late",
            "1 of 2 rows",
            "maximum stuck 9.5 s",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
