//! A Chromium without a window, spoken to over the DevTools protocol by a pair of pipes: a message is JSON that ends in a NUL byte.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage --remote-debugging-pipe";
/// No answer takes longer on any machine that is not stuck.
const PATIENCE: Duration = Duration::from_mins(2);

/// The program, where there is one.
pub fn program() -> Option<PathBuf> {
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// A browser; it ends when this is dropped.
pub struct Browser {
    child: Child,
    requests: File,
    answers: Receiver<Value>,
    last: u64,
    _folder: TempDir,
}

/// A page that was opened, with all that it complained about.
pub struct Page<'b> {
    browser: &'b mut Browser,
    session: String,
    /// What was said on the console, exceptions, and violations of the content policy.
    pub complaints: Vec<String>,
    loaded: bool,
}

impl Browser {
    pub fn start(program: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("it-chromium-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = Command::new("mkfifo").args([path("requests"), path("answers")]).status().unwrap();
        assert!(made.success(), "mkfifo makes pipes");
        // For reading and writing, so that nobody waits for the other to open his end.
        let script = format!("exec \"$0\" {FLAGS} --user-data-dir=\"$1\" about:blank 3<>\"$2\" 4<>\"$3\" >\"$4\" 2>&1");
        let child = Command::new("sh")
            .args(["-c", &script])
            .arg(program)
            .args([path("profile"), path("requests"), path("answers"), path("log")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(path(name)).unwrap();
        let (requests, mut reader) = (open("requests"), BufReader::new(open("answers")));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        Self { child, requests, answers, last: 0, _folder: folder }
    }

    /// Opens a file in a window of a width, in light or dark.
    pub fn open(&mut self, file: &Path, width: u32, scheme: &str) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }), &mut |_| {});
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session =
            self.call(None, "Target.attachToTarget", attach, &mut |_| {})["sessionId"].as_str().unwrap().to_owned();
        let mut page = Page { browser: self, session, complaints: Vec::new(), loaded: false };
        for domain in ["Page", "Runtime", "Log", "Audits", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
        page.call("Emulation.setDeviceMetricsOverride", size);
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        page.call("Emulation.setEmulatedMedia", media);
        page.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        while !page.loaded {
            page.evaluate("1");
        }
        page
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: Value, hear: &mut dyn FnMut(&Value)) -> Value {
        self.last += 1;
        let mut request = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            hear(&answer);
        }
    }
}

impl Page<'_> {
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let Self { browser, session, complaints, loaded } = self;
        browser.call(Some(session.as_str()), method, params, &mut |event| match event["method"].as_str() {
            Some("Page.loadEventFired") => *loaded = true,
            // That a test, and no user, went to another place of the page.
            Some("Audits.issueAdded") if event["params"].to_string().contains("NavigationEntryMarkedSkippable") => {}
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" | "Audits.issueAdded") => {
                complaints.push(event["params"].to_string());
            }
            // Nothing but the page itself may be asked for.
            Some("Network.requestWillBeSent") if event["params"]["type"] != "Document" => {
                complaints.push(format!("it asks for {}", event["params"]["request"]["url"]));
            }
            _ => {}
        })
    }

    /// The value of an expression.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
