//! The receiving end of the notify protocol's socket (sd_notify(3)): an abstract datagram socket
//! that leaves nothing behind on any file system, with the sender's process id on each message.
//! Descriptors that come with a message are closed when it is dealt with: that is what `BARRIER=1`
//! waits for, and what is asked of whoever keeps no file descriptor store.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt,
};

/// Credentials, and as many descriptors as one message can hold (SCM_MAX_FD is 253).
const CONTROL: usize = 1200;

/// The receiving end.
#[derive(Debug)]
pub struct Inbox {
    fd: OwnedFd,
    name: String,
}

/// What came with one message.
#[derive(Debug)]
pub struct Letter {
    /// The process that sent it, as the kernel tells; none where it cannot be seen from here.
    pub sender: Option<u32>,
    /// How much of the buffer it fills.
    pub length: usize,
    /// Whether it was longer than the buffer.
    pub cut: bool,
    /// Descriptors that came along; closed with this letter. Until then whoever sent them waits
    /// (`BARRIER=1`), so that it can still be asked who it is.
    _along: Vec<OwnedFd>,
}

impl Inbox {
    /// Opens it under an abstract name that nobody else has.
    ///
    /// # Errors
    /// What socket(2), bind(2) and setsockopt(2) say.
    pub fn open(name: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&fd, true)?;
        bind(&fd, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        let name = format!("@{name}");
        Ok(Self { fd, name })
    }

    /// The value of `NOTIFY_SOCKET` for whoever shall send here.
    pub fn address(&self) -> &str {
        &self.name
    }

    /// The next message; none: there is none. Never waits.
    ///
    /// # Errors
    /// What recvmsg(2) says.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Letter>> {
        let mut control = [0_u64; CONTROL / 8];
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: `msghdr` is a plain struct for which all zero is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
        // SAFETY: the header points to one buffer and one aligned control area, both of the length
        // that it tells, and both outlive the call.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, flags) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let (sender, along) = open_control(&header);
        let length = usize::try_from(length).unwrap_or(0);
        Ok(Some(Letter {
            sender,
            length: length.min(buffer.len()),
            cut: header.msg_flags & libc::MSG_TRUNC != 0 || length > buffer.len(),
            _along: along,
        }))
    }
}

/// The sender's process id, and every descriptor that came along.
// Lengths are of other types in other C libraries.
#[allow(clippy::unnecessary_cast)]
fn open_control(header: &libc::msghdr) -> (Option<u32>, Vec<OwnedFd>) {
    let (mut sender, mut along) = (None, Vec::new());
    // SAFETY: the header was filled in by recvmsg and its control area is still there; the CMSG
    // functions keep within it. Payloads are read unaligned, each only as far as its length says.
    // The descriptors were given to us alone by that very call.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(part) = at.as_ref() {
            let payload = libc::CMSG_DATA(at);
            let length = (part.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            match (part.cmsg_level, part.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                    let of: libc::ucred = payload.cast::<libc::ucred>().read_unaligned();
                    sender = u32::try_from(of.pid).ok().filter(|pid| *pid != 0);
                }
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for index in 0..length / size_of::<libc::c_int>() {
                        let fd = payload.cast::<libc::c_int>().add(index).read_unaligned();
                        along.push(OwnedFd::from_raw_fd(fd));
                    }
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    (sender, along)
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg_addr};
    use std::io::Read;
    use std::mem::MaybeUninit;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn a_message_comes_with_its_sender_and_is_cut_where_it_is_too_long() {
        let name = format!("ftpulse-test-{}-plain", std::process::id());
        let inbox = Inbox::open(&name).unwrap();
        assert_eq!(inbox.address(), format!("@{name}"));
        assert!(Inbox::open(&name).is_err(), "the name is taken");
        let mut buffer = [0; 8];
        assert!(inbox.receive(&mut buffer).unwrap().is_none());
        let outbox = UnixDatagram::unbound().unwrap();
        let to = SocketAddr::from_abstract_name(&name).unwrap();
        for text in ["READY=1", "READY=1\nSTATUS=x", ""] {
            outbox.send_to_addr(text.as_bytes(), &to).unwrap();
        }
        let mut next = || {
            let letter = inbox.receive(&mut buffer).unwrap().unwrap();
            assert_eq!(letter.sender, Some(std::process::id()));
            (buffer[..letter.length].to_vec(), letter.cut)
        };
        assert_eq!(next(), (b"READY=1".to_vec(), false));
        assert_eq!(next(), (b"READY=1\n".to_vec(), true));
        assert_eq!(next(), (Vec::new(), false));
    }

    #[test]
    fn descriptors_that_come_along_are_closed() {
        let name = format!("ftpulse-test-{}-rights", std::process::id());
        let inbox = Inbox::open(&name).unwrap();
        let outbox = UnixDatagram::unbound().unwrap();
        let to = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let fds = [writer.as_fd(), writer.as_fd()];
        assert!(along.push(SendAncillaryMessage::ScmRights(&fds)));
        let text = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg_addr(&outbox, &to, &text, &mut along, SendFlags::empty()).unwrap();
        drop(writer);
        let letter = inbox.receive(&mut [0; 64]).unwrap().unwrap();
        assert_eq!(letter.length, 9);
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        assert!(reader.read(&mut [0]).is_err(), "it is not dealt with yet");
        drop(letter);
        // The end of the pipe: nobody holds its other end.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
