//! Names the cause of a stall from two samples of one worker (FACTS: the evidence table).
//! It never asks the system; it says `unknown` rather than guess.

use super::names::{Cause, Phase};
use super::vouch::{Sample, Socket, path_alive};

/// The cause of the stall that `last` shows; `before` is an earlier sample of the same epoch.
pub fn cause(before: Option<&Sample>, last: &Sample) -> Cause {
    if computes(before, last) {
        return Cause::CpuLoop;
    }
    match last.phase {
        Phase::Dns => Cause::Dns,
        Phase::Lock => Cause::Lock,
        Phase::DataConnect | Phase::Listen => Cause::NoDataConnection,
        Phase::ControlConnect => Cause::PathDead,
        Phase::LocalFile => local(last, Cause::Disk),
        Phase::Transfer | Phase::Drain => match last.data {
            _ if !path_alive(last) => Cause::PathDead,
            Some(data) => moving(last, &data),
            None => Cause::Unknown,
        },
        Phase::Greeting
        | Phase::Tls
        | Phase::Reply
        | Phase::FinalReply
        | Phase::TlsClose
        | Phase::Quit => {
            if path_alive(last) {
                Cause::SilentServer
            } else {
                Cause::PathDead
            }
        }
        Phase::Idle | Phase::Hash => local(last, Cause::Unknown),
    }
}

fn computes(before: Option<&Sample>, last: &Sample) -> bool {
    let running = |s: &Sample| s.thread.as_ref().is_some_and(|t| t.state == 'R');
    let cpu = |s: &Sample| s.thread.as_ref().map_or(0, |t| t.cpu_ms);
    before.is_some_and(|before| {
        let span = last.at.saturating_sub(before.at).as_millis() as u64;
        // Half a core is what a loop gets on a busy machine.
        running(last) && (cpu(last) - cpu(before).min(cpu(last))) * 2 > span && span > 0
    })
}

fn local(last: &Sample, otherwise: Cause) -> Cause {
    if last.thread.as_ref().is_some_and(|t| t.waits_for_lock) {
        Cause::Lock
    } else {
        otherwise
    }
}

fn moving(last: &Sample, data: &Socket) -> Cause {
    let queued = data.unsent + data.unacked;
    if data.window == 0 || (data.unacked == 0 && data.unsent > 0) {
        Cause::ZeroWindow
    } else if queued == 0 && last.phase == Phase::Transfer {
        // The socket wants more than the worker brings: the source does not answer.
        local(last, Cause::Disk)
    } else {
        Cause::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vouch::{Thread, tcp};
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
            (sample(Phase::Idle), Cause::Unknown),
        ];
        for (sample, expected) in rows {
            assert_eq!(cause(None, &sample), expected, "{sample:?}");
        }
    }

    #[test]
    fn a_spinning_thread_is_a_cpu_loop_whatever_its_phase() {
        let thread = |cpu_ms| {
            Some(Thread {
                state: 'R',
                cpu_ms,
                ..Thread::default()
            })
        };
        let mut before = sample(Phase::Transfer);
        before.thread = thread(100);
        let mut last = before.clone();
        last.at += Duration::from_secs(2);
        last.thread = thread(2000);
        assert_eq!(cause(Some(&before), &last), Cause::CpuLoop);
    }
}
