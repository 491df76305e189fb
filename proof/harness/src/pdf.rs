//! Reads PDF files with Poppler, unpacked from Debian's package.

use std::path::Path;

use anyhow::Result;

use crate::apt::{self, Suite};
use crate::dtb::Tools;
use crate::process;
use crate::workspace::Workspace;

/// Unpacks the package into the cache.
pub fn fetch(workspace: &Workspace) -> Result<Tools> {
    let packages = ["poppler-utils"];
    apt::cached_with_needs(workspace, Suite::Stable, "poppler", &packages).map(Tools::at)
}

/// Returns the visible text of a file's pages, in the order in which the file draws it.
pub fn text(tools: &Tools, file: &Path) -> Result<String> {
    let mut command = tools.command("pdftotext");
    command.args(["-raw", "-enc", "UTF-8"]).arg(file).arg("-");
    process::capture(&mut command)
}
