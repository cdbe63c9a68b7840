//! The checked settings `timers.*`.

use super::model::Timers;
use super::settings::Settings;

/// Reads them.
pub(super) fn of(s: &Settings) -> Timers {
    Timers {
        control_connect: s.duration("timers.control_connect"),
        control_connect_attempts: s.whole("timers.control_connect_attempts"),
        control_connect_interval: s.duration("timers.control_connect_interval"),
        reply: s.duration("timers.reply"),
        read_lock_retries: s.whole("timers.read_lock_retries"),
        read_lock_interval: s.duration("timers.read_lock_interval"),
        write_lock_retries: s.whole("timers.write_lock_retries"),
        write_lock_interval: s.duration("timers.write_lock_interval"),
        data_connect: s.duration("timers.data_connect"),
        data_connect_attempts: s.whole("timers.data_connect_attempts"),
        data_connect_interval: s.duration("timers.data_connect_interval"),
        transfer_put: s.duration_or_none("timers.transfer_put"),
        transfer_get: s.duration_or_none("timers.transfer_get"),
        listen: s.duration("timers.listen"),
        stall: s.duration("timers.stall"),
        disk: s.duration("timers.disk"),
        compute: s.duration("timers.compute"),
        dns: s.duration("timers.dns"),
        tls: s.duration("timers.tls"),
        idle_session: s.duration("timers.idle_session"),
    }
}
