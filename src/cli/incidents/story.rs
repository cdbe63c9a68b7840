//! One incident with all that is known of it, in labelled lines. Pure.

use std::fmt::Write;

use crate::cli::look::{Look, Tone};
use crate::cli::words::{exactly, size, span};
use crate::log::escape;
use crate::report::{Incident, QuarantineReport, SocketReport, ThreadReport};

/// Columns of a label with its gap.
const LABEL: usize = 19;

/// The story.
pub fn story(incident: &Incident, look: Look) -> String {
    let mut told = Lines {
        out: String::new(),
        look,
    };
    told.head(incident);
    told.times(incident);
    let (sent, acked) = (size(incident.bytes_sent), size(incident.bytes_acked));
    told.line(
        "bytes",
        &format!("{sent} given to the kernel, {acked} acknowledged by the peer"),
    );
    told.socket("control connection", incident.control.as_ref());
    told.socket("data connection", incident.data.as_ref());
    told.thread(incident.thread.as_ref());
    told.quarantine(incident.quarantine.as_ref());
    told.out
}

struct Lines {
    out: String,
    look: Look,
}

impl Lines {
    fn line(&mut self, label: &str, text: &str) {
        let label = self.look.paint(Tone::Head, &format!("{label:<LABEL$}"));
        let _ = writeln!(self.out, "{label}{text}");
    }

    fn head(&mut self, incident: &Incident) {
        self.line("incident", &incident.id.to_string());
        let (slot, epoch) = (incident.slot, incident.epoch);
        self.line(
            "where",
            &format!(
                "route {}, slot {slot}, epoch {epoch}",
                escape(&incident.route)
            ),
        );
        let file = incident.file.as_deref().map(escape);
        self.line("file", file.as_deref().unwrap_or("none in work"));
        self.line("phase", &escape(&incident.phase));
        let cause = self.look.paint(Tone::Bad, &escape(&incident.cause));
        let text = match meaning(&incident.cause) {
            Some(meaning) => format!("{cause}: {meaning}"),
            None => cause,
        };
        self.line("cause", &text);
    }

    fn times(&mut self, incident: &Incident) {
        let (last, found) = (incident.last_sign_of_life, incident.detected_at);
        self.line("last sign of life", &exactly(last));
        let text = format!("{}, {} of silence", exactly(found), span(found - last));
        self.line("found", &text);
        let text = match incident.recovered_at {
            Some(at) => format!("{}, {} after that", exactly(at), span(at - found)),
            None => self
                .look
                .paint(Tone::Watch, "not yet: the file is not delivered"),
        };
        self.line("recovered", &text);
    }

    fn socket(&mut self, label: &str, socket: Option<&SocketReport>) {
        let Some(socket) = socket else {
            return self.line(label, "none");
        };
        let end = |address: &Option<String>| {
            let address = address.as_deref().map(escape);
            address.map_or_else(|| "unknown".to_owned(), |a| a.into_owned())
        };
        let (local, peer) = (end(&socket.local), end(&socket.peer));
        self.line(
            label,
            &format!("{local} to {peer}, {}", escape(&socket.state)),
        );
        self.line(
            "",
            &format!(
                "unsent {}, unacknowledged {}, retransmits {}, probes {}",
                size(socket.unsent),
                size(socket.unacked),
                socket.retransmits,
                socket.probes
            ),
        );
        let ago = span(socket.last_data_received_ago);
        let text = format!(
            "round trip {:.1} ms, last data received {ago} ago",
            socket.rtt * 1e3
        );
        self.line("", &text);
    }

    fn thread(&mut self, thread: Option<&ThreadReport>) {
        let Some(thread) = thread else {
            return self.line("thread", "not known");
        };
        let call = match thread.syscall {
            Some(number) => format!("in system call {number}"),
            None => "in no system call".to_owned(),
        };
        let waits = match thread.wait_channel.as_str() {
            "" | "0" => String::new(),
            channel => format!(", waits in {}", escape(channel)),
        };
        let (state, used) = (escape(&thread.state), span(thread.cpu_seconds));
        self.line(
            "thread",
            &format!("state {state}, {call}{waits}, CPU time {used}"),
        );
    }

    fn quarantine(&mut self, stay: Option<&QuarantineReport>) {
        let Some(stay) = stay else {
            return self.line("quarantine", "nothing to hold: no connection was open");
        };
        self.line("quarantine", &format!("entered {}", exactly(stay.entered)));
        let text = match stay.released {
            None => "still held".to_owned(),
            Some(at) => {
                let reason = stay
                    .reason
                    .as_deref()
                    .map_or_else(|| "unknown".into(), escape);
                let held = span(at - stay.entered);
                format!("released {}, after {held}, reason: {reason}", exactly(at))
            }
        };
        self.line("", &text);
        if let Some(peer) = &stay.peer {
            self.line("peer meanwhile", &escape(peer));
        }
    }
}

/// A cause in words.
fn meaning(cause: &str) -> Option<&'static str> {
    Some(match cause {
        "path_dead" => "the peer acknowledges nothing any more",
        "zero_window" => "the peer lives, but has stopped reading",
        "silent_server" => "the server owes a reply and sends none",
        "no_data_connection" => "the data connection does not come about",
        "disk" => "the local file or its disk does not answer",
        "dns" => "the name look-up does not answer",
        "cpu_loop" => "the worker's thread computes without end",
        "lock" => "the worker waits for a lock",
        "unknown" => "the evidence does not tell",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident() -> Incident {
        let socket = |port: u16, unsent| SocketReport {
            local: Some("127.0.0.1:40000".into()),
            peer: Some(format!("127.0.0.1:{port}")),
            state: "ESTAB".into(),
            unsent,
            rtt: 0.0123,
            last_data_received_ago: 75.0,
            ..Default::default()
        };
        Incident {
            id: 3,
            route: "main".into(),
            slot: 1,
            epoch: 4,
            file: Some("a\x1b.bin".into()),
            phase: "transfer".into(),
            cause: "zero_window".into(),
            last_sign_of_life: 1_767_323_040.0,
            detected_at: 1_767_323_045.5,
            recovered_at: Some(1_767_323_047.0),
            bytes_sent: 1 << 20,
            bytes_acked: 1 << 19,
            control: Some(socket(21, 0)),
            data: Some(socket(2021, 2048)),
            thread: Some(ThreadReport {
                state: "S".into(),
                syscall: Some(44),
                wait_channel: "sk_stream_wait_memory".into(),
                cpu_seconds: 0.25,
            }),
            quarantine: Some(QuarantineReport {
                entered: 1_767_323_045.5,
                released: Some(1_767_323_105.5),
                reason: Some("hold".into()),
                peer: Some("data ESTAB, took 0 bytes".into()),
            }),
        }
    }

    #[test]
    fn the_whole_story_is_told() {
        let expected = "\
incident           3
where              route main, slot 1, epoch 4
file               a\\x1b.bin
phase              transfer
cause              zero_window: the peer lives, but has stopped reading
last sign of life  2026-01-02T03:04:00.000Z
found              2026-01-02T03:04:05.500Z, 5.5s of silence
recovered          2026-01-02T03:04:07.000Z, 1.5s after that
bytes              1.0 MiB given to the kernel, 512.0 KiB acknowledged by the peer
control connection 127.0.0.1:40000 to 127.0.0.1:21, ESTAB
                   unsent 0 B, unacknowledged 0 B, retransmits 0, probes 0
                   round trip 12.3 ms, last data received 1m 15s ago
data connection    127.0.0.1:40000 to 127.0.0.1:2021, ESTAB
                   unsent 2.0 KiB, unacknowledged 0 B, retransmits 0, probes 0
                   round trip 12.3 ms, last data received 1m 15s ago
thread             state S, in system call 44, waits in sk_stream_wait_memory, CPU time 0.2s
quarantine         entered 2026-01-02T03:04:05.500Z
                   released 2026-01-02T03:05:05.500Z, after 1m 0s, reason: hold
peer meanwhile     data ESTAB, took 0 bytes
";
        assert_eq!(story(&incident(), Look::default()), expected);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let bare = Incident {
            cause: "new_cause".into(),
            ..Default::default()
        };
        let told = story(&bare, Look::default());
        for text in [
            "file               none in work\n",
            "cause              new_cause\n",
            "recovered          not yet",
            "control connection none\n",
            "thread             not known\n",
            "nothing to hold",
        ] {
            assert!(told.contains(text), "{text} in {told}");
        }
    }

    #[test]
    fn every_cause_has_its_meaning() {
        for cause in crate::core::names::Cause::ALL {
            assert!(meaning(cause.as_str()).is_some(), "{cause:?}");
        }
    }
}
