//! Opens the HTML page that the command writes in a real browser, in light and dark color schemes
//! and in wide and narrow windows. Some names in the page would be code if they weren't escaped.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::browser::{self, Browser};
use doorbell_harness::dtb::{self, Tree};
use doorbell_harness::suite::{self, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{command, pdf, process};
use doorbell_suites::names::{NAMES, renamed};
use serde_json::{Value, json};

/// Time limit of a case. The first case builds the command.
const LIMIT: Duration = Duration::from_mins(20);
/// Script that returns the defects of the open page, as a list of sentences.
const AUDIT: &str = include_str!("audit.js");
/// Script that returns the defect of the box that the URL's fragment selects, which must be visible
/// and have the focus.
const SELECTED: &str = include_str!("selected.js");
/// An embedded machine that can be run, one with many mistakes, and one with replaced names.
const RUN: &str = "sim/machine/machines/marina";
const MISTAKES: &str = "crates/gic-firmware/tests/data/mistakes.dtb";
const RENAMED: &str = "sim/machine/machines/harbour.dtb";
/// A board with 64 CPUs and 8 ITSes, and registers of a GIC that is too small for it.
const WIDE: &str = "hisilicon/hip07-d05.dtb";
const SMALL_GIC: &str = r#"{ "GICD_TYPER": "0x0" }"#;
/// Script that counts elements that [`NAMES`] must not create.
const INJECTED: &str = "return document.querySelectorAll('img, b[id], main script').length";
/// A script that is not part of the page.
const FOREIGN: &str = "const one = document.createElement('script');
    one.textContent = 'window.obeyed = true'; document.body.append(one);
    return window.obeyed === true";

/// Color scheme and width of a window.
type View = (&'static str, u32);

/// Color schemes and window widths that the page is tested with.
const VIEWS: [View; 4] = [("light", 1280), ("light", 390), ("dark", 1280), ("dark", 390)];
const HEIGHT: u32 = 900;
/// Maximum number of defects printed for a page.
const SHOWN: usize = 5;
const ENTER: &str = "\u{e007}";
/// Link of a finding to its box in the drawing; the finding is one of the last, so that the page
/// has to scroll back.
const LINK: &str = "#findings li:last-child a.place, #findings li:nth-last-child(2) a.place";

/// Pages, named after the machines that they show.
const PAGES: [&str; 3] = ["run", "mistakes", "hostile"];

fn main() -> ExitCode {
    // The browser is closed after the last case.
    let bench = Arc::new(Shared::new());
    let case = |name: String, run: fn(&Bench, &str, View) -> Result<()>, page, view| {
        let bench = Arc::clone(&bench);
        Case::new(name, LIMIT, move || {
            run(bench.get(|| Bench::start(workspace::this()?))?, page, view)
        })
    };
    let mut cases = Vec::new();
    for page in PAGES {
        for view @ (scheme, width) in VIEWS {
            cases.push(case(format!("{page}, {scheme}, {width} pixels"), Bench::view, page, view));
        }
    }
    for view @ (scheme, width) in VIEWS {
        let name = format!("findings lead to boxes, {scheme}, {width} pixels");
        cases.push(case(name, Bench::follow_findings, "mistakes", view));
    }
    cases.push(case("a box shows its route".into(), Bench::show_routes, "mistakes", VIEWS[0]));
    cases.push(case("print is complete".into(), Bench::print, "wide", VIEWS[0]));
    cases.push(case("hostile names are text".into(), Bench::stay_inert, "hostile", VIEWS[0]));
    drop(bench);
    suite::main_in_turn(cases)
}

/// The command, its pages, and the browser, which shows one page at a time.
struct Bench {
    command: PathBuf,
    browser: Browser,
    folder: PathBuf,
}

impl Bench {
    /// Makes the command write all pages, and starts the browser.
    fn start(workspace: &Workspace) -> Result<Self> {
        let command = command::build(workspace)?;
        let tools = browser::fetch(workspace).or_absent("Chromium")?;
        let browser = Browser::start(workspace, &tools).context("Chromium cannot be started")?;
        let folder = workspace.target.join("report");
        fs::create_dir_all(&folder)?;
        let (root, hostile) = (&workspace.root, folder.join("hostile.dtb"));
        fs::write(&hostile, renamed(&fs::read(root.join(RENAMED))?)?)?;
        let bench = Self { command, browser, folder };
        for (page, source) in PAGES.into_iter().zip([root.join(RUN), root.join(MISTAKES), hostile])
        {
            bench.write(page, &source)?;
        }
        Ok(bench)
    }

    /// Makes the command write a page about a source.
    fn write(&self, name: &str, source: &Path) -> Result<()> {
        self.report(name, &[source.display().to_string()])
    }

    /// Makes the command write a page.
    fn report(&self, name: &str, arguments: &[String]) -> Result<()> {
        let mut report = process::command(&self.command.to_string_lossy(), &self.folder);
        report.args(["report", "--messages", "100", "-o"]).arg(self.page(name)).args(arguments);
        let output = process::output(&mut report)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
        Ok(())
    }

    fn page(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension("html")
    }

    fn open(&self, name: &str, (scheme, width): View) -> Result<String> {
        self.browser.emulate(scheme, width, HEIGHT)?;
        let address = format!("file://{}", self.page(name).display());
        self.browser.open(&address)?;
        Ok(address)
    }

    /// Checks that the page loads without errors in the browser's log, requests no other resources,
    /// and passes the audit.
    fn view(&self, page: &str, view @ (scheme, width): View) -> Result<()> {
        self.browser.log("performance")?;
        let address = self.open(page, view)?;
        let complaints = self.browser.execute(AUDIT, &json!([scheme, width]))?;
        let complaints = complaints.as_array().context("the audit has no list")?;
        let (count, shown) = (complaints.len(), complaints.iter().take(SHOWN));
        ensure!(count == 0, "{count}: {}", json!(shown.collect::<Vec<_>>()));
        let requests = self.browser.requests()?;
        ensure!(requests == [address.as_str()], "the page requests {requests:?}");
        let picture = self.folder.join(format!("{page}-{scheme}-{width}.png"));
        fs::write(picture, self.browser.screenshot()?)?;
        self.quiet()
    }

    /// Checks that the browser's log contains no errors.
    fn quiet(&self) -> Result<()> {
        let said = self.browser.log("browser")?;
        ensure!(said.is_empty(), "the browser reports {}", json!(said));
        Ok(())
    }

    fn follow_findings(&self, page: &str, view: View) -> Result<()> {
        self.open(page, view)?;
        self.browser.click(LINK)?;
        self.selected().context("after a click")?;
        self.open(page, view)?;
        self.browser.keys(LINK, ENTER)?;
        self.selected().context("after Enter")?;
        self.browser.execute("scrollTo(0, document.body.scrollHeight)", &json!([]))?;
        self.browser.keys(LINK, ENTER)?;
        self.selected().context("after Enter for the second time")?;
        self.quiet()
    }

    fn selected(&self) -> Result<()> {
        let complaint = self.browser.execute(SELECTED, &json!([]))?;
        ensure!(complaint == Value::Null, "{complaint}");
        Ok(())
    }

    /// Checks that the panel appears both for the pointer and for the keyboard focus.
    fn show_routes(&self, page: &str, view: View) -> Result<()> {
        self.open(page, view)?;
        let panel = "return document.querySelector('#panel').innerText";
        let has = |what: &str| -> Result<()> {
            let said = self.browser.execute(panel, &json!([]))?;
            ensure!(
                said.as_str().is_some_and(|said| said.contains(what)),
                "the panel shows {said} without {what}"
            );
            Ok(())
        };
        has("Tab key")?;
        self.browser.point("svg a.requester")?;
        has("/pcie@10000000: msi-map").context("under the pointer")?;
        has("msi-map = <").context("under the pointer")?;
        let way = "return document.querySelectorAll('svg path.way').length";
        let way = self.browser.execute(way, &json!([]))?;
        ensure!(way.as_u64() > Some(0), "no arrow of its route is highlighted");
        let focus = "document.querySelectorAll('svg a.requester')[2].focus()";
        self.browser.execute(focus, &json!([]))?;
        has("/device-a").context("with the focus")?;
        self.quiet()
    }

    /// Prints the page of a board with many CPUs and findings, and checks that the file has them
    /// all.
    fn print(&self, page: &str, view: View) -> Result<()> {
        let workspace = workspace::this()?;
        let poppler = pdf::fetch(workspace).or_absent("Poppler")?;
        fetch_boards(workspace)?;
        let registers = self.folder.join("wide.json");
        fs::write(&registers, SMALL_GIC)?;
        let board = Tree::Backports.folder(workspace).join(WIDE).display().to_string();
        let registers = ["--registers".to_owned(), registers.display().to_string()];
        self.report(page, &[&registers[..], std::slice::from_ref(&board)].concat())?;
        self.open(page, view)?;
        let file = self.folder.join("wide.pdf");
        fs::write(&file, self.browser.print()?)?;
        let text = without_blanks(&pdf::text(&poppler, &file)?);
        let is_printed = |what: &str| text.contains(&without_blanks(what));
        let inspection = self.json(&["inspect", "--json", &board])?;
        let cpus = inspection["cpus"].as_array().context("no CPUs")?;
        ensure!(cpus.len() >= 64, "the board has only {} CPUs", cpus.len());
        for (number, cpu) in cpus.iter().enumerate() {
            let id = cpu["id"].as_str().context("a CPU without name")?;
            ensure!(is_printed(id), "{id} is not printed");
            ensure!(is_printed(&format!("CPU {number}")), "CPU {number} has no column");
        }
        let [option, file] = &registers;
        let findings = self.json(&["lint", "--json", option, file, &board])?;
        let findings = findings.as_array().context("no findings")?;
        ensure!(findings.len() >= 8, "the board has only {} findings", findings.len());
        for finding in findings {
            for part in ["rule", "where", "message"] {
                let part = finding[part].as_str().context("an incomplete finding")?;
                // The page shows text in backticks as code, without the backticks.
                ensure!(is_printed(&part.replace('`', "")), "{part:?} is not printed");
            }
        }
        self.quiet()
    }

    /// Returns the command's output, whatever its exit status.
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = process::command(&self.command.to_string_lossy(), &self.folder);
        let output = process::output(command.args(arguments))?;
        serde_json::from_slice(&output.stdout).map_err(Into::into)
    }

    /// Checks that names appear as text and are not interpreted, and that an added script does not
    /// run.
    fn stay_inert(&self, page: &str, view: View) -> Result<()> {
        self.open(page, view)?;
        let text = self.browser.execute("return document.body.innerText", &json!([]))?;
        let text = text.as_str().context("no text")?;
        for (_, name) in NAMES {
            ensure!(text.contains(name), "{name} is not shown");
        }
        let injected = self.browser.execute(INJECTED, &json!([]))?;
        ensure!(injected == json!(0), "names created {injected} elements");
        self.quiet()?;
        let obeyed = self.browser.execute(FOREIGN, &json!([]))?;
        ensure!(obeyed == json!(false), "the page's policy lets a foreign script run");
        self.browser.log("browser").map(drop)
    }
}

/// Fetches the boards' devicetrees.
fn fetch_boards(workspace: &Workspace) -> Result<()> {
    let mut trees = dtb::fetch(workspace).into_iter();
    let boards = trees.find(|(tree, _)| *tree == Tree::Backports);
    boards.map_or(Ok(()), |(_, result)| result).or_absent("Debian's devicetrees")
}

/// Removes blanks, because the file's lines break anywhere.
fn without_blanks(text: &str) -> String {
    text.chars().filter(|one| !one.is_whitespace()).collect()
}
