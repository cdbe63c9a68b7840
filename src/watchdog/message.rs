//! What one datagram of the notify protocol says (sd_notify(3)). Pure: bytes in, a message or the
//! reason why it cannot be read out.

use std::time::Duration;

use crate::core::watch::Said;

/// The longest message that is read; systemd reads no longer ones either.
pub const LONGEST: usize = 4096;

/// A readable message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// What is judged.
    pub said: Said,
    /// `STATUS=`: a line for people.
    pub status: Option<String>,
    /// `MAINPID=`: which process is the main one.
    pub main_pid: Option<u32>,
    /// `RELOADING=1`: the settings are read anew; `READY=1` ends it.
    pub reloading: bool,
    /// `MONOTONIC_USEC=`, which comes with a reload.
    pub monotonic: Option<u64>,
}

/// Reads a datagram: lines `NAME=value`. Names that nobody knows are none of our business; a known
/// one with a value that means nothing makes the whole message unreadable.
///
/// # Errors
/// Why it cannot be read.
pub fn read(bytes: &[u8], cut: bool) -> Result<Message, &'static str> {
    if cut {
        return Err("longer than 4096 bytes");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    if text.contains('\0') {
        return Err("with a NUL");
    }
    let mut message = Message::default();
    let mut lines = 0;
    for line in text.lines().filter(|line| !line.is_empty()) {
        lines += 1;
        let (name, value) = line.split_once('=').ok_or("a line without =")?;
        assign(&mut message, name, value)?;
    }
    match lines {
        0 => Err("empty"),
        _ => Ok(message),
    }
}

fn assign(message: &mut Message, name: &str, value: &str) -> Result<(), &'static str> {
    let said = &mut message.said;
    match (name, value) {
        ("", _) => return Err("a line without a name"),
        ("WATCHDOG", "1") => said.beat = true,
        ("WATCHDOG", "trigger") => said.trigger = true,
        ("WATCHDOG", _) => return Err("WATCHDOG is neither 1 nor trigger"),
        ("X_FTPULSE_PULSE", "1") => said.pulse = true,
        ("READY", "1") => said.ready = true,
        ("STOPPING", "1") => said.stopping = true,
        ("RELOADING", "1") => message.reloading = true,
        ("STATUS", text) => message.status = Some(text.to_owned()),
        ("EXTEND_TIMEOUT_USEC", text) => {
            let extend = micros(text).ok_or("EXTEND_TIMEOUT_USEC is no number")?;
            said.extend = Some(extend);
        }
        ("WATCHDOG_USEC", text) => {
            let silence = micros(text).filter(|silence| !silence.is_zero());
            said.silence = Some(silence.ok_or("WATCHDOG_USEC is no number above 0")?);
        }
        ("MAINPID", text) => {
            let pid = text.parse().ok().filter(|pid| *pid != 0);
            message.main_pid = Some(pid.ok_or("MAINPID is no process id")?);
        }
        ("MONOTONIC_USEC", text) => message.monotonic = text.parse().ok(),
        _ => {}
    }
    Ok(())
}

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_sd_notify_knows_is_read() {
        let text = "READY=1\nWATCHDOG=1\nX_FTPULSE_PULSE=1\nSTATUS=all = well\nMAINPID=42\n\
            EXTEND_TIMEOUT_USEC=5000000\nWATCHDOG_USEC=3000000\nRELOADING=1\nMONOTONIC_USEC=7\n\
            STOPPING=1\nBARRIER=1\nFDSTORE=1\nX_OTHER=\n";
        let message = read(text.as_bytes(), false).unwrap();
        let said = Said {
            beat: true,
            pulse: true,
            ready: true,
            stopping: true,
            trigger: false,
            extend: Some(Duration::from_secs(5)),
            silence: Some(Duration::from_secs(3)),
        };
        assert_eq!(
            message,
            Message {
                said,
                status: Some("all = well".into()),
                main_pid: Some(42),
                reloading: true,
                monotonic: Some(7),
            }
        );
        assert!(read(b"WATCHDOG=trigger", false).unwrap().said.trigger);
        // Values that say no are no errors.
        let no = read(b"READY=0\nSTOPPING=0", false).unwrap();
        assert_eq!(no, Message::default());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for garbage in [
            &b""[..],
            b"\n\n",
            b"WATCHDOG",
            b"READY=1\nWATCHDOG",
            b"WATCHDOG=2",
            b"WATCHDOG=",
            b"=1",
            b"WATCHDOG=1\0",
            b"STATUS=\xff\xfe",
            b"MAINPID=0",
            b"MAINPID=me",
            b"EXTEND_TIMEOUT_USEC=-1",
            b"WATCHDOG_USEC=0",
            b"WATCHDOG_USEC=99999999999999999999999",
        ] {
            assert!(read(garbage, false).is_err(), "{garbage:?}");
        }
        assert!(read(b"WATCHDOG=1", true).is_err(), "cut");
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, false);
        }

        #[test]
        fn nor_does_one_that_is_nearly_right(
            parts in prop::collection::vec(("(WATCHDOG|MAINPID|EXTEND_TIMEOUT_USEC|WATCHDOG_USEC|READY|)", "=?", "[0-9a-z\n=-]{0,25}"), 0..6),
        ) {
            let text: String = parts.into_iter().map(|(a, b, c)| a + &b + &c + "\n").collect();
            if let Ok(message) = read(text.as_bytes(), false) {
                prop_assert_ne!(message.said.silence, Some(Duration::ZERO));
                prop_assert_ne!(message.main_pid, Some(0));
            }
        }
    }
}
