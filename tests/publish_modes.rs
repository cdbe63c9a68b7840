//! How a file comes to its final name where a server is special: temp names of another form
//! (`temp_pattern`), upload straight under the final name (`publish = "direct"`), a marker beside
//! it afterwards (`remote_marker`): against real servers that refuse what the usual way needs, and
//! over lost replies and kills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ftpulse::lab::{Event, LabServer, Script};
use support::servers::{Opts, Server};
use support::service::Settings;
use support::{PATIENCE, content, temp_dir};

/// The files of a folder with their bytes, temp names included.
fn folder(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_file()));
    files
        .filter_map(|e| Some((e.file_name().into_string().ok()?, fs::read(e.path()).ok()?)))
        .collect()
}

/// The one file of a folder.
fn only(path: &Path, name: &str, bytes: &[u8]) {
    let found = folder(path);
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, [name]);
    assert!(found[name] == bytes, "{name} is torn");
}

#[test]
fn a_server_without_dot_files_takes_temp_names_of_another_form() {
    // It refuses every name that begins with a dot, as many partners do.
    let server = Server::vsftpd(Opts::default().line("deny_file={.*}"));
    let bytes = content(1, 40_000);
    let service = Settings::new().quick().route("main", &server, "in");
    let service = service.start();
    service.put("main", "x.csv", &bytes);
    let line = service.wait_log("upload failed", |l| l["file"] == "x.csv");
    assert!(line["error"].as_str().unwrap().contains("STOR"), "{line}");
    drop(service);

    let service = Settings::new()
        .quick()
        .route("main", &server, "in")
        .key("routes.main.temp_pattern", "{name}.{token}.filepart")
        .start();
    service.put("main", "a/x.csv", &bytes);
    service.wait_delivered("a/x.csv");
    only(&server.path("in/a"), "x.csv", &bytes);
}

#[test]
fn a_temp_name_has_the_form_of_its_route_and_the_mark_of_its_agent() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut events = lab.events();
    let service = Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.temp_pattern", "up_{token}_{name}.tmp")
        .start();
    let mut seen = Vec::new();
    for _ in 0..2 {
        service.put("main", "x.csv", b"bytes");
        let renamed = events.wait_for(|e| matches!(e, Event::Renamed { .. }), PATIENCE);
        let Some(Event::Renamed { from, to, .. }) = renamed else {
            panic!("it was not renamed");
        };
        assert_eq!(to, "/in/x.csv");
        let token = from
            .strip_prefix("/in/up_")
            .and_then(|n| n.strip_suffix("_x.csv.tmp"));
        seen.push(token.unwrap_or_else(|| panic!("{from}")).to_owned());
        service.wait_spool_empty("main", PATIENCE);
    }
    let agents = seen.iter().map(|t| t.split_once('-').unwrap().0);
    let tokens = seen.iter().map(|t| t.split_once('-').unwrap().1);
    let (agents, tokens): (Vec<_>, Vec<_>) = (agents.collect(), tokens.collect());
    assert!(agents[0].len() == 8 && agents[0] == agents[1], "{seen:?}");
    assert!(tokens[0].len() == 16 && tokens[0] != tokens[1], "{seen:?}");
}
