//! How a path below the remote folder is written on the wire, so that a server takes it for
//! exactly that path: many expand a leading `~` to somebody's home, some skip leading spaces or
//! put something else in their place. Where no spelling helps, it is at least noticed.

use super::session::DONE;
use super::{Session, Trouble};

/// A path that a server may take for another one, whatever its spelling.
pub(super) fn is_risky(path: &str) -> bool {
    path.starts_with(' ') || path.ends_with(' ')
}

/// The spelling; `home` is the remote folder as the server itself calls it.
fn spell(path: &str, home: Option<&str>) -> String {
    match home {
        // pure-ftpd resolves "./ x" first and then puts "_" for the space: "_x".
        Some(home) if path.starts_with(' ') => format!("{}/{path}", home.trim_end_matches('/')),
        _ if path.starts_with(['~', ' ']) => format!("./{path}"),
        _ => path.to_owned(),
    }
}

impl Session {
    /// Before a name that is no ASCII is named for the first time: servers that say in FEAT that
    /// they know UTF-8 may want to be told that it is meant (RFC 2640 has it without; some want
    /// it). Whatever they answer, the names are UTF-8.
    pub(super) fn speak_of(&mut self, name: &str) -> Result<(), Trouble> {
        if name.is_ascii() || self.spoken_utf8 {
            return Ok(());
        }
        self.spoken_utf8 = true;
        if self.features()?.is_some_and(|f| f.has("UTF8")) {
            match self.command("OPTS", "UTF8 ON", DONE) {
                Ok(_) => {}
                Err(Trouble::Refused { code, .. }) if code != 421 => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    /// The path as an argument of a command. Asks for the remote folder's name when it first
    /// needs it.
    pub(super) fn wire(&mut self, path: &str) -> Result<String, Trouble> {
        self.speak_of(path)?;
        if path.starts_with(' ') && self.home.is_none() {
            self.home = Some(match self.current_folder() {
                Ok(home) if home.starts_with('/') && !home.contains('\u{fffd}') => home,
                Ok(_)
                | Err(Trouble::Refused {
                    code: 500..=599, ..
                }) => String::new(),
                Err(trouble) => return Err(trouble),
            });
        }
        Ok(spell(
            path,
            self.home.as_deref().filter(|home| !home.is_empty()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_would_take_for_something_else_is_led_by_its_folder() {
        for path in ["~", "~root/x"] {
            assert_eq!(spell(path, Some("/in")), format!("./{path}"));
        }
        for path in [" x", "  /x"] {
            assert_eq!(spell(path, None), format!("./{path}"));
            assert_eq!(spell(path, Some("/in")), format!("/in/{path}"));
            assert_eq!(spell(path, Some("/")), format!("/{path}"));
        }
        for path in ["x", "a/~b", "a/ b", "-x", ".x"] {
            assert_eq!(spell(path, Some("/in")), path);
        }
    }
}
