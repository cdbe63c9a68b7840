//! How a route's files get their final names: the checked settings `on_conflict` and the others
//! about names on the server.

use super::fault::Wrong;
use super::settings::Settings;
use crate::core::naming::{LITERAL_MAX, Pattern};

/// How a file gets its final name.
#[derive(Debug, Clone, Default)]
pub struct Publishing {
    /// Form of the temporary names.
    pub temps: Pattern,
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
    let temps = s.text(&name("temp_pattern"));
    Publishing {
        // What is refused is told by `check`; the model is not made then.
        temps: temps.map_or_else(Pattern::default, |text| {
            Pattern::of_temps(&text).unwrap_or_default()
        }),
        on_conflict: match s.choice(&name("on_conflict")) {
            "skip" => OnConflict::Skip,
            "rename" => OnConflict::Rename,
            "fail" => OnConflict::Fail,
            _ => OnConflict::Overwrite,
        },
    }
}

/// The forms of names on the server have to tell them from final names.
pub(super) fn check(settings: &mut Settings, route: &str) {
    let name = format!("routes.{route}.temp_pattern");
    if let Some(text) = settings.text(&name)
        && let Err(why) = Pattern::of_temps(&text)
    {
        let allowed = format!(
            "{{token}} once, {{name}} once at most, and up to {LITERAL_MAX} bytes of other text, \
             such as {{name}}.{{token}}.part"
        );
        let way_out = "write another form, or remove the key: .{name}.{token}.part suits most";
        settings.fault(
            &name,
            Wrong::new(format!("{text:?}, {why}"), allowed, way_out),
        );
    }
}
