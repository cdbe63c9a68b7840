//! The password of a one-shot command: from the environment, or asked for on the terminal without
//! an echo. It stands in no argument and no message.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::stop::Stop;
use crate::config::Secret;
use crate::log::escape;

/// Between two looks whether a signal came while a password is typed.
const LOOK: Duration = Duration::from_millis(100);
/// Far above any password.
const LENGTH_MAX: usize = 4096;

/// The terminal of this process, if it has one.
pub fn terminal() -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    options.custom_flags(flags).open("/dev/tty").ok()
}

/// Asks for the password of `user`; none if a signal came meanwhile.
///
/// # Errors
/// The terminal cannot be used, or was closed.
pub fn ask(mut terminal: File, user: &str, host: &str, stop: &Stop) -> io::Result<Option<Secret>> {
    let usual = tcgetattr(&terminal)?;
    let mut silent = usual.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    // What was typed before was not meant for this question.
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let echo = Echo(terminal.try_clone()?, usual);
    let question = format!("Password of {} at {}: ", escape(user), escape(host));
    terminal.write_all(question.as_bytes())?;
    let line = read_line(&mut terminal, stop);
    drop(echo);
    let Some(line) = line? else {
        writeln!(terminal)?;
        return Ok(None);
    };
    let text = std::str::from_utf8(&line).ok();
    let text = text.map(|text| text.trim_end_matches(['\n', '\r']));
    let text = text.filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| io::Error::other("a password is UTF-8 text of one line"))?;
    Ok(Some(Secret::new(text)))
}

/// Gives the terminal its echo back.
struct Echo(File, Termios);

impl Drop for Echo {
    fn drop(&mut self) {
        // A terminal that is gone needs none.
        let _ = tcsetattr(&self.0, OptionalActions::Drain, &self.1);
    }
}

fn read_line(terminal: &mut File, stop: &Stop) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Made once: a buffer that grows leaves copies behind.
    let (mut line, mut end) = (Zeroizing::new(vec![0; LENGTH_MAX]), 0);
    let look = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(LOOK.subsec_nanos()),
    };
    while !line[..end].ends_with(b"\n") && end < LENGTH_MAX {
        if stop.came().is_some() {
            return Ok(None);
        }
        let ready = {
            let mut fds = [PollFd::from_borrowed_fd(terminal.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&look)) {
                Ok(count) => count > 0,
                Err(rustix::io::Errno::INTR) => false,
                Err(error) => return Err(error.into()),
            }
        };
        if ready {
            match terminal.read(&mut line[end..])? {
                0 => return Err(io::Error::other("nothing was typed")),
                count => end += count,
            }
        }
    }
    line.truncate(end);
    Ok(Some(line))
}
