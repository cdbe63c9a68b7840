//! What standard output can show: how wide it is, whether it takes colors, whether it can be drawn
//! on. It decides nothing about the content.

use std::io::{self, IsTerminal};

/// Columns and rows of a terminal that does not tell.
const USUAL: (u16, u16) = (80, 24);

/// How text may look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Columns of a terminal; none elsewhere, where nothing is cut.
    pub width: Option<usize>,
    /// Whether colors are used.
    pub color: bool,
}

impl Look {
    /// What suits standard output now: a terminal can be resized.
    pub fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self::default();
        }
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: Some(size().0),
            color: !unwanted && !is_dumb(),
        }
    }

    /// The text in that tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        match tone.style() {
            Some(style) if self.color && !text.is_empty() => format!("{style}{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// What a text means to its reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    #[default]
    Plain,
    /// A heading.
    Head,
    /// To be watched.
    Watch,
    /// Wrong.
    Bad,
}

impl Tone {
    fn style(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Head => Some("\x1b[1m"),
            Self::Watch => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[1;31m"),
        }
    }
}

/// Rows of a terminal that can be drawn on.
pub fn rows() -> Option<usize> {
    (io::stdout().is_terminal() && !is_dumb()).then(|| size().1)
}

fn size() -> (usize, usize) {
    let (columns, rows) = rustix::termios::tcgetwinsize(io::stdout())
        .map_or(USUAL, |told| (told.ws_col, told.ws_row));
    let or = |told: u16, usual: u16| usize::from(if told == 0 { usual } else { told });
    (or(columns, USUAL.0), or(rows, USUAL.1))
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}
