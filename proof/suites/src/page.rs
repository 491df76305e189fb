//! Builds the browser inspector.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use doorbell_harness::process;
use doorbell_harness::toolchain::need_target;
use doorbell_harness::workspace::Workspace;

/// The target of WebAssembly without an operating system.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Maximum length of the page in bytes.
const MAX_BYTES: usize = 1_000_000;
/// Maximum memory of an inspection in bytes. Trees of 16 MB need up to 320 MB.
const MAX_MEMORY: usize = 512 << 20;

/// Writes the page to `target/doorbell.html`, and returns its path.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    need_target(&workspace.root, TARGET)?;
    let folder = workspace.target.join("page");
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["rustc", "--quiet", "--package", "doorbell-page", "--lib"]);
    cargo.args(["--crate-type", "cdylib", "--target", TARGET, "--profile", "page"]);
    cargo.arg("--target-dir").arg(&folder);
    cargo.args(["--", "-C", &format!("link-arg=--max-memory={MAX_MEMORY}")]);
    process::must(&mut cargo)?;
    let module = folder.join(TARGET).join("page/doorbell_page.wasm");
    let module = fs::read(&module).with_context(|| format!("no {}", module.display()))?;
    let page = doorbell_page::assemble(&module)?;
    ensure!(page.len() <= MAX_BYTES, "the page has {} bytes, more than {MAX_BYTES}", page.len());
    let path = workspace.target.join("doorbell.html");
    fs::write(&path, page)?;
    Ok(path)
}
