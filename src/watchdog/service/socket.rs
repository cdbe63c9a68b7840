//! The socket to the watcher (sd_notify(3)): its address from the environment, and datagrams that
//! are sent or not, at once. A watcher that makes its socket anew is found again, since nothing is
//! connected. Whoever receives learns the sender from the kernel.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The variable in which the service's own guard tells at which intervals it judges pulses and
/// software beats, in microseconds with a colon between. The service must keep to these whatever
/// its settings say: they are read anew at each of its starts, the guard's only once.
pub const INTERVALS: &str = "X_FTPULSE_INTERVALS";

/// The way to the watcher, and what it demands.
#[derive(Debug)]
pub struct Watcher {
    socket: UnixDatagram,
    address: SocketAddr,
    within: Option<Duration>,
    intervals: Option<(Duration, Duration)>,
}

impl Watcher {
    /// The one that the environment names, if there is one (`NOTIFY_SOCKET`, `WATCHDOG_USEC`,
    /// `WATCHDOG_PID`).
    ///
    /// # Errors
    /// A sentence: what it names is no socket that can be spoken to.
    pub fn of_environment() -> Result<Option<Self>, String> {
        Self::of(|name| std::env::var_os(name), std::process::id())
    }

    pub(in crate::watchdog) fn of(
        get: impl Fn(&str) -> Option<OsString>,
        pid: u32,
    ) -> Result<Option<Self>, String> {
        let Some(name) = get("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let wrong = |why: &str| {
            let name = crate::log::escape_bytes(name.as_bytes()).into_owned();
            format!(
                "NOTIFY_SOCKET is {name}: {why}; whoever started this process is told nothing, \
                and may end it"
            )
        };
        let address = address(&name).map_err(|e| wrong(&e))?;
        let socket = UnixDatagram::unbound().map_err(|e| wrong(&e.to_string()))?;
        socket
            .set_nonblocking(true)
            .map_err(|e| wrong(&e.to_string()))?;
        let number = |name: &str| get(name)?.to_str()?.parse::<u64>().ok();
        // Inherited from a parent that is watched itself: not ours.
        let ours = match get("WATCHDOG_PID") {
            None => true,
            Some(_) => number("WATCHDOG_PID") == Some(pid.into()),
        };
        let demanded = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Ok(Some(Self {
            socket,
            address,
            within: demanded.map(Duration::from_micros),
            intervals: get(INTERVALS)
                .filter(|_| ours)
                .and_then(|text| intervals(&text)),
        }))
    }

    /// Within which time it wants a software beat, if it says so.
    pub fn within(&self) -> Option<Duration> {
        self.within
    }

    /// The pulse's and the software beat's interval, if it is a guard that told its own.
    pub fn intervals(&self) -> Option<(Duration, Duration)> {
        self.intervals
    }

    /// Sends it, or fails at once.
    ///
    /// # Errors
    /// The watcher's queue is full, or there is no watcher.
    pub fn send(&self, assignments: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(assignments.as_bytes(), &self.address)
            .map(drop)
    }
}

/// The value of [`INTERVALS`] for these.
pub(in crate::watchdog) fn told(pulse: Duration, software: Duration) -> OsString {
    format!("{}:{}", pulse.as_micros(), software.as_micros()).into()
}

fn intervals(text: &OsStr) -> Option<(Duration, Duration)> {
    let (pulse, software) = text.to_str()?.split_once(':')?;
    let micros = |text: &str| text.parse().ok().filter(|usec| *usec > 0);
    Some((
        Duration::from_micros(micros(pulse)?),
        Duration::from_micros(micros(software)?),
    ))
}

fn address(name: &OsStr) -> Result<SocketAddr, String> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => return Err("neither a path nor an abstract name (@)".into()),
    };
    address.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher(vars: &[(&str, &str)]) -> Result<Option<Watcher>, String> {
        let get = |name: &str| {
            let var = vars.iter().find(|(n, _)| *n == name);
            var.map(|(_, value)| OsString::from(value))
        };
        Watcher::of(get, 42)
    }

    #[test]
    fn without_a_socket_nobody_watches() {
        assert!(watcher(&[]).unwrap().is_none());
        assert!(watcher(&[("NOTIFY_SOCKET", "")]).unwrap().is_none());
        assert!(watcher(&[("WATCHDOG_USEC", "1000000")]).unwrap().is_none());
    }

    #[test]
    fn a_demand_counts_only_if_it_is_ours() {
        let within = |vars: &[(&str, &str)]| {
            let socket = [("NOTIFY_SOCKET", "/run/x")];
            let vars: Vec<_> = socket.iter().chain(vars).copied().collect();
            watcher(&vars).unwrap().unwrap().within()
        };
        let second = ("WATCHDOG_USEC", "1000000");
        assert_eq!(within(&[]), None);
        assert_eq!(within(&[second]), Some(Duration::from_secs(1)));
        assert_eq!(
            within(&[second, ("WATCHDOG_PID", "42")]),
            Some(Duration::from_secs(1))
        );
        for other in ["43", "", "x"] {
            assert_eq!(within(&[second, ("WATCHDOG_PID", other)]), None);
        }
        for nothing in ["0", "", "-1", "soon"] {
            assert_eq!(within(&[("WATCHDOG_USEC", nothing)]), None);
        }
    }

    #[test]
    fn a_guards_own_intervals_are_read_as_they_are_told_and_only_if_ours() {
        let told = told(Duration::from_millis(1500), Duration::from_secs(7));
        let told = told.to_str().unwrap();
        let read = |text: &str, pid: &str| {
            let vars = [
                ("NOTIFY_SOCKET", "/run/x"),
                (INTERVALS, text),
                ("WATCHDOG_PID", pid),
            ];
            watcher(&vars).unwrap().unwrap().intervals()
        };
        let both = (Duration::from_millis(1500), Duration::from_secs(7));
        assert_eq!(read(told, "42"), Some(both));
        assert_eq!(read(told, "43"), None);
        for nothing in ["", "1", "0:5", "5:0", "a:b", "1:2:3"] {
            assert_eq!(read(nothing, "42"), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_no_socket_is_told_with_its_name() {
        for bad in ["vsock:2:1234", "relative", &format!("/{}", "x".repeat(200))] {
            let error = watcher(&[("NOTIFY_SOCKET", bad)]).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn an_abstract_name_and_a_path_are_reached_and_a_full_queue_never_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let unique = format!("ftpulse-test-{}", std::process::id());
        let abstract_one = SocketAddr::from_abstract_name(&unique).unwrap();
        let ears = [
            (
                path.to_str().unwrap().to_owned(),
                UnixDatagram::bind(&path).unwrap(),
            ),
            (
                format!("@{unique}"),
                UnixDatagram::bind_addr(&abstract_one).unwrap(),
            ),
        ];
        for (name, ear) in ears {
            let watcher = watcher(&[("NOTIFY_SOCKET", &name)]).unwrap().unwrap();
            watcher.send("READY=1").unwrap();
            let mut buffer = [0; 64];
            assert_eq!(ear.recv(&mut buffer).unwrap(), 7);
            let full = (0..100_000).find_map(|_| watcher.send("WATCHDOG=1").err());
            assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
            ear.recv(&mut buffer).unwrap();
            watcher.send("there is room again").unwrap();
            drop(ear);
            assert_eq!(
                watcher.send("WATCHDOG=1").unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
    }
}
