//! `ftpulse generate`: manual pages without a fault, completions that a real shell loads.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::PROGRAM;
use super::deploy_common::{installed, run};
use super::support::temp_dir;

fn generate(args: &[&str]) -> String {
    let output = run(Command::new(PROGRAM).arg("generate").args(args));
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that `--help` shows.
fn commands() -> BTreeSet<String> {
    let output = run(Command::new(PROGRAM).arg("--help"));
    let text = String::from_utf8(output.stdout).unwrap();
    let list = text.split("Commands:\n").nth(1).unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn each_command_has_a_manual_page_and_mandoc_finds_no_fault_in_it() {
    let place = temp_dir();
    generate(&["man", place.path().to_str().unwrap()]);
    let mut pages: BTreeSet<String> = commands()
        .iter()
        .map(|c| format!("ftpulse-{c}.1"))
        .collect();
    pages.insert("ftpulse.1".into());
    let made = fs::read_dir(place.path()).unwrap();
    let made: BTreeSet<String> = made
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(made, pages);
    for page in &pages {
        let file = place.path().join(page);
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&file)
            .output();
        let output = output.expect("start mandoc: run `tests/run servers`");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The same program gives the same page: no date. The other one is clap_mangen's.
        let faults = said.lines().filter(|line| {
            !line.contains("WARNING: missing date")
                && !line.contains("WARNING: skipping paragraph macro")
        });
        assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
    }
    let shown = run(Command::new("mandoc")
        .args(["-T", "ascii"])
        .arg(place.path().join("ftpulse.1")));
    // Bold in a terminal is a letter struck twice.
    let shown = String::from_utf8(shown.stdout)
        .unwrap()
        .chars()
        .collect::<Vec<_>>();
    let plain: String = shown
        .iter()
        .enumerate()
        .filter(|(at, c)| **c != '\u{8}' && shown.get(at + 1) != Some(&'\u{8}'))
        .map(|(_, c)| c)
        .collect();
    for part in [
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "SIGNALS",
        "ftpulse-run(1)",
        "/var/lib/ftpulse",
        "       70 ",
    ] {
        assert!(plain.contains(part), "{part} in\n{plain}");
    }
    assert_eq!(
        generate(&["man"]),
        fs::read_to_string(place.path().join("ftpulse.1")).unwrap()
    );
    assert!(!plain.contains("generate"));
}

#[test]
fn a_real_shell_completes_commands_and_options() {
    let place = temp_dir();
    let file = place.path().join("ftpulse.bash");
    generate(&["bash", place.path().to_str().unwrap()]);
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let script = format!(
            "source {}; COMP_WORDS=({line}); COMP_CWORD={}\n\
             complete -p ftpulse | grep -q -- '-F _ftpulse' || exit 9\n\
             _ftpulse ftpulse '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            words.len() - 1
        );
        let output = run(Command::new("bash").args(["--norc", "-c", &script]));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("ftpulse ru"), "run");
    assert_eq!(complete("ftpulse run --acc"), "--accept-resend");
    assert_eq!(complete("ftpulse gene"), "", "hidden");
    for command in commands() {
        assert!(
            complete(&format!("ftpulse {command}"))
                .split(' ')
                .any(|c| c == command),
            "{command}"
        );
    }
    for shell in ["zsh", "fish"] {
        let script = place.path().join(shell);
        fs::write(&script, generate(&[shell])).unwrap();
        if installed(shell) {
            run(Command::new(shell).arg("-n").arg(&script));
        }
    }
}

#[test]
fn a_folder_that_is_not_there_is_named_and_ends_with_1() {
    let output = Command::new(PROGRAM)
        .args(["generate", "man", "/nowhere/at/all"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("ftpulse: /nowhere/at/all/ftpulse.1 cannot be written: "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
}
