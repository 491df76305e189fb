//! The cache of fetched files: packages, devicetrees, tools.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Returns `$DOORBELL_CACHE`, or `cache` in the target folder. No other folder is written unless
/// the user requests it.
pub fn folder(workspace: &Workspace) -> PathBuf {
    env::var_os("DOORBELL_CACHE").map_or_else(|| workspace.target.join("cache"), PathBuf::from)
}

/// Returns `true` if a call of [`fill`] has filled `folder` completely.
pub fn is_filled(folder: &Path) -> bool {
    stamp(folder).exists()
}

/// Fills `folder` by calling `work`, unless an earlier call has done so. A partially filled folder
/// is emptied first.
pub fn fill(folder: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_filled(folder) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    work()?;
    fs::write(stamp(folder), "").map_err(Into::into)
}

/// Returns every file in `folder` and its subfolders.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in next.read_dir()? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join(".filled")
}
