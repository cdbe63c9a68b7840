//! How a route's files get their final names: the checked settings `on_conflict` and the others
//! about names on the server.

use super::fault::Wrong;
use super::settings::{DEFAULT, Settings};
use crate::core::naming::{LITERAL_MAX, Pattern};

/// How a file gets its final name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Publishing {
    /// Straight under its final name, without a rename.
    pub direct: bool,
    /// Form of the temporary names.
    pub temps: Pattern,
    /// Form of the markers, where the route has them.
    pub markers: Option<Pattern>,
    /// What happens when the final name exists.
    pub on_conflict: OnConflict,
    /// A file bears the time of its source on the server.
    pub keep_time: bool,
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
        direct: s.choice(&name("publish")) == "direct",
        // What is refused is told by `check`; the model is not made then.
        temps: temps.map_or_else(Pattern::default, |text| {
            Pattern::of_temps(&text).unwrap_or_default()
        }),
        markers: s
            .text(&name("remote_marker"))
            .and_then(|text| Pattern::of_markers(&text).ok()),
        on_conflict: match s.choice(&name("on_conflict")) {
            "skip" => OnConflict::Skip,
            "rename" => OnConflict::Rename,
            "fail" => OnConflict::Fail,
            _ => OnConflict::Overwrite,
        },
        keep_time: s.bool(&name("keep_time")),
    }
}

/// What publishing without a rename gives up, for whoever starts the service.
pub(super) fn warnings(s: &Settings) -> Vec<String> {
    let direct = s.routes.keys().filter(|route| of(s, route).direct);
    let told = direct.flat_map(|route| {
        let pattern = format!("routes.{route}.temp_pattern");
        let idle = (s.origin(&pattern) != DEFAULT).then(|| {
            let origin = s.origin(&pattern);
            format!("{pattern} (from {origin}) has no effect: routes.{route}.publish is \"direct\"")
        });
        let torn = format!(
            "routes.{route}.publish = \"direct\": files are seen under their final names while \
             they are sent, and torn after a failure until they are sent again; after a lost \
             reply only the size tells whether a file arrived. Use it only where the server \
             refuses to rename"
        );
        [Some(torn), idle].into_iter().flatten()
    });
    told.collect()
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
    let name = format!("routes.{route}.remote_marker");
    if let Some(text) = settings.text(&name)
        && let Err(why) = Pattern::of_markers(&text)
    {
        let allowed = format!(
            "{{name}} once, with 1 to {LITERAL_MAX} bytes of other text, such as {{name}}.done"
        );
        let way_out = "write another form, or remove the key: no markers are stored then";
        settings.fault(
            &name,
            Wrong::new(format!("{text:?}, {why}"), allowed, way_out),
        );
    }
}
