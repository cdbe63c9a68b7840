//! What a TCP socket shows and what may be done to it from outside, all without blocking:
//! evidence (TCP_INFO, queue lengths), identity (SO_COOKIE), options, and the reset.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::core::evidence::Socket;

const SO_COOKIE: libc::c_int = 57;
/// Bytes not yet sent that the kernel takes at most: keeps drain and final reply short.
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// Reads an option of plain old data into `out`; the kernel may write less than all of it.
fn getsockopt<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, out: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `out` is valid for writes of `length` bytes, and every caller passes a T for which
    // any bytes the kernel writes are a valid value (integers and `tcp_info`).
    let result =
        unsafe { libc::getsockopt(fd, level, name, std::ptr::from_mut(out).cast(), &mut length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The socket's identity for the life of the machine: descriptors are reused, cookies are not.
/// Async-signal-safe: one system call, no allocation. 0 if `fd` is no socket.
pub fn cookie(fd: RawFd) -> u64 {
    let mut cookie = 0u64;
    match getsockopt(fd, libc::SOL_SOCKET, SO_COOKIE, &mut cookie) {
        Ok(()) => cookie,
        Err(_) => 0,
    }
}

/// Bytes written and not yet acknowledged by the peer (TIOCOUTQ); 0 if unknown.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> u64 {
    let mut queued: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int to the given pointer, which is valid for it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut queued) };
    if result == 0 {
        u64::try_from(queued).unwrap_or(0)
    } else {
        0
    }
}

/// What the socket shows now. It does not touch SO_ERROR: the worker should see that itself.
pub fn sample(fd: BorrowedFd<'_>) -> Option<Socket> {
    // SAFETY: `tcp_info` consists of integers, for which all zeroes is a valid value.
    let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
    getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).ok()?;
    let unsent = u64::from(info.tcpi_notsent_bytes);
    Some(Socket {
        cookie: cookie(fd.as_raw_fd()),
        state: info.tcpi_state,
        retransmits: info.tcpi_retransmits,
        probes: info.tcpi_probes,
        // The kernel counts our SYN.
        acked: info.tcpi_bytes_acked.saturating_sub(1),
        received: info.tcpi_bytes_received,
        unsent,
        unacked: unacknowledged(fd).saturating_sub(unsent),
        window: info.tcpi_snd_wnd,
        rtt_us: info.tcpi_rtt,
        last_received_ms: info.tcpi_last_data_recv,
    })
}

/// Local and peer address, where they are known.
pub fn addresses(fd: BorrowedFd<'_>) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let socket = SockRef::from(&fd);
    let local = socket.local_addr().ok().and_then(|a| a.as_socket());
    let peer = socket.peer_addr().ok().and_then(|a| a.as_socket());
    (local, peer)
}

/// Makes a new TCP socket for a connection to `peer`, with every option that has to stand before
/// connect: keepalive that tells a dead path from a silent peer within `detection`, a short
/// unsent queue, no delay, non-blocking.
pub fn prepare(peer: &SocketAddr, detection: Duration) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(*peer);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    tune(socket.as_fd(), detection)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Gives a connection the options that `prepare` gives, non-blocking left out.
pub fn tune(fd: BorrowedFd<'_>, detection: Duration) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    let second = Duration::from_secs(1);
    // More probes than the detection takes: the heartbeat convicts, not the kernel, so that the
    // evidence is still there to be read. The kernel takes at most 127: where the detection is
    // longer than two minutes it is the kernel that ends a dead path, with an error.
    let probes = u32::try_from(detection.as_secs())
        .unwrap_or(127)
        .saturating_add(10)
        .min(127);
    let keepalive = TcpKeepalive::new()
        .with_time(second)
        .with_interval(second)
        .with_retries(probes);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_nodelay(true)?;
    set_notsent_lowat(fd, NOTSENT_LOWAT)
}

fn set_notsent_lowat(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    // SAFETY: the option reads one u32 from a pointer that is valid for it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            std::ptr::from_ref(&bytes).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends a connection with a reset and throws away what was not sent (`connect(AF_UNSPEC)`):
/// the peer learns that the transfer failed. A plain shutdown would look like a complete file.
pub fn reset(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `sockaddr` consists of integers, for which all zeroes is a valid value.
    let mut address: libc::sockaddr = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: `address` is valid for reads of its size.
    let result = unsafe {
        libc::connect(
            fd.as_raw_fd(),
            &address,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evidence::tcp;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_sample_tells_state_queue_and_window() {
        let (mut client, _server) = pair();
        client.set_nonblocking(true).unwrap();
        let chunk = vec![0u8; 1 << 16];
        while client.write(&chunk).is_ok() {}
        let shown = sample(client.as_fd()).unwrap();
        assert_eq!(shown.state, tcp::ESTABLISHED);
        assert!(shown.unsent + shown.unacked > 0, "{shown:?}");
        assert_eq!(shown.cookie, cookie(client.as_raw_fd()));
        assert_ne!(shown.cookie, 0);
    }

    #[test]
    fn a_reset_is_no_clean_end() {
        let (client, mut server) = pair();
        reset(client.as_fd()).unwrap();
        let error = server.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_file_has_no_cookie() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(cookie(file.as_raw_fd()), 0);
    }
}
