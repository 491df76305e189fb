//! Reads PDF files with Poppler, unpacked from Debian's package.

use std::path::Path;

use anyhow::Result;

use crate::apt::{Apt, Suite};
use crate::dtb::Tools;
use crate::workspace::Workspace;
use crate::{cache, process};

/// Unpacks the package into the cache.
pub fn fetch(workspace: &Workspace) -> Result<Tools> {
    let folder = cache::folder(workspace).join("poppler");
    if !cache::is_filled(&folder) {
        let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || apt.unpack_with_needs(&["poppler-utils"], Suite::Stable, &folder))?;
    }
    Ok(Tools::at(folder))
}

/// Returns the visible text of a file's pages, in the order in which the file draws it.
pub fn text(tools: &Tools, file: &Path) -> Result<String> {
    let mut command = tools.command("pdftotext");
    command.args(["-raw", "-enc", "UTF-8"]).arg(file).arg("-");
    process::capture(&mut command)
}
