//! The table of all settings: name, kind with its bounds, default, meaning. Defaults, checks,
//! suggestions and `config/ftpulse.toml` all derive from it; no bound stands anywhere else.
//! Texts in it are written as a user would write them and go through the same parsers.

/// What a setting's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A duration with its unit, from the first to the second, both included.
    Duration(&'static str, &'static str),
    /// As `Duration`, or `none`.
    DurationOrNone(&'static str, &'static str),
    /// A whole number within these bounds, both included.
    Whole(i64, i64),
    /// A number from 0 to 1.
    Share,
    /// A size with its unit, within these bounds, both included.
    Size(&'static str, &'static str),
    /// As `Size`, or `none`.
    SizeOrNone(&'static str, &'static str),
    /// `true` or `false`.
    Bool,
    /// One of the list.
    Choice(&'static [&'static str]),
    /// An absolute path.
    Path,
    /// The absolute path of a file that holds a secret.
    SecretFile,
    /// A secret.
    Secret,
    /// Free text.
    Text,
    /// A list of shell patterns.
    Patterns,
    /// An IP address and a port.
    Address,
    /// The IP address of one host.
    Ip,
    /// A range of ports.
    Ports,
    /// The URL of a destination.
    Server,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its dotted name; `routes.NAME.` stands for every route.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its default as a user would write it; none if it has to be given or may be absent.
    pub default: Option<&'static str>,
    /// An example where there is no default.
    pub example: &'static str,
    /// Whether a route must have it.
    pub required: bool,
    /// One line on what it is.
    pub meaning: &'static str,
}

impl Key {
    const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        let default = Some(default);
        Self {
            name,
            kind,
            default,
            example: "",
            required: false,
            meaning,
        }
    }
    const fn absent(
        name: &'static str,
        kind: Kind,
        example: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default: None,
            example,
            required: false,
            meaning,
        }
    }
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
    /// The section it stands in: `heartbeat`, or `routes.NAME`.
    pub fn section(&self) -> &'static str {
        self.name
            .rsplit_once('.')
            .map_or("", |(section, _)| section)
    }
    /// Its name within the section.
    pub fn leaf(&self) -> &'static str {
        self.name
            .rsplit_once('.')
            .map_or(self.name, |(_, leaf)| leaf)
    }
}

use Kind::{
    Address, Bool, Choice, Duration, DurationOrNone, Ip, Path, Patterns, Ports, Secret, SecretFile,
    Server, Share, Size, SizeOrNone, Text, Whole,
};

/// Every setting, in the order of the documentation.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    Key::new("heartbeat.interval", Duration("100ms", "60s"), "2s", "Time between two Pings of an uploader."),
    Key::new("heartbeat.misses", Whole(1, 100), "3", "Missed beats tolerated in a row; the next one convicts."),
    Key::new("heartbeat.policy", Choice(&["count", "lease"]), "count", "How missed beats lead to a verdict."),
    Key::new("heartbeat.lease", Duration("1s", "10m"), "10s", "Length of the lease (policy lease): at least three intervals."),
    Key::new("heartbeat.lease_floor", Duration("10ms", "10s"), "250ms", "Shortest pause between two retries of a Ping (policy lease): at most an interval."),
    Key::new("heartbeat.vouchers", Choice(&["all", "none"]), "all", "Whether evidence may stand in for a silent uploader whose silence is legitimate."),
    Key::new("heartbeat.max_stranded_workers", Whole(0, 1000), "8", "Threads that cannot end, tolerated before the process asks to be restarted."),

    Key::new("quarantine.capacity", Whole(1, 4096), "16", "Stranded socket pairs held at most; at least the sum of all uploaders."),
    Key::new("quarantine.per_destination", Whole(1, 4096), "2", "Pairs of one destination held at most."),
    Key::new("quarantine.hold", Duration("1s", "24h"), "10m", "How long a pair is held."),
    Key::new("quarantine.max_send_bytes", Size("64KiB", "4GiB"), "16MiB", "Unsent bytes held in kernel memory at most, over all pairs."),

    Key::new("timers.control_connect", Duration("10ms", "10m"), "10s", "One attempt of the control connection."),
    Key::new("timers.control_connect_attempts", Whole(1, 1000), "5", "Attempts of the control connection in total."),
    Key::new("timers.control_connect_interval", Duration("10ms", "1h"), "2s", "Pause between two of them."),
    Key::new("timers.reply", Duration("10ms", "24h"), "60s", "One reply: greeting, command, final 226."),
    Key::new("timers.read_lock_retries", Whole(0, 1000), "0", "Retries of the shared lock on a source."),
    Key::new("timers.read_lock_interval", Duration("10ms", "1h"), "1s", "Pause between two of them."),
    Key::new("timers.write_lock_retries", Whole(0, 1000), "0", "Retries of the exclusive lock on a target (downloads)."),
    Key::new("timers.write_lock_interval", Duration("10ms", "1h"), "1s", "Pause between two of them."),
    Key::new("timers.data_connect", Duration("10ms", "10m"), "10s", "One attempt of the data connection (passive mode)."),
    Key::new("timers.data_connect_attempts", Whole(1, 1000), "5", "Attempts of the data connection in total."),
    Key::new("timers.data_connect_interval", Duration("10ms", "1h"), "2s", "Pause between two of them."),
    Key::new("timers.transfer_put", DurationOrNone("10ms", "30d"), "none", "Bound on a whole upload, drain included; none: only timers.stall bounds it."),
    Key::new("timers.transfer_get", DurationOrNone("10ms", "30d"), "none", "Bound on a whole download, or on the listing of a route that downloads; none: only timers.stall bounds it."),
    Key::new("timers.listen", Duration("10ms", "24h"), "60s", "The server's connect to us (active mode)."),
    Key::new("timers.stall", Duration("10ms", "24h"), "30s", "How long a living peer may take no byte."),
    Key::new("timers.disk", Duration("10ms", "24h"), "30s", "How long a local file operation may stand still."),
    Key::new("timers.compute", Duration("10ms", "24h"), "10m", "How long a phase may compute."),
    Key::new("timers.dns", Duration("10ms", "10m"), "10s", "A name look-up."),
    Key::new("timers.tls", Duration("10ms", "10m"), "10s", "A TLS handshake."),
    Key::new("timers.idle_session", Duration("10ms", "24h"), "30s", "How long an idle session is kept."),

    Key::new("retry.first", Duration("10ms", "1h"), "1s", "The first pause after a failed attempt; doubled at each further one."),
    Key::new("retry.max", Duration("10ms", "24h"), "5m", "The longest pause."),
    Key::new("retry.jitter", Share, "0.2", "Random share by which a pause is made longer or shorter."),
    Key::new("retry.give_up_after", Duration("1s", "365d"), "5d", "A file that failed for so long becomes a dead letter; time while the destination is down does not count."),

    Key::new("watchdog.interval", Duration("100ms", "60s"), "500ms", "Time in which a watched program has to send a beat; programs of two beats have those below."),
    Key::new("watchdog.misses", Whole(1, 100), "5", "Missing or unreadable beats tolerated in a row; the next one is the fault."),
    Key::new("watchdog.window", Duration("100ms", "10m"), "3s", "The window in which they are counted: misses + 1 intervals have to fit."),
    Key::new("watchdog.beats", Choice(&["required", "if_sent"]), "required", "Whether a watched program that is ready has to beat; if_sent: it is judged from its first beat on, for programs that only say READY=1."),
    Key::new("watchdog.start_timeout", Duration("1s", "1h"), "30s", "How long a watched program may take to say READY=1."),
    Key::new("watchdog.pulse_interval", Duration("100ms", "60s"), "2s", "Time between two pulses of the service, which no busy loop can delay."),
    Key::new("watchdog.software_interval", Duration("100ms", "10m"), "10s", "Time between two software beats of the service, which go round through its loop: at least two pulses."),
    Key::new("watchdog.kind_misses", Whole(1, 100), "3", "Missing beats of one kind in a row that are the fault."),

    Key::new("shutdown.grace", Duration("0s", "10m"), "8s", "How long a drain may take after SIGTERM or SIGINT."),

    Key::new("state.dir", Path, "/var/lib/ftpulse", "Folder of the service's own state; one process owns it."),
    Key::new("state.history", Duration("1h", "3650d"), "30d", "How long the journal remembers deliveries, incidents, and kept files that are gone."),

    Key::new("http.listen", Address, "127.0.0.1:9188", "Address of metrics, health and API."),
    Key::absent("http.token", Secret, "a-long-random-text", "Bearer token of the API; better given by token_file."),
    Key::absent("http.token_file", SecretFile, "/run/secrets/ftpulse-token", "File that holds the token; one trailing newline is cut."),

    Key::new("log.level", Choice(&["critical", "error", "warning", "info", "debug", "trace"]), "info", "The least severe level that is written."),
    Key::new("log.format", Choice(&["auto", "text", "json"]), "auto", "Form of a line; auto: text on a terminal, else json."),

    Key::absent("routes.NAME.spool", Path, "/spool", "The watched folder; with direction get, the folder that is filled.").required(),
    Key::absent("routes.NAME.server", Server, "ftpes://user@ftp.example.net/incoming", "Where the files go, or come from; the folder is relative to the login folder, %2F at its start makes it absolute.").required(),
    Key::absent("routes.NAME.user", Text, "user", "Login name, where the URL has none."),
    Key::absent("routes.NAME.password", Secret, "secret", "Login password; better given by password_file."),
    Key::absent("routes.NAME.password_file", SecretFile, "/run/secrets/ftp", "File that holds the password; one trailing newline is cut."),
    Key::new("routes.NAME.uploaders", Whole(1, 256), "2", "Concurrent uploads of this route."),
    Key::new("routes.NAME.mode", Choice(&["passive", "active"]), "passive", "Who opens the data connection: we (passive) or the server (active)."),
    Key::absent("routes.NAME.active_address", Ip, "192.0.2.7", "Address that is told to the server, where it is not that of the control connection, as behind NAT (active mode)."),
    Key::absent("routes.NAME.active_ports", Ports, "50000-50100", "Ports to listen on, any by default (active mode)."),
    Key::absent("routes.NAME.ca_file", Path, "/etc/ssl/ca.pem", "Certificates that are trusted, in PEM, in place of the system's (TLS)."),
    Key::absent("routes.NAME.client_certificate", Path, "/etc/ssl/client.pem", "Our certificate, in PEM, with those between it and its root after it (TLS)."),
    Key::absent("routes.NAME.client_key", Secret, "-----BEGIN PRIVATE KEY-----", "Its key, in PEM; better given by client_key_file (TLS)."),
    Key::absent("routes.NAME.client_key_file", SecretFile, "/run/secrets/ftp-key", "File that holds the key (TLS)."),
    Key::new("routes.NAME.tls_verify", Bool, "true", "Whether the server's certificate is verified (TLS)."),
    Key::new("routes.NAME.include", Patterns, "*", "What is taken: shell patterns on the path below the spool."),
    Key::new("routes.NAME.exclude", Patterns, "", "What is left out: shell patterns on the path below the spool."),
    Key::new("routes.NAME.recursive", Bool, "true", "Whether folders below the spool are watched."),
    Key::new("routes.NAME.settle", Duration("0s", "24h"), "5s", "How long a file must stay unchanged before it is taken."),
    Key::absent("routes.NAME.ready_suffix", Text, ".ready", "A file is taken when its name with this suffix appears; it need not settle then."),
    Key::new("routes.NAME.order", Choice(&["oldest", "newest", "name"]), "oldest", "The order of dispatch, exact within each batch of 10,000 scanned."),
    Key::new("routes.NAME.priority", Whole(-100, 100), "0", "Where routes share the seats of a destination, those with a higher one go first; one that got none for a minute has its turn."),
    Key::new("routes.NAME.rate_limit", SizeOrNone("1KiB", "100GiB"), "none", "Bytes a second at most, of all its uploaders together."),
    Key::new("routes.NAME.publish", Choice(&["rename", "direct"]), "rename", "How a file gets its final name: by a rename when it is whole, or (direct, for servers that refuse to rename) by being sent straight under it: then a torn file can be seen, until it is sent again, and in doubt only the size tells whether it arrived."),
    Key::new("routes.NAME.temp_pattern", Text, ".{name}.{token}.part", "Form of the temporary name, beside the final one: {name}, cut to fit, and {token}, which has to be in it (it holds this agent's id and what is random); it may end in {name} only after a leading dot."),
    Key::absent("routes.NAME.remote_marker", Text, "{name}.done", "An empty file that is stored beside each delivered one, after it is there and never before; a file whose own name has this form is not sent."),
    Key::new("routes.NAME.on_conflict", Choice(&["overwrite", "skip", "rename", "fail"]), "overwrite", "What happens when the final name exists: replaced; not sent, its source finished as if delivered (but never deleted unless the sizes are equal: that fails); published as name-1.ext; tried again later. Exact among the files of one service; another writer can come in between."),
    Key::new("routes.NAME.verify", Choice(&["size", "hash", "none"]), "size", "How a sent file is verified before it is published."),
    Key::new("routes.NAME.keep_time", Bool, "false", "Whether a file gets the time of its source on the server, by MFMT or MDTM: a round trip for each file."),
    Key::new("routes.NAME.resume_over", Size("1MiB", "1EiB"), "8MiB", "Files over this size are resumed, smaller ones sent again."),
    Key::new("routes.NAME.after", Choice(&["delete", "archive", "keep"]), "delete", "What becomes of the source after its delivery; with direction get, of the remote file. A kept one is not taken again while it is unchanged."),
    Key::absent("routes.NAME.archive", Path, "/archive", "Folder of delivered sources (after = \"archive\"); with direction get, a folder on the server, as seen from the root of the login."),
    Key::new("routes.NAME.dead_letter", Path, "<spool>/.dead-letter", "Folder of files that can never be delivered."),
    Key::new("routes.NAME.direction", Choice(&["put", "get"]), "put", "Upload what comes into the spool (put), or download what comes into the remote folder (get): then the spool is where it is put."),
    Key::new("routes.NAME.poll", Duration("1s", "24h"), "30s", "Pause between two listings of the remote folder (direction get)."),
];

/// What a dotted name stands for.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// A setting.
    Leaf(&'static Key),
    /// A section, or the table of one route.
    Section,
    /// Nothing.
    Unknown,
}

/// Looks a name up by its parts; any route name stands for `NAME`.
pub fn place(parts: &[&str]) -> Place {
    match parts {
        [] | ["routes"] | ["routes", _] => Place::Section,
        ["routes", _, leaf] => find("routes.NAME", leaf),
        [section] if KEYS.iter().any(|key| key.section() == *section) => Place::Section,
        [section, leaf] => find(section, leaf),
        _ => Place::Unknown,
    }
}

fn find(section: &str, leaf: &str) -> Place {
    let key = KEYS
        .iter()
        .find(|key| key.section() == section && key.leaf() == leaf);
    key.map_or(Place::Unknown, Place::Leaf)
}

/// The settings of every route.
pub fn of_routes() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.section() == "routes.NAME")
}

/// The settings outside the routes.
pub fn of_service() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.section() != "routes.NAME")
}

/// The variable that sets `key`.
pub fn variable(key: &str) -> String {
    format!("FTPULSE__{}", key.to_uppercase().replace('.', "__"))
}

/// Whether a route may have this name: `[a-z0-9_]+` without `__`.
pub fn is_route_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(legal) && !name.contains("__")
}
