//! Makes connections: name look-up on a helper thread, non-blocking connect, attempts and
//! pauses (S2). Every socket is kept before it is connected.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::event::PollFlags;
use slog::{Logger, info};

use super::Trouble;
use crate::core::names::Phase;
use crate::core::timers::Attempts;
use crate::pulse::{LookUps, Point, Stop, WorkerHandle};
use crate::sys::fence::Which;
use crate::sys::socket;

/// Pause between two questions whether it is this slot's turn to look a name up.
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// Looks `host` up. getaddrinfo cannot be interrupted, so a helper thread does it; if that
/// outlives the bound it is left behind and counted.
pub fn look_up(
    handle: &Arc<WorkerHandle>,
    look_ups: &LookUps,
    host: &str,
    port: u16,
    bound: Duration,
) -> Result<Vec<SocketAddr>, Trouble> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    handle.begin(Phase::Dns, Some(bound));
    while !look_ups.begin() {
        // Another slot's look-up runs, or is left behind: this one waits within its own bound.
        let waited = handle.wait(None, Some(TURN_PAUSE));
        waited.map_err(|e| Trouble::from_io(handle, "waiting for a name", &e))??;
    }
    // One answer at most.
    let (answer, answered) = mpsc::sync_channel(1);
    let left_behind = Arc::new(AtomicBool::new(false));
    let helper = {
        let (handle, host) = (Arc::clone(handle), host.to_owned());
        let (look_ups, left_behind) = (look_ups.clone(), Arc::clone(&left_behind));
        move || {
            handle.pass(Point::Resolver);
            let found = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            // Nobody may be waiting any more.
            let _ = answer.try_send(found);
            look_ups.end();
            handle.fence.wake();
            if left_behind.swap(true, SeqCst) {
                look_ups.came_back();
            }
        }
    };
    std::thread::Builder::new()
        .name("dns".into())
        .spawn(helper)
        .map_err(|e| {
            look_ups.end();
            Trouble::from_io(handle, "starting the name look-up", &e)
        })?;
    let lost = |error: String| Trouble::Lost {
        phase: Phase::Dns,
        error,
    };
    let leave = |trouble| {
        look_ups.leave_behind();
        if left_behind.swap(true, SeqCst) {
            look_ups.came_back();
        }
        Err(trouble)
    };
    loop {
        match answered.try_recv() {
            Ok(Ok(found)) if !found.is_empty() => return Ok(found),
            Ok(Ok(_)) => return Err(lost(format!("{host} has no address"))),
            Ok(Err(error)) => return Err(lost(format!("looking up {host}: {error}"))),
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(lost(format!(
                    "looking up {host}: the look-up gave no answer"
                )));
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if let Err(stop) = handle.check() {
            return leave(stop.into());
        }
        match handle.fence.wait(None, Some(bound)) {
            Ok(_) => handle.ack(),
            Err(error) => return leave(Trouble::from_io(handle, "waiting for a name", &error)),
        }
    }
}

/// Connects to one of `peers`, in their order, within the attempts.
pub fn connect(
    handle: &WorkerHandle,
    log: &Logger,
    which: Which,
    peers: &[SocketAddr],
    attempts: Attempts,
    detection: Duration,
) -> Result<TcpStream, Trouble> {
    let phase = match which {
        Which::Control => Phase::ControlConnect,
        Which::Data => Phase::DataConnect,
    };
    let mut tried = 0;
    loop {
        tried += 1;
        let mut last = Trouble::Lost {
            phase,
            error: "no address to connect to".into(),
        };
        for peer in peers {
            handle.begin(phase, Some(attempts.timeout));
            match once(handle, which, peer, attempts.timeout, detection) {
                Ok(stream) => return Ok(stream),
                Err(Trouble::Ended) => return Err(Trouble::Ended),
                Err(trouble) => {
                    handle.fence.abandon(which);
                    last = trouble;
                }
            }
        }
        if !attempts.again(tried) {
            return Err(last);
        }
        info!(log, "connecting failed"; "phase" => phase.as_str(), "attempt" => tried,
            "of" => attempts.count, "error" => %last,
            "next" => format!("again in {:?}", attempts.interval));
        pause(handle, phase, attempts.interval)?;
    }
}

fn once(
    handle: &WorkerHandle,
    which: Which,
    peer: &SocketAddr,
    timeout: Duration,
    detection: Duration,
) -> Result<TcpStream, Trouble> {
    let failed = |e: &io::Error| Trouble::from_io(handle, &format!("connecting to {peer}"), e);
    let socket = socket::prepare(peer, detection).map_err(|e| failed(&e))?;
    handle
        .fence
        .keep(which, socket.as_fd())
        .map_err(|e| failed(&e))?
        .map_err(|_| Trouble::Ended)?;
    match socket.connect(&(*peer).into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            let ready = handle
                .wait(Some((socket.as_fd(), PollFlags::OUT)), Some(timeout))
                .map_err(|e| failed(&e))??;
            if !ready {
                return Err(Trouble::Timeout(handle.phase()));
            }
            if let Some(error) = socket.take_error().map_err(|e| failed(&e))? {
                return Err(failed(&error));
            }
        }
        Err(error) => return Err(failed(&error)),
    }
    handle.check()?;
    socket.set_nonblocking(false).map_err(|e| failed(&e))?;
    Ok(socket.into())
}

/// Waits for `time` between two attempts, awake for Pings and the fence.
fn pause(handle: &WorkerHandle, phase: Phase, time: Duration) -> Result<(), Trouble> {
    // Twice the time: the daemon's clock must not interrupt a pause that ends by itself.
    handle.begin(phase, Some(time * 2 + Duration::from_secs(1)));
    match handle.wait(None, Some(time)) {
        Ok(Ok(_)) | Ok(Err(Stop::Timeout(_))) => Ok(()),
        Ok(Err(Stop::Ended)) => Err(Trouble::Ended),
        Err(error) => Err(Trouble::from_io(handle, "waiting", &error)),
    }
}
