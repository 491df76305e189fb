//! The command, the inspector, and the browser, which shows one page at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use doorbell_harness::browser::{self, Browser};
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::toolchain::need_target;
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{command, hang, process, wasm};
use serde_json::{Value, json};

use super::names::{NAMES, renamed};

/// Maximum length of the page in bytes.
const MAX_BYTES: usize = 1_000_000;
/// Script that returns the defect of the box that the URL's fragment selects, which must be visible
/// and have the focus.
const SELECTED: &str = include_str!("selected.js");
/// Script that counts elements that [`NAMES`] must not create.
const INJECTED: &str = "return document.querySelectorAll('img, b[id], main script').length";
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// A machine with many mistakes.
pub(crate) const MISTAKES: &str = "crates/gic-firmware/tests/data/mistakes.dtb";
/// A machine whose names are replaced.
const RENAMED: &str = "sim/machine/machines/harbour.dtb";

/// The command, the inspector, and the browser.
pub(crate) struct PageJudge {
    pub(crate) browser: Browser,
    pub(crate) inspector: PathBuf,
    pub(crate) root: PathBuf,
    /// Folder of the pages that the command writes.
    pub(crate) folder: PathBuf,
    command: PathBuf,
}

impl PageJudge {
    /// Builds the command and the inspector, and starts the browser.
    pub(crate) fn start(workspace: &Workspace) -> Result<Self> {
        need_target(&workspace.root, wasm::TARGET).or_absent(wasm::TARGET)?;
        let tools = browser::fetch(workspace).or_absent("Chromium")?;
        let (inspector, command) = (build(workspace)?, command::build(workspace)?);
        let browser = Browser::start(workspace, &tools).context("Chromium cannot be started")?;
        let folder = workspace.target.join("page-suite");
        fs::create_dir_all(&folder)?;
        Ok(Self { browser, inspector, root: workspace.root.clone(), folder, command })
    }

    /// Returns what the command prints in a folder. Its exit status must be 0 or 1.
    pub(crate) fn print(&self, folder: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = process::command(&self.command.to_string_lossy(), folder);
        let output = process::output(command.args(arguments))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
        String::from_utf8(output.stdout).map_err(Into::into)
    }

    /// Opens a file in the window, and returns its address.
    pub(crate) fn open(&self, file: &Path) -> Result<String> {
        let address = format!("file://{}", file.display());
        self.browser.open(&address)?;
        Ok(address)
    }

    /// Runs the body of a function in the page.
    pub(crate) fn ask(&self, script: &str) -> Result<Value> {
        self.browser.execute(script, &json!([]))
    }

    /// Waits until a script returns `wanted`.
    pub(crate) fn until(&self, script: &str, wanted: &Value) -> Result<()> {
        let (start, limit) = (Instant::now(), hang::on_this_machine(hang::RUN));
        loop {
            let found = self.ask(script)?;
            if found == *wanted {
                return Ok(());
            }
            ensure!(start.elapsed() < limit, "{found} is not {wanted}");
            thread::sleep(POLL);
        }
    }

    /// Waits until the box that the report's fragment selects is in view and has the focus.
    pub(crate) fn selected(&self) -> Result<()> {
        self.until(SELECTED, &Value::Null)
    }

    /// Checks that the browser's log contains no errors.
    pub(crate) fn quiet(&self) -> Result<()> {
        let said = self.browser.log("browser")?;
        ensure!(said.is_empty(), "the browser reports {}", json!(said));
        Ok(())
    }

    /// Writes the devicetree with names that look like elements, and returns its path.
    pub(crate) fn hostile(&self, name: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, renamed(&fs::read(self.root.join(RENAMED))?)?)?;
        Ok(file)
    }

    /// Checks that no name of the open page is an element.
    pub(crate) fn has_no_injected_elements(&self) -> Result<()> {
        let injected = self.ask(INJECTED)?;
        ensure!(injected == json!(0), "names created {injected} elements");
        Ok(())
    }

    /// Checks that all hostile names are texts of the open report.
    pub(crate) fn shows_hostile_names(&self) -> Result<()> {
        let text = self.ask("return document.body.innerText")?;
        let text = text.as_str().context("no text")?;
        for (_, name) in NAMES {
            ensure!(text.contains(name), "{name} is not shown");
        }
        self.has_no_injected_elements()
    }
}

/// Writes the page to `target/doorbell.html`, and returns its path.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let module = wasm::build(workspace)?;
    let module = fs::read(&module).with_context(|| format!("no {}", module.display()))?;
    let page = doorbell_page::assemble(&module)?;
    ensure!(page.len() <= MAX_BYTES, "the page has {} bytes, more than {MAX_BYTES}", page.len());
    let path = workspace.target.join("doorbell.html");
    fs::write(&path, page)?;
    Ok(path)
}
