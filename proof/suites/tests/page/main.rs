//! Opens the browser inspector in Chromium, drops firmware, and compares its outputs with the
//! command's.

#![forbid(unsafe_code)]

mod trees;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt::Write as _, thread};

use anyhow::{Context, Result, ensure};
use doorbell_harness::browser::{self, Browser};
use doorbell_harness::suite::{self, Case, OrAbsent, Shared};
use doorbell_harness::toolchain::need_target;
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{command, process, wasm};
use doorbell_suites::names::{NAMES, renamed};
use doorbell_suites::page;
use serde_json::{Value, json};

/// Time limit of a case. The first case builds the page and the command.
const LIMIT: Duration = Duration::from_mins(20);
/// Maximum time until the page has something to show. Its own limit is shorter.
const PATIENCE: Duration = Duration::from_mins(4);
/// Maximum time in which the page answers while it inspects a file.
const ALIVE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
/// The audit of the report, in its frame.
const AUDIT: &str = include_str!("../report/audit.js");
/// Script that returns the defect of the box that the report's fragment selects.
const SELECTED: &str = include_str!("../report/selected.js");
/// Script that clears what the page has said.
const FORGET: &str = "document.querySelector('#status').textContent = ''";
const STATUS: &str = "return document.querySelector('#status').textContent";
/// Script that returns an output as text, by its number.
const OUTPUT: &str = "return new TextDecoder().decode(outputs[arguments[0]])";
/// Script that returns what has the focus.
const FOCUS: &str = "return document.activeElement.id || document.activeElement.localName";
/// Script that returns whether the module lets its memory grow to a gigabyte.
const GROWN: &str = "const wasm = new Response(new Blob([module]).stream()
        .pipeThrough(new DecompressionStream('deflate-raw'))).arrayBuffer();
    window.grown = 'unknown';
    wasm.then((wasm) => WebAssembly.instantiate(wasm)).then(({ instance }) => {
      try { instance.exports.memory.grow(1 << 14); grown = true } catch { grown = false }
    })";
/// Script that makes the page's next time limit end at once.
const HURRY: &str = "const wait = setTimeout; window.setTimeout = (work) => wait(work, 100)";
/// Script that counts elements that names must not create, in the report.
const INJECTED: &str = "return document.querySelectorAll('img, b[id], main script').length";
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

const MISTAKES: &str = "crates/gic-firmware/tests/data/mistakes.dtb";
const RENAMED: &str = "sim/machine/machines/harbour.dtb";
const OVERLAYS: &str = "crates/gic-firmware/tests/overlay";
const MARINA: &str = "sim/machine/machines/marina";
const SOURCE: &str = "sim/doorbell/tests/data/dts/board.dts";
/// Color schemes and window widths.
const VIEWS: [(&str, u32); 4] = [("light", 1280), ("light", 360), ("dark", 1280), ("dark", 360)];
const HEIGHT: u32 = 800;

fn main() -> ExitCode {
    let bench = Arc::new(Shared::new());
    let case = |name: String, run: fn(&Bench, usize) -> Result<()>, number| {
        let bench = Arc::clone(&bench);
        Case::new(name, LIMIT, move || run(bench.get(|| Bench::start(workspace::this()?))?, number))
    };
    let mut cases = vec![case("the page loads nothing".into(), Bench::loads_nothing, 0)];
    for (number, (scheme, width)) in VIEWS.into_iter().enumerate() {
        cases.push(case(format!("drop, {scheme}, {width} pixels"), Bench::view, number));
    }
    cases.push(case("keyboard".into(), Bench::keyboard, 0));
    cases.push(case("the command prints the same".into(), Bench::agree, 0));
    cases.push(case("unsuitable files are refused".into(), Bench::refuse, 0));
    cases.push(case("hostile names are text".into(), Bench::stay_inert, 0));
    for (number, (name, _)) in trees::all().iter().enumerate() {
        cases.push(case(format!("hostile {name}"), Bench::stay_alive, number));
    }
    cases.push(case("time and memory have limits".into(), Bench::stop, 0));
    drop(bench);
    suite::main_in_turn(cases)
}

/// The page, the browser, and the command.
struct Bench {
    command: PathBuf,
    browser: Browser,
    page: PathBuf,
    root: PathBuf,
    folder: PathBuf,
}

impl Bench {
    fn start(workspace: &Workspace) -> Result<Self> {
        need_target(&workspace.root, wasm::TARGET).or_absent(wasm::TARGET)?;
        let tools = browser::fetch(workspace).or_absent("Chromium")?;
        let page = page::build(workspace)?;
        let command = command::build(workspace)?;
        let browser = Browser::start(workspace, &tools).context("Chromium cannot be started")?;
        let folder = workspace.target.join("page-suite");
        fs::create_dir_all(&folder)?;
        Ok(Self { command, browser, page, root: workspace.root.clone(), folder })
    }

    fn open(&self, number: usize) -> Result<String> {
        let (scheme, width) = VIEWS[number];
        self.browser.emulate(scheme, width, HEIGHT)?;
        let address = format!("file://{}", self.page.display());
        self.browser.open(&address)?;
        Ok(address)
    }

    /// Drops files of the workspace on the middle of the page, which is the report if it shows one,
    /// and returns what the page then says.
    fn drop(&self, files: &[PathBuf]) -> Result<String> {
        let files: Vec<_> = files.iter().map(|file| self.root.join(file)).collect();
        self.browser.execute(FORGET, &json!([]))?;
        self.browser.drop_files((180, HEIGHT / 2), &files)?;
        self.said()
    }

    /// Waits until the page has inspected files or refused to, and returns what it says.
    fn said(&self) -> Result<String> {
        let start = Instant::now();
        loop {
            let said = self.browser.execute(STATUS, &json!([]))?;
            let said = said.as_str().unwrap_or_default();
            if !said.is_empty() && !said.contains("being inspected") {
                return Ok(said.to_owned());
            }
            ensure!(start.elapsed() < PATIENCE, "the page says {said:?}");
            thread::sleep(POLL);
        }
    }

    fn drop_good(&self, files: &[PathBuf]) -> Result<()> {
        let said = self.drop(files)?;
        ensure!(said.contains(": inspected in"), "{said}");
        self.loaded()
    }

    /// Waits until the report is loaded: before, nothing can be dropped on it, and keys that lead
    /// into its frame are lost.
    fn loaded(&self) -> Result<()> {
        self.browser.enter("#report")?;
        let loaded =
            self.until("return document.readyState === 'complete' && document.title !== ''");
        self.browser.leave()?;
        loaded
    }

    /// Waits until a script returns `true`.
    fn until(&self, script: &str) -> Result<()> {
        let start = Instant::now();
        while self.browser.execute(script, &json!([]))? != true {
            ensure!(start.elapsed() < PATIENCE, "not in time: {script}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Checks that the browser's log contains no errors.
    fn quiet(&self) -> Result<()> {
        let said = self.browser.log("browser")?;
        ensure!(said.is_empty(), "the browser reports {}", json!(said));
        Ok(())
    }

    /// Checks that the file names no address, and that the page requests only parts of itself.
    fn loads_nothing(&self, view: usize) -> Result<()> {
        let text = fs::read_to_string(&self.page)?;
        for what in ["http:", "https:", "src=", "href=", "url(", "@import", "fetch("] {
            ensure!(!text.contains(what), "the page contains {what}");
        }
        ensure!(text.contains("content=\"default-src &#39;none&#39;; "), "there is no policy");
        let address = self.open(view)?;
        self.drop_good(&[MISTAKES.into()])?;
        let foreign = |request: &String| *request != address && !request.starts_with("blob:");
        let requests: Vec<_> = self.browser.requests()?.into_iter().filter(foreign).collect();
        ensure!(requests.is_empty(), "the page requests {requests:?}");
        self.quiet()
    }

    /// Checks the page before and after a drop, and the report in its frame.
    fn view(&self, number: usize) -> Result<()> {
        let (scheme, width) = VIEWS[number];
        self.open(number)?;
        let picture = |when: &str| -> Result<()> {
            let wide = self
                .browser
                .execute("return document.documentElement.scrollWidth <= innerWidth", &json!([]))?;
            ensure!(wide == true, "the page is wider than {width} pixels, {when}");
            let file = self.folder.join(format!("{when}-{scheme}-{width}.png"));
            fs::write(file, self.browser.screenshot()?).map_err(Into::into)
        };
        picture("before")?;
        self.drop_good(&[MISTAKES.into()])?;
        self.browser.enter("#report")?;
        let complaints = self.browser.execute(AUDIT, &json!([scheme, width]));
        let clicked = self.browser.click("#findings a.place");
        let selected = self.selected();
        self.browser.leave()?;
        clicked.and(selected)?;
        let complaints = complaints?;
        ensure!(complaints == json!([]), "{complaints}");
        picture("after")?;
        self.quiet()
    }

    /// Waits until the box that the report's fragment selects is in view and has the focus.
    fn selected(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let defect = self.browser.execute(SELECTED, &json!([]))?;
            if defect == Value::Null {
                return Ok(());
            }
            ensure!(start.elapsed() < ALIVE, "{defect}");
            thread::sleep(POLL);
        }
    }

    /// Opens the file chooser and reaches the report by keys alone.
    fn keyboard(&self, number: usize) -> Result<()> {
        self.open(number)?;
        self.browser.intercept_chooser()?;
        self.browser.press(TAB)?;
        let focus = self.browser.execute(FOCUS, &json!([]))?;
        ensure!(focus == "files", "the first Tab leads to {focus}");
        let outline = "return getComputedStyle(document.activeElement).outlineStyle";
        let outline = self.browser.execute(outline, &json!([]))?;
        ensure!(outline == "solid", "the focus is not visible: {outline}");
        self.browser.press(ENTER)?;
        self.browser.choose(&[self.root.join(MISTAKES)])?;
        let said = self.said()?;
        ensure!(said.contains(": inspected in"), "{said}");
        self.loaded()?;
        let mut met = Vec::new();
        while met.last().is_none_or(|last| *last != "report") {
            ensure!(met.len() < 8, "the Tab key leads to {met:?}, but not to the report");
            self.browser.press(TAB)?;
            met.push(self.browser.execute(FOCUS, &json!([]))?);
        }
        ensure!(met.iter().filter(|one| **one == "a").count() == 4, "{met:?} are not four links");
        self.quiet()
    }

    /// Compares each output with the command's, for trees, overlays, tables and dumps.
    fn agree(&self, number: usize) -> Result<()> {
        let data = self.root.join("crates/gic-firmware/tests/data");
        for name in ["mistakes.dtb", "several-its.dtb", "wired.dtb", "pre-its.dtb"] {
            self.same(number, &data, &[name], name)?;
        }
        let overlays = ["base.dtb", "first.dtbo", "second.dtbo"];
        self.same(number, &self.root.join(OVERLAYS), &overlays, "")?;
        let (mut names, mut dump) = (Vec::new(), String::new());
        for (table, name) in [("APIC", "apic.aml"), ("IORT", "iort.aml"), ("MCFG", "mcfg.aml")] {
            names.push(name);
            writeln!(dump, "{table} @ 0x0000000000000000")?;
            let bytes = fs::read(self.root.join(MARINA).join(name))?;
            for (at, row) in bytes.chunks(16).enumerate() {
                let row: Vec<_> = row.iter().map(|byte| format!("{byte:02X}")).collect();
                writeln!(dump, "    {:04X}: {}  ", at * 16, row.join(" "))?;
            }
        }
        let folder = self.folder.join(names.join(" + "));
        fs::create_dir_all(&folder)?;
        for name in &names {
            fs::copy(self.root.join(MARINA).join(name), folder.join(name))?;
        }
        fs::write(self.folder.join("acpidump.txt"), dump)?;
        self.same(number, &self.folder, &["acpidump.txt"], "acpidump.txt")?;
        // The command reads tables from a folder, which is named like the files in the page.
        self.open(number)?;
        self.drop_good(&names.iter().map(|name| folder.join(name)).collect::<Vec<_>>())?;
        self.compare(&self.folder, &["inspect", "--json", &names.join(" + ")], 2)?;
        self.compare(&self.folder, &["lint", "--json", &names.join(" + ")], 3)
    }

    /// Drops a file of a folder, and its overlays on its report. Compares the findings, and the
    /// contents and the picture of a source without overlays.
    fn same(&self, view: usize, folder: &Path, names: &[&str], alone: &str) -> Result<()> {
        self.open(view)?;
        let (file, overlays) = names.split_at(1);
        for names in [file, overlays].into_iter().filter(|names| !names.is_empty()) {
            self.drop_good(&names.iter().map(|name| folder.join(name)).collect::<Vec<_>>())?;
        }
        self.compare(folder, &[&["lint", "--json"], names].concat(), 3)?;
        if !alone.is_empty() {
            self.compare(folder, &["inspect", "--json", alone], 2)?;
            self.compare(folder, &["graph", alone], 4)?;
        }
        Ok(())
    }

    /// Compares an output with what the command prints.
    fn compare(&self, folder: &Path, arguments: &[&str], number: usize) -> Result<()> {
        let mut command = process::command(&self.command.to_string_lossy(), folder);
        let printed = process::output(command.args(arguments))?.stdout;
        let printed = String::from_utf8(printed)?;
        let shown = self.browser.execute(OUTPUT, &json!([number]))?;
        let shown = shown.as_str().context("no output")?;
        ensure!(!printed.is_empty() && shown == printed, "{arguments:?}: {shown} is not {printed}");
        Ok(())
    }

    /// Drops files that the page cannot inspect.
    fn refuse(&self, number: usize) -> Result<()> {
        self.open(number)?;
        let overlay = PathBuf::from(OVERLAYS);
        let alone = overlay.join("first.dtbo");
        let cases: [(&[PathBuf], &str); 5] = [
            (&[SOURCE.into()], "`doorbell lint board.dts`"),
            (&["README.md".into()], "README.md is not a flattened devicetree"),
            (&[MISTAKES.into(), RENAMED.into()], "do not describe one machine"),
            (&[overlay.join("base.dtb"), overlay.join("second.dtbo")], "label \"new\""),
            (std::slice::from_ref(&alone), "together with its overlays"),
        ];
        for (files, reason) in cases {
            let said = self.drop(files)?;
            ensure!(said.contains(reason), "{said}, without {reason}");
            let hidden = "return document.querySelector('#report').hidden && outputs.length === 0";
            ensure!(self.browser.execute(hidden, &json!([]))? == true, "{reason}: old outputs");
        }
        self.quiet()
    }

    /// Checks that names in firmware and of files appear as text and are not interpreted.
    fn stay_inert(&self, number: usize) -> Result<()> {
        self.open(number)?;
        let file = self.folder.join("<img src=x onerror=alert(1)>.dtb");
        fs::write(&file, renamed(&fs::read(self.root.join(RENAMED))?)?)?;
        self.drop_good(std::slice::from_ref(&file))?;
        let created = self.browser.execute(INJECTED, &json!([]))?;
        ensure!(created == json!(0), "the file's name created {created} elements");
        self.browser.enter("#report")?;
        let text = self.browser.execute("return document.body.innerText", &json!([]));
        let created = self.browser.execute(INJECTED, &json!([]));
        let origin = self.browser.execute("return self.origin", &json!([]));
        self.browser.leave()?;
        let text = text?;
        for (_, name) in NAMES {
            ensure!(text.as_str().is_some_and(|text| text.contains(name)), "{name} is not shown");
        }
        ensure!(created? == json!(0), "names created elements");
        ensure!(origin? == "null", "the report shares the page's origin");
        self.quiet()
    }

    /// Opens a hostile tree, and checks that the page answers meanwhile and says something in the
    /// end.
    fn stay_alive(&self, number: usize) -> Result<()> {
        let (name, tree) = &trees::all()[number];
        let file = self.folder.join(name);
        fs::write(&file, tree)?;
        self.open(0)?;
        self.browser.keys("#files", &file.display().to_string())?;
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let said = self.browser.execute(STATUS, &json!([]))?;
            slowest = slowest.max(asked.elapsed());
            let said = said.as_str().unwrap_or_default();
            if said.contains(": inspected in") || said.contains(": stopped after") {
                eprintln!("{said} The slowest answer took {slowest:?}.");
                break;
            }
            let is_busy = said.is_empty() || said.contains("being inspected");
            ensure!(is_busy && start.elapsed() < PATIENCE, "the page says {said:?}");
            thread::sleep(POLL);
        }
        ensure!(slowest < ALIVE, "an answer took {slowest:?}");
        self.quiet()
    }

    /// Checks that an inspection ends at the time limit, that the page then works on, and that
    /// memory has a maximum.
    fn stop(&self, number: usize) -> Result<()> {
        self.open(number)?;
        self.browser.execute(HURRY, &json!([]))?;
        let file = self.folder.join("nodes.dtb");
        fs::write(&file, &trees::all()[0].1)?;
        self.browser.keys("#files", &file.display().to_string())?;
        let said = self.said()?;
        ensure!(said.contains(": stopped after"), "{said}");
        self.open(number)?;
        self.browser.execute(GROWN, &json!([]))?;
        self.until("return grown !== 'unknown'")?;
        let grown = self.browser.execute("return grown", &json!([]))?;
        ensure!(grown == false, "memory grows to a gigabyte");
        self.drop_good(&[MISTAKES.into()])
    }
}
