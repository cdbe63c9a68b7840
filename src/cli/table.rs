//! Tables of plain text: columns as wide as their content, foreign text escaped, and what is too
//! long for the terminal cut in its middle, where a file name says least. Pure.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::look::{Look, Tone};
use crate::log;

/// Between two columns.
const GAP: &str = "  ";
/// A cut column keeps so much: enough to tell names apart by their two ends.
const LEAST: usize = 16;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    head: &'static str,
    right: bool,
    long: bool,
}

/// Words.
pub const fn words(head: &'static str) -> Column {
    Column {
        head,
        right: false,
        long: false,
    }
}

/// Numbers.
pub const fn numbers(head: &'static str) -> Column {
    Column {
        head,
        right: true,
        long: false,
    }
}

/// Names, which may be cut.
pub const fn names(head: &'static str) -> Column {
    Column {
        head,
        right: false,
        long: true,
    }
}

/// One field, safe to be shown.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Any text; it is escaped.
    pub fn new(value: impl ToString) -> Self {
        Self::toned(value, Tone::Plain)
    }

    /// The same, in a tone.
    pub fn toned(value: impl ToString, tone: Tone) -> Self {
        let text = log::escape(&value.to_string()).into_owned();
        Self { text, tone }
    }

    /// The text, or a dash where there is none.
    pub fn or_dash(value: Option<&str>) -> Self {
        Self::new(value.unwrap_or("-"))
    }
}

/// The table, one line a row below its heads, each with a line end.
pub fn table(columns: &[Column], rows: &[Vec<Cell>], look: Look) -> String {
    let widths = widths(columns, rows, look.width);
    let heads = columns.iter().map(|column| Cell {
        text: column.head.to_owned(),
        tone: Tone::Head,
    });
    let mut out = line(columns, &widths, &heads.collect::<Vec<_>>(), look);
    for row in rows {
        out.push_str(&line(columns, &widths, row, look));
    }
    out
}

fn widths(columns: &[Column], rows: &[Vec<Cell>], room: Option<usize>) -> Vec<usize> {
    let of = |index: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let widest = cells.map(|cell| cell.text.width()).max().unwrap_or(0);
        widest.max(column.head.width())
    };
    let indexed = columns.iter().enumerate();
    let mut widths: Vec<usize> = indexed.map(|(index, column)| of(index, column)).collect();
    let gaps = GAP.len() * columns.len().saturating_sub(1);
    let Some(room) = room.map(|room| room.saturating_sub(gaps)) else {
        return widths;
    };
    let mut long: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].long).collect();
    long.sort_by_key(|index| std::cmp::Reverse(widths[*index]));
    for index in long {
        let excess = widths.iter().sum::<usize>().saturating_sub(room);
        let spare = widths[index].saturating_sub(LEAST);
        widths[index] -= excess.min(spare);
    }
    widths
}

fn line(columns: &[Column], widths: &[usize], cells: &[Cell], look: Look) -> String {
    let mut out = String::new();
    for (index, ((column, width), cell)) in columns.iter().zip(widths).zip(cells).enumerate() {
        if index > 0 {
            out.push_str(GAP);
        }
        let text = cut(&cell.text, *width);
        let blank = " ".repeat(width.saturating_sub(text.width()));
        let text = look.paint(cell.tone, &text);
        let (before, after) = if column.right {
            (blank.as_str(), "")
        } else {
            ("", blank.as_str())
        };
        out.push_str(before);
        out.push_str(&text);
        out.push_str(after);
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
    out
}

/// The text with `…` for its middle if it is wider than `width` columns.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let tail = tail(text, room / 2);
    let head = head(text, room.saturating_sub(tail.width()));
    if width == 0 {
        String::new()
    } else {
        format!("{head}…{tail}")
    }
}

fn head(text: &str, room: usize) -> &str {
    &text[..fitting(text.chars(), room)]
}

fn tail(text: &str, room: usize) -> &str {
    &text[text.len() - fitting(text.chars().rev(), room)..]
}

/// Bytes of the characters that fit.
fn fitting(characters: impl Iterator<Item = char>, room: usize) -> usize {
    let (mut bytes, mut used) = (0, 0);
    for c in characters {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        bytes += c.len_utf8();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(width: Option<usize>) -> Look {
        Look {
            width,
            color: false,
        }
    }

    fn row(texts: &[&str]) -> Vec<Cell> {
        texts.iter().map(Cell::new).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let columns = [words("ROUTE"), numbers("SENT"), names("FILE")];
        let rows = [row(&["a", "12345", "x"]), row(&["longer", "1", "長い"])];
        let expected = "ROUTE    SENT  FILE\na       12345  x\nlonger      1  長い\n";
        assert_eq!(table(&columns, &rows, plain(None)), expected);
    }

    #[test]
    fn only_names_are_cut_to_the_terminal_and_in_their_middle() {
        let columns = [words("ROUTE"), names("FILE"), words("CAUSE")];
        let name = format!("begin-{}-end.bin", "x".repeat(80));
        let rows = [row(&["main", &name, "zero_window"])];
        let told = table(&columns, &rows, plain(Some(50)));
        let line = told.lines().nth(1).unwrap();
        assert_eq!(line.width(), 50, "{line}");
        assert!(line.contains("main   begin-") && line.contains("-end.bin  zero_window"));
        let narrow = table(&columns, &rows, plain(Some(5)));
        assert!(narrow.contains("begin-xx…end.bin"), "{narrow}");
    }

    #[test]
    fn foreign_text_cannot_act_on_the_terminal() {
        let rows = [row(&["\x1b[2J\u{202e}evil\n"])];
        let told = table(&[names("FILE")], &rows, plain(None));
        assert_eq!(told, "FILE\n\\x1b[2J\\u{202e}evil\\n\n");
    }

    #[test]
    fn colors_do_not_count_as_width() {
        let rows = [vec![Cell::toned("bad", Tone::Bad), Cell::new("x")]];
        let look = Look {
            width: None,
            color: true,
        };
        let told = table(&[words("STATE"), words("B")], &rows, look);
        assert!(told.contains("\x1b[1;31mbad\x1b[0m    x\n"), "{told:?}");
    }

    proptest! {
        /// Whatever the text and the room, the result fits and keeps what fits anyway.
        #[test]
        fn a_cut_text_fits(text in "\\PC{0,40}", width in 0usize..30) {
            let shown = cut(&text, width);
            if text.width() <= width {
                prop_assert_eq!(shown, text);
            } else {
                prop_assert!(head(&text, width).width() <= width);
                prop_assert_eq!(shown.contains('…'), width > 0);
            }
        }
    }
}
