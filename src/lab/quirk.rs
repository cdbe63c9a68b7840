//! Servers as they are: ways of a server that are no faults, since a file comes through whatever
//! they are, if the client bears with them. They hold for the server's whole life. Pure.

/// One way in which a server is not as the book has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quirk {
    /// The command is answered with this code, and not named by FEAT. `"EPSV"`: EPSV is refused;
    /// `"SIZE"`, `"MDTM"`, `"MLSD"`, `"REST"`, `"OPTS"`, `"FEAT"`, `"RNFR"`: there is no such thing.
    Refuses(&'static str, u16),
    /// EPSV names a port where nothing listens, as behind a NAT that does not know it; PASV works.
    DeadEpsv,
    /// The same where a firewall drops what is meant for that port: a connect gets no answer.
    DeafEpsv,
    /// PASV names a foreign address (192.0.2.1), with the port that the server really listens on.
    ForeignPasv,
    /// RNTO over a file that is there is refused with this code.
    NoOverwrite(u16),
    /// The second code in place of the first, wherever that is due.
    Says(u16, u16),
    /// Every reply has several lines, and lines inside begin with other codes.
    OddLines,
    /// Lines end with a bare LF.
    BareLf,
    /// Replies are a code and nothing else.
    BareCodes,
    /// The greeting has many lines.
    LongGreeting,
    /// The greeting is Latin-1, which is no UTF-8.
    Latin1Greeting,
    /// Every reply is.
    Latin1,
    /// Before the greeting comes a 120.
    NotReady,
    /// The 226 comes when the data connection stands, before the file does.
    EarlyFinal,
    /// After an upload the server leaves the data connection open until the next one: only the 226
    /// tells.
    KeepsData,
    /// USER logs in (230), PASS is not asked for.
    NoPassword,
    /// SIZE is refused (550) while the type is ASCII, which it is at the start.
    SizeNeedsBinary,
    /// A name that begins with a dot is refused (553) in STOR and RNTO.
    NoDotFiles,
    /// Listings leave out what begins with a dot.
    HidesDotFiles,
    /// Listings begin with the folder itself and its parent (`cdir` and `pdir` in MLSD), and LIST
    /// with a line `total`.
    ListsParents,
    /// LIST looks as on Windows.
    DosList,
    /// Listing a folder with nothing in it is refused (550).
    NoEmptyList,
    /// In active mode the server says 150 first and connects then.
    ConnectsLate,
    /// After a file the session ends with a 421.
    OneFile,
}

/// What a server is like.
#[derive(Debug, Default)]
pub(super) struct Character(Vec<Quirk>);

impl Character {
    pub(super) fn new(quirks: Vec<Quirk>) -> Self {
        Self(quirks)
    }

    pub(super) fn has(&self, quirk: &Quirk) -> bool {
        self.0.contains(quirk)
    }

    /// The code with which a command is refused.
    pub(super) fn refuses(&self, verb: &str) -> Option<u16> {
        self.0.iter().find_map(|quirk| match quirk {
            Quirk::Refuses(refused, code) if *refused == verb => Some(*code),
            _ => None,
        })
    }

    /// The code with which a rename over a file is refused.
    pub(super) fn no_overwrite(&self) -> Option<u16> {
        self.0.iter().find_map(|quirk| match quirk {
            Quirk::NoOverwrite(code) => Some(*code),
            _ => None,
        })
    }

    /// The bytes of a reply: one line, or several of which the first and the last bear the code.
    pub(super) fn reply(&self, code: u16, lines: &[Vec<u8>]) -> Vec<u8> {
        let code = self.code(code);
        let mut lines = lines.to_vec();
        // What is asked for stands in these.
        let answers = matches!(code, 211 | 213 | 227 | 229 | 257);
        if self.has(&Quirk::BareCodes) && !answers {
            lines = vec![Vec::new()];
        }
        let mut last = lines.pop().unwrap_or_default();
        if self.has(&Quirk::Latin1) && !answers | matches!(code, 227 | 229) {
            // "d'accord, \xe9tendu"
            last.splice(..0, *b"\xe9tendu: ");
        }
        if self.has(&Quirk::OddLines) {
            if lines.is_empty() {
                lines.push(b"There is more to say.".to_vec());
            }
            for odd in [
                "550 is no error here",
                "421-neither this",
                " 226 nor this",
                "",
            ] {
                lines.push(odd.as_bytes().to_vec());
            }
        }
        let end: &[u8] = if self.has(&Quirk::BareLf) {
            b"\n"
        } else {
            b"\r\n"
        };
        let mut out = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            if number == 0 {
                out.extend_from_slice(format!("{code}-").as_bytes());
            }
            out.extend_from_slice(line);
            out.extend_from_slice(end);
        }
        out.extend_from_slice(code.to_string().as_bytes());
        if !last.is_empty() {
            out.push(b' ');
            out.extend_from_slice(&last);
        }
        out.extend_from_slice(end);
        out
    }

    fn code(&self, code: u16) -> u16 {
        let said = self.0.iter().find_map(|quirk| match quirk {
            Quirk::Says(due, said) if *due == code => Some(*said),
            _ => None,
        });
        said.unwrap_or(code)
    }

    /// The lines of the greeting.
    pub(super) fn greeting(&self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        if self.has(&Quirk::Latin1Greeting) {
            // "Übertragung, Prüfstelle Zürich"
            lines.push(b"\xdcbertragung, Pr\xfcfstelle Z\xfcrich".to_vec());
        }
        if self.has(&Quirk::LongGreeting) {
            for number in 1..=40 {
                lines.push(format!("  {number}. By using this server you agree.").into_bytes());
            }
            lines.push(Vec::new());
        }
        lines.push(b"ftpulse lab ready.".to_vec());
        lines
    }

    /// What FEAT says.
    pub(super) fn features(&self, tls: bool) -> Vec<Vec<u8>> {
        const FEATURES: [(&str, &str); 9] = [
            ("EPSV", "EPSV"),
            ("EPRT", "EPRT"),
            ("MDTM", "MDTM"),
            ("MFMT", "MFMT"),
            ("MLSD", "MLST type*;size*;modify*;"),
            ("PASV", "PASV"),
            ("REST", "REST STREAM"),
            ("SIZE", "SIZE"),
            ("OPTS", "UTF8"),
        ];
        const SECURE: [&str; 3] = ["AUTH TLS", "PBSZ", "PROT"];
        let offered = FEATURES
            .iter()
            .filter(|(verb, _)| self.refuses(verb).is_none());
        let secure = SECURE.iter().filter(|_| tls);
        let names = offered.map(|(_, text)| *text).chain(secure.copied());
        let mut lines = vec![b"Features:".to_vec()];
        lines.extend(names.map(|name| format!(" {name}").into_bytes()));
        lines.push(b"End".to_vec());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(quirks: &[Quirk], code: u16, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        let bytes = Character::new(quirks.to_vec()).reply(code, &lines);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_reply_is_one_line_or_begins_and_ends_with_its_code() {
        assert_eq!(said(&[], 200, &["Ok."]), "200 Ok.\r\n");
        assert_eq!(
            said(&[], 211, &["Features:", " SIZE", "End"]),
            "211-Features:\r\n SIZE\r\n211 End\r\n"
        );
    }

    #[test]
    fn each_manner_shows_in_the_bytes() {
        assert_eq!(
            said(&[Quirk::Says(226, 250)], 226, &["Done."]),
            "250 Done.\r\n"
        );
        assert_eq!(said(&[Quirk::BareCodes], 226, &["Done."]), "226\r\n");
        assert_eq!(said(&[Quirk::BareLf], 226, &["Done."]), "226 Done.\n");
        let odd = said(&[Quirk::OddLines], 226, &["Done."]);
        assert!(
            odd.starts_with("226-")
                && odd.contains("\r\n550 is")
                && odd.ends_with("\r\n226 Done.\r\n")
        );
    }

    #[test]
    fn what_is_refused_is_no_feature() {
        let character = Character::new(vec![Quirk::Refuses("MLSD", 500)]);
        let lines = character.features(false).concat();
        let text = String::from_utf8(lines).unwrap();
        assert!(!text.contains("MLST") && text.contains("SIZE") && !text.contains("AUTH"));
        assert_eq!(character.refuses("MLSD"), Some(500));
    }
}
