//! Paths as the client names them: absolute from the server's root, `/` between the parts, any
//! bytes but NUL. `.` and `..` are resolved here, and `..` ends at the root.

use std::fmt;

/// A normalised path below the root, without its leading `/`; empty is the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VPath(Vec<u8>);

impl VPath {
    /// `arg` as seen from the folder `self`; `None` for a name that no file can have.
    pub(super) fn resolve(&self, arg: &[u8]) -> Option<Self> {
        if arg.contains(&0) {
            return None;
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        let start: &[u8] = if arg.first() == Some(&b'/') {
            b""
        } else {
            &self.0
        };
        for part in start.split(|b| *b == b'/').chain(arg.split(|b| *b == b'/')) {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        Some(Self(parts.join(&b'/')))
    }

    /// The path relative to the root, `.` for the root.
    pub(super) fn relative(&self) -> &[u8] {
        if self.0.is_empty() { b"." } else { &self.0 }
    }

    /// The folder and the name in it; `None` for the root.
    pub(super) fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (Self(self.0[..at].to_vec()), &self.0[at + 1..]),
            None => (Self::default(), &self.0),
        })
    }

    /// The bytes from the root on, with the leading `/`.
    pub(super) fn absolute(&self) -> Vec<u8> {
        [b"/", self.0.as_slice()].concat()
    }
}

impl fmt::Display for VPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_and_never_leave_the_root() {
        let cwd = VPath::default().resolve(b"a/b").unwrap();
        for (arg, expected) in [
            (&b"c"[..], "/a/b/c"),
            (b"/c//d/./e", "/c/d/e"),
            (b"../../../../etc/passwd", "/etc/passwd"),
            (b"..", "/a"),
            (b"/..", "/"),
            (b" -x y ", "/a/b/ -x y "),
        ] {
            assert_eq!(cwd.resolve(arg).unwrap().to_string(), expected);
        }
        assert_eq!(cwd.resolve(b"a\0b"), None);
    }
}
