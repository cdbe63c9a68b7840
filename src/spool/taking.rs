//! Which names are taken: the rules that hold always (no dot names, no `*.tmp`, `*.part`, no
//! dead letters, no archive, no markers, no names that a protocol line cannot carry), then the route's own
//! include and exclude patterns. Decides on names alone; never looks at a file.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::config::{After, Route};

/// The name rules of one route.
#[derive(Debug)]
pub struct Taking {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
    recursive: bool,
    /// Dead letters and archive, where they lie below the spool.
    left_out: Vec<String>,
    /// The end of the names of markers, which are never sent themselves.
    ready_suffix: Option<String>,
}

/// Shell patterns, parted by what they look at.
#[derive(Debug)]
struct Patterns {
    /// Without `/`: the file's name, in any folder.
    names: GlobSet,
    /// With `/`: the whole path below the spool.
    paths: GlobSet,
}

impl Patterns {
    fn new(patterns: &[String]) -> Result<Option<Self>, globset::Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let set = if pattern.contains('/') {
                &mut paths
            } else {
                &mut names
            };
            // A leading slash anchors at the spool; the paths matched have none.
            let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
            set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
        }
        let matches_all = patterns
            .iter()
            .any(|pattern| pattern == "*" || pattern == "**");
        if matches_all || patterns.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            names: names.build()?,
            paths: paths.build()?,
        }))
    }

    fn hold(&self, rel: &str) -> bool {
        let name = rel.rsplit_once('/').map_or(rel, |(_, name)| name);
        self.names.is_match(name) || self.paths.is_match(rel)
    }
}

impl Taking {
    /// The rules of this route. No include pattern means all files.
    ///
    /// # Errors
    /// A pattern that is none; the configuration's check tells it before.
    pub fn new(route: &Route) -> Result<Self, globset::Error> {
        let excludes_all = route
            .exclude
            .iter()
            .any(|pattern| pattern == "*" || pattern == "**");
        let exclude = match Patterns::new(&route.exclude)? {
            None if excludes_all => Some(Patterns {
                names: all()?,
                paths: GlobSet::empty(),
            }),
            other => other,
        };
        let mut left_out: Vec<String> = below(&route.spool, &route.dead_letter)
            .into_iter()
            .collect();
        // That of a route that downloads is on the server.
        if let After::Archive(folder) = &route.after
            && route.get.is_none()
        {
            left_out.extend(below(&route.spool, folder));
        }
        let include = Patterns::new(&route.include)?;
        Ok(Self {
            include,
            exclude,
            recursive: route.recursive,
            left_out,
            ready_suffix: route.ready_suffix.clone(),
        })
    }

    /// The path whose marker this is by its name, if this route waits for markers.
    pub fn marked_by<'a>(&self, rel: &'a str) -> Option<&'a str> {
        let marked = rel.strip_suffix(self.ready_suffix.as_deref()?)?;
        (!marked.is_empty() && !marked.ends_with('/')).then_some(marked)
    }

    /// Whether a regular file of this path below the spool is taken.
    pub fn takes(&self, rel: &str) -> bool {
        let (folders, name) = rel.rsplit_once('/').unwrap_or(("", rel));
        (folders.is_empty() || self.enters_all(folders)) && self.takes_in_entered(rel, name)
    }

    /// As [`Taking::takes`], for a file in a folder that was entered by these rules.
    pub fn takes_in_entered(&self, rel: &str, name: &str) -> bool {
        let is_marker = |suffix: &String| name.ends_with(suffix.as_str());
        !always_left_out(name)
            && !self.ready_suffix.as_ref().is_some_and(is_marker)
            && self
                .include
                .as_ref()
                .is_none_or(|patterns| patterns.hold(rel))
            && !self
                .exclude
                .as_ref()
                .is_some_and(|patterns| patterns.hold(rel))
    }

    /// Whether the folder of this path is looked into, if those above it are.
    pub fn enters(&self, rel: &str) -> bool {
        let name = rel.rsplit_once('/').map_or(rel, |(_, name)| name);
        self.recursive && !always_left_out(name) && !self.left_out.iter().any(|out| out == rel)
    }

    /// Whether the folder of this path and all those above it are looked into.
    pub fn enters_all(&self, rel: &str) -> bool {
        rel.match_indices('/')
            .all(|(end, _)| self.enters(&rel[..end]))
            && self.enters(rel)
    }
}

fn all() -> Result<GlobSet, globset::Error> {
    GlobSetBuilder::new()
        .add(GlobBuilder::new("*").build()?)
        .build()
}

/// Names that are never taken, of files and of folders: work in progress, ours or a producer's.
pub fn always_left_out(name: &str) -> bool {
    name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".part")
}

/// The name as text, or why it cannot be one that is sent.
///
/// # Errors
/// A reason, for people.
pub fn check_name(name: &[u8]) -> Result<&str, &'static str> {
    let name = str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    if name.chars().any(char::is_control) {
        return Err("its name holds a control character");
    }
    Ok(name)
}

/// The path of `folder` below `spool`, as configured or with all symlinks resolved.
fn below(spool: &Path, folder: &Path) -> Option<String> {
    let plain = folder.strip_prefix(spool).map(Path::to_path_buf);
    let rel = plain.or_else(|_| {
        resolve(folder)
            .strip_prefix(resolve(spool))
            .map(Path::to_path_buf)
    });
    rel.ok()?
        .to_str()
        .filter(|rel| !rel.is_empty())
        .map(str::to_owned)
}

/// Resolves the part of a path that exists; the rest is kept.
fn resolve(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return found.join(rest);
        }
    }
    path.to_path_buf()
}
