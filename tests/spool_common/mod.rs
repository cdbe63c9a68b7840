//! What the spool's tests share: a route over a temporary folder, and files put into it.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use ftpulse::config::{After, Order, Publishing, Route, Secret, Server, Verify};
use slog::{Drain, KV, Logger, OwnedKVList, Record};

/// A route whose spool is `<dir>/spool`, made here.
pub fn route(dir: &Path) -> Route {
    let spool = dir.join("spool");
    fs::create_dir_all(&spool).unwrap();
    Route {
        name: "main".into(),
        dead_letter: spool.join(".dead-letter"),
        spool,
        server: Server {
            host: "127.0.0.1".into(),
            port: 21,
            user: "u".into(),
            password: Secret::new("p"),
            folder: String::new(),
            tls: None,
        },
        get: None,
        active: None,
        uploaders: 1,
        include: vec!["*".into()],
        exclude: vec![],
        recursive: true,
        settle: Duration::from_millis(300),
        ready_suffix: None,
        order: Order::Oldest,
        priority: 0,
        rate_limit: None,
        verify: Verify::Size,
        resume_over: 8 << 20,
        publishing: Publishing::default(),
        after: After::Delete,
    }
}

/// Sets a file's modification time so many seconds back.
pub fn age(path: &Path, seconds: u64) {
    let now = UNIX_EPOCH + Duration::from_secs_f64(ftpulse::clock::unix());
    let time = now - Duration::from_secs(seconds);
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// Puts a file in the way a careful producer does: written elsewhere, then renamed.
pub fn rename_in(spool: &Path, rel: &str, content: &str) {
    let temp = spool.join(".staging");
    fs::write(&temp, content).unwrap();
    fs::rename(&temp, spool.join(rel)).unwrap();
}

/// A logger that keeps each line as text: message and facts.
pub fn log() -> (Logger, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let root = Logger::root(Keep(lines.clone()).fuse(), slog::o!());
    (root, lines)
}

struct Keep(Arc<Mutex<Vec<String>>>);

impl Drain for Keep {
    type Ok = ();
    type Err = slog::Never;
    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        struct Text(String);
        impl slog::Serializer for Text {
            fn emit_arguments(
                &mut self,
                key: slog::Key,
                value: &std::fmt::Arguments<'_>,
            ) -> slog::Result {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut text = Text(format!("{}", record.msg()));
        record.kv().serialize(record, &mut text).unwrap();
        self.0.lock().unwrap().push(text.0);
        Ok(())
    }
}

/// A user of no importance, whom nothing belongs to.
pub const NOBODY: u32 = 65_534;

/// Runs a closure on a thread that is not root, if the tests are: only so can something be
/// unreadable. Threads started from there are not root either.
pub fn as_user<T: Send + 'static>(user: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let other = move || {
        if rustix::process::getuid().is_root() {
            let user = rustix::process::Uid::from_raw(user);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        }
        work()
    };
    std::thread::spawn(other).join().unwrap()
}

/// A size that larger runs set by the environment.
pub fn number_from(variable: &str, usual: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(usual, |text| text.parse().expect("a whole number"))
}

/// For tests that measure their process: runs this very test once more alone in one. True there.
pub fn in_own_process(test: &str) -> bool {
    const INSIDE: &str = "FTPULSE_TEST_IN_OWN_PROCESS";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    assert!(
        command.status().unwrap().success(),
        "{test} in a process of its own"
    );
    false
}
