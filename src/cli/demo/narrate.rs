//! The words of a story: what happened, why, and what comes next, each from a fact that the
//! service or the server has told.

use super::cast::{Dropped, Found};
use super::story::Story;
use super::tell::{Tone, seconds};
use crate::cli::tap::Note;
use crate::cli::words::size;
use crate::clock::mono;
use crate::lab::{Expected, TransferEnd};

/// The settings that a demo shortens, as it prints them.
const SHOWN: &[&str] = &[
    "heartbeat.interval",
    "heartbeat.misses",
    "timers.stall",
    "timers.reply",
    "quarantine.capacity",
    "quarantine.hold",
];

impl Story {
    pub(super) fn setting(&self, key: &str) -> &str {
        let found = self.play.settings.iter().find(|setting| setting.key == key);
        found.map_or("", |setting| &setting.value)
    }

    pub(super) fn say(&mut self, tone: Tone, label: &str, text: &str) {
        self.play.tell.step(tone, label, text);
    }

    pub(super) fn introduce(&mut self, http: &str) {
        let shown = SHOWN
            .iter()
            .map(|key| format!("{key} {}", self.setting(key)));
        let shown = shown.collect::<Vec<_>>().join(", ");
        let (named, place) = (self.play.named, self.play.place.clone());
        let log = if self.play.log_shown {
            "on standard error".to_owned()
        } else {
            place.log().display().to_string()
        };
        let seen = match named.expected {
            Expected::Deadlock => "a deadlock, which only the heartbeat can find",
            Expected::Timeout => "a timeout of the phase that waits",
            Expected::Error => "an error that the server or the kernel reports",
            Expected::Success => "slowness, which is no fault: nothing may be reset",
        };
        let server = format!(
            "{} (embedded, misbehaves when told to)",
            self.play.lab.url("incoming")
        );
        let tell = &mut self.play.tell;
        tell.line("ftpulse demo: the service, an FTP server that misbehaves, and what comes of it");
        tell.line("");
        tell.fact("status", &format!("{http}/"));
        tell.fact("metrics", &format!("{http}/metrics"));
        tell.fact(
            "spool",
            &format!(
                "{} (files of your own are sent too)",
                place.spool().display()
            ),
        );
        tell.fact("server", &server);
        tell.fact(
            "its files",
            &place.server().join("incoming").display().to_string(),
        );
        tell.fact("log", &log);
        tell.fact("fault", &format!("{}: {}", named.name, named.about));
        tell.fact("expected", seen);
        tell.fact(
            "timers",
            &format!("{shown} (short, so that nobody has to wait)"),
        );
    }

    pub(super) fn say_struck(&mut self) {
        let text = format!("{} ({})", self.play.named.about, self.scene.file);
        self.say(Tone::Bad, "FAULT", &text);
    }

    pub(super) fn say_vouched(&mut self, phase: &str) {
        let (stall, reply) = (self.setting("timers.stall"), self.setting("timers.reply"));
        let why = match phase {
            "transfer" | "drain" if self.expects(Expected::Success) => {
                "the peer takes bytes, however slowly: that is no wedge".to_owned()
            }
            "transfer" | "drain" => format!(
                "no byte moves, but the connection lives: it may be a slow reader, so the \
                 heartbeat gives it timers.stall ({stall})"
            ),
            "greeting" | "reply" | "final_reply" => format!(
                "the server owes a reply and its connection lives: the heartbeat waits with the \
                 uploader, at most for timers.reply ({reply})"
            ),
            _ => format!("the uploader waits in {phase}, which has a timer of its own"),
        };
        self.say(Tone::Watch, "vouched for", &why);
    }

    pub(super) fn say_missed(&mut self, missed: u32) {
        let tolerated = self.play.misses;
        let next = if missed >= tolerated {
            "the next one convicts"
        } else {
            "it is watched"
        };
        let text = format!("{missed} in a row of {tolerated} tolerated; {next}");
        self.say(Tone::Watch, "missed beat", &text);
    }

    /// A data connection ended on the server's side.
    pub(super) fn say_data_ended(&mut self, session: u64, how: TransferEnd) {
        if how == TransferEnd::Reset && self.sessions.remove(&session) {
            self.tally.resets += 1;
            self.say_resets();
        }
    }

    /// Tells of the resets that belong to a release which was told: the server can be faster.
    fn say_resets(&mut self) {
        while self.tally.resets_told < self.tally.resets.min(self.tally.released.len()) {
            self.tally.resets_told += 1;
            let text = "by the server: it knows that this upload failed and publishes nothing";
            self.say(Tone::Plain, "reset seen", text);
        }
    }

    /// A temp name of the wedged file was deleted on the server.
    pub(super) fn say_deleted(&mut self, path: &str) {
        if !self.first_fence(path) {
            return;
        }
        let text = if self.scene.failed {
            "the old temp file is deleted on the server before anything else: should the old \
             session wake up, there is nothing left that it could publish"
        } else {
            "the half file is deleted on the server; nobody has seen it under its final name"
        };
        self.say(Tone::Plain, "fenced", text);
    }

    /// A temp name of the wedged file got a fresh one.
    pub(super) fn say_renamed(&mut self, path: &str) {
        if self.first_fence(path) {
            let text = "the server has the whole file: it gets a fresh temp name, out of reach of \
                        the old session, and is published; nothing is sent twice";
            self.say(Tone::Plain, "fenced", text);
        }
    }

    /// Whether this is the first that the successor does about the wedged upload.
    fn first_fence(&mut self, path: &str) -> bool {
        let first = self.scene.struck.is_some()
            && !self.scene.fenced
            && path.contains(&self.scene.file)
            && !self.cast.through(&[&self.scene.file]);
        self.scene.fenced |= first;
        first
    }

    pub(super) fn say_stopping(&mut self) {
        let grace = self.setting("shutdown.grace").to_owned();
        self.play.tell.line("");
        let text =
            format!("what is in work is finished, for at most {grace}; nothing new is begun");
        self.say(Tone::Plain, "stopping", &text);
    }

    /// Notes what the service tells in its log.
    pub(super) fn heard(&mut self, note: &Note) {
        match note.message.as_str() {
            "deadlock found" => self.say_deadlock(note),
            "uploader reset" => {
                let text = format!(
                    "the old upload thread is ended, epoch {} takes its place",
                    note.fact("epoch")
                );
                self.say(Tone::Good, "fresh", &text);
            }
            "sockets quarantined" => self.say_quarantined(note),
            "sockets released" => self.say_released(note),
            "file delivered" => self.say_delivered(note.fact("file")),
            "upload failed" => self.say_failed(note),
            "the destination gives no session" => {
                self.tally.failures += 1;
                let text = format!("{}; {}", note.fact("error"), note.fact("next"));
                self.say(Tone::Watch, "no session", &text);
            }
            // Plain FTP with a password: it is the demo's own server.
            "configuration" => {}
            _ if note.warning => {
                let error = match note.fact("error") {
                    "" => String::new(),
                    error => format!(": {error}"),
                };
                let text = format!("{}{error}; {}", note.message, note.fact("next"));
                self.say(Tone::Watch, "note", &text);
            }
            _ => {}
        }
    }

    fn say_deadlock(&mut self, note: &Note) {
        self.scene.verdict = Some(mono());
        let cause = note.fact("cause").to_owned();
        let text = format!(
            "beat {} missed. Slot {}, epoch {}, phase {}: cause {cause}, {}. {} of {} acknowledged; \
             told at /api/incidents/{}",
            self.play.misses + 1,
            note.fact("slot"),
            note.fact("epoch"),
            note.fact("phase"),
            cause_in_words(&cause),
            size(note.number("bytes_acked") as u64),
            size(
                self.cast
                    .get(note.fact("file"))
                    .map_or(0, |file| file.bytes)
            ),
            note.fact("incident"),
        );
        self.tally.causes.push(cause);
        self.say(Tone::Bad, "DEADLOCK", &text);
    }

    fn capacity(&self) -> usize {
        self.setting("quarantine.capacity").parse().unwrap_or(0)
    }

    fn say_quarantined(&mut self, note: &Note) {
        if self.tally.held >= self.capacity() {
            // The place is made first, by the release that is told next.
            self.at_the_door = true;
            return;
        }
        self.tally.held += 1;
        let bytes = note.number("bytes") as u64;
        let inside = if bytes == 0 {
            String::new()
        } else {
            format!(", {} unsent inside", size(bytes))
        };
        let text = format!(
            "its sockets are put away, still connected{inside}: {} of {} places taken",
            self.tally.held,
            self.capacity()
        );
        self.say(Tone::Plain, "quarantined", &text);
    }

    fn say_released(&mut self, note: &Note) {
        self.tally.held = self.tally.held.saturating_sub(1);
        let reason = note.fact("reason").to_owned();
        let why = match reason.as_str() {
            "full" => "the quarantine is full and the earliest pair has to go",
            "hold" => "it was held long enough",
            "seats" => "the server has no seat left for us",
            "memory" => "it holds too much memory",
            "shutdown" => "the service ends",
            _ => "it is not needed any more",
        };
        let text = format!(
            "the sockets of incident {}, reason {reason}: {why}; the data connection is reset",
            note.fact("incident")
        );
        self.tally.released.push(reason);
        self.say(Tone::Plain, "released", &text);
        self.say_resets();
        if std::mem::take(&mut self.at_the_door) {
            self.tally.held += 1;
            let (held, capacity) = (self.tally.held, self.capacity());
            let text = format!("the new pair has its place: {held} of {capacity} places taken");
            self.say(Tone::Plain, "quarantined", &text);
        }
    }

    fn say_failed(&mut self, note: &Note) {
        self.scene.failed |= note.fact("file") == self.scene.file;
        let doubt = if note.fact("in_doubt") == "true" {
            "; it may have arrived, so the server is asked first"
        } else {
            ""
        };
        if self.scene.verdict.is_some() && note.fact("file") == self.scene.file {
            let text = format!("{}: {}{doubt}", note.fact("file"), note.fact("next"));
            self.say(Tone::Plain, "queued again", &text);
            return;
        }
        self.tally.failures += 1;
        let text = format!(
            "{}: {}; {}{doubt}",
            note.fact("file"),
            note.fact("error"),
            note.fact("next")
        );
        self.say(Tone::Watch, "failed", &text);
    }

    fn say_delivered(&mut self, name: &str) {
        let Some(Dropped { bytes, at, .. }) = self.cast.delivered(name) else {
            self.say(Tone::Good, "delivered", &format!("{name}, a file of yours"));
            return;
        };
        let now = mono();
        let mut text = format!(
            "{name}, {} after it was dropped",
            seconds(now.saturating_sub(at))
        );
        if name == self.scene.file {
            if let Some(verdict) = self.scene.verdict {
                let since = seconds(now.saturating_sub(verdict));
                text = format!("{text}, {since} after the verdict");
            }
            if let Some(struck) = self.scene.struck {
                self.tally.stuck = self.tally.stuck.max(now.saturating_sub(struck));
            }
        }
        self.say(Tone::Good, "delivered", &text);
        match self.cast.on_server(name) {
            Found::Whole => {
                let text = format!("{name}: {} on the server, byte-identical", size(bytes));
                self.say(Tone::Good, "verified", &text);
            }
            Found::Torn | Found::Absent => {
                self.tally.torn.push(name.to_owned());
                let text = format!("{name}: what stands on the server is not what was dropped");
                self.say(Tone::Bad, "NOT WHOLE", &text);
            }
        }
    }
}

fn cause_in_words(cause: &str) -> &'static str {
    match cause {
        "path_dead" => "no packet comes back any more",
        "zero_window" => "the server lives but reads nothing",
        "silent_server" => "the server lives but does not answer",
        "no_data_connection" => "the data connection does not come to be",
        "disk" => "the local disk does not answer",
        "dns" => "the resolver does not answer",
        "cpu_loop" => "the uploader computes without end",
        "lock" => "the uploader waits for a lock",
        _ => "the evidence names nothing",
    }
}
