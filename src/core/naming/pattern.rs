//! Forms of names: literal text with `{name}` and `{token}` in it. A form that could give a name
//! twice, or a name that is taken for something else, is refused with the reason.

use std::fmt;

use super::{NAME_MAX, cut, split};

/// Most bytes of literal text: the file's own name needs room too.
pub const LITERAL_MAX: usize = 100;
/// What stands for the file's own name.
const NAME: &str = "{name}";
/// What stands for the agent's id and the attempt's token, `<agent>-<token>`.
const TOKEN: &str = "{token}";

/// Hexadecimal digits of an attempt's own token.
const TOKEN_LEN: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name,
    Token,
}

/// A form of names beside final names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

/// Why a form is refused: goes after the text that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn unfit<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit(why.into()))
}

impl Pattern {
    /// The form of temporary names.
    ///
    /// # Errors
    /// It gives no name of its own to each attempt, or one that looks like a final name.
    pub fn of_temps(text: &str) -> Result<Self, Unfit> {
        let pattern = Self::parse(text)?;
        match (pattern.count(&Part::Token), pattern.count(&Part::Name)) {
            (0, _) => unfit(
                "without {token}: it holds this agent's mark and what is random, so two attempts \
                 could meet under one name, and one of them could replace a file of that name",
            ),
            (2.., _) | (_, 2..) => unfit("which holds a placeholder twice"),
            _ if pattern.0.last() == Some(&Part::Name) && !text.starts_with('.') => unfit(
                "which ends like the final name: whoever takes *.csv there would take the part \
                 of x.csv for the whole",
            ),
            _ => Ok(pattern),
        }
    }

    /// The form of markers.
    ///
    /// # Errors
    /// It gives no name of its own to each file, or the file's own one.
    pub fn of_markers(text: &str) -> Result<Self, Unfit> {
        let pattern = Self::parse(text)?;
        match (pattern.count(&Part::Name), pattern.0.len()) {
            _ if pattern.count(&Part::Token) > 0 => {
                unfit("with {token}: nobody could tell the marker's name beforehand")
            }
            (0, _) => unfit("without {name}: all files would share one marker"),
            (2.., _) => unfit("which holds {name} twice"),
            (_, 1) => unfit("the final name itself: the empty marker would replace the file"),
            _ => Ok(pattern),
        }
    }

    fn parse(text: &str) -> Result<Self, Unfit> {
        if text.contains('/') {
            return unfit(
                "with a /: the name stands beside the final one, in its folder, for a rename \
                 from folder to folder may copy",
            );
        }
        if text.chars().any(char::is_control) {
            return unfit("with a control character, which no FTP command can carry");
        }
        if text.starts_with(' ') || text.ends_with(' ') {
            return unfit("with a space at an end, which some servers cut off");
        }
        let (mut parts, mut rest, mut literal) = (Vec::new(), text, 0);
        while !rest.is_empty() {
            let end = match rest.find(['{', '}']) {
                Some(0) => {
                    let known = [(NAME, Part::Name), (TOKEN, Part::Token)];
                    let Some((sign, part)) = known.into_iter().find(|(s, _)| rest.starts_with(*s))
                    else {
                        return unfit(format!(
                            "where {rest:?} begins with neither {NAME} nor {TOKEN}"
                        ));
                    };
                    parts.push(part);
                    rest = &rest[sign.len()..];
                    continue;
                }
                Some(at) => at,
                None => rest.len(),
            };
            literal += end;
            parts.push(Part::Text(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        if literal > LITERAL_MAX {
            return unfit("which leaves too little room for the file's own name");
        }
        Ok(Self(parts))
    }

    fn count(&self, part: &Part) -> usize {
        self.0.iter().filter(|p| *p == part).count()
    }

    fn fill(&self, name: &str, token: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name => name.to_owned(),
            Part::Token => token.to_owned(),
        };
        self.0.iter().map(text).collect()
    }

    /// The temp name beside the final name `path`, its own name cut to fit.
    pub fn temp(&self, path: &str, agent: &str, token: &str) -> String {
        let ((folder, name), token) = (split(path), format!("{agent}-{token}"));
        let frame = self.fill("", &token).len();
        let name = cut(name, NAME_MAX.saturating_sub(frame));
        format!("{folder}{}", self.fill(name, &token))
    }

    /// Whether a name without its folder is a temp name of that agent.
    pub fn is_of(&self, name: &str, agent: &str) -> bool {
        let Some(at) = self.0.iter().position(|part| *part == Part::Token) else {
            return false;
        };
        let (before, after) = (&self.0[..at], &self.0[at + 1..]);
        let mark = format!("{agent}-");
        let is_token = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        name.match_indices(&mark).any(|(begin, _)| {
            let from = begin + mark.len();
            name.get(from..from + TOKEN_LEN).is_some_and(is_token)
                && fits(before, &name[..begin])
                && fits(after, &name[from + TOKEN_LEN..])
        })
    }

    /// The marker beside the final name `path`; none where that makes a name too long.
    pub fn marker(&self, path: &str) -> Option<String> {
        let (folder, name) = split(path);
        let marker = self.fill(name, "");
        (marker.len() <= NAME_MAX).then(|| format!("{folder}{marker}"))
    }

    /// Whether a final name has the form of a marker: it could be another file's.
    pub fn is_marker(&self, path: &str) -> bool {
        let (_, name) = split(path);
        let mut around = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Name | Part::Token => "",
        });
        let before = around.next().unwrap_or("");
        let after = around.next_back().unwrap_or("");
        name.len() > before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    }
}

/// Whether these parts, with at most one name among them, can give that text.
fn fits(parts: &[Part], text: &str) -> bool {
    let literal = |parts: &[Part]| -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name | Part::Token => String::new(),
        };
        parts.iter().map(text).collect()
    };
    match parts.iter().position(|part| *part == Part::Name) {
        None => literal(parts) == text,
        Some(at) => {
            let (before, after) = (literal(&parts[..at]), literal(&parts[at + 1..]));
            text.len() > before.len() + after.len()
                && text.starts_with(&before)
                && text.ends_with(&after)
        }
    }
}

impl Default for Pattern {
    /// `.{name}.{token}.part`: hidden, and what its ending says.
    fn default() -> Self {
        let text = |text: &str| Part::Text(text.into());
        Self(vec![
            text("."),
            Part::Name,
            text("."),
            Part::Token,
            text(".part"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_temp_name_stands_beside_its_final_name() {
        let temp = |pattern: &str| {
            let pattern = Pattern::of_temps(pattern).expect("a sound form");
            pattern.temp("a/b.txt", "ag", "7")
        };
        assert_eq!(temp(".{name}.{token}.part"), "a/.b.txt.ag-7.part");
        assert_eq!(temp("{token}"), "a/ag-7");
        assert_eq!(temp("up-{token}-{name}.tmp"), "a/up-ag-7-b.txt.tmp");
        assert_eq!(temp(".{token}{name}"), "a/.ag-7b.txt");
        assert_eq!(Pattern::default().temp("b", "ag", "7"), ".b.ag-7.part");
        let spelled = Pattern::of_temps(".{name}.{token}.part");
        assert_eq!(spelled, Ok(Pattern::default()));
    }

    #[test]
    fn a_temp_name_is_known_by_its_form_and_agent_alone() {
        let plain = Pattern::default();
        let of = |name: &str| plain.is_of(name, "0123abcd");
        assert!(of(".x.csv.0123abcd-0123456789abcdef.part"));
        assert!(of(".0123abcd-.0123abcd-0123456789abcdef.part"));
        for other in [
            "x.csv",
            ".x.csv.0123abcd-0123456789abcdef.part.bak",
            "x.csv.0123abcd-0123456789abcdef.part",
            ".x.csv.0123abcd-0123456789abcde.part",
            ".x.csv.0123abcd-0123456789abcdeg.part",
            ".x.csv.0123abcd-0123456789ABCDEF.part",
            ".x.csv.9123abcd-0123456789abcdef.part",
            "..0123abcd-0123456789abcdef.part",
            ".x.0123abcd-0123456789abcdé.part",
        ] {
            assert!(!of(other), "{other}");
        }
    }

    #[test]
    fn a_marker_stands_beside_its_final_name() {
        let pattern = Pattern::of_markers("{name}.done").expect("a sound form");
        assert_eq!(pattern.marker("a/b.txt").as_deref(), Some("a/b.txt.done"));
        assert_eq!(pattern.marker(&"n".repeat(251)), None);
        assert!(pattern.is_marker("a/b.done") && !pattern.is_marker("a/.done"));
        let both = Pattern::of_markers("ok_{name}.x").expect("a sound form");
        assert!(both.is_marker("a/ok_y.x") && !both.is_marker("ok_.x") && !both.is_marker("y.x"));
        let before = Pattern::of_markers("ok_{name}").expect("a sound form");
        assert!(before.is_marker("ok_y") && !before.is_marker("y"));
    }

    #[test]
    fn what_could_meet_another_name_is_refused() {
        for (text, why) in [
            ("", "without {token}"),
            ("{name}.part", "without {token}"),
            ("{token}-{token}", "twice"),
            ("{name}{name}{token}", "twice"),
            ("{token}.{name}", "ends like the final name"),
            ("tmp/{token}", "with a /"),
            ("{token}\n", "control"),
            (" {token}", "space"),
            ("{agent}{token}", "neither {name} nor {token}"),
            ("{token}}", "neither {name} nor {token}"),
        ] {
            let refused = Pattern::of_temps(text).expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        for (text, why) in [
            ("done", "without {name}"),
            ("{name}", "replace the file"),
            ("{name}{name}", "twice"),
            ("{name}.{token}", "with {token}"),
        ] {
            let refused = Pattern::of_markers(text).expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        assert!(Pattern::of_temps(&format!("{TOKEN}{}", "x".repeat(LITERAL_MAX + 1))).is_err());
    }

    proptest! {
        /// Whatever the name and a form that is taken: the temp name fits, stays in its folder,
        /// holds the agent's mark and the token, and is not the final name.
        #[test]
        fn temp_names_fit(name in "[^/\\x00-\\x1f]{1,260}", form in "[.a-z]{0,4}(\\{name\\})?[-_.]?\\{token\\}[.a-z]{0,6}") {
            let name = cut(&name, NAME_MAX);
            let pattern = Pattern::of_temps(&form).expect("a sound form");
            let temp = pattern.temp(&format!("d/{name}"), "0123abcd", "0123456789abcdef");
            let last = temp.strip_prefix("d/").expect("in its folder");
            prop_assert!(last.len() <= NAME_MAX && !last.contains('/'));
            prop_assert!(last.contains("0123abcd-0123456789abcdef") && last != name);
            prop_assert!(pattern.is_of(last, "0123abcd") && !pattern.is_of(last, "0123abce"));
            let longer = format!("{last}x");
            prop_assert!(!pattern.is_of(&longer, "0123abcd"));
        }

        /// Each file's marker is its own, and is known for one.
        #[test]
        fn markers_differ(a in "[a-c.]{1,5}", b in "[a-c.]{1,5}", form in "[a-c.]{0,2}\\{name\\}[a-c.]{1,2}") {
            let pattern = Pattern::of_markers(&form).expect("a sound form");
            let (of_a, of_b) = (pattern.marker(&a), pattern.marker(&b));
            prop_assert_eq!(of_a == of_b, a == b);
            prop_assert!(pattern.is_marker(&of_a.expect("short")));
        }
    }
}
