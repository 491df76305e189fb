//! The page that the command writes, in a real browser. It is shown light and dark, wide and
//! narrow, with names that would be code if they were not escaped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;
use doorbell_harness::browser::{self, Browser};
use doorbell_harness::command;

/// Says what is wrong with the page that is open, as a list of sentences.
const AUDIT: &str = include_str!("report/audit.js");
/// Says what is wrong with the box of the address's fragment: it must be in view, and have the
/// focus.
const SELECTED: &str = include_str!("report/selected.js");
/// A machine of ours that can be run, one with many mistakes, and one whose names are changed.
const RUN: &str = "sim/machine/machines/marina";
const MISTAKES: &str = "crates/gic-firmware/tests/data/mistakes.dtb";
const RENAMED: &str = "sim/machine/machines/harbour.dtb";
/// Names in [`RENAMED`], each with one of the same length that a browser must not obey.
const NAMES: [(&str, &str); 3] = [
    ("interrupt-controller@8000000", "<img src=x onerror=alert(1)>"),
    ("Doorbell Harbour", "<script>1</scrip"),
    ("pcie@20000000", "\"'><b id=n1>&"),
];
/// Content that [`NAMES`] must not become.
const INJECTED: &str = "return document.querySelectorAll('img, b[id], main script').length";
/// A script that did not come with the page.
const FOREIGN: &str = "const one = document.createElement('script');
    one.textContent = 'window.obeyed = true'; document.body.append(one);
    return window.obeyed === true";

/// Colours and widths in which a person may read it.
const VIEWS: [(&str, u32); 4] = [("light", 1280), ("light", 390), ("dark", 1280), ("dark", 390)];
const HEIGHT: u32 = 900;
/// Complaints that are printed of a page.
const SHOWN: usize = 5;
const ENTER: &str = "\u{e007}";
/// A finding's link to its box: the last one, so that the page has to scroll back.
const LINK: &str = "#findings li:last-child a.place, #findings li:nth-last-child(2) a.place";

/// Each page in each view counted as a case, and each thing that a reader does with it.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let command = command::build(workspace)?;
    let tools = match browser::fetch(workspace) {
        Ok(tools) => tools,
        Err(absent) => {
            tally.skip(format!("no Chromium: {absent:#}"));
            return Ok(());
        }
    };
    let browser = Browser::start(workspace, &tools).context("Chromium does not start")?;
    let folder = workspace.target.join("report");
    fs::create_dir_all(&folder)?;
    let hostile = folder.join("hostile.dtb");
    fs::write(&hostile, renamed(&fs::read(workspace.root.join(RENAMED))?)?)?;
    let bench = Bench { command, browser, folder };
    let root = &workspace.root;
    let pages =
        [("run", root.join(RUN)), ("mistakes", root.join(MISTAKES)), ("hostile", hostile.clone())];
    for (name, source) in &pages {
        bench.write(name, source)?;
        for (scheme, width) in VIEWS {
            let case = format!("{name}, {scheme}, {width} pixels");
            tally.case(&case, bench.view(name, scheme, width));
        }
    }
    for (scheme, width) in VIEWS {
        let case = format!("findings lead to boxes, {scheme}, {width} pixels");
        tally.case(&case, bench.follow_findings(scheme, width));
    }
    tally.case("a box shows its route", bench.show_routes());
    tally.case("hostile names are text", bench.stay_inert());
    Ok(())
}

/// The blob with the names changed, each in all its places.
fn renamed(blob: &[u8]) -> Result<Vec<u8>> {
    let mut blob = blob.to_vec();
    for (from, to) in NAMES {
        ensure!(from.len() == to.len(), "{to} is not as long as {from}");
        let places: Vec<_> =
            (0..blob.len()).filter(|&at| blob[at..].starts_with(from.as_bytes())).collect();
        ensure!(!places.is_empty(), "{RENAMED} has no {from}");
        for at in places {
            blob[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    Ok(blob)
}

struct Bench {
    command: PathBuf,
    browser: Browser,
    folder: PathBuf,
}

impl Bench {
    /// Has the command write a page.
    fn write(&self, name: &str, source: &Path) -> Result<()> {
        let mut report = process::command(&self.command.to_string_lossy(), &self.folder);
        report.args(["report", "--messages", "100", "-o"]).arg(self.page(name)).arg(source);
        let output = process::output(&mut report)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
        Ok(())
    }

    fn page(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension("html")
    }

    fn open(&self, name: &str, scheme: &str, width: u32) -> Result<String> {
        self.browser.emulate(scheme, width, HEIGHT)?;
        let address = format!("file://{}", self.page(name).display());
        self.browser.open(&address)?;
        Ok(address)
    }

    /// The page loads without a word from the browser, asks for nothing, and is well made.
    fn view(&self, name: &str, scheme: &str, width: u32) -> Result<()> {
        self.browser.log("performance")?;
        let address = self.open(name, scheme, width)?;
        let complaints = self.browser.execute(AUDIT, &json!([scheme, width]))?;
        let complaints = complaints.as_array().context("the audit has no list")?;
        let (count, shown) = (complaints.len(), complaints.iter().take(SHOWN));
        ensure!(count == 0, "{count}: {}", json!(shown.collect::<Vec<_>>()));
        let requests = self.browser.requests()?;
        ensure!(requests == [address.as_str()], "it asks for {requests:?}");
        let picture = self.folder.join(format!("{name}-{scheme}-{width}.png"));
        fs::write(picture, self.browser.screenshot()?)?;
        self.quiet()
    }

    /// The browser has nothing to complain of.
    fn quiet(&self) -> Result<()> {
        let said = self.browser.log("browser")?;
        ensure!(said.is_empty(), "the browser says {}", json!(said));
        Ok(())
    }

    fn follow_findings(&self, scheme: &str, width: u32) -> Result<()> {
        self.open("mistakes", scheme, width)?;
        self.browser.click(LINK)?;
        self.selected().context("by a click")?;
        self.open("mistakes", scheme, width)?;
        self.browser.keys(LINK, ENTER)?;
        self.selected().context("by the keyboard")?;
        self.browser.execute("scrollTo(0, document.body.scrollHeight)", &json!([]))?;
        self.browser.keys(LINK, ENTER)?;
        self.selected().context("by the keyboard, once more")?;
        self.quiet()
    }

    fn selected(&self) -> Result<()> {
        let complaint = self.browser.execute(SELECTED, &json!([]))?;
        ensure!(complaint == Value::Null, "{complaint}");
        Ok(())
    }

    /// A pointer, and the keyboard's focus.
    fn show_routes(&self) -> Result<()> {
        self.open("mistakes", "light", 1280)?;
        let panel = "return document.querySelector('#panel').innerText";
        let has = |what: &str| -> Result<()> {
            let said = self.browser.execute(panel, &json!([]))?;
            ensure!(said.as_str().is_some_and(|said| said.contains(what)), "{said} has no {what}");
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

    /// Names are there, and nothing came of them; nor of a script that somebody else adds.
    fn stay_inert(&self) -> Result<()> {
        self.open("hostile", "light", 1280)?;
        let text = self.browser.execute("return document.body.innerText", &json!([]))?;
        let text = text.as_str().context("no text")?;
        for (_, name) in NAMES {
            ensure!(text.contains(name), "{name} is not shown");
        }
        let injected = self.browser.execute(INJECTED, &json!([]))?;
        ensure!(injected == json!(0), "{injected} elements came of names");
        self.quiet()?;
        let obeyed = self.browser.execute(FOREIGN, &json!([]))?;
        ensure!(obeyed == json!(false), "the page's policy lets a foreign script run");
        self.browser.log("browser").map(drop)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_change_in_all_places() {
        let all: Vec<u8> =
            NAMES.iter().flat_map(|(from, _)| [from, *from].concat().into_bytes()).collect();
        let changed = renamed(&all).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let wanted: String = NAMES.iter().map(|(_, to)| [*to, to].concat()).collect();
        assert_eq!(changed.ok(), Some(wanted));
        assert!(renamed(b"nothing of it").is_err());
    }
}
