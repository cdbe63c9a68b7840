//! What is asked of a destination, on the worker's thread: connect, log in, folder, listing,
//! features; on demand the canary, a tiny file that goes the way of every file of the service
//! and is deleted again. What a failure leaves behind is taken away by a session of its own;
//! what cannot be is named.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::Sender;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{MemfdFlags, memfd_create};

use super::advice::{advice, seen};
use super::destination::{Finding, Line};
use crate::clock;
use crate::config::Verify;
use crate::core::journey::Stage;
use crate::core::names::Phase;
use crate::ftp::{self, Features, Quirk, Session, Setup, Trouble};
use crate::log::{escape, escape_reply};
use crate::pulse::Attempt;
use crate::spool::journal::{Journal, Key};
use crate::{spool, token};

/// A clock that differs less is in step: MDTM has whole seconds, and the upload took a moment.
const CLOCK_STEP: f64 = 2.5;

/// Tells the lines of one destination.
struct Teller<'a> {
    setup: &'a Setup,
    say: &'a Sender<Line>,
}

impl Teller<'_> {
    fn line(&self, what: &'static str, detail: String, finding: Finding) {
        // The watcher listens as long as this thread runs, unless it gave it up.
        drop(self.say.send(Line {
            what,
            detail,
            finding,
        }));
    }

    fn fine(&self, what: &'static str, detail: String) {
        self.line(what, detail, Finding::Fine);
    }

    fn note(&self, what: &'static str, detail: String) {
        self.line(what, detail, Finding::Note);
    }

    fn failed(&self, what: &'static str, trouble: &Trouble) {
        let advice = advice(trouble, &self.setup.route);
        self.line(what, seen(trouble), Finding::Failed { advice });
    }
}

/// Tries a destination and tells what it finds.
pub fn examine(setup: &Setup, canary: bool, say: &Sender<Line>) {
    let tell = Teller { setup, say };
    let began = clock::mono();
    let mut session = match Session::connect(setup) {
        Ok(session) => session,
        Err(trouble) => {
            let what = match &trouble {
                Trouble::Refused {
                    verb: "USER" | "PASS",
                    ..
                } => "login",
                _ => "connection",
            };
            return tell.failed(what, &trouble);
        }
    };
    let peer = session
        .peer()
        .map_or("the server".into(), |peer| peer.to_string());
    let took = clock::mono().saturating_sub(began).as_millis();
    tell.fine("connection", format!("{peer}, logged in after {took} ms"));
    let greeting: Vec<&str> = session.greeting().lines().map(str::trim_end).collect();
    tell.fine("greeting", escape_reply(greeting.join(" | ").as_bytes()));
    if let Some(agreed) = session.agreed() {
        tell.fine("TLS", agreed.to_owned());
    }
    match questions(&tell, &mut session, canary) {
        Err((what, trouble)) => {
            tell.failed(what, &trouble);
            session.discard();
        }
        Ok(()) if session.usable() => session.quit(),
        Ok(()) => session.discard(),
    }
}

/// What could not be done, and why.
type Failure = (&'static str, Trouble);

fn questions(tell: &Teller<'_>, session: &mut Session, canary: bool) -> Result<(), Failure> {
    let named = |what| move |trouble| (what, trouble);
    let features = session.features().map_err(named("features"))?;
    match &features {
        Some(features) => tell.fine("features", shown(features)),
        None => tell.note("features", "the server does not tell (no FEAT)".into()),
    }
    if tell.setup.route.verify == Verify::Hash {
        match session.hashing().map_err(named("hash"))? {
            Ok(by) => tell.fine("hash", by.shown()),
            // The rest can still be tried, and the canary would only say the same.
            Err(features) => tell.failed("hash", &Trouble::NoHash(features)),
        }
    }
    let folder = &tell.setup.route.server.folder;
    let downloads = tell.setup.route.get.is_some();
    let missing = match session.enter_existing_folder() {
        Ok(()) => None,
        Err(Trouble::Refused {
            code: 500..=599,
            text,
            ..
        }) => Some(text),
        Err(trouble) => return Err(("folder", trouble)),
    };
    match &missing {
        None if folder.is_empty() => tell.fine("folder", "the login folder".into()),
        None => tell.fine("folder", escape(folder).into_owned()),
        // Nothing is made where files are only taken from.
        Some(text) if downloads => {
            tell.note(
                "folder",
                not_there(folder, text, "the service waits for it"),
            );
        }
        Some(text) if canary => tell.note(
            "folder",
            not_there(folder, text, "it is made for the canary"),
        ),
        Some(text) => {
            let then = "the service makes it for the first file (--canary tries that)";
            tell.note("folder", not_there(folder, text, then));
        }
    }
    let machine = features
        .as_ref()
        .is_some_and(|f| f.has("MLST") || f.has("MLSD"));
    match session.list(machine) {
        Ok(list) => {
            let place = if missing.is_some() {
                " in the login folder"
            } else {
                ""
            };
            let (entries, by, passive) = (list.entries, list.by, list.passive);
            let ies = if entries == 1 { "y" } else { "ies" };
            tell.fine("listing", format!("{entries} entr{ies}{place}, by {by}"));
            match passive {
                "EPSV" => tell.fine("data", "EPSV works".into()),
                _ => tell.fine("data", "PASV works, EPSV does not".into()),
            }
        }
        Err(
            trouble @ Trouble::Refused {
                verb: "LIST" | "MLSD",
                ..
            },
        ) if trouble.code() != Some(421) && !downloads => {
            // Upload-only logins exist; they can be served.
            tell.note(
                "listing",
                format!("{}; uploads do not need it", seen(&trouble)),
            );
        }
        Err(trouble) => return Err(("listing", trouble)),
    }
    if canary && downloads {
        let said = "not tried: the route only downloads, nothing is uploaded to its folder";
        tell.note("canary", said.into());
    } else if canary {
        let has_mdtm = features.as_ref().is_none_or(|f| f.has("MDTM"));
        try_canary(tell, session, missing.is_some(), has_mdtm)?;
    }
    let name = format!("ftpulse-check-{}", token::new());
    session.try_ways(&name).map_err(named("ways"))?;
    ways(tell, session);
    Ok(())
}

/// In what the server is not as most are; the service finds the same out when it needs it.
fn ways(tell: &Teller<'_>, session: &Session) {
    let found = session.quirks().found();
    if found.is_empty() {
        tell.fine("ways", "no quirk was found".into());
    }
    for (way, then) in found.into_iter().map(Quirk::shown) {
        tell.note("ways", format!("{way}: {then}"));
    }
}

fn not_there(folder: &str, text: &str, then: &str) -> String {
    let reply = escape_reply(text.as_bytes());
    format!("{} cannot be entered ({reply}); {then}", escape(folder))
}

fn shown(features: &Features) -> String {
    let told = ["SIZE", "MDTM", "MLST", "REST STREAM", "UTF8"]
        .map(|name| format!("{name} {}", if features.has(name) { "yes" } else { "no" }));
    told.join(", ")
}

/// What the canary may have left on the server.
#[derive(Default)]
struct Traces {
    temp: String,
    name: String,
    /// Whether a file may be there.
    file: bool,
    /// Folders that were made for it, outermost first, named from the login folder.
    made: Vec<String>,
    /// The login folder, known if folders were to be made.
    home: String,
}

impl Traces {
    fn any(&self) -> bool {
        self.file || !self.made.is_empty()
    }

    /// Takes away what is left, by a session that stands in the destination's folder.
    fn clear(&mut self, session: &mut Session) -> Result<(), Trouble> {
        if self.file {
            let temp = ftp::take_away(session, &self.temp)?;
            let name = ftp::take_away(session, &self.name)?;
            self.file = !(temp && name);
        }
        if !self.made.is_empty() {
            session.change_folder(&self.home)?;
            if session.remove_folders(&self.made)? {
                self.made.clear();
            }
        }
        Ok(())
    }
}

fn try_canary(
    tell: &Teller<'_>,
    session: &mut Session,
    folder_missing: bool,
    has_mdtm: bool,
) -> Result<(), Failure> {
    let name = format!("ftpulse-check-{}", token::new());
    let temps = &tell.setup.route.publishing.temps;
    let temp = temps.temp(&name, "check", &token::new());
    let mut traces = Traces {
        temp,
        name,
        ..Traces::default()
    };
    let flown = fly(tell, session, folder_missing, has_mdtm, &mut traces);
    let stands = session.usable() && !matches!(&flown, Err((_, t)) if !t.spares_session());
    if traces.any() && stands {
        // What fails here is tried again by a session of its own.
        let _ = traces.clear(session);
    }
    if traces.any() {
        sweep(tell, traces);
    }
    flown
}

/// Sends, verifies, renames and deletes it.
fn fly(
    tell: &Teller<'_>,
    session: &mut Session,
    folder_missing: bool,
    has_mdtm: bool,
    traces: &mut Traces,
) -> Result<(), Failure> {
    let named = |what| move |trouble| (what, trouble);
    if folder_missing {
        traces.home = session.current_folder().map_err(named("folder"))?;
        session
            .make_missing_folders(&mut traces.made)
            .map_err(named("folder"))?;
        tell.fine("folder", "it can be made".into());
    }
    let (mut file, stamp) =
        source().map_err(|e| ("canary", Trouble::Source(format!("making the canary: {e}"))))?;
    let attempt = Attempt::new(
        traces.temp.clone(),
        Key {
            route: "check".into(),
            path: traces.name.as_str().into(),
        },
        Journal::none(),
    );
    let direct = tell.setup.route.publishing.direct;
    let attempt = if direct { attempt.directly() } else { attempt };
    let placed = if direct {
        let placed = session.store_directly(&mut file, stamp, &attempt, &traces.name, None);
        traces.file = attempt.stage() != Stage::Opened;
        placed.map_err(named("upload"))?
    } else {
        let sent = ftp::send(session, &mut file, stamp, &attempt, 0);
        traces.file = attempt.stage() != Stage::Opened;
        sent.map_err(named("upload"))?;
        tell.fine("upload", format!("{} bytes sent and verified", stamp.size));
        session
            .publish(&attempt, &traces.name, None)
            .map_err(named("rename"))?
    };
    if let ftp::Placed::As(name) = placed {
        traces.name = name;
    }
    if !session.usable() {
        // Its reply came in part, then nothing more.
        return Err(("rename", Trouble::Timeout(Phase::Reply)));
    }
    if direct {
        tell.fine("upload", format!("{} bytes sent and verified", stamp.size));
        let said = "not tried (publish = \"direct\"): torn files can be seen under final names";
        tell.note("rename", said.into());
    } else {
        tell.fine("rename", "the temp name becomes the final name".into());
    }
    if has_mdtm {
        match session.modified(&traces.name).map_err(named("clock"))? {
            Some(time) => clock_line(tell, time),
            None => tell.note(
                "clock",
                "the server does not tell its time (no MDTM)".into(),
            ),
        }
    }
    match ftp::take_away(session, &traces.name).map_err(named("delete"))? {
        true => {
            traces.file = false;
            tell.fine("delete", "the canary is gone".into());
            Ok(())
        }
        false => Err((
            "delete",
            Trouble::Refused {
                verb: "DELE",
                code: 550,
                text: format!("{} stays", traces.name),
            },
        )),
    }
}

/// The canary's bytes, in memory: no local folder is needed.
fn source() -> std::io::Result<(File, spool::Stamp)> {
    let mut file = File::from(memfd_create("ftpulse-canary", MemfdFlags::CLOEXEC)?);
    file.write_all(b"ftpulse check --canary made this file and was to delete it\n")?;
    let stamp = spool::stamp_of(&file)?;
    Ok((file, stamp))
}

fn clock_line(tell: &Teller<'_>, server: SystemTime) {
    let server = server
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    let ahead = server - clock::unix();
    if ahead.abs() <= CLOCK_STEP {
        return tell.fine("clock", "the server's clock is in step with ours".into());
    }
    let way = if ahead > 0.0 { "ahead of" } else { "behind" };
    tell.note(
        "clock",
        format!("the server's clock is {:.0} s {way} ours", ahead.abs()),
    );
}

/// Takes away what a canary left, by a fresh session: the old one is lost.
fn sweep(tell: &Teller<'_>, mut traces: Traces) {
    let swept = Session::connect(tell.setup).and_then(|mut session| {
        let swept = session
            .enter_existing_folder()
            .and_then(|()| traces.clear(&mut session));
        match &swept {
            Ok(()) => session.quit(),
            Err(_) => session.discard(),
        }
        swept
    });
    if !traces.any() {
        return tell.fine("clean-up", "nothing is left of the canary".into());
    }
    let mut left = Vec::new();
    if traces.file {
        left.extend([escape(&traces.temp), escape(&traces.name)]);
    }
    left.extend(traces.made.iter().map(|folder| escape(folder)));
    let why = swept
        .err()
        .map(|t| format!(": {}", seen(&t)))
        .unwrap_or_default();
    tell.line(
        "clean-up",
        format!("it is not certain that nothing is left of the canary{why}"),
        Finding::Failed {
            advice: format!("look for these and delete them: {}", left.join(", ")),
        },
    );
}
