//! A tap on the service's log: every record goes to its logger as ever, and what a demo or drill
//! may tell of (info and worse) also to a listener, facts as text. The listener must not wait: it
//! runs where the record is made.

use std::collections::BTreeMap;
use std::fmt;

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

/// One record of the service's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its constant message.
    pub message: String,
    /// Whether something went wrong.
    pub warning: bool,
    facts: BTreeMap<String, String>,
}

impl Note {
    /// A fact of it; empty where it has none of that name.
    pub fn fact(&self, key: &str) -> &str {
        self.facts.get(key).map_or("", String::as_str)
    }

    /// A fact that is a number; 0 where it has none.
    pub fn number(&self, key: &str) -> f64 {
        self.fact(key).parse().unwrap_or(0.0)
    }
}

/// The drain.
pub struct Tap<F> {
    log: Logger,
    listener: F,
}

impl<F: Fn(Note)> Tap<F> {
    /// Logs to `log` and tells `listener`.
    pub fn new(log: Logger, listener: F) -> Self {
        Self { log, listener }
    }
}

impl<F: Fn(Note)> Drain for Tap<F> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, values: &OwnedKVList) -> Result<(), Never> {
        Drain::log(&self.log, record, values)?;
        if record.level().is_at_least(Level::Info) {
            let mut facts = Facts(BTreeMap::new());
            // Facts that cannot be written are in the log.
            let _ = values.serialize(record, &mut facts);
            let _ = record.kv().serialize(record, &mut facts);
            let note = Note {
                message: record.msg().to_string(),
                warning: record.level().is_at_least(Level::Warning),
                facts: facts.0,
            };
            (self.listener)(note);
        }
        Ok(())
    }
}

struct Facts(BTreeMap<String, String>);

impl Serializer for Facts {
    /// A fact that is none is no fact.
    fn emit_none(&mut self, _: Key) -> slog::Result {
        Ok(())
    }

    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments) -> slog::Result {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{Discard, debug, o, warn};
    use std::sync::mpsc::sync_channel;

    #[test]
    fn a_record_reaches_the_listener_with_its_own_and_its_loggers_facts() {
        let (tell, told) = sync_channel(8);
        let listener = move |note| tell.send(note).unwrap();
        let log = Logger::root(
            Tap::new(Logger::root(Discard, o!()), listener),
            o!("route" => "demo"),
        );
        debug!(log, "not for the listener");
        warn!(log, "deadlock found"; "epoch" => 2, "file" => None::<String>, "silent" => 1.5);
        let Ok(note) = told.try_recv() else {
            panic!("nothing was told")
        };
        assert_eq!(
            (note.message.as_str(), note.warning),
            ("deadlock found", true)
        );
        assert_eq!((note.fact("route"), note.fact("epoch")), ("demo", "2"));
        assert_eq!((note.number("silent"), note.fact("absent")), (1.5, ""));
        assert_eq!(note.fact("file"), "");
        assert!(told.try_recv().is_err());
    }
}
