//! Rust source as `tests/tidy.rs` reads it: the text, and the code in it without comments,
//! literals and test modules, line for line.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub struct Source {
    /// Path from the repository's root.
    pub path: String,
    /// As it stands.
    pub text: String,
    /// The same length in lines, comments and literals blanked.
    pub code: String,
    /// `code` without `#[cfg(test)]` items.
    pub product: String,
}

impl Source {
    /// A file given as text.
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        // A test module may have a file of its own, and files below it.
        let test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let product = if test {
            code.lines().map(|_| "\n").collect()
        } else {
            without_tests(&code)
        };
        Self {
            path: path.into(),
            text: text.into(),
            code,
            product,
        }
    }

    /// The modules from the crate's root to this file: `src/core/ring.rs` is core, ring.
    pub fn modules(&self) -> Vec<String> {
        let below = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        below
            .split('/')
            .filter(|part| *part != "mod")
            .map(String::from)
            .collect()
    }

    /// The number of lines before the test module at the end, if there is one.
    pub fn product_end(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        let test = lines
            .iter()
            .rposition(|line| line.trim_end() == "#[cfg(test)]");
        let last = test.filter(|at| lines.get(at + 1).is_some_and(|l| l.starts_with("mod ")));
        last.unwrap_or(lines.len())
    }

    /// "path:line" of a byte position.
    pub fn place(&self, at: usize) -> String {
        format!(
            "{}:{}",
            self.path,
            self.code[..at].matches('\n').count() + 1
        )
    }
}

/// All `.rs` files below a folder of the repository, in order.
pub fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        Source::new(name, &fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

/// Comments and the inside of literals as spaces; newlines stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// The end of the comment, string or character that begins at `at`; `at` if none does.
fn literal_or_comment(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return block_comment(bytes, at);
    }
    if !after_word {
        let prefix = rest.iter().take_while(|b| b"bcr".contains(b)).count();
        let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
        let quote = rest.get(prefix + hashes) == Some(&b'"');
        if quote && prefix > 0 && rest[..prefix].contains(&b'r') {
            let mut close = vec![b'"'];
            close.extend(std::iter::repeat_n(b'#', hashes));
            let open = at + prefix + hashes + 1;
            let found = bytes[open..].windows(close.len()).position(|w| w == close);
            return found.map_or(bytes.len(), |end| open + end + close.len());
        }
    }
    match rest[0] {
        b'"' => quoted(bytes, at + 1, b'"'),
        // A lifetime has no closing quote after one (possibly escaped or wide) character.
        b'\'' if rest.get(1) == Some(&b'\\') => quoted(bytes, at + 1, b'\''),
        b'\'' => match rest.iter().skip(2).take(4).position(|b| *b == b'\'') {
            Some(end) if end == 0 || rest[1] >= 0x80 => at + end + 3,
            _ => at,
        },
        _ => at,
    }
}

fn quoted(bytes: &[u8], mut at: usize, close: u8) -> usize {
    while at < bytes.len() && bytes[at] != close {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn block_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at.min(bytes.len())
}

/// Blanks what follows `#[cfg(test)]`, up to its closing brace or semicolon.
fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let mut depth = 0;
        let mut end = start;
        for (at, byte) in code.bytes().enumerate().skip(start) {
            end = at + 1;
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b';' if depth == 0 => break,
                _ => continue,
            }
            if depth == 0 {
                break;
            }
        }
        out[start..end]
            .iter_mut()
            .filter(|b| **b != b'\n')
            .for_each(|b| *b = b' ');
        from = end;
    }
    String::from_utf8(out).unwrap()
}
