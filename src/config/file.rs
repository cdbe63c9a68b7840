//! The layer of the configuration file: TOML, every value with its file and line as origin.
//! What is unknown or in the wrong place becomes a fault and does not enter the layer; a syntax
//! error is told by its place only, for the line itself may hold a secret.

use super::fault::{Fault, Wrong};
use super::keys::{self, Place};
use super::layer::Layer;
use super::{secret, suggest};
use ::config::{Value, ValueKind};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

// A configuration of a thousand routes is a tenth of this.
const LENGTH_MAX: u64 = 4 * 1024 * 1024;

/// Reads the file; `named_by` is the argument or variable that names it.
pub(super) fn layer(path: &Path, named_by: &str, faults: &mut Vec<Fault>) -> Option<Layer> {
    // It may hold secrets: wiped in the end.
    let bytes = secret::bytes(path, LENGTH_MAX);
    let text = match &bytes {
        Ok(bytes) => str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text"),
        Err(why) => Err(why.as_str()),
    };
    let text = match text {
        Ok(text) => text,
        Err(why) => {
            let wrong = Wrong::new(
                format!("the file {path:?}: {why}"),
                "a readable TOML file",
                "name another file, or none to use variables only",
            );
            faults.push(wrong.of("configuration file", Some(named_by)));
            return None;
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk {
        path,
        text,
        faults,
        layer: Layer::default(),
    };
    for error in &errors {
        let found = format!("a syntax error: {}", error.message());
        let wrong = Wrong::new(found, "TOML", "repair this line; texts stand in quotes");
        let origin = walk.origin(error.span().map_or(0, |span| span.start));
        walk.faults
            .push(wrong.of("configuration file", Some(&origin)));
    }
    if !errors.is_empty() {
        return None;
    }
    walk.table(table.get_ref(), &mut Vec::new(), true);
    Some(walk.layer)
}

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    faults: &'a mut Vec<Fault>,
    layer: Layer,
}

impl Walk<'_> {
    fn origin(&self, offset: usize) -> String {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}", self.path.display())
    }

    /// `keep`: whether sound values enter the layer; not below a route whose name is refused.
    fn table(&mut self, table: &DeTable<'_>, above: &mut Vec<String>, keep: bool) {
        // The table is sorted by key; people read faults in the order of their file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            above.push(key.get_ref().to_string());
            let origin = self.origin(key.span().start);
            self.entry(&origin, value, above, keep);
            above.pop();
        }
    }

    fn entry(
        &mut self,
        origin: &str,
        value: &Spanned<DeValue<'_>>,
        at: &mut Vec<String>,
        keep: bool,
    ) {
        let parts: Vec<&str> = at.iter().map(String::as_str).collect();
        let (name, place) = (parts.join("."), keys::place(&parts));
        match (place, value.get_ref()) {
            (Place::Section, DeValue::Table(table)) => {
                let sound = parts.len() != 2 || self.route_name(parts[1], origin);
                self.table(table, at, keep && sound);
            }
            (Place::Leaf(_), DeValue::Table(_)) => {
                let found = "a section of this name";
                let wrong = Wrong::new(
                    found,
                    "a single value",
                    format!("write {} = …", parts[parts.len() - 1]),
                );
                self.faults.push(wrong.of(name, Some(origin)));
            }
            (Place::Leaf(key), value) if keep => {
                self.layer
                    .push(key, name, Value::new(Some(&origin.to_owned()), kind(value)));
            }
            (Place::Leaf(_), _) => {}
            (Place::Section, value) => {
                let header = if parts[0] == "routes" {
                    "[routes.NAME]"
                } else {
                    &format!("[{name}]")
                };
                let found = format!("{} (not shown)", plain_type(value));
                let wrong = Wrong::new(
                    found,
                    "a section",
                    format!("write the section's header {header}"),
                );
                self.faults.push(wrong.of(name, Some(origin)));
            }
            (Place::Unknown, DeValue::Table(_)) => {
                let near = suggest::section(&name).map(|near| format!("[{near}]"));
                self.faults
                    .push(unknown(name, near, "section").of_origin(origin));
            }
            (Place::Unknown, _) => {
                let near = suggest::key(&name);
                self.faults
                    .push(unknown(name, near, "key").of_origin(origin));
            }
        }
    }

    fn route_name(&mut self, name: &str, origin: &str) -> bool {
        let sound = keys::is_route_name(name);
        if !sound {
            let repaired = name.to_lowercase().replace(['-', ' ', '.'], "_");
            let way_out = match keys::is_route_name(&repaired) {
                true => format!("did you mean [routes.{repaired}]?"),
                false => "give the route another name".into(),
            };
            let allowed = "small letters, digits and single underscores";
            let wrong = Wrong::new(format!("the route name {name:?}"), allowed, way_out);
            self.faults
                .push(wrong.of(format!("routes.{name:?}"), Some(origin)));
        }
        sound
    }
}

/// The fault of an unknown name; its value may be a secret under a misspelt key.
pub(super) fn unknown(name: String, near: Option<String>, what: &str) -> Fault {
    let way_out = match near {
        Some(near) => format!("did you mean {near}? otherwise remove it"),
        None => "remove it; config/ftpulse.toml lists every key".into(),
    };
    let found = format!("an unknown {what} (its value is not shown)");
    Wrong::new(found, "the keys of config/ftpulse.toml", way_out).of(name, None)
}

impl Fault {
    pub(super) fn of_origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.into());
        self
    }
}

fn plain_type(value: &DeValue<'_>) -> &'static str {
    super::value::type_of(&kind(value))
}

fn kind(value: &DeValue<'_>) -> ValueKind {
    match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => ValueKind::I64(number),
            // Too large for any setting: as text it is refused with the bounds.
            Err(_) => ValueKind::String(number.as_str().into()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => ValueKind::Float(number),
            Err(_) => ValueKind::String(number.as_str().into()),
        },
        DeValue::Boolean(value) => ValueKind::Boolean(*value),
        DeValue::Datetime(moment) => ValueKind::String(moment.to_string()),
        DeValue::Array(items) => {
            let items = items
                .iter()
                .map(|item| Value::new(None, kind(item.get_ref())));
            ValueKind::Array(items.collect())
        }
        DeValue::Table(_) => ValueKind::Table(Default::default()),
    }
}
