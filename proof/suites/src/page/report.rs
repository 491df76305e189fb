//! The page that `doorbell report` writes.

use anyhow::{Result, ensure};
use serde_json::json;

use super::judge::{MISTAKES, PageJudge};

/// An embedded machine that can be run.
const RUN: &str = "sim/machine/machines/marina";
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
fn open(judge: &PageJudge, page: &str) -> Result<String> {
    let source = match page {
        "run" => judge.root.join(RUN),
        "mistakes" => judge.root.join(MISTAKES),
        _ => judge.hostile("hostile.dtb")?,
    };
    let file = judge.folder.join(page).with_extension("html");
    let (to, source) = (file.to_string_lossy(), source.to_string_lossy());
    judge.print(&judge.folder, &["report", "--messages", "100", "-o", &to, &source])?;
    judge.open(&file)
}

/// Checks that the page loads without errors in the browser's log, and requests no other resources.
pub(crate) fn loads_alone(judge: &PageJudge, page: &str) -> Result<()> {
    let address = open(judge, page)?;
    let requests = judge.browser.requests()?;
    ensure!(requests == [address.as_str()], "the page requests {requests:?}");
    judge.quiet()
}

pub(crate) fn leads_to_boxes(judge: &PageJudge) -> Result<()> {
    open(judge, "mistakes")?;
    judge.browser.click(LINK)?;
    judge.selected()?;
    judge.quiet()
}

/// Checks that names appear as text and are not interpreted, and that an added script does not run.
pub(crate) fn shows_names_as_text(judge: &PageJudge) -> Result<()> {
    open(judge, "hostile")?;
    judge.shows_hostile_names()?;
    judge.quiet()?;
    ensure!(judge.ask(FOREIGN)? == json!(false), "the page's policy lets a foreign script run");
    judge.browser.log("browser").map(drop)
}
