//! The dependency direction: which module may use which (as `src/lib.rs` orders them), and how
//! uses are found in a source (`crate::…`, groups, `super::…` up to the root). Test modules are
//! free.

use std::collections::BTreeSet;

use super::source::Source;

/// Whether a byte can stand in a name.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Positions of `text` in `code` that are not part of a longer word.
pub fn places<'a>(code: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (first, last) = (text.as_bytes()[0], text.as_bytes()[text.len() - 1]);
    code.match_indices(text)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = at.checked_sub(1).map(|i| code.as_bytes()[i]);
            let after = code.as_bytes().get(at + text.len()).copied();
            let longer = |edge, next: Option<u8>| is_word(edge) && next.is_some_and(is_word);
            !longer(first, before) && !longer(last, after)
        })
}

/// First names of what follows a `crate::`: one, or each of a `{…}` group.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.trim().bytes().take_while(|b| is_word(*b)).count();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![rest[..word(rest)].to_owned()];
    };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b',' | b'}' if depth == 0 => {
                let name = group[start..at].trim();
                names.push(name[..word(name)].to_owned());
                start = at + 1;
                if byte == b'}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The top modules that a file uses, with the place of each use.
fn uses(file: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in places(&file.product, "crate::") {
        let names = first_names(&file.product[at + "crate::".len()..]);
        found.extend(names.into_iter().map(|name| (at, name)));
    }
    let depth = file.modules().len();
    let climb = "super::".repeat(depth);
    for at in places(&file.product, &climb) {
        let names = first_names(&file.product[at + climb.len()..]);
        found.extend(names.into_iter().map(|name| (at, name)));
    }
    found
}

/// The groups of modules that `lib.rs` declares, from the ground up, divided by empty lines.
pub fn groups(lib: &str) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new()];
    for line in lib.lines() {
        if let Some(module) = line.strip_prefix("pub mod ") {
            groups
                .last_mut()
                .unwrap()
                .push(module.trim_end_matches(';').to_owned());
        } else if line.is_empty() {
            groups.push(Vec::new());
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Every use against the house, and every exception that is not needed.
pub fn against_the_house(files: &[Source], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let house = groups(include_str!("../../src/lib.rs"));
    let level = |module: &str| house.iter().position(|g| g.iter().any(|m| m == module));
    let mut faults = Vec::new();
    let mut needed = BTreeSet::new();
    for file in files {
        let modules = file.modules();
        let own = modules[0].as_str();
        if modules == ["lib"] || modules == ["main"] {
            continue;
        }
        let Some(own_level) = level(own) else {
            faults.push(format!("{}: {own} has no place in the house", file.path));
            continue;
        };
        for (at, used) in uses(file) {
            if used == own {
                continue;
            }
            if let Some(excuse) = exceptions
                .iter()
                .position(|(a, b, _)| *a == own && *b == used)
            {
                needed.insert(excuse);
            } else if level(&used).is_none_or(|used_level| used_level >= own_level) {
                faults.push(format!("{}: {own} must not use {used}", file.place(at)));
            }
        }
    }
    let stale = (0..exceptions.len()).filter(|i| !needed.contains(i));
    faults.extend(stale.map(|i| format!("the exception {:?} is not needed", exceptions[i])));
    faults
}
