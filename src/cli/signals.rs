//! The signals that end a command at once or in order: SIGINT, SIGTERM, SIGHUP. It only tells
//! which one came; what follows is the command's.

use std::io;
use std::sync::mpsc::channel;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, from `listen` on.
pub struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    /// Takes the signals over; none ends the process by itself any more.
    ///
    /// # Errors
    /// The system takes no handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Takes them over on a thread of their own, where `next` is given the number of each one until
    /// it ends the process; returns when they are taken over.
    ///
    /// # Errors
    /// The system takes no handler, or gives no thread.
    pub fn listen_apart(mut next: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        let (tell, told) = channel();
        let listen = move || {
            let runtime = match actix_rt::Runtime::new() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async {
                let mut signals = match Self::listen() {
                    Ok(signals) => signals,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                // Whoever listens waits for this.
                let _ = tell.send(Ok(()));
                loop {
                    next(signals.next().await);
                }
            });
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(listen)?;
        told.recv().unwrap_or(Ok(()))
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.int.recv() => libc::SIGINT,
            _ = self.term.recv() => libc::SIGTERM,
            _ = self.hup.recv() => libc::SIGHUP,
        }
    }
}
