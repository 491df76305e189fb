//! Builds the browser inspector's module.

use std::path::PathBuf;

use anyhow::Result;

use crate::process;
use crate::toolchain::need_target;
use crate::workspace::Workspace;

/// The target of WebAssembly without an operating system.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Maximum memory of an inspection in bytes. Trees of 16 MB need up to 320 MB.
const MAX_MEMORY: usize = 512 << 20;

/// Builds the module and returns its path.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    need_target(&workspace.root, TARGET)?;
    let folder = workspace.target.join("page");
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["rustc", "--quiet", "--package", "doorbell-page", "--lib"]);
    cargo.args(["--crate-type", "cdylib", "--target", TARGET, "--profile", "page"]);
    cargo.arg("--target-dir").arg(&folder);
    cargo.args(["--", "-C", &format!("link-arg=--max-memory={MAX_MEMORY}")]);
    process::must(&mut cargo)?;
    Ok(folder.join(TARGET).join("page/doorbell_page.wasm"))
}
