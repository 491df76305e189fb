//! The cache of fetched files: packages, devicetrees, tools.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

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
/// is emptied first. If another thread or process is filling the folder, waits for it.
pub fn fill(folder: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_filled(folder) {
        return Ok(());
    }
    let cannot_create = || format!("cannot create {}", folder.display());
    fs::create_dir_all(folder.parent().unwrap_or(folder)).with_context(cannot_create)?;
    // Dropping the file releases the lock.
    let lock = File::create(folder.with_added_extension("lock")).with_context(cannot_create)?;
    lock.lock()?;
    if is_filled(folder) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(cannot_create)?;
    work()?;
    fs::write(stamp(folder), "").map_err(Into::into)
}

/// Fills `folder` by calling `work`, unless an earlier call has done so for this version.
pub fn fill_version(folder: &Path, version: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let note = folder.join("version");
    if fs::read_to_string(&note).is_ok_and(|known| known != version) {
        fs::remove_dir_all(folder)?;
    }
    fill(folder, || {
        work()?;
        fs::write(&note, version).map_err(Into::into)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn threads_that_need_a_folder_fill_it_once() {
        let temporary = crate::temporary::Folder::new().unwrap();
        let (folder, calls) = (temporary.path().join("filled"), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    fill(&folder, || {
                        calls.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                        Ok(fs::write(folder.join("package"), "")?)
                    })
                    .unwrap();
                    assert!(folder.join("package").exists());
                });
            }
        });
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
