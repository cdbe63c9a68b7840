//! The fence against real sockets and threads: every wait ends, no stranger is hit.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Runs `work` as a worker on a kept data socket, ends it when it sleeps in the kernel (or
/// at once), and returns what it came back with, the stranded socket and the peer.
fn ended<T: Send + 'static>(
    wait_for_sleep: bool,
    work: impl FnOnce(TcpStream, &Fence) -> T + Send + 'static,
) -> (T, OwnedFd, TcpStream) {
    let (client, server) = pair();
    let fence = Arc::new(Fence::new().unwrap());
    fence.keep(Which::Data, client.as_fd()).unwrap().unwrap();
    let (tell, told) = mpsc::channel();
    let worker = std::thread::spawn({
        let fence = Arc::clone(&fence);
        move || {
            let _attached = fence.attach();
            fence.next_phase();
            tell.send(thread::id()).unwrap();
            work(client, &fence)
        }
    });
    let id = told.recv().unwrap();
    while wait_for_sleep && thread::story(id).is_none_or(|s| s.state != "S") {
        std::thread::yield_now();
    }
    let pair = fence.end();
    let result = worker.join().unwrap();
    assert!(fence.finished());
    (result, pair.data.expect("the data socket was kept"), server)
}

fn fill(mut stream: TcpStream) -> io::Error {
    loop {
        if let Err(error) = stream.write(&[0u8; 65536]) {
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return error;
        }
    }
}

#[test]
fn a_blocked_write_ends_and_the_connection_stays() {
    let (error, kept, _server) = ended(true, |stream, _| fill(stream));
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let shown = socket::sample(kept.as_fd()).unwrap();
    assert_eq!(shown.state, crate::core::evidence::tcp::ESTABLISHED);
}

#[test]
fn a_blocked_read_ends() {
    let (read, ..) = ended(true, |mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all.len())
    });
    assert_eq!(read.unwrap(), 0);
}

#[test]
fn a_wait_ends() {
    let (woken, ..) = ended(true, |_stream, fence| {
        let woken = fence.wait(None, None).unwrap();
        (woken, fence.ended())
    });
    assert_eq!(woken, (Woken::Wake, true));
}

#[test]
fn an_end_at_any_moment_is_not_missed() {
    for _ in 0..500 {
        let (error, ..) = ended(false, |stream, _| fill(stream));
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn an_ended_worker_gets_no_new_socket() {
    let (client, _server) = pair();
    let fence = Fence::new().unwrap();
    fence.end();
    assert_eq!(
        fence.keep(Which::Data, client.as_fd()).unwrap(),
        Err(Stopped)
    );
}

#[test]
fn a_stranger_that_got_the_number_is_not_hit() {
    let (client, _server) = pair();
    let fence = Arc::new(Fence::new().unwrap());
    fence.keep(Which::Data, client.as_fd()).unwrap().unwrap();
    let (stranger, mut other) = pair();
    // The worker closes its socket; a stranger's connection gets its number.
    let number = client.into_raw_fd();
    let stranger = stranger.into_raw_fd();
    // SAFETY: both numbers are owned by this test from here on.
    let mut reused = unsafe {
        libc::dup2(stranger, number);
        libc::close(stranger);
        <TcpStream as std::os::fd::FromRawFd>::from_raw_fd(number)
    };
    let _attached = fence.attach();
    fence.end();
    reused.write_all(b"x").unwrap();
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 1);
}

#[test]
fn an_interrupt_of_an_older_phase_is_void() {
    let (client, mut server) = pair();
    let fence = Arc::new(Fence::new().unwrap());
    fence.keep(Which::Data, client.as_fd()).unwrap().unwrap();
    let _attached = fence.attach();
    let old = fence.next_phase();
    fence.next_phase();
    fence.interrupt(old);
    (&client).write_all(b"x").unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 1);
    fence.interrupt(fence.phase());
    assert_eq!(
        (&client).write(b"x").unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}
