//! The guard as somebody else's program: what its own program says is passed on to whoever watches
//! the guard (systemd, or another guard), under the guard's own process id; and that watcher's beat
//! is sent from the guard's own loop.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::Message;
use super::service::Watcher;
use crate::core::Mono;

/// The variables of the protocol; a program gets its own.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// More than that is stale; the oldest goes first.
const OWED: usize = 16;
/// How soon what was not taken is said again.
const AGAIN: Duration = Duration::from_millis(100);

/// The way upwards; leads nowhere where nobody watches.
#[derive(Debug)]
pub struct Upwards {
    watcher: Option<Watcher>,
    /// What the watcher's queue did not take.
    owed: VecDeque<String>,
    /// Half of the time that the watcher grants between two beats.
    every: Option<Duration>,
    next: Mono,
    ready: bool,
}

impl Upwards {
    /// As this process's environment tells; the text is what is wrong with it.
    pub fn of_process() -> (Self, Option<String>) {
        match Watcher::of_environment() {
            Ok(watcher) => (Self::to(watcher), None),
            Err(wrong) => (Self::to(None), Some(wrong)),
        }
    }

    fn to(watcher: Option<Watcher>) -> Self {
        let within = watcher.as_ref().and_then(Watcher::within);
        let half = within.map(|within| within / 2);
        Self {
            watcher,
            owed: VecDeque::new(),
            every: half.filter(|half| *half >= Duration::from_millis(1)),
            next: Mono::ZERO,
            ready: false,
        }
    }

    /// Says something, now or as soon as the watcher's queue has room.
    pub fn tell(&mut self, text: impl Into<String>) {
        if self.watcher.is_some() {
            self.owed.push_back(text.into());
            if self.owed.len() > OWED {
                self.owed.pop_front();
            }
            self.pay();
        }
    }

    /// Says what is owed, in its order, as far as it is taken.
    fn pay(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        while let Some(text) = self.owed.front() {
            if watcher.send(text).is_err() {
                return;
            }
            self.owed.pop_front();
        }
    }

    /// The program is ready for the first time, or once more.
    pub fn ready(&mut self, now: Mono) {
        self.tell("READY=1");
        // A beat before that could be taken for it.
        self.ready = true;
        self.next = now;
    }

    /// Passes on what the program said of its state; `moving` while it starts or ends.
    pub fn pass_on(&mut self, message: &Message, moving: bool) {
        let mut lines = Vec::new();
        if message.reloading {
            lines.push("RELOADING=1".to_owned());
            lines.extend(message.monotonic.map(|at| format!("MONOTONIC_USEC={at}")));
        } else if message.said.ready && self.ready {
            lines.push("READY=1".to_owned());
        }
        lines.extend(message.status.as_ref().map(|text| format!("STATUS={text}")));
        let extend = message.said.extend.filter(|_| moving);
        lines.extend(extend.map(|by| format!("EXTEND_TIMEOUT_USEC={}", by.as_micros())));
        if !lines.is_empty() {
            self.tell(lines.join("\n"));
        }
    }

    /// When the next beat is due.
    fn beat_due(&self) -> Option<Mono> {
        let beats = self.ready && self.watcher.is_some();
        self.every.filter(|_| beats).map(|_| self.next)
    }

    /// When there is something to do.
    pub fn due(&self, now: Mono) -> Option<Mono> {
        let again = (!self.owed.is_empty()).then_some(now + AGAIN);
        again.into_iter().chain(self.beat_due()).min()
    }

    /// Says what is owed, and sends the beat if it is due; one that is not taken is not owed.
    pub fn turn(&mut self, now: Mono) {
        self.pay();
        if let (Some(due), Some(every), Some(watcher)) =
            (self.beat_due(), self.every, &self.watcher)
            && now >= due
        {
            let _ = watcher.send("WATCHDOG=1");
            self.next = now + every;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::watch::Said;
    use std::ffi::OsString;
    use std::os::unix::net::UnixDatagram;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    struct Above {
        _folder: tempfile::TempDir,
        socket: UnixDatagram,
        path: OsString,
    }

    impl Above {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let path = path.into();
            Self {
                _folder: folder,
                socket,
                path,
            }
        }

        fn below(&self, usec: Option<&str>) -> Upwards {
            let get = |name: &str| match name {
                "NOTIFY_SOCKET" => Some(self.path.clone()),
                "WATCHDOG_USEC" => usec.map(OsString::from),
                _ => None,
            };
            Upwards::to(Watcher::of(get, 7).unwrap())
        }

        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 1000];
            let next = || {
                self.socket
                    .recv(&mut buffer)
                    .ok()
                    .map(|n| buffer[..n].to_vec())
            };
            let all = std::iter::from_fn(next);
            all.map(|bytes| String::from_utf8(bytes).unwrap()).collect()
        }
    }

    #[test]
    fn beats_go_up_from_ready_on_at_half_of_the_granted_time() {
        let above = Above::new();
        let mut up = above.below(Some("3000000"));
        up.turn(ms(5000));
        assert_eq!((up.due(ms(0)), above.heard().len()), (None, 0));
        up.ready(ms(5000));
        up.turn(ms(5000));
        up.turn(ms(6499));
        up.turn(ms(6500));
        assert_eq!(above.heard(), ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        assert_eq!(up.due(ms(0)), Some(ms(8000)));
        let mut unasked = above.below(None);
        unasked.ready(ms(0));
        assert_eq!(unasked.due(ms(0)), None, "no beat is asked for");
    }

    #[test]
    fn states_are_passed_on_and_nothing_else() {
        let above = Above::new();
        let mut up = above.below(None);
        let said = Said {
            ready: true,
            beat: true,
            extend: Some(ms(2)),
            ..Said::default()
        };
        let message = Message {
            said,
            status: Some("busy".into()),
            main_pid: Some(3),
            ..Message::default()
        };
        up.pass_on(&message, true);
        up.ready(ms(0));
        up.pass_on(&message, false);
        let reloading = Message {
            reloading: true,
            monotonic: Some(9),
            ..Message::default()
        };
        up.pass_on(&reloading, false);
        up.pass_on(&Message::default(), true);
        assert_eq!(
            above.heard(),
            [
                "STATUS=busy\nEXTEND_TIMEOUT_USEC=2000",
                "READY=1",
                "READY=1\nSTATUS=busy",
                "RELOADING=1\nMONOTONIC_USEC=9"
            ]
        );
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_said_again_in_its_order() {
        let above = Above::new();
        let mut up = above.below(None);
        let mut said = 0;
        while up.due(ms(0)).is_none() {
            up.tell(said.to_string());
            said += 1;
            assert!(said < 100_000);
        }
        up.tell("the last");
        let heard = above.heard();
        assert_eq!(heard.len(), said - 1);
        up.turn(ms(1));
        assert_eq!(
            above.heard(),
            [(said - 1).to_string(), "the last".to_owned()]
        );
        assert_eq!(up.due(ms(1)), None);
        // Nobody listens any more: it does not grow.
        drop(above);
        (0..100).for_each(|n| up.tell(n.to_string()));
        assert_eq!(up.owed.len(), OWED);
    }

    #[test]
    fn without_a_watcher_nothing_is_sent() {
        let mut up = Upwards::to(None);
        up.ready(ms(0));
        up.turn(ms(0));
        assert_eq!(up.due(ms(0)), None);
    }
}
