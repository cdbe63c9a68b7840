//! All layers merged by `config` and every value checked against the table.
//! A setting whose value is refused stands at its default here, so that the checks can go on
//! and all faults come out at once; with any fault, nothing of this leaves the module.

use super::fault::{Fault, Wrong};
use super::keys::{self, Key, Place};
use super::layer::Layer;
use super::value::{self, Typed};
use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Origin of what nobody set.
pub(super) const DEFAULT: &str = "default";

/// The merged settings by dotted name.
#[derive(Default)]
pub(super) struct Settings {
    typed: BTreeMap<String, Typed>,
    raw: BTreeMap<String, Value>,
    bad: BTreeSet<String>,
    /// Every route with the place that names it first.
    pub routes: BTreeMap<String, String>,
    pub faults: Vec<Fault>,
}

impl Settings {
    /// Merges the layers, the later one wins, and checks each value.
    pub fn new(mut file: Layer, mut env: Layer, faults: Vec<Fault>) -> Self {
        let mut settings = Self {
            faults,
            ..Self::default()
        };
        for (name, value) in env.iter().chain(file.iter()) {
            if let ["routes", route, _] = name.split('.').collect::<Vec<_>>()[..] {
                let origin = value.origin().unwrap_or_default().to_owned();
                let first = settings
                    .routes
                    .entry(route.into())
                    .or_insert_with(|| origin.clone());
                // Layers are unordered maps: the smallest origin makes the text the same each time.
                if origin < *first {
                    *first = origin;
                }
            }
        }
        let mut secrets = file.take_secrets();
        secrets.extend(env.take_secrets());
        match merge(&settings.routes, file, env) {
            Ok(values) => flatten(values, "", &mut settings.raw),
            Err(error) => {
                let wrong = Wrong::new(
                    error.to_string(),
                    "layers that can be merged",
                    "report this",
                );
                settings.faults.push(wrong.of("configuration", None));
            }
        }
        for (name, value) in settings.raw.clone() {
            settings.check(&name, &value);
        }
        for (name, secret) in secrets {
            // What was refused has no value.
            if let Some(Typed::Secret(empty)) = settings.typed.get_mut(&name) {
                *empty = secret;
            }
        }
        settings
    }

    fn check(&mut self, name: &str, value: &Value) {
        let parts: Vec<&str> = name.split('.').collect();
        let Place::Leaf(key) = keys::place(&parts) else {
            return;
        };
        match value::read(key, &value.kind) {
            Ok(typed) => drop(self.typed.insert(name.into(), typed)),
            Err(wrong) => {
                self.fault(name, wrong);
                if let Some(Ok(default)) = default_of(key) {
                    self.typed.insert(name.into(), default);
                }
            }
        }
    }

    /// Records what is wrong with a setting, with its origin.
    pub fn fault(&mut self, name: &str, wrong: Wrong) {
        let origin = self.raw.get(name).and_then(Value::origin);
        self.faults.push(wrong.of(name, origin));
        self.bad.insert(name.into());
    }

    /// Whether none of these was refused: a contradiction with a refused value is no news.
    pub fn sound(&self, names: &[&str]) -> bool {
        !names.iter().any(|name| self.bad.contains(*name))
    }

    /// Where the setting comes from.
    pub fn origin(&self, name: &str) -> &str {
        self.raw
            .get(name)
            .and_then(Value::origin)
            .unwrap_or(DEFAULT)
    }

    /// The first of several contradicting settings that somebody set; the first if nobody did.
    pub fn set_by_hand<'a, const N: usize>(&self, names: [&'a str; N]) -> &'a str {
        let set = names.iter().find(|name| self.origin(name) != DEFAULT);
        set.or(names.first()).copied().unwrap_or_default()
    }

    /// Whether any layer, defaults included, has it.
    pub fn has(&self, name: &str) -> bool {
        self.raw.contains_key(name)
    }

    /// The value as it was written, for a person.
    pub fn shown(&self, key: &Key, name: &str) -> Option<String> {
        Some(match &self.raw.get(name)?.kind {
            ValueKind::Array(items) => items
                .iter()
                .map(|item| item.kind.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            ValueKind::String(_) if matches!(key.kind, keys::Kind::Secret) => "(secret)".into(),
            other => other.to_string(),
        })
    }

    /// A checked value; none if it is absent or was refused and has no default.
    pub fn get(&self, name: &str) -> Option<&Typed> {
        self.typed.get(name)
    }

    #[allow(clippy::expect_used)]
    fn certain<T>(&self, name: &str, pick: impl Fn(&Typed) -> Option<T>) -> T {
        self.get(name)
            .and_then(pick)
            .expect("the table gives this setting a default of its kind")
    }

    pub fn duration(&self, name: &str) -> Duration {
        self.certain(name, |typed| match typed {
            Typed::Duration(duration) => Some(*duration),
            _ => None,
        })
    }

    pub fn duration_or_none(&self, name: &str) -> Option<Duration> {
        self.certain(name, |typed| match typed {
            Typed::Duration(duration) => Some(Some(*duration)),
            Typed::None => Some(None),
            _ => None,
        })
    }

    /// A whole number; the table's bounds keep it within 32 bits.
    pub fn whole(&self, name: &str) -> u32 {
        self.certain(name, |typed| match typed {
            Typed::Whole(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The same where it may lie below 0.
    pub fn signed(&self, name: &str) -> i32 {
        self.certain(name, |typed| match typed {
            Typed::Whole(number) => i32::try_from(*number).ok(),
            _ => None,
        })
    }

    pub fn size(&self, name: &str) -> u64 {
        self.certain(name, |typed| match typed {
            Typed::Size(size) => Some(*size),
            _ => None,
        })
    }

    pub fn size_or_none(&self, name: &str) -> Option<u64> {
        self.certain(name, |typed| match typed {
            Typed::Size(size) => Some(Some(*size)),
            Typed::None => Some(None),
            _ => None,
        })
    }

    pub fn share(&self, name: &str) -> f64 {
        self.certain(name, |typed| match typed {
            Typed::Share(share) => Some(*share),
            _ => None,
        })
    }

    pub fn bool(&self, name: &str) -> bool {
        self.certain(name, |typed| match typed {
            Typed::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub fn choice(&self, name: &str) -> &'static str {
        self.certain(name, |typed| match typed {
            Typed::Choice(option) => Some(*option),
            _ => None,
        })
    }

    pub fn patterns(&self, name: &str) -> Vec<String> {
        self.certain(name, |typed| match typed {
            Typed::Patterns(patterns) => Some(patterns.clone()),
            _ => None,
        })
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        match self.get(name) {
            Some(Typed::Path(path)) => Some(path.clone()),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Typed::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }
}

/// Lets `config` lay the layers over the defaults.
fn merge(
    routes: &BTreeMap<String, String>,
    file: Layer,
    env: Layer,
) -> Result<Map<String, Value>, ConfigError> {
    let mut builder = Config::builder();
    let service = keys::of_service().map(|key| (key.name.to_owned(), key));
    let of_routes = routes.keys().flat_map(|route| {
        keys::of_routes().map(move |key| (format!("routes.{route}.{}", key.leaf()), key))
    });
    for (name, key) in service.chain(of_routes) {
        if let Some(value) = default_value(key) {
            builder = builder.set_default(name, value)?;
        }
    }
    builder.add_source(file).add_source(env).build()?.collect()
}

/// The default as a value; none if there is none, or if it follows from another setting.
fn default_value(key: &Key) -> Option<Value> {
    let text = key.default.filter(|text| !text.starts_with('<'))?;
    Some(Value::new(
        Some(&DEFAULT.to_owned()),
        value::from_text(key.kind, text),
    ))
}

fn default_of(key: &Key) -> Option<Result<Typed, Wrong>> {
    Some(value::read(key, &default_value(key)?.kind))
}

fn flatten(values: Map<String, Value>, above: &str, into: &mut BTreeMap<String, Value>) {
    for (name, value) in values {
        let name = if above.is_empty() {
            name
        } else {
            format!("{above}.{name}")
        };
        match value.kind {
            ValueKind::Table(values) => flatten(values, &name, into),
            _ => drop(into.insert(name, value)),
        }
    }
}
