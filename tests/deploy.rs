//! What stands in `deploy/` is right: the alert rules and their cases, the runbook, the dashboard's
//! form, the Kubernetes manifests, compose, the systemd unit (and that its hardening leaves the
//! service all it needs), the manual and the completions. That the dashboard's queries answer is
//! in `tests/prometheus.rs`, the image in `tests/container.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod deploy_common;
mod support;

#[path = "deploy_common/manual.rs"]
mod manual;
#[path = "deploy_common/unit.rs"]
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use deploy_common::{alerts, all, dashboard, path, queries, read, run, strangers, text, yaml};
use serde_json::Value;
use support::temp_dir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ftpulse");

/// The default of a key of the last section of `config/ftpulse.toml` that has it.
fn default_of(key: &str) -> Duration {
    let start = format!("#{key} = \"");
    let config = read("config/ftpulse.toml");
    let line = config.lines().rev().find_map(|l| l.strip_prefix(&start));
    duration(
        line.unwrap_or_else(|| panic!("no {key}"))
            .trim_end_matches('"'),
    )
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap()
}

fn promtool(args: &[&str]) {
    let folder = path("deploy/prometheus");
    run(Command::new("promtool").args(args).current_dir(folder));
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml", "alerts_slow_test.yml"]);
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let mut cases = yaml("deploy/prometheus/alerts_test.yml");
    cases.extend(yaml("deploy/prometheus/alerts_slow_test.yml"));
    let mut seen: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    let groups = cases.iter().flat_map(|file| file["tests"].as_array());
    for case in groups.flatten() {
        assert!(
            !case["input_series"].as_array().unwrap().is_empty(),
            "{case}"
        );
        for test in case["alert_rule_test"].as_array().unwrap() {
            let fires = !test["exp_alerts"].as_array().unwrap().is_empty();
            seen.entry(text(test, "alertname"))
                .or_default()
                .insert(fires);
        }
    }
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for alert in &alerts {
        let name = text(alert, "alert");
        assert_eq!(
            seen.remove(name),
            Some(BTreeSet::from([false, true])),
            "{name}"
        );
    }
    assert!(seen.is_empty(), "cases of no alert: {seen:?}");
}

#[test]
fn rules_and_dashboard_ask_only_for_metrics_and_label_values_that_exist() {
    let mut asked: Vec<String> = alerts()
        .iter()
        .map(|a| text(a, "expr").to_owned())
        .collect();
    asked.extend(queries(&dashboard()));
    assert!(asked.len() > 40);
    for expr in asked {
        assert_eq!(strangers(&expr), [""; 0], "{expr}");
    }
    // And what does not exist is found.
    for (expr, fault) in [
        ("sum(ftpulse_file_total)", "no metric ftpulse_file_total"),
        ("rate(process_cpu_total[5m])", "no metric process_cpu_total"),
        ("ftpulse_files_total{outcome=\"lost\"}", "no outcome lost"),
        (
            "ftpulse_uploader_resets_total{cause=~\"disk|dsn\"}",
            "no cause dsn",
        ),
        (
            "ftpulse_upload_attempts_total{result!=\"okay\"}",
            "no result okay",
        ),
    ] {
        assert_eq!(strangers(expr), [fault], "{expr}");
    }
}

#[test]
fn every_alert_has_its_severity_and_its_section_in_the_runbook() {
    let runbook = read("deploy/RUNBOOK.md");
    let sections: Vec<&str> = runbook.split("\n## ").skip(1).collect();
    let mut of_alerts: BTreeMap<&str, &str> = sections
        .iter()
        .filter_map(|section| section.split_once('\n'))
        .filter(|(heading, _)| heading.starts_with("Ftpulse"))
        .collect();
    for alert in alerts() {
        let name = text(&alert, "alert");
        let severity = text(&alert["labels"], "severity");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
        let url = format!("deploy/RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(text(&alert["annotations"], "runbook_url"), url);
        let section = of_alerts.remove(name);
        let section = section.unwrap_or_else(|| panic!("no section of {name}"));
        for part in ["**Means**", "**Look**", "**Do**", "**Goes**"] {
            assert_eq!(section.matches(part).count(), 1, "{name}: {part}");
        }
    }
    assert!(of_alerts.is_empty(), "sections of no alert: {of_alerts:?}");
    // Each link leads to a heading.
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        })
        .collect();
    let links = runbook.split("](#").skip(1);
    for link in links.map(|rest| rest.split(')').next().unwrap()) {
        assert!(anchors.contains(link), "{link} is no heading");
    }
}

#[test]
fn the_runbook_names_only_commands_settings_and_metrics_that_exist() {
    let runbook = read("deploy/RUNBOOK.md");
    let help = |args: &[&str]| {
        let output = run(Command::new(PROGRAM).args(args).arg("--help"));
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = help(&[]);
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '-')
            .collect::<String>()
    };
    let mut seen = 0;
    for rest in runbook.split("ftpulse ").skip(1) {
        let command = word(rest);
        // Of what stands in code only: the name is also a word of the prose.
        if !["status", "incidents", "check", "retry", "drill", "run"].contains(&command.as_str()) {
            continue;
        }
        assert!(commands.contains(&format!("\n  {command} ")), "{command}");
        let line = rest.split(['`', '\n']).next().unwrap();
        let said = help(&[&command]);
        for option in line.split("--").skip(1).map(word).filter(|o| !o.is_empty()) {
            assert!(
                said.contains(&format!("--{option}")),
                "ftpulse {command} --{option}"
            );
        }
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
    let config = read("config/ftpulse.toml");
    for section in [
        "timers",
        "heartbeat",
        "quarantine",
        "watchdog",
        "retry",
        "shutdown",
        "state",
        "http",
        "log",
    ] {
        for rest in runbook.split(&format!("`{section}.")).skip(1) {
            let key = rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap();
            let known = key.is_empty() || config.contains(&format!("{key} = "));
            assert!(known, "{section}.{key} is no key");
        }
    }
    for name in runbook
        .split('`')
        .filter(|code| code.starts_with("ftpulse_"))
    {
        assert_eq!(strangers(name), [""; 0]);
    }
}

#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    assert_eq!(text(&dashboard, "uid"), "ftpulse");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|v| text(v, "name")).collect();
    assert_eq!(names, ["datasource", "instance", "route"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    let mut cells = BTreeMap::new();
    for panel in panels {
        let title = text(panel, "title");
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        assert!(titles.insert(title), "{title}: twice");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = cells.insert(cell, title) {
                panic!("{title} lies over {other}");
            }
        }
        if text(panel, "type") == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        let refs: BTreeSet<&str> = targets.iter().map(|t| text(t, "refId")).collect();
        assert_eq!(
            refs.len(),
            targets.len(),
            "{title}: each query has a letter of its own"
        );
        assert!(panel["datasource"].is_object(), "{title}");
    }
    for source in all(&dashboard, "datasource") {
        assert_eq!(
            text(source, "uid"),
            "${datasource}",
            "any Prometheus, not one of ours"
        );
    }
    for expr in queries(&dashboard) {
        assert!(
            expr.contains("$instance"),
            "{expr}: of the chosen instances only"
        );
    }
}

/// The objects that a kustomization names, without what its generators make.
fn manifests(folder: &str) -> Vec<Value> {
    let kustomization = yaml(&format!("{folder}/kustomization.yaml")).remove(0);
    let mut found = Vec::new();
    for resource in kustomization["resources"].as_array().unwrap() {
        let name = format!("{folder}/{}", resource.as_str().unwrap());
        if name.ends_with(".yaml") {
            found.extend(yaml(&name));
        } else {
            found.extend(manifests(&name));
        }
    }
    found
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

/// What the profile "restricted" of the Pod Security Standards forbids in a pod.
fn against_restricted(pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        hold(pod.get(key).is_none_or(|v| v == false), key);
    }
    let kinds = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let mut keys = volume.as_object().unwrap().keys();
        hold(
            keys.all(|k| k == "name" || kinds.contains(&k.as_str())),
            "volumes",
        );
    }
    let own = &pod["securityContext"];
    hold(own["runAsNonRoot"] == true, "runAsNonRoot");
    hold(
        own["runAsUser"].as_u64().is_some_and(|uid| uid != 0),
        "runAsUser",
    );
    hold(
        own["seccompProfile"]["type"] == "RuntimeDefault",
        "seccompProfile",
    );
    hold(own.get("sysctls").is_none(), "sysctls");
    for container in ["containers", "initContainers"]
        .iter()
        .flat_map(|k| pod[k].as_array().into_iter().flatten())
    {
        let own = &container["securityContext"];
        hold(
            own["allowPrivilegeEscalation"] == false,
            "allowPrivilegeEscalation",
        );
        hold(
            own.get("privileged").is_none_or(|v| v == false),
            "privileged",
        );
        hold(
            own["capabilities"]["drop"] == serde_json::json!(["ALL"]),
            "capabilities.drop",
        );
        hold(own["capabilities"].get("add").is_none(), "capabilities.add");
        hold(
            own.get("runAsUser").is_none() && own.get("runAsNonRoot").is_none(),
            "the pod's user",
        );
        hold(
            own.get("procMount").is_none() && own.get("seLinuxOptions").is_none(),
            "procMount, seLinuxOptions",
        );
        let ports = container["ports"].as_array().into_iter().flatten();
        hold(
            ports.into_iter().all(|p| p.get("hostPort").is_none()),
            "hostPort",
        );
    }
    faults
}

#[test]
fn the_pod_keeps_to_the_restricted_profile_and_a_pod_that_does_not_is_found() {
    let objects = manifests("deploy/kubernetes/base");
    let [deployment] = of_kind(&objects, "Deployment")[..] else {
        panic!("one Deployment");
    };
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(against_restricted(pod), [""; 0]);
    assert_eq!(all(pod, "readOnlyRootFilesystem"), [true]);
    let spoilt = [
        ("/hostNetwork", true.into()),
        ("/securityContext/runAsUser", 0.into()),
        ("/securityContext/seccompProfile/type", "Unconfined".into()),
        (
            "/containers/0/securityContext/capabilities/drop",
            serde_json::json!(["NET_RAW"]),
        ),
        (
            "/containers/0/securityContext/allowPrivilegeEscalation",
            true.into(),
        ),
        (
            "/volumes/0",
            serde_json::json!({"name": "x", "hostPath": {"path": "/"}}),
        ),
    ];
    for (place, value) in spoilt {
        let mut pod = pod.clone();
        let (folder, key) = place.rsplit_once('/').unwrap();
        match pod.pointer_mut(folder).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            Value::Object(map) => drop(map.insert(key.into(), value)),
            other => panic!("{other}"),
        }
        assert_eq!(against_restricted(&pod).len(), 1, "{place}");
    }
}

#[test]
fn the_manifests_agree_with_each_other_the_image_and_the_configuration() {
    let objects = manifests("deploy/kubernetes/overlays/servicemonitor");
    let kustomization = yaml("deploy/kubernetes/base/kustomization.yaml").remove(0);
    let dockerfile = read("deploy/Dockerfile");
    let deployment = of_kind(&objects, "Deployment")[0];
    let spec = &deployment["spec"];
    // One owner of a spool and a journal, at every moment.
    assert_eq!(
        (&spec["replicas"], &spec["strategy"]["type"]),
        (&1.into(), &"Recreate".into())
    );
    let pod = &spec["template"]["spec"];
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(grace > default_of("grace"));
    let user = &pod["securityContext"]["runAsUser"];
    assert!(dockerfile.contains(&format!("USER {user}:{user}\n")));
    let container = &pod["containers"][0];
    assert_eq!(container["image"], kustomization["images"][0]["name"]);
    assert_eq!(
        kustomization["images"][0]["newTag"],
        env!("CARGO_PKG_VERSION")
    );

    // The port: of the image, the pod, the probes, the Service, the policy and the monitor.
    let port = &container["ports"][0];
    assert!(dockerfile.contains(&format!("EXPOSE {}\n", port["containerPort"])));
    let service = &of_kind(&objects, "Service")[0]["spec"]["ports"][0];
    assert_eq!(
        (&service["port"], &service["targetPort"]),
        (&port["containerPort"], &port["name"])
    );
    let policy = &of_kind(&objects, "NetworkPolicy")[0]["spec"]["ingress"][0]["ports"][0];
    assert_eq!(policy["port"], port["name"]);
    let monitor = &of_kind(&objects, "ServiceMonitor")[0]["spec"];
    assert_eq!(monitor["endpoints"][0]["port"], service["name"]);
    // The job bears the Service's name; the alert rules ask for that.
    assert_eq!(
        of_kind(&objects, "Service")[0]["metadata"]["name"],
        "ftpulse"
    );
    let label = &kustomization["labels"][0]["pairs"];
    assert_eq!(&monitor["selector"]["matchLabels"], label);
    // What a restart costs is not paid for a spool that is not there.
    for (probe, page) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(container[probe]["httpGet"]["port"], port["name"], "{probe}");
        assert_eq!(container[probe]["httpGet"]["path"], page, "{probe}");
    }
    // Slower than the watchdog inside.
    let liveness = &container["livenessProbe"];
    let patience = liveness["periodSeconds"].as_u64().unwrap()
        * liveness["failureThreshold"].as_u64().unwrap();
    assert!(Duration::from_secs(patience) > 4 * default_of("software_interval"));

    // What is mounted exists: claims, the generated ConfigMap; and each mount has its volume.
    let claims = of_kind(&objects, "PersistentVolumeClaim");
    let claims: BTreeSet<&str> = claims
        .iter()
        .map(|c| text(&c["metadata"], "name"))
        .collect();
    let wanted = all(&pod["volumes"], "claimName");
    assert_eq!(
        wanted
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect::<BTreeSet<_>>(),
        claims
    );
    assert_eq!(
        all(&pod["volumes"], "configMap")[0]["name"],
        kustomization["configMapGenerator"][0]["name"]
    );
    let names = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .map(|v| text(v, "name").to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));

    // The configuration is one, and its paths are mounted.
    let place = temp_dir();
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mut config = read("deploy/kubernetes/base/ftpulse.toml");
    for mount in mounts.iter().map(|m| text(m, "mountPath")) {
        fs::create_dir_all(place.path().join(&mount[1..])).unwrap();
        config = config.replace(
            &format!("\"{mount}"),
            &format!("\"{}{mount}", place.path().display()),
        );
    }
    for secret in config.split('"').filter(|t| t.contains("/run/secrets/")) {
        fs::write(secret, "x").unwrap();
    }
    let file = place.path().join("ftpulse.toml");
    fs::write(&file, config).unwrap();
    let state = place.path().join("var/lib/ftpulse");
    let mut check = Command::new(PROGRAM);
    check
        .args(["check", "--config"])
        .arg(&file)
        .env("FTPULSE__STATE__DIR", state);
    let said = run(&mut check).stdout;
    assert!(String::from_utf8_lossy(&said).contains("routes.main.spool"));

    // A kustomize that knows these fields builds both.
    let version = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    let knows =
        version.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("Kustomize Version: v5"));
    if knows {
        for folder in ["base", "overlays/servicemonitor"] {
            let built = run(Command::new("kubectl")
                .arg("kustomize")
                .arg(path(&format!("deploy/kubernetes/{folder}"))));
            let built = String::from_utf8(built.stdout).unwrap();
            assert!(built.contains(&format!("image: ftpulse:{}", env!("CARGO_PKG_VERSION"))));
        }
    }
}

#[test]
fn compose_names_only_what_exists() {
    let compose = yaml("deploy/compose.yaml").remove(0);
    let services = compose["services"].as_object().unwrap();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["ftpulse", "grafana", "prometheus"]);
    let mut mounted = BTreeMap::new();
    for (name, service) in services {
        for volume in service["volumes"].as_array().unwrap() {
            let (from, to) = volume.as_str().unwrap().split_once(":/").unwrap();
            let to = format!("/{}", to.trim_end_matches(":ro"));
            if let Some(file) = from.strip_prefix("./") {
                assert!(path("deploy").join(file).exists(), "{name}: {file}");
                assert!(volume.as_str().unwrap().ends_with(":ro"), "{name}: {file}");
                mounted.insert(to, format!("deploy/{file}"));
            } else if !from.starts_with('$') {
                assert!(
                    compose["volumes"].as_object().unwrap().contains_key(from),
                    "{from}"
                );
            }
        }
        // Reached from this machine only.
        for port in service["ports"].as_array().unwrap() {
            assert!(
                port.as_str().unwrap().starts_with("127.0.0.1:"),
                "{name}: {port}"
            );
        }
        let image = text(service, "image");
        assert!(
            !image.ends_with(":latest"),
            "{image}: a version that was looked at"
        );
    }
    let ours = &services["ftpulse"];
    assert!(duration(text(ours, "stop_grace_period")) > default_of("grace"));
    for secret in ours["secrets"].as_array().unwrap() {
        assert!(
            compose["secrets"]
                .as_object()
                .unwrap()
                .contains_key(secret.as_str().unwrap())
        );
    }
    let dockerfile = read("deploy/Dockerfile");
    assert!(dockerfile.contains(&format!("USER {}\n", text(ours, "user"))));

    // Prometheus finds its rules and the service, Grafana its Prometheus and its dashboards.
    let prometheus = yaml("deploy/prometheus/prometheus.yml").remove(0);
    let rules = prometheus["rule_files"][0].as_str().unwrap();
    assert_eq!(
        mounted[&format!("/etc/prometheus/{rules}")],
        "deploy/prometheus/alerts.yml"
    );
    let scrape = &prometheus["scrape_configs"][0];
    assert_eq!(scrape["job_name"], "ftpulse");
    assert_eq!(scrape["static_configs"][0]["targets"][0], "ftpulse:9188");
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yaml").remove(0);
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    assert_eq!(
        source["datasources"][0]["jsonData"]["timeInterval"],
        prometheus["global"]["scrape_interval"]
    );
    assert_eq!(
        mounted["/etc/grafana/provisioning"],
        "deploy/grafana/provisioning"
    );
    let provider = yaml("deploy/grafana/provisioning/dashboards/ftpulse.yaml").remove(0);
    let folder = text(&provider["providers"][0]["options"], "path");
    assert_eq!(mounted[folder], "deploy/grafana/dashboards");
    let home = text(
        &services["grafana"]["environment"],
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH",
    );
    assert!(home.starts_with(folder) && home.ends_with("/ftpulse.json"));
}
