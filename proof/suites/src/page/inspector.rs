//! The browser inspector, whose outputs must be those of the command.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use doorbell_harness::hang;
use serde_json::{Value, json};

use super::judge::{MISTAKES, POLL, PageJudge};
use super::trees;

/// Script that clears what the page has said.
const FORGET: &str = "document.querySelector('#status').textContent = ''";
const STATUS: &str = "return document.querySelector('#status').textContent";
/// Script that returns an output as text, by its number.
const OUTPUT: &str = "return new TextDecoder().decode(outputs[arguments[0]])";
const LOADED: &str = "return document.readyState === 'complete' && document.title !== ''";
const HAS_NO_OUTPUT: &str =
    "return document.querySelector('#report').hidden && outputs.length === 0";
/// Script that finds out whether the module lets its memory grow to a gigabyte.
const GROW: &str = "const wasm = new Response(new Blob([module]).stream()
        .pipeThrough(new DecompressionStream('deflate-raw'))).arrayBuffer();
    window.grown = 'unknown';
    wasm.then((wasm) => WebAssembly.instantiate(wasm)).then(({ instance }) => {
      try { instance.exports.memory.grow(1 << 14); grown = true } catch { grown = false }
    })";
/// Script that makes the page's next time limit end at once.
const HURRY: &str = "const wait = setTimeout; window.setTimeout = (work) => wait(work, 100)";

const OVERLAYS: &str = "crates/gic-firmware/tests/overlay";
const MARINA: &str = "sim/machine/machines/marina";
const TABLES: [&str; 3] = ["apic.aml", "iort.aml", "mcfg.aml"];

fn open(judge: &PageJudge) -> Result<String> {
    judge.open(&judge.inspector)
}

/// Drops files of the workspace on the middle of the page, which is the report if it shows one, and
/// returns what the page then says.
fn drop_files(judge: &PageJudge, files: &[PathBuf]) -> Result<String> {
    let files: Vec<_> = files.iter().map(|file| judge.root.join(file)).collect();
    judge.ask(FORGET)?;
    judge.browser.drop_files((180, 300), &files)?;
    said(judge)
}

/// Waits until the page has inspected files or refused to, and returns what it says. Meanwhile, it
/// must answer.
fn said(judge: &PageJudge) -> Result<String> {
    let [answer, limit] = [hang::ANSWER, hang::RUN].map(hang::on_this_machine);
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        let said = judge.ask(STATUS)?;
        ensure!(asked.elapsed() < answer, "an answer took {:?}", asked.elapsed());
        let said = said.as_str().unwrap_or_default();
        if !said.is_empty() && !said.contains("being inspected") {
            return Ok(said.to_owned());
        }
        ensure!(start.elapsed() < limit, "the page says {said:?}");
        thread::sleep(POLL);
    }
}

/// Drops files that the page can inspect, and waits until their report is loaded: before, nothing
/// can be dropped on it, and keys that lead into its frame are lost.
fn inspect(judge: &PageJudge, files: &[PathBuf]) -> Result<()> {
    let said = drop_files(judge, files)?;
    ensure!(said.contains(": inspected in"), "{said}");
    in_report(judge, || judge.until(LOADED, &json!(true)))
}

/// Checks the report in its frame.
fn in_report(judge: &PageJudge, check: impl FnOnce() -> Result<()>) -> Result<()> {
    judge.browser.enter("#report")?;
    let outcome = check();
    judge.browser.leave()?;
    outcome
}

/// Checks that the file names no address, and that the page requests only parts of itself.
pub(crate) fn loads_nothing(judge: &PageJudge) -> Result<()> {
    let text = fs::read_to_string(&judge.inspector)?;
    for what in ["http:", "https:", "src=", "href=", "url(", "@import", "fetch("] {
        ensure!(!text.contains(what), "the page contains {what}");
    }
    ensure!(text.contains("content=\"default-src &#39;none&#39;; "), "there is no policy");
    let address = open(judge)?;
    inspect(judge, &[MISTAKES.into()])?;
    let foreign = |request: &String| *request != address && !request.starts_with("blob:");
    let requests: Vec<_> = judge.browser.requests()?.into_iter().filter(foreign).collect();
    ensure!(requests.is_empty(), "the page requests {requests:?}");
    judge.quiet()
}

/// Drops a file, and checks that a finding in the report leads to its box.
pub(crate) fn shows_a_dropped_file(judge: &PageJudge) -> Result<()> {
    open(judge)?;
    inspect(judge, &[MISTAKES.into()])?;
    in_report(judge, || {
        judge.browser.click("#findings a.place")?;
        judge.selected()
    })?;
    judge.quiet()
}

/// Compares each output with the command's, for trees, overlays, tables and dumps.
pub(crate) fn agrees_with_the_command(judge: &PageJudge) -> Result<()> {
    let data = judge.root.join("crates/gic-firmware/tests/data");
    for name in ["mistakes.dtb", "several-its.dtb", "wired.dtb", "pre-its.dtb"] {
        same(judge, &data, name)?;
    }
    // Overlays are dropped on the report of their base. Only `lint` reads them.
    let (folder, overlays) = (judge.root.join(OVERLAYS), ["first.dtbo", "second.dtbo"]);
    same(judge, &folder, "base.dtb")?;
    inspect(judge, &overlays.map(|name| folder.join(name)))?;
    compare(judge, &folder, &[&["lint", "--json", "base.dtb"], &overlays[..]].concat(), 3)?;
    fs::write(judge.folder.join("acpidump.txt"), dump(&judge.root.join(MARINA))?)?;
    same(judge, &judge.folder, "acpidump.txt")?;
    // The command reads tables from a folder, which is named like the files in the page.
    let source = TABLES.join(" + ");
    let folder = judge.folder.join(&source);
    fs::create_dir_all(&folder)?;
    for name in TABLES {
        fs::copy(judge.root.join(MARINA).join(name), folder.join(name))?;
    }
    open(judge)?;
    inspect(judge, &TABLES.map(|name| folder.join(name)))?;
    agree(judge, &judge.folder, &source)
}

/// Writes tables as `acpidump` does.
fn dump(folder: &Path) -> Result<String> {
    let mut dump = String::new();
    for (table, name) in ["APIC", "IORT", "MCFG"].into_iter().zip(TABLES) {
        writeln!(dump, "{table} @ 0x0000000000000000")?;
        for (at, row) in fs::read(folder.join(name))?.chunks(16).enumerate() {
            let row: Vec<_> = row.iter().map(|byte| format!("{byte:02X}")).collect();
            writeln!(dump, "    {:04X}: {}  ", at * 16, row.join(" "))?;
        }
    }
    Ok(dump)
}

/// Drops a file of a folder, and compares all outputs.
fn same(judge: &PageJudge, folder: &Path, source: &str) -> Result<()> {
    open(judge)?;
    inspect(judge, &[folder.join(source)])?;
    agree(judge, folder, source)
}

/// Compares all outputs about a source with what the command prints.
fn agree(judge: &PageJudge, folder: &Path, source: &str) -> Result<()> {
    compare(judge, folder, &["report", "--no-run", source], 1)?;
    compare(judge, folder, &["inspect", "--json", source], 2)?;
    compare(judge, folder, &["lint", "--json", source], 3)?;
    compare(judge, folder, &["graph", source], 4)
}

fn compare(judge: &PageJudge, folder: &Path, arguments: &[&str], number: usize) -> Result<()> {
    let printed = judge.print(folder, arguments)?;
    let shown = judge.browser.execute(OUTPUT, &json!([number]))?;
    let shown = shown.as_str().context("no output")?;
    ensure!(!printed.is_empty() && shown == printed, "{arguments:?}: {shown} is not {printed}");
    Ok(())
}

/// Drops files that the page cannot inspect.
pub(crate) fn refuses(judge: &PageJudge) -> Result<()> {
    open(judge)?;
    let [base, first, second] =
        ["base.dtb", "first.dtbo", "second.dtbo"].map(|name| Path::new(OVERLAYS).join(name));
    let source = PathBuf::from("sim/doorbell/tests/data/dts/board.dts");
    for (files, reason) in [
        (&[source][..], "`doorbell lint board.dts`"),
        (&["README.md".into()], "README.md is not a flattened devicetree"),
        (&[MISTAKES.into(), base.clone()], "do not describe one machine"),
        (&[base, second], "label \"new\""),
        (&[first], "together with its overlays"),
    ] {
        let said = drop_files(judge, files)?;
        ensure!(said.contains(reason), "{said}, without {reason}");
        ensure!(judge.ask(HAS_NO_OUTPUT)? == true, "{reason}: old outputs");
    }
    judge.quiet()
}

/// Checks that names in firmware and of files appear as text and are not interpreted.
pub(crate) fn shows_names_as_text(judge: &PageJudge) -> Result<()> {
    open(judge)?;
    inspect(judge, &[judge.hostile("<img src=x onerror=alert(1)>.dtb")?])?;
    judge.has_no_injected_elements()?;
    in_report(judge, || {
        judge.shows_hostile_names()?;
        ensure!(judge.ask("return self.origin")? == "null", "it shares the page's origin");
        Ok(())
    })?;
    judge.quiet()
}

/// Opens a hostile tree, and checks that the page answers meanwhile and says something in the end.
pub(crate) fn stays_alive(judge: &PageJudge, name: &str, tree: &[u8]) -> Result<()> {
    open(judge)?;
    let said = choose(judge, name, tree)?;
    eprintln!("{said}");
    ensure!(said.contains(": inspected in") || said.contains(": stopped after"), "{said}");
    judge.quiet()
}

/// Chooses a tree as the file, and returns what the page says.
fn choose(judge: &PageJudge, name: &str, tree: &[u8]) -> Result<String> {
    let file = judge.folder.join(name);
    fs::write(&file, tree)?;
    judge.browser.keys("#files", &file.display().to_string())?;
    said(judge)
}

/// Checks that an inspection ends at the time limit, that the page then works on, and that memory
/// has a maximum.
pub(crate) fn stops(judge: &PageJudge) -> Result<()> {
    open(judge)?;
    judge.ask(HURRY)?;
    let (name, tree) = trees::ALL[0];
    let said = choose(judge, name, &tree())?;
    ensure!(said.contains(": stopped after"), "{said}");
    open(judge)?;
    judge.ask(GROW)?;
    judge.until("return grown !== 'unknown'", &Value::Bool(true))?;
    ensure!(judge.ask("return grown")? == false, "memory grows to a gigabyte");
    inspect(judge, &[MISTAKES.into()])
}
