//! `ftpulse generate`: the manual pages and the shells' completions, made of the very arguments
//! that the program takes, so that they cannot disagree with it. Hidden: packages are built with
//! it, nobody else needs it. It names no hidden subcommand, itself least of all.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use clap_complete::aot::{Bash, Fish, Generator, Zsh};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{EXIT_FAILED, complain, show};

/// Print the manual pages or a shell's completions.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ftpulse generate man /usr/local/share/man/man1
  ftpulse generate bash >/etc/bash_completion.d/ftpulse
  ftpulse generate zsh >/usr/local/share/zsh/site-functions/_ftpulse")]
pub struct Arguments {
    /// What to make.
    what: What,
    /// Existing folder for its files; without it, it goes to standard output (of the manual: the
    /// page of ftpulse itself).
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Man,
    Bash,
    Zsh,
    Fish,
}

/// As which the program is installed.
const NAME: &str = "ftpulse";

/// A file's name and content.
type Page = (String, Vec<u8>);

/// Runs the subcommand; `cli` is the whole command line of the program.
pub fn main(arguments: &Arguments, cli: &clap::Command) -> ExitCode {
    let pages = match arguments.what {
        What::Man => manual(public(cli)),
        What::Bash => completion(&Bash, public(cli)),
        What::Zsh => completion(&Zsh, public(cli)),
        What::Fish => completion(&Fish, public(cli)),
    };
    let pages = match pages {
        Ok(pages) => pages,
        Err(error) => return failed(&format!("it cannot be made: {error}")),
    };
    let Some(dir) = &arguments.dir else {
        let first = pages.first().map_or(&[][..], |(_, content)| content);
        return show(&String::from_utf8_lossy(first));
    };
    match pages.iter().try_for_each(|page| write(dir, page)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(EXIT_FAILED)
}

fn write(dir: &Path, (name, content): &Page) -> Result<(), String> {
    let path = dir.join(name);
    std::fs::write(&path, content).map_err(|error| {
        format!(
            "{} cannot be written: {error}; name a folder that exists and may be written to",
            path.display()
        )
    })
}

/// The command line without what is hidden.
fn public(cli: &clap::Command) -> clap::Command {
    let shown = cli.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut public = clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .args(cli.get_arguments().cloned())
        .subcommands(shown.cloned());
    if let Some(about) = cli.get_about() {
        public = public.about(about.clone());
    }
    if let Some(example) = cli.get_after_help() {
        public = public.after_help(example.clone());
    }
    public
}

fn completion(shell: &dyn Generator, mut cli: clap::Command) -> io::Result<Vec<Page>> {
    cli.set_bin_name(NAME);
    cli.build();
    let mut content = Vec::new();
    shell.try_generate(&cli, &mut content)?;
    Ok(vec![(shell.file_name(NAME), content)])
}

/// The page of the program first, then one of each subcommand.
fn manual(cli: clap::Command) -> io::Result<Vec<Page>> {
    let mut cli = cli.disable_help_subcommand(true);
    cli.build();
    let mut pages = vec![page(&cli, &SECTIONS)?];
    for sub in cli.get_subcommands() {
        pages.push(page(sub, &[("SEE ALSO", &[("", "ftpulse(1)")])])?);
    }
    Ok(pages)
}

fn page(cli: &clap::Command, sections: &[Section]) -> io::Result<Page> {
    let man = Man::new(cli.clone());
    let title = cli.get_display_name().unwrap_or(NAME).to_uppercase();
    // By hand: `Man` leaves an empty date out, and the version would stand in its place.
    let version = env!("CARGO_PKG_VERSION");
    let mut page =
        format!(".TH {title} 1 \"\" \"{NAME} {version}\" \"{NAME} manual\"\n").into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if cli.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    examples(&mut roff, cli);
    for (heading, entries) in sections {
        roff.control("SH", [*heading]);
        for (term, text) in *entries {
            if !term.is_empty() {
                roff.control("TP", []);
                roff.text([bold(*term)]);
            }
            roff.text([roman(*text)]);
        }
    }
    roff.to_writer(&mut page)?;
    Ok((man.get_filename(), page))
}

/// What `--help` shows under "Example:", line for line.
fn examples(roff: &mut Roff, cli: &clap::Command) {
    let Some(help) = cli.get_after_help().map(ToString::to_string) else {
        return;
    };
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in help.lines().filter(|line| !line.starts_with("Example")) {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}

type Section = (&'static str, &'static [(&'static str, &'static str)]);

/// What the manual says beyond the arguments (CONTRACT: "Commands", "Configuration").
const SECTIONS: [Section; 5] = [
    (
        "EXIT STATUS",
        &[
            (
                "0",
                "Done. A service that drained on SIGTERM or SIGINT ends with 0 too.",
            ),
            (
                "1",
                "The work failed, or could not begin: a port is taken, a folder is in use.",
            ),
            ("2", "Wrong usage or configuration; nothing was touched."),
            (
                "70",
                "The service cannot heal itself: it asks to be restarted.",
            ),
            ("128+n", "Ended by signal n."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "FTPULSE__SECTION__KEY",
                "Sets a key of the configuration, such as FTPULSE__HEARTBEAT__INTERVAL=2s or \
                 FTPULSE__ROUTES__MAIN__SPOOL=/spool. It wins over the file. A secret can also be \
                 given by the name of the file that holds it: FTPULSE__ROUTES__MAIN__PASSWORD_FILE.",
            ),
            (
                "FTPULSE_CONFIG",
                "The configuration file, where --config names none.",
            ),
            (
                "FTPULSE_PASSWORD, FTPULSE_PASSWORD_FILE",
                "The password of put, get and list, or the file that holds it.",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC",
                "Set by whoever watches the service; see sd_notify(3).",
            ),
            ("NO_COLOR", "No colours, if set."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/ftpulse/ftpulse.toml",
                "The configuration, by custom: --config or FTPULSE_CONFIG has to name it.",
            ),
            (
                "/var/lib/ftpulse",
                "The service's own state (state.dir): the journal and the agent's id.",
            ),
            (
                "<spool>/.dead-letter",
                "Files that were given up, each with its story in NAME.why.json (routes.NAME.dead_letter).",
            ),
            (
                "$XDG_STATE_HOME/ftpulse",
                "What put and get need to know for --continue.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "The service finishes what it sends, within shutdown.grace, and ends with 0. A second one ends it at once.",
            ),
            ("SIGHUP", "The service reads its configuration anew."),
        ],
    ),
    ("SEE ALSO", &[("", "sd_notify(3), systemd.service(5)")]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cli() -> clap::Command {
        let sub = |name: &'static str| clap::Command::new(name).about(name);
        clap::Command::new("ftpulse")
            .about("about")
            .after_help("Example:\n  ftpulse run\n  .ftpulse -q")
            .subcommand(sub("run"))
            .subcommand(sub("concealed").hide(true))
    }

    #[test]
    fn what_is_hidden_has_no_page_and_is_completed_nowhere() {
        let pages = manual(public(&cli())).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ftpulse.1", "ftpulse-run.1"]);
        let shells: [&dyn Generator; 3] = [&Bash, &Zsh, &Fish];
        let mut files = pages;
        files.extend(shells.map(|s| completion(s, public(&cli())).unwrap().remove(0)));
        for (name, content) in files {
            let text = String::from_utf8(content).unwrap();
            assert!(!text.contains("concealed"), "{name}: {text}");
            assert!(text.contains("run"), "{name}: {text}");
        }
    }

    #[test]
    fn an_example_stands_line_for_line_and_no_line_of_it_is_a_request() {
        let (_, content) = manual(public(&cli())).unwrap().remove(0);
        let text = String::from_utf8(content).unwrap();
        assert!(text.contains(".nf\nftpulse run"), "{text}");
        assert!(text.contains("\n\\&.ftpulse \\-q"), "{text}");
    }

    #[test]
    fn a_page_that_cannot_be_written_is_named_with_the_way_out() {
        let why = write(Path::new("/nowhere"), &("a.1".into(), Vec::new())).unwrap_err();
        assert!(why.starts_with("/nowhere/a.1 cannot be written: "), "{why}");
        assert!(why.ends_with("may be written to"), "{why}");
    }
}
