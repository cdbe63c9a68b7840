//! The places of the protocol at which a fault can strike: the greeting, the handshakes, each
//! command's reply, the reply after a transfer. Plain data.

/// A place in the protocol at which a reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The greeting after the connect.
    Greeting,
    /// AUTH.
    Auth,
    /// The TLS handshake of the control connection.
    Tls,
    /// PBSZ.
    Pbsz,
    /// PROT.
    Prot,
    /// USER.
    User,
    /// PASS.
    Pass,
    /// FEAT.
    Feat,
    /// OPTS.
    Opts,
    /// TYPE.
    Type,
    /// PWD.
    Pwd,
    /// CWD and CDUP.
    Cwd,
    /// MKD.
    Mkd,
    /// EPSV or PASV.
    Epsv,
    /// EPRT or PORT.
    Eprt,
    /// REST.
    Rest,
    /// STOR, before its 150.
    Stor,
    /// RETR, before its 150.
    Retr,
    /// LIST, NLST and MLSD, before their 150.
    List,
    /// The TLS handshake of a data connection, after the 150.
    DataTls,
    /// The reply after the data of a file, the 226.
    Final,
    /// The reply after the data of a listing.
    Listed,
    /// SIZE.
    Size,
    /// MDTM.
    Mdtm,
    /// MFMT.
    Mfmt,
    /// DELE.
    Dele,
    /// RNFR.
    Rnfr,
    /// RNTO.
    Rnto,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

impl Step {
    /// The step of a command; most that no transfer needs have none.
    pub(super) fn of(verb: &str) -> Option<Self> {
        Some(match verb {
            "AUTH" => Self::Auth,
            "PBSZ" => Self::Pbsz,
            "PROT" => Self::Prot,
            "USER" => Self::User,
            "PASS" => Self::Pass,
            "FEAT" => Self::Feat,
            "OPTS" => Self::Opts,
            "TYPE" => Self::Type,
            "PWD" | "XPWD" => Self::Pwd,
            "CWD" | "CDUP" => Self::Cwd,
            "MKD" => Self::Mkd,
            "EPSV" | "PASV" => Self::Epsv,
            "EPRT" | "PORT" => Self::Eprt,
            "REST" => Self::Rest,
            "STOR" => Self::Stor,
            "RETR" => Self::Retr,
            "LIST" | "NLST" | "MLSD" => Self::List,
            "SIZE" => Self::Size,
            "MDTM" => Self::Mdtm,
            "MFMT" => Self::Mfmt,
            "DELE" => Self::Dele,
            "RNFR" => Self::Rnfr,
            "RNTO" => Self::Rnto,
            "NOOP" => Self::Noop,
            "QUIT" => Self::Quit,
            _ => return None,
        })
    }

    /// The name of the fault that nothing is answered at this step.
    pub(super) fn no_reply(self) -> &'static str {
        match self {
            Self::Greeting => "no-greeting",
            Self::Auth => "no-reply-auth",
            Self::Tls => "no-handshake",
            Self::Pbsz => "no-reply-pbsz",
            Self::Prot => "no-reply-prot",
            Self::User => "no-reply-user",
            Self::Pass => "no-reply-pass",
            Self::Feat => "no-reply-feat",
            Self::Opts => "no-reply-opts",
            Self::Type => "no-reply-type",
            Self::Pwd => "no-reply-pwd",
            Self::Cwd => "no-reply-cwd",
            Self::Mkd => "no-reply-mkd",
            Self::Epsv => "no-reply-epsv",
            Self::Eprt => "no-reply-eprt",
            Self::Rest => "no-reply-rest",
            Self::Stor => "no-reply-stor",
            Self::Retr => "no-reply-retr",
            Self::List => "no-reply-list",
            Self::DataTls => "no-data-handshake",
            Self::Final => "silent-226",
            Self::Listed => "silent-226-list",
            Self::Size => "no-reply-size",
            Self::Mdtm => "no-reply-mdtm",
            Self::Mfmt => "no-reply-mfmt",
            Self::Dele => "no-reply-dele",
            Self::Rnfr => "no-reply-rnfr",
            Self::Rnto => "no-reply-rnto",
            Self::Noop => "no-reply-noop",
            Self::Quit => "no-reply-quit",
        }
    }
}
