//! What the tests of `deploy/` read: its files, its YAML, what a PromQL expression asks for, and
//! programs run for their verdict.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ftpulse::core::names::{
    AttemptResult, Beat, Cause, FileOutcome, Phase, ReleaseReason, RestartReason,
};
use ftpulse::metrics::Metrics;
use serde_json::Value;

/// Prometheus makes this one itself.
const MADE_BY_PROMETHEUS: &str = "up";
/// A path below the repository's root.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the repository.
pub fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The documents of a YAML file of the repository.
pub fn yaml(name: &str) -> Vec<Value> {
    let program = "import json, sys, yaml\n\
                   print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let mut python = Command::new("python3");
    let output = run(python.args(["-c", program]).arg(path(name)));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a program that has to end well.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| {
        panic!("{command:?}: {e}; `tests/run servers` installs what is needed")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .any(|folder| Path::new(folder).join(program).exists())
}

/// Everything below a JSON value that stands under this key.
pub fn all<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if name == key {
                    found.push(inner);
                }
                found.extend(all(inner, key));
            }
        }
        Value::Array(list) => found.extend(list.iter().flat_map(|inner| all(inner, key))),
        _ => {}
    }
    found
}

/// The text under a key.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// The alert rules.
pub fn alerts() -> Vec<Value> {
    let document = yaml("deploy/prometheus/alerts.yml").remove(0);
    let groups = document["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|g| g["rules"].as_array().unwrap());
    rules.cloned().collect()
}

/// The dashboard.
pub fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/dashboards/ftpulse.json")).unwrap()
}

/// What the dashboard asks: its panels' and annotations' expressions.
pub fn queries(dashboard: &Value) -> Vec<String> {
    let found = all(dashboard, "expr").into_iter();
    found
        .map(|expr| expr.as_str().unwrap().to_owned())
        .collect()
}

/// The names of all series that a scrape can have.
pub fn series() -> BTreeSet<String> {
    let metrics = Metrics::new(&["main"], "1", "1");
    metrics.set_oldest_pending("main", Some(1.0));
    metrics.set_last_success("main", 1.0);
    let text = metrics.render().unwrap();
    let mut names = BTreeSet::from([MADE_BY_PROMETHEUS.into()]);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        names.insert(line[..end].to_owned());
    }
    names
}

/// The closed sets of label values (CONTRACT: "Metrics").
pub fn label_values() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let reasons = ReleaseReason::ALL.iter().map(|r| r.as_str());
    let restarts = RestartReason::ALL.iter().map(|r| r.as_str());
    BTreeMap::from([
        ("cause", Cause::ALL.iter().map(|c| c.as_str()).collect()),
        ("phase", Phase::ALL.iter().map(|p| p.as_str()).collect()),
        (
            "outcome",
            FileOutcome::ALL.iter().map(|o| o.as_str()).collect(),
        ),
        (
            "result",
            AttemptResult::ALL
                .iter()
                .map(|r| r.as_str())
                .chain(Beat::ALL.iter().map(|b| b.as_str()))
                .collect(),
        ),
        ("reason", reasons.chain(restarts).collect()),
    ])
}

/// What an expression asks for that does not exist.
pub fn strangers(expr: &str) -> Vec<String> {
    let (series, sets) = (series(), label_values());
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expr.split(|c| !word(c));
    let ours =
        words.filter(|w| w.starts_with("ftpulse_") || w.starts_with("process_") || *w == "up");
    let mut faults: Vec<String> = ours
        .filter(|name| !series.contains(*name))
        .map(|name| format!("no metric {name}"))
        .collect();
    for (label, set) in &sets {
        for place in expr
            .split(&format!("{label}="))
            .skip(1)
            .chain(expr.split(&format!("{label}!=")).skip(1))
        {
            let quoted = place
                .trim_start_matches('~')
                .split('"')
                .nth(1)
                .unwrap_or_default();
            let values = quoted.split('|').filter(|value| !set.contains(value));
            faults.extend(values.map(|value| format!("no {label} {value}")));
        }
    }
    faults
}
