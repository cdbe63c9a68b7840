//! The incidents as a table, in the order in which the service gives them. Pure.

use crate::cli::look::{Look, Tone};
use crate::cli::table::{Cell, Column, names, numbers, table, words};
use crate::cli::words::{span, when};
use crate::log::escape;
use crate::report::{Incident, QuarantineReport};

const COLUMNS: [Column; 11] = [
    numbers("ID"),
    words("WHEN"),
    words("ROUTE"),
    numbers("SLOT"),
    numbers("EPOCH"),
    words("PHASE"),
    words("CAUSE"),
    numbers("SILENT FOR"),
    words("RECOVERED AFTER"),
    words("QUARANTINE"),
    names("FILE"),
];

/// The table.
pub fn list(incidents: &[Incident], look: Look) -> String {
    if incidents.is_empty() {
        return "no deadlock is on record\n".to_owned();
    }
    let rows: Vec<_> = incidents.iter().map(row).collect();
    table(&COLUMNS, &rows, look)
}

fn row(incident: &Incident) -> Vec<Cell> {
    let recovered = match incident.recovered_at {
        Some(at) => Cell::new(span(at - incident.detected_at)),
        None => Cell::toned("not yet", Tone::Watch),
    };
    vec![
        Cell::new(incident.id),
        Cell::new(when(incident.detected_at)),
        Cell::new(&incident.route),
        Cell::new(incident.slot),
        Cell::new(incident.epoch),
        Cell::new(&incident.phase),
        Cell::new(&incident.cause),
        Cell::new(span(incident.detected_at - incident.last_sign_of_life)),
        recovered,
        Cell::new(stay(incident.quarantine.as_ref())),
        Cell::or_dash(incident.file.as_deref()),
    ]
}

/// Where the sockets are.
fn stay(quarantine: Option<&QuarantineReport>) -> String {
    match quarantine {
        None => "-".to_owned(),
        Some(stay) if stay.released.is_none() => "held".to_owned(),
        Some(stay) => match &stay.reason {
            Some(reason) => format!("released ({})", escape(reason)),
            None => "released".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(id: u64) -> Incident {
        Incident {
            id,
            route: "main".into(),
            epoch: 1,
            file: Some("big.bin".into()),
            phase: "transfer".into(),
            cause: "zero_window".into(),
            last_sign_of_life: 1_767_323_040.0,
            detected_at: 1_767_323_045.5,
            ..Default::default()
        }
    }

    #[test]
    fn each_incident_is_a_row() {
        let released = QuarantineReport {
            released: Some(1.0),
            reason: Some("full".into()),
            ..Default::default()
        };
        let done = Incident {
            recovered_at: Some(1_767_323_047.0),
            quarantine: Some(released),
            ..incident(2)
        };
        let open = Incident {
            quarantine: Some(QuarantineReport::default()),
            file: None,
            ..incident(1)
        };
        let told = list(&[done, open], Look::default());
        let expected = "\
ID  WHEN                  ROUTE  SLOT  EPOCH  PHASE     CAUSE        SILENT FOR  RECOVERED AFTER  QUARANTINE       FILE
 2  2026-01-02T03:04:05Z  main      0      1  transfer  zero_window        5.5s  1.5s             released (full)  big.bin
 1  2026-01-02T03:04:05Z  main      0      1  transfer  zero_window        5.5s  not yet          held             -
";
        assert_eq!(told, expected);
    }

    #[test]
    fn no_incident_is_said() {
        assert_eq!(list(&[], Look::default()).lines().count(), 1);
    }
}
