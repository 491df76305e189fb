//! A headless Chromium, controlled over its driver's WebDriver protocol (W3C).

mod chromium;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;

pub use self::chromium::fetch;
use self::chromium::{BROWSER, FONTS};
use crate::dtb::Tools;
use crate::hang;
use crate::temporary::Folder;
use crate::workspace::Workspace;

/// Time between two looks at a page that is being loaded.
const POLL: Duration = Duration::from_millis(20);
/// Tells whether a page other than the blank one is complete.
const LOADED: &str = "return document.readyState === 'complete' && location.href !== 'about:blank'";
/// Maximum length of an answer in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Part of the line in which the driver reports its port.
const LISTENS: &str = "on port ";
/// Key of an element's identifier (WebDriver, section "Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const ARGUMENTS: [&str; 9] = [
    "--headless",
    // Chromium's sandbox does not work for root in a container. The sandbox is not needed, because
    // all pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// A browser with one window, which is closed when this object is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
    profile: Folder,
}

impl Browser {
    /// Starts the driver, and through it the browser, with a fresh profile.
    pub fn start(workspace: &Workspace, tools: &Tools) -> Result<Self> {
        let profile = Folder::new()?;
        let mut command = tools.command("chromedriver");
        command.arg("--port=0").env("FONTCONFIG_FILE", tools.root().join(FONTS));
        command.env("HOME", profile.path()).current_dir(&workspace.root);
        let mut driver = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let config = Agent::config_builder()
            .timeout_global(Some(hang::on_this_machine(hang::ANSWER)))
            .proxy(None);
        let agent = config.http_status_as_error(false).build().into();
        let port = port(&mut driver);
        let mut browser = Self { driver, agent, session: String::new(), profile };
        browser.session = format!("http://127.0.0.1:{}/session", port?);
        let capabilities = browser.capabilities(&tools.root().join(BROWSER));
        let answer = browser.post("", &capabilities)?;
        let session = answer["sessionId"].as_str().context("the driver names no session")?;
        browser.session = format!("{}/{session}", browser.session);
        Ok(browser)
    }

    fn capabilities(&self, binary: &Path) -> Value {
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", self.profile.path().join("data").display()));
        json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": binary, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } })
    }

    /// Loads a page, and reloads it if it is already open.
    pub fn open(&self, address: &str) -> Result<()> {
        self.post("/url", &json!({ "url": "about:blank" }))?;
        self.log("browser")?;
        self.log("performance")?;
        self.post("/url", &json!({ "url": address }))?;
        // On a busy machine, the driver's answer can be that of the page before.
        let start = Instant::now();
        while self.execute(LOADED, &json!([]))? != true {
            ensure!(
                start.elapsed() < hang::on_this_machine(hang::ANSWER),
                "{address} was not loaded in time"
            );
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Runs the body of a function in the page.
    pub fn execute(&self, script: &str, arguments: &Value) -> Result<Value> {
        self.post("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Clicks on the first element that matches a selector.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.post(&format!("/element/{element}/click"), &json!({})).map(drop)
    }

    /// Types `keys` while an element has the focus.
    pub fn keys(&self, selector: &str, keys: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.post(&format!("/element/{element}/value"), &json!({ "text": keys })).map(drop)
    }

    /// Returns the entries that a log has collected, and removes them from the log.
    pub fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.post("/se/log", &json!({ "type": kind }))?;
        entries.as_array().cloned().context("a log is a list")
    }

    /// Returns the addresses that the page has requested since it was opened.
    pub fn requests(&self) -> Result<Vec<String>> {
        let address = |event: Value| {
            let address = event["request"]["url"].as_str();
            address.map(str::to_owned).context("a request without an address")
        };
        self.events("Network.requestWillBeSent")?.into_iter().map(address).collect()
    }

    /// Returns the parameters of the page's events of a kind since the last call.
    fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        for entry in self.log("performance")? {
            let event = entry["message"].as_str().context("an event without a message")?;
            let event: Value = serde_json::from_str(event)?;
            if event["message"]["method"] == kind {
                events.push(event["message"]["params"].clone());
            }
        }
        Ok(events)
    }

    /// Switches to the document in a frame, on which all other functions then act.
    pub fn enter(&self, selector: &str) -> Result<()> {
        let frame = json!({ ELEMENT: self.element(selector)? });
        self.post("/frame", &json!({ "id": frame })).map(drop)
    }

    /// Switches back to the page.
    pub fn leave(&self) -> Result<()> {
        self.post("/frame", &json!({ "id": Value::Null })).map(drop)
    }

    /// Drops files at a place of the window, in CSS pixels from its upper left corner.
    pub fn drop_files(&self, (x, y): (u32, u32), files: &[PathBuf]) -> Result<()> {
        let data = json!({ "items": [], "files": files, "dragOperationsMask": 1 });
        for kind in ["dragEnter", "dragOver", "drop"] {
            let event = json!({ "type": kind, "x": x, "y": y, "data": data });
            self.devtools("Input.dispatchDragEvent", &event)?;
        }
        Ok(())
    }

    fn element(&self, selector: &str) -> Result<String> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.post("/element", &wanted)?;
        found[ELEMENT].as_str().map(str::to_owned).context("an element without identifier")
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    fn post(&self, command: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{command}", self.session));
        let request = request.header("Content-Type", "application/json; charset=utf-8");
        let mut answer = request.send(body.to_string())?;
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string()?;
        let answer: Value = serde_json::from_str(&text)?;
        let value = &answer["value"];
        let error = value["error"].as_str().filter(|_| value["stacktrace"].is_string());
        ensure!(error.is_none(), "session{command}: {}", value["message"]);
        Ok(value.clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ending the driver also ends its browser. Errors are ignored, because the browser is no
        // longer needed.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Returns the port that the driver has chosen.
fn port(driver: &mut Child) -> Result<u16> {
    let output = driver.stdout.take().context("the driver has no standard output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some((_, port)) = line.split_once(LISTENS)
            && line.contains("successfully")
        {
            return port.trim_end_matches('.').parse().context("the port is not a number");
        }
    }
    bail!("the driver exited before it listened on a port")
}
