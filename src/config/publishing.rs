//! How a route's files get their final names: the checked settings `on_conflict` and the others
//! about names on the server.

use super::settings::Settings;

/// How a file gets its final name.
#[derive(Debug, Clone, Default)]
pub struct Publishing {
    /// What happens when the final name exists.
    pub on_conflict: OnConflict,
}

/// What happens when the final name exists on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// It is replaced; nothing is asked.
    #[default]
    Overwrite,
    /// The file is not sent; its source is finished.
    Skip,
    /// The file is published under the next free `name-1.ext`.
    Rename,
    /// The file fails, and is tried again later.
    Fail,
}

/// Reads the settings of a route.
pub(super) fn of(s: &Settings, route: &str) -> Publishing {
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    Publishing {
        on_conflict: match s.choice(&name("on_conflict")) {
            "skip" => OnConflict::Skip,
            "rename" => OnConflict::Rename,
            "fail" => OnConflict::Fail,
            _ => OnConflict::Overwrite,
        },
    }
}
