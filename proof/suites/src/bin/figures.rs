//! Measures the figures of `docs/measurements.md` on this machine, which should be idle, and writes
//! them between the page's marks.

#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{command, process};
use doorbell_suites::size;

const PAGE: &str = "docs/measurements.md";
const END: &str = "<!-- end of figures -->";
/// Program of the compared crate that needs another compiler, if it has been built.
const PEER: &str = "peers/arm-vgic/target/release/arm-vgic-peer";

/// Measures the figures of docs/measurements.md and writes them; the machine should be idle
#[derive(Debug, Parser)]
struct Arguments {}

fn main() -> Result<()> {
    let Arguments {} = Arguments::parse();
    let workspace = workspace::this()?;
    let (growth, bench) = (growth(workspace)?, bench(workspace)?);
    let size = size::markdown(workspace)?;
    let page = workspace.root.join(PAGE);
    write(&page, "bench", &bench)?;
    write(&page, "growth", &growth)?;
    write(&page, "size", &size)
}

/// Returns the tables that the benchmark `doorbell-growth` prints.
fn growth(workspace: &Workspace) -> Result<String> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["run", "--release", "--quiet", "--package", "doorbell-bench"]);
    process::capture(cargo.args(["--bin", "doorbell-growth"]))
}

fn bench(workspace: &Workspace) -> Result<String> {
    let command = command::build(workspace)?;
    let mut bench = process::command(&command.to_string_lossy(), &workspace.root);
    bench.args(["bench", "--markdown"]);
    let peer = workspace.root.join(PEER);
    if peer.exists() {
        bench.arg("--peer").arg(peer);
    }
    process::capture(&mut bench)
}

fn write(path: &Path, name: &str, figures: &str) -> Result<()> {
    let page = std::fs::read_to_string(path)?;
    let page = with_figures(&page, name, figures)
        .with_context(|| format!("{}: no mark for the figures `{name}`", path.display()))?;
    Ok(std::fs::write(path, page)?)
}

/// Returns the page with these figures between their marks.
fn with_figures(page: &str, name: &str, figures: &str) -> Option<String> {
    let mark = format!("<!-- figures: {name} -->\n");
    let (before, after) = page.split_once(&mark)?;
    let (_, after) = after.split_once(END)?;
    Some(format!("{before}{mark}{}\n{END}{after}", figures.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_replace_those_between_their_marks() {
        let page = "a\n<!-- figures: x -->\nold\n<!-- end of figures -->\nb\n";
        let written = with_figures(page, "x", "new\n").unwrap();
        assert_eq!(written, "a\n<!-- figures: x -->\nnew\n<!-- end of figures -->\nb\n");
        assert_eq!(with_figures(&written, "x", "new").as_deref(), Some(written.as_str()));
    }

    #[test]
    fn a_page_without_the_mark_is_left_alone() {
        assert_eq!(with_figures("a\n<!-- end of figures -->\n", "x", "new"), None);
    }
}
