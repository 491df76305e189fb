//! The page that `doorbell report` writes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use doorbell_harness::dtb::Tree;
use doorbell_harness::pdf;
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::workspace;
use serde_json::{Value, json};

use super::judge::{ENTER, MISTAKES, PageJudge, VIEWS, View};

/// An embedded machine that can be run.
const RUN: &str = "sim/machine/machines/marina";
/// A board with 64 CPUs and 8 ITSes, and registers of a GIC that is too small for it.
const WIDE: &str = "hisilicon/hip07-d05.dtb";
const SMALL_GIC: &str = r#"{ "GICD_TYPER": "0x0" }"#;
/// A script that is not part of the page.
const FOREIGN: &str = "const one = document.createElement('script');
    one.textContent = 'window.obeyed = true'; document.body.append(one);
    return window.obeyed === true";
/// Link of a finding to its box in the drawing; the finding is one of the last, so that the page
/// has to scroll back.
const LINK: &str = "#findings li:last-child a.place, #findings li:nth-last-child(2) a.place";

/// Pages, named after the machines that they show.
pub(crate) const PAGES: [&str; 3] = ["run", "mistakes", "hostile"];

/// Makes the command write a page, and opens it.
fn open(judge: &PageJudge, page: &str, view: View) -> Result<String> {
    let source = match page {
        "run" => judge.root.join(RUN),
        "mistakes" => judge.root.join(MISTAKES),
        _ => judge.hostile("hostile.dtb")?,
    };
    judge.open(&write(judge, page, &[&source.to_string_lossy()])?, view)
}

/// Makes the command write a page, and returns its path.
fn write(judge: &PageJudge, page: &str, arguments: &[&str]) -> Result<PathBuf> {
    let file = judge.folder.join(page).with_extension("html");
    let report = ["report", "--messages", "100", "-o", &file.to_string_lossy()];
    judge.print(&judge.folder, &[&report, arguments].concat())?;
    Ok(file)
}

/// Checks that the page loads without errors in the browser's log, requests no other resources,
/// and passes the audit.
pub(crate) fn passes_audit(judge: &PageJudge, page: &str, view: View) -> Result<()> {
    let address = open(judge, page, view)?;
    judge.audit(view)?;
    let requests = judge.browser.requests()?;
    ensure!(requests == [address.as_str()], "the page requests {requests:?}");
    judge.quiet()
}

pub(crate) fn leads_to_boxes(judge: &PageJudge, page: &str, view: View) -> Result<()> {
    let address = open(judge, page, view)?;
    judge.browser.click(LINK)?;
    judge.selected().context("after a click")?;
    judge.browser.open(&address)?;
    for when in ["after Enter", "after Enter for the second time"] {
        judge.browser.keys(LINK, ENTER)?;
        judge.selected().context(when)?;
        judge.ask("scrollTo(0, document.body.scrollHeight)")?;
    }
    judge.quiet()
}

/// Checks that the panel appears both for the pointer and for the keyboard focus.
pub(crate) fn shows_routes(judge: &PageJudge) -> Result<()> {
    open(judge, "mistakes", VIEWS[0])?;
    let has = |what: &str| -> Result<()> {
        let said = judge.ask("return document.querySelector('#panel').innerText")?;
        let said = said.as_str().unwrap_or_default();
        ensure!(said.contains(what), "the panel shows {said} without {what}");
        Ok(())
    };
    has("Tab key")?;
    judge.browser.point("svg a.requester")?;
    has("/pcie@10000000: msi-map").context("under the pointer")?;
    has("msi-map = <").context("under the pointer")?;
    let way = judge.ask("return document.querySelectorAll('svg path.way').length")?;
    ensure!(way.as_u64() > Some(0), "no arrow of its route is highlighted");
    judge.ask("document.querySelectorAll('svg a.requester')[2].focus()")?;
    has("/device-a").context("with the focus")?;
    judge.quiet()
}

/// Prints the page of a board with many CPUs and findings, and checks that the file has them all.
pub(crate) fn prints_everything(judge: &PageJudge) -> Result<()> {
    let workspace = workspace::this()?;
    let poppler = pdf::fetch(workspace).or_absent("Poppler")?;
    let boards = Tree::Backports.fetched(workspace)?;
    let registers = judge.folder.join("wide.json");
    fs::write(&registers, SMALL_GIC)?;
    let (board, registers) = (boards.join(WIDE), registers.display());
    let (board, registers) = (board.display().to_string(), registers.to_string());
    let known = ["--registers", &registers, &board];
    judge.open(&write(judge, "wide", &known)?, VIEWS[0])?;
    let file = judge.folder.join("wide.pdf");
    fs::write(&file, judge.browser.print()?)?;
    let text = without_blanks(&pdf::text(&poppler, &file)?);
    let is_printed = |what: &str| text.contains(&without_blanks(what));
    let list = |arguments: &[&str], place: &str| -> Result<Vec<Value>> {
        let printed: Value = serde_json::from_str(&judge.print(&judge.folder, arguments)?)?;
        printed.pointer(place).and_then(Value::as_array).cloned().context("no list")
    };
    let cpus = list(&["inspect", "--json", &board], "/cpus")?;
    ensure!(cpus.len() >= 64, "the board has only {} CPUs", cpus.len());
    for cpu in &cpus {
        let id = cpu["id"].as_str().context("a CPU without name")?;
        ensure!(is_printed(id), "{id} is not printed");
    }
    let findings = list(&[&["lint", "--json"], &known[..]].concat(), "")?;
    ensure!(findings.len() >= 8, "the board has only {} findings", findings.len());
    for finding in findings {
        for part in ["rule", "where", "message"] {
            let part = finding[part].as_str().context("an incomplete finding")?;
            // The page shows text in backticks as code, without the backticks.
            ensure!(is_printed(&part.replace('`', "")), "{part:?} is not printed");
        }
    }
    judge.quiet()
}

/// Checks that names appear as text and are not interpreted, and that an added script does not run.
pub(crate) fn shows_names_as_text(judge: &PageJudge) -> Result<()> {
    open(judge, "hostile", VIEWS[0])?;
    judge.shows_hostile_names()?;
    judge.quiet()?;
    ensure!(judge.ask(FOREIGN)? == json!(false), "the page's policy lets a foreign script run");
    judge.browser.log("browser").map(drop)
}

/// Removes blanks, because the file's lines break anywhere.
fn without_blanks(text: &str) -> String {
    text.chars().filter(|one| !one.is_whitespace()).collect()
}
