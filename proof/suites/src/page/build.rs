//! Builds the browser inspector.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use doorbell_harness::wasm;
use doorbell_harness::workspace::Workspace;

/// Maximum length of the page in bytes.
const MAX_BYTES: usize = 1_000_000;

/// Writes the page to `target/doorbell.html`, and returns its path.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let module = wasm::build(workspace)?;
    let module = fs::read(&module).with_context(|| format!("no {}", module.display()))?;
    let page = doorbell_page::assemble(&module)?;
    ensure!(page.len() <= MAX_BYTES, "the page has {} bytes, more than {MAX_BYTES}", page.len());
    let path = workspace.target.join("doorbell.html");
    fs::write(&path, page)?;
    Ok(path)
}
