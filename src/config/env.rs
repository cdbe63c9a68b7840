//! The layer of the environment: `FTPULSE__SECTION__KEY`, each value with its variable as origin.
//! Variables that look like a setting but are none become faults, so that a slip of the pen
//! does not silently leave a default in place. Values of unknown variables are never quoted.

use super::fault::{Fault, Wrong};
use super::file::unknown;
use super::keys::{self, Place};
use super::layer::Layer;
use super::{suggest, value};
use ::config::{Environment, Map, Source, Value, ValueKind};
use std::ffi::{OsStr, OsString};

/// Variables that are no settings, but this program's all the same.
const OTHERS: [&str; 3] = [
    "FTPULSE_CONFIG",
    "FTPULSE_PASSWORD",
    "FTPULSE_PASSWORD_FILE",
];
const FORM: &str = "variables of the form FTPULSE__SECTION__KEY, in capitals";

/// Reads the variables; adds to `faults` and `warnings` what is wrong with them.
pub(super) fn layer(
    variables: &[(OsString, OsString)],
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Layer {
    let mut settings = Map::new();
    // Sorted, so that the same environment always gives the same text.
    let mut variables: Vec<_> = variables.iter().collect();
    variables.sort();
    for (name, value) in variables {
        match candidate(name, value, warnings) {
            Ok(Some((name, value))) => drop(settings.insert(name, value)),
            Ok(None) => {}
            Err(fault) => faults.push(fault),
        }
    }
    decode(settings, faults)
}

/// The variable, if it sets a setting.
fn candidate(
    name: &OsStr,
    value: &OsStr,
    warnings: &mut Vec<String>,
) -> Result<Option<(String, String)>, Fault> {
    let shown = name.to_string_lossy();
    let upper = shown.to_uppercase();
    if !upper.starts_with("FTPULSE_") || OTHERS.contains(&&*shown) {
        return Ok(None);
    }
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let fault = |found: &str, way_out: String| {
        Err(Wrong::new(found, FORM, way_out).of(format!("{shown:?}"), Some(&shown)))
    };
    if !upper.starts_with("FTPULSE__") {
        return look_alike(&shown, warnings);
    }
    if !shown.bytes().all(legal) {
        let repaired: String = upper.replace(['.', '-'], "_");
        let way_out = match repaired.bytes().all(legal) {
            true => format!("did you mean {repaired}?"),
            false => "rename or remove it".into(),
        };
        return fault(
            "a name with other signs than capitals, digits and underscores",
            way_out,
        );
    }
    match value.to_str() {
        Some(value) => Ok(Some((shown.into_owned(), value.into()))),
        None => fault(
            "a value that is not UTF-8 text (not shown)",
            "write it as UTF-8".into(),
        ),
    }
}

fn look_alike<T>(name: &str, warnings: &mut Vec<String>) -> Result<Option<T>, Fault> {
    if let Some(meant) = suggest::look_alike(name).or_else(|| suggest::variable(name)) {
        let found = "a name with single underscores, which sets nothing (its value is not shown)";
        let way_out = format!("did you mean {meant}? otherwise remove it");
        return Err(Wrong::new(found, FORM, way_out).of(name, Some(name)));
    }
    // Kubernetes sets such variables in every pod beside a service whose name begins with ours.
    let of_kubernetes = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    if !of_kubernetes.iter().any(|part| name.contains(part)) {
        warnings.push(format!(
            "the variable {name} sets nothing; settings begin with FTPULSE__"
        ));
    }
    Ok(None)
}

/// From variables to settings, by `config`'s own rules.
fn decode(settings: Map<String, String>, faults: &mut Vec<Fault>) -> Layer {
    let source = Environment::with_prefix("FTPULSE")
        .separator("__")
        .source(Some(settings));
    let mut layer = Layer::default();
    let collected = match source.collect() {
        Ok(collected) => collected,
        Err(error) => {
            let wrong = Wrong::new(error.to_string(), FORM, "repair or remove it");
            faults.push(wrong.of("environment", Some("the environment")));
            return layer;
        }
    };
    let mut collected: Vec<_> = collected.into_iter().collect();
    collected.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in collected {
        let variable = keys::variable(&name);
        let parts: Vec<&str> = name.split('.').collect();
        match (keys::place(&parts), value.kind) {
            (Place::Leaf(key), ValueKind::String(text)) => {
                let sound = parts[0] != "routes" || keys::is_route_name(parts[1]);
                if sound {
                    let value = value::from_text(key.kind, &text);
                    layer.push(key, name, Value::new(Some(&variable), value));
                } else {
                    let wrong = Wrong::new(
                        format!("the route name {:?}", parts[1]),
                        "letters, digits and single underscores",
                        "write FTPULSE__ROUTES__NAME__KEY with two underscores between the parts",
                    );
                    faults.push(wrong.of(variable.clone(), Some(&variable)));
                }
            }
            (Place::Section, _) => {
                let way_out = format!("name a key below it: {variable}__KEY");
                let wrong = Wrong::new(
                    "a section without a key (its value is not shown)",
                    FORM,
                    way_out,
                );
                faults.push(wrong.of(name, Some(&variable)));
            }
            _ => {
                let near = match name.as_str() {
                    "config" => Some("FTPULSE_CONFIG".into()),
                    _ => suggest::key(&name).map(|near| keys::variable(&near)),
                };
                faults.push(unknown(name, near, "key").of_origin(&variable));
            }
        }
    }
    layer
}
