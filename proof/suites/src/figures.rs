//! The tables that programs write between the marks of `docs/measurements.md`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use doorbell_harness::workspace::Workspace;

const END: &str = "<!-- end of figures -->";

/// Returns the path of the page.
pub(crate) fn page(workspace: &Workspace) -> PathBuf {
    workspace.root.join("docs/measurements.md")
}

/// Writes a table between its marks.
///
/// # Errors
/// Fails if the page has no mark with this name.
pub(crate) fn write(path: &Path, name: &str, figures: &str) -> Result<()> {
    let page = std::fs::read_to_string(path)?;
    let page = with_figures(&page, name, figures)
        .with_context(|| format!("{}: no mark for the figures `{name}`", path.display()))?;
    Ok(std::fs::write(path, page)?)
}

/// Returns the page with these figures between their marks.
fn with_figures(page: &str, name: &str, figures: &str) -> Option<String> {
    let (before, _, after) = split(page, name)?;
    Some(format!("{before}{}\n{after}", figures.trim_end()))
}

/// Returns the figures with this name in the page.
pub(crate) fn of_page<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    split(page, name).map(|(_, figures, _)| figures)
}

/// Splits the page around the figures with this name.
fn split<'a>(page: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mark = format!("<!-- figures: {name} -->\n");
    let start = page.find(&mark)? + mark.len();
    let (before, after) = page.split_at(start);
    let (figures, after) = after.split_at(after.find(END)?);
    Some((before, figures, after))
}
