//! The end of a story: every file is compared once more with what was dropped, and what the demo
//! has shown is counted up. Whole means on the server under its name, or still in the spool.

use super::cast::Found;
use super::complain;
use super::story::Story;
use super::tell::seconds;
use crate::app::End;

impl Story {
    /// Tells how it ended; whether every file came through whole.
    pub(super) fn summary(&mut self, failure: Option<String>, ended: Result<End, String>) -> bool {
        let failure = match (failure, ended) {
            (Some(why), _) => Some(why),
            (None, Err(why)) => Some(why),
            (None, Ok(End::Escalated)) => Some("the service could not heal itself".into()),
            (None, Ok(End::Done)) => None,
        };
        let mut counts = Counts::default();
        for (name, file) in self.cast.all() {
            match (file.delivered.is_some(), self.cast.on_server(name)) {
                (true, Found::Whole) => counts.whole += 1,
                // In doubt until the service asks again; what stands there is right.
                (false, Found::Whole) => counts.waiting += 1,
                (false, found)
                    if (found == Found::Absent || file.stale)
                        && self.cast.in_spool(name) == Found::Whole =>
                {
                    counts.waiting += 1;
                }
                _ => counts.bad.push(name.to_owned()),
            }
        }
        counts.bad.append(&mut self.tally.torn);
        counts.bad.sort();
        counts.bad.dedup();
        self.say_summary(&counts);
        let whole = counts.bad.is_empty();
        if !whole {
            complain(&format!("not whole: {}", counts.bad.join(", ")));
        }
        if let Some(why) = &failure {
            complain(why);
        }
        let goodbye = match self.play.place.temporary() {
            true => format!("Goodbye; {} is removed.", self.play.place.dir().display()),
            false => format!(
                "Goodbye; everything is kept in {}.",
                self.play.place.dir().display()
            ),
        };
        self.play.tell.line("");
        self.play.tell.line(&goodbye);
        whole && failure.is_none()
    }

    fn say_summary(&mut self, counts: &Counts) {
        self.play.tell.heading("Summary");
        let dropped = self.cast.all().count();
        let mut files = format!("{dropped} dropped, {} delivered whole", counts.whole);
        if counts.waiting > 0 {
            files = format!(
                "{files}, {} still waiting in the spool, whole (a service sends them at its next \
                 start)",
                counts.waiting
            );
        }
        if !counts.bad.is_empty() {
            files = format!("{files}, {} NOT WHOLE", counts.bad.len());
        }
        let mut causes = self.tally.causes.clone();
        causes.sort();
        causes.dedup();
        let named = if causes.is_empty() {
            String::new()
        } else {
            format!(" ({})", causes.join(", "))
        };
        let deadlocks = self.tally.causes.len();
        let failures = self.tally.failures;
        let stuck = seconds(self.tally.stuck);
        let mut released = Vec::new();
        for reason in ["full", "hold", "seats", "memory", "resume", "shutdown"] {
            match self.tally.released.iter().filter(|r| *r == reason).count() {
                0 => {}
                n => released.push(format!("{n} {reason}")),
            }
        }
        let tell = &mut self.play.tell;
        tell.fact("files", &files);
        tell.fact(
            "deadlocks",
            &match deadlocks {
                0 => "none".to_owned(),
                n => format!("{n}{named}, each ended and replaced by a fresh uploader"),
            },
        );
        tell.fact(
            "failures",
            &match failures {
                0 => "none".to_owned(),
                1 => "1 failed attempt, tried again".to_owned(),
                n => format!("{n} failed attempts, each tried again"),
            },
        );
        if !released.is_empty() {
            tell.fact(
                "released",
                &format!("{} from the quarantine", released.join(", ")),
            );
        }
        tell.fact(
            "stuck",
            &format!("{stuck} at most, from the fault to the delivery"),
        );
    }
}

#[derive(Default)]
struct Counts {
    whole: usize,
    waiting: usize,
    bad: Vec<String>,
}
