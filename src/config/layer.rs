//! One layer of the configuration: known settings only, each with its origin. Secrets are kept
//! aside: `config` copies every value as it merges, and nothing wipes those copies. (A secret that
//! came by a variable stays in the process's environment anyway; one of a file does not.)

use super::keys::{self, Key, Kind, Place};
use super::{Argument, Secret, value};
use ::config::{ConfigError, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::{fmt, mem};

/// Settings by dotted name; a `config` source.
#[derive(Clone, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
    secrets: BTreeMap<String, Secret>,
}

impl Layer {
    pub fn push(&mut self, key: &Key, name: String, mut value: Value) {
        if let (Kind::Secret, ValueKind::String(text)) = (key.kind, &mut value.kind) {
            let secret = Secret::new(mem::take(text));
            self.secrets.insert(name.clone(), secret);
        }
        self.values.insert(name, value);
    }

    /// A setting of `route` that the command line gives.
    pub fn argument(&mut self, route: &str, argument: &Argument) {
        if let Place::Leaf(key) = keys::place(&["routes", route, argument.leaf]) {
            let kind = value::from_text(key.kind, argument.value.reveal());
            let value = Value::new(Some(&argument.origin.to_owned()), kind);
            self.push(key, format!("routes.{route}.{}", argument.leaf), value);
        }
    }

    /// Forgets all settings of routes.
    pub fn leave_routes(&mut self) {
        self.values.retain(|name, _| !name.starts_with("routes."));
        self.secrets.retain(|name, _| !name.starts_with("routes."));
    }

    /// Takes the other layer's settings on; they win.
    pub fn extend(&mut self, other: Self) {
        self.values.extend(other.values);
        self.secrets.extend(other.secrets);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.values.iter()
    }

    /// The secrets by name. In the values an empty text stands for each.
    pub fn take_secrets(&mut self) -> BTreeMap<String, Secret> {
        mem::take(&mut self.secrets)
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}
