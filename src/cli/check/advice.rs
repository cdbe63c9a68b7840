//! What a person can do about a destination that fails: where it was noticed, what was seen, and
//! which setting or whose machine it is about.

use crate::config::Route;
use crate::core::names::Phase;
use crate::ftp::Trouble;
use crate::log::{escape, escape_reply};

/// What was seen, safe to print.
pub fn seen(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Refused { verb, text, .. } => {
            format!("{verb} was refused: {}", escape_reply(text.as_bytes()))
        }
        Trouble::Timeout(phase) => format!("nothing came in time, in the phase {phase}"),
        Trouble::Lost { phase, error } => {
            format!("{} (in the phase {phase})", escape_reply(error.as_bytes()))
        }
        other => escape(&other.to_string()).into_owned(),
    }
}

/// What to do about it.
pub fn advice(trouble: &Trouble, route: &Route) -> String {
    let (name, host, port) = (&route.name, &route.server.host, route.server.port);
    let host = escape(host);
    match trouble {
        Trouble::Timeout(phase) => of_timeout(*phase, &host, port),
        Trouble::Lost { phase, error } => of_loss(*phase, error, name, &host, port),
        Trouble::Refused { verb, code, .. } => of_refusal(verb, *code, name),
        Trouble::SizeDiffers { .. } | Trouble::Incomplete { .. } => {
            "the server keeps other bytes than were sent: ask whether it converts or scans \
             uploads; routes.NAME.verify = \"none\" gives this check up"
                .replace("NAME", name)
        }
        Trouble::NoHash(_) => {
            "set routes.NAME.verify = \"size\", or ask its keeper to switch HASH, XSHA256, XSHA1, \
             XMD5 or XCRC on"
                .replace("NAME", name)
        }
        Trouble::HashDiffers { .. } => {
            "the server keeps other bytes than were sent: ask whether it converts or scans \
             uploads, and look at its disk"
                .into()
        }
        Trouble::Ended => "the check gave up; run it again with the network quiet".into(),
        Trouble::Conflict(_) => "its name was free a moment ago: try again".into(),
        Trouble::Source(_)
        | Trouble::Changed
        | Trouble::Vanished
        | Trouble::InDoubt
        | Trouble::Unwritten => {
            "this is about the local machine: look at its memory and its limits".into()
        }
    }
}

fn of_timeout(phase: Phase, host: &str, port: u16) -> String {
    match phase {
        Phase::Dns => format!(
            "the name servers do not answer within timers.dns: try `getent hosts {host}` here, \
             or use an address"
        ),
        Phase::ControlConnect => format!(
            "nobody answers at {host}:{port} within timers.control_connect: a firewall on the \
             way, a machine that is down, or a wrong address or port"
        ),
        Phase::Greeting => format!(
            "something listens at {host}:{port} but says no greeting within timers.reply: is it \
             an FTP server, and is it well? (Port 990 is FTP over implicit TLS.)"
        ),
        Phase::DataConnect => "the passive port is not reachable within timers.data_connect: \
             open the server's passive ports in the firewalls on the way"
            .into(),
        Phase::Tls => format!(
            "the TLS handshake is not finished within timers.tls: is TLS spoken at {host}:{port}? \
             (ftps:// begins with TLS, usually at port 990; ftpes:// with FTP, usually at port 21.)"
        ),
        Phase::Listen => "the server does not connect to us within timers.listen: it has to reach \
             this machine (firewalls on the way, active_address and active_ports), else use mode = \
             \"passive\""
            .into(),
        Phase::Transfer | Phase::Drain => "the data connection is open but nothing moves: look \
             for a firewall or an MTU problem on the way, then at the server"
            .into(),
        Phase::FinalReply => "the data went, the server does not confirm it within timers.reply: \
             look at its disk and its log"
            .into(),
        _ => "the server takes the command but does not answer within timers.reply: look at \
             its load and its log"
            .into(),
    }
}

fn of_loss(phase: Phase, error: &str, name: &str, host: &str, port: u16) -> String {
    let refused = error.contains(&format!("(os error {})", libc::ECONNREFUSED));
    match phase {
        Phase::Dns => format!(
            "the name {host} is not known here: look at routes.{name}.server for a slip, then \
             try `getent hosts {host}`"
        ),
        Phase::ControlConnect if refused => format!(
            "nobody listens at {host}:{port}: is the port right (routes.{name}.server), and \
             does the FTP server run?"
        ),
        Phase::ControlConnect => {
            format!("{host}:{port} cannot be reached from here: look at routes and firewalls")
        }
        Phase::Greeting => format!(
            "what answers at {host}:{port} does not greet as an FTP server does: is the port \
             right, and is it plain FTP there?"
        ),
        Phase::Tls => {
            "no session without TLS: what is wrong stands in the line above; nothing was \
             sent in plain"
                .into()
        }
        Phase::DataConnect => "the passive port does not take connections: open the server's \
             passive ports in the firewalls on the way"
            .into(),
        _ => {
            "the server broke the connection off or answered what is no FTP: look at its log".into()
        }
    }
}

fn of_refusal(verb: &str, code: u32, name: &str) -> String {
    match (verb, code) {
        (_, 421) | ("greeting", _) => "the server takes no further session now: too many are \
             open, or it is going down; try again, or ask for more sessions"
            .into(),
        ("AUTH" | "PROT", _) => format!(
            "the server does not offer TLS this way, and nothing was sent in plain: ask its \
             keeper for TLS; ftps:// in routes.{name}.server is TLS from the first byte, ftp:// \
             is none at all"
        ),
        ("USER" | "PASS", 530) => format!(
            "the login is refused: check the user in routes.{name}.server (or .user) and the \
             password in routes.{name}.password or .password_file (one newline at the end of \
             the file is cut off, a second one is not)"
        ),
        ("USER" | "PASS", _) => {
            format!(
                "the server does not take this login: check routes.{name}.server and ask its keeper"
            )
        }
        ("CWD", _) => format!(
            "the remote folder cannot be entered: check the path in routes.{name}.server (it is \
             relative to the login folder; %2F at its start makes it absolute) and the rights there"
        ),
        ("MKD", _) => "the user may not write there: ask the server's keeper for the right to \
             make files in that folder"
            .into(),
        ("STOR", 550 | 553) => format!(
            "the user may not write there: ask the server's keeper for the right to make files in \
             that folder; if it only refuses names with a leading dot, set \
             routes.{name}.temp_pattern = \"{{name}}.{{token}}.part\""
        ),
        ("STOR", 452 | 552) => {
            "the server has no room for it: ask for space or a larger quota".into()
        }
        ("RNFR" | "RNTO", _) => format!(
            "the user may not rename, but that is how a file becomes visible whole: ask for the \
             right; only if there is none, set routes.{name}.publish = \"direct\": files are \
             seen torn then while they are sent"
        ),
        ("DELE", _) => "the user may not delete: the service cannot clear its temp names away \
             after a failure; ask for the right"
            .into(),
        ("EPSV/PASV", _) => "the server refuses passive mode: ask its keeper to allow it".into(),
        ("MLSD" | "LIST", _) => "the folder cannot be listed; the service does not need it, but \
             the data connection could not be tried"
            .into(),
        (_, 400..=499) => "the server refuses it for now: try again".into(),
        _ => "the server refuses it: ask its keeper".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_cannot_act_on_the_terminal() {
        let refused = Trouble::Refused {
            verb: "PASS",
            code: 530,
            text: "530 \u{1b}[31mno\u{202e}".into(),
        };
        let lost = Trouble::Lost {
            phase: Phase::Reply,
            error: "\u{7}\u{1b}]0;x".into(),
        };
        for text in [seen(&refused), seen(&lost)] {
            assert!(
                !text.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{text:?}"
            );
        }
    }
}
