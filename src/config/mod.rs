//! Configuration: the layers (defaults, file, environment) are read raw, merged by the `config`
//! crate, then checked as a whole. It collects every fault before it refuses, clamps nothing,
//! touches nothing, and prints no secret.

mod active;
mod build;
pub mod change;
mod downloads;
mod env;
mod fault;
mod file;
pub mod keys;
mod layer;
mod model;
mod publishing;
mod rules;
mod secret;
mod server;
mod settings;
mod suggest;
mod timers;
mod tls;
mod value;

pub use active::Active;
pub use fault::{Fault, Faults};
pub use model::*;
pub use publishing::{OnConflict, Publishing};
pub use tls::Tls;

use fault::Wrong;
use layer::Layer;
use settings::Settings;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the configuration comes from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file of `--config`; without it the variable `FTPULSE_CONFIG` may name one.
    pub file: Option<PathBuf>,
    /// The environment. Not text: a variable that is not UTF-8 is a fault, not a panic.
    pub env: Vec<(OsString, OsString)>,
}

impl Sources {
    /// The file of `--config` and this process's environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            env: std::env::vars_os().collect(),
        }
    }
}

/// A setting of a route from the command line.
#[derive(Clone)]
pub struct Argument {
    /// The key's name in the route.
    pub leaf: &'static str,
    /// The value as it was written, which may be a secret.
    pub value: Secret,
    /// Which argument it is, or which variable.
    pub origin: &'static str,
}

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is legal but risky; to be logged at every start.
    pub warnings: Vec<String>,
    /// The effective settings.
    pub settings: Vec<Setting>,
}

/// One effective setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its dotted name.
    pub key: String,
    /// Its value; `(secret)` for a secret.
    pub value: String,
    /// `default`, the file with its line, or the variable.
    pub origin: String,
}

/// What `key` allows, in words.
pub fn allowed(key: &keys::Key) -> String {
    value::allowed(key)
}

/// Reads, merges and checks all layers.
///
/// # Errors
/// Every fault of every layer, at once. Only when the file itself cannot be read, the checks
/// of what is missing or contradictory wait, for it might hold what they look for.
pub fn load(sources: Sources) -> Result<Loaded, Faults> {
    load_for(sources, None, true)
}

/// The same for whoever brings routes of its own: none need be configured.
///
/// # Errors
/// As [`load`].
pub fn load_without_routes(sources: Sources) -> Result<Loaded, Faults> {
    load_for(sources, None, false)
}

/// The same with one route alone, which the command line describes: those of the other layers are
/// left out, whatever they hold. The last layer.
///
/// # Errors
/// As [`load`].
pub fn load_route(sources: Sources, route: &str, arguments: &[Argument]) -> Result<Loaded, Faults> {
    let mut own = Layer::default();
    for argument in arguments {
        own.argument(route, argument);
    }
    load_for(sources, Some(own), true)
}

fn load_for(sources: Sources, own: Option<Layer>, need_a_route: bool) -> Result<Loaded, Faults> {
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let file = match named_file(&sources, &mut faults) {
        Some((path, named_by)) => file::layer(&path, named_by, &mut faults),
        None if faults.is_empty() => Some(Layer::default()),
        None => None,
    };
    let complete = file.is_some();
    let mut file = file.unwrap_or_default();
    let mut env = env::layer(&sources.env, &mut faults, &mut warnings);
    if let Some(own) = own {
        faults.retain(|fault| !fault.key.starts_with("routes."));
        file.leave_routes();
        env.leave_routes();
        env.extend(own);
    }
    let mut settings = Settings::new(file, env, faults);
    if !complete {
        return Err(Faults(settings.faults));
    }
    rules::check(&mut settings);
    build::build(settings, warnings, need_a_route).map_err(|settings| Faults(settings.faults))
}

/// The secret in a file that is no part of a configuration, read by the same rules.
///
/// # Errors
/// Why there is none, in words; nothing of the content is quoted.
pub fn secret_file(path: &Path) -> Result<Secret, String> {
    secret::read(path, secret::Form::Line)
}

fn named_file(sources: &Sources, faults: &mut Vec<Fault>) -> Option<(PathBuf, &'static str)> {
    if let Some(path) = &sources.file {
        return Some((path.clone(), "--config"));
    }
    let (_, path) = sources
        .env
        .iter()
        .find(|(name, _)| name == "FTPULSE_CONFIG")?;
    if path.is_empty() {
        let wrong = Wrong::new(
            "an empty text",
            "the path of a TOML file",
            "name a file, or unset it",
        );
        faults.push(wrong.of("FTPULSE_CONFIG", Some("FTPULSE_CONFIG")));
        return None;
    }
    Some((path.into(), "FTPULSE_CONFIG"))
}
