//! The guard as somebody else's program: what its own program says is passed on to whoever watches
//! the guard (systemd, or another guard), under the guard's own process id; and that watcher's beat
//! is sent from the guard's own loop.

use std::time::Duration;

use super::message::Message;
use super::service::Watcher;
use crate::core::Mono;

/// The variables of the protocol; a program gets its own.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The way upwards; leads nowhere where nobody watches.
#[derive(Debug)]
pub struct Upwards {
    watcher: Option<Watcher>,
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
            every: half.filter(|half| *half >= Duration::from_millis(1)),
            next: Mono::ZERO,
            ready: false,
        }
    }

    /// Sends a message. One that nobody takes is lost: the guard waits for nobody.
    pub fn tell(&self, text: &str) {
        if let Some(watcher) = &self.watcher {
            let _ = watcher.send(text);
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
    pub fn pass_on(&self, message: &Message, moving: bool) {
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
            self.tell(&lines.join("\n"));
        }
    }

    /// When the next beat is due.
    pub fn due(&self) -> Option<Mono> {
        let beats = self.ready && self.watcher.is_some();
        self.every.filter(|_| beats).map(|_| self.next)
    }

    /// Sends the beat if it is due.
    pub fn beat(&mut self, now: Mono) {
        if let (Some(due), Some(every)) = (self.due(), self.every)
            && now >= due
        {
            self.tell("WATCHDOG=1");
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
        up.beat(ms(5000));
        assert_eq!((up.due(), above.heard().len()), (None, 0));
        up.ready(ms(5000));
        up.beat(ms(5000));
        up.beat(ms(6499));
        up.beat(ms(6500));
        assert_eq!(above.heard(), ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        assert_eq!(up.due(), Some(ms(8000)));
        let mut unasked = above.below(None);
        unasked.ready(ms(0));
        assert_eq!(unasked.due(), None, "no beat is asked for");
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
    fn without_a_watcher_nothing_is_sent() {
        let mut up = Upwards::to(None);
        up.ready(ms(0));
        up.beat(ms(0));
        assert_eq!(up.due(), None);
    }
}
