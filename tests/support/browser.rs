//! A real headless Chromium, driven over WebDriver by chromedriver: one session, closed with all its
//! processes and files. The least of a client: JSON over the HTTP of `http.rs`; what WebDriver has
//! no words for goes through DevTools. FTPULSE_TEST_SKIP_BROWSER=1 skips the tests that need it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::process::{Running, spawn, tied};
use super::servers::is_root;
use super::{PATIENCE, http, temp_dir, wait_for};

/// A browser takes a core and some hundred megabytes: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// The keys of WebDriver that the tests press.
pub const TAB: &str = "\u{e004}";
/// The other one.
pub const ENTER: &str = "\u{e007}";

/// Whether browser tests shall run; panics if they shall but cannot.
#[allow(clippy::print_stderr)]
pub fn wanted() -> bool {
    if std::env::var_os("FTPULSE_TEST_SKIP_BROWSER").is_some_and(|value| !value.is_empty()) {
        eprintln!("not run: FTPULSE_TEST_SKIP_BROWSER is set");
        return false;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    for program in ["chromedriver", "chromium"] {
        assert!(
            path.split(':')
                .any(|folder| Path::new(folder).join(program).exists()),
            "the tests of the status page need {program}; install it (tests/run does), or set \
             FTPULSE_TEST_SKIP_BROWSER=1"
        );
    }
    true
}

/// A running browser with one page.
pub struct Browser {
    address: SocketAddr,
    session: String,
    // In this order: the session is gone, then its driver, then its files, then the next may come.
    _driver: Running,
    _home: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one; light, and as wide as a desk's screen.
    pub fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = temp_dir();
        let mut command = tied("chromedriver");
        command.arg("--port=0").env("TMPDIR", home.path());
        command.env("HOME", home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut driver = spawn(command).expect("start chromedriver");
        let mut said = BufReader::new(driver.child.stdout.take().unwrap()).lines();
        let port = said.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("started successfully on port ")?;
            rest.trim_end_matches('.').parse::<u16>().ok()
        });
        // Its pipe is read to the end, or it would be ended by what it says later.
        std::thread::spawn(move || said.for_each(drop));
        let address =
            SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver tells its port")));

        // The browser ends with its driver, even when that is killed with this process.
        let binary = home.path().join("browser");
        let script = "#!/bin/sh\nexec setpriv --pdeathsig KILL -- chromium \"$@\"\n";
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();

        let mut arguments = vec!["--headless=new", "--disable-gpu", "--no-proxy-server"];
        // Containers have little of it.
        arguments.extend([
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
        ]);
        if is_root() {
            // Chromium refuses to build its sandbox as root; the only pages here are our own.
            arguments.push("--no-sandbox");
        }
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": binary, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = call(address, "POST", "/session", &capabilities);
        let session = made["sessionId"].as_str().expect("a session").to_owned();
        let browser = Self {
            address,
            session,
            _driver: driver,
            _home: home,
            _one: one,
        };
        browser.screen(1280, false);
        browser
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{path}", self.session);
        call(self.address, "POST", &path, body)
    }

    /// A command of DevTools.
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        self.command(
            "goog/cdp/execute",
            &json!({ "cmd": command, "params": params }),
        )
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page, with whatever its policy allows to itself.
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script's answer is true.
    pub fn wait(&self, script: &str) {
        wait_for(script, PATIENCE, || {
            self.run(script).as_bool()?.then_some(())
        });
    }

    /// The text of the first element that a selector finds, as it is seen; empty without one.
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.run(&script).as_str().unwrap().to_owned()
    }

    /// Presses one key after the other.
    pub fn press(&self, keys: &str) {
        let press = |key: char| {
            let of = |kind: &str| json!({ "type": kind, "value": key });
            [of("keyDown"), of("keyUp")]
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        let source = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("actions", &json!({ "actions": [source] }));
    }

    /// Another screen: its width in pixels, and whether its user wants it dark.
    pub fn screen(&self, width: u32, dark: bool) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1,
            "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let wish = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": wish }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// What the page's console was told since it was asked last, as text.
    pub fn console(&self) -> Vec<String> {
        let lines = self.command("se/log", &json!({ "type": "browser" }));
        let lines = lines.as_array().unwrap().iter();
        lines
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A picture of the whole page for a person, where FTPULSE_SHOTS names a folder for them.
    pub fn shot(&self, name: &str) {
        let Some(folder) = std::env::var_os("FTPULSE_SHOTS") else {
            return;
        };
        let size =
            self.run("const e = document.documentElement; return [e.scrollWidth, e.scrollHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let wish = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", &wish);
        std::fs::create_dir_all(&folder).unwrap();
        let file = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(file, from_base64(taken["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let path = format!("/session/{}", self.session);
            call(self.address, "DELETE", &path, &json!({}));
        }
    }
}

fn call(address: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = http::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    // It keeps the connection whatever it is asked, so the length counts.
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head).expect("chromedriver answers") > 2 {
        let line = head.lines().last().unwrap().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    let answer = String::from_utf8(bytes).unwrap();
    let fine = head.starts_with("HTTP/1.1 200 ");
    assert!(fine, "{method} {path} {body}: {answer}");
    let mut answer: Value = serde_json::from_str(&answer).unwrap();
    answer["value"].take()
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|b| DIGITS.iter().position(|d| *d == b));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in digits {
        bits = (bits << 6 | digit as u32) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
