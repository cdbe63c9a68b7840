//! The thread that says what time it is (S1.1): it sends Ticks that carry their time.

use std::sync::mpsc;
use std::time::Duration;

use actix::Recipient;

use crate::actors::messages::Tick;
use crate::clock;

/// The thread. An actor's own timers starve under a flood of
/// messages and fire in bursts after a block; a message that carries its time does neither harm.
pub struct Timer {
    stop: mpsc::Sender<()>,
}

impl Timer {
    /// Sends a Tick to each of them every `period`, until it is dropped.
    pub fn start(period: Duration, told: Vec<Recipient<Tick>>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        std::thread::Builder::new()
            .name("timer".into())
            .spawn(move || {
                let mut scheduled = clock::mono();
                loop {
                    scheduled += period;
                    let now = clock::mono();
                    if now > scheduled + period {
                        // Suspended or starved: the ticks in between are gone, not made up for.
                        scheduled = now;
                    }
                    match stopped.recv_timeout(scheduled.saturating_sub(now)) {
                        Err(mpsc::RecvTimeoutError::Timeout) => {}
                        _ => return,
                    }
                    for recipient in &told {
                        // A full mailbox has older ticks in it; a closed one is seen by the app.
                        let _ = recipient.try_send(Tick { scheduled });
                    }
                }
            })?;
        Ok(Self { stop })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.stop.send(());
    }
}
