//! Names the cause of a stall from two samples of one worker (FACTS: the evidence table).
//! It never asks the system; it says `unknown` rather than guess.

use super::evidence::{Call, Sample, Socket};
use super::names::{Cause, Phase};

/// The cause of the stall that `last` shows; `before` is an earlier sample of the same epoch, from
/// the time of its last good beat.
pub fn cause(before: Option<&Sample>, last: &Sample) -> Cause {
    if computes(before, last) {
        return Cause::CpuLoop;
    }
    // A worker waits for its sockets in socket calls and in poll, never behind a lock.
    if calls(last, Call::Lock) {
        return Cause::Lock;
    }
    match last.phase {
        Phase::Dns | Phase::ControlConnect | Phase::Lock => of_phase(last.phase),
        Phase::LocalFile => Cause::Disk,
        Phase::Hash if calls(last, Call::File) => Cause::Disk,
        Phase::Idle | Phase::Hash => Cause::Unknown,
        Phase::DataConnect
        | Phase::Listen
        | Phase::Greeting
        | Phase::Tls
        | Phase::Reply
        | Phase::FinalReply
        | Phase::TlsClose
        | Phase::Quit => {
            if last.path_dead() {
                Cause::PathDead
            } else {
                of_phase(last.phase)
            }
        }
        Phase::Transfer | Phase::Drain if last.path_dead() => Cause::PathDead,
        // Nothing comes: the server sends nothing, unless it is our own disk that takes nothing.
        Phase::Transfer if last.receives && calls(last, Call::File) => Cause::Disk,
        Phase::Transfer if last.receives => Cause::SilentServer,
        Phase::Transfer | Phase::Drain => {
            last.data.map_or(Cause::Unknown, |data| moving(last, &data))
        }
    }
}

/// What a wait of this phase means that was over its bound, as far as the phase alone can tell.
pub fn of_phase(phase: Phase) -> Cause {
    match phase {
        Phase::Dns => Cause::Dns,
        Phase::Lock => Cause::Lock,
        Phase::ControlConnect => Cause::PathDead,
        Phase::DataConnect | Phase::Listen => Cause::NoDataConnection,
        Phase::LocalFile => Cause::Disk,
        Phase::Greeting
        | Phase::Tls
        | Phase::Reply
        | Phase::FinalReply
        | Phase::TlsClose
        | Phase::Quit => Cause::SilentServer,
        Phase::Idle | Phase::Hash | Phase::Transfer | Phase::Drain => Cause::Unknown,
    }
}

/// On the CPU, and it used some of it since the earlier sample: a thread that is blocked uses none.
/// A fiftieth of the time is less than a polite thread gets where dozens of others want to run.
fn computes(before: Option<&Sample>, last: &Sample) -> bool {
    let Some((before, Some(now))) = before.map(|b| (b, last.thread)) else {
        return false;
    };
    let used = now.cpu_ms
        - before
            .thread
            .map_or(now.cpu_ms, |t| t.cpu_ms.min(now.cpu_ms));
    let span = last.at.saturating_sub(before.at).as_millis() as u64;
    now.state == 'R' && span > 0 && used * 50 >= span
}

fn calls(sample: &Sample, call: Call) -> bool {
    sample.thread.is_some_and(|t| t.call == call)
}

fn moving(last: &Sample, data: &Socket) -> Cause {
    if data.queued() > 0 && (data.window == 0 || data.unacked == 0) {
        Cause::ZeroWindow
    } else if data.queued() == 0 && last.phase == Phase::Transfer {
        // The socket wants more than the worker brings: the source does not answer.
        Cause::Disk
    } else {
        Cause::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evidence::{Thread, tcp};
    use std::time::Duration;

    fn sample(phase: Phase) -> Sample {
        let socket = Socket {
            state: tcp::ESTABLISHED,
            window: 65536,
            ..Socket::default()
        };
        Sample {
            at: Duration::from_secs(10),
            acked: 0,
            phase,
            phase_number: 1,
            deadline: None,
            bytes: 0,
            receives: false,
            control: Some(socket),
            data: Some(socket),
            thread: None,
        }
    }

    fn with_data(phase: Phase, change: impl Fn(&mut Socket)) -> Sample {
        let mut s = sample(phase);
        if let Some(data) = s.data.as_mut() {
            change(data);
        }
        s
    }

    /// Its control connection's keepalive probes stay unanswered.
    fn deaf(phase: Phase) -> Sample {
        let mut s = sample(phase);
        if let Some(control) = s.control.as_mut() {
            control.probes = 2;
        }
        s
    }

    #[test]
    fn a_connection_that_its_peer_closed_is_no_dead_path() {
        let mut closed = with_data(Phase::Transfer, |d| (d.window, d.unsent) = (0, 9000));
        closed.control = closed.control.map(|c| Socket { state: 8, ..c });
        assert_eq!(cause(None, &closed), Cause::ZeroWindow);
    }

    #[test]
    fn what_a_thread_is_in_tells_lock_and_disk() {
        let of = |phase, call| {
            let thread = Some(Thread {
                state: 'S',
                call,
                cpu_ms: 0,
            });
            cause(
                None,
                &Sample {
                    thread,
                    ..sample(phase)
                },
            )
        };
        assert_eq!(of(Phase::Transfer, Call::Lock), Cause::Lock);
        assert_eq!(of(Phase::Idle, Call::Lock), Cause::Lock);
        assert_eq!(of(Phase::Hash, Call::File), Cause::Disk);
        assert_eq!(of(Phase::Hash, Call::Other), Cause::Unknown);
    }

    #[test]
    fn a_download_that_stands_still_is_the_servers_doing_or_our_disks() {
        let of = |call, probes| {
            let mut s = with_data(Phase::Transfer, |d| d.probes = probes);
            s.receives = true;
            s.thread = Some(Thread {
                state: 'S',
                call,
                cpu_ms: 0,
            });
            cause(None, &s)
        };
        assert_eq!(of(Call::Other, 0), Cause::SilentServer);
        assert_eq!(of(Call::File, 0), Cause::Disk);
        assert_eq!(of(Call::Other, 2), Cause::PathDead);
    }

    #[test]
    fn each_row_of_the_evidence_table_names_its_cause() {
        let rows = [
            (
                with_data(Phase::Transfer, |d| (d.window, d.unsent) = (0, 9000)),
                Cause::ZeroWindow,
            ),
            (
                with_data(Phase::Transfer, |d| (d.unacked, d.retransmits) = (9, 3)),
                Cause::PathDead,
            ),
            (
                with_data(Phase::Drain, |d| (d.window, d.unsent) = (0, 9000)),
                Cause::ZeroWindow,
            ),
            (with_data(Phase::Transfer, |_| {}), Cause::Disk),
            (sample(Phase::Reply), Cause::SilentServer),
            (sample(Phase::FinalReply), Cause::SilentServer),
            (sample(Phase::DataConnect), Cause::NoDataConnection),
            (sample(Phase::Dns), Cause::Dns),
            (sample(Phase::LocalFile), Cause::Disk),
            (sample(Phase::Lock), Cause::Lock),
            (sample(Phase::Hash), Cause::Unknown),
            (sample(Phase::Idle), Cause::Unknown),
            (deaf(Phase::Reply), Cause::PathDead),
            (deaf(Phase::FinalReply), Cause::PathDead),
            (deaf(Phase::DataConnect), Cause::PathDead),
            (deaf(Phase::Transfer), Cause::PathDead),
            (deaf(Phase::Dns), Cause::Dns),
        ];
        for (sample, expected) in rows {
            assert_eq!(cause(None, &sample), expected, "{sample:?}");
        }
    }

    #[test]
    fn a_spinning_thread_is_a_cpu_loop_whatever_its_phase() {
        let at = |seconds, state, cpu_ms| Sample {
            at: Duration::from_secs(seconds),
            thread: Some(Thread {
                state,
                cpu_ms,
                ..Thread::default()
            }),
            ..sample(Phase::Transfer)
        };
        let before = at(2, 'R', 100);
        assert_eq!(cause(Some(&before), &at(10, 'R', 2000)), Cause::CpuLoop);
        // On a busy machine it gets a small share.
        assert_eq!(cause(Some(&before), &at(10, 'R', 270)), Cause::CpuLoop);
        assert_eq!(cause(Some(&before), &at(10, 'R', 110)), Cause::Disk);
        assert_eq!(cause(Some(&before), &at(10, 'S', 2000)), Cause::Disk);
        assert_eq!(cause(None, &at(10, 'R', 2000)), Cause::Disk);
    }

    #[test]
    fn a_timer_names_what_its_phase_waits_for() {
        for phase in Phase::ALL {
            let waits = of_phase(*phase) != Cause::Unknown;
            let works = matches!(phase, Phase::Idle | Phase::Hash) || phase.moves();
            assert_eq!(waits, !works, "{phase}");
        }
    }
}
