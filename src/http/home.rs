//! The page at `/`: a plain summary with links. No script, no style, nothing from elsewhere;
//! every value is escaped, since file names and server names are foreign text.

use std::fmt::Write;

use crate::log::escape;
use crate::report::{RouteStatus, Status};

/// The summary.
pub(super) fn page(status: &Status) -> String {
    let mut body = String::new();
    let _ = writeln!(
        body,
        "<h1>ftpulse {}</h1>\n<p>{}</p>",
        html(&status.version),
        if status.draining {
            "Draining before its end."
        } else {
            "Running."
        }
    );
    let _ = writeln!(
        body,
        "<p>Quarantine: {} of {} pairs. Stranded workers: {}.</p>",
        status.quarantine.pairs.len(),
        status.quarantine.capacity,
        status.stranded_workers
    );
    body.push_str(
        "<table border=\"1\">\n<tr><th>Route</th><th>Destination</th><th>Waiting</th>\
         <th>Backing off</th><th>Delivered</th><th>In work</th><th>Trouble</th></tr>\n",
    );
    for route in &status.routes {
        row(&mut body, route);
    }
    body.push_str("</table>\n");
    document(&body)
}

/// The page while the daemon gives no answer.
pub(super) fn unavailable(reason: &str) -> String {
    document(&format!(
        "<h1>ftpulse</h1>\n<p>No status now: {}.</p>\n",
        html(reason)
    ))
}

fn row(body: &mut String, route: &RouteStatus) {
    let in_work: Vec<String> = route
        .slots
        .iter()
        .filter_map(|slot| slot.file.as_deref())
        .map(html)
        .collect();
    let trouble: Vec<String> = [&route.suspended, &route.spool_problem]
        .into_iter()
        .flatten()
        .map(|t| html(t))
        .collect();
    let _ = writeln!(
        body,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        html(&route.name),
        html(&route.destination),
        route.waiting,
        route.backing_off,
        route.delivered,
        in_work.join("<br>"),
        trouble.join("<br>")
    );
}

fn document(body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>ftpulse</title></head>\n\
         <body>\n{body}<p><a href=\"/metrics\">Metrics</a> \
         <a href=\"/healthz\">Health</a> <a href=\"/readyz\">Readiness</a> \
         <a href=\"/api/status\">Status as JSON</a> \
         <a href=\"/api/incidents\">Incidents as JSON</a></p>\n</body>\n</html>\n"
    )
}

/// Foreign text for HTML.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
